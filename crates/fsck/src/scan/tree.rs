//! The walk over an inode's block tree, depth first, in place.

use ext2dax_pmem::Buffer;

use super::indirect::is_zero;
use super::inode::{RESIZE_INO, Subject, field};
use crate::census::{Census, Kind};
use crate::finding::Finding;
use crate::fix::Fix;
use crate::problem::Code;

/// After so many illegal block numbers an inode is taken for garbage, as e2fsck does.
const TOO_MANY: u32 = 12;

/// Where the Hurd's translator stands in its file: nowhere.
pub(crate) const TRANSLATOR: u64 = u64::MAX;

/// A block pointer that names a block of the file system.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    /// Byte offset of the pointer.
    pub(crate) at: u64,
    pub(crate) block: u32,
    /// First block of the file that is reached through it.
    pub(crate) lblk: u64,
    /// 0 for data, 1 to 3 for indirect blocks.
    pub(crate) level: u8,
}

impl Slot {
    /// Whether the pointer is the one of the resize inode that leads to a block of its own. What lies behind any other is
    /// not its, whatever garbage stands there.
    pub(crate) fn is_own_of_resize_inode(&self, subject: &Subject<'_>) -> bool {
        self.at == subject.at + field::BLOCK + 13 * 4
    }
}

/// What the caller made of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Visit {
    /// It belongs to the inode; an indirect block is entered.
    Claimed,
    /// It was reached before in this pass; an indirect block is entered while the budget lasts.
    Again,
    /// It is not counted and not entered.
    Seen,
}

/// One walk. Illegal pointers become findings; all others go to the caller's `visit`.
#[derive(Debug)]
pub(crate) struct TreeWalk<'a> {
    subject: &'a Subject<'a>,
    findings: &'a mut Vec<Finding>,
    dir: bool,
    regular: bool,
    pub(crate) is_bad_blocks: bool,
    /// Data blocks below indirect ones are claimed here, a run at a time, and not shown to the visitor.
    pub(crate) claims: Option<&'a Census>,
    /// Blocks claimed, indirect ones included.
    pub(crate) blocks: u64,
    /// Highest block of the file that is mapped.
    pub(crate) last: Option<u64>,
    pub(crate) fragmented: bool,
    previous: u32,
    illegal: u32,
    /// The walk was given up: the inode is garbage.
    pub(crate) too_many: bool,
}

type Visitor<'v> = &'v mut dyn FnMut(&mut Vec<Finding>, Slot) -> Visit;

impl<'a> TreeWalk<'a> {
    pub(crate) fn new(
        subject: &'a Subject<'a>,
        kind: Kind,
        findings: &'a mut Vec<Finding>,
    ) -> Self {
        Self {
            subject,
            findings,
            dir: kind == Kind::DIRECTORY,
            regular: kind == Kind::REGULAR,
            is_bad_blocks: false,
            claims: None,
            blocks: 0,
            last: None,
            fragmented: false,
            previous: 0,
            illegal: 0,
            too_many: false,
        }
    }

    /// Visits every pointer of the tree.
    pub(crate) fn run(&mut self, visit: Visitor<'_>) {
        let map = self.subject.at + field::BLOCK;
        let n = u64::from(self.subject.scan.volume.layout.addrs());
        let mut lblk = 0;
        let translator = self.subject.raw.i_osd1.get();
        if self.subject.scan.volume.layout.hurd && translator != 0 {
            let at = self.subject.at + field::TRANSLATOR;
            self.translator(translator, at, visit);
        }
        for (i, block) in (0_u64..).zip(self.subject.raw.i_block) {
            let (level, span) = match i {
                0..12 => (0, 1),
                12 => (1, n),
                13 => (2, n * n),
                _ => (3, n * n * n),
            };
            if block.get() != 0 && !self.too_many {
                self.enter(
                    Slot {
                        at: map + i * 4,
                        block: block.get(),
                        lblk,
                        level,
                    },
                    visit,
                );
            }
            lblk += span;
        }
    }

    /// The Hurd's passive translator: a block of its own beside the file's.
    fn translator(&mut self, block: u32, at: u64, visit: Visitor<'_>) {
        let (level, lblk) = (0, TRANSLATOR);
        let slot = Slot {
            at,
            block,
            lblk,
            level,
        };
        if !self.subject.scan.volume.layout.holds(block) {
            let finding = self.subject.finding(Code::BlockRange).at(lblk).block(block);
            self.findings
                .push(finding.found(block).fix(Fix::word(at, 0)));
        } else if visit(self.findings, slot) != Visit::Seen {
            self.blocks += 1;
        }
    }

    fn enter(&mut self, slot: Slot, visit: Visitor<'_>) {
        if !self.legal(slot) {
            return;
        }
        if self.previous != 0 && self.previous.checked_add(1) != Some(slot.block) {
            self.fragmented = true;
        }
        self.previous = slot.block;
        let scan = self.subject.scan;
        let metadata = slot.level > 0 && scan.volume.is_metadata(slot.block);
        if metadata && self.subject.ino != RESIZE_INO {
            // Nothing of the file is there: what the metadata means as block numbers is nobody's.
            let finding = self.subject.finding(Code::IndirectMeta).block(slot.block);
            self.findings
                .push(finding.at(slot.lblk).fix(Fix::word(slot.at, 0)));
            return;
        }
        let visited = visit(self.findings, slot);
        if visited == Visit::Seen {
            return;
        }
        self.blocks += 1;
        if slot.level == 0 {
            self.last = Some(self.last.map_or(slot.lblk, |last| last.max(slot.lblk)));
            return;
        }
        if visited == Visit::Claimed || scan.may_enter_again() {
            self.descend(slot, visit);
        }
    }

