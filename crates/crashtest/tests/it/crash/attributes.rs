//! Attributes and access control lists in every crash state: those of before or those of after, whatever tool looks first.

use anyhow::{Result, ensure};
use ext2dax::{FileSystem, Inode, New, SetAttributes, SetXattr};
use ext2dax_crashtest::crash::preen::E2fsck;
use ext2dax_crashtest::crash::scenario::{Promise, Recording, Scenario, Shape};
use ext2dax_crashtest::crash::{Enumeration, Limits, oracle};
use ext2dax_crashtest::judge::soak;
use ext2dax_format::superblock::RawSuperblock;
use ext2dax_format::xattr::{self, MAGIC, NameIndex, RawXattrEntry};
use ext2dax_format::{Geometry, RawGroupDesc, RawInode};
use ext2dax_pmem::{Off, Pmem, field};
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32};

use super::{every_state_is_good, judge, limits};

const ACCESS: &[u8] = b"system.posix_acl_access";
const DEFAULT: &[u8] = b"system.posix_acl_default";

/// A list for the owner, user 1000, the group under a mask, and others.
fn list(mask: u16) -> Vec<u8> {
    let mut value = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in [
        (1_u16, 7_u16, u32::MAX),
        (2, 6, 1000),
        (4, 5, u32::MAX),
        (0x10, mask, u32::MAX),
        (0x20, 1, u32::MAX),
    ] {
        value.extend(tag.to_le_bytes());
        value.extend(permissions.to_le_bytes());
        value.extend(id.to_le_bytes());
    }
    value
}

/// A list that says no more than a mode.
fn plain() -> Vec<u8> {
    [
        &2_u32.to_le_bytes()[..],
        &[1, 0, 7, 0, 255, 255, 255, 255],
        &[4, 0, 5, 0, 255, 255, 255, 255],
        &[32, 0, 1, 0, 255, 255, 255, 255],
    ]
    .concat()
}

fn set(inode: &Inode, name: &[u8], value: &[u8]) -> ext2dax::Result<()> {
    inode.set_xattr(name, value, SetXattr::Any)
}

/// A file with contents and two attributes.
fn rich(fs: &FileSystem) -> ext2dax::Result<()> {
    fs.write("/f", [5; 700])?;
    let file = fs.inode("/f")?;
    set(&file, b"user.a", b"first")?;
    set(&file, b"trusted.second", &[7; 200])
}

fn one(fs: &FileSystem) -> ext2dax::Result<()> {
    fs.write("/f", [5; 700])?;
    set(&fs.inode("/f")?, b"user.a", b"first")
}

fn generous(fs: &FileSystem) -> ext2dax::Result<()> {
    fs.create_dir("/d")?;
    set(&fs.inode("/d")?, DEFAULT, &list(7))
}

fn listed(fs: &FileSystem) -> ext2dax::Result<()> {
    one(fs)?;
    set(&fs.inode("/f")?, ACCESS, &list(7))
}

fn capable(fs: &FileSystem) -> ext2dax::Result<()> {
    one(fs)?;
    chmod(fs, 0o6711)?;
    set(&fs.inode("/f")?, b"security.capability", b"something")
}

fn chmod(fs: &FileSystem, mode: u16) -> ext2dax::Result<()> {
    fs.inode("/f")?.set_attributes(&SetAttributes {
        permissions: Some(mode),
        ..SetAttributes::default()
    })
}

/// A file without a name that has contents and inherits what there is.
fn nameless(directory: &Inode) -> ext2dax::Result<Inode> {
    let file = directory.tmpfile(&New {
        mode: 0o666,
        ..New::default()
    })?;
    file.write_at(0, [7; 1500].as_slice())?;
    Ok(file)
}

const fn atomic(
    name: &'static str,
    fences: usize,
    prepare: fn(&FileSystem) -> ext2dax::Result<()>,
    operation: fn(&FileSystem) -> ext2dax::Result<()>,
) -> Scenario {
    Scenario {
        name,
        promise: Promise::Atomic,
        fences,
        prepare,
        operation,
    }
}

