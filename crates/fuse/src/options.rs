//! Mount options: each is done or refused by name, with the reason.

use std::fmt;
use std::num::NonZeroUsize;
use std::thread;

use ext2dax::pmem::Access;
use ext2dax::{Atime, MountOptions, OnError, StatfsStyle};
use rustix::process::geteuid;

use crate::mount::KernelOptions;
use crate::server::Behaviour;
use crate::session::ServeOptions;

mod listed;

pub use listed::LISTED;

/// Event loops unless told otherwise, at most: more do not make one image faster.
const DEFAULT_THREADS: usize = 8;

/// Event loops at most.
const MAX_THREADS: usize = 256;

/// Why an option is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The option as it was given.
    pub option: String,
    /// What is wrong with it.
    pub reason: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "-o {}: {}", self.option, self.reason)
    }
}

impl std::error::Error for Refusal {}

/// What a mount was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a mount option that is given or not"
)]
pub struct Options {
    /// `ro`: nothing on the medium changes.
    pub read_only: bool,
    /// `offset=`: where in the file or device the image begins, in bytes.
    pub offset: u64,
    /// `acl` and `noacl`.
    pub acl: bool,
    /// `minixdf` and `bsddf`.
    pub minix_df: bool,
    /// `errors=`; `None`: as the superblock says.
    pub on_error: Option<OnError>,
    /// `fakeroot`: nobody is checked; everybody acts as root.
    pub fakeroot: bool,
    /// `norecovery`.
    pub no_recovery: bool,
    /// `reclaim`: what a crash has leaked is given back first.
    pub reclaim: bool,
    /// `no_default_opts`: no source and type but those given.
    pub no_default_opts: bool,
    /// `allow_other`.
    pub allow_other: bool,
    /// `default_permissions`: the kernel checks modes and owners even where only root comes in.
    pub default_permissions: bool,
    /// `threads=`; `None`: as many as processors, 8 at most.
    pub threads: Option<usize>,
    /// `follow` and `nofollow`: event loops run where the program runs that asks, where that can be done.
    pub follow: bool,
    /// `grpid` and `sysvgroups`.
    pub grpid: bool,
    /// `resuid=`.
    pub reserved_uid: Option<u32>,
    /// `resgid=`.
    pub reserved_gid: Option<u32>,
    /// `suid` and `nosuid`.
    pub suid: bool,
    /// `dev` and `nodev`.
    pub dev: bool,
    /// `exec` and `noexec`.
    pub exec: bool,
    /// `noatime` and `atime`.
    pub no_atime: bool,
    /// `sync` and `async`.
    pub sync: bool,
    /// `dirsync`.
    pub dirsync: bool,
    /// `writeback_cache`.
    pub writeback_cache: bool,
    /// `fsname=`.
    pub fsname: Option<String>,
    /// `subtype=`.
    pub subtype: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            read_only: false,
            offset: 0,
            acl: true,
            minix_df: false,
            on_error: None,
            fakeroot: false,
            no_recovery: false,
            reclaim: false,
            no_default_opts: false,
            allow_other: false,
            default_permissions: false,
            threads: None,
            follow: true,
            grpid: false,
            reserved_uid: None,
            reserved_gid: None,
            suid: false,
            dev: false,
            exec: true,
            no_atime: false,
            sync: false,
            dirsync: false,
            writeback_cache: false,
            fsname: None,
            subtype: None,
        }
    }
}

/// Options without a value.
type Flag = fn(&mut Options);