    fn descend(&mut self, parent: Slot, visit: Visitor<'_>) {
        let layout = &self.subject.scan.volume.layout;
        let level = parent.level - 1;
        let n = u64::from(layout.addrs());
        let span = n.pow(u32::from(level));
        let base = layout.at(parent.block);
        let mut pointers = Buffer::new(layout.block_size as usize);
        self.subject.scan.image.read(base, &mut pointers);
        if let (0, Some(census)) = (level, self.claims) {
            self.claim_data(census, parent, &pointers);
            return;
        }
        for (i, bytes) in (0_u64..).zip(pointers.as_chunks::<4>().0) {
            let block = u32::from_le_bytes(*bytes);
            if block == 0 {
                continue;
            }
            self.enter(
                Slot {
                    at: base + i * 4,
                    block,
                    lblk: parent.lblk + i * span,
                    level,
                },
                visit,
            );
            if self.too_many {
                return;
            }
        }
    }

    /// Claims the blocks that an indirect block points to. Neighbours are claimed together, and many zeroes are passed
    /// over together: few indirect blocks are full.
    fn claim_data(&mut self, census: &Census, parent: Slot, pointers: &[u8]) {
        let layout = &self.subject.scan.volume.layout;
        let base = layout.at(parent.block);
        let (mut start, mut len) = (0_u32, 0_u32);
        for (group, bytes) in (0_u64..).step_by(16).zip(pointers.as_chunks::<64>().0) {
            if is_zero(bytes) {
                continue;
            }
            for (i, bytes) in (group..).zip(bytes.as_chunks::<4>().0) {
                let block = u32::from_le_bytes(*bytes);
                if block == 0 {
                    continue;
                }
                let lblk = parent.lblk + i;
                if !layout.holds(block) || self.is_too_far(0, lblk) {
                    let at = base + i * 4;
                    let legal = self.legal(Slot {
                        at,
                        block,
                        lblk,
                        level: 0,
                    });
                    debug_assert!(!legal, "both tests are one");
                    if self.too_many {
                        break;
                    }
                    continue;
                }
                if start.wrapping_add(len) == block && len != 0 {
                    len += 1;
                } else {
                    census.claim_run(start, len);
                    (start, len) = (block, 1);
                    self.fragmented |= self.previous.checked_add(1) != Some(block);
                }
                self.previous = block;
                self.blocks += 1;
                self.last = Some(self.last.map_or(lblk, |last| last.max(lblk)));
            }
            if self.too_many {
                break;
            }
        }
        census.claim_run(start, len);
    }

    /// Whether a file of this kind can have a block there.
    fn is_too_far(&self, level: u8, lblk: u64) -> bool {
        let layout = &self.subject.scan.volume.layout;
        let data = level == 0;
        let most = 1_u64 << (31 - layout.block_log);
        if self.is_bad_blocks {
            false
        } else if self.dir {
            data && self.subject.raw.i_size_high.get() == 0 && lblk > 1 << (21 - layout.block_log)
                || self.blocks + 1 >= most
        } else if self.regular {
            self.blocks + 1 >= most
        } else {
            data && lblk > 0
        }
    }

    /// Whether the pointer may stand there; if not, it is reported.
    fn legal(&mut self, slot: Slot) -> bool {
        let layout = &self.subject.scan.volume.layout;
        let too_far = self.is_too_far(slot.level, slot.lblk);
        let code = match layout.holds(slot.block) {
            false => Code::BlockRange,
            true if too_far => Code::BlockTooFar,
            true => return true,
        };
        self.illegal += 1;
        if self.illegal.is_multiple_of(TOO_MANY) {
            self.give_up();
            return false;
        }
        let finding = self
            .subject
            .finding(code)
            .at(slot.lblk)
            .block(slot.block)
            .found(slot.block);
        if self.subject.ino == RESIZE_INO {
            // Its pointers stand in descriptor blocks, and some of those in use: it is made again as a whole.
            self.findings.push(finding.fix(Fix::WithAnother));
            if self.illegal == 1 {
                let invalid = self.subject.finding(Code::ResizeInvalid);
                self.findings.push(invalid.fix(Fix::MakeResizeInode));
            }
            return false;
        }
        self.findings.push(finding.fix(Fix::word(slot.at, 0)));
        false
    }

    /// Garbage: the whole inode goes, so its pointers are not repaired one by one.
    fn give_up(&mut self) {
        self.too_many = true;
        for finding in self
            .findings
            .iter_mut()
            .rev()
            .take_while(|f| f.ino == self.subject.ino)
        {
            if matches!(finding.code, Code::BlockRange | Code::BlockTooFar) {
                finding.fix = Fix::WithAnother;
            }
        }
        self.findings.push(
            self.subject
                .finding(Code::BlockTooMany)
                .fix(Fix::ClearInode),
        );
    }
}
