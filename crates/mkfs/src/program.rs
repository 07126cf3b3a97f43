//! The program `mkfs.ext2dax`, as a library so that `ext2dax mkfs` and the manual page are the same thing.

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser as _};

use ext2dax_undo::Undo;

use crate::{Before, FillError, FilledPlan, Plan, Refusal};

mod args;
mod config;
mod contents;
mod extended;
mod merge;
mod progress;
mod refused;
mod report;
mod size;
mod target;

use args::{Args, Asked, Request};
use progress::Bar;
use target::{Found, Target};

/// The command line, for help texts and manual pages.
#[must_use]
pub fn command() -> clap::Command {
    Args::command()
}

/// Runs the program on the arguments of the process.
#[must_use]
pub fn main() -> ExitCode {
    run(std::env::args_os())
}

/// Runs the program; the first argument is its name. Exit status 0: made. 1: not made, usage included.
#[must_use]
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args = match Args::try_parse_from(args) {
        Ok(args) => args,
        Err(error) => return usage(&error),
    };
    match make(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line, whatever went wrong.
            let _ = writeln!(std::io::stderr(), "mkfs.ext2dax: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn usage(error: &clap::Error) -> ExitCode {
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    ) {
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    // Up to the usage text, on one line.
    let text = error.render().to_string();
    let lines = text
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:"));
    let words: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
    let first = words.join(" ");
    let first = first.strip_prefix("error: ").unwrap_or(&first);
    let _ = writeln!(std::io::stderr(), "mkfs.ext2dax: {first}; see --help");
    ExitCode::FAILURE
}

fn make(args: &Args) -> anyhow::Result<()> {
    refused::check(args)?;
    if args.merge {
        return merge::run(args);
    }
    let request = args.request()?;
    let warnings = request.warnings.iter().filter(|_| !args.quiet);
    for note in request
        .notes
        .iter()
        .filter(|_| args.verbose)
        .chain(warnings)
    {
        let _ = writeln!(std::io::stderr(), "mkfs.ext2dax: {note}");
    }
    // What is made anew can be begun again.
    let hopeful = !args.dry_run
        && !args.super_only
        && args.undo.is_none()
        && args.contents.can_be_read_again();
    match make_once(args, request, hopeful) {
        Err(error) if matches!(error.downcast_ref(), Some(FillError::Zeroes)) => {
            make_once(args, args.request()?, false)
        }
        made => made,
    }
}

/// Makes the image; `hopeful` as in [`Filling`](crate::Filling).
fn make_once(args: &Args, mut request: Request, hopeful: bool) -> anyhow::Result<()> {
    let request = &mut request;
    let found = Target::look(&args.image, request.offset)?;
    if !request.reproducible || request.random_uuid {
        request
            .options
            .uuid
            .get_or_insert_with(|| *uuid::Uuid::new_v4().as_bytes());
    }
    let mut image = plan(args, request, &found, hopeful && !found.is_device())?;
    let missing = found.is_missing();
    let target = found.sized(image.wanted);
    if args.undo.is_some() && missing {
        anyhow::bail!("{}: -z: there is nothing to write over", target.name());
    }
    if args.super_only && !args.dry_run {
        super_only(args, &image, &target)?;
    } else if !args.dry_run {
        let _claim = target.check_free_to_use(args.force)?;
        write(args, &mut image, &target, request)?;
    }
    let reported = report::plan(args, &image, &target, &request.warnings, !args.dry_run);
    // The process ends: nobody needs the memory of a million names given back piece by piece.
    std::mem::forget(image);
    reported
}

/// An image, empty or filled, and how long its file should be.
pub(crate) struct Planned {
    pub(crate) kind: Kind,
    /// Bytes of the target that are the image's, what is no whole block or group included.
    wanted: u64,
}

/// What there is to write.
pub(crate) enum Kind {
    /// An empty file system.
    Empty(Box<Plan>),
    /// One with contents.
    Filled(Box<FilledPlan>),
}

impl Planned {
    pub(crate) fn filled(&self) -> Option<&FilledPlan> {
        match &self.kind {
            Kind::Empty(_) => None,
            Kind::Filled(filled) => Some(filled),
        }
    }

    pub(crate) fn plan(&self) -> &Plan {
        match &self.kind {
            Kind::Empty(plan) => plan,
            Kind::Filled(filled) => filled.plan(),
        }
    }
}

fn plan(
    args: &Args,
    request: &mut Request,
    found: &Found,
    hopeful: bool,
) -> anyhow::Result<Planned> {
    let name = found.name().to_string();
    if !args.contents.given() && request.root_label.is_none() {
        let len = found.len(request.size, request.explicit_block_size)?;
        let plan = Plan::new(&request.options, len);
        let plan = plan.map_err(|refusal| anyhow::anyhow!("{name}: {refusal}"))?;
        return Ok(Planned {
            kind: Kind::Empty(Box::new(plan)),
            wanted: len,
        });
    }
    let room = match request.size {
        Asked::Smallest => None,
        _ if request.size == Asked::Nothing && found.is_missing() && args.contents.given() => None,
        size => Some(found.len(size, request.explicit_block_size)?),
    };
    if room.is_none() {
        args.settle_smallest(&mut request.options);
    }
    let mut tree = args.contents.tree(request, &args.image)?;
    if let Some(label) = &request.root_label {
        // As setfiles(8) stores it: with a zero byte behind it.
        let value = [label.as_bytes(), b"\0"].concat();
        tree.attribute("/", b"security.selinux", &value)?;
    }
    let filling = args.contents.filling(request, room, hopeful)?;
    let filled = filling.plan(tree).map_err(|error| match error {
        // It may fit with the holes that nobody has looked for.
        FillError::Refusal(Refusal::ContentsTooLarge { .. }) if hopeful => FillError::Zeroes.into(),
        FillError::Source(error) => anyhow::anyhow!("{error}"),
        // What made the limit was not asked for: a file that is there already.
        FillError::Refusal(Refusal::ContentsTooLarge { .. })
            if request.size == Asked::Nothing && found.is_file() =>
        {
            anyhow::anyhow!("{name}: {error}; give a size, or auto for the smallest one")
        }
        other => anyhow::anyhow!("{name}: {other}"),
    })?;
    let wanted = room.unwrap_or(filled.len_bytes());
    found.check_room(wanted)?;
    Ok(Planned {
        kind: Kind::Filled(Box::new(filled)),
        wanted,
    })
}

/// Superblocks and descriptors over an old file system, everything else kept, for fsck to make sense of.
fn super_only(args: &Args, image: &Planned, target: &Target) -> anyhow::Result<()> {
    if target.is_missing() {
        anyhow::bail!("{}: -S: there is nothing to write over", target.name());
    }
    let _claim = target.check_free_to_use(args.force.max(1))?;
    let opened = target.open_in_place(image.plan().len_bytes(), target.end(), false)?;
    let undo = keep(args, image, &opened, true)?;
    let written = image.plan().write_super_only(&opened.medium());
    written.map_err(|error| anyhow::anyhow!("{}: {error}", target.name()))?;
    kept(undo, &opened)?;
    opened.commit()
}

/// Writes what stands in the way into the undo file, if there is to be one.
fn keep(
    args: &Args,
    image: &Planned,
    opened: &target::Opened<'_>,
    super_only: bool,
) -> anyhow::Result<Option<Undo>> {
    let Some(path) = &args.undo else {
        return Ok(None);
    };
    let name = path.display();
    let undo = Undo::create(path, opened.offset());
    let undo = undo.with_context(|| format!("-z {name}"))?;
    for range in image.plan().touched(super_only) {
        if !undo.save(&opened.pmem, range.start, range.end - range.start) {
            break;
        }
    }
    match undo.failure() {
        Some((_, why)) => Err(why).with_context(|| format!("-z {name}")),
        None => Ok(Some(undo)),
    }
}

/// The image is whole, and so is the undo file.
fn kept(undo: Option<Undo>, opened: &target::Opened<'_>) -> anyhow::Result<()> {
    let Some(undo) = undo else {
        return Ok(());
    };
    undo.finish(&opened.pmem);
    match undo.failure() {
        Some((path, why)) => Err(why).with_context(|| format!("-z {}", path.display())),
        None => Ok(()),
    }
}

fn write(
    args: &Args,
    image: &mut Planned,
    target: &Target,
    request: &Request,
) -> anyhow::Result<()> {
    let len = image.plan().len_bytes();
    let opened = match args.undo {
        // What is given back could not be brought back.
        Some(_) => target.open_in_place(len, target.end(), false)?,
        None => target.open(len, request.discard)?,
    };
    let undo = keep(args, image, &opened, false)?;
    let before = if request.prezeroed {
        Before::Zeroes
    } else {
        opened.before
    };
    let mut bar = Bar::new(args)?;
    let progress = |progress| bar.step(progress);
    let written = match &mut image.kind {
        Kind::Empty(plan) => plan.write_to(&opened.medium(), before, progress),
        Kind::Filled(filled) => filled.write(&opened.medium(), before, progress),
    };
    bar.finish();
    match written {
        Ok(()) => {
            kept(undo, &opened)?;
            opened.commit()
        }
        Err(FillError::Source(error)) => Err(error.into()),
        Err(error @ FillError::Zeroes) => Err(error.into()),
        Err(error) => anyhow::bail!("{}: {error}", target.name()),
    }
}
