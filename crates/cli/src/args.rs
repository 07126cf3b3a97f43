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
    Mount(Mount),
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

/// Root is not needed where `fusermount3` is installed. The command returns when the mount is there, and leaves a server
/// behind that ends with it: by `umount DIR`, `fusermount3 -u DIR`, or a signal (TERM, INT, HUP). The image is marked
/// clean then.
///
/// Options (-o): ro rw offset=BYTES acl noacl user_xattr bsddf minixdf errors=continue|remount-ro fakeroot norecovery
/// reclaim (after a crash, what has leaked is given back first, and the image ends clean) kernel no_default_opts
/// allow_other default_permissions threads=N follow (on by default, with CAP_SYS_NICE: the server runs on the processor
/// of a program that asks one thing after the other) grpid sysvgroups resuid=UID resgid=GID suid dev exec atime noatime
/// sync dirsync fsname=NAME subtype=TYPE writeback_cache, and those that start with no where
/// that makes sense. An option that cannot be done is refused by name.
///
/// Called as mount.ext2dax or mount.fuse.ext2dax, which `make install` sets up as links, it takes the arguments of a
/// helper of mount(8), for fstab: `/srv/disk.img /mnt fuse.ext2dax noauto,user 0 0`.
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
