//! Extended attributes and access control lists: what the kernel wrote, we read, and the other way round; the same calls
//! have the same answers, error for error.

use anyhow::{Context, Result, ensure};
use ext2dax::SetXattr;
use ext2dax_crashtest::judge;
use ext2dax_crashtest::kernel::{Mode, Mounted};

use crate::scratch;

mod answers;
mod flags;
mod images;
mod lists;
mod systems;

use systems::{Kernel, Kind, Op, Ours, System, everything};

const ACCESS: &[u8] = b"system.posix_acl_access";
const DEFAULT: &[u8] = b"system.posix_acl_default";

const NOBODY: u32 = u32::MAX;

/// A list in the form of the system calls: tag, permissions, id.
fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut value = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        value.extend(tag.to_le_bytes());
        value.extend(permissions.to_le_bytes());
        value.extend(id.to_le_bytes());
    }
    value
}

/// Owner `modes[0]`, a user, group `modes[1]`, a group, a mask, others `modes[2]`.
fn named(modes: [u16; 3], user: u32, mask: u16) -> Vec<u8> {
    acl(&[
        (0x01, modes[0], NOBODY),
        (0x02, 6, user),
        (0x04, modes[1], NOBODY),
        (0x08, 5, user + 70_000),
        (0x10, mask, NOBODY),
        (0x20, modes[2], NOBODY),
    ])
}

fn plain(modes: [u16; 3]) -> Vec<u8> {
    acl(&[
        (0x01, modes[0], NOBODY),
        (0x04, modes[1], NOBODY),
        (0x20, modes[2], NOBODY),
    ])
}

fn masked(modes: [u16; 3]) -> Vec<u8> {
    acl(&[
        (0x01, modes[0], NOBODY),
        (0x04, modes[1], NOBODY),
        (0x10, modes[1], NOBODY),
        (0x20, modes[2], NOBODY),
    ])
}

fn set(path: &str, name: &[u8], value: &[u8]) -> Op {
    Op::Set(
        path.to_owned(),
        name.to_owned(),
        value.to_owned(),
        SetXattr::Any,
    )
}

/// Shapes that the kernel mounts.
const KERNEL_SHAPES: &[(&str, &str)] = &[
    ("1024", "128"),
    ("1024", "256"),
    ("2048", "128"),
    ("2048", "256"),
    ("4096", "128"),
    ("4096", "256"),
];

/// Two equal, empty images, one of them mounted by the kernel and one by us.
struct Pair {
    dir: tempfile::TempDir,
    mounted: Option<Mounted>,
    kernel: Kernel,
    ours: Option<Ours>,
}

impl Pair {
    fn new(block: &str, inode: &str) -> Result<Option<Self>> {
        let dir = scratch::dir()?;
        let (theirs, image) = (dir.path().join("theirs"), dir.path().join("ours"));
        let args = ["-b", block, "-I", inode, "-N", "4096"];
        if !judge::mke2fs(&theirs, 16, &args)? {
            return Ok(None);
        }
        std::fs::copy(&theirs, &image)?;
        let Some(mounted) = Mounted::new(&theirs, Mode::Write)? else {
            return Ok(None);
        };
        Ok(Some(Self {
            kernel: Kernel(mounted.path().to_owned()),
            ours: Some(Ours(scratch::mount(&image)?)),
            mounted: Some(mounted),
            dir,
        }))
    }

    fn ours(&mut self) -> &mut Ours {
        self.ours.as_mut().expect("mounted")
    }

    /// Both answer the same.
    fn both(&mut self, op: &Op) -> Result<systems::Outcome> {
        let (theirs, ours) = (self.kernel.apply(op), self.ours().apply(op));
        ensure!(theirs == ours, "{op:?}: kernel {theirs:?}, ours {ours:?}");
        Ok(ours)
    }

    fn same(&mut self, path: &str) -> Result<()> {
        let theirs = everything(&mut self.kernel, path);
        let ours = everything(self.ours(), path);
        ensure!(theirs == ours, "{path}: kernel {theirs:?}, ours {ours:?}");
        Ok(())
    }

    /// Ends both mounts; both images are clean, and each side then reads the other's as it read its own.
    fn end(mut self, paths: &[&str]) -> Result<()> {
        let wanted: Vec<_> = paths
            .iter()
            .map(|path| everything(&mut self.kernel, path))
            .collect();
        self.mounted.take().expect("mounted").unmount()?;
        let ours = self.ours.take().expect("mounted");
        ours.0.unmount()?;
        let (theirs, image) = (self.dir.path().join("theirs"), self.dir.path().join("ours"));
        judge::clean(&theirs).context("the kernel's image")?;
        judge::clean(&image).context("our image")?;
        let mounted = Mounted::new(&image, Mode::Write)?.context("mounted before")?;
        let mut kernel = Kernel(mounted.path().to_owned());
        let mut ours = Ours(scratch::mount(&theirs)?);
        for (path, wanted) in paths.iter().zip(&wanted) {
            let read = everything(&mut kernel, path);
            ensure!(
                &read == wanted,
                "{path} of ours: kernel {read:?}, wanted {wanted:?}"
            );
            let read = everything(&mut ours, path);
            ensure!(
                &read == wanted,
                "{path} of the kernel's: ours {read:?}, wanted {wanted:?}"
            );
        }
        // Each goes on with what the other left.
        for system in [&mut kernel as &mut dyn System, &mut ours] {
            for path in paths {
                let _ = system.apply(&set(path, b"trusted.after", b"1"));
                let _ = system.apply(&Op::Chmod((*path).to_owned(), 0o640));
            }
        }
        mounted.unmount()?;
        ours.0.unmount()?;
        judge::clean(&theirs).context("the kernel's image, changed by us")?;
        judge::clean(&image).context("our image, changed by the kernel")
    }
}

fn each_shape(test: fn(&mut Pair) -> Result<Vec<&'static str>>) {
    for (block, inode) in KERNEL_SHAPES {
        let attempt = || -> Result<()> {
            let Some(mut pair) = Pair::new(block, inode)? else {
                return Ok(());
            };
            let paths = test(&mut pair)?;
            pair.end(&paths)
        };
        if let Err(error) = attempt() {
            panic!("blocks of {block}, inodes of {inode}: {error:#}");
        }
    }
}

/// One of each kind.
fn four_kinds(pair: &mut Pair) -> Result<()> {
    for (kind, name) in [
        (Kind::File, "file"),
        (Kind::Dir, "dir"),
        (Kind::Fifo, "fifo"),
        (Kind::Symlink, "link"),
    ] {
        pair.both(&Op::Make(kind, name.to_owned(), 0o755, 0))?
            .expect("a new name");
    }
    Ok(())
}
