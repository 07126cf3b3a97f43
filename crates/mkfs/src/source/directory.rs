//! A directory of the host as a source.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::Metadata;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use ext2dax_format::device::Device;
use ext2dax_format::{FileType, Timestamp};

use super::{Contents, SourceError, Why};
use crate::attributes;
use crate::parallel;
use crate::rules::Rules;
use crate::tree::{Attribute, Body, Meta, Node, NodeId, Tree};

/// A name found in a directory.
struct Found {
    name: Box<[u8]>,
    meta: Metadata,
    body: Body,
    attributes: Vec<Attribute>,
}

impl Found {
    fn is_whiteout(&self) -> bool {
        self.name.starts_with(super::WHITEOUT)
    }
}

/// A directory that is still to be read: its path on the host, its path inside, its node.
struct Pending {
    path: PathBuf,
    inside: Vec<u8>,
    id: NodeId,
}

impl Tree {
    /// Adds everything below a directory of the host; names that are there already are replaced, directories merged.
    ///
    /// The root keeps mode, owner and time that it has, and takes the directory's attributes. Directories are read by up
    /// to `threads` threads; the result does not depend on their number.
    ///
    /// # Errors
    /// The first file that cannot be read, or that ext2 cannot hold.
    pub fn add_directory(
        &mut self,
        path: impl AsRef<Path>,
        rules: &Rules,
        threads: usize,
    ) -> Result<(), SourceError> {
        let path = path.as_ref();
        let top = self.top(rules)?;
        let meta = std::fs::metadata(path).map_err(|error| SourceError::io(path, error))?;
        if !meta.is_dir() {
            return Err(SourceError::new(
                path.as_os_str().as_bytes(),
                Why::NotADirectory,
            ));
        }
        for attribute in read_attributes(path, rules)? {
            self.set_attribute(top, attribute);
        }
        let mut links = HashMap::new();
        let mut pending = vec![Pending {
            path: path.to_owned(),
            inside: rules.prefix().to_vec(),
            id: top,
        }];
        // One level after the other: all directories of a level are read at once.
        while !pending.is_empty() {
            let found = parallel::try_map(pending.len(), threads, |nr| {
                read(&pending[nr].path, &pending[nr].inside, rules)
            })?;
            let mut next = Vec::new();
            for (directory, found) in pending.iter().zip(found) {
                if rules.whiteouts {
                    for mark in found.iter().filter(|file| file.is_whiteout()) {
                        self.white_out_name(&directory.inside, &mark.name);
                    }
                }
                let marks = rules.whiteouts;
                for file in found {
                    if marks && file.is_whiteout() {
                        continue;
                    }
                    self.take(directory, file, rules, &mut links, &mut next)?;
                }
            }
            pending = next;
        }
        Ok(())
    }

    /// The node below which a source goes: the root, or the directory that `--prefix` names.
    pub(crate) fn top(&mut self, rules: &Rules) -> Result<NodeId, SourceError> {
        if rules.prefix().is_empty() {
            return Ok(NodeId::ROOT);
        }
        match self.find(rules.prefix()) {
            Some(id) if matches!(self.node(id).body, Body::Directory(_)) => Ok(id),
            _ => {
                let body = Body::Directory(Default::default());
                let id = self.put(rules.prefix(), Meta::new(0o755), body)?;
                self.imply(id);
                Ok(id)
            }
        }
    }

    fn take(
        &mut self,
        directory: &Pending,
        found: Found,
        rules: &Rules,
        links: &mut HashMap<(u64, u64), NodeId>,
        next: &mut Vec<Pending>,
    ) -> Result<(), SourceError> {
        let Found {
            name,
            meta,
            body,
            attributes,
        } = found;
        let key = (meta.dev(), meta.ino());
        if meta.nlink() > 1
            && !meta.is_dir()
            && let Some(&id) = links.get(&key)
        {
            self.insert(directory.id, name, id);
            return Ok(());
        }
        let inside = join(&directory.inside, &name);
        let path = directory.path.join(OsStr::from_bytes(&name));
        let mut node = Node {
            meta: Meta {
                mode: u16::try_from(meta.mode() & 0o7777).expect("12 bits"),
                uid: meta.uid(),
                gid: meta.gid(),
                time: Some(time(&meta)),
            },
            body,
            attributes,
        };
        rules
            .apply(&inside, &mut node)
            .map_err(attributes::blame(path.as_os_str().as_bytes()))?;
        let is_directory = meta.is_dir();
        let old = self
            .names_of(directory.id)
            .and_then(|names| names.get(&name).copied());
        let id = match old {
            Some(id) if is_directory && matches!(self.node(id).body, Body::Directory(_)) => {
                self.give_directory(id, node.meta, node.attributes);
                id
            }
            _ => {
                let id = self.push(node);
                self.insert(directory.id, name, id);
                id
            }
        };
        if is_directory {
            next.push(Pending { path, inside, id });
        } else if meta.nlink() > 1 {
            links.insert(key, id);
        }
        Ok(())
    }
}

