//! The same operations on the library, on a FUSE mount of ours and on the kernel's mount: the same answers, error for
//! error.
//!
//! Where ours and another differ by contract, [`DIFFERENCES`] says so; what is not in that list is a failure,
//! and so is a difference of the list that a long run never meets.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;

use anyhow::{Result, ensure};
use ext2dax::{Fallocate, SetXattr};

use crate::drive::{self, Kernel, Op, Ours, System};
use crate::model::errno::{ENOSPC, ENXIO, EOPNOTSUPP};
use crate::model::{FileId, Model, Outcome, Path};

/// What to do about a difference, so that both sides stay comparable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// Both sides are as they were, or alike.
    Nothing,
    /// The other side is made to hold what ours holds.
    Amend,
    /// The other side has done what ours refused: it has to be undone.
    Undo,
}

/// One way in which ours and another differ, and why that is right.
#[derive(Debug)]
pub struct Difference {
    /// What is different.
    pub what: &'static str,
    /// Why ours does as it does.
    pub why: &'static str,
    applies: fn(&Met<'_>) -> bool,
    then: Then,
}

/// Who is asked beside the library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rival {
    /// The FUSE mount: the library again, behind the kernel's FUSE driver.
    Served,
    /// The kernel's mount.
    Kernel,
}

/// Two answers to one operation.
#[derive(Debug)]
struct Met<'a> {
    op: &'a Op,
    rival: Rival,
    ours: Outcome,
    theirs: Outcome,
    /// The blocks of the file lie elsewhere on the kernel's side since an earlier difference.
    laid_out_otherwise: bool,
}

/// All of them.
pub const DIFFERENCES: [Difference; 4] = [
    Difference {
        what: "zero range and preallocation inside a file",
        why: "the ext4 driver has them for files with extents only; ours for every file",
        applies: |met| {
            let ranges = matches!(
                met.op,
                Op::ZeroRange(..)
                    | Op::Allocate(..)
                    | Op::Fallocate(
                        _,
                        Fallocate::AllocateKeepSize | Fallocate::ZeroRangeKeepSize,
                        _
                    )
            );
            met.rival == Rival::Kernel
                && ranges
                && met.ours.is_ok()
                && met.theirs == Err(EOPNOTSUPP)
        },
        then: Then::Amend,
    },
    Difference {
        what: "holes of a file that was zeroed, preallocated or copied to",
        why: "the kernel's side was zeroed by writing; it copies zeroes where ours keeps a hole",
        applies: |met| {
            let seeks = matches!(met.op, Op::SeekData(..) | Op::SeekHole(..));
            let plain = |outcome: Outcome| outcome.is_ok() || outcome == Err(ENXIO);
            seeks && met.laid_out_otherwise && plain(met.ours) && plain(met.theirs)
        },
        then: Then::Nothing,
    },
    Difference {
        what: "attributes that fill more than a block",
        why: "the kernel fills the inode's own room as well; ours publishes one block and nothing beside it",
        applies: |met| {
            met.rival == Rival::Kernel
                && matches!(met.op, Op::SetXattr(..))
                && met.ours == Err(ENOSPC)
                && met.theirs.is_ok()
        },
        then: Then::Undo,
    },
    Difference {
        what: "files without a name through FUSE",
        why: "the crate for the protocol has no request for them yet",
        applies: |met| {
            met.rival == Rival::Served
                && matches!(met.op, Op::OpenNameless(..))
                && met.ours.is_ok()
                && met.theirs == Err(EOPNOTSUPP)
        },
        then: Then::Amend,
    },
];

/// How often each difference was met.
pub type Tally = BTreeMap<&'static str, u64>;

/// One library and its rivals.
#[derive(Debug)]
pub struct Systems {
    /// The library.
    pub ours: Ours,
    /// The FUSE mount.
    pub served: Option<Kernel>,
    /// The kernel's mount.
    pub kernel: Option<Kernel>,
    /// Differences met.
    pub tally: Tally,
    /// Files whose blocks lie elsewhere on the kernel's side.
    laid_out_otherwise: HashSet<FileId>,
}

impl Systems {
    /// Systems with like trees.
    #[must_use]
    pub fn new(ours: Ours, served: Option<Kernel>, kernel: Option<Kernel>) -> Self {
        Self {
            ours,
            served,
            kernel,
            tally: Tally::new(),
            laid_out_otherwise: HashSet::new(),
        }
    }

    /// Carries `op` out everywhere and on the model.
    ///
    /// # Errors
    /// Two answers that are neither alike nor in the list.
    pub fn apply(&mut self, op: &Op, model: &mut Model) -> Result<()> {
        let file = laid_out(op).and_then(|path| model.id(path));
        let ours = self.ours.apply(op);
        let expected = drive::expected(model, op, ours);
        ensure!(
            ours == expected,
            "{}: the library answers {ours:?}, the model {expected:?}",
            op.told()
        );
        ensure!(
            ours != Err(ENOSPC) || matches!(op, Op::SetXattr(..)),
            "{}: no space, and the systems can no longer be compared",
            op.told()
        );
        self.ask(Rival::Served, op, ours, file)?;
        self.ask(Rival::Kernel, op, ours, file)?;
        if matches!(op, Op::CopyRange(..)) && ours.is_ok_and(|copied| copied > 0) {
            self.laid_out_otherwise.extend(file);
        }
        Ok(())
    }

