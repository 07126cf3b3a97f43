use super::*;

const ALL_BITS: [u32; 7] = [8, 9, 10, 11, 12, 13, 14];

/// The reverse of `path`, by counting.
fn number(path: &TreePath, addr_bits: u32) -> u64 {
    if path.depth == 0 {
        return u64::from(path.index[0]);
    }
    let before: u64 = (1..path.depth).map(|depth| span(depth, addr_bits)).sum();
    let within = path.slots()[1..]
        .iter()
        .fold(0, |sum, &index| sum * span(1, addr_bits) + u64::from(index));
    12 + before + within
}

#[test]
fn paths_read_back_at_every_edge() {
    for bits in ALL_BITS {
        let p = span(1, bits);
        let edges = [
            0,
            11,
            12,
            12 + p - 1,
            12 + p,
            12 + p + p * p - 1,
            12 + p + p * p,
            reach(bits) - 1,
        ];
        for edge in edges {
            let Ok(block) = u32::try_from(edge) else {
                continue;
            };
            let path = path(FileBlock(block), bits).unwrap();
            assert_eq!(number(&path, bits), edge, "{bits} {edge}");
            assert!(path.slots()[1..].iter().all(|&index| u64::from(index) < p));
            assert_eq!(
                path.index[0],
                if path.depth == 0 {
                    block
                } else {
                    11 + path.depth
                }
            );
        }
        match u32::try_from(reach(bits)) {
            Ok(past) => assert_eq!(path(FileBlock(past), bits), Err(Error::FileTooLarge)),
            Err(_) => assert!(path(FileBlock(u32::MAX), bits).is_ok()),
        }
    }
}

#[test]
fn what_is_left_under_a_pointer_ends_where_the_next_begins() {
    let bits = 8;
    for block in [
        0, 5, 11, 12, 100, 267, 268, 269, 524, 65_803, 65_804, 65_805, 70_000, 131_339, 131_340,
        16_843_019,
    ] {
        let path_here = path(FileBlock(block), bits).unwrap();
        let leaf_end = block + path_here.left_in_leaf();
        assert!(
            leaf_end as u64 == reach(bits)
                || path(FileBlock(leaf_end), bits).unwrap().slots()[path_here.depth as usize] == 0
                || leaf_end == 12
        );
        for level in 0..=path_here.depth {
            let next = block + path_here.left_under(level);
            if u64::from(next) < reach(bits) {
                let path_next = path(FileBlock(next), bits).unwrap();
                let last = path(FileBlock(next - 1), bits).unwrap();
                let same = |path: &TreePath| {
                    path.slots()[..=level as usize] == path_here.slots()[..=level as usize]
                };
                assert!(
                    same(&last) && !(path_next.depth == path_here.depth && same(&path_next)),
                    "{block} {level}"
                );
            } else {
                assert_eq!(u64::from(next), reach(bits));
            }
        }
    }
}

#[test]
fn indirect_blocks_are_counted_as_a_walk_would() {
    for blocks in [
        0, 12, 13, 268, 269, 524, 525, 65_804, 65_805, 131_340, 131_341,
    ] {
        let mut seen = std::collections::HashSet::new();
        for block in 0..blocks {
            let path = path(FileBlock(block), 8).unwrap();
            for level in 0..path.depth as usize {
                seen.insert(path.slots()[..=level].to_vec());
            }
        }
        assert_eq!(
            indirect_blocks(u64::from(blocks), 8),
            seen.len() as u64,
            "{blocks}"
        );
    }
}

/// What Linux 6.18 takes on a loop mount with blocks of 1, 2 and 4 KiB, and computes for the others.
#[test]
fn the_largest_file_is_limited_by_tree_or_by_counter_as_linux_has_it() {
    let limits = [
        17_247_252_480,
        275_415_851_008,
        2_196_873_666_560,
        2_197_948_973_056,
        2_198_486_220_800,
        2_198_754_754_560,
        2_198_888_906_752,
    ];
    for (bits, limit) in (10..=16).zip(limits) {
        assert_eq!(max_file_size(bits), limit, "{bits}");
        let sectors = |blocks: u64| (blocks + indirect_blocks(blocks, bits - 2)) << (bits - 9);
        assert!(sectors(limit >> bits) <= u64::from(u32::MAX), "{bits}");
        assert!(limit <= addressable_size(bits));
    }
    assert_eq!(max_file_size(11), reach(9) << 11, "the tree ends first");
    assert_eq!(addressable_size(12), reach(10) << 12);
    assert_eq!(addressable_size(16), u64::from(u32::MAX) << 16);
}