/// Every option without a value that does something.
const FLAGS: &[(&str, Flag)] = &[
    ("ro", |o| o.read_only = true),
    ("rw", |o| o.read_only = false),
    ("acl", |o| o.acl = true),
    ("noacl", |o| o.acl = false),
    ("bsddf", |o| o.minix_df = false),
    ("minixdf", |o| o.minix_df = true),
    ("fakeroot", |o| o.fakeroot = true),
    ("norecovery", |o| o.no_recovery = true),
    ("noload", |o| o.no_recovery = true),
    ("reclaim", |o| o.reclaim = true),
    ("no_default_opts", |o| o.no_default_opts = true),
    ("allow_other", |o| o.allow_other = true),
    ("default_permissions", |o| o.default_permissions = true),
    ("kernel", |o| {
        o.allow_other = true;
        o.suid = true;
        o.dev = true;
    }),
    ("follow", |o| o.follow = true),
    ("nofollow", |o| o.follow = false),
    ("grpid", |o| o.grpid = true),
    ("bsdgroups", |o| o.grpid = true),
    ("nogrpid", |o| o.grpid = false),
    ("sysvgroups", |o| o.grpid = false),
    ("suid", |o| o.suid = true),
    ("nosuid", |o| o.suid = false),
    ("dev", |o| o.dev = true),
    ("nodev", |o| o.dev = false),
    ("exec", |o| o.exec = true),
    ("noexec", |o| o.exec = false),
    ("atime", |o| o.no_atime = false),
    ("relatime", |o| o.no_atime = false),
    ("noatime", |o| o.no_atime = true),
    ("sync", |o| o.sync = true),
    ("async", |o| o.sync = false),
    ("dirsync", |o| o.dirsync = true),
    ("writeback_cache", |o| o.writeback_cache = true),
    ("no_writeback_cache", |o| o.writeback_cache = false),
];

/// What these ask for holds anyway, or is addressed to mount(8) and done there.
const MOOT: &[&str] = &[
    "defaults",
    "user_xattr",
    "nodiratime",
    "kernel_cache",
    "use_ino",
    "auto",
    "noauto",
    "user",
    "nouser",
    "users",
    "owner",
    "group",
    "nofail",
    "_netdev",
];

/// Known elsewhere, and refused here.
const REFUSED: &[(&str, &str)] = &[
    (
        "cache_size",
        "there is no cache whose size could be set: the image is used in place",
    ),
    (
        "direct",
        "there is no cache to go around: the image is used in place",
    ),
    ("remount", "unmount, and mount with the new options"),
    ("nouser_xattr", "user attributes cannot be switched off"),
    (
        "strictatime",
        "access times are kept as relatime keeps them, or not at all (noatime)",
    ),
    ("lazytime", "times are written where they change"),
    (
        "auto_unmount",
        "a server that dies leaves a mount; the next mount there takes it off",
    ),
    ("allow_root", "allow_other lets root in"),
    (
        "nonempty",
        "a directory with files in it may be mounted over without it",
    ),
    ("nouid32", "owners have 32 bits"),
    ("data", "there is no journal"),
    ("journal", "there is no journal"),
    ("journal_dev", "there is no journal"),
    ("journal_path", "there is no journal"),
    ("journal_checksum", "there is no journal"),
    ("journal_async_commit", "there is no journal"),
    ("commit", "there is no journal"),
    ("barrier", "there is no journal"),
    ("nobarrier", "there is no journal"),
    ("quota", "quotas are not kept"),
    ("noquota", "quotas are not kept"),
    ("usrquota", "quotas are not kept"),
    ("grpquota", "quotas are not kept"),
    ("prjquota", "quotas are not kept"),
    ("usrjquota", "quotas are not kept"),
    ("grpjquota", "quotas are not kept"),
    ("jqfmt", "quotas are not kept"),
    ("dax", "a FUSE mount is not DAX: its pages are the kernel's"),
    ("sb", "backup superblocks are for fsck.ext2dax"),
    ("partition", "use offset="),
    ("loop", "an image file needs no loop device"),
];

fn refusal(option: &str, reason: impl Into<String>) -> Refusal {
    Refusal {
        option: option.to_owned(),
        reason: reason.into(),
    }
}

