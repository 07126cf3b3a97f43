//! Options of the command line, and what they ask for.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::{ArgAction, Parser};
use ext2dax_format::Compat;

use super::extended;
use super::size;
use crate::{Inodes, Options, edit_features};

/// Make an ext2 file system in a file or on a device.
///
/// Everything is checked before the first byte is written. The shape is the one that mke2fs chooses for the same options,
/// but blocks are 4096 bytes at every size unless -b says otherwise.
#[derive(Debug, Parser)]
#[command(
    name = "mkfs.ext2dax",
    bin_name = "mkfs.ext2dax",
    version,
    disable_version_flag = true
)]
#[command(
    after_help = "Exit status: 0 made, 1 not made. SOURCE_DATE_EPOCH sets all times and makes the image reproducible. \
                  E2FSPROGS_FAKE_TIME stands for the clock. MKE2FS_CONFIG names a configuration of mke2fs; without it \
                  none is read."
)]
pub(crate) struct Args {
    /// File or device; a file is made, or made longer, as SIZE says
    pub(crate) image: PathBuf,
    /// KiB, or blocks if -b is given; with a suffix k, m, g, t (powers of 1024) or s (512 bytes). Without it the size that
    /// the target has, or auto: the smallest that holds the contents, which is what a new file gets
    pub(crate) size: Option<String>,
    /// Bytes in a block, 1024 to 65536; with a minus sign before it: at least so many
    #[arg(short = 'b', value_name = "BYTES", allow_hyphen_values = true)]
    pub(crate) block_size: Option<String>,
    /// Bytes of an inode, 128 to the block size
    #[arg(short = 'I', value_name = "BYTES")]
    pub(crate) inode_size: Option<String>,
    /// One inode for so many bytes
    #[arg(short = 'i', value_name = "BYTES", conflicts_with = "inodes")]
    pub(crate) ratio: Option<String>,
    /// Number of inodes
    #[arg(short = 'N', value_name = "COUNT")]
    pub(crate) inodes: Option<u32>,
    /// Blocks in a group
    #[arg(short = 'g', value_name = "BLOCKS")]
    pub(crate) blocks_per_group: Option<u32>,
    /// Volume name, up to 16 bytes
    #[arg(short = 'L', value_name = "NAME")]
    pub(crate) label: Option<String>,
    /// Directory where it was last mounted
    #[arg(short = 'M', value_name = "DIR")]
    pub(crate) last_mounted: Option<String>,
    /// UUID, or clear, random, time (of version 1), content (from the contents and options: what images with contents get)
    #[arg(short = 'U', value_name = "UUID")]
    pub(crate) uuid: Option<String>,
    /// Percentage of blocks that only root may take, 0 to 50, fractions allowed
    #[arg(short = 'm', value_name = "PERCENT")]
    pub(crate) reserved: Option<String>,
    /// Revision: 0 or 1
    #[arg(short = 'r', value_name = "REVISION")]
    pub(crate) revision: Option<u32>,
    /// What to do about damage: continue, remount-ro, panic
    #[arg(short = 'e', value_name = "WHAT")]
    pub(crate) on_error: Option<String>,
    /// Creator: linux, hurd, freebsd, or a number
    #[arg(short = 'o', value_name = "OS")]
    pub(crate) creator_os: Option<String>,
    /// Features, separated by commas; ^ before a name removes it, none removes all
    #[arg(short = 'O', value_name = "FEATURE", action = ArgAction::Append)]
    pub(crate) features: Vec<String>,
    /// Extended options: offset=, root_owner[=U:G], root_perms=, hash_seed=, num_backup_sb=, resize=, stride=,
    /// stripe_width=, revision=, test_fs, nodiscard, discard, assume_storage_prezeroed[=1], reproducible, align=2M|none,
    /// align_base=, no_copy_xattrs,
    /// root_selinux=LABEL, share_xattr_blocks
    #[arg(short = 'E', value_name = "KEY[=VALUE]", action = ArgAction::Append)]
    pub(crate) extended: Vec<String>,
    /// File system type: ext2
    #[arg(short = 't', value_name = "TYPE")]
    pub(crate) fs_type: Option<String>,
    /// Usage: small, floppy, default, big, huge, news, largefile, largefile4, hurd
    #[arg(short = 'T', value_name = "USAGE")]
    pub(crate) usage: Option<String>,
    /// Overwrite a known file system; twice: also one in use
    #[arg(short = 'F', action = ArgAction::Count)]
    pub(crate) force: u8,
    /// Write superblocks and group descriptors only, with the same options as when the file system was made: the last
    /// resort when all of them are lost. Run fsck right after
    #[arg(short = 'S', conflicts_with = "sources")]
    pub(crate) super_only: bool,
    /// Bad blocks, a number a line, in blocks of the file system: no file gets them
    #[arg(short = 'l', value_name = "FILE")]
    pub(crate) bad_blocks: Option<PathBuf>,
    /// Write what is overwritten into a new file, for e2undo(8) to bring back
    #[arg(short = 'z', value_name = "UNDO")]
    pub(crate) undo: Option<PathBuf>,
    /// Show the plan and change nothing
    #[arg(short = 'n')]
    pub(crate) dry_run: bool,
    /// Put the contents into the image that is there: no new file system is made, nothing else changes
    #[arg(long)]
    pub(crate) merge: bool,
    /// Progress: bar, none, or a file descriptor for lines PASS CURRENT MAXIMUM NAME
    #[arg(long, value_name = "bar|none|FD")]
    pub(crate) progress: Option<String>,
    /// Say nothing
    #[arg(short = 'q')]
    pub(crate) quiet: bool,
    /// Say more
    #[arg(short = 'v')]
    pub(crate) verbose: bool,
    /// Plan and result as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    /// Version
    #[arg(short = 'V', long = "version", action = ArgAction::Version)]
    version: (),
    #[command(flatten)]
    pub(crate) contents: super::contents::ContentsArgs,
    #[command(flatten)]
    pub(crate) refused: super::refused::Refused,
}

