//! The largest file: by its size, and by what `i_blocks` can count.

use ext2dax::{Error, Fallocate, File, FileSystem, OpenOptions};

use crate::image::{Image, SHAPES, run};

fn open(fs: &FileSystem, path: &str) -> File {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .open(fs, path)
        .expect("room for a file")
}

/// Sets a field of an inode behind our back; `None` without debugfs.
fn set_field(image: &Image, path: &str, field: &str, value: u64) -> Option<()> {
    let request = format!("sif {path} {field} {value}");
    let output = run("debugfs", &["-w", "-R", &request, image.name()])?;
    assert!(output.status.success(), "debugfs {request}");
    Some(())
}

/// The largest size of a file here: revision 0 has none of 2 GiB.
fn limit(shape: &str, fs: &FileSystem) -> u64 {
    let max = fs.geometry().max_file_size();
    if shape.contains("-r 0") {
        max.min((1 << 31) - 1)
    } else {
        max
    }
}

#[test]
fn the_last_byte_of_every_block_size_can_be_written_and_the_next_one_is_too_far() {
    for shape in SHAPES {
        let Some(image) = Image::new(shape, 64) else {
            return;
        };
        let fs = image.mount();
        let max = limit(shape, &fs);
        let far = Err(Error::FileTooLarge);
        let (file, other) = (open(&fs, "/f"), open(&fs, "/g"));
        // Half of it fits, by every route; what is cut off is not an error.
        assert_eq!(file.write_at(&b"12345678"[..], max - 4), Ok(4), "{shape}");
        assert_eq!(file.len(), Ok(max));
        let parts = [b"12".into(), b"34".into(), b"56".into()];
        assert_eq!(file.write_vectored_at(&parts, max - 3), Ok(3));
        other.write_at(&b"abcdefgh"[..], 0).unwrap();
        assert_eq!(other.copy_range(0, &file, max - 2, 8), Ok(2));
        let mut last = [0; 8];
        assert_eq!(file.read_at(&mut last[..], max - 4), Ok(4));
        assert_eq!(&last, b"11ab\0\0\0\0");
        // The next byte.
        assert_eq!(file.write_at(&b"x"[..], max), far, "{shape}");
        assert_eq!(file.write_at(&b"x"[..], u64::MAX), far);
        assert_eq!(file.write_at(&b""[..], max), Ok(0));
        assert_eq!(file.inode().append(&b"x"[..]).map(|_| 0), far);
        assert_eq!(other.copy_range(0, &file, max, 8), Err(Error::FileTooLarge));
        assert_eq!(file.set_len(max + 1).map(|()| 0), far);
        for how in [Fallocate::Allocate, Fallocate::ZeroRange] {
            assert_eq!(
                file.fallocate(how, max..max + 1).map(|()| 0),
                far,
                "{shape}"
            );
        }
        // As a size alone, and allocated.
        other.set_len(max).unwrap();
        other
            .fallocate(Fallocate::AllocateKeepSize, max - 1..max)
            .unwrap();
        assert_eq!(
            (other.seek_hole(max - 1), other.seek_data(max)),
            (Ok(max), Err(Error::NoSuchOffset))
        );
        assert_eq!(file.len(), Ok(max));
        drop((file, other));
        fs.unmount().unwrap();
        image.assert_clean(shape);
    }
}

/// A file whose blocks `i_blocks` can hardly count any more: a write stops there, short, and nothing wraps.
#[test]
fn what_the_block_counter_cannot_count_is_not_written() {
    for shape in SHAPES {
        let Some(image) = Image::new(shape, 64) else {
            return;
        };
        let fs = image.mount();
        let block = u64::from(fs.geometry().block_size());
        let sectors = block / 512;
        let file = open(&fs, "/f");
        drop(file);
        fs.unmount().unwrap();
        // Room for 20 blocks and a few sectors. Twelve are direct, then comes an indirect one.
        let counted = u64::from(u32::MAX) - 20 * sectors - (sectors - 1);
        if set_field(&image, "/f", "blocks", counted).is_none() {
            return;
        }
        let fs = image.mount();
        let file = open(&fs, "/f");
        let bytes = vec![7; usize::try_from(40 * block).unwrap()];
        let mut done = 0;
        // Runs end at edges of the tree: a write may be short before the counter's end.
        let error = loop {
            match file.write_at(&bytes[done..], done as u64) {
                Ok(more) => done += more,
                Err(error) => break error,
            }
        };
        assert_eq!(
            (done as u64, error),
            (19 * block, Error::FileTooLarge),
            "{shape}"
        );
        assert_eq!(file.len(), Ok(19 * block));
        // Allocation, and a hole further down, meet the same end.
        file.set_len(60 * block).unwrap();
        assert_eq!(
            file.allocate(50 * block..51 * block),
            Err(Error::FileTooLarge)
        );
        assert_eq!(
            file.write_at(&b"x"[..], 30 * block),
            Err(Error::FileTooLarge)
        );
        file.punch_hole(2 * block..3 * block).unwrap();
        assert_eq!(
            file.write_at(&b"x"[..], 30 * block),
            Ok(1),
            "a block that was given back counts again"
        );
        let mut one = [0; 1];
        assert_eq!(file.read_at(&mut one[..], 30 * block), Ok(1));
        assert_eq!(&one, b"x");
        drop(file);
        fs.unmount().unwrap();
        if set_field(&image, "/f", "blocks", 20 * sectors).is_some() {
            image.assert_clean(shape);
        }
    }
}

/// Checkers take any size that pointers reach. Such a file is served; it grows no more.
#[test]
fn a_larger_file_made_elsewhere_can_be_read_and_cut_off() {
    for shape in ["-b 4096 -I 256", "-b 16384 -I 256", "-b 65536 -I 256"] {
        let Some(image) = Image::new(shape, 64) else {
            return;
        };
        let fs = image.mount();
        let max = fs.geometry().max_file_size();
        let block = u64::from(fs.geometry().block_size());
        let file = open(&fs, "/f");
        file.write_at(&b"first"[..], 0).unwrap();
        file.write_at(&b"last"[..], max - 4).unwrap();
        drop(file);
        fs.unmount().unwrap();
        // Still in the reach of pointers.
        let size = max + 3 * block;
        if set_field(&image, "/f", "size", size).is_none() {
            return;
        }
        image.assert_clean("as it came");
        let fs = image.mount();
        let file = open(&fs, "/f");
        assert_eq!(file.len(), Ok(size), "{shape}");
        let mut bytes = [0xaa; 8];
        assert_eq!(file.read_at(&mut bytes[..], max - 4), Ok(8));
        assert_eq!(&bytes, b"last\0\0\0\0");
        assert_eq!(file.write_at(&b"x"[..], size - 1), Err(Error::FileTooLarge));
        assert_eq!(file.set_len(size + 1), Err(Error::FileTooLarge));
        assert_eq!(file.write_at(&b"y"[..], 1), Ok(1));
        file.set_len(size - block).unwrap();
        file.set_len(5).unwrap();
        assert_eq!(fs.read("/f").unwrap(), b"fyrst");
        drop(file);
        fs.unmount().unwrap();
        image.assert_clean(shape);
    }
}