/// Operations that a crash shows whole or not at all.
pub(super) const ATTRIBUTES: &[Scenario] = &[
    atomic(
        "setxattr, first",
        2,
        |fs| fs.write("/f", [5; 700]),
        |fs| set(&fs.inode("/f")?, b"user.a", b"1"),
    ),
    atomic(
        "setxattr, first, of a directory",
        2,
        |fs| fs.create_dir("/d"),
        |fs| set(&fs.inode("/d")?, b"user.a", b"1"),
    ),
    atomic("setxattr, one more", 2, one, |fs| {
        set(&fs.inode("/f")?, b"security.more", &[3; 100])
    }),
    atomic("setxattr, another value", 2, rich, |fs| {
        set(&fs.inode("/f")?, b"user.a", b"another")
    }),
    atomic("removexattr, one of two", 2, rich, |fs| {
        fs.inode("/f")?.remove_xattr(b"user.a")
    }),
    atomic("removexattr, last", 1, one, |fs| {
        fs.inode("/f")?.remove_xattr(b"user.a")
    }),
    atomic(
        "setxattr, first, of a short symlink",
        3,
        |fs| fs.symlink("target", "/l"),
        |fs| set(&fs.root()?.lookup(b"l")?, b"trusted.a", b"1"),
    ),
    atomic(
        "removexattr, last, of a short symlink",
        2,
        |fs| {
            fs.symlink("target", "/l")?;
            set(&fs.root()?.lookup(b"l")?, b"trusted.a", b"1")
        },
        |fs| fs.root()?.lookup(b"l")?.remove_xattr(b"trusted.a"),
    ),
    atomic(
        "setxattr, first, of a long symlink",
        3,
        |fs| fs.symlink("t".repeat(100), "/l"),
        |fs| set(&fs.root()?.lookup(b"l")?, b"trusted.a", b"1"),
    ),
    atomic(
        "removexattr, last, of a long symlink",
        2,
        |fs| {
            fs.symlink("t".repeat(100), "/l")?;
            set(&fs.root()?.lookup(b"l")?, b"trusted.a", b"1")
        },
        |fs| fs.root()?.lookup(b"l")?.remove_xattr(b"trusted.a"),
    ),
    atomic("a default list", 2, generous, |fs| {
        set(&fs.inode("/d")?, DEFAULT, &list(1))
    }),
    atomic("create below a default list", 3, generous, |fs| {
        fs.create("/d/new").map(drop)
    }),
    atomic("mkdir below a default list", 3, generous, |fs| {
        fs.create_dir("/d/new")
    }),
    atomic("symlink below a default list", 3, generous, |fs| {
        fs.symlink("target", "/d/new")
    }),
    atomic(
        "a file without a name below a default list gets one",
        7,
        generous,
        |fs| {
            let d = fs.inode("/d")?;
            let file = nameless(&d)?;
            d.link(b"new", &file)
        },
    ),
    atomic("unlink with attributes", 4, rich, |fs| fs.remove_file("/f")),
    // Mode, owner and the pointer to the attributes lie in several lines: an intent makes one step of them.
    atomic("an access list", 2, one, |fs| {
        set(&fs.inode("/f")?, ACCESS, &list(7))
    }),
    atomic("removal of an access list for a mode", 2, listed, |fs| {
        set(&fs.inode("/f")?, ACCESS, &plain())
    }),
    atomic("chmod with an access list", 2, listed, |fs| {
        chmod(fs, 0o4610)
    }),
    atomic("chown with a capability", 2, capable, |fs| {
        fs.inode("/f")?.set_attributes(&SetAttributes {
            uid: Some(5),
            ..SetAttributes::default()
        })
    }),
    atomic(
        "chown with changed upper halves",
        2,
        |fs| {
            one(fs)?;
            chmod(fs, 0o6711)
        },
        |fs| {
            fs.inode("/f")?.set_attributes(&SetAttributes {
                uid: Some(1_000_000),
                gid: Some(2_000_000),
                ..SetAttributes::default()
            })
        },
    ),
    atomic("a list that is a mode", 1, one, |fs| {
        set(&fs.inode("/f")?, ACCESS, &plain())
    }),
];

#[test]
fn attributes_come_and_go_in_every_crash_state() {
    every_state_is_good(ATTRIBUTES);
}

