//! Rules for what a source becomes: owners, modes, attributes, names that are left out.

use ext2dax_format::xattr::NameIndex;

use crate::attributes::acl;
use crate::source::Why;
use crate::tree::Node;

mod glob;

pub use glob::Glob;

/// A range of owner numbers and what it becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdMap {
    /// The first number in the source.
    pub from: u32,
    /// What it becomes.
    pub to: u32,
    /// How many follow each other.
    pub count: u32,
}

/// What becomes of owners.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Owners {
    /// As found.
    #[default]
    Keep,
    /// Everything belongs to this user and group.
    All(u32, u32),
    /// By maps; what they do not mention belongs to `rest`, and is an error without it.
    Map {
        /// Users.
        users: Vec<IdMap>,
        /// Groups.
        groups: Vec<IdMap>,
        /// User and group for the others.
        rest: Option<(u32, u32)>,
    },
}

/// Which extended attributes are taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Attributes {
    /// All that ext2 can store; of a directory, not those that belong to the host.
    #[default]
    All,
    /// None.
    None,
    /// Those whose full name matches.
    Matching(Glob),
}

/// A change of what a path matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathRule {
    /// Which paths.
    pub glob: Glob,
    /// Permission bits, for everything but symbolic links.
    pub mode: Option<u16>,
    /// User and group.
    pub owner: Option<(u32, u32)>,
}

/// What a source becomes in the image. The default takes everything as it is.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Directory in the image below which the source goes.
    pub below: Vec<u8>,
    /// Paths that are left out, with all below them.
    pub exclude: Vec<Glob>,
    /// Owners.
    pub owners: Owners,
    /// Extended attributes.
    pub attributes: Attributes,
    /// Later rules win. They see paths of the image, without a leading `/`.
    pub paths: Vec<PathRule>,
    /// Whether names `.wh.*` of a later source remove what earlier ones brought, as in OCI image layers.
    pub whiteouts: bool,
}

impl Rules {
    pub(crate) fn prefix(&self) -> &[u8] {
        &self.below
    }

    /// Whether a name in a directory of the source is left out.
    pub(crate) fn excludes(&self, directory: &[u8], name: &[u8]) -> bool {
        if self.exclude.is_empty() {
            return false;
        }
        let path = crate::source::directory::join(directory, name);
        self.excludes_path(&path)
    }

    /// Whether a path, or a directory on the way to it, is left out.
    pub(crate) fn excludes_path(&self, path: &[u8]) -> bool {
        let ends = path
            .iter()
            .enumerate()
            .filter(|(_, byte)| **byte == b'/')
            .map(|(at, _)| at)
            .chain([path.len()]);
        let mut on_the_way = ends.map(|end| &path[..end]);
        !self.exclude.is_empty()
            && on_the_way.any(|path| self.exclude.iter().any(|glob| glob.matches(path)))
    }

    pub(crate) fn wants_attributes(&self) -> bool {
        self.attributes != Attributes::None
    }

    pub(crate) fn wants_attribute(&self, name: &[u8]) -> bool {
        match &self.attributes {
            Attributes::All => true,
            Attributes::None => false,
            Attributes::Matching(glob) => glob.matches_text(name),
        }
    }

    /// Whether nodes stay as they are found.
    pub(crate) fn keeps_everything(&self) -> bool {
        self.owners == Owners::Keep && self.paths.is_empty()
    }

    /// Gives a new node the owner and mode that the rules say.
    pub(crate) fn apply(&self, path: &[u8], node: &mut Node) -> Result<(), Why> {
        node.meta.uid = self.user(node.meta.uid)?;
        node.meta.gid = self.group(node.meta.gid)?;
        for attribute in &mut node.attributes {
            if matches!(
                attribute.index,
                NameIndex::AclAccess | NameIndex::AclDefault
            ) {
                acl::map_ids(
                    &mut attribute.value,
                    |id| self.user(id),
                    |id| self.group(id),
                )?;
            }
        }
        for rule in self.paths.iter().filter(|rule| rule.glob.matches(path)) {
            if let Some((uid, gid)) = rule.owner {
                (node.meta.uid, node.meta.gid) = (uid, gid);
            }
            if let Some(mode) = rule.mode
                && node.body.kind() != ext2dax_format::FileType::Symlink
            {
                node.meta.mode = mode;
            }
        }
        Ok(())
    }

    fn user(&self, id: u32) -> Result<u32, Why> {
        match &self.owners {
            Owners::Keep => Ok(id),
            Owners::All(uid, _) => Ok(*uid),
            Owners::Map { users, rest, .. } => {
                map(users, id, rest.map(|rest| rest.0)).ok_or(Why::Unmapped("uid", id))
            }
        }
    }

    fn group(&self, id: u32) -> Result<u32, Why> {
        match &self.owners {
            Owners::Keep => Ok(id),
            Owners::All(_, gid) => Ok(*gid),
            Owners::Map { groups, rest, .. } => {
                map(groups, id, rest.map(|rest| rest.1)).ok_or(Why::Unmapped("gid", id))
            }
        }
    }
}

/// Without a map of its kind, a number stays; with one, what it does not mention is `rest`.
fn map(maps: &[IdMap], id: u32, rest: Option<u32>) -> Option<u32> {
    if maps.is_empty() && rest.is_none() {
        return Some(id);
    }
    let found = maps
        .iter()
        .find(|map| id >= map.from && id - map.from < map.count);
    match found {
        Some(map) => map.to.checked_add(id - map.from),
        None => rest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_shift_ranges_and_name_what_they_miss() {
        let rules = Rules {
            owners: Owners::Map {
                users: vec![
                    IdMap {
                        from: 1000,
                        to: 0,
                        count: 1,
                    },
                    IdMap {
                        from: 100_000,
                        to: 1,
                        count: 65_535,
                    },
                ],
                groups: Vec::new(),
                rest: None,
            },
            ..Rules::default()
        };
        assert_eq!(rules.user(1000).unwrap(), 0);
        assert_eq!(rules.user(100_000).unwrap(), 1);
        assert_eq!(rules.user(165_534).unwrap(), 65_535);
        assert!(matches!(
            rules.user(165_535),
            Err(Why::Unmapped("uid", 165_535))
        ));
        assert_eq!(rules.group(7).unwrap(), 7, "no map of groups");
    }

    #[test]
    fn what_is_below_an_excluded_directory_is_left_out_too() {
        let rules = Rules {
            exclude: vec![Glob::new("*.o"), Glob::new("/build"), Glob::new("a/*/c")],
            ..Rules::default()
        };
        for path in [
            "x.o", "d/x.o", "build", "build/x", "a/b/c", "a/b/c/d", "x.o/y",
        ] {
            assert!(rules.excludes_path(path.as_bytes()), "{path}");
        }
        for path in ["x.oo", "d/build", "a/c", "a/b/b/c", "z/a/b/c"] {
            assert!(!rules.excludes_path(path.as_bytes()), "{path}");
        }
        assert!(rules.excludes(b"a/b", b"c"));
    }
}
