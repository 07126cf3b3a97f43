//! Names: every operation against a model, on every shape of file system, judged by e2fsck after each batch.

use std::collections::BTreeMap;

use ext2dax::{Error, FileSystem, Inode, New, RenameFlags};
use ext2dax_format::FileType;

use crate::image::{Image, SHAPES};
use crate::random::Random;

/// Which file a name leads to, or the names below it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Thing {
    /// A number stands for a file: two names with the same number are links.
    File(u32),
    Directory(Names),
}

type Names = BTreeMap<Vec<u8>, Thing>;

/// What a file is, and how many names it has.
#[derive(Clone, Debug)]
struct FileModel {
    file_type: FileType,
    target: Vec<u8>,
    device: (u32, u32),
    links: u32,
}

struct World {
    random: Random,
    names: Names,
    files: Vec<FileModel>,
    /// Names are drawn from this pool, so that operations meet.
    pool: Vec<Vec<u8>>,
    longest_target: usize,
}

/// A directory by the names that lead to it.
type Path = Vec<Vec<u8>>;

impl World {
    fn new(seed: u64, block_size: usize) -> Self {
        let mut random = Random(seed);
        let pool = (0..60).map(|number| name(&mut random, number)).collect();
        Self {
            random,
            names: Names::new(),
            files: Vec::new(),
            pool,
            longest_target: block_size - 1,
        }
    }

    fn names_at(&mut self, path: &Path) -> &mut Names {
        let mut names = &mut self.names;
        for name in path {
            match names.get_mut(name) {
                Some(Thing::Directory(below)) => names = below,
                other => panic!("no directory on the way: {other:?}"),
            }
        }
        names
    }

    /// Some directory, seldom deeper than four.
    fn some_directory(&mut self) -> Path {
        let mut path = Path::new();
        loop {
            let below: Vec<Vec<u8>> = self
                .names_at(&path.clone())
                .iter()
                .filter(|(_, thing)| matches!(thing, Thing::Directory(_)))
                .map(|(name, _)| name.clone())
                .collect();
            if below.is_empty() || self.random.below(3) == 0 {
                return path;
            }
            path.push(self.random.pick(&below).clone());
        }
    }

    fn some_name(&mut self) -> Vec<u8> {
        self.random.pick(&self.pool).clone()
    }

    /// A name that is there, mostly.
    fn present_name(&mut self, path: &Path) -> Vec<u8> {
        let there: Vec<Vec<u8>> = self.names_at(path).keys().cloned().collect();
        if there.is_empty() || self.random.below(8) == 0 {
            self.some_name()
        } else {
            self.random.pick(&there).clone()
        }
    }

    fn new_file(&mut self, file_type: FileType) -> u32 {
        self.files.push(FileModel {
            file_type,
            target: Vec::new(),
            device: (0, 0),
            links: 1,
        });
        u32::try_from(self.files.len() - 1).expect("few files")
    }

    fn drop_link(&mut self, thing: &Thing) {
        if let Thing::File(number) = thing {
            self.files[*number as usize].links -= 1;
        }
    }
}

/// A name of one to 255 bytes, short ones more often, of any bytes that are legal.
fn name(random: &mut Random, number: usize) -> Vec<u8> {
    let len = match random.below(4) {
        0 => 1 + random.below(255),
        _ => 1 + random.below(20),
    };
    let mut name = format!("{number}.").into_bytes();
    while name.len() < len {
        let byte = random.byte();
        if byte != 0 && byte != b'/' {
            name.push(byte);
        }
    }
    name.truncate(255);
    name
}

fn open(fs: &FileSystem, path: &Path) -> Inode {
    let mut at = fs.root().expect("the root");
    for name in path {
        at = at.lookup(name).expect("a directory of the model");
    }
    at
}

const NEW: New = New {
    mode: 0o644,
    umask: 0,
    uid: 1000,
    gid: 70_000,
    device: (0, 0),
};

/// One operation on both sides; the outcomes must agree.
fn step(world: &mut World, fs: &FileSystem) {
    match world.random.below(20) {
        0..=4 => make_file(world, fs),
        5..=6 => make_directory(world, fs),
        7 => make_symlink(world, fs),
        8 => make_node(world, fs),
        9..=10 => link(world, fs),
        11..=12 => unlink(world, fs),
        13 => rmdir(world, fs),
        _ => rename(world, fs),
    }
}

