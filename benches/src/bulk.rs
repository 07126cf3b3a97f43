//! Reads of many pages into buffers as programs have them.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use anyhow::Result;
use ext2dax::OpenOptions;
use ext2dax_pmem::Buffer;

use crate::ours::Image;
use crate::peers::filled_file;
use crate::sample::{Contender, medians, per_op};
use crate::table::Row;

/// Bytes of the file, all of which each round reads.
const FILE: usize = 64 << 20;
/// Bytes of a read.
const READ: usize = 256 << 10;

/// Reads 256 KiB at a time, into a buffer on a page and into one that starts 16 bytes behind a page, where the allocator of
/// the C library puts what is large. `base` is a folder of the file system that the image lies on.
///
/// # Errors
/// When a contender cannot make its file.
///
/// # Panics
/// When a read inside a file fails.
pub fn reads(image: &Image, base: &Path, kernel: Option<&Path>, rounds: usize) -> Result<Vec<Row>> {
    let options = OpenOptions::new().read(true).write(true).create(true);
    let ours = options.open(image.fs(), "/bulk")?;
    let chunk = vec![0xa5; READ];
    for at in (0..FILE).step_by(READ) {
        ours.write_all_at(&chunk, at as u64)?;
    }
    let folders = [("tmpfs", Some(base)), ("kernel", kernel)];
    let mut peers = Vec::new();
    for (name, dir) in folders {
        if let Some(dir) = dir {
            peers.push((name, filled_file(&dir.join("bulk"), FILE as u64)?));
        }
    }
    let ats = || (0..FILE as u64).step_by(READ);
    let row = |what: &str, ahead: usize| {
        let room = || Buffer::new(READ + 4096);
        let mut buffer = room();
        let skip = buffer.as_ptr().align_offset(4096) + ahead;
        let mut contenders = vec![Contender::new("ext2dax", {
            let ours = &ours;
            move || {
                per_op(FILE / READ, || {
                    ats().for_each(|at| {
                        ours.read_exact_at(&mut buffer[skip..skip + READ], at)
                            .expect("inside");
                    });
                })
            }
        })];
        for (name, file) in &peers {
            let mut buffer = room();
            let skip = buffer.as_ptr().align_offset(4096) + ahead;
            contenders.push(Contender::new(name, move || {
                per_op(FILE / READ, || {
                    read_all(file, &mut buffer[skip..skip + READ], ats())
                })
            }));
        }
        Row::new(what, medians(rounds, contenders)).faster_than(1.0, "tmpfs")
    };
    let rows = vec![
        row("read 256 KiB into a buffer on a page", 0),
        row("read 256 KiB into a buffer 16 bytes behind a page", 16),
    ];
    image.fs().remove_file("/bulk")?;
    for dir in [Some(base), kernel].into_iter().flatten() {
        std::fs::remove_file(dir.join("bulk"))?;
    }
    Ok(rows)
}

fn read_all(file: &File, buffer: &mut [u8], ats: impl Iterator<Item = u64>) {
    for at in ats {
        file.read_exact_at(buffer, at).expect("inside");
    }
}
