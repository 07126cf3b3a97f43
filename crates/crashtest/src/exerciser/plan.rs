//! What can be done, and its random supply.

use ext2dax::Fallocate;

use super::shown::PAGE;

/// Which of the two files.
pub(super) type Which = usize;

/// One operation. Positions and lengths are bytes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Op {
    Read {
        file: Which,
        pos: u64,
        len: u64,
    },
    ReadPieces {
        file: Which,
        pos: u64,
        len: u64,
    },
    Write {
        file: Which,
        pos: u64,
        len: u64,
        fill: u8,
    },
    WritePieces {
        file: Which,
        pos: u64,
        len: u64,
        fill: u8,
    },
    Append {
        file: Which,
        len: u64,
        fill: u8,
    },
    Copy {
        file: Which,
        pos: u64,
        to: Which,
        to_pos: u64,
        len: u64,
    },
    Load {
        file: Which,
        pos: u64,
        len: u64,
    },
    Store {
        file: Which,
        pos: u64,
        len: u64,
        fill: u8,
    },
    /// A write whose source is a view of `file`.
    FromView {
        file: Which,
        at: u64,
        to: Which,
        pos: u64,
        len: u64,
    },
    /// A read whose destination is a view of `file`.
    IntoView {
        file: Which,
        at: u64,
        from: Which,
        pos: u64,
        len: u64,
    },
    Fallocate {
        file: Which,
        how: Fallocate,
        pos: u64,
        len: u64,
    },
    Truncate {
        file: Which,
        size: u64,
    },
    Holes {
        file: Which,
    },
    /// Another view of these pages takes the place of an older one.
    Map {
        file: Which,
        pos: u64,
        len: u64,
        slot: usize,
    },
    Unmap {
        slot: usize,
    },
    Sync {
        file: Which,
    },
    SyncAll,
    /// The file is closed, which ends its views, too, and opened again.
    Reopen {
        file: Which,
    },
    Remount,
}

/// Views at a time.
pub(super) const SLOTS: usize = 4;

/// The random supply.
#[derive(Debug)]
pub(super) struct Supply {
    state: u64,
    base: u64,
    window: u64,
    block: u64,
    maps: bool,
}

impl Supply {
    pub(super) fn new(seed: u64, base: u64, window: u64, block: u64, maps: bool) -> Self {
        Self {
            state: seed,
            base,
            window,
            block,
            maps,
        }
    }

    /// SplitMix64.
    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.random() % limit
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// A byte of the window: often at the edge of a block or a page, or near the size.
    fn pos(&mut self, size: u64) -> u64 {
        let grain = match self.below(6) {
            0 | 1 => self.block,
            2 => PAGE,
            3 if size >= self.base => {
                let near = size + self.below(40);
                return near
                    .saturating_sub(20)
                    .clamp(self.base, self.base + self.window);
            }
            _ => 1,
        };
        let pos = self.below(self.window) / grain * grain;
        let shift = if grain > 1 { self.below(5) } else { 2 };
        (self.base + pos + shift).saturating_sub(2).max(self.base)
    }

    /// A length such that `pos + len` stays in the window; at least 1, unless `pos` is its end.
    fn len(&mut self, pos: u64) -> u64 {
        let left = (self.base + self.window).saturating_sub(pos);
        let most = match self.below(8) {
            0 => 8,
            1 | 2 => self.block,
            3..=5 => 16 << 10,
            6 => 64 << 10,
            _ => self.window,
        };
        let mut len = 1 + self.below(most);
        if self.one_in(3) {
            len = len.next_multiple_of(self.block);
        }
        len.min(left)
    }

    /// What is written: never 0, which holes and fresh blocks read.
    fn fill(&mut self) -> u8 {
        1 + self.below(255) as u8
    }

    fn size(&mut self, now: u64) -> u64 {
        match self.below(48) {
            // Away with everything, or with all that is in the window.
            0 => 0,
            1 => self.base.saturating_sub(self.below(9000)),
            2..=15 => (now + self.below(2 * self.block))
                .saturating_sub(self.block)
                .clamp(self.base, self.base + self.window),
            _ => self.pos(now),
        }
    }

    /// The next operation; `sizes` are those of the files.
    pub(super) fn next(&mut self, sizes: [u64; 2]) -> Op {
        let file = usize::from(self.one_in(4));
        let size = sizes[file];
        let pos = self.pos(size);
        let len = self.len(pos);
        let fill = self.fill();
        match self.below(if self.maps { 100 } else { 74 }) {
            0..=13 => Op::Read { file, pos, len },
            14..=16 => Op::ReadPieces { file, pos, len },
            17..=31 => Op::Write {
                file,
                pos,
                len,
                fill,
            },
            32..=36 => Op::WritePieces {
                file,
                pos,
                len,
                fill,
            },
            // The end lies before the window: it is brought there first.
            37..=39 if size < self.base => Op::Truncate { file, size: pos },
            37..=39 => {
                let len = len.min((self.base + self.window).saturating_sub(size));
                Op::Append { file, len, fill }
            }
            40..=46 => {
                let to = usize::from(self.one_in(2));
                let to_pos = self.pos(sizes[to]);
                let len = len.min(self.base + self.window - to_pos);
                Op::Copy {
                    file,
                    pos,
                    to,
                    to_pos,
                    len,
                }
            }
            47..=58 => {
                let how = [
                    Fallocate::PunchHole,
                    Fallocate::PunchHole,
                    Fallocate::ZeroRange,
                    Fallocate::ZeroRangeKeepSize,
                    Fallocate::Allocate,
                    Fallocate::AllocateKeepSize,
                    Fallocate::CollapseRange,
                    Fallocate::InsertRange,
                ][self.below(8) as usize];
                Op::Fallocate {
                    file,
                    how,
                    pos,
                    len,
                }
            }
            59..=66 => {
                let size = self.size(size);
                Op::Truncate { file, size }
            }
            67..=69 => Op::Holes { file },
            70 => Op::Sync { file },
            71 => self.rare(file),
            72 | 73 => Op::Reopen { file },
            74..=81 => Op::Load { file, pos, len },
            82..=91 => Op::Store {
                file,
                pos,
                len,
                fill,
            },
            92..=95 => {
                let other = usize::from(self.one_in(2));
                let (at, pos) = (pos, self.pos(sizes[other]));
                let len = len.min(self.base + self.window - pos);
                if self.one_in(2) {
                    Op::FromView {
                        file,
                        at,
                        to: other,
                        pos,
                        len,
                    }
                } else {
                    Op::IntoView {
                        file,
                        at,
                        from: other,
                        pos,
                        len,
                    }
                }
            }
            96..=98 => {
                let slot = self.below(SLOTS as u64) as usize;
                Op::Map {
                    file,
                    pos,
                    len,
                    slot,
                }
            }
            _ => Op::Unmap {
                slot: self.below(SLOTS as u64) as usize,
            },
        }
    }

    fn rare(&mut self, file: Which) -> Op {
        match self.below(4) {
            0 => Op::Remount,
            1 => Op::SyncAll,
            _ => Op::Sync { file },
        }
    }
}
