//! Ranges of files: several pieces at once, copies inside the image, fallocate, extents, the list of holes.

#![expect(clippy::cast_possible_truncation, reason = "small numbers of a test")]

use ext2dax::pmem::{UserSlice, UserSliceMut};
use ext2dax::{Error, Fallocate, File, FileSystem, OpenOptions};

use crate::image::{Image, SHAPES};
use crate::random::Random;

fn open(fs: &FileSystem, path: &str) -> File {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .open(fs, path)
        .expect("room for a file")
}

fn done(image: &Image, fs: FileSystem) {
    fs.unmount().expect("nothing is open");
    image.assert_clean("at the end");
}

fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    (0..len).map(|_| random.byte() | 1).collect()
}

#[test]
fn pieces_are_written_and_read_as_one() {
    for shape in SHAPES {
        let Some(image) = Image::new(shape, 64) else {
            return;
        };
        let fs = image.mount();
        let file = open(&fs, "/f");
        let bytes = pattern(300_000, 1);
        let cuts = [0, 1, 1, 1000, 5096, 70_000, 70_001, 299_999, 300_000];
        let parts: Vec<UserSlice<'_>> = cuts
            .windows(2)
            .map(|cut| UserSlice::from(&bytes[cut[0]..cut[1]]))
            .collect();
        assert_eq!(file.write_vectored_at(&parts, 777).unwrap(), 300_000);
        assert_eq!(file.len().unwrap(), 300_777);
        let mut back = vec![0xaa; 310_000];
        let (first, rest) = back.split_at_mut(12_345);
        let (second, third) = rest.split_at_mut(1);
        let mut bufs = [first, second, third].map(UserSliceMut::from);
        // Up to the end of the file, and no further.
        assert_eq!(file.read_vectored_at(&mut bufs, 0).unwrap(), 300_777);
        assert!(back[..777].iter().all(|&byte| byte == 0), "{shape}");
        assert!(back[777..300_777] == bytes, "{shape}");
        assert!(back[300_777..].iter().all(|&byte| byte == 0xaa), "{shape}");
        assert_eq!(file.write_vectored_at(&[], 5).unwrap(), 0);
        // Appends land behind whatever is there, and the cursor behind them.
        let inode = file.inode();
        assert_eq!(inode.append_vectored(&parts).unwrap(), (300_777, 300_000));
        drop(file);
        done(&image, fs);
    }
}

/// The model: what copy_file_range leaves in a vector of bytes.
fn model_copy(from: &[u8], to: &mut Vec<u8>, pos: usize, to_pos: usize, len: usize) -> usize {
    let len = len.min(from.len().saturating_sub(pos));
    if len > 0 {
        to.resize(to.len().max(to_pos + len), 0);
        to[to_pos..to_pos + len].copy_from_slice(&from[pos..pos + len]);
    }
    len
}

#[test]
fn a_copy_inside_the_image_moves_the_bytes_that_a_read_and_a_write_would() {
    for (nr, shape) in SHAPES.iter().enumerate() {
        let Some(image) = Image::new(shape, 64) else {
            return;
        };
        let fs = image.mount();
        let block = usize::try_from(fs.geometry().block_size()).unwrap();
        let files = [open(&fs, "/a"), open(&fs, "/b")];
        let mut models = [Vec::new(), Vec::new()];
        let mut random = Random(nr as u64);
        for round in 0..120 {
            let (from, to) = (random.below(2), random.below(2));
            let place = |random: &mut Random| match random.below(3) {
                0 => random.below(20) * block,
                1 => random.below(20 * block),
                _ => (random.below(19) + 1) * block - 1,
            };
            let (pos, to_pos) = (place(&mut random), place(&mut random));
            let len = place(&mut random) / 2 + 1;
            match random.below(4) {
                0 => {
                    let bytes = pattern(len, random.next());
                    files[to].write_all_at(&bytes, to_pos as u64).unwrap();
                    let model = &mut models[to];
                    model.resize(model.len().max(to_pos + len), 0);
                    model[to_pos..to_pos + len].copy_from_slice(&bytes);
                }
                1 => {
                    let end = (to_pos + len) as u64;
                    files[to].punch_hole(to_pos as u64..end).unwrap();
                    let model = &mut models[to];
                    let end = (to_pos + len).min(model.len());
                    model[to_pos.min(end)..end].fill(0);
                }
                _ => {
                    let copied =
                        files[from].copy_range(pos as u64, &files[to], to_pos as u64, len as u64);
                    let source = models[from].clone();
                    let inside = len.min(source.len().saturating_sub(pos));
                    if from == to && to_pos + inside > pos && to_pos < pos + inside {
                        assert_eq!(copied, Err(Error::InvalidArgument));
                    } else {
                        let wanted = model_copy(&source, &mut models[to], pos, to_pos, len);
                        assert_eq!(copied, Ok(wanted as u64), "{shape}, round {round}");
                    }
                }
            }
            for (file, model) in files.iter().zip(&models) {
                let mut bytes = vec![0xaa; model.len() + 1];
                assert_eq!(file.read_at(&mut bytes[..], 0).unwrap(), model.len());
                assert!(bytes[..model.len()] == model[..], "{shape}, round {round}");
            }
        }
        drop(files);
        done(&image, fs);
    }
}

