//! Options about contents: where they come from and what becomes of them.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::{ArgAction, Args as ClapArgs};

use super::args::{Asked, Request};
use super::size;
use crate::{
    Align, Attributes, Filling, Free, Glob, Holes, IdMap, Owners, PathRule, Rules, Size, Tree,
};

/// Contents of the image.
#[derive(ClapArgs, Debug)]
#[command(next_help_heading = "Contents")]
pub(crate) struct ContentsArgs {
    /// Fill the image from a directory or a tar archive, plain, gzip, zstd or xz; - is an archive from the standard input.
    /// Several add up, later ones replace what earlier ones brought
    #[arg(short = 'd', value_name = "DIR|TAR|-", action = ArgAction::Append)]
    sources: Vec<OsString>,
    /// Directory in the image below which the contents go
    #[arg(long, value_name = "/PATH")]
    prefix: Option<String>,
    /// Table of device nodes, owners and modes, as genext2fs and Buildroot have it
    #[arg(long, value_name = "FILE", action = ArgAction::Append)]
    devtable: Vec<PathBuf>,
    /// Leave out what matches, and all below it; a pattern with a / is for whole paths
    #[arg(long, value_name = "GLOB", action = ArgAction::Append)]
    exclude: Vec<String>,
    /// Free space in the finished image: a share, as 10%, or a size
    #[arg(long, value_name = "SIZE")]
    free: Option<String>,
    /// Free inodes in the finished image; without it one for 16 KiB of the space that --free asks for
    #[arg(long, value_name = "COUNT")]
    free_inodes: Option<u32>,
    /// Everything belongs to this user and group
    #[arg(long, visible_alias = "squash", value_name = "UID:GID", conflicts_with_all = ["uid_map", "gid_map", "owner_map", "map_rest"])]
    owner: Option<String>,
    /// Users FROM and the next COUNT-1 become TO and so on; repeatable
    #[arg(long, value_name = "FROM:TO:COUNT", action = ArgAction::Append)]
    uid_map: Vec<String>,
    /// As --uid-map, for users and groups alike
    #[arg(long, value_name = "FROM:TO:COUNT", action = ArgAction::Append)]
    owner_map: Vec<String>,
    /// As --uid-map, for groups
    #[arg(long, value_name = "FROM:TO:COUNT", action = ArgAction::Append)]
    gid_map: Vec<String>,
    /// User and group for those that the maps do not mention; without it they are an error
    #[arg(long, value_name = "UID:GID")]
    map_rest: Option<String>,
    /// Permissions for what matches, in octal; repeatable, later ones win
    #[arg(long, value_name = "GLOB=MODE", action = ArgAction::Append)]
    chmod: Vec<String>,
    /// Owner for what matches; repeatable, later ones win
    #[arg(long, value_name = "GLOB=UID:GID", action = ArgAction::Append)]
    chown: Vec<String>,
    /// Extended attributes: all, none, or those whose full name matches
    #[arg(long, value_name = "all|none|GLOB")]
    xattrs: Option<String>,
    /// What becomes a hole: blocks of zeroes, what is a hole in the source (keep), or nothing (fill)
    #[arg(long, value_name = "zeroes|keep|fill")]
    holes: Option<String>,
    /// Sources are OCI layers: names .wh.* remove what earlier ones brought
    #[arg(long)]
    whiteouts: bool,
    /// Threads that read and copy
    #[arg(long, value_name = "COUNT")]
    threads: Option<usize>,
}

impl ContentsArgs {
    /// Whether there are any.
    pub(crate) fn given(&self) -> bool {
        !self.sources.is_empty() || !self.devtable.is_empty()
    }

