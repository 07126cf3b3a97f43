//! The program around the library: options, messages, exit status.

mod ask;
mod discard;
mod json;
mod options;
mod output;
mod progress;
mod signals;

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use ext2dax_fsck::{
    BadBlocks, CheckOptions, Error, Finding, Report, Undo, check, check_preamble, list_bad_blocks,
    optimize, preen, repair,
};
use ext2dax_pmem::{Access, FileRegion, Pmem};

use options::{Mode, Options};
use progress::Display;
use signals::Signals;

/// The bits of the exit status, as e2fsck has them. 2 and 128 are never used.
mod status {
    pub(super) const CLEAN: u8 = 0;
    pub(super) const CORRECTED: u8 = 1;
    pub(super) const UNCORRECTED: u8 = 4;
    pub(super) const OPERATIONAL: u8 = 8;
    pub(super) const USAGE: u8 = 16;
    pub(super) const CANCELLED: u8 = 32;
}

/// Runs the program and returns its exit status.
pub(crate) fn run(args: impl Iterator<Item = OsString>) -> ExitCode {
    let options = match options::parse(args) {
        Ok(options) => options,
        Err(options::Stop::Answer(text)) => {
            let _ = writeln!(std::io::stdout(), "{text}");
            return ExitCode::from(status::CLEAN);
        }
        Err(options::Stop::Usage(text)) => {
            let _ = writeln!(std::io::stderr(), "fsck.ext2dax: {text}");
            return ExitCode::from(status::USAGE);
        }
    };
    match fsck(&options) {
        Ok(code) => ExitCode::from(code),
        Err(why) => {
            let name = options.image.display();
            if options.json {
                json::print_error(&options, &why);
            }
            let _ = writeln!(std::io::stderr(), "fsck.ext2dax: {name}: {why}");
            ExitCode::from(status::OPERATIONAL)
        }
    }
}

fn fsck(options: &Options) -> Result<u8, String> {
    let signals = Signals::watch(options.progress.is_some_and(|fd| fd >= 0));
    let access = match options.mode {
        Mode::No if options.force_open => Access::ReadOnlyForced,
        Mode::No => Access::ReadOnly,
        _ => Access::ReadWrite,
    };
    if options.mode == Mode::Ask && !ask::possible() {
        return Err("there is no terminal to ask on: give -n, -p or -y".to_owned());
    }
    let region = FileRegion::open_at(&options.image, access, options.offset, None)
        .map_err(|why| why.to_string())?;
    let pmem = Pmem::new(region);
    for option in options.moot.iter().filter(|_| options.verbose) {
        output::say(options, &format!("{option}: holds anyway"));
    }
    if options.extended.journal_only {
        return journal_only(&pmem);
    }
    if !options.force
        && let Some(line) = output::clean_line(&pmem, &options.image)
        // Whoever marked it clean may not have seen that it was cut short since.
        && check_preamble(&pmem, &CheckOptions::default()).is_ok_and(|found| found.is_empty())
    {
        output::say(options, &line);
        return Ok(status::CLEAN);
    }
    let bad_blocks = bad_blocks(options)?;
    let display = Display::new(options.progress, &options.image, &signals);
    let check_options = check_options(options, &signals, &display)?;
    let mut run = Run {
        options,
        pmem: &pmem,
        how: &check_options,
        display: &display,
    };
    let answer = match options.mode {
        Mode::No => run.look(),
        _ => run.mend(&signals, bad_blocks.as_ref()),
    };
    display.finish();
    match answer {
        Err(Error::Cancelled) => {
            output::complain(&options.image, "cancelled; nothing is half done");
            Ok(status::CANCELLED)
        }
        answer => answer.map_err(|why| why.to_string()),
    }
}

/// There is a journal only on images of ext3, and we do not replay it.
fn journal_only(pmem: &Pmem) -> Result<u8, String> {
    let report = check(pmem, &CheckOptions::default()).map_err(|why| why.to_string())?;
    if report.summary.needs_recovery {
        return Err("the journal has to be replayed (`e2fsck -E journal_only` does it)".to_owned());
    }
    Ok(status::CLEAN)
}

/// One run over an image.
struct Run<'a> {
    options: &'a Options,
    pmem: &'a Pmem,
    how: &'a CheckOptions,
    display: &'a Display,
}

