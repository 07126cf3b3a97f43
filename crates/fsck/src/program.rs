//! The program around the library: options, messages, exit status.

mod ask;
mod discard;
mod json;
mod options;
mod output;
mod signals;

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use ext2dax_fsck::{
    CheckOptions, Error, Finding, Progress, Report, Undo, check, optimize, preen, repair,
};
use ext2dax_pmem::{Access, FileRegion, Pmem};

use options::{Mode, Options};
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
    let signals = Signals::watch();
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
    {
        output::say(options, &line);
        return Ok(status::CLEAN);
    }
    let check_options = check_options(options, &signals)?;
    let answer = match options.mode {
        Mode::No => look(options, &pmem, &check_options),
        _ => mend(options, &pmem, &check_options, &signals),
    };
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
        return Err("the journal has to be replayed, which is e2fsck's work".to_owned());
    }
    Ok(status::CLEAN)
}

fn look(options: &Options, pmem: &Pmem, how: &CheckOptions) -> Result<u8, Error> {
    let report = check(pmem, how)?;
    print_report(options, &[], &report);
    if options.extended.fragcheck {
        output::print_fragments(options, &ext2dax_fsck::fragments(pmem, how)?);
    }
    Ok(match report.is_clean() {
        true => status::CLEAN,
        false => status::UNCORRECTED,
    })
}

fn mend(
    options: &Options,
    pmem: &Pmem,
    how: &CheckOptions,
    signals: &Signals,
) -> Result<u8, Error> {
    let repaired = match options.mode {
        Mode::Preen => preen(pmem, how)?,
        Mode::Yes => repair(pmem, how, &mut |_| true)?,
        _ => {
            let mut questions = ask::Questions::new(signals.asking.clone());
            repair(pmem, how, &mut |finding| questions.ask(finding))?
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
    print_report(options, &repaired.fixed, &report);
    if let Some((rebuilt, no_room)) = rebuilt {
        output::print_rebuilt(options, rebuilt, no_room);
    }
    if options.extended.fragcheck {
        output::print_fragments(options, &ext2dax_fsck::fragments(pmem, how)?);
    }
    if options.extended.discard && clean {
        let bytes = discard::free_blocks(&options.image, options.offset, pmem, how)?;
        output::say(options, &format!("{bytes} bytes of free blocks given back"));
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

fn sync(pmem: &Pmem) -> Result<(), Error> {
    pmem.sync(0..pmem.len()).map_err(|_| Error::Sync)
}

fn check_options(options: &Options, signals: &Signals) -> Result<CheckOptions, String> {
    let mut check = CheckOptions {
        superblock: options.superblock,
        block_size: options.block_size,
        cancel: signals.cancel.clone(),
        ..CheckOptions::default()
    };
    if let Some(threads) = options.threads {
        check.threads = threads;
    }
    if let Some(fd) = options.progress {
        check.progress = output::progress(fd, &options.image, signals);
    } else {
        check.progress = Progress::default();
    }
    if let Some(path) = &options.undo {
        let undo = Undo::create(path, options.offset);
        check.undo = Some(undo.map_err(|why| format!("undo file {}: {why}", path.display()))?);
    }
    Ok(check)
}

fn print_report(options: &Options, fixed: &[Finding], report: &Report) {
    if options.json {
        json::print_report(options, fixed, report);
    } else {
        output::print_report(options, fixed, report);
    }
}
