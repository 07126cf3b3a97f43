//! Extended attributes and access control lists, on images of every shape.

use ext2dax::{Error, FileSystem, Inode, MountOptions, New, SetAttributes, SetXattr};
use ext2dax_format::InodeFlags;

use crate::image::{Image, SHAPES};

const FILE: New = New {
    mode: 0o644,
    umask: 0,
    uid: 0,
    gid: 0,
    device: (0, 0),
};

const DIR: New = New {
    mode: 0o755,
    ..FILE
};

fn root(fs: &FileSystem) -> Inode {
    fs.root().expect("the root")
}

fn set(inode: &Inode, name: &str, value: &[u8]) -> Result<(), Error> {
    inode.set_xattr(name.as_bytes(), value, SetXattr::Any)
}

fn get(inode: &Inode, name: &str) -> Result<Vec<u8>, Error> {
    inode.xattr(name.as_bytes())
}

fn names(inode: &Inode) -> Vec<String> {
    let names = inode.list_xattrs().expect("a list");
    names
        .into_iter()
        .map(|name| String::from_utf8(name).expect("an ASCII name"))
        .collect()
}

/// Tags as in the system call's form.
const USER_OBJ: u16 = 1;
const USER: u16 = 2;
const GROUP_OBJ: u16 = 4;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut value = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        value.extend(tag.to_le_bytes());
        value.extend(permissions.to_le_bytes());
        value.extend(id.to_le_bytes());
    }
    value
}

/// user::rwx, user:`id`:rw-, group::r-x, mask::`mask`, other::r--
fn named_acl(id: u32, mask: u16) -> Vec<u8> {
    acl(&[
        (USER_OBJ, 7, u32::MAX),
        (USER, 6, id),
        (GROUP_OBJ, 5, u32::MAX),
        (MASK, mask, u32::MAX),
        (OTHER, 4, u32::MAX),
    ])
}

const ACCESS: &str = "system.posix_acl_access";
const DEFAULT: &str = "system.posix_acl_default";

fn mode(inode: &Inode) -> u16 {
    inode.attributes().expect("attributes").permissions
}

fn sectors(inode: &Inode) -> u64 {
    inode.attributes().expect("attributes").sectors
}

#[test]
fn attributes_are_set_read_listed_replaced_and_removed_on_every_shape() {
    for shape in SHAPES {
        let Some(image) = Image::new(shape, 16) else {
            return;
        };
        let fs = image.mount();
        let free = fs.statfs().blocks_free;
        let file = root(&fs).create(b"f", &FILE).expect("create");
        if shape.contains("-r 0") {
            // There is no feature word that could say so.
            assert_eq!(
                set(&file, "user.a", b"1"),
                Err(Error::NotSupported),
                "{shape}"
            );
            continue;
        }
        set(&file, "user.a", b"1").expect("the first");
        set(&file, "trusted.longer", &[7; 300]).expect("the second");
        set(&file, "security.x", b"").expect("an empty one");
        assert_eq!(names(&file), ["user.a", "trusted.longer", "security.x"]);
        assert_eq!(get(&file, "user.a").as_deref(), Ok(&b"1"[..]));
        assert_eq!(get(&file, "trusted.longer"), Ok(vec![7; 300]));
        assert_eq!(get(&file, "security.x"), Ok(Vec::new()));
        let block = u64::from(fs.statfs().block_size) / 512;
        assert_eq!(sectors(&file), block, "one block, whatever happens");
        set(&file, "user.a", b"other").expect("another value");
        assert_eq!(get(&file, "user.a").as_deref(), Ok(&b"other"[..]));
        assert_eq!(sectors(&file), block);
        assert_eq!(fs.statfs().blocks_free, free - 1, "{shape}");
        drop(file);
        fs.unmount().expect("nothing is open");
        image.assert_clean(shape);

        let fs = image.mount();
        let file = root(&fs).lookup(b"f").expect("the file");
        assert_eq!(get(&file, "trusted.longer"), Ok(vec![7; 300]));
        for name in names(&file) {
            file.remove_xattr(name.as_bytes()).expect("remove");
        }
        assert_eq!(names(&file), [""; 0]);
        assert_eq!(sectors(&file), 0);
        assert_eq!(fs.statfs().blocks_free, free);
        drop(file);
        fs.unmount().expect("nothing is open");
        image.assert_clean(shape);
    }
}

