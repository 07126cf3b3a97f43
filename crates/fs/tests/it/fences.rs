//! What each operation costs in fences: the budgets of the crash rules, less the epochs that hold an intent slot only. A
//! fence too few is a broken order; one too many is a microsecond for everybody.

use ext2dax::{FileSystem, Inode, MountOptions, New, RenameFlags};
use ext2dax_pmem::{Pmem, Recorder};

use crate::image::Image;

struct Counted {
    fs: FileSystem,
    recorder: Recorder,
    _image: Image,
}

const NEW: New = New {
    mode: 0o644,
    umask: 0,
    uid: 0,
    gid: 0,
    device: (0, 0),
};

impl Counted {
    fn new(shape: &str) -> Option<Self> {
        let image = Image::new(shape, 16)?;
        let recorder = Recorder::new();
        let pmem = Pmem::new(image.region()).observed_by(recorder.observer());
        let fs = FileSystem::mount_pmem(pmem, &MountOptions::new()).expect("the image mounts");
        Some(Self {
            fs,
            recorder,
            _image: image,
        })
    }

    fn root(&self) -> Inode {
        self.fs.root().expect("the root")
    }

    fn directory(&self, name: &[u8]) -> Inode {
        self.root()
            .mkdir(name, &New { mode: 0o755, ..NEW })
            .expect("mkdir")
    }

    fn fences<R>(&self, operation: impl FnOnce() -> R) -> usize {
        let before = self.recorder.fences();
        operation();
        let fences = self.recorder.fences() - before;
        // The log is not wanted, only its length.
        drop(self.recorder.take());
        fences
    }
}

/// `take` empties the log, so counts are relative to it.
fn count<R>(counted: &Counted, operation: impl FnOnce() -> R) -> usize {
    drop(counted.recorder.take());
    counted.fences(operation)
}

#[test]
fn creations_stay_within_their_budget() {
    let Some(counted) = Counted::new("-b 4096") else {
        return;
    };
    let dir = counted.directory(b"d");
    assert_eq!(
        count(&counted, || dir.create(b"a", &NEW).expect("create")),
        2
    );
    assert_eq!(count(&counted, || dir.mkdir(b"b", &NEW).expect("mkdir")), 3);
    assert_eq!(
        count(&counted, || dir
            .symlink(b"c", b"fast", &NEW)
            .expect("symlink")),
        3
    );
    assert_eq!(
        count(&counted, || dir
            .symlink(b"e", &[b'x'; 100], &NEW)
            .expect("symlink")),
        3
    );
    let fifo = New {
        mode: 0o010_644,
        ..NEW
    };
    assert_eq!(
        count(&counted, || dir.mknod(b"f", &fifo).expect("mknod")),
        3
    );
    let file = dir.lookup(b"a").expect("a");
    assert_eq!(count(&counted, || dir.link(b"g", &file).expect("link")), 3);
}

#[test]
fn a_directory_block_costs_one_fence_and_two_beyond_the_first_line() {
    let Some(counted) = Counted::new("-b 1024") else {
        return;
    };
    let dir = counted.directory(b"d");
    let mut grown = Vec::new();
    for number in 0..60 {
        let name = [b'a' + number % 26; 240];
        let name: Vec<u8> = [&name[..], &[b'0' + number / 26]].concat();
        let size = dir.attributes().expect("attributes").size;
        let fences = count(&counted, || dir.create(&name, &NEW).expect("create"));
        if dir.attributes().expect("attributes").size == size {
            assert_eq!(fences, 2);
        } else {
            grown.push(fences);
        }
    }
    assert_eq!(
        grown[..5],
        [3; 5],
        "blocks 1 to 5: pointer and size in one line"
    );
    assert!(
        grown[5..].iter().all(|&fences| fences == 4),
        "from block 6 on: {grown:?}"
    );
    assert!(grown.len() > 12, "an indirect block was among them");
}

#[test]
fn removals_stay_within_their_budget() {
    let Some(counted) = Counted::new("-b 4096") else {
        return;
    };
    let dir = counted.directory(b"d");
    let file = dir.create(b"a", &NEW).expect("create");
    dir.link(b"b", &file).expect("link");
    drop(file);
    assert_eq!(
        count(&counted, || dir.unlink(b"b").expect("unlink")),
        3,
        "one of two names"
    );
    assert_eq!(
        count(&counted, || dir.unlink(b"a").expect("unlink")),
        3,
        "the last name"
    );
    let open = dir.create(b"c", &NEW).expect("create");
    assert_eq!(
        count(&counted, || dir.unlink(b"c").expect("unlink")),
        3,
        "the last name of an open file"
    );
    drop(open);
    dir.mkdir(b"e", &NEW).expect("mkdir");
    assert_eq!(
        count(&counted, || dir.rmdir(b"e").expect("rmdir")),
        3,
        "rmdir"
    );
}