/// It must not live on the orphan list, where e2fsck would take its attributes; others behind it are listed again.
#[test]
fn a_file_with_attributes_is_taken_out_of_the_list_in_every_crash_state() {
    let scenario = atomic("taken out of the list", 20, generous, |fs| {
        let d = fs.inode("/d")?;
        let file = nameless(&d)?;
        let others = [d.tmpfile(&New::default())?, d.tmpfile(&New::default())?];
        d.link(b"new", &file)?;
        drop(others);
        Ok(())
    });
    let recording = scenario.record(Shape::small(1024, 128)).unwrap();
    let fences = recording.fences();
    assert!(fences <= scenario.fences, "{fences} fences");
    let limits = Limits {
        product: if soak() { 2000 } else { 12 },
        seed: 1,
    };
    let (complaints, report, judged) = judge(&recording, &recording.events, limits);
    println!("{} states, {judged} judged", report.states);
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

/// Where an inode lies.
fn inode_at(pmem: &Pmem, ino: u32) -> Result<Off<RawInode>> {
    let superblock: RawSuperblock = pmem.read_value(Off::new(1024));
    let geometry = Geometry::new(&superblock, pmem.len())?;
    let (group, index) = geometry.locate_ino(geometry.ino(ino)?);
    let raw: RawGroupDesc = pmem.read_value(Off::new(geometry.desc_offset(group)));
    let table = geometry.group_desc(&raw, group)?.inode_table;
    let within = u64::from(index) * u64::from(geometry.inode_size());
    Ok(Off::new(geometry.offset(table) + within))
}

/// `user.inside` = "in here" and `user.twice` = "inside" behind the inode of `/f`, as the ext4 driver puts them there.
fn plant_in_inode(fs: &FileSystem, pmem: &Pmem) -> Result<()> {
    let at = inode_at(pmem, fs.inode("/f")?.number())?.at() + 128 + 32;
    let mut area = [0; 256 - 128 - 32];
    area[..4].copy_from_slice(&MAGIC.to_le_bytes());
    let mut offset = 4;
    let mut end = area.len();
    for (name, value) in [(&b"inside"[..], &b"in here"[..]), (b"twice", b"inside")] {
        end -= value.len().next_multiple_of(4);
        area[end..end + value.len()].copy_from_slice(value);
        let entry = RawXattrEntry {
            e_name_len: u8::try_from(name.len())?,
            e_name_index: NameIndex::User.raw(),
            e_value_offs: U16::new(u16::try_from(end - 4)?),
            e_value_block: U32::new(0),
            e_value_size: U32::new(u32::try_from(value.len())?),
            e_hash: U32::new(xattr::entry_hash(name, value)),
        };
        area[offset..offset + 16].copy_from_slice(entry.as_bytes());
        area[offset + 16..offset + 16 + name.len()].copy_from_slice(name);
        offset += usize::try_from(xattr::entry_len(name.len()))?;
    }
    pmem.write(at, &area);
    pmem.flush(at, area.len() as u64);
    pmem.fence();
    let value = fs.inode("/f")?.xattr(b"user.inside")?;
    ensure!(value == b"in here", "the plant does not show");
    Ok(())
}

/// Attributes behind the inode move into a block with the first change, and every crash state shows those of before or
/// those of after.
#[test]
fn attributes_behind_the_inode_move_in_every_crash_state() {
    const MOVES: &[Scenario] = &[
        atomic(
            "one more",
            3,
            |fs| fs.write("/f", [5; 700]),
            |fs| set(&fs.inode("/f")?, b"user.more", b"1"),
        ),
        atomic(
            "another value",
            3,
            |fs| fs.write("/f", [5; 700]),
            |fs| set(&fs.inode("/f")?, b"user.inside", b"no more"),
        ),
        atomic(
            "one of two goes",
            3,
            |fs| fs.write("/f", [5; 700]),
            |fs| fs.inode("/f")?.remove_xattr(b"user.inside"),
        ),
        atomic("a block beside them", 3, rich, |fs| {
            set(&fs.inode("/f")?, b"user.a", b"in the block")
        }),
        atomic("a namesake in the block", 3, rich, |fs| {
            fs.inode("/f")?.remove_xattr(b"user.twice")
        }),
    ];
    let mut shapes = vec![Shape::small(1024, 256)];
    if soak() {
        shapes.push(Shape::small(4096, 256));
    }
    for shape in shapes {
        for scenario in MOVES {
            let recording = scenario
                .record_planted(shape, |fs, pmem| {
                    plant_in_inode(fs, pmem)?;
                    Ok(())
                })
                .unwrap();
            assert!(recording.fences() <= scenario.fences, "{}", scenario.name);
            let (complaints, report, judged) = judge(&recording, &recording.events, limits());
            println!(
                "{}: {} states, {judged} judged",
                scenario.name, report.states
            );
            assert!(
                complaints.is_empty(),
                "{} ({shape}): {}",
                scenario.name,
                complaints.join("\n")
            );
        }
    }
}

/// `/g` uses the attribute block of `/f`, as mbcache lets it.
fn plant_shared(fs: &FileSystem, pmem: &Pmem) -> Result<()> {
    let from = inode_at(pmem, fs.inode("/f")?.number())?;
    let to = inode_at(pmem, fs.inode("/g")?.number())?;
    let block = pmem.load(field!(from, RawInode, i_file_acl));
    pmem.store(field!(to, RawInode, i_file_acl), block);
    let sectors = fs.geometry().block_size() / 512;
    let count = field!(to, RawInode, i_blocks);
    pmem.store(count, U32::new(pmem.load(count).get() + sectors));
    let users = Off::<U32>::new(u64::from(block.get()) * u64::from(fs.geometry().block_size()) + 4);
    pmem.store(users, U32::new(2));
    for line in [from.at(), to.at(), users.at()] {
        pmem.flush(line, 128.min(pmem.len() - line));
    }
    pmem.fence();
    ensure!(fs.inode("/g")?.list_xattrs()?.len() == 2, "not shared");
    Ok(())
}

/// Exception X2 of the crash rules: a block that another driver let two files share is left by one of them, and between
/// the pointer and the count e2fsck finds one user less than the count says and asks a human (exit 4). Nothing is lost:
/// both files show the attributes of before or of after. It must really occur, or this file claims too little.
#[test]
fn a_shared_block_that_is_left_is_an_exception_and_is_hit() {
    const LEAVES: &[Scenario] = &[
        atomic("setxattr", 3, shared_pair, |fs| {
            set(&fs.inode("/f")?, b"user.a", b"alone")
        }),
        atomic("removexattr", 3, shared_pair, |fs| {
            fs.inode("/f")?.remove_xattr(b"user.a")
        }),
        atomic("chmod with a list", 3, shared_lists, |fs| chmod(fs, 0o4600)),
        // Before a file dies it gets a block of its own.
        atomic("unlink", 7, shared_pair, |fs| fs.remove_file("/f")),
        atomic("rename over it", 10, shared_and_temporary, |fs| {
            fs.rename("/settled", "/f")
        }),
    ];
    let Some(e2fsck) = E2fsck::find() else { return };
    for scenario in LEAVES {
        let recording = scenario
            .record_planted(Shape::small(1024, 128), plant_shared)
            .unwrap();
        let fences = recording.fences();
        assert!(
            fences <= scenario.fences,
            "{}: {fences} fences",
            scenario.name
        );
        let (asks, complaints) = exceptions(&recording, &e2fsck);
        assert!(
            complaints.is_empty(),
            "{}: {}",
            scenario.name,
            complaints.join("\n")
        );
        assert!(
            asks > 0,
            "{}: e2fsck never asks: the exception is none any more",
            scenario.name
        );
    }
}

fn shared_lists(fs: &FileSystem) -> ext2dax::Result<()> {
    one(fs)?;
    set(&fs.inode("/f")?, ACCESS, &list(7))?;
    fs.write("/g", [6; 300])
}

/// The first rename over a last name sets up the temporary links.
fn shared_and_temporary(fs: &FileSystem) -> ext2dax::Result<()> {
    shared_pair(fs)?;
    fs.create("/one")?;
    fs.create("/other")?;
    fs.rename("/one", "/other")
}

fn shared_pair(fs: &FileSystem) -> ext2dax::Result<()> {
    rich(fs)?;
    fs.write("/g", [6; 300])
}

/// How often e2fsck asks, and what else is wrong.
fn exceptions(recording: &Recording, e2fsck: &E2fsck) -> (usize, Vec<String>) {
    let place = |offset| recording.places.place(offset);
    let (mut asks, mut complaints) = (0, Vec::new());
    Enumeration::new(recording.base.clone(), &place, limits()).run(
        &recording.events,
        &mut |state| {
            let verdict = e2fsck.preen(state.image).unwrap();
            let exception = verdict.preen == 4;
            asks += usize::from(exception);
            let returned = state.marks.len() == 2;
            if (exception && returned) || (!exception && !verdict.is_good()) {
                complaints.push(format!("after {} events: {verdict}", state.at));
            }
            // Our mount completes it: the count is right afterwards.
            if let Err(error) = oracle::before_or_after(recording, state) {
                complaints.push(format!("after {} events: {error:#}", state.at));
            }
        },
    );
    (asks, complaints)
}