#[test]
fn attributes_die_with_their_file_open_or_not() {
    let Some(image) = Image::new("-b 1024", 16) else {
        return;
    };
    let fs = image.mount();
    let free = fs.statfs().blocks_free;
    let dir = root(&fs);
    for open in [false, true] {
        let file = dir.create(b"f", &FILE).expect("create");
        set(&file, "user.a", b"1").expect("set");
        file.write_at(0, &b"contents"[..]).expect("write");
        let handle = open.then(|| file.clone());
        drop(file);
        dir.unlink(b"f").expect("unlink");
        if let Some(file) = handle {
            assert_eq!(get(&file, "user.a").as_deref(), Ok(&b"1"[..]));
            set(&file, "user.b", b"2").expect("a file without a name still has attributes");
        }
        assert_eq!(fs.statfs().blocks_free, free, "open: {open}");
    }
    drop(dir);
    fs.unmount().expect("nothing is open");
    image.assert_clean("removed");
}

#[test]
fn the_feature_bit_is_set_before_the_first_attribute() {
    let Some(image) = Image::new("-b 1024 -O ^ext_attr", 16) else {
        return;
    };
    let fs = image.mount();
    let file = root(&fs).create(b"f", &FILE).expect("create");
    set(&file, "user.a", b"1").expect("set");
    drop(file);
    fs.unmount().expect("nothing is open");
    image.assert_clean("the first attribute");
    let fs = image.mount_with(&MountOptions::new().read_only(true));
    assert!(
        fs.geometry()
            .features()
            .compat
            .contains(ext2dax_format::Compat::EXT_ATTR)
    );
}

#[test]
fn limits_have_the_errors_of_linux() {
    let Some(image) = Image::new("-b 1024 -I 128", 16) else {
        return;
    };
    let fs = image.mount();
    let dir = root(&fs);
    let file = dir.create(b"f", &FILE).expect("create");
    let long = "x".repeat(251);
    assert_eq!(
        set(&file, &format!("user.{long}"), b""),
        Err(Error::OutOfRange)
    );
    set(&file, &format!("user.{}", &long[..250]), b"").expect("255 bytes of name");
    assert_eq!(set(&file, "", b""), Err(Error::OutOfRange));
    assert_eq!(set(&file, "user.", b""), Err(Error::InvalidArgument));
    for name in ["user", "unknown.a", "system.a", "system.posix_acl_accessx"] {
        assert_eq!(set(&file, name, b""), Err(Error::NotSupported), "{name}");
        assert_eq!(get(&file, name), Err(Error::NotSupported), "{name}");
    }
    assert_eq!(get(&file, "user.b"), Err(Error::NoData));
    assert_eq!(file.remove_xattr(b"user.b"), Err(Error::NoData));
    assert_eq!(
        file.set_xattr(b"user.b", b"", SetXattr::Replace),
        Err(Error::NoData)
    );
    set(&file, "user.b", b"1").expect("set");
    assert_eq!(
        file.set_xattr(b"user.b", b"", SetXattr::Create),
        Err(Error::AlreadyExists)
    );
    assert_eq!(set(&file, "user.c", &[0; 65_537]), Err(Error::ValueTooLong));
    assert_eq!(set(&file, "user.c", &[0; 1024]), Err(Error::NoSpace));
    file.remove_xattr(format!("user.{}", &long[..250]).as_bytes())
        .expect("remove");
    file.remove_xattr(b"user.b").expect("remove");
    // A block less head, end mark, and one entry with a name of one byte.
    let most = 1024 - 32 - 4 - 20;
    set(&file, "user.c", &vec![1; most]).expect("as much as a block holds");
    assert_eq!(
        set(&file, "user.c", &vec![1; most + 1]),
        Err(Error::NoSpace)
    );
    assert_eq!(get(&file, "user.c"), Ok(vec![1; most]));
    let link = dir.symlink(b"l", b"target", &FILE).expect("symlink");
    assert_eq!(set(&link, "user.a", b""), Err(Error::NotPermitted));
    assert_eq!(get(&link, "user.a"), Err(Error::NoData));
    set(&link, "trusted.a", b"1").expect("others have no say over symlinks");
    assert_eq!(&*link.read_link().expect("a target"), b"target");
    assert_eq!(
        set(&link, ACCESS, &named_acl(1, 7)),
        Err(Error::NotSupported)
    );
    for flag in [InodeFlags::IMMUTABLE, InodeFlags::APPEND] {
        file.set_flags(flag).expect("chattr");
        assert_eq!(set(&file, "user.c", b""), Err(Error::NotPermitted));
        assert_eq!(file.remove_xattr(b"user.c"), Err(Error::NotPermitted));
        assert_eq!(
            set(&file, ACCESS, &named_acl(1, 7)),
            Err(Error::NotPermitted)
        );
    }
    drop((file, link, dir));
    fs.unmount().expect("nothing is open");
    image.assert_clean("limits");
}

