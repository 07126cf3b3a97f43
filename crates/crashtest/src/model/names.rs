//! Operations on names: how files come, move and go.

use ext2dax::RenameFlags;

use super::errno::{EEXIST, EINVAL, EISDIR, ENOENT, ENOTDIR, ENOTEMPTY, EPERM};
use super::{Contents, File, FileId, Kind, Model, Outcome};

impl Model {
    /// Makes a file of any kind.
    ///
    /// # Errors
    /// As the system call for that kind.
    pub fn make(&mut self, path: &[Vec<u8>], kind: Kind, mode: u16, owner: (u32, u32)) -> Outcome {
        let (dir, name) = self.parent(path)?;
        if self.names(dir).contains_key(name) {
            return Err(EEXIST);
        }
        let file = self.born(dir, kind, mode, owner);
        let is_dir = matches!(file.kind, Kind::Dir(_));
        let id = self.add(file);
        self.names_mut(dir).insert(name.clone(), id);
        if is_dir {
            self.file_mut(dir).links += 1;
        }
        Ok(0)
    }

    /// Makes a regular file without a name, as if in the directory at `path`, and opens it in a slot.
    ///
    /// # Errors
    /// As `open` with `O_TMPFILE`.
    pub fn make_nameless(
        &mut self,
        slot: usize,
        path: &[Vec<u8>],
        mode: u16,
        owner: (u32, u32),
    ) -> Outcome {
        self.listing(path)?;
        let dir = self.resolve(path)?;
        let mut file = self.born(dir, Kind::File(Contents::default()), mode, owner);
        (file.links, file.handles, file.nameless) = (0, 1, true);
        let id = self.add(file);
        self.close(slot);
        self.open.insert(slot, id);
        Ok(0)
    }

    fn add(&mut self, file: File) -> FileId {
        let id = self.next;
        self.next += 1;
        self.files.insert(id, file);
        id
    }

    /// A new file as its directory makes it, before it has its name there.
    fn born(&self, dir: FileId, kind: Kind, mode: u16, owner: (u32, u32)) -> File {
        let is_dir = matches!(kind, Kind::Dir(_));
        let parent = &self.files[&dir];
        // A set-group-id directory hands its group down, and the bit itself to directories.
        let handed_down = parent.mode & 0o2000;
        let group = match handed_down {
            0 => owner.1,
            _ => parent.owner.1,
        };
        let mode = if is_dir { mode | handed_down } else { mode };
        // A list that is handed down takes from the mode what it does not grant.
        let default_acl = parent.default_acl;
        let mode = match default_acl {
            Some([user, group, others]) if !matches!(kind, Kind::Symlink(_)) => {
                mode & (0o7000 | user << 6 | group << 3 | others)
            }
            _ => mode,
        };
        File {
            kind,
            mode,
            owner: (owner.0, group),
            modified: None,
            accessed: None,
            links: if is_dir { 2 } else { 1 },
            handles: 0,
            nameless: false,
            default_acl: if is_dir { default_acl } else { None },
        }
    }

    pub(super) fn file_mut(&mut self, id: FileId) -> &mut File {
        self.files.get_mut(&id).expect("a file that was resolved")
    }

    fn drop_link(&mut self, id: FileId) {
        let file = self.file_mut(id);
        file.links -= 1;
        if file.links == 0 && file.handles == 0 {
            self.files.remove(&id);
        }
    }

