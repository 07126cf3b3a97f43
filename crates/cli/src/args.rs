//! The command line.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};

/// Look into an ext2 image without mounting it in the kernel.
///
/// The image is opened for reading and not changed. Paths are inside the image.
#[derive(Debug, Parser)]
#[command(name = "ext2dax", version)]
#[command(
    after_help = "Exit status: 0 all done, 1 something was not done (each is said on stderr), 2 usage."
)]
pub(crate) struct Args {
    /// Objects instead of text: one a line for lists
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List directories
    Ls(Ls),
    /// Write the contents of files to stdout
    Cat(Cat),
    /// Show an inode: type, owner, sizes, times, flags
    Stat(Stat),
    /// Show free space and inodes
    Df(Df),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Ls {
    /// File or device with the image
    pub(crate) image: PathBuf,
    /// What to list
    #[arg(default_value = "/")]
    pub(crate) paths: Vec<OsString>,
    /// Modes, links, owners, sizes and times, too
    #[arg(short = 'l')]
    pub(crate) long: bool,
    /// Names that begin with a dot, too
    #[arg(short = 'a')]
    pub(crate) all: bool,
    /// Inode numbers, too
    #[arg(short = 'i')]
    pub(crate) inode: bool,
    /// Directories below, too
    #[arg(short = 'R')]
    pub(crate) recursive: bool,
    /// One name a line, which is always so
    #[arg(short = '1')]
    pub(crate) one: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Cat {
    /// File or device with the image
    pub(crate) image: PathBuf,
    /// Files to write out, one behind the other
    #[arg(required = true)]
    pub(crate) paths: Vec<OsString>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Stat {
    /// File or device with the image
    pub(crate) image: PathBuf,
    /// What to show; a symbolic link is shown itself
    #[arg(required = true)]
    pub(crate) paths: Vec<OsString>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Df {
    /// File or device with the image
    pub(crate) image: PathBuf,
}

impl Command {
    pub(crate) fn image(&self) -> &Path {
        match self {
            Command::Ls(options) => &options.image,
            Command::Cat(options) => &options.image,
            Command::Stat(options) => &options.image,
            Command::Df(options) => &options.image,
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Command::Ls(_) => "ls",
            Command::Cat(_) => "cat",
            Command::Stat(_) => "stat",
            Command::Df(_) => "df",
        }
    }
}