#[test]
fn a_copied_hole_stays_a_hole_and_takes_blocks_away() {
    for shape in SHAPES {
        let Some(image) = Image::new(shape, 64) else {
            return;
        };
        let fs = image.mount();
        let block = u64::from(fs.geometry().block_size());
        let (from, to) = (open(&fs, "/from"), open(&fs, "/to"));
        from.write_all_at(&pattern(block as usize, 5), 0).unwrap();
        from.write_all_at(b"end", 40 * block).unwrap();
        to.write_all_at(&pattern(10 * block as usize, 6), 0)
            .unwrap();
        let len = from.len().unwrap();
        assert_eq!(from.copy_range(0, &to, 0, u64::MAX / 4).unwrap(), len);
        let extents = |file: &File| {
            let found = file.extents(0..u64::MAX, usize::MAX).unwrap();
            found
                .iter()
                .map(|extent| (extent.logical, extent.len, extent.last))
                .collect::<Vec<_>>()
        };
        let wanted = [(0, block, false), (40 * block, block, true)];
        assert_eq!(
            (extents(&from), extents(&to)),
            (wanted.into(), wanted.into()),
            "{shape}"
        );
        assert_eq!(fs.read("/to").unwrap(), fs.read("/from").unwrap());
        // Off by some bytes the blocks at the edges stay, and what they keep reads zero.
        to.write_all_at(&pattern(10 * block as usize, 6), 0)
            .unwrap();
        assert_eq!(
            from.copy_range(block, &to, 5, 5 * block).unwrap(),
            5 * block
        );
        assert_eq!(
            (to.seek_hole(0).unwrap(), to.seek_data(block).unwrap()),
            (block, 5 * block)
        );
        let mut edge = [0xaa; 16];
        to.read_exact_at(&mut edge, 0).unwrap();
        assert!(
            edge[..5].iter().all(|&byte| byte != 0) && edge[5..] == [0; 11],
            "{shape}"
        );
        to.read_exact_at(&mut edge, 5 * block).unwrap();
        assert!(
            edge[..5] == [0; 5] && edge[5..].iter().all(|&byte| byte != 0),
            "{shape}"
        );
        drop((from, to));
        done(&image, fs);
    }
}

#[test]
fn copies_that_linux_refuses_are_refused() {
    let Some(image) = Image::new("-b 1024", 16) else {
        return;
    };
    let fs = image.mount();
    let (a, b) = (open(&fs, "/a"), open(&fs, "/b"));
    a.write_all_at(&[7; 5000], 0).unwrap();
    let max = fs.geometry().max_file_size();
    let errors = [
        (a.copy_range(0, &a, 100, 101), Error::InvalidArgument),
        (a.copy_range(100, &a, 0, 4950), Error::InvalidArgument),
        (a.copy_range(5, &b, u64::MAX, 5), Error::Overflow),
        (a.copy_range(0, &b, max, 1), Error::FileTooLarge),
        (
            File::open(&fs, "/a")
                .unwrap()
                .copy_range(0, &File::open(&fs, "/b").unwrap(), 0, 1),
            Error::NotOpenForWrite,
        ),
        (
            a.inode().copy_range(0, &fs.root().unwrap(), 0, 1),
            Error::IsADirectory,
        ),
    ];
    for (found, error) in errors {
        assert_eq!(found, Err(error));
    }
    assert_eq!(b.len().unwrap(), 0);
    // At and past the end there is nothing to copy; ranges that touch do not meet; the limit cuts a copy short.
    assert_eq!(a.copy_range(5000, &b, 0, 10), Ok(0));
    assert_eq!(a.copy_range(4990, &a, 5000, 5000), Ok(10));
    assert_eq!(a.copy_range(0, &a, 4990, 20), Ok(20));
    assert_eq!(a.copy_range(0, &b, max - 3, 10), Ok(3));
    assert_eq!(b.len().unwrap(), max);
    let append = OpenOptions::new().append(true).open(&fs, "/b").unwrap();
    assert_eq!(a.copy_range(0, &append, 0, 1), Err(Error::NotOpenForWrite));
    drop((a, b, append));
    done(&image, fs);
}