fn expect_new(world: &mut World, path: &Path, name: &[u8]) -> Result<(), Error> {
    if world.names_at(path).contains_key(name) {
        Err(Error::AlreadyExists)
    } else {
        Ok(())
    }
}

fn make_file(world: &mut World, fs: &FileSystem) {
    let (path, name) = (world.some_directory(), world.some_name());
    let expected = expect_new(world, &path, &name);
    let got = open(fs, &path).create(&name, &NEW).map(drop);
    assert_eq!(got, expected, "create");
    if got.is_ok() {
        let number = world.new_file(FileType::Regular);
        world.names_at(&path).insert(name, Thing::File(number));
    }
}

fn make_directory(world: &mut World, fs: &FileSystem) {
    let (path, name) = (world.some_directory(), world.some_name());
    let expected = expect_new(world, &path, &name);
    let got = open(fs, &path)
        .mkdir(&name, &New { mode: 0o755, ..NEW })
        .map(drop);
    assert_eq!(got, expected, "mkdir");
    if got.is_ok() {
        world
            .names_at(&path)
            .insert(name, Thing::Directory(Names::new()));
    }
}

fn make_symlink(world: &mut World, fs: &FileSystem) {
    let (path, name) = (world.some_directory(), world.some_name());
    let expected = expect_new(world, &path, &name);
    let longest = world.longest_target;
    let len = [1, 58, 59, 60, 61, 200, longest][world.random.below(7)].min(longest);
    let target = vec![b'a' + world.random.byte() % 26; len];
    let got = open(fs, &path).symlink(&name, &target, &NEW).map(drop);
    assert_eq!(got, expected, "symlink");
    if got.is_ok() {
        let number = world.new_file(FileType::Symlink);
        world.files[number as usize].target = target;
        world.names_at(&path).insert(name, Thing::File(number));
    }
}

fn make_node(world: &mut World, fs: &FileSystem) {
    let (path, name) = (world.some_directory(), world.some_name());
    let expected = expect_new(world, &path, &name);
    let file_type = *world.random.pick(&[
        FileType::CharDevice,
        FileType::BlockDevice,
        FileType::Fifo,
        FileType::Socket,
    ]);
    let device = match file_type {
        FileType::CharDevice | FileType::BlockDevice => {
            *world.random.pick(&[(8, 1), (259, 0), (1, 1_000_000)])
        }
        _ => (0, 0),
    };
    let new = New {
        mode: file_type.mode() | 0o600,
        device,
        ..NEW
    };
    let got = open(fs, &path).mknod(&name, &new).map(drop);
    assert_eq!(got, expected, "mknod");
    if got.is_ok() {
        let number = world.new_file(file_type);
        world.files[number as usize].device = device;
        world.names_at(&path).insert(name, Thing::File(number));
    }
}

fn link(world: &mut World, fs: &FileSystem) {
    let (from, to) = (world.some_directory(), world.some_directory());
    let (old, new) = (world.present_name(&from), world.some_name());
    let thing = world.names_at(&from).get(&old).cloned();
    let Some(thing) = thing else {
        assert_eq!(open(fs, &from).lookup(&old).map(drop), Err(Error::NotFound));
        return;
    };
    let expected = match &thing {
        Thing::Directory(_) => expect_new(world, &to, &new).and(Err(Error::NotPermitted)),
        Thing::File(_) => expect_new(world, &to, &new),
    };
    let target = open(fs, &from).lookup(&old).expect("a file of the model");
    let got = open(fs, &to).link(&new, &target);
    assert_eq!(got, expected, "link");
    if let (Ok(()), Thing::File(number)) = (got, &thing) {
        world.files[*number as usize].links += 1;
        world.names_at(&to).insert(new, thing);
    }
}