    fn ask(&mut self, rival: Rival, op: &Op, ours: Outcome, file: Option<FileId>) -> Result<()> {
        let (system, name) = match rival {
            Rival::Served => (&mut self.served, "the FUSE mount"),
            Rival::Kernel => (&mut self.kernel, "the kernel"),
        };
        let Some(system) = system else {
            return Ok(());
        };
        let before = (ours == Err(ENOSPC)).then(|| Before::of(system, op));
        let theirs = system.apply(op);
        if theirs == ours {
            return Ok(());
        }
        let known = file.is_some_and(|file| self.laid_out_otherwise.contains(&file));
        let met = Met {
            op,
            rival,
            ours,
            theirs,
            laid_out_otherwise: rival == Rival::Kernel && known,
        };
        let Some(difference) = DIFFERENCES.iter().find(|known| (known.applies)(&met)) else {
            anyhow::bail!(
                "{}: the library answers {ours:?}, {name} {theirs:?}",
                op.told()
            );
        };
        *self.tally.entry(difference.what).or_default() += 1;
        match difference.then {
            Then::Nothing => {}
            Then::Amend => {
                amend(system, op)?;
                self.laid_out_otherwise.extend(file);
            }
            Then::Undo => undo(system, op, before)?,
        }
        Ok(())
    }

    /// Closes every open file.
    ///
    /// # Errors
    /// As [`Systems::apply`].
    pub fn close_all(&mut self, model: &mut Model) -> Result<()> {
        for slot in model.open_slots() {
            self.apply(&Op::Close(slot), model)?;
        }
        Ok(())
    }
}

/// An attribute before it was set.
#[derive(Debug)]
struct Before {
    value: Option<Vec<u8>>,
    mode: u32,
}

impl Before {
    fn of(kernel: &Kernel, op: &Op) -> Option<Self> {
        match op {
            Op::SetXattr(path, name, _, _) => Some(Self {
                value: kernel.attribute(path, name),
                mode: kernel.mode(path)?,
            }),
            _ => None,
        }
    }
}

/// Takes back what the kernel has done and ours has not.
fn undo(kernel: &mut Kernel, op: &Op, before: Option<Option<Before>>) -> Result<()> {
    let outcome = match (op, before.flatten()) {
        (Op::SetXattr(path, name, _, _), Some(before)) => {
            let outcome = kernel.apply(&match before.value {
                Some(value) => Op::SetXattr(path.clone(), name.clone(), value, SetXattr::Any),
                None => Op::RemoveXattr(path.clone(), name.clone()),
            });
            // A list has changed the mode.
            let mode = u16::try_from(before.mode & 0o7777).expect("twelve bits");
            if name.starts_with(b"system.") && kernel.mode(path) != Some(before.mode) {
                kernel.apply(&Op::Chmod(path.clone(), mode))
            } else {
                outcome
            }
        }
        _ => Ok(0),
    };
    ensure!(
        outcome.is_ok(),
        "{}: cannot be undone: {outcome:?}",
        op.told()
    );
    Ok(())
}

/// The file whose blocks an operation places or asks for.
fn laid_out(op: &Op) -> Option<&Path> {
    match op {
        Op::ZeroRange(path, _)
        | Op::Allocate(path, _)
        | Op::Fallocate(path, _, _)
        | Op::SeekData(path, _)
        | Op::SeekHole(path, _)
        | Op::CopyRange(_, _, path, _, _) => Some(path),
        _ => None,
    }
}

/// Does for the other side what it cannot do itself.
fn amend(kernel: &mut Kernel, op: &Op) -> Result<()> {
    let done = match op {
        Op::OpenNameless(slot, path, mode) => kernel.open_hidden(*slot, path, *mode),
        Op::ZeroRange(path, range) | Op::Fallocate(path, Fallocate::ZeroRangeKeepSize, range) => {
            kernel.write_zeroes(path, range)
        }
        Op::Allocate(path, Range { end, .. }) => kernel.extend(path, *end),
        Op::Fallocate(path, _, _) => kernel.extend(path, 0),
        _ => Ok(()),
    };
    Ok(done?)
}

/// Whether an operation of this supply may fail so, whatever others do meanwhile: no damage, no trouble with the medium, no
/// stale handle.
#[must_use]
pub fn can_be(errno: i32) -> bool {
    use rustix::io::Errno;
    [
        Errno::ACCESS,
        Errno::BUSY,
        Errno::EXIST,
        Errno::FBIG,
        Errno::INVAL,
        Errno::ISDIR,
        Errno::MLINK,
        Errno::NAMETOOLONG,
        Errno::NODATA,
        Errno::NODEV,
        Errno::NOENT,
        Errno::NOSPC,
        Errno::NOTDIR,
        Errno::NOTEMPTY,
        Errno::NXIO,
        Errno::OPNOTSUPP,
        Errno::PERM,
        Errno::RANGE,
        Errno::SPIPE,
        Errno::TOOBIG,
    ]
    .iter()
    .any(|known| known.raw_os_error() == errno)
}