/// The size as given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Not at all.
    Nothing,
    /// `auto`.
    Smallest,
    /// In bytes.
    Bytes(u64),
}

/// What is asked for, in numbers.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) options: Options,
    pub(crate) size: Asked,
    pub(crate) offset: u64,
    pub(crate) explicit_block_size: bool,
    /// No clock and no random numbers.
    pub(crate) reproducible: bool,
    /// Times of files are lowered to this one.
    pub(crate) latest: Option<i64>,
    /// `-U random` was given.
    pub(crate) random_uuid: bool,
    /// The target holds zero bytes already.
    pub(crate) prezeroed: bool,
    /// Large files start on multiples of 2 MiB.
    pub(crate) align: bool,
    /// Where the image's first byte counts as being, if not at its offset.
    pub(crate) align_base: Option<u64>,
    /// Give back what the target's free blocks took.
    pub(crate) discard: bool,
    /// No extended attributes.
    pub(crate) no_attributes: bool,
    /// `num_backup_sb` was given.
    pub(crate) backups_given: bool,
    /// Options that ask for what holds anyway.
    pub(crate) notes: Vec<String>,
    /// What is as asked and may not be as meant.
    pub(crate) warnings: Vec<String>,
    /// Equal attributes share a block.
    pub(crate) share_attributes: bool,
    /// SELinux label of the root directory.
    pub(crate) root_label: Option<String>,
}

