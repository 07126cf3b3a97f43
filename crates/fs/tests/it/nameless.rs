//! Files that never had a name, files and directories that lost theirs while open, and what a crash makes of them.

use ext2dax::{Error, FileSystem, Inode, MountOptions, New, SetXattr};

use crate::image::{Image, SHAPES};

const NEW: New = New {
    mode: 0o640,
    uid: 7,
    gid: 8,
    device: (0, 0),
    umask: 0,
};

fn root(fs: &FileSystem) -> Inode {
    fs.root().expect("the root")
}

fn read(file: &Inode) -> Vec<u8> {
    let mut bytes = vec![0; 100_000];
    let len = file.read_at(0, bytes.as_mut_slice()).expect("read");
    bytes.truncate(len);
    bytes
}

#[test]
fn a_file_without_a_name_goes_with_its_last_handle() {
    for shape in SHAPES {
        let Some(image) = Image::new(shape, 32) else {
            return;
        };
        let fs = image.mount();
        let free = fs.statfs();
        let file = root(&fs).tmpfile(&NEW).expect("tmpfile");
        let attributes = file.attributes().expect("attributes");
        assert_eq!(attributes.links, 0, "{shape}");
        assert_eq!(
            (attributes.permissions, attributes.uid, attributes.gid),
            (0o640, 7, 8)
        );
        file.write_at(0, vec![3; 70_000].as_slice()).expect("write");
        file.set_len(60_000).expect("truncate");
        assert_eq!(read(&file), vec![3; 60_000]);
        assert_eq!(root(&fs).read_dir(0, 10).expect("a listing").len(), 3);
        drop(file);
        assert_eq!(
            (fs.statfs().blocks_free, fs.statfs().inodes_free),
            (free.blocks_free, free.inodes_free),
            "{shape}"
        );
        fs.unmount().expect("nothing is open");
        image.assert_clean(shape);
    }
}

#[test]
fn linking_publishes_a_file_without_a_name() {
    for shape in SHAPES {
        let Some(image) = Image::new(shape, 32) else {
            return;
        };
        let fs = image.mount();
        let root = root(&fs);
        let file = root.tmpfile(&NEW).expect("tmpfile");
        file.write_at(0, vec![3; 70_000].as_slice()).expect("write");
        root.link(b"first", &file).expect("link");
        root.link(b"second", &file).expect("link");
        assert_eq!(file.attributes().expect("attributes").links, 2);
        root.unlink(b"first").expect("unlink");
        root.unlink(b"second").expect("unlink");
        assert_eq!(
            root.link(b"third", &file),
            Err(Error::NotFound),
            "a file that has lost its names gets none any more"
        );
        let other = root.tmpfile(&NEW).expect("tmpfile");
        other.write_at(0, b"kept".as_slice()).expect("write");
        root.link(b"kept", &other).expect("link");
        drop((file, other));
        drop(root);
        fs.unmount().expect("nothing is open");
        image.assert_clean(shape);
        let fs = image.mount();
        let kept = self::root(&fs).lookup(b"kept").expect("it has a name");
        assert_eq!(read(&kept), b"kept");
    }
}

/// Named while later members of the orphan list keep it there: it is truncated, loses its name and dies on the list, in
/// every order, and the list is right afterwards.
#[test]
fn a_file_that_gets_its_name_in_the_middle_of_the_list_is_like_any_other() {
    for case in 0..4 {
        let Some(image) = Image::new("-b 1024", 32) else {
            return;
        };
        let fs = image.mount();
        let root = root(&fs);
        let [first, second, third] = [(); 3].map(|()| root.tmpfile(&NEW).expect("tmpfile"));
        for file in [&first, &second, &third] {
            file.write_at(0, vec![9; 50_000].as_slice()).expect("write");
        }
        root.link(b"a", &first).expect("link");
        first.set_len(20_000).expect("truncate");
        assert_eq!(read(&first), vec![9; 20_000]);
        match case {
            // It dies on the list while open.
            0 => root.unlink(b"a").expect("unlink"),
            // It dies on the list with no handle left.
            1 => {
                drop(first);
                root.unlink(b"a").expect("unlink");
                drop((second, third));
                drop(root);
                fs.unmount().expect("nothing is open");
                image.assert_clean("died on the list");
                continue;
            }
            // It leaves the list when those behind it go.
            2 => {
                drop(third);
                drop(second);
                first.set_len(10_000).expect("truncate");
                root.unlink(b"a").expect("unlink");
                drop((first, root));
                fs.unmount().expect("nothing is open");
                image.assert_clean("left the list");
                continue;
            }
            // A crash while it is there.
            _ => {
                fs.abandon();
                drop((first, second, third, root));
                let fs = image.mount();
                let file = self::root(&fs).lookup(b"a").expect("it has a name");
                assert_eq!(read(&file), vec![9; 20_000]);
                drop(file);
                assert_eq!(self::root(&fs).read_dir(0, 10).expect("a listing").len(), 4);
                fs.unmount().expect("nothing is open");
                assert!(image.preen() <= 1, "e2fsck -p");
                image.assert_clean("crashed on the list");
                continue;
            }
        }
        drop((first, second, third, root));
        fs.unmount().expect("nothing is open");
        image.assert_clean("died open on the list");
    }
}

#[test]
fn a_crash_frees_files_without_names() {
    let Some(image) = Image::new("-b 4096", 32) else {
        return;
    };
    let fs = image.mount();
    fs.sync().expect("sync");
    let free = fs.statfs();
    let file = root(&fs).tmpfile(&NEW).expect("tmpfile");
    file.write_at(0, vec![3; 70_000].as_slice()).expect("write");
    fs.abandon();
    drop(file);
    let fs = image.mount();
    assert_eq!(fs.statfs().blocks_free, free.blocks_free);
    assert_eq!(fs.statfs().inodes_free, free.inodes_free);
}