#[test]
fn renames_stay_within_their_budget() {
    let Some(counted) = Counted::new("-b 4096") else {
        return;
    };
    let (d, e) = (counted.directory(b"d"), counted.directory(b"e"));
    for name in [b"a".as_slice(), b"b", b"c", b"last"] {
        drop(d.create(name, &NEW).expect("create"));
    }
    // The first rename over a last name sets up the temporary links.
    drop((
        e.create(b"x", &NEW).expect("create"),
        e.create(b"y", &NEW).expect("create"),
    ));
    e.rename(b"x", &e, b"y").expect("rename");
    assert_eq!(
        count(&counted, || d.rename(b"last", &d, b"end").expect("rename")),
        2,
        "row a, slack behind"
    );
    assert_eq!(
        count(&counted, || d
            .rename(b"a", &d, b"a-longer-name")
            .expect("rename")),
        2,
        "row b, one block"
    );
    assert_eq!(
        count(&counted, || d.rename(b"b", &e, b"b").expect("rename")),
        5,
        "row d, other directory"
    );
    drop(d.create(b"t", &NEW).expect("create"));
    assert_eq!(
        count(&counted, || d.rename(b"c", &d, b"t").expect("rename")),
        6,
        "row e"
    );
    let file = d.create(b"f", &NEW).expect("create");
    d.link(b"g", &file).expect("link");
    drop(file);
    assert_eq!(
        count(&counted, || d.rename(b"t", &d, b"f").expect("rename")),
        5,
        "row f"
    );
    drop(e.create(b"h", &NEW).expect("create"));
    let exchange = || {
        d.rename_with(b"f", &d, b"g", RenameFlags::Exchange)
            .expect("rename")
    };
    assert_eq!(count(&counted, exchange), 2, "row i");
    let exchange = || {
        d.rename_with(b"f", &e, b"h", RenameFlags::Exchange)
            .expect("rename")
    };
    assert_eq!(count(&counted, exchange), 7, "row j");
}

#[test]
fn renames_of_directories_stay_within_their_budget() {
    let Some(counted) = Counted::new("-b 4096") else {
        return;
    };
    let (d, e) = (counted.directory(b"d"), counted.directory(b"e"));
    for name in [b"a".as_slice(), b"b", b"c", b"t"] {
        drop(d.mkdir(name, &NEW).expect("mkdir"));
    }
    assert_eq!(
        count(&counted, || d
            .rename(b"a", &d, b"a-longer-name")
            .expect("rename")),
        2,
        "row b"
    );
    // Behind the budget the target's block is detached.
    let fences = count(&counted, || d.rename(b"b", &d, b"t").expect("rename"));
    assert!((3..=4).contains(&fences), "row h: {fences}");
    assert_eq!(
        count(&counted, || d.rename(b"c", &e, b"c").expect("rename")),
        5,
        "row k"
    );
}

#[test]
fn attributes_stay_within_their_budget() {
    let Some(counted) = Counted::new("-b 4096 -I 256") else {
        return;
    };
    let dir = counted.directory(b"d");
    let file = dir.create(b"f", &NEW).expect("create");
    let set = |name: &[u8]| {
        file.set_xattr(name, b"value", ext2dax::SetXattr::Any)
            .expect("set")
    };
    assert_eq!(count(&counted, || set(b"user.a")), 2, "the first");
    assert_eq!(count(&counted, || set(b"user.b")), 2, "one more");
    assert_eq!(count(&counted, || set(b"user.a")), 2, "another value");
    let remove = |name: &[u8]| file.remove_xattr(name).expect("remove");
    assert_eq!(count(&counted, || remove(b"user.a")), 2, "one of two");
    assert_eq!(count(&counted, || remove(b"user.b")), 1, "the last");
    assert_eq!(
        count(&counted, || file.clear_privileges().expect("nothing")),
        0
    );
    let mut list = 2_u32.to_le_bytes().to_vec();
    for (tag, id) in [
        (1_u16, u32::MAX),
        (2, 7),
        (4, u32::MAX),
        (16, u32::MAX),
        (32, u32::MAX),
    ] {
        list.extend(tag.to_le_bytes());
        list.extend([7, 0]);
        list.extend(id.to_le_bytes());
    }
    dir.set_xattr(b"system.posix_acl_default", &list, ext2dax::SetXattr::Any)
        .expect("a default list");
    assert_eq!(
        count(&counted, || dir.create(b"g", &NEW).expect("create")),
        3,
        "a file with a list is not empty"
    );
    assert_eq!(count(&counted, || dir.mkdir(b"h", &NEW).expect("mkdir")), 3);
}