impl Args {
    pub(crate) fn request(&self) -> anyhow::Result<Request> {
        let mut options = Options::default();
        if let Some(path) = std::env::var_os("MKE2FS_CONFIG") {
            let usages = self.usage.iter().flat_map(|list| list.split(','));
            let usages: Vec<&str> = std::iter::once("ext2").chain(usages).collect();
            super::config::apply(path.as_ref(), &usages, &mut options)?;
        }
        self.usage_type(&mut options)?;
        self.shape(&mut options)?;
        self.names(&mut options)?;
        if let Some(path) = &self.bad_blocks {
            options.bad_blocks =
                bad_blocks(path).with_context(|| format!("-l {}", path.display()))?;
        }
        for list in &self.features {
            edit_features(&mut options.features, list)?;
        }
        let epoch = source_date_epoch()?;
        let mut request = Request {
            options,
            size: Asked::Nothing,
            offset: 0,
            explicit_block_size: self.block_size.is_some(),
            reproducible: epoch.is_some()
                || self.uuid.as_deref() == Some("content")
                || self.contents.given(),
            latest: epoch.map(i64::from),
            random_uuid: self.uuid.as_deref() == Some("random"),
            prezeroed: false,
            align: true,
            discard: true,
            align_base: None,
            no_attributes: false,
            backups_given: false,
            notes: Vec::new(),
            warnings: Vec::new(),
            root_label: None,
            share_attributes: false,
        };
        extended::apply(&self.extended, &mut request)?;
        request.check_alignment();
        self.check_together(&request)?;
        let unit = if self.block_size.is_some() {
            request.options.block_size
        } else {
            1024
        };
        request.size = match self.size.as_deref() {
            None => Asked::Nothing,
            Some("auto") => Asked::Smallest,
            Some(text) => Asked::Bytes(size::parse_size(text, unit)?),
        };
        self.settle_contents(&mut request)?;
        request.options.time = match epoch {
            Some(time) => time,
            None if request.reproducible => crate::FIXED_TIME,
            None => now()?,
        };
        Ok(request)
    }

    /// An image whose size is computed has no room to grow and none for root alone, unless asked.
    fn settle_contents(&self, request: &mut Request) -> anyhow::Result<()> {
        self.contents.check()?;
        if request.share_attributes && !self.contents.given() {
            bail!("-E share_xattr_blocks: needs contents, see -d");
        }
        if request.size == Asked::Smallest && !self.contents.given() {
            bail!("SIZE auto: needs contents, see -d");
        }
        Ok(())
    }

    /// What an image whose size is computed gets unless asked otherwise: no room to grow, nothing for root alone.
    pub(crate) fn settle_smallest(&self, options: &mut Options) {
        let asked = self
            .features
            .iter()
            .any(|list| list.contains("resize_inode"));
        if !asked && options.resize_to.is_none() {
            options.features.compat.remove(Compat::RESIZE_INODE);
        }
        if self.reserved.is_none() {
            options.reserved_share = 0;
        }
    }

    /// What shapes a file system has no place in one that is there.
    pub(crate) fn check_merge(&self) -> anyhow::Result<()> {
        if !self.contents.given() {
            bail!("--merge: needs contents, see -d");
        }
        let table = [
            (self.size.is_some(), "SIZE"),
            (self.block_size.is_some(), "-b"),
            (self.inode_size.is_some(), "-I"),
            (self.ratio.is_some(), "-i"),
            (self.inodes.is_some(), "-N"),
            (self.blocks_per_group.is_some(), "-g"),
            (self.label.is_some(), "-L"),
            (self.last_mounted.is_some(), "-M"),
            (self.uuid.is_some(), "-U"),
            (self.reserved.is_some(), "-m"),
            (self.revision.is_some(), "-r"),
            (self.on_error.is_some(), "-e"),
            (self.creator_os.is_some(), "-o"),
            (!self.features.is_empty(), "-O"),
            (self.usage.is_some(), "-T"),
            (self.super_only, "-S"),
            (self.bad_blocks.is_some(), "-l"),
            (self.contents.asks_for_space(), "--free"),
        ];
        if let Some((_, name)) = table.iter().find(|row| row.0) {
            bail!("{name}: shapes a new file system; --merge keeps the one that is there");
        }
        if self.undo.is_some() {
            bail!(
                "-z: a merge cannot be taken back; keep a copy of the image (cp --sparse=always --reflink=auto)"
            );
        }
        let keys = self.extended.iter().flat_map(|list| list.split(','));
        for word in keys.filter(|word| !word.is_empty()) {
            let key = word.split('=').next().unwrap_or(word);
            if !matches!(key, "offset" | "no_copy_xattrs") {
                bail!("-E {key}: shapes a new file system; --merge keeps the one that is there");
            }
        }
        Ok(())
    }

