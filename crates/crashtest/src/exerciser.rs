//! An exerciser in the manner of fsx, over the library itself: one file by every route at once.
//!
//! Random reads, writes, appends, copies, mapped loads and stores, holes, truncations, and everything that throws state
//! away (views closed, files closed, remounts) go to two files; beside them stand two vectors of bytes that know nothing
//! of blocks. After each operation the answer, and after each read the content, must be the vectors'.
//!
//! The files are sparse: what is worked on is a *window* that lies where a block size has something to get wrong (see
//! [`Place`]), and the vectors hold just this window. Nothing before it is ever written.
//!
//! | module | holds |
//! |---|---|
//! | `plan` | operations and their random supply |
//! | `bytes` | the vectors |
//! | `stage` | what is torn down and set up again: mount, MMU, open files |
//! | `shown` | views: of the soft MMU's CPUs, and of this process |
//! | `act` | an operation carried out on both sides, and compared |

mod act;
mod bytes;
mod plan;
mod shown;
mod stage;

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::judge;
use act::Outcome;
use bytes::Bytes;
use plan::{Op, Supply};
use stage::Stage;

pub use ext2dax::fault::host::Mode;

/// Operations that a failure shows.
const SHOWN: usize = 60;
/// Operations after which both checkers look at the image.
const CHECKED_EVERY: u64 = 50_000;

/// How files are mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mapping {
    /// Not at all.
    None,
    /// By the MMU in memory, with two CPUs.
    Soft,
    /// By the MMU of this process.
    Host(Mode),
}

/// Where the window lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// At the start of the file, over direct and the first indirect blocks.
    Start,
    /// Across the end of what the double indirect block leads to.
    Double,
    /// Across 4 GiB: the size changes both halves.
    FourGib,
    /// Up to the largest size there is.
    Limit,
}

impl Place {
    /// All places.
    pub const ALL: [Place; 4] = [Place::Start, Place::Double, Place::FourGib, Place::Limit];

    /// The first byte of the window, a multiple of 64 KiB but for the last place; the largest size is `limit`.
    fn base(self, block: u64, window: u64, limit: u64) -> u64 {
        let pointers = block / 4;
        let middle = match self {
            Place::Start => return 0,
            Place::Double => (12 + pointers + pointers * pointers) * block,
            Place::FourGib => 1 << 32,
            Place::Limit => return limit - window,
        };
        // With large blocks the tree's end is beyond every file.
        if middle + window > limit {
            return limit - window;
        }
        (middle - window / 2) & !0xffff
    }
}

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes of a block.
    pub block_size: u32,
    /// How files are mapped; blocks smaller than a page never are.
    pub mapping: Mapping,
    /// Where the window lies.
    pub place: Place,
    /// Whether the image is too small for both windows, so that space runs out.
    pub tight: bool,
    /// Number of operations.
    pub operations: u64,
    /// What the operations follow from.
    pub seed: u64,
}

/// What was done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    /// Operations carried out.
    pub operations: u64,
    /// Bytes read and compared, by whatever route.
    pub compared: u64,
    /// Answers that were errors, as they had to be.
    pub refused: u64,
    /// Operations that space did not suffice for.
    pub without_space: u64,
    /// How long it took, the checkers included.
    pub took: Duration,
}

impl std::ops::AddAssign for Figures {
    fn add_assign(&mut self, other: Self) {
        self.operations += other.operations;
        self.compared += other.compared;
        self.refused += other.refused;
        self.without_space += other.without_space;
        self.took += other.took;
    }
}

/// Runs the exerciser on an image of its own.
///
/// # Errors
/// The first answer that was wrong, with the operations before it; what a checker found.
pub fn run(options: &Options) -> Result<Figures> {
    let began = Instant::now();
    let mut exerciser = Exerciser::new(options)?;
    while exerciser.figures.operations < options.operations {
        if let Err(error) = exerciser.step() {
            bail!("{error:#}\n{}", exerciser.report());
        }
    }
    exerciser
        .finish()
        .with_context(|| format!("{options:?}"))
        .map(|figures| Figures {
            took: began.elapsed(),
            ..figures
        })
}

/// One run.
struct Exerciser {
    options: Options,
    supply: Supply,
    stage: Stage,
    bytes: [Bytes; 2],
    log: VecDeque<(u64, Op, Outcome)>,
    figures: Figures,
}

impl Exerciser {
    fn new(options: &Options) -> Result<Self> {
        let block = u64::from(options.block_size);
        // Once large enough for operations of more than one step of the write path.
        let roomy = options.place == Place::Start && !options.tight;
        let window = if roomy { 5 << 19 } else { 256 << 10 }.max(24 * block);
        let stage = Stage::new(options, window)?;
        let limit = stage.limit();
        let base = options.place.base(block, window, limit);
        let maps = options.mapping != Mapping::None && block >= shown::PAGE;
        Ok(Self {
            // At the limit operations reach past it, too.
            supply: Supply::new(
                options.seed,
                base,
                window + if base + window == limit { 9000 } else { 0 },
                block,
                maps,
            ),
            stage,
            bytes: [(); 2].map(|()| Bytes::new(base, window, limit)),
            log: VecDeque::with_capacity(SHOWN),
            figures: Figures::default(),
            options: options.clone(),
        })
    }

    fn step(&mut self) -> Result<()> {
        let number = self.figures.operations + 1;
        let op = self
            .supply
            .next([self.bytes[0].size(), self.bytes[1].size()]);
        if self.log.len() == SHOWN {
            self.log.pop_front();
        }
        self.log.push_back((number, op, Outcome::Wrong));
        let outcome = self.act(op)?;
        self.sizes_agree()?;
        if let Some((_, _, last)) = self.log.back_mut() {
            *last = outcome;
        }
        self.figures.operations = number;
        self.figures.refused += u64::from(matches!(outcome, Outcome::Refused(_)));
        self.figures.without_space +=
            u64::from(matches!(outcome, Outcome::Refused(ext2dax::Error::NoSpace)));
        if number.is_multiple_of(CHECKED_EVERY) {
            self.check_image()?;
        }
        Ok(())
    }

    /// Unmounts, lets both checkers look, mounts again, and reads everything.
    fn check_image(&mut self) -> Result<()> {
        self.stage.down()?;
        judge::clean(self.stage.image())?;
        self.stage.up()?;
        self.compare_all()
    }

    fn finish(mut self) -> Result<Figures> {
        self.compare_all()?;
        self.check_image()?;
        self.stage.down()?;
        Ok(self.figures)
    }

    /// The last operations, and how to have them again.
    fn report(&self) -> String {
        let mut text = format!(
            "{:?}\nrepeat with EXT2DAX_SEED={}; the image is kept in {:?}\n",
            self.options,
            self.options.seed,
            self.keep()
        );
        for (number, op, outcome) in &self.log {
            let _ = writeln!(text, "{number:>9} {op:?} {outcome:?}");
        }
        text
    }

    /// A copy of the image as it is, if `KEEP_IMAGE` names a place for it.
    fn keep(&self) -> Option<PathBuf> {
        let keep = PathBuf::from(std::env::var_os("KEEP_IMAGE")?);
        std::fs::copy(self.stage.image(), &keep).ok()?;
        Some(keep)
    }
}
