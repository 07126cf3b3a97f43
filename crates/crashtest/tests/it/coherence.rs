//! One copy of every byte: calls and views of a file show the same, at once, whoever changed it.

#![expect(
    clippy::cast_possible_truncation,
    reason = "small numbers of a test on 64-bit hosts"
)]

use anyhow::Result;
use ext2dax::fault::host::Access;
use ext2dax::{File, MappedFile, OpenOptions};
use ext2dax_mkfs::Options;

use crate::real_faults::{Host, in_each_mode};

const LEN: u64 = 600_000;

/// What the file holds from `at` on is `wanted`, by call and in every view.
fn all_show(file: &File, views: &[MappedFile], at: u64, wanted: &[u8], what: &str) -> Result<()> {
    let mut bytes = vec![0xaa; wanted.len()];
    file.read_exact_at(&mut bytes, at)?;
    assert!(bytes == wanted, "{what}: read at {at}");
    for (number, view) in views.iter().enumerate() {
        bytes.fill(0xaa);
        view.read(usize::try_from(at)?, &mut bytes)?;
        assert!(bytes == wanted, "{what}: view {number} at {at}");
    }
    Ok(())
}

#[test]
fn writes_and_mapped_stores_show_each_other_at_once() -> Result<()> {
    in_each_mode(|mode| {
        for block_size in [4096, 16_384, 65_536] {
            let mkfs = Options {
                block_size,
                ..Options::default()
            };
            let host = Host::new(mode, 32, &mkfs)?;
            let (file, other) = (host.file("/f", LEN)?, host.file("/o", 0)?);
            other.write_all_at(&[0x5a; 100_000], 0)?;
            let views = [0, 1].map(|_| file.map(&host.mmu, 0..1 << 20, Access::ReadWrite));
            let [first, second] = views;
            let views = [first?, second?];
            // Zeroes first, so that holes are mapped where blocks will be.
            all_show(&file, &views, 0, &vec![0; LEN as usize], "fresh")?;
            for (round, at) in (0..40_u64).map(|n| (n, n * 14_783 % 500_000)) {
                let len = [1, 100, 4096, 40_000][(round % 4) as usize];
                let fill = vec![(round + 1) as u8; len];
                let end = at + len as u64;
                match round % 6 {
                    0 => file.write_all_at(&fill, at)?,
                    1 | 2 => views[(round % 2) as usize].write(at as usize, &fill)?,
                    3 => {
                        let (a, b) = fill.split_at(len / 3);
                        let done = file.write_vectored_at(&[a.into(), b.into()], at)?;
                        assert_eq!(done, len);
                    }
                    4 => {
                        assert_eq!(other.copy_range(7, &file, at, len as u64)?, len as u64);
                        all_show(&file, &views, at, &vec![0x5a; len], "a copy")?;
                        continue;
                    }
                    _ => {
                        file.punch_hole(at..end)?;
                        all_show(&file, &views, at, &vec![0; len], "a hole")?;
                        // A hole that all views show as zeroes gets a block from one of them.
                        views[1].write(at as usize, &fill)?;
                    }
                }
                all_show(&file, &views, at, &fill, "written")?;
            }
            // The end of the file goes and comes back.
            file.set_len(100_001)?;
            for view in &views {
                assert!(view.read(106_496, &mut [0]).is_err(), "past the end");
                view.write(100_001, &[0xee; 10])?;
            }
            file.set_len(LEN)?;
            all_show(&file, &views, 100_001, &[0; 50_000], "grown again")?;
            drop((views, file, other));
            host.unmount()?;
        }
        Ok(())
    })
}

/// A record is seen whole, or the size does not yet cover it.
#[test]
fn a_mapped_reader_of_a_file_that_others_append_to_sees_whole_records() -> Result<()> {
    const RECORD: usize = 100;
    const EACH: usize = 1500;
    in_each_mode(|mode| {
        let host = Host::new(mode, 32, &Options::default())?;
        let file = host.file("/log", 0)?;
        let view = file.map(&host.mmu, 0..1 << 20, Access::ReadWrite)?;
        let open = || OpenOptions::new().append(true).open(host.fs(), "/log");
        let writers = [open()?, open()?];
        std::thread::scope(|scope| {
            for (number, writer) in writers.iter().enumerate() {
                scope.spawn(move || {
                    for step in 0..EACH {
                        let record = [(step * 2 + number) as u8 | 1; RECORD];
                        assert_eq!(writer.write(&record), Ok(RECORD));
                    }
                });
            }
            let (mut records, mut looks) = (0, 0_usize);
            while records < 2 * EACH {
                let size = file.len().expect("a sound inode") as usize;
                assert_eq!(size % RECORD, 0, "half a record");
                records = size / RECORD;
                for back in 1..=records.min(8) {
                    looks += 1;
                    let at = records - if back < 8 { back } else { 1 + looks % records };
                    let mut record = [0; RECORD];
                    view.read(at * RECORD, &mut record)
                        .expect("inside the file");
                    assert!(
                        record[0] & 1 == 1 && record == [record[0]; RECORD],
                        "record {at}"
                    );
                }
            }
        });
        // And the other way round: a store through the view is what an append leaves alone.
        view.write(5 * RECORD, &[0; RECORD])?;
        assert_eq!(writers[0].write(&[9; 10]), Ok(10));
        let mut record = [1; RECORD];
        file.read_exact_at(&mut record, 5 * RECORD as u64)?;
        assert_eq!(record, [0; RECORD]);
        drop((view, file, writers));
        host.unmount()?;
        Ok(())
    })
}