    /// Removes a name that is no directory's.
    ///
    /// # Errors
    /// As `unlink`.
    pub fn unlink(&mut self, path: &[Vec<u8>]) -> Outcome {
        let (dir, name) = self.parent(path)?;
        let id = *self.names(dir).get(name).ok_or(ENOENT)?;
        if matches!(self.files[&id].kind, Kind::Dir(_)) {
            return Err(EISDIR);
        }
        self.names_mut(dir).remove(name);
        self.drop_link(id);
        Ok(0)
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// As `rmdir`.
    pub fn rmdir(&mut self, path: &[Vec<u8>]) -> Outcome {
        let (dir, name) = self.parent(path)?;
        let id = *self.names(dir).get(name).ok_or(ENOENT)?;
        match &self.files[&id].kind {
            Kind::Dir(names) if names.is_empty() => {}
            Kind::Dir(_) => return Err(ENOTEMPTY),
            _ => return Err(ENOTDIR),
        }
        self.names_mut(dir).remove(name);
        self.files.remove(&id);
        self.file_mut(dir).links -= 1;
        Ok(0)
    }

    /// Gives a file another name.
    ///
    /// # Errors
    /// As `link`.
    pub fn link(&mut self, from: &[Vec<u8>], to: &[Vec<u8>]) -> Outcome {
        let id = self.resolve(from)?;
        let (dir, name) = self.parent(to)?;
        if self.names(dir).contains_key(name) {
            return Err(EEXIST);
        }
        if matches!(self.files[&id].kind, Kind::Dir(_)) {
            return Err(EPERM);
        }
        self.names_mut(dir).insert(name.clone(), id);
        self.file_mut(id).links += 1;
        Ok(0)
    }

    /// Gives the file that is open in a slot another name, its first one perhaps.
    ///
    /// # Errors
    /// As `linkat` of a file without a name: `ENOENT` where the last one has gone.
    pub fn link_open(&mut self, slot: usize, to: &[Vec<u8>]) -> Outcome {
        let Some(&id) = self.open.get(&slot) else {
            return Ok(0);
        };
        let (dir, name) = self.parent(to)?;
        if self.names(dir).contains_key(name) {
            return Err(EEXIST);
        }
        let file = self.file_mut(id);
        if file.links == 0 && !file.nameless {
            return Err(ENOENT);
        }
        file.links += 1;
        file.nameless = false;
        self.names_mut(dir).insert(name.clone(), id);
        Ok(0)
    }

    /// Moves a name.
    ///
    /// # Errors
    /// As `rename`.
    pub fn rename(&mut self, from: &[Vec<u8>], to: &[Vec<u8>]) -> Outcome {
        let (from_dir, from_name, to_dir, to_name, id) = self.ends(from, to)?;
        if to.len() > from.len() && to.starts_with(from) {
            return Err(EINVAL);
        }
        if from.len() > to.len() && from.starts_with(to) {
            return Err(ENOTEMPTY);
        }
        let is_dir = matches!(self.files[&id].kind, Kind::Dir(_));
        let target = self.names(to_dir).get(to_name).copied();
        if target == Some(id) {
            return Ok(0);
        }
        if let Some(target) = target {
            match &self.files[&target].kind {
                Kind::Dir(_) if !is_dir => return Err(EISDIR),
                Kind::Dir(names) if !names.is_empty() => return Err(ENOTEMPTY),
                Kind::Dir(_) => {
                    self.files.remove(&target);
                    self.file_mut(to_dir).links -= 1;
                }
                _ if is_dir => return Err(ENOTDIR),
                _ => self.drop_link(target),
            }
        }
        self.names_mut(from_dir).remove(from_name);
        self.names_mut(to_dir).insert(to_name.clone(), id);
        if from_dir != to_dir {
            self.moved(id, from_dir, to_dir);
        }
        Ok(0)
    }

    /// Moves a name as `how` says.
    ///
    /// # Errors
    /// As `renameat2`.
    pub fn rename_with(&mut self, from: &[Vec<u8>], to: &[Vec<u8>], how: RenameFlags) -> Outcome {
        if how == RenameFlags::Replace {
            return self.rename(from, to);
        }
        let (from_dir, from_name, to_dir, to_name, id) = self.ends(from, to)?;
        let target = self.names(to_dir).get(to_name).copied();
        if how == RenameFlags::NoReplace {
            return match target {
                Some(_) => Err(EEXIST),
                None => self.rename(from, to),
            };
        }
        let target = target.ok_or(ENOENT)?;
        if (to.len() > from.len() && to.starts_with(from))
            || (from.len() > to.len() && from.starts_with(to))
        {
            return Err(EINVAL);
        }
        if target == id {
            return Ok(0);
        }
        self.names_mut(from_dir).insert(from_name.clone(), target);
        self.names_mut(to_dir).insert(to_name.clone(), id);
        if from_dir != to_dir {
            self.moved(id, from_dir, to_dir);
            self.moved(target, to_dir, from_dir);
        }
        Ok(0)
    }

    /// A file has moved to another directory: if it is one itself, the links of both parents and its `..` change.
    fn moved(&mut self, id: FileId, from_dir: FileId, to_dir: FileId) {
        if matches!(self.files[&id].kind, Kind::Dir(_)) {
            self.file_mut(from_dir).links -= 1;
            self.file_mut(to_dir).links += 1;
            // The entry `..` changes, and with it what some drivers call the contents.
            self.file_mut(id).modified = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::Path;
    use super::*;

    #[test]
    fn a_directory_cannot_move_below_itself() {
        let mut model = Model::new();
        let path = |text: &str| {
            text.split('/')
                .map(|name| name.as_bytes().to_vec())
                .collect::<Path>()
        };
        let dir = || Kind::Dir(BTreeMap::new());
        model.make(&path("a"), dir(), 0o755, (0, 0)).unwrap();
        model.make(&path("a/b"), dir(), 0o755, (0, 0)).unwrap();
        assert_eq!(model.rename(&path("a"), &path("a/b/c")), Err(EINVAL));
        assert_eq!(model.rename(&path("a/b"), &path("a")), Err(ENOTEMPTY));
    }
}
