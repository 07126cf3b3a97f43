//! `mount`: serves an image through FUSE, in the foreground or as a process that is left behind.
//!
//! A process that is to stay when its caller goes on is usually a fork. With threads and an open image about, a new start
//! is simpler: the command runs itself again with `--background`, and waits for one line on a pipe, which comes when the
//! mount is there, or for the pipe's end.

use std::env;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::panic;
use std::process::{self, Stdio};
use std::thread;

use anyhow::{Context as _, Result, bail};
use ext2dax::FileSystem;
use ext2dax::pmem::FileRegion;
use ext2dax_fuse::{Mounted, Options};
use nix::sys::signal::{SigSet, Signal};

use crate::args::Mount;

/// What the server says when it serves.
const READY: &str = "mounted\n";

/// Mounts; returns when the mount is there, or in the foreground when it is over.
pub(crate) fn run(args: &Mount) -> Result<()> {
    let options = options(args)?;
    if args.fake {
        return Ok(());
    }
    if args.foreground || args.debug || args.background {
        serve(args, &options)
    } else {
        leave_server(args)
    }
}

fn options(args: &Mount) -> Result<Options> {
    let mut options = Options::default();
    for list in &args.options {
        options.apply(list)?;
    }
    if args.single {
        options.threads = Some(1);
    }
    options.check()?;
    Ok(options)
}

/// Starts the server as a process of its own, and waits until it serves or fails. What it has to say about a failure, it
/// says itself.
fn leave_server(args: &Mount) -> Result<()> {
    let program = env::current_exe().context("cannot find this program to start its server")?;
    let mut command = process::Command::new(program);
    command
        .arg0("ext2dax")
        .args(["mount", "--background"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    for list in &args.options {
        command.arg("-o").arg(list);
    }
    if args.single {
        command.arg("-s");
    }
    command.arg("--").arg(&args.image).arg(&args.directory);
    let mut server = command.spawn().context("cannot start the server")?;
    let mut line = String::new();
    if let Some(stdout) = server.stdout.take() {
        BufReader::new(stdout).read_line(&mut line)?;
    }
    if line == READY {
        return Ok(());
    }
    let status = server.wait()?;
    match status.code() {
        Some(code) => process::exit(code),
        None => bail!("the server ended before it had mounted: {status}"),
    }
}

/// Serves until the mount ends.
fn serve(args: &Mount, options: &Options) -> Result<()> {
    if args.debug {
        // Fails if there is one already, which then does as well.
        let _ = log::set_logger(&Stderr);
        log::set_max_level(log::LevelFilter::Debug);
    }
    end_with_a_panic();
    let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]);
    // Before any thread is started: each inherits it.
    signals.thread_block()?;
    let image = &args.image;
    let full = image
        .canonicalize()
        .with_context(|| image.display().to_string())?;
    // Before the image is touched; and a mount that a dead server left would keep checkers from the image.
    let directory = ext2dax_fuse::directory(&args.directory)?;
    // The region's own errors name the image.
    let region = FileRegion::open_at(image, options.access(), options.offset, None)?;
    let fs = FileSystem::mount(region, &options.mount_options())
        .map_err(|error| crate::with_guess(error, image, options.offset))
        .with_context(|| image.display().to_string())?;
    let serve_options = options.serve_options(&full.to_string_lossy());
    let mounted = ext2dax_fuse::mount(fs, &directory, &serve_options)?;
    end_on_signal(&mounted, signals)?;
    if args.background {
        step_back()?;
    }
    Ok(mounted.run()?)
}

/// A panic of one event loop is the end of the server. What it had in memory cannot be trusted, and a mount that goes on
/// without a loop may hang; the image stays marked as in use, and the next mount recovers it.
fn end_with_a_panic() {
    let say = panic::take_hook();
    panic::set_hook(Box::new(move |place| {
        say(place);
        process::abort();
    }));
}

/// A thread that waits for the signals and ends the mount.
fn end_on_signal(mounted: &Mounted, signals: SigSet) -> Result<()> {
    let ender = mounted.ender();
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            if signals.wait().is_ok() {
                // The end comes in any case; there is nobody to tell why a step of it failed.
                let _ = ender.end();
            }
        })?;
    Ok(())
}

/// Lets the caller go on, and holds on to nothing of his.
fn step_back() -> Result<()> {
    // Fails for the leader of a group only, who has no terminal to lose then.
    let _ = rustix::process::setsid();
    env::set_current_dir("/")?;
    io::stdout().write_all(READY.as_bytes())?;
    io::stdout().flush()?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    Ok(())
}

/// Says every request on stderr.
struct Stderr;

impl log::Log for Stderr {
    fn enabled(&self, _metadata: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        // A log that nobody can read must not end the server.
        let _ = writeln!(io::stderr(), "{}", record.args());
    }

    fn flush(&self) {}
}