/// Nothing is found in a directory that was removed while open, nothing is made there, and its number stays its own.
#[test]
fn a_directory_that_was_removed_while_open_holds_nothing() {
    for crash in [false, true] {
        let Some(image) = Image::new("-b 1024", 32) else {
            return;
        };
        let fs = image.mount();
        let root = root(&fs);
        let free = fs.statfs();
        let dir = root.mkdir(b"d", &NEW).expect("mkdir");
        let file = root.create(b"f", &NEW).expect("create");
        root.rmdir(b"d").expect("rmdir");
        assert_eq!(dir.attributes().expect("attributes").links, 0);
        assert_eq!(dir.create(b"x", &NEW).map(drop), Err(Error::NotFound));
        assert_eq!(dir.mkdir(b"x", &NEW).map(drop), Err(Error::NotFound));
        assert_eq!(dir.tmpfile(&NEW).map(drop), Err(Error::NotFound));
        assert_eq!(dir.link(b"x", &file), Err(Error::NotFound));
        assert_eq!(root.rename(b"f", &dir, b"x"), Err(Error::NotFound));
        assert_eq!(dir.lookup(b"x").map(drop), Err(Error::NotFound));
        assert_eq!(dir.unlink(b"x"), Err(Error::NotFound));
        assert_eq!(dir.read_dir(0, 10).expect("a listing"), []);
        let other = root.mkdir(b"d", &NEW).expect("mkdir");
        assert_ne!(other.number(), dir.number());
        root.mkdir(b"e", &NEW).map(drop).expect("mkdir");
        root.rename(b"e", &root, b"d")
            .expect("rename over an open directory");
        assert_eq!(other.create(b"x", &NEW).map(drop), Err(Error::NotFound));
        root.rmdir(b"d").expect("rmdir");
        root.unlink(b"f").expect("unlink");
        if crash {
            fs.abandon();
            drop((dir, file, other, root));
            let fs = image.mount();
            assert_eq!(fs.statfs().blocks_free, free.blocks_free);
            assert_eq!(fs.statfs().inodes_free, free.inodes_free);
            fs.unmount().expect("nothing is open");
            assert!(image.preen() <= 1, "e2fsck -p");
        } else {
            drop((dir, file, other, root));
            assert_eq!(fs.statfs().blocks_free, free.blocks_free);
            assert_eq!(fs.statfs().inodes_free, free.inodes_free);
            fs.unmount().expect("nothing is open");
        }
        image.assert_clean("a removed directory");
        drop(image.mount_with(&MountOptions::new().read_only(true)));
    }
}

/// The owner may do everything, user 1000 and the group may read, others nothing.
fn default_list() -> Vec<u8> {
    let mut list = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in [
        (1_u16, 7_u16, u32::MAX),
        (2, 4, 1000),
        (4, 4, u32::MAX),
        (0x10, 4, u32::MAX),
        (0x20, 0, u32::MAX),
    ] {
        list.extend(tag.to_le_bytes());
        list.extend(permissions.to_le_bytes());
        list.extend(id.to_le_bytes());
    }
    list
}

/// e2fsck takes the attributes from a live file on the orphan list, so none may be there, while newer files without names
/// are open that keep others there.
#[test]
fn attributes_survive_a_crash_wherever_a_file_got_its_name() {
    let Some(image) = Image::new("-b 1024", 32) else {
        return;
    };
    let fs = image.mount();
    let root = root(&fs);
    let dir = root.mkdir(b"d", &NEW).expect("mkdir");
    dir.set_xattr(b"system.posix_acl_default", &default_list(), SetXattr::Any)
        .expect("a default list");
    let oldest = root.tmpfile(&NEW).expect("tmpfile");
    let inherits = dir.tmpfile(&NEW).expect("tmpfile");
    let later = root.tmpfile(&NEW).expect("tmpfile");
    let before = root.tmpfile(&NEW).expect("tmpfile");
    before
        .set_xattr(b"user.a", b"before", SetXattr::Any)
        .expect("set");
    let newest = root.tmpfile(&NEW).expect("tmpfile");
    dir.link(b"inherits", &inherits).expect("link");
    root.link(b"later", &later).expect("link");
    later
        .set_xattr(b"user.a", b"later", SetXattr::Any)
        .expect("set");
    root.link(b"before", &before).expect("link");
    let in_use = fs.statfs().inodes_free;
    let (crashed, preened) = (image.copy(), image.copy());
    drop((oldest, inherits, later, before, newest, dir, root));
    fs.unmount().expect("nothing is open");
    image.assert_clean("without a crash");
    assert!(preened.preen() <= 1, "e2fsck -p");
    preened.assert_clean("after e2fsck -p");
    for image in [crashed, preened] {
        let fs = image.mount();
        let root = self::root(&fs);
        for name in ["before", "later"] {
            let file = root.lookup(name.as_bytes()).expect("it has a name");
            assert_eq!(
                file.xattr(b"user.a").expect("its attribute"),
                name.as_bytes()
            );
        }
        let dir = root.lookup(b"d").expect("the directory");
        let file = dir.lookup(b"inherits").expect("it has a name");
        let list = file.xattr(b"system.posix_acl_access");
        assert_eq!(list.expect("its list").len(), 4 + 5 * 8);
        assert_eq!(fs.statfs().inodes_free, in_use + 2, "two had no name");
        drop((root, dir, file));
        fs.unmount().expect("nothing is open");
    }
}
