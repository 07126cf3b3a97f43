//! The tool `ext2dax`: looks into an image and mounts it, as a library so that its manual page is made from the same definitions.
//!
//! | module | holds |
//! |---|---|
//! | `args` | the command line |
//! | `ls`, `cat`, `stat`, `df`, `mount` | one command each |
//! | `helper` | the tool as a helper of mount(8) |
//! | `show` | times, modes and names as text |

mod args;
mod cat;
mod df;
mod helper;
mod ls;
mod mount;
mod show;
mod stat;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufWriter, Read as _, Seek as _, SeekFrom, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{CommandFactory as _, Parser as _};
use ext2dax::{FileSystem, MountOptions};
use ext2dax_pmem::{Access, FileRegion};

use args::{Args, Command};

/// The command line, for help texts and manual pages.
#[must_use]
pub fn command() -> clap::Command {
    Args::command()
}

/// Runs the tool on the arguments of the process.
#[must_use]
pub fn main() -> ExitCode {
    run(std::env::args_os())
}

/// Runs the tool; the first argument is its name. Exit status 0: all done. 1: something was not done, each said on
/// stderr. 2: usage.
#[must_use]
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let helps = helper::is_called(&args);
    let parsed = if helps {
        helper::parse(&args)
    } else {
        Args::try_parse_from(args)
    };
    let args = match parsed {
        Ok(args) => args,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() {
                ExitCode::from(2)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    let mut out = BufWriter::new(io::stdout().lock());
    let result = execute(&args, &mut out).and_then(|all| {
        out.flush()?;
        Ok(all)
    });
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = out.flush();
            complain(&args, &error);
            // For mount(8) 1 is a wrong use of its helper.
            if error.is::<ext2dax_fuse::Refusal>() && !helps {
                ExitCode::from(2)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

/// False if something that was asked for was not done, and has been said.
fn execute(args: &Args, out: &mut dyn Write) -> Result<bool> {
    let image = args.command.image();
    if let Command::Mount(options) = &args.command {
        return mount::run(options).map(|()| true);
    }
    let fs = open(image).with_context(|| image.display().to_string())?;
    match &args.command {
        Command::Ls(options) => ls::run(args, options, &fs, out),
        Command::Cat(options) => cat::run(args, options, &fs, out),
        Command::Stat(options) => stat::run(args, options, &fs, out),
        Command::Df(_) => df::run(args, image, &fs, out),
        Command::Mount(_) => unreachable!("served above, before the image is opened for reading"),
    }
}

/// Reading commands change nothing: the image is opened and mounted for reading.
fn open(image: &Path) -> Result<FileSystem> {
    let region = FileRegion::open(image, Access::ReadOnly)?;
    FileSystem::mount(region, &MountOptions::new().read_only(true))
        .map_err(|error| with_guess(error, image, 0))
}

/// An error of the file system, and where there is none, what lies at byte `offset` of the image instead.
fn with_guess(error: ext2dax::Error, image: &Path, offset: u64) -> anyhow::Error {
    let error = anyhow::Error::new(error);
    if !matches!(error.downcast_ref(), Some(ext2dax::Error::NotExt2 { .. })) {
        return error;
    }
    match guess(image, offset) {
        Ok(Some(kind)) => error.context(format!("it looks like {kind}")),
        Ok(None) | Err(_) => error,
    }
}

fn guess(image: &Path, offset: u64) -> io::Result<Option<&'static str>> {
    const HEAD_LEN: u64 = 1 << 16;
    let mut file = File::open(image)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut head = Vec::new();
    file.take(HEAD_LEN).read_to_end(&mut head)?;
    Ok(ext2dax::looks_like(&head))
}

/// One line on stderr; an object with `--json`.
fn complain(args: &Args, error: &anyhow::Error) {
    let name = args.command.name();
    let _ = if args.json {
        let errno = error
            .downcast_ref::<ext2dax::Error>()
            .map(|error| error.errno());
        let object =
            serde_json::json!({ "op": name, "error": format!("{error:#}"), "errno": errno });
        writeln!(io::stderr(), "{object}")
    } else {
        writeln!(io::stderr(), "ext2dax {name}: {error:#}")
    };
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Runs `each` for every path; what fails is said, and the rest goes on.
fn for_each_path(
    args: &Args,
    paths: &[OsString],
    mut each: impl FnMut(&OsString) -> Result<()>,
) -> Result<bool> {
    let mut all = true;
    for path in paths {
        match each(path) {
            Ok(()) => {}
            Err(error) if is_closed_pipe(&error) => return Err(error),
            Err(error) => {
                all = false;
                let image = args.command.image().display();
                complain(args, &error.context(format!("{image}: {}", path.display())));
            }
        }
    }
    Ok(all)
}