#[test]
fn copies_in_both_directions_at_once_do_not_wait_for_each_other_for_ever() {
    let Some(image) = Image::new("-b 4096", 64) else {
        return;
    };
    let fs = image.mount();
    let (a, b) = (open(&fs, "/a"), open(&fs, "/b"));
    a.write_all_at(&[1; 20_000], 0).unwrap();
    b.write_all_at(&[2; 20_000], 0).unwrap();
    std::thread::scope(|scope| {
        for (from, to) in [(&a, &b), (&b, &a), (&a, &a)] {
            scope.spawn(move || {
                for _ in 0..3000 {
                    assert_eq!(from.copy_range(0, to, 10_000, 10_000), Ok(10_000));
                }
            });
        }
    });
    drop((a, b));
    done(&image, fs);
}

#[test]
fn fallocate_does_what_ext2_can_express_and_refuses_the_rest() {
    for shape in SHAPES {
        let Some(image) = Image::new(shape, 64) else {
            return;
        };
        let fs = image.mount();
        let block = u64::from(fs.geometry().block_size());
        let file = open(&fs, "/f");
        file.set_len(10 * block).unwrap();
        for how in [Fallocate::AllocateKeepSize, Fallocate::ZeroRangeKeepSize] {
            let beyond = file.fallocate(how, 9 * block..10 * block + 1);
            assert_eq!(beyond, Err(Error::NotSupported), "{how:?}");
        }
        for how in [Fallocate::CollapseRange, Fallocate::InsertRange] {
            let moved = file.fallocate(how, block..2 * block);
            assert_eq!(moved, Err(Error::NotSupported), "{how:?}");
        }
        assert_eq!(
            file.fallocate(Fallocate::Allocate, 5..5),
            Err(Error::InvalidArgument)
        );
        let max = fs.geometry().max_file_size();
        assert_eq!(
            file.fallocate(Fallocate::Allocate, 0..max + 1),
            Err(Error::FileTooLarge)
        );
        assert_eq!(
            file.extents(0..u64::MAX, 9).unwrap(),
            [],
            "nothing has changed"
        );
        file.fallocate(Fallocate::AllocateKeepSize, 3 * block + 1..5 * block + 1)
            .unwrap();
        assert_eq!(
            (
                file.seek_data(0).unwrap(),
                file.seek_hole(3 * block).unwrap()
            ),
            (3 * block, 6 * block)
        );
        file.fallocate(Fallocate::PunchHole, 4 * block..u64::MAX)
            .unwrap();
        assert_eq!(
            (file.len().unwrap(), file.seek_hole(3 * block).unwrap()),
            (10 * block, 4 * block)
        );
        file.fallocate(Fallocate::Allocate, 10 * block..11 * block + 7)
            .unwrap();
        assert_eq!(file.len().unwrap(), 11 * block + 7);
        let modes = [0, 1, 3, 8, 16, 17, 32].map(|mode| Fallocate::from_linux_mode(mode).is_ok());
        assert_eq!(modes, [true; 7]);
        assert_eq!(Fallocate::from_linux_mode(2), Err(Error::NotSupported));
        drop(file);
        done(&image, fs);
    }
}

#[test]
fn extents_are_listed_in_pieces_that_go_on_where_the_last_one_ended() {
    for shape in SHAPES {
        let Some(image) = Image::new(shape, 64) else {
            return;
        };
        let fs = image.mount();
        let block = u64::from(fs.geometry().block_size());
        let file = open(&fs, "/f");
        for nr in 0..40 {
            file.write_all_at(b"x", 3 * nr * block).unwrap();
        }
        let all = file.extents(0..u64::MAX, usize::MAX).unwrap();
        assert_eq!(all.len(), 40);
        let mut pieces = Vec::new();
        loop {
            let from = pieces
                .last()
                .map_or(0, |last: &ext2dax::FileExtent| last.logical + last.len);
            let more = file.extents(from..u64::MAX, 7).unwrap();
            pieces.extend(more);
            if pieces.last().unwrap().last {
                break;
            }
        }
        assert_eq!(pieces, all, "{shape}");
        let one = file.extents(3 * block + 1..3 * block + 2, 7).unwrap();
        assert_eq!(one, [all[1]]);
        // The physical place is the one where the bytes are.
        drop(file);
        fs.unmount().unwrap();
        let region = image.region();
        let pmem = ext2dax_pmem::Pmem::new(region);
        for extent in &all {
            let mut byte = [0];
            pmem.read(extent.physical, &mut byte);
            assert_eq!(&byte, b"x");
        }
        drop(pmem);
        image.assert_clean("at the end");
    }
}

