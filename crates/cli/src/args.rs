//! The command line.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};

/// Look into an ext2 image, and mount it through FUSE.
///
/// All commands but mount open the image for reading and do not change it. Their paths are inside the image.
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
    /// Mount the image on a directory, for any program to use
    ///
    /// Root is not needed where `fusermount3` is installed. The command returns when the mount is there, and leaves a server
    /// behind that ends with it: by `umount DIR`, `fusermount3 -u DIR`, or a signal (TERM, INT, HUP). The image is marked
    /// clean then.
    ///
    /// Called as mount.ext2dax or mount.fuse.ext2dax, which `make install` sets up as links, it takes the arguments of a
    /// helper of mount(8), for fstab: `/srv/disk.img /mnt fuse.ext2dax noauto,user 0 0`.
    #[command(after_long_help = mount_options())]
    Mount(Mount),
}

/// The list of mount options, in the form that clap gives to options.
fn mount_options() -> String {
    let listed = ext2dax_fuse::LISTED_OPTIONS
        .iter()
        .map(|(words, meaning)| format!("  {words}\n          {meaning}\n"));
    format!(
        "Mount options (-o), the last word of a kind counts:\n{}\nWhat cannot be done is refused by name, with the reason.",
        listed.collect::<Vec<_>>().join("\n")
    )
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

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Mount {
    /// File or device with the image
    pub(crate) image: PathBuf,
    /// The directory to mount on
    pub(crate) directory: PathBuf,
    /// Mount options, separated by commas
    #[arg(short = 'o', value_name = "OPTIONS")]
    pub(crate) options: Vec<String>,
    /// Stay in the foreground
    #[arg(short = 'f')]
    pub(crate) foreground: bool,
    /// Stay in the foreground and say every request on stderr
    #[arg(short = 'd')]
    pub(crate) debug: bool,
    /// Serve one request at a time
    #[arg(short = 's')]
    pub(crate) single: bool,
    /// Only look at the arguments
    #[arg(skip)]
    pub(crate) fake: bool,
    /// The server behind a command that has returned
    #[arg(long, hide = true)]
    pub(crate) background: bool,
}

impl Command {
    pub(crate) fn image(&self) -> &Path {
        match self {
            Command::Ls(options) => &options.image,
            Command::Cat(options) => &options.image,
            Command::Stat(options) => &options.image,
            Command::Df(options) => &options.image,
            Command::Mount(options) => &options.image,
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Command::Ls(_) => "ls",
            Command::Cat(_) => "cat",
            Command::Stat(_) => "stat",
            Command::Df(_) => "df",
            Command::Mount(_) => "mount",
        }
    }
}