pub(crate) fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(directory.len() + 1 + name.len());
    path.extend_from_slice(directory);
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

fn time(meta: &Metadata) -> Timestamp {
    Timestamp {
        secs: meta.mtime(),
        nanos: u32::try_from(meta.mtime_nsec()).unwrap_or(0),
    }
}

/// Everything in one directory, in the order of names.
fn read(path: &Path, inside: &[u8], rules: &Rules) -> Result<Vec<Found>, SourceError> {
    let entries = std::fs::read_dir(path).map_err(|error| SourceError::io(path, error))?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| SourceError::io(path, error))?;
        names.push(entry.file_name());
    }
    names.sort_unstable_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
    let mut all = Vec::with_capacity(names.len());
    let mut full = path.as_os_str().to_owned().into_vec();
    full.push(b'/');
    let stem = full.len();
    for name in names {
        if rules.excludes(inside, name.as_bytes()) {
            continue;
        }
        full.truncate(stem);
        full.extend_from_slice(name.as_bytes());
        all.push(look(Path::new(OsStr::from_bytes(&full)), name, rules)?);
    }
    Ok(all)
}

fn look(path: &Path, name: OsString, rules: &Rules) -> Result<Found, SourceError> {
    let error = |error| SourceError::io(path, error);
    let meta = std::fs::symlink_metadata(path).map_err(error)?;
    let kind = meta.file_type();
    let body = if kind.is_dir() {
        Body::Directory(Default::default())
    } else if kind.is_file() {
        Body::Regular(Contents::of_metadata(path.to_owned(), &meta))
    } else if kind.is_symlink() {
        let target = std::fs::read_link(path).map_err(error)?;
        Body::Symlink(target.into_os_string().into_vec().into())
    } else if kind.is_fifo() {
        Body::Fifo
    } else if kind.is_socket() {
        Body::Socket
    } else {
        let device = Device {
            major: rustix::fs::major(meta.rdev()),
            minor: rustix::fs::minor(meta.rdev()),
        };
        if device.encode().is_none() {
            let why = Why::DeviceNumber(device);
            return Err(SourceError::new(path.as_os_str().as_bytes(), why));
        }
        let kind = if kind.is_char_device() {
            FileType::CharDevice
        } else {
            FileType::BlockDevice
        };
        Body::Device(kind, device)
    };
    Ok(Found {
        name: name.into_vec().into(),
        attributes: read_attributes(path, rules)?,
        meta,
        body,
    })
}

fn read_attributes(path: &Path, rules: &Rules) -> Result<Vec<Attribute>, SourceError> {
    use rustix::io::Errno;
    if !rules.wants_attributes() {
        return Ok(Vec::new());
    }
    let error = |error: Errno| SourceError::io(path, error.into());
    let mut few = [0_u8; 256];
    let mut many = Vec::new();
    let list = match rustix::fs::llistxattr(path, &mut few[..]) {
        Ok(len) => &few[..len],
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(Errno::RANGE) => {
            many.resize(64 << 10, 0);
            let len = rustix::fs::llistxattr(path, &mut many[..]).map_err(error)?;
            &many[..len]
        }
        Err(errno) => return Err(error(errno)),
    };
    let mut all = Vec::new();
    for name in list
        .split(|&byte| byte == 0)
        .filter(|name| !name.is_empty())
    {
        if attributes::belongs_to_host(name) || !rules.wants_attribute(name) {
            continue;
        }
        let mut value = vec![0; 64 << 10];
        match rustix::fs::lgetxattr(path, name, &mut value[..]) {
            Ok(len) => value.truncate(len),
            // Gone meanwhile, or one that a file system lists and does not give.
            Err(Errno::NODATA | Errno::OPNOTSUPP) => continue,
            Err(errno) => return Err(error(errno)),
        }
        let attribute = attributes::from_linux(name, &value)
            .map_err(attributes::blame(path.as_os_str().as_bytes()))?;
        all.push(attribute);
    }
    all.sort_unstable_by(|a, b| a.order().cmp(&b.order()));
    Ok(all)
}