#[test]
fn appends_of_many_threads_are_whole_and_none_is_lost() {
    const THREADS: u8 = 6;
    const EACH: usize = 400;
    for shape in ["-b 1024", "-b 4096", "-b 65536"] {
        let Some(image) = Image::new(shape, 64) else {
            return;
        };
        let fs = image.mount();
        drop(fs.create("/log").unwrap());
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let fs = &fs;
                scope.spawn(move || {
                    let log = OpenOptions::new().append(true).open(fs, "/log").unwrap();
                    let mut random = Random(u64::from(thread));
                    for nr in 0..EACH {
                        // thread, number, length, then so many bytes, then the end mark; in one piece or in several.
                        let len = random.below(700);
                        let mut record = vec![thread + 1];
                        record.extend((nr as u16).to_le_bytes());
                        record.extend((len as u16).to_le_bytes());
                        record.extend(std::iter::repeat_n(thread | 0x80, len));
                        record.push(0xff);
                        if nr % 2 == 0 {
                            assert_eq!(log.write(&record[..]).unwrap(), record.len());
                        } else {
                            let parts: Vec<UserSlice<'_>> =
                                record.chunks(101).map(UserSlice::from).collect();
                            assert_eq!(log.write_vectored(&parts).unwrap(), record.len());
                        }
                    }
                });
            }
        });
        let log = fs.read("/log").unwrap();
        let mut next = [0; THREADS as usize];
        let mut at = 0;
        while at < log.len() {
            let thread = log[at] - 1;
            let field = |from: usize| u16::from_le_bytes([log[at + from], log[at + from + 1]]);
            let (nr, len) = (field(1), usize::from(field(3)));
            assert_eq!(
                nr,
                next[usize::from(thread)],
                "{shape}: each thread's own order"
            );
            next[usize::from(thread)] += 1;
            let body = &log[at + 5..at + 5 + len];
            assert!(
                body.iter().all(|&byte| byte == thread | 0x80),
                "{shape}: torn at {at}"
            );
            assert_eq!(log[at + 5 + len], 0xff);
            at += 6 + len;
        }
        assert_eq!(next, [EACH as u16; THREADS as usize], "{shape}");
        done(&image, fs);
    }
}

#[test]
fn holes_and_data_are_told_apart_at_every_edge() {
    for shape in SHAPES {
        let Some(image) = Image::new(shape, 64) else {
            return;
        };
        let fs = image.mount();
        let block = u64::from(fs.geometry().block_size());
        let pointers = block / 4;
        let file = open(&fs, "/f");
        // Around the ends of the direct, indirect and double indirect blocks, where a tree that size has them.
        let edges = [0, 12, 12 + pointers, 12 + pointers + pointers * pointers];
        // Revision 0 has no files of 2 GiB.
        let limit = match shape.contains("-r 0") {
            true => (1 << 31) / block,
            false => fs.geometry().max_file_size() / block,
        };
        let edges: Vec<u64> = edges.into_iter().filter(|edge| edge + 2 < limit).collect();
        for &edge in &edges {
            file.write_all_at(b"d", edge * block).unwrap();
        }
        let size = (edges.last().unwrap() + 1) * block + block / 2;
        file.set_len(size).unwrap();
        for (nr, &edge) in edges.iter().enumerate() {
            let (start, end) = (edge * block, (edge + 1) * block);
            for at in [start, start + 1, end - 1] {
                assert_eq!(
                    (file.seek_data(at), file.seek_hole(at)),
                    (Ok(at), Ok(end)),
                    "{shape}"
                );
            }
            let next = edges
                .get(nr + 1)
                .map(|next| next * block)
                .ok_or(Error::NoSuchOffset);
            assert_eq!(
                (file.seek_hole(end), file.seek_data(end)),
                (Ok(end), next),
                "{shape}"
            );
            if let Ok(next) = next {
                assert_eq!(
                    (file.seek_hole(next - 1), file.seek_data(next - 1)),
                    (Ok(next - 1), Ok(next))
                );
            }
        }
        // The end of the file is a hole, also inside a block with data; past it there is nothing.
        file.write_all_at(b"e", size - 1).unwrap();
        assert_eq!(
            (file.seek_data(size - 1), file.seek_hole(size - 1)),
            (Ok(size - 1), Ok(size))
        );
        for at in [size, size + 1, u64::MAX] {
            assert_eq!(file.seek_data(at), Err(Error::NoSuchOffset));
            assert_eq!(file.seek_hole(at), Err(Error::NoSuchOffset));
        }
        drop(file);
        done(&image, fs);
    }
}