/// A number of bytes; the suffixes k, m, g and t are powers of 1024, s is 512.
fn bytes(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" => 1,
        "s" => 512,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        "t" => 1 << 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

impl Options {
    /// Reads a comma-separated list, left to right; a comma inside a value is written `\,`.
    ///
    /// # Errors
    /// The first option that is unknown, refused or has a wrong value.
    pub fn parse(list: &str) -> Result<Self, Refusal> {
        let mut options = Self::default();
        options.apply(list)?;
        options.check()?;
        Ok(options)
    }

    /// Reads another list on top.
    ///
    /// # Errors
    /// As [`Options::parse`], but for contradictions: see [`Options::check`].
    pub fn apply(&mut self, list: &str) -> Result<(), Refusal> {
        split(list)
            .iter()
            .filter(|option| !option.is_empty())
            .try_for_each(|option| self.set(option))
    }

    /// Whether the options go together.
    ///
    /// # Errors
    /// `norecovery` without `ro`.
    pub fn check(&self) -> Result<(), Refusal> {
        if self.no_recovery && !self.read_only {
            return Err(refusal("norecovery", "only together with ro"));
        }
        Ok(())
    }

    fn set(&mut self, option: &str) -> Result<(), Refusal> {
        let (name, value) = match option.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (option, None),
        };
        if let Some((_, reason)) = REFUSED.iter().find(|(known, _)| *known == name) {
            return Err(refusal(option, *reason));
        }
        if name.starts_with("x-") || name.starts_with("X-") || name == "comment" {
            // For mount(8) and whoever else reads fstab.
            return Ok(());
        }
        if let Some(value) = value {
            return self.set_value(option, name, value);
        }
        if let Some((_, set)) = FLAGS.iter().find(|(known, _)| *known == name) {
            set(self);
            return Ok(());
        }
        if MOOT.contains(&name) {
            return Ok(());
        }
        Err(refusal(option, "unknown option"))
    }

    fn set_value(&mut self, option: &str, name: &str, value: &str) -> Result<(), Refusal> {
        let id = || {
            value
                .parse()
                .map_err(|_| refusal(option, "not a number from 0 to 4294967295"))
        };
        match name {
            "offset" => {
                self.offset = bytes(value)
                    .ok_or_else(|| refusal(option, "not a number of bytes (suffixes k m g t s)"))?;
                if !self.offset.is_multiple_of(512) {
                    return Err(refusal(option, "not a multiple of 512"));
                }
            }
            "threads" => {
                self.threads = match value.parse() {
                    Ok(threads @ 1..=MAX_THREADS) => Some(threads),
                    _ => return Err(refusal(option, "not a number from 1 to 256")),
                }
            }
            "errors" => {
                self.on_error = match value {
                    "continue" => Some(OnError::Continue),
                    "remount-ro" => Some(OnError::ReadOnly),
                    "panic" => {
                        return Err(refusal(
                            option,
                            "a server does not stop the host: remount-ro",
                        ));
                    }
                    _ => return Err(refusal(option, "continue or remount-ro")),
                }
            }
            "resuid" => self.reserved_uid = Some(id()?),
            "resgid" => self.reserved_gid = Some(id()?),
            "fsname" => self.fsname = Some(value.to_owned()),
            "subtype" => self.subtype = Some(value.to_owned()),
            _ => return Err(refusal(option, "unknown option")),
        }
        Ok(())
    }

    /// How the image is opened.
    #[must_use]
    pub fn access(&self) -> Access {
        if self.read_only {
            Access::ReadOnly
        } else {
            Access::ReadWrite
        }
    }

    /// How the file system is mounted.
    #[must_use]
    pub fn mount_options(&self) -> MountOptions {
        let mut options = MountOptions::new()
            .read_only(self.read_only)
            .no_recovery(self.no_recovery)
            .reclaim(self.reclaim)
            .group_inherits(self.grpid)
            .acl(self.acl)
            .reserved_for(self.reserved_uid, self.reserved_gid);
        if let Some(on_error) = self.on_error {
            options = options.on_error(on_error);
        }
        if self.no_atime {
            options = options.atime(Atime::Never);
        }
        if self.minix_df {
            options = options.statfs(StatfsStyle::Minix);
        }
        options
    }

    /// How it is served; `image` is what tools show as the source.
    #[must_use]
    pub fn serve_options(&self, image: &str) -> ServeOptions {
        let default = |value: &Option<String>, otherwise: &str, without: &str| match value {
            Some(value) => value.clone(),
            None if self.no_default_opts => without.to_owned(),
            None => otherwise.to_owned(),
        };
        // The kernel asks for the mode of a directory that has changed before it lets somebody in. Where only root comes
        // in, who may do everything, that is a request for nothing.
        let check = !self.fakeroot
            && (self.default_permissions || self.allow_other || !geteuid().is_root());
        let processors = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        ServeOptions {
            kernel: KernelOptions {
                source: default(&self.fsname, image, "/dev/fuse"),
                subtype: default(&self.subtype, "ext2dax", ""),
                allow_other: self.allow_other,
                default_permissions: check,
                read_only: self.read_only,
                suid: self.suid,
                dev: self.dev,
                exec: self.exec,
                no_atime: self.no_atime,
                sync: self.sync,
                dirsync: self.dirsync,
            },
            behaviour: Behaviour {
                dirsync: self.sync || self.dirsync,
                fakeroot: self.fakeroot,
            },
            threads: self.threads.unwrap_or(processors.clamp(2, DEFAULT_THREADS)),
            follow: self.follow && processors > 1,
            writeback_cache: self.writeback_cache,
            // A kernel that enforces lists checks permissions, asked to or not.
            acl: self.acl && check,
        }
    }
}