fn unlink(world: &mut World, fs: &FileSystem) {
    let path = world.some_directory();
    let name = world.present_name(&path);
    let expected = match world.names_at(&path).get(&name) {
        None => Err(Error::NotFound),
        Some(Thing::Directory(_)) => Err(Error::IsADirectory),
        Some(Thing::File(_)) => Ok(()),
    };
    let dir = open(fs, &path);
    // Now and then the file is open when its name goes, and its last handle goes later.
    let handle = if world.random.below(3) == 0 {
        dir.lookup(&name).ok()
    } else {
        None
    };
    assert_eq!(dir.unlink(&name), expected, "unlink");
    if expected.is_ok() {
        let thing = world.names_at(&path).remove(&name).expect("it was there");
        world.drop_link(&thing);
        if let (Some(handle), Thing::File(number)) = (&handle, &thing) {
            let links = handle.attributes().expect("an open file").links;
            assert_eq!(u32::from(links), world.files[*number as usize].links);
        }
    }
}

fn rmdir(world: &mut World, fs: &FileSystem) {
    let path = world.some_directory();
    let name = world.present_name(&path);
    let expected = match world.names_at(&path).get(&name) {
        None => Err(Error::NotFound),
        Some(Thing::File(_)) => Err(Error::NotADirectory),
        Some(Thing::Directory(names)) if names.is_empty() => Ok(()),
        Some(Thing::Directory(_)) => Err(Error::DirectoryNotEmpty),
    };
    assert_eq!(open(fs, &path).rmdir(&name), expected, "rmdir");
    if expected.is_ok() {
        world.names_at(&path).remove(&name);
    }
}

/// What a rename must answer, by POSIX and Linux.
fn expect_rename(
    world: &mut World,
    (from, name): (&Path, &[u8]),
    (to, new): (&Path, &[u8]),
    flags: RenameFlags,
) -> Result<(), Error> {
    let source = world
        .names_at(from)
        .get(name)
        .cloned()
        .ok_or(Error::NotFound)?;
    let target = world.names_at(to).get(new).cloned();
    let mut own: Path = from.clone();
    own.push(name.to_vec());
    let is_directory = |thing: &Thing| matches!(thing, Thing::Directory(_));
    // As Linux has it, flags are asked about the target before anything else.
    match (flags, &target) {
        (RenameFlags::Exchange, None) => return Err(Error::NotFound),
        (RenameFlags::NoReplace, Some(_)) => return Err(Error::AlreadyExists),
        _ => {}
    }
    if is_directory(&source) && to.starts_with(&own) {
        return Err(Error::InvalidArgument);
    }
    let mut target_path = to.clone();
    target_path.push(new.to_vec());
    match (flags, &target) {
        (_, None) => return Ok(()),
        (RenameFlags::Exchange, Some(target)) => {
            if is_directory(target) && from.starts_with(&target_path) {
                return Err(Error::InvalidArgument);
            }
            return Ok(());
        }
        (_, Some(_)) => {}
    }
    let target = target.expect("it is there");
    // As Linux has it: a target that holds the source is not empty, whatever moves.
    if is_directory(&target) && from.starts_with(&target_path) {
        return Err(Error::DirectoryNotEmpty);
    }
    match (&source, target) {
        (Thing::Directory(_), Thing::File(_)) => Err(Error::NotADirectory),
        (Thing::File(_), Thing::Directory(_)) => Err(Error::IsADirectory),
        (Thing::Directory(_), Thing::Directory(below))
            if !below.is_empty() && own != target_path =>
        {
            Err(Error::DirectoryNotEmpty)
        }
        _ => Ok(()),
    }
}