    /// No option is taken and then ignored.
    fn check_together(&self, request: &Request) -> anyhow::Result<()> {
        let options = &request.options;
        if options.revision == 0 {
            if !self.features.is_empty() {
                bail!("-O: features need revision 1");
            }
            if self.inode_size.is_some() && options.inode_size != 128 {
                bail!(
                    "-I {}: inodes of revision 0 have 128 bytes",
                    options.inode_size
                );
            }
            if options.resize_to.is_some() {
                bail!("-E resize: needs revision 1");
            }
        }
        let sparse2 =
            options.revision > 0 && options.features.compat.contains(Compat::SPARSE_SUPER2);
        if request.backups_given && !sparse2 {
            bail!("-E num_backup_sb: needs -O sparse_super2");
        }
        Ok(())
    }

    fn usage_type(&self, options: &mut Options) -> anyhow::Result<()> {
        match self.fs_type.as_deref() {
            None | Some("ext2") => {}
            Some(other @ ("ext3" | "ext4" | "ext4dev")) => {
                bail!("-t {other}: this makes ext2; use mke2fs -t {other}")
            }
            Some(other) => bail!("-t {other}: unknown type; this makes ext2"),
        }
        for word in self.usage.iter().flat_map(|list| list.split(',')) {
            match word {
                "default" | "ext2" => {}
                "small" => {
                    options.block_size = 1024;
                    options.inodes = Inodes::Ratio(4096);
                }
                "floppy" => {
                    options.block_size = 1024;
                    options.inodes = Inodes::Ratio(8192);
                }
                "big" => options.inodes = Inodes::Ratio(32_768),
                "huge" => options.inodes = Inodes::Ratio(65_536),
                "news" => options.inodes = Inodes::Ratio(4096),
                "largefile" => options.inodes = Inodes::Ratio(1 << 20),
                "largefile4" => options.inodes = Inodes::Ratio(1 << 22),
                "hurd" => {
                    options.block_size = 4096;
                    options.inode_size = 128;
                }
                other => bail!(
                    "-T {other}: unknown usage; one of small floppy default big huge news largefile largefile4 hurd"
                ),
            }
        }
        Ok(())
    }

    fn shape(&self, options: &mut Options) -> anyhow::Result<()> {
        if let Some(text) = &self.block_size {
            // -b -2048 means 2048 or more; the default is enough if it is.
            let (text, least) = text
                .strip_prefix('-')
                .map_or((text.as_str(), false), |text| (text, true));
            let bytes = size::parse_u32("-b", text)?;
            options.block_size = if least {
                bytes.max(options.block_size)
            } else {
                bytes
            };
        }
        if let Some(text) = &self.inode_size {
            options.inode_size = size::parse_u32("-I", text)?;
        } else {
            options.inode_size = options.inode_size.min(options.block_size);
        }
        if let Some(text) = &self.ratio {
            let ratio = size::parse_u32("-i", text)?;
            if !(1024..=67_108_864).contains(&ratio) {
                bail!("-i {text}: must be 1024 to 67108864");
            }
            options.inodes = Inodes::Ratio(ratio);
        }
        if let Some(count) = self.inodes {
            options.inodes = Inodes::Count(count);
        }
        options.blocks_per_group = self.blocks_per_group;
        if let Some(text) = &self.reserved {
            options.reserved_share = size::parse_percent("-m", text)?;
        }
        if let Some(revision) = self.revision {
            options.revision = revision;
        }
        Ok(())
    }

