//! The command line: every option of e2fsck is done, known to hold anyway, or refused by name.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgAction, Parser};
use ext2dax_fsck::Code;

/// What may be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Nothing: the image is mapped without write permission.
    No,
    /// What loses nothing, or nothing at all.
    Preen,
    /// Everything.
    Yes,
    /// What the user agrees to.
    Ask,
}

/// The command line, understood.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) image: PathBuf,
    pub(crate) offset: u64,
    pub(crate) mode: Mode,
    pub(crate) force: bool,
    pub(crate) force_open: bool,
    pub(crate) verbose: bool,
    pub(crate) times: u8,
    pub(crate) superblock: Option<u64>,
    pub(crate) block_size: Option<u32>,
    pub(crate) progress: Option<i32>,
    pub(crate) json: bool,
    pub(crate) threads: Option<usize>,
    pub(crate) optimize: bool,
    pub(crate) undo: Option<PathBuf>,
    /// A file with numbers of bad blocks, and whether they replace the list.
    pub(crate) bad_blocks: Option<(PathBuf, bool)>,
    /// Codes that are shown and repaired; empty: all.
    pub(crate) only: Vec<Code>,
    pub(crate) extended: Extended,
    /// Options that ask for nothing, or for what holds anyway; named with -v.
    pub(crate) moot: Vec<String>,
}

/// Keys of -E that are done.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Extended {
    pub(crate) journal_only: bool,
    pub(crate) fragcheck: bool,
    pub(crate) fixes_only: bool,
    pub(crate) discard: bool,
}

/// Why there is nothing to check.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The answer is a text: help, version.
    Answer(String),
    /// The command line is wrong.
    Usage(String),
}

/// Check an ext2 file system.
#[derive(Debug, Parser)]
#[command(name = "fsck.ext2dax", disable_version_flag = true)]
#[command(
    after_help = "Exit status, a sum: 0 clean, 1 errors corrected (this is success), 4 errors left, \
    8 operational error, 16 usage, 32 cancelled."
)]
struct Args {
    /// Image file, block device or pmem device, with `?offset=BYTES` for one inside a disk
    image: Option<PathBuf>,
    /// Change nothing; the image is mapped read-only
    #[arg(short = 'n')]
    no: bool,
    /// Repair without asking what loses nothing; if anything else is found, change nothing (exit 4)
    #[arg(short = 'p', visible_short_alias = 'a')]
    preen: bool,
    /// Yes to all repairs
    #[arg(short = 'y')]
    yes: bool,
    /// Check even if the file system is marked clean
    #[arg(short = 'f')]
    force: bool,
    /// Statistics by kind of file
    #[arg(short = 'v')]
    verbose: bool,
    /// Version
    #[arg(short = 'V', long = "version")]
    version: bool,
    /// Times (twice: of each pass)
    #[arg(short = 't', action = ArgAction::Count)]
    times: u8,
    /// Superblock to use, in blocks
    #[arg(short = 'b', value_name = "BLOCK")]
    superblock: Option<u64>,
    /// Block size in which -b counts
    #[arg(short = 'B', value_name = "SIZE")]
    block_size: Option<u32>,
    /// Progress lines to a file descriptor; 0 draws a bar
    #[arg(short = 'C', value_name = "FD", allow_hyphen_values = true)]
    progress: Option<i32>,
    /// Rebuild directories: names in order, freed room given back, an index where it belongs
    #[arg(short = 'D')]
    optimize: bool,
    /// Save every block in FILE before it is changed: e2undo(8) takes the repair back
    #[arg(short = 'z', value_name = "FILE")]
    undo: Option<PathBuf>,
    /// Add the blocks listed in FILE (one number a line) to the list of bad blocks; files that own them get copies
    #[arg(short = 'l', value_name = "FILE")]
    add_bad: Option<PathBuf>,
    /// As -l, but the blocks replace the list
    #[arg(short = 'L', value_name = "FILE")]
    set_bad: Option<PathBuf>,
    /// Show and repair findings of these codes alone, or of all codes that start with these words (`p5`, `p1.block`);
    /// whatever else is found still counts for the exit status
    #[arg(long, value_name = "CODE,...", value_delimiter = ',')]
    only: Vec<String>,
    /// Extended options: offset=BYTES, fragcheck, discard, nodiscard, journal_only, fixes_only
    #[arg(short = 'E', value_name = "KEY=VALUE,...")]
    extended: Vec<String>,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    /// Threads that share the work
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Where the file system starts, in bytes
    #[arg(long, value_name = "BYTES")]
    offset: Option<String>,
    /// Look at an image that is in use; the view may be torn
    #[arg(long)]
    force_open: bool,
    /// Of old; nothing to do
    #[arg(short = 'r', hide = true)]
    interactive: bool,
    /// Of old; nothing to do: there is no buffer cache
    #[arg(short = 'F', hide = true)]
    flush: bool,
    #[arg(short = 'c', hide = true, action = ArgAction::Count)]
    badblocks: u8,
    #[arg(short = 'k', hide = true)]
    keep: bool,
    #[arg(short = 'j', hide = true)]
    journal: Option<OsString>,
}