#[test]
fn an_access_list_and_the_mode_keep_step() {
    let Some(image) = Image::new("-b 4096 -I 256", 16) else {
        return;
    };
    let fs = image.mount();
    let file = root(&fs).create(b"f", &FILE).expect("create");
    set(&file, ACCESS, &named_acl(1000, 6)).expect("a list");
    assert_eq!(mode(&file), 0o764, "the mask is the group's digit");
    assert_eq!(get(&file, ACCESS), Ok(named_acl(1000, 6)));
    assert_eq!(names(&file), [ACCESS]);
    file.set_attributes(&SetAttributes {
        permissions: Some(0o4611),
        ..SetAttributes::default()
    })
    .expect("chmod");
    assert_eq!(
        get(&file, ACCESS),
        Ok(acl(&[
            (USER_OBJ, 6, u32::MAX),
            (USER, 6, 1000),
            (GROUP_OBJ, 5, u32::MAX),
            (MASK, 1, u32::MAX),
            (OTHER, 1, u32::MAX),
        ]))
    );
    // A list that a mode can express is none.
    let plain = acl(&[
        (USER_OBJ, 6, u32::MAX),
        (GROUP_OBJ, 4, u32::MAX),
        (OTHER, 0, u32::MAX),
    ]);
    set(&file, ACCESS, &plain).expect("a plain list");
    assert_eq!(mode(&file), 0o4640);
    assert_eq!(get(&file, ACCESS), Err(Error::NoData));
    assert_eq!(sectors(&file), 0);
    file.remove_xattr(ACCESS.as_bytes())
        .expect("what is not there may be removed");
    for wrong in [&b"\x02"[..], &acl(&[(USER_OBJ, 7, u32::MAX)]), &plain[..11]] {
        assert_eq!(set(&file, ACCESS, wrong), Err(Error::InvalidArgument));
    }
    assert_eq!(set(&file, ACCESS, &[1, 0, 0, 0]), Err(Error::NotSupported));
    assert_eq!(set(&file, DEFAULT, &plain), Err(Error::AccessDenied));
    drop(file);
    fs.unmount().expect("nothing is open");
    image.assert_clean("lists");
}

#[test]
fn new_files_inherit_the_default_list_and_else_obey_the_umask() {
    let Some(image) = Image::new("-b 1024 -I 128", 16) else {
        return;
    };
    let fs = image.mount();
    let dir = root(&fs).mkdir(b"d", &DIR).expect("mkdir");
    let new = New {
        mode: 0o666,
        umask: 0o027,
        ..FILE
    };
    let plain = dir.create(b"plain", &new).expect("create");
    assert_eq!(mode(&plain), 0o640);
    set(&dir, DEFAULT, &named_acl(1000, 7)).expect("a default list");
    assert_eq!(
        mode(&dir),
        0o755,
        "a default list says nothing about its directory"
    );
    let file = dir.create(b"f", &new).expect("create");
    assert_eq!(mode(&file), 0o664, "no umask");
    assert_eq!(
        get(&file, ACCESS),
        Ok(acl(&[
            (USER_OBJ, 6, u32::MAX),
            (USER, 6, 1000),
            (GROUP_OBJ, 5, u32::MAX),
            (MASK, 6, u32::MAX),
            (OTHER, 4, u32::MAX),
        ]))
    );
    let sub = dir
        .mkdir(b"sub", &New { mode: 0o777, ..new })
        .expect("mkdir");
    assert_eq!(names(&sub), [ACCESS, DEFAULT]);
    assert_eq!(get(&sub, DEFAULT), Ok(named_acl(1000, 7)));
    let link = dir.symlink(b"l", b"f", &new).expect("symlink");
    assert_eq!((mode(&link), names(&link).len()), (0o777, 0));
    // A default list that a mode can express narrows the mode and is no list of the file's.
    let narrow = acl(&[
        (USER_OBJ, 6, u32::MAX),
        (GROUP_OBJ, 4, u32::MAX),
        (OTHER, 0, u32::MAX),
    ]);
    set(&dir, DEFAULT, &narrow).expect("a narrow list");
    let other = dir.create(b"g", &new).expect("create");
    assert_eq!((mode(&other), names(&other).len()), (0o640, 0));
    drop((other, file, link, sub, plain, dir));
    fs.unmount().expect("nothing is open");
    image.assert_clean("inherited");
}

