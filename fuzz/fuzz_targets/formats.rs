//! The parsers: superblock, descriptor, directory block, index, attributes, names.
#![no_main]

use ext2dax_format::dirent::Entries;
use ext2dax_format::htree::{HashVersion, Node, Root, Seed, hash};
use ext2dax_format::xattr::{Attribute, Attributes, Entry, fits, write_block};
use ext2dax_format::{
    FileBlock, Geometry, GroupNr, Ino, RawGroupDesc, RawInode, RawSuperblock, acl, signature,
};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use zerocopy::FromBytes;

/// A good superblock with some bytes changed, and what follows it.
#[derive(Arbitrary, Debug)]
struct Input<'a> {
    changes: Vec<(u16, u8)>,
    rest: &'a [u8],
}

fuzz_target!(|input: Input<'_>| {
    let Input { changes, rest } = input;
    let _ = signature::looks_like(rest);
    let _ = hash(rest, HashVersion::HalfMd4, Seed::default());
    let _ = hash(rest, HashVersion::TeaUnsigned, Seed([1, 2, 3, 4]));
    let mut bytes = superblock();
    for (at, change) in changes {
        bytes[usize::from(at) % 1024] = change;
    }
    let raw = RawSuperblock::read_from_bytes(&bytes).expect("1,024 bytes");
    for len in [u64::MAX, 1 << 20, 2048] {
        let Ok(geometry) = Geometry::new(&raw, len) else {
            continue;
        };
        assert!(geometry.len_bytes() <= len);
        for group in geometry
            .all_groups()
            .take(9)
            .chain(geometry.all_groups().rev().take(9))
        {
            assert!(geometry.group_run(group).end() <= geometry.blocks_count());
            assert!(geometry.desc_offset(group) + 32 <= geometry.len_bytes());
        }
        with_geometry(&geometry, rest);
    }
});

/// Of a good image.
fn superblock() -> [u8; 1024] {
    let image = ext2dax_fuzz::good_image();
    image[1024..2048].try_into().expect("1,024 bytes")
}

fn with_geometry(geometry: &Geometry, rest: &[u8]) {
    if let Ok((desc, _)) = RawGroupDesc::read_from_prefix(rest)
        && let Ok(desc) = geometry.group_desc(&desc, GroupNr::FIRST)
    {
        let tables = geometry.group_tables(&desc, GroupNr::FIRST);
        assert!(
            tables
                .iter()
                .all(|run| run.end() <= geometry.blocks_count())
        );
    }
    if let Ok((inode, _)) = RawInode::read_from_prefix(rest) {
        let _ = inode.checked_size(Ino::ROOT, geometry);
        let _ = inode.device();
    }
    let block = rest.get(..geometry.block_size() as usize).unwrap_or(rest);
    let entries = Entries::new(block, geometry, Ino::ROOT, FileBlock(0));
    assert!(entries.count() <= block.len() / 12 + 1);
    if let Ok(root) = Root::parse(block, geometry, Ino::ROOT) {
        let _ = root.node.iter().count();
    }
    if let Ok(node) = Node::parse(block, geometry, Ino::ROOT, FileBlock(1)) {
        let _ = node.iter().count();
    }
    let at = geometry.group_first_block(GroupNr::FIRST);
    let in_inode = Attributes::in_inode(block, Ino::ROOT).map_while(Result::ok);
    let in_block = Attributes::in_block(block, Ino::ROOT, at)
        .into_iter()
        .flatten()
        .map_while(Result::ok);
    let found: Vec<_> = in_inode.chain(in_block).collect();
    for attribute in &found {
        if let Some(entries) = acl::Entries::of_disk(attribute.value) {
            let _ = acl::is_valid(entries.flatten());
        }
    }
    attributes_come_back(geometry, &found);
    if let Ok(entries) = acl::Entries::of_attribute(rest) {
        assert!(entries.count() <= rest.len() / 8 + 1);
    }
}

/// What was read, written to a new block, reads as it was.
fn attributes_come_back(geometry: &Geometry, found: &[Attribute<'_>]) {
    let mut entries: Vec<_> = found
        .iter()
        .filter(|attribute| attribute.index.raw() != 0)
        .map(|attribute| Entry {
            index: attribute.index,
            name: attribute.name,
            value: attribute.value,
        })
        .collect();
    entries.sort_by(Entry::order);
    let mut block = vec![0xff; geometry.block_size() as usize];
    let needed = entries.iter().map(Entry::len_in_block).sum();
    let written = write_block(&mut block, entries.iter().copied());
    assert_eq!(fits(needed, geometry.block_size()), written.is_ok());
    if written.is_err() {
        return;
    }
    let at = geometry.group_first_block(GroupNr::FIRST);
    let read = Attributes::in_block(&block, Ino::ROOT, at).expect("a good head");
    let mut count = 0;
    for (attribute, entry) in read.zip(&entries) {
        let attribute = attribute.expect("a good entry");
        assert_eq!(
            (attribute.index, attribute.name, attribute.value),
            (entry.index, entry.name, entry.value)
        );
        count += 1;
    }
    assert_eq!(count, entries.len());
}