impl Run<'_> {
    fn look(&mut self) -> Result<u8, Error> {
        let report = check(self.pmem, self.how)?;
        self.print(&[], &report)?;
        Ok(match report.is_clean() {
            true => status::CLEAN,
            false => status::UNCORRECTED,
        })
    }

    fn mend(&mut self, signals: &Signals, bad: Option<&BadBlocks>) -> Result<u8, Error> {
        let Self {
            options,
            pmem,
            how,
            display,
        } = *self;
        if let Some(bad) = bad {
            let listed = list_bad_blocks(pmem, how, bad)?;
            display.suspended(|| output::print_listed(options, &listed));
        }
        let repaired = match options.mode {
            Mode::Preen => preen(pmem, how)?,
            Mode::Yes => repair(pmem, how, &mut |_| true)?,
            _ => {
                let mut questions = ask::Questions::new(signals.asking.clone());
                let mut ask = |finding: &Finding| display.suspended(|| questions.ask(finding));
                repair(pmem, how, &mut ask)?
            }
        };
        let mut report = repaired.report;
        let mut rebuilt = None;
        let clean = report.is_clean() && !repaired.cancelled;
        if options.optimize && clean {
            let done = optimize(pmem, how)?;
            report = done.report;
            rebuilt = Some((done.rebuilt, done.no_room));
        }
        sync(pmem)?;
        self.print(&repaired.fixed, &report)?;
        if let Some((rebuilt, no_room)) = rebuilt {
            output::print_rebuilt(options, rebuilt, no_room);
        }
        if options.extended.discard && clean {
            let bytes = discard::free_blocks(&options.image, options.offset, pmem, how)?;
            output::print_discarded(options, bytes);
        }
        let mut code = status::CLEAN;
        if !repaired.fixed.is_empty() {
            code += status::CORRECTED;
        }
        if !report.is_clean() {
            code += status::UNCORRECTED;
        }
        if repaired.cancelled || signals.cancel.is_set() {
            output::complain(&options.image, "cancelled between two repairs");
            code += status::CANCELLED;
        }
        Ok(code)
    }

    fn print(&self, fixed: &[Finding], report: &Report) -> Result<(), Error> {
        self.display.finish();
        if self.options.json {
            json::print_report(self.options, fixed, report);
        } else {
            output::print_report(self.options, fixed, report);
        }
        if self.options.extended.fragcheck {
            let fragments = ext2dax_fsck::fragments(self.pmem, self.how)?;
            output::print_fragments(self.options, &fragments);
        }
        Ok(())
    }
}

fn sync(pmem: &Pmem) -> Result<(), Error> {
    pmem.sync(0..pmem.len()).map_err(|_| Error::Sync)
}

fn check_options(
    options: &Options,
    signals: &Signals,
    display: &Display,
) -> Result<CheckOptions, String> {
    let mut check = CheckOptions {
        superblock: options.superblock,
        block_size: options.block_size,
        progress: display.progress.clone(),
        cancel: signals.cancel.clone(),
        only: options.only.clone(),
        ..CheckOptions::default()
    };
    if let Some(threads) = options.threads {
        check.threads = threads;
    }
    if let Some(path) = &options.undo {
        let undo = Undo::create(path, options.offset);
        check.undo = Some(undo.map_err(|why| format!("undo file {}: {why}", path.display()))?);
    }
    Ok(check)
}

/// The list of -l or -L: a block number a line, as badblocks(8) prints them; what follows a `#` is a remark.
fn bad_blocks(options: &Options) -> Result<Option<BadBlocks>, String> {
    let Some((path, replace)) = &options.bad_blocks else {
        return Ok(None);
    };
    let name = path.display();
    let text = std::fs::read_to_string(path).map_err(|why| format!("bad blocks {name}: {why}"))?;
    let mut blocks = Vec::new();
    for (nr, line) in (1..).zip(text.lines()) {
        let line = line.split('#').next().unwrap_or_default().trim();
        if !line.is_empty() {
            let block = line.parse();
            blocks
                .push(block.map_err(|_| format!("bad blocks {name}, line {nr}: no block number"))?);
        }
    }
    let replace = *replace;
    Ok(Some(BadBlocks { blocks, replace }))
}