/// The command line as clap knows it: what the manual page is made from, too.
pub(crate) fn command() -> clap::Command {
    <Args as clap::CommandFactory>::command()
}

/// Reads the command line.
pub(crate) fn parse(args: impl Iterator<Item = OsString>) -> Result<Options, Stop> {
    let parsed = command()
        .try_get_matches_from(args)
        .and_then(|found| <Args as clap::FromArgMatches>::from_arg_matches(&found));
    let args = parsed.map_err(|why| {
        let text = why.render().to_string();
        let text = text.trim_end();
        if why.use_stderr() {
            Stop::Usage(text.trim_start_matches("error: ").to_owned())
        } else {
            Stop::Answer(text.to_owned())
        }
    })?;
    if args.version {
        return Err(Stop::Answer(format!(
            "fsck.ext2dax {}",
            env!("CARGO_PKG_VERSION")
        )));
    }
    refuse(&args)?;
    let mode = match (args.no, args.preen, args.yes) {
        (true, false, false) => Mode::No,
        (false, true, false) => Mode::Preen,
        (false, false, true) => Mode::Yes,
        (false, false, false) => Mode::Ask,
        _ => {
            return Err(Stop::Usage(
                "only one of -n, -p (-a) and -y may be given".to_owned(),
            ));
        }
    };
    let Some(image) = args.image else {
        return Err(Stop::Usage(
            "which image? usage: fsck.ext2dax [options] IMAGE".to_owned(),
        ));
    };
    if let Some(size) = args.block_size
        && (!size.is_power_of_two() || !(1024..=65_536).contains(&size))
    {
        return Err(Stop::Usage(format!(
            "-B {size}: a block size is a power of two from 1024 to 65536"
        )));
    }
    let (image, mut offset) = split_offset(image)?;
    if let Some(text) = &args.offset {
        offset = parse_bytes(text)?;
    }
    let mut moot = Vec::new();
    for (given, option) in [(args.interactive, "-r"), (args.flush, "-F")] {
        if given {
            moot.push(option.to_owned());
        }
    }
    let mut extended = Extended::default();
    for key in args.extended.iter().flat_map(|list| list.split(',')) {
        match key.split_once('=') {
            Some(("offset", text)) => offset = parse_bytes(text)?,
            _ => extended.take(key, &mut moot)?,
        }
    }
    if extended.fixes_only && args.optimize {
        return Err(Stop::Usage(
            "-E fixes_only, -D: one forbids what the other asks for".to_owned(),
        ));
    }
    if extended.discard && mode == Mode::No {
        return Err(Stop::Usage(
            "-n, -E discard: a look changes nothing, so it discards nothing".to_owned(),
        ));
    }
    Ok(Options {
        image,
        offset,
        mode,
        force: args.force
            || args.superblock.is_some()
            || args.optimize
            || args.add_bad.is_some()
            || args.set_bad.is_some()
            || extended.asks_for_check(),
        force_open: args.force_open,
        verbose: args.verbose,
        times: args.times,
        superblock: args.superblock,
        block_size: args.block_size,
        progress: args.progress,
        json: args.json,
        threads: args.threads.map(|n| n.clamp(1, 64)),
        optimize: args.optimize,
        undo: args.undo,
        bad_blocks: match args.set_bad {
            Some(path) => Some((path, true)),
            None => args.add_bad.map(|path| (path, false)),
        },
        only: codes(&args.only)?,
        extended,
        moot,
    })
}

