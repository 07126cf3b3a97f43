//! The limits of docs/SPEC.md, measured: the table there and the answers here are the same, for ours at every block size
//! and for the kernel's driver at those that it knows.

use std::fmt::Write as _;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context as _, Result};
use ext2dax::{Error, FileSystem, SetXattr};
use ext2dax_crashtest::judge;
use ext2dax_crashtest::kernel::{Mode, Mounted};
use rustix::fs::XattrFlags;

use crate::scratch;

const BLOCK_SIZES: [u32; 7] = [1024, 2048, 4096, 8192, 16_384, 32_768, 65_536];

/// No answer lies above: the format has no larger file than 2^32 sectors of 512 bytes.
const ABOVE_ALL: u64 = 1 << 43;

/// The greatest number for which `fits` holds, from 0 (which it must hold for) to below `end`.
fn greatest(end: u64, mut fits: impl FnMut(u64) -> Result<bool>) -> Result<u64> {
    let (mut low, mut high) = (0, end);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if fits(middle)? {
            low = middle;
        } else {
            high = middle;
        }
    }
    Ok(low)
}

/// `false` for the error that means too much, a failure for every other.
fn unless<T>(result: Result<T, Error>, too_much: &[Error]) -> Result<bool> {
    match result {
        Ok(_) => Ok(true),
        Err(error) if too_much.contains(&error) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn unless_errno<T>(result: std::io::Result<T>, too_much: &[rustix::io::Errno]) -> Result<bool> {
    let known = |error: &std::io::Error| {
        let number = error.raw_os_error();
        too_much
            .iter()
            .any(|errno| Some(errno.raw_os_error()) == number)
    };
    match result {
        Ok(_) => Ok(true),
        Err(error) if known(&error) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Largest file, longest symlink, largest attribute: in bytes.
type Measured = [u64; 3];

const NAMES: [&str; 3] = ["largest file", "longest symlink", "largest attribute"];

fn ours(fs: &FileSystem) -> Result<Measured> {
    let file = fs.create("/f")?;
    let size = greatest(ABOVE_ALL, |size| {
        unless(file.set_len(size), &[Error::FileTooLarge])
    })?;
    // The last byte of all can be had, and not the next.
    file.set_len(0)?;
    file.write_all_at(b"!", size - 1)?;
    assert_eq!(
        file.write_at(&b"!"[..], size).unwrap_err(),
        Error::FileTooLarge
    );
    let target = greatest(1 << 17, |len| {
        let target = vec![b'x'; usize::try_from(len)?];
        let made = unless(fs.symlink(&target[..], "/s"), &[Error::NameTooLong])?;
        if made {
            fs.remove_file("/s")?;
        }
        Ok(made)
    })?;
    let value = greatest(1 << 17, |len| {
        let value = vec![b'x'; usize::try_from(len)?];
        let set = file.inode().set_xattr(b"user.a", &value, SetXattr::Any);
        unless(set, &[Error::NoSpace, Error::ValueTooLong])
    })?;
    Ok([size, target, value])
}

fn kernels(root: &Path) -> Result<Measured> {
    use rustix::io::Errno;
    let (at, link) = (root.join("f"), root.join("s"));
    let file = std::fs::File::create(&at)?;
    let size = greatest(ABOVE_ALL, |size| {
        unless_errno(file.set_len(size), &[Errno::FBIG])
    })?;
    let target = greatest(1 << 17, |len| {
        let target = "x".repeat(usize::try_from(len)?);
        let made = unless_errno(symlink(target, &link), &[Errno::NAMETOOLONG])?;
        if made {
            std::fs::remove_file(&link)?;
        }
        Ok(made)
    })?;
    let value = greatest(1 << 17, |len| {
        let value = vec![b'x'; usize::try_from(len)?];
        let set = rustix::fs::setxattr(&at, "user.a", &value, XattrFlags::empty());
        unless_errno(set.map_err(Into::into), &[Errno::NOSPC, Errno::TOOBIG])
    })?;
    Ok([size, target, value])
}

fn measure(block_size: u32) -> Result<Option<(Measured, Option<Measured>)>> {
    let scratch = scratch::dir()?;
    let image = scratch.path().join("image");
    let size = block_size.to_string();
    if !judge::mke2fs(&image, 32, &["-b", &size, "-I", "256", "-N", "64"])? {
        return Ok(None);
    }
    let fs = scratch::mount(&image)?;
    let ours = ours(&fs).context("ours")?;
    fs.unmount()?;
    judge::clean(&image)?;
    if block_size > 4096 || !judge::mke2fs(&image, 32, &["-b", &size, "-I", "256", "-N", "64"])? {
        return Ok(Some((ours, None)));
    }
    let Some(mounted) = Mounted::new(&image, Mode::Write)? else {
        return Ok(Some((ours, None)));
    };
    let kernels = kernels(mounted.path()).context("the kernel")?;
    mounted.unmount()?;
    Ok(Some((ours, Some(kernels))))
}

fn with_commas(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The rows as the table has them: a dash where there is no kernel.
fn rows(measured: &[(Measured, Option<Measured>)]) -> String {
    let mut text = String::new();
    for (index, name) in NAMES.iter().enumerate() {
        let _ = write!(text, "| {name} |");
        for (ours, _) in measured {
            let _ = write!(text, " {} |", with_commas(ours[index]));
        }
        text.push('\n');
        let _ = write!(text, "| {name}, ext4 |");
        for (_, kernels) in measured {
            let cell = kernels.map_or("-".to_owned(), |kernels| with_commas(kernels[index]));
            let _ = write!(text, " {cell} |");
        }
        text.push('\n');
    }
    text
}

#[test]
fn limits_are_those_of_the_specification() -> Result<()> {
    let mut measured = Vec::new();
    for block_size in BLOCK_SIZES {
        let Some(one) = measure(block_size).with_context(|| format!("blocks of {block_size}"))?
        else {
            return Ok(());
        };
        measured.push(one);
    }
    let has_kernel = measured[0].1.is_some();
    let rows = rows(&measured);
    let specification = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/SPEC.md");
    let specification = std::fs::read_to_string(specification)?;
    for row in rows
        .lines()
        .filter(|row| has_kernel || !row.contains("ext4"))
    {
        // The last cell names the test.
        assert!(
            specification.lines().any(|line| line.starts_with(row)),
            "docs/SPEC.md does not say:\n{row}\nmeasured:\n{rows}"
        );
    }
    Ok(())
}

/// Names of one file, and subdirectories of one directory with the names that they have themselves.
#[test]
fn a_file_has_at_most_32000_names() -> Result<()> {
    const NAMES: u32 = 32_000;
    /// What the ext4 driver allows.
    const KERNELS: u32 = 65_000;
    let scratch = scratch::dir()?;
    let image = scratch.path().join("image");
    if !judge::mke2fs(&image, 64, &["-b", "1024", "-N", "33000"])? {
        return Ok(());
    }
    let fs = scratch::mount(&image)?;
    fs.create_dir("/links")?;
    fs.create_dir("/dirs")?;
    drop(fs.create("/file")?);
    for number in 1..NAMES {
        fs.hard_link("/file", format!("/links/{number}"))?;
    }
    assert_eq!(
        fs.hard_link("/file", "/links/x").unwrap_err(),
        Error::TooManyLinks
    );
    // Each `..` is one, and the directory's own `.` and its name two more.
    for number in 2..NAMES {
        fs.create_dir(format!("/dirs/{number}"))?;
    }
    assert_eq!(fs.create_dir("/dirs/x").unwrap_err(), Error::TooManyLinks);
    fs.create_dir("/other")?;
    assert_eq!(
        fs.rename("/other", "/dirs/x").unwrap_err(),
        Error::TooManyLinks
    );
    fs.rename("/dirs/2", "/dirs/3")?;
    fs.rename("/other", "/dirs/x")?;
    fs.unmount()?;
    judge::clean(&image)?;
    let Some(mounted) = Mounted::new(&image, Mode::Write)? else {
        return Ok(());
    };
    // Without an index a directory is searched from its start for each name: many small ones.
    let link = |number: u32| {
        let dir = mounted.join(format!("links{}", number / 500));
        let _ = std::fs::create_dir(&dir);
        let name = dir.join(number.to_string());
        std::fs::hard_link(mounted.join("file"), name).map_err(|error| error.raw_os_error())
    };
    for number in NAMES..KERNELS {
        assert_eq!(link(number), Ok(()));
    }
    let too_many = rustix::io::Errno::MLINK.raw_os_error();
    assert_eq!(link(KERNELS), Err(Some(too_many)));
    mounted.unmount()?;
    // What another driver made stays, and goes one by one.
    let fs = scratch::mount(&image)?;
    assert_eq!(u32::from(fs.metadata("/file")?.nlink()), KERNELS);
    fs.remove_file("/links/1")?;
    assert_eq!(u32::from(fs.metadata("/file")?.nlink()), KERNELS - 1);
    fs.unmount()?;
    judge::clean(&image)
}