/// The options of a list; `\,` is a comma inside one, `\\` a backslash.
fn split(list: &str) -> Vec<String> {
    let mut options = vec![String::new()];
    let mut letters = list.chars();
    while let Some(letter) = letters.next() {
        let last = options.last_mut().expect("there is always one");
        match letter {
            ',' => options.push(String::new()),
            '\\' => last.extend(letters.next()),
            _ => last.push(letter),
        }
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_counts() {
        let options = Options::parse("ro,rw,noacl,acl,nosuid,kernel,nodev").expect("all known");
        assert!(!options.read_only && options.acl && options.suid && !options.dev);
        assert!(options.allow_other);
    }

    #[test]
    fn values_have_units_and_limits() {
        assert_eq!(Options::parse("offset=1m").expect("known").offset, 1 << 20);
        assert_eq!(
            Options::parse("offset=2048s").expect("known").offset,
            1 << 20
        );
        for wrong in [
            "offset=100",
            "offset=-1",
            "offset=1x",
            "offset=99999999t",
            "threads=0",
            "threads=257",
            "errors=panic",
            "errors=",
            "resuid=-1",
            "resuid=4294967296",
        ] {
            let refusal = Options::parse(wrong).expect_err(wrong);
            assert_eq!(refusal.option, wrong);
        }
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_name() {
        for (option, word) in [
            ("cache_size=32m", "cache"),
            ("direct", "cache"),
            ("data=journal", "journal"),
            ("usrquota", "quota"),
            ("remount", "unmount"),
            ("nosuchoption", "unknown"),
            ("nosuchoption=1", "unknown"),
            ("ro=1", "unknown"),
            ("norecovery", "ro"),
        ] {
            let refusal = Options::parse(option).expect_err(option);
            assert!(refusal.to_string().contains(option), "{refusal}");
            assert!(refusal.reason.contains(word), "{refusal}");
        }
    }

    #[test]
    fn a_comma_may_stand_in_a_value() {
        let options = Options::parse(r"fsname=a\,b\\c,ro").expect("known");
        assert_eq!(options.fsname.as_deref(), Some(r"a,b\c"));
        assert!(options.read_only);
    }

    #[test]
    fn no_name_is_listed_twice() {
        let mut names: Vec<&str> = FLAGS.iter().map(|(name, _)| *name).collect();
        names.extend(MOOT);
        names.extend(REFUSED.iter().map(|(name, _)| *name));
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