    fn names(&self, options: &mut Options) -> anyhow::Result<()> {
        if let Some(label) = &self.label {
            if label.len() > 16 {
                bail!("-L {label}: longer than 16 bytes");
            }
            options.label = label.clone().into_bytes();
        }
        if let Some(dir) = &self.last_mounted {
            options.last_mounted = dir.clone().into_bytes();
        }
        options.on_error = match self.on_error.as_deref() {
            None | Some("continue") => 1,
            Some("remount-ro") => 2,
            Some("panic") => 3,
            Some(other) => bail!("-e {other}: must be continue, remount-ro or panic"),
        };
        options.creator_os = match self.creator_os.as_deref() {
            None | Some("linux" | "Linux") => 0,
            Some("hurd" | "GNU" | "gnu") => 1,
            Some("freebsd" | "FreeBSD") => 3,
            Some(other) => other
                .parse()
                .with_context(|| format!("-o {other}: must be linux, hurd, freebsd or a number"))?,
        };
        options.uuid = match self.uuid.as_deref() {
            None | Some("random" | "content") => None,
            Some("clear" | "null") => Some([0; 16]),
            Some("time") => Some(time_uuid()),
            Some(text) => {
                let uuid = uuid::Uuid::try_parse(text).ok();
                Some(
                    *uuid
                        .with_context(|| format!("-U {text}: not a UUID"))?
                        .as_bytes(),
                )
            }
        };
        Ok(())
    }
}

impl Request {
    /// Where an image starts decides what of it can be mapped 2 MiB at a time.
    fn check_alignment(&mut self) {
        const HUGE: u64 = 2 << 20;
        let base = self.align_base.unwrap_or(self.offset);
        if self.align && !base.is_multiple_of(HUGE) {
            self.warnings.push(format!(
                "warning: the image starts at byte {base}, which is no multiple of 2 MiB: large files are aligned for its \
                 device, not for a copy of the image alone"
            ));
        }
    }
}

/// Version 1, from the clock. No network card is named: its place has random bits, marked as such (RFC 9562, 6.10).
fn time_uuid() -> [u8; 16] {
    /// Steps of 100 ns from the start of the Gregorian calendar to 1970.
    const EPOCH: u64 = 0x01b2_1dd2_1381_4000;
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    let ticks = u64::try_from(since.as_nanos() / 100).unwrap_or(0);
    let random = *uuid::Uuid::new_v4().as_bytes();
    let [.., a, b, c, d, e, f] = random;
    let counter = u16::from_le_bytes([random[0], random[1]]);
    let node = [a | 1, b, c, d, e, f];
    let ticks = ticks.wrapping_add(EPOCH);
    let builder = uuid::Builder::from_gregorian_timestamp(ticks, counter, &node);
    *builder.into_uuid().as_bytes()
}

/// Numbers of bad blocks as badblocks(8) writes them: in any order, some more than once.
fn bad_blocks(path: &Path) -> anyhow::Result<Vec<u32>> {
    let mut all = Vec::new();
    for (nr, line) in (1..).zip(std::fs::read_to_string(path)?.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let block = line.parse::<u32>();
        all.push(block.with_context(|| format!("line {nr}: not the number of a block"))?);
    }
    all.sort_unstable();
    all.dedup();
    Ok(all)
}

fn source_date_epoch() -> anyhow::Result<Option<u32>> {
    let Some(text) = std::env::var_os("SOURCE_DATE_EPOCH") else {
        return Ok(None);
    };
    let text = text.to_string_lossy();
    let seconds = text
        .trim()
        .parse::<u32>()
        .ok()
        .filter(|&seconds| i32::try_from(seconds).is_ok());
    let seconds = seconds
        .with_context(|| format!("SOURCE_DATE_EPOCH={text}: not a time from 1970 to 2038"))?;
    Ok(Some(seconds))
}

/// The clock, or what tests of e2fsprogs put in its place.
fn now() -> anyhow::Result<u32> {
    if let Some(text) = std::env::var_os("E2FSPROGS_FAKE_TIME") {
        let text = text.to_string_lossy();
        let seconds = text.trim().parse();
        return seconds.with_context(|| format!("E2FSPROGS_FAKE_TIME={text}: not a time"));
    }
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    // Past 2038 the superblock's extra bits would be needed; its 32 bits are unsigned until 2106.
    Ok(u32::try_from(since.as_secs()).unwrap_or(u32::MAX))
}
