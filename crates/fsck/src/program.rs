//! The program around the library: options, messages, exit status.

mod ask;
mod json;
mod options;
mod output;

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use ext2dax_fsck::{CheckOptions, Finding, Progress, Report, check, preen, repair};
use ext2dax_pmem::{Access, FileRegion, Pmem};

use options::{Mode, Options};

/// The bits of the exit status, as e2fsck has them. 2 and 128 are never used.
mod status {
    pub(super) const CLEAN: u8 = 0;
    pub(super) const CORRECTED: u8 = 1;
    pub(super) const UNCORRECTED: u8 = 4;
    pub(super) const OPERATIONAL: u8 = 8;
    pub(super) const USAGE: u8 = 16;
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
    if !options.force
        && let Some(line) = output::clean_line(&pmem, &options.image)
    {
        output::say(options, &line);
        return Ok(status::CLEAN);
    }
    let check_options = check_options(options);
    if options.mode == Mode::No {
        let report = check(&pmem, &check_options).map_err(|why| why.to_string())?;
        print_report(options, &[], &report);
        return Ok(if report.is_clean() {
            status::CLEAN
        } else {
            status::UNCORRECTED
        });
    }
    let repaired = match options.mode {
        Mode::Preen => preen(&pmem, &check_options),
        Mode::Yes => repair(&pmem, &check_options, &mut |_| true),
        _ => {
            let mut questions = ask::Questions::default();
            repair(&pmem, &check_options, &mut |finding| questions.ask(finding))
        }
    };
    let repaired = repaired.map_err(|why| why.to_string())?;
    pmem.sync(0..pmem.len())
        .map_err(|why| format!("sync: {why}"))?;
    print_report(options, &repaired.fixed, &repaired.report);
    let corrected = if repaired.fixed.is_empty() {
        status::CLEAN
    } else {
        status::CORRECTED
    };
    let left = if repaired.report.is_clean() {
        status::CLEAN
    } else {
        status::UNCORRECTED
    };
    Ok(corrected + left)
}

fn check_options(options: &Options) -> CheckOptions {
    let mut check = CheckOptions {
        superblock: options.superblock,
        block_size: options.block_size,
        ..CheckOptions::default()
    };
    if let Some(threads) = options.threads {
        check.threads = threads;
    }
    if let Some(fd) = options.progress {
        check.progress = output::progress(fd, &options.image);
    } else {
        check.progress = Progress::default();
    }
    check
}

fn print_report(options: &Options, fixed: &[Finding], report: &Report) {
    if options.json {
        json::print_report(options, fixed, report);
    } else {
        output::print_report(options, fixed, report);
    }
}