/// A program that others may run with its owner's rights loses them when somebody else writes to it.
#[test]
fn writers_take_set_id_bits_and_capabilities() {
    let Some(image) = Image::new("-b 4096 -I 256", 16) else {
        return;
    };
    let fs = image.mount();
    let dir = root(&fs);
    let file = dir.create(b"f", &FILE).expect("create");
    let chmod = |inode: &Inode, bits| {
        inode
            .set_attributes(&SetAttributes {
                permissions: Some(bits),
                ..SetAttributes::default()
            })
            .expect("chmod");
    };
    for (before, after) in [
        (0o6777, 0o777),
        (0o4644, 0o644),
        (0o2755, 0o755),
        // Without execution by the group it is no privilege.
        (0o2644, 0o2644),
        (0o1644, 0o1644),
    ] {
        chmod(&file, before);
        file.clear_privileges().expect("cleared");
        assert_eq!(mode(&file), after, "{before:o}");
    }
    set(&file, "security.capability", b"anything").expect("a capability");
    set(&file, "user.a", b"1").expect("and another");
    file.clear_privileges().expect("cleared");
    assert_eq!(names(&file), ["user.a"]);
    let sub = dir.mkdir(b"d", &DIR).expect("mkdir");
    chmod(&sub, 0o6777);
    sub.clear_privileges().expect("nothing to clear");
    assert_eq!(
        mode(&sub),
        0o6777,
        "of a directory they mean something else"
    );
    drop((file, sub, dir));
    fs.unmount().expect("nothing is open");
    image.assert_clean("cleared");
}

#[test]
fn flags_and_generation_are_set_as_the_ioctls_do() {
    let Some(image) = Image::new("-b 4096 -I 256", 16) else {
        return;
    };
    let fs = image.mount();
    let dir = root(&fs);
    let file = dir.create(b"f", &FILE).expect("create");
    let flags = || file.attributes().expect("attributes").flags;
    file.set_flags(InodeFlags::NODUMP | InodeFlags::SYNC)
        .expect("chattr");
    assert_eq!(flags(), InodeFlags::NODUMP | InodeFlags::SYNC);
    assert_eq!(
        file.set_flags(InodeFlags::EXTENTS),
        Err(Error::NotSupported),
        "a flag that says what i_block means"
    );
    file.set_flags(InodeFlags::IMMUTABLE).expect("chattr");
    file.set_flags(InodeFlags::empty())
        .expect("flags of immutable files may change");
    file.set_generation(12345).expect("a generation");
    assert_eq!(file.generation(), 12345);
    // Times of the caller's choice are a change; now is not, for an append-only file.
    file.set_flags(InodeFlags::APPEND).expect("chattr");
    let touch = SetAttributes {
        touch: true,
        ..SetAttributes::default()
    };
    file.set_attributes(&touch).expect("touch");
    file.set_flags(InodeFlags::IMMUTABLE).expect("chattr");
    assert_eq!(file.set_attributes(&touch), Err(Error::NotPermitted));
    file.set_flags(InodeFlags::empty()).expect("chattr");
    drop((file, dir));
    fs.unmount().expect("nothing is open");
    image.assert_clean("flags");
}

/// Two threads leave a block that two files share, at the same moment: its count goes down twice, and it is freed once.
#[test]
fn a_shared_block_is_left_by_two_threads_at_once() {
    use std::os::unix::fs::FileExt;
    let Some(image) = Image::new("-b 1024 -I 128", 16) else {
        return;
    };
    let fs = image.mount();
    let free = fs.statfs().blocks_free;
    let dir = root(&fs);
    for round in 0..40 {
        let (one, other) = (
            dir.create(b"a", &FILE).expect("create"),
            dir.create(b"b", &FILE).expect("create"),
        );
        set(&one, "user.a", b"shared").expect("set");
        set(&other, "user.a", b"own").expect("set");
        share(&image, &fs, one.number(), other.number());
        assert_eq!(get(&other, "user.a").as_deref(), Ok(&b"shared"[..]));
        let start = std::sync::Barrier::new(2);
        std::thread::scope(|scope| {
            for file in [&one, &other] {
                let start = &start;
                scope.spawn(move || {
                    start.wait();
                    set(file, "user.b", b"2").expect("set");
                });
            }
        });
        drop((one, other));
        dir.unlink(b"a").expect("unlink");
        dir.unlink(b"b").expect("unlink");
        // What `share` cut off is leaked, one block a round.
        assert_eq!(fs.statfs().blocks_free, free - (round + 1), "round {round}");
    }

    /// Lets inode `to` use the block of inode `from`, behind the mount's back.
    fn share(image: &Image, fs: &FileSystem, from: u32, to: u32) {
        let file = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(&image.path)
            .expect("the image");
        let read = |at: u64| {
            let mut word = [0; 4];
            file.read_exact_at(&mut word, at).expect("a word");
            u32::from_le_bytes(word)
        };
        let geometry = fs.geometry();
        let acl_at = |ino: u32| {
            let (group, index) = geometry.locate_ino(geometry.ino(ino).expect("a number"));
            let table = u64::from(read(geometry.desc_offset(group) + 8));
            table * 1024 + u64::from(index) * 128 + 104
        };
        let block = read(acl_at(from));
        file.write_all_at(&2_u32.to_le_bytes(), u64::from(block) * 1024 + 4)
            .expect("a count");
        file.write_all_at(&block.to_le_bytes(), acl_at(to))
            .expect("a pointer");
    }
}