fn refuse(args: &Args) -> Result<(), Stop> {
    let refused = [
        (
            args.badblocks != 0 || args.keep,
            "-c, -k: a search for bad blocks is the work of badblocks(8)",
        ),
        (args.journal.is_some(), "-j: ext2 has no journal"),
        (
            args.no && args.optimize,
            "-n, -D: a look changes nothing, so it rebuilds nothing",
        ),
        (
            args.no && args.undo.is_some(),
            "-n, -z: a look changes nothing, so there is nothing to undo",
        ),
        (
            args.add_bad.is_some() && args.set_bad.is_some(),
            "-l, -L: one adds to the list, the other replaces it",
        ),
        (
            args.no && (args.add_bad.is_some() || args.set_bad.is_some()),
            "-n, -l, -L: a look changes nothing, the list of bad blocks neither",
        ),
    ];
    match refused.into_iter().find(|(given, _)| *given) {
        Some((_, why)) => Err(Stop::Usage(why.to_owned())),
        None => Ok(()),
    }
}

/// The codes that --only names, each whole or up to a dot.
fn codes(words: &[String]) -> Result<Vec<Code>, Stop> {
    let mut codes = Vec::new();
    for word in words {
        let before = codes.len();
        let named = |code: &Code| {
            let rest = code.word().strip_prefix(word.as_str());
            !word.is_empty() && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        codes.extend(Code::ALL.iter().copied().filter(named));
        if codes.len() == before {
            return Err(Stop::Usage(format!(
                "--only={word}: no such code (docs/FINDINGS.md has them all; --json names them)"
            )));
        }
    }
    Ok(codes)
}

impl Extended {
    /// Whether a file system that is marked clean has to be looked at all the same.
    fn asks_for_check(self) -> bool {
        self.fragcheck || self.discard
    }

    /// Takes a key of -E other than offset: some are done, some hold anyway, the others are refused by name.
    fn take(&mut self, key: &str, moot: &mut Vec<String>) -> Result<(), Stop> {
        let name = key.split('=').next().unwrap_or(key);
        match name {
            "journal_only" if key == name => self.journal_only = true,
            "fragcheck" if key == name => self.fragcheck = true,
            "fixes_only" if key == name => self.fixes_only = true,
            "discard" if key == name => self.discard = true,
            "nodiscard" if key == name => self.discard = false,
            "readahead_kb"
            | "no_optimize_extents"
            | "inode_count_fullmap"
            | "no_inode_count_fullmap" => moot.push(format!("-E {name}")),
            "ea_ver" if key == "ea_ver=2" => moot.push(format!("-E {key}")),
            "bmap2extent" | "unshare_blocks" | "check_encoding" | "ea_ver" => {
                return Err(Stop::Usage(format!("-E {key}: not for ext2")));
            }
            _ => {
                return Err(Stop::Usage(format!(
                    "-E {key}: unknown key (known: offset, fragcheck, discard, nodiscard, journal_only, fixes_only)"
                )));
            }
        }
        Ok(())
    }
}

/// `IMAGE?offset=BYTES`, the spelling of e2fsprogs.
fn split_offset(image: PathBuf) -> Result<(PathBuf, u64), Stop> {
    use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
    const MARK: &[u8] = b"?offset=";
    let bytes = image.as_os_str().as_bytes();
    let Some(at) = bytes.windows(MARK.len()).rposition(|window| window == MARK) else {
        return Ok((image, 0));
    };
    let (path, rest) = bytes.split_at(at);
    let text = String::from_utf8_lossy(rest.get(MARK.len()..).unwrap_or_default()).into_owned();
    Ok((
        PathBuf::from(OsString::from_vec(path.to_vec())),
        parse_bytes(&text)?,
    ))
}

/// A number of bytes: suffixes k, m, g, t are powers of 1024, s is 512.
fn parse_bytes(text: &str) -> Result<u64, Stop> {
    let wrong = || {
        Stop::Usage(format!(
            "{text}: not a number of bytes (suffixes: s k m g t)"
        ))
    };
    let (digits, unit) = match text.char_indices().next_back() {
        Some((i, c)) if !c.is_ascii_digit() => {
            let unit = match c.to_ascii_lowercase() {
                's' => 512,
                'k' => 1 << 10,
                'm' => 1 << 20,
                'g' => 1 << 30,
                't' => 1 << 40,
                _ => return Err(wrong()),
            };
            (text.get(..i).unwrap_or_default(), unit)
        }
        _ => (text, 1_u64),
    };
    digits
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(unit))
        .ok_or_else(wrong)
}
