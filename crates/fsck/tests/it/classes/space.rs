//! Repairs that need room: blocks, inodes, entries, and where there is none.

use super::{Class, SIZES, class};
use crate::lab::Lab;

/// Makes every free inode a short link without a name. Returns how many.
fn lose_links(lab: &mut Lab, most: usize) {
    let from = lab.at("/short-link");
    let body = lab.target.bytes[from..from + 128].to_vec();
    for _ in 0..most {
        let Some(ino) = lab.some_free_inode() else {
            return;
        };
        let at = lab.target.inode(ino);
        lab.target.bytes[at..at + 128].copy_from_slice(&body);
        lab.flip(4, ino - 1);
    }
}

/// Gives every free block of the image to a file, as blocks far behind its end.
fn hog(lab: &mut Lab, path: &str, leave: usize) {
    let n = lab.target.block_size / 4;
    let free = lab.all_free_blocks();
    let mut blocks = free.into_iter().skip(leave);
    let Some(double) = blocks.next() else { return };
    lab.fill(double, 0);
    lab.mark(double);
    let (mut used, mut size) = (1, 12 + n);
    'all: for slot in 0..n {
        let Some(single) = blocks.next() else { break };
        lab.fill(single, 0);
        lab.mark(single);
        used += 1;
        let at = usize::try_from(double).unwrap() * n * 4 + slot * 4;
        lab.put(at, 4, single);
        for word in 0..n {
            let Some(block) = blocks.next() else {
                break 'all;
            };
            lab.mark(block);
            used += 1;
            lab.put(
                usize::try_from(single).unwrap() * n * 4 + word * 4,
                4,
                block,
            );
            size = 12 + n + slot * n + word + 1;
        }
    }
    lab.inode(path, 92, 4, double);
    lab.inode(path, 4, 4, (size * n * 4) as u64);
    let old = lab.get(lab.at(path) + 28, 4) as u64;
    lab.inode(path, 28, 4, old + (used * n / 128) as u64);
}

fn lose(lab: &mut Lab, name: &str) {
    let at = lab.entry("/", name);
    lab.put(at, 4, 0);
}

#[rustfmt::skip]
pub(crate) const CLASSES: &[Class] = &[
    class("more lost files than lost+found has room for", SIZES, &["p4.inode.nameless"], |lab| { lose_links(lab, 200); (1..15).for_each(|i| lab.inode("/lost+found", 40 + i * 4, 4, 0)); let size = lab.target.block_size; lab.inode("/lost+found", 4, 4, size as u64); lab.inode("/lost+found", 28, 4, size as u64 / 512); }),
    class("root cleared, many files", SIZES, &["p1.root.not-a-directory", "p4.inode.nameless"], |lab| { lose_links(lab, 90); lab.inode("/", 0, 2, 0o100_755); }),
    class("no lost+found and no free inode", SIZES, &["p4.inode.nameless"], |lab| { lose(lab, "big"); lose(lab, "lost+found"); let at = lab.at("/lost+found"); lab.target.bytes[at..at + 128].fill(0); let bit = usize::try_from(lab.ino("/lost+found")).unwrap() - 1; lab.flip(4, bit); lose_links(lab, 1000); }),
    class("full image, lost files", SIZES, &["p4.inode.nameless"], |lab| { hog(lab, "/plain", 0); lose(lab, "big"); }),
    class("full image, no lost+found", SIZES, &["p4.inode.nameless"], |lab| { hog(lab, "/plain", 0); lose(lab, "lost+found"); lose(lab, "big"); }),
    class("full image, hole in a directory", SIZES, &["p2.dir.hole"], |lab| { let block = lab.get(lab.at("/many") + 44, 4) as u64; lab.inode("/many", 44, 4, 0); hog(lab, "/plain", 0); lab.inode("/empty", 40, 4, block); lab.inode("/empty", 4, 4, 9); lab.inode("/empty", 28, 4, (lab.target.block_size / 512) as u64); }),
    class("full image, block bitmap without a place", SIZES, &["p0.group.block-bitmap"], |lab| { hog(lab, "/plain", 1); lab.desc(0, 0, 4, 0); }),
    class("one block left, two claims", SIZES, &["p1b.block.shared"], |lab| { hog(lab, "/plain", 1); let block = lab.get(lab.at("/big") + 44, 4) as u64; lab.inode("/a/b/c/deep", 40, 4, block); }),
    class("no block left, one claim", SIZES, &["p1b.block.shared"], |lab| { hog(lab, "/plain", 0); let block = lab.get(lab.at("/big") + 44, 4) as u64; lab.inode("/a/b/c/deep", 40, 4, block); let bit = lab.get(lab.at("/empty") + 40, 4); let _ = bit; }),
    class("full image and nothing wrong", SIZES, &["p5."], |lab| hog(lab, "/plain", 0)),
];