fn rename(world: &mut World, fs: &FileSystem) {
    let from = world.some_directory();
    let to = if world.random.below(2) == 0 {
        from.clone()
    } else {
        world.some_directory()
    };
    let name = world.present_name(&from);
    let new = if world.random.below(2) == 0 {
        world.some_name()
    } else {
        world.present_name(&to)
    };
    let flags = match world.random.below(6) {
        0 => RenameFlags::NoReplace,
        1 => RenameFlags::Exchange,
        _ => RenameFlags::Replace,
    };
    let expected = expect_rename(world, (&from, &name), (&to, &new), flags);
    let handle = if world.random.below(4) == 0 {
        open(fs, &to).lookup(&new).ok()
    } else {
        None
    };
    let got = open(fs, &from).rename_with(&name, &open(fs, &to), &new, flags);
    drop(handle);
    if flags == RenameFlags::Exchange && got == Err(Error::NotSupported) {
        // Directories whose entries no single store can exchange.
        return;
    }
    assert_eq!(
        got, expected,
        "rename {flags:?} {from:?} {name:?} -> {to:?} {new:?}"
    );
    if got.is_err() {
        return;
    }
    let source = world.names_at(&from)[&name].clone();
    let target = world.names_at(&to).get(&new).cloned();
    if let (Thing::File(a), Some(Thing::File(b))) = (&source, &target)
        && a == b
    {
        return;
    }
    if from == to && name == new {
        return;
    }
    if flags == RenameFlags::Exchange {
        world
            .names_at(&from)
            .insert(name, target.expect("an exchange has two"));
        world.names_at(&to).insert(new, source);
        return;
    }
    world.names_at(&from).remove(&name);
    if let Some(target) = target {
        world.drop_link(&target);
    }
    world.names_at(&to).insert(new, source);
}

/// The tree on the medium is the model's, links and all.
fn compare(world: &World, fs: &FileSystem) {
    let mut numbers = BTreeMap::new();
    compare_names(
        world,
        &fs.root().expect("the root"),
        &world.names,
        &mut numbers,
        true,
    );
}

fn compare_names(
    world: &World,
    dir: &Inode,
    names: &Names,
    numbers: &mut BTreeMap<u32, u32>,
    root: bool,
) {
    let listed = dir.read_dir(0, usize::MAX).expect("a listing");
    let mut seen: Vec<Vec<u8>> = listed.iter().map(|entry| entry.name.to_vec()).collect();
    seen.retain(|name| name != b"." && name != b".." && !(root && name == b"lost+found"));
    seen.sort();
    let wanted: Vec<Vec<u8>> = names.keys().cloned().collect();
    assert_eq!(seen, wanted);
    let directories = names
        .values()
        .filter(|thing| matches!(thing, Thing::Directory(_)))
        .count();
    let links = usize::from(dir.attributes().expect("attributes").links);
    assert_eq!(
        links,
        directories + 2 + usize::from(root),
        "a directory's links"
    );
    for entry in &listed {
        let found = dir.lookup(&entry.name).expect("a name that is listed");
        assert_eq!(found.number(), entry.ino);
        assert!(
            entry
                .file_type
                .is_none_or(|listed| listed == found.file_type())
        );
    }
    for (name, thing) in names {
        let node = dir.lookup(name).expect("a name of the model");
        match thing {
            Thing::Directory(below) => {
                assert_eq!(node.lookup(b"..").expect("a parent").number(), dir.number());
                compare_names(world, &node, below, numbers, false);
            }
            Thing::File(number) => {
                let file = &world.files[*number as usize];
                let attributes = node.attributes().expect("attributes");
                assert_eq!(node.file_type(), file.file_type);
                assert_eq!(u32::from(attributes.links), file.links, "links of {name:?}");
                assert_eq!(
                    *numbers.entry(*number).or_insert(node.number()),
                    node.number()
                );
                match file.file_type {
                    FileType::Symlink => {
                        assert_eq!(&*node.read_link().expect("a target"), &*file.target);
                    }
                    FileType::CharDevice | FileType::BlockDevice => {
                        let device = attributes.device.expect("a device");
                        assert_eq!((device.major, device.minor), file.device);
                    }
                    _ => {}
                }
            }
        }
    }
}

/// Random operations in batches; after each, the tree is the model's, before and after a remount, and e2fsck agrees.
fn random_operations(shape: &str, seed: u64, batches: usize, steps: usize) {
    let Some(image) = Image::new(shape, 192) else {
        return;
    };
    let block_size = image.mount().geometry().block_size() as usize;
    let mut world = World::new(seed, block_size);
    for batch in 0..batches {
        let fs = image.mount();
        for _ in 0..steps {
            step(&mut world, &fs);
        }
        compare(&world, &fs);
        fs.unmount().expect("nothing is open");
        image.assert_clean(&format!("{shape}, seed {seed}, batch {batch}"));
        compare(&world, &image.mount());
    }
}

