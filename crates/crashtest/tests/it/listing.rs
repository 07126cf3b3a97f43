//! A long directory, listed a few names at a time while names come and go: in the library, on a FUSE mount and on the
//! kernel's mount. Whatever was there all the time is seen, and seen once.

use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::path::Path;

use anyhow::{Result, ensure};
use ext2dax::Inode;
use ext2dax_crashtest::judge;
use ext2dax_crashtest::kernel::{Mode, Mounted};
use ext2dax_crashtest::served::{SHARED, Served};
use rustix::fs::{OFlags, RawDir};

use crate::scratch;

/// Names that stay, as many that go, and some that come.
const NAMES: usize = 1500;

/// Names that are taken at a time, about.
const AT_A_TIME: usize = 3;

fn stays(number: usize) -> String {
    format!("stays-{number}-{}", "s".repeat(number % 90))
}

fn goes(number: usize) -> String {
    format!("goes-{number}-{}", "g".repeat(number % 130))
}

/// Names that come and go, a few at each turn.
struct Changes {
    turn: usize,
}

impl Changes {
    /// Calls `remove` and `add` with the names of one more turn.
    fn more(
        &mut self,
        mut remove: impl FnMut(&str) -> Result<()>,
        mut add: impl FnMut(&str) -> Result<()>,
    ) -> Result<()> {
        if self.turn < NAMES {
            remove(&goes(self.turn))?;
            add(&format!("comes-{}", self.turn))?;
        }
        self.turn += 1;
        Ok(())
    }
}

fn check(seen: &[String]) -> Result<()> {
    let mut times = HashMap::<&str, usize>::new();
    for name in seen {
        *times.entry(name).or_default() += 1;
    }
    for number in 0..NAMES {
        let name = stays(number);
        let times = times.get(&*name).copied().unwrap_or(0);
        ensure!(times == 1, "{name} was seen {times} times");
    }
    let twice = times.iter().find(|(_, times)| **times > 1);
    ensure!(twice.is_none(), "seen more than once: {twice:?}");
    Ok(())
}

fn library(dir: &Inode) -> Result<()> {
    let (mut seen, mut cookie, mut changes) = (Vec::new(), 0, Changes { turn: 0 });
    loop {
        let entries = dir.read_dir(cookie, AT_A_TIME)?;
        let Some(last) = entries.last() else { break };
        cookie = last.next;
        seen.extend(
            entries
                .iter()
                .map(|entry| String::from_utf8_lossy(&entry.name).into_owned()),
        );
        changes.more(
            |name| Ok(dir.unlink(name.as_bytes())?),
            |name| {
                Ok(dir
                    .create(name.as_bytes(), &ext2dax::New::default())
                    .map(drop)?)
            },
        )?;
    }
    check(&seen)
}

fn host(dir: &Path) -> Result<()> {
    let mut room = [MaybeUninit::uninit(); AT_A_TIME * 160];
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let open = rustix::fs::open(dir, flags, rustix::fs::Mode::empty())?;
    let (mut seen, mut changes) = (Vec::new(), Changes { turn: 0 });
    let mut entries = RawDir::new(open, &mut room);
    while let Some(entry) = entries.next() {
        seen.push(entry?.file_name().to_string_lossy().into_owned());
        if entries.is_buffer_empty() {
            changes.more(
                |name| Ok(std::fs::remove_file(dir.join(name))?),
                |name| Ok(std::fs::write(dir.join(name), b"").map(drop)?),
            )?;
        }
    }
    check(&seen)
}

fn fill(dir: &Path) -> Result<()> {
    std::fs::create_dir(dir)?;
    for number in 0..NAMES {
        std::fs::write(dir.join(stays(number)), b"")?;
        std::fs::write(dir.join(goes(number)), b"")?;
    }
    Ok(())
}

#[test]
fn what_stays_is_listed_once_while_names_come_and_go() -> Result<()> {
    for block_size in ["1024", "4096"] {
        let scratch = scratch::dir()?;
        let image = scratch.path().join("image");
        if !judge::mke2fs(
            &image,
            32,
            &["-b", block_size, "-N", "6000", "-O", "dir_index"],
        )? {
            return Ok(());
        }
        let fs = scratch::mount(&image)?;
        fs.create_dir("library")?;
        let dir = fs.inode("library")?;
        for number in 0..NAMES {
            for name in [stays(number), goes(number)] {
                dir.create(name.as_bytes(), &ext2dax::New::default())?;
            }
        }
        library(&dir)?;
        drop(dir);
        fs.remove_dir_all("library")?;
        fs.unmount()?;
        judge::clean(&image)?;
        if let Some(served) = Served::new(scratch::tool(), &image, SHARED)? {
            let dir = served.join("fuse");
            fill(&dir)?;
            host(&dir)?;
            std::fs::remove_dir_all(&dir)?;
            served.unmount()?;
            judge::clean(&image)?;
        }
        if let Some(kernel) = Mounted::new(&image, Mode::Write)? {
            let dir = kernel.join("kernel");
            fill(&dir)?;
            host(&dir)?;
            kernel.unmount()?;
            // Ours goes on in a directory that the kernel has indexed.
            let fs = scratch::mount(&image)?;
            let dir = fs.inode("kernel")?;
            for number in 0..NAMES {
                // The listing before was over sooner than the names.
                dir.create(goes(number).as_bytes(), &ext2dax::New::default())
                    .ok();
                dir.unlink(format!("comes-{number}").as_bytes()).ok();
            }
            library(&dir)?;
            drop(dir);
            fs.unmount()?;
            judge::clean(&image)?;
        }
    }
    Ok(())
}
