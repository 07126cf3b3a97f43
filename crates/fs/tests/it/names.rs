//! Names: every operation against a model, on every shape of file system.

use std::collections::BTreeMap;

use ext2dax::{Error, FileSystem, Inode, New};

use crate::image::{Image, SHAPES};

/// A small generator, so that a seed names a run for ever.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// What a name leads to: a number that stands for a file, or names below.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Model {
    File(u32),
    Directory(BTreeMap<Vec<u8>, Model>),
}

#[test]
fn smoke() {
    for shape in SHAPES {
        let Some(image) = Image::new(shape, 16) else {
            return;
        };
        let fs = image.mount();
        let root = fs.root().expect("root");
        for i in 0..500 {
            let name = format!("file-{i:04}");
            root.create(
                name.as_bytes(),
                &New {
                    mode: 0o644,
                    ..New::default()
                },
            )
            .unwrap_or_else(|e| panic!("{shape}: {name}: {e}"));
        }
        for i in 0..20 {
            root.mkdir(
                format!("dir-{i}").as_bytes(),
                &New {
                    mode: 0o755,
                    ..New::default()
                },
            )
            .expect("mkdir");
        }
        drop(root);
        fs.unmount().expect("unmount");
        image.assert_clean(shape);
        let fs = image.mount();
        let root = fs.root().expect("root");
        let names = root.read_dir(0, usize::MAX).expect("list");
        assert_eq!(names.len(), 500 + 20 + 3, "{shape}");
        for i in 0..500 {
            root.unlink(format!("file-{i:04}").as_bytes())
                .expect("unlink");
        }
        for i in 0..20 {
            root.rmdir(format!("dir-{i}").as_bytes()).expect("rmdir");
        }
        drop(root);
        fs.unmount().expect("unmount");
        image.assert_clean(shape);
    }
}