#[test]
fn random_operations_match_the_model_on_every_shape() {
    for (number, shape) in SHAPES.iter().enumerate() {
        let seed = 0x5EED_0000 + number as u64;
        println!("shape {shape}, seed {seed:#x}");
        random_operations(shape, seed, 4, 400);
    }
}

/// Directories that grow past their first blocks, and past their pointers' first line, and shrink again.
#[test]
fn directories_grow_and_are_refilled_on_every_shape() {
    for shape in SHAPES {
        let Some(image) = Image::new(shape, 192) else {
            return;
        };
        let fs = image.mount();
        let root = fs.root().expect("the root");
        let dir = root
            .mkdir(b"d", &New { mode: 0o755, ..NEW })
            .expect("mkdir");
        let name = |number: usize| format!("{number:05}-{}", "n".repeat(number % 120)).into_bytes();
        for number in 0..3000 {
            dir.create(&name(number), &NEW)
                .unwrap_or_else(|error| panic!("{shape}: {number}: {error}"));
        }
        let size = dir.attributes().expect("attributes").size;
        for number in (0..3000).filter(|number| number % 3 != 0) {
            dir.unlink(&name(number)).expect("unlink");
        }
        assert_eq!(dir.lookup(&name(1)).map(drop), Err(Error::NotFound));
        for number in (0..3000).filter(|number| number % 3 == 1) {
            dir.create(&name(number), &NEW).expect("there is room");
        }
        assert_eq!(
            dir.attributes().expect("attributes").size,
            size,
            "{shape}: gaps were not used"
        );
        drop((dir, root));
        fs.unmount().expect("nothing is open");
        image.assert_clean(shape);
        let fs = image.mount();
        let dir = fs.root().expect("the root").lookup(b"d").expect("d");
        for number in 0..3000 {
            let expected = if number % 3 == 2 {
                Err(Error::NotFound)
            } else {
                Ok(())
            };
            assert_eq!(dir.lookup(&name(number)).map(drop), expected);
        }
    }
}

/// Long runs for whoever asks: `SEEDS=100 cargo test -p ext2dax --test it soak -- --nocapture`.
#[test]
fn soak_of_random_operations() {
    let seeds: u64 = std::env::var("SEEDS")
        .ok()
        .and_then(|seeds| seeds.parse().ok())
        .unwrap_or(1);
    for seed in 0..seeds {
        let shape = SHAPES
            .iter()
            .cycle()
            .nth(usize::try_from(seed).expect("a small number"))
            .expect("endless");
        println!("shape {shape}, seed {seed}");
        random_operations(shape, seed, 3, 1500);
    }
}

/// A FUSE server saw `mkdir` answer ENOENT now and then: the number of a directory that had just been removed, and that the
/// kernel had not forgotten yet, came back for the next one.
#[test]
fn a_removed_directory_keeps_its_number_until_it_is_closed() {
    let Some(image) = Image::new(SHAPES[0], 8) else {
        return;
    };
    let fs = image.mount();
    let root = fs.root().unwrap();
    let new = New {
        mode: 0o755,
        ..New::default()
    };
    for replaced in [false, true] {
        let free = fs.statfs();
        let removed = root.mkdir(b"d", &new).unwrap();
        if replaced {
            root.mkdir(b"e", &new).unwrap();
            root.rename(b"e", &root, b"d").unwrap();
        } else {
            root.rmdir(b"d").unwrap();
        }
        for name in [b"x", b"y", b"z"] {
            let other = root.mkdir(name, &new).unwrap();
            assert_ne!(other.number(), removed.number(), "{replaced}");
            root.rmdir(name).unwrap();
        }
        assert_eq!(removed.attributes().unwrap().links, 0);
        assert_eq!(removed.lookup(b"..").unwrap_err(), Error::NotFound);
        assert_eq!(removed.create(b"f", &new).unwrap_err(), Error::NotFound);
        assert!(removed.read_dir(0, 9).unwrap().is_empty());
        drop(removed);
        if replaced {
            root.rmdir(b"d").unwrap();
        }
        let now = fs.statfs();
        assert_eq!(
            (now.inodes_free, now.blocks_free),
            (free.inodes_free, free.blocks_free)
        );
    }
    drop(root);
    fs.unmount().expect("nothing is open");
    image.assert_clean("at the end");
}