    /// No option is taken and then ignored.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        if self.given() {
            return Ok(());
        }
        let table = [
            (self.prefix.is_some(), "--prefix"),
            (!self.exclude.is_empty(), "--exclude"),
            (self.free.is_some(), "--free"),
            (self.free_inodes.is_some(), "--free-inodes"),
            (self.owner.is_some(), "--owner"),
            (!self.uid_map.is_empty(), "--uid-map"),
            (!self.gid_map.is_empty(), "--gid-map"),
            (!self.owner_map.is_empty(), "--owner-map"),
            (self.map_rest.is_some(), "--map-rest"),
            (!self.chmod.is_empty(), "--chmod"),
            (!self.chown.is_empty(), "--chown"),
            (self.xattrs.is_some(), "--xattrs"),
            (self.holes.is_some(), "--holes"),
            (self.whiteouts, "--whiteouts"),
        ];
        match table.iter().find(|row| row.0) {
            Some((_, name)) => bail!("{name}: needs contents, see -d"),
            None => Ok(()),
        }
    }

    /// Whether the sources are there for a second look.
    pub(crate) fn can_be_read_again(&self) -> bool {
        let mut sources = self.sources.iter().map(Path::new);
        sources.all(|path| path.is_dir() || path.is_file())
    }

    pub(crate) fn threads(&self) -> usize {
        let all = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        self.threads.unwrap_or_else(all).clamp(1, 64)
    }

    pub(crate) fn holes(&self) -> anyhow::Result<Holes> {
        match self.holes.as_deref() {
            None | Some("zeroes") => Ok(Holes::Zeroes),
            Some("keep") => Ok(Holes::Keep),
            Some("fill") => Ok(Holes::Fill),
            Some(other) => bail!("--holes {other}: must be zeroes, keep or fill"),
        }
    }

    /// Whether the size of a new image is to follow from this.
    pub(crate) fn asks_for_space(&self) -> bool {
        self.free.is_some() || self.free_inodes.is_some()
    }

    fn rules(&self, request: &Request) -> anyhow::Result<Rules> {
        let mut paths = Vec::new();
        for text in &self.chmod {
            let (glob, mode) = pair("--chmod", text)?;
            let mode = u16::from_str_radix(mode, 8)
                .ok()
                .filter(|&mode| mode <= 0o7777);
            paths.push(PathRule {
                glob: Glob::new(glob),
                mode: Some(mode.with_context(|| format!("--chmod {text}: not an octal mode"))?),
                owner: None,
            });
        }
        for text in &self.chown {
            let (glob, owner) = pair("--chown", text)?;
            paths.push(PathRule {
                glob: Glob::new(glob),
                mode: None,
                owner: Some(ids("--chown", owner)?),
            });
        }
        let attributes = match self.xattrs.as_deref() {
            _ if request.no_attributes => Attributes::None,
            None | Some("all") => Attributes::All,
            Some("none") => Attributes::None,
            Some(glob) => Attributes::Matching(Glob::new(glob)),
        };
        let below = self.prefix.as_deref().unwrap_or("").trim_matches('/');
        if below.split('/').any(|name| name == "." || name == "..") {
            bail!("--prefix {below}: must not contain . or ..");
        }
        Ok(Rules {
            below: below.as_bytes().to_vec(),
            exclude: self.exclude.iter().map(Glob::new).collect(),
            owners: self.owners()?,
            attributes,
            paths,
            whiteouts: self.whiteouts,
        })
    }

    fn owners(&self) -> anyhow::Result<Owners> {
        if let Some(text) = &self.owner {
            let (uid, gid) = ids("--owner", text)?;
            return Ok(Owners::All(uid, gid));
        }
        let maps = |name: &str, texts: &[String]| -> anyhow::Result<Vec<IdMap>> {
            let own = texts.iter().map(|text| id_map(name, text));
            let both = self.owner_map.iter();
            let both = both.map(|text| id_map("--owner-map", text));
            own.chain(both).collect()
        };
        let users = maps("--uid-map", &self.uid_map)?;
        let groups = maps("--gid-map", &self.gid_map)?;
        let rest = self.map_rest.as_deref();
        let rest = rest.map(|text| ids("--map-rest", text)).transpose()?;
        if users.is_empty() && groups.is_empty() && rest.is_none() {
            return Ok(Owners::Keep);
        }
        Ok(Owners::Map {
            users,
            groups,
            rest,
        })
    }

    /// Reads all sources.
    pub(crate) fn tree(&self, request: &Request, image: &Path) -> anyhow::Result<Tree> {
        self.tree_over(Tree::new(), request, image)
    }

    /// Reads all sources into a tree.
    pub(crate) fn tree_over(
        &self,
        mut tree: Tree,
        request: &Request,
        image: &Path,
    ) -> anyhow::Result<Tree> {
        let rules = self.rules(request)?;
        for source in &self.sources {
            let path = Path::new(source);
            if source.as_bytes().is_empty() {
                bail!("-d: an empty name");
            }
            if path.is_dir() {
                tree.add_directory(path, &rules, self.threads())?;
            } else {
                tree.add_tar(path, &rules, image.parent().unwrap_or(Path::new(".")))?;
            }
        }
        for table in &self.devtable {
            tree.add_device_table(table)?;
        }
        Ok(tree)
    }

    /// What to do with them; `room` is the size of an existing target.
    pub(crate) fn filling(
        &self,
        request: &Request,
        room: Option<u64>,
        hopeful: bool,
    ) -> anyhow::Result<Filling> {
        let size = match (request.size, room) {
            (Asked::Bytes(bytes), _) => Size::Bytes(bytes),
            (Asked::Nothing, Some(room)) => Size::Bytes(room),
            (Asked::Smallest | Asked::Nothing, _) => Size::Smallest,
        };
        let free = match self.free.as_deref() {
            None => Free::Any,
            Some(text) => match text.strip_suffix('%') {
                Some(share) => Free::Share(size::parse_share("--free", share, 95)?),
                None => Free::Bytes(size::parse_size(text, 1024)?),
            },
        };
        let base = request.align_base.unwrap_or(request.offset);
        Ok(Filling {
            options: request.options.clone(),
            size,
            free,
            free_inodes: self.free_inodes,
            align: if request.align {
                Align::Huge { base }
            } else {
                Align::None
            },
            holes: self.holes()?,
            latest: request.latest,
            share_attributes: request.share_attributes,
            hopeful,
            threads: self.threads(),
        })
    }
}

fn pair<'a>(option: &str, text: &'a str) -> anyhow::Result<(&'a str, &'a str)> {
    text.rsplit_once('=')
        .with_context(|| format!("{option} {text}: must be GLOB=VALUE"))
}

fn ids(option: &str, text: &str) -> anyhow::Result<(u32, u32)> {
    let numbers = text
        .split_once(':')
        .and_then(|(uid, gid)| Some((uid.parse().ok()?, gid.parse().ok()?)));
    numbers.with_context(|| format!("{option} {text}: must be UID:GID, in numbers"))
}

fn id_map(option: &str, text: &str) -> anyhow::Result<IdMap> {
    let mut numbers = text.split(':').map(|word| word.parse::<u32>().ok());
    let mut next = || numbers.next().flatten();
    let map = next().zip(next()).zip(next());
    let map = map.filter(|_| text.split(':').count() == 3);
    let ((from, to), count) =
        map.with_context(|| format!("{option} {text}: must be FROM:TO:COUNT, in numbers"))?;
    let fits = |first: u32| count > 0 && first.checked_add(count - 1).is_some();
    if !fits(from) || !fits(to) {
        bail!("{option} {text}: the count must be at least 1, and numbers end at 4294967295");
    }
    Ok(IdMap { from, to, count })
}
