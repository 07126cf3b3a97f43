//! Tables of device nodes, owners and modes: the format of genext2fs and, with its `r` and `|xattr` lines, of Buildroot.

use std::path::Path;

use ext2dax_format::device::Device;
use ext2dax_format::{FileType, LINK_MAX};

use super::{SourceError, Why};
use crate::merge::late::{Late, What};
use crate::tree::{Body, Meta, NodeId, Tree};

/// The columns of a line.
struct Line<'a> {
    path: &'a str,
    kind: &'a str,
    mode: Option<u16>,
    uid: u32,
    gid: u32,
    device: Device,
    /// Number of the first node of a range, step of minor numbers, length of the range: 0 is no range.
    range: (u32, u32, u32),
}

impl Tree {
    /// Adds what a table says: `NAME TYPE MODE UID GID MAJOR MINOR START STEP COUNT`, `-` for nothing. Types: `d` a
    /// directory, made if it is missing; `f` a file that is there; `r` a directory that is there with all below it; `c`,
    /// `b`, `p` nodes, COUNT of them with numbers from START on behind the name. `|xattr NAME=VALUE` gives an attribute
    /// to the path of the line before.
    ///
    /// # Errors
    /// The line that cannot be read or carried out.
    pub fn add_device_table(&mut self, path: impl AsRef<Path>) -> Result<(), SourceError> {
        let file = path.as_ref();
        let path = file;
        let text = std::fs::read_to_string(path).map_err(|error| SourceError::io(path, error))?;
        let mut last: Option<&str> = None;
        for (nr, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |what| {
                let path = path.as_os_str().as_encoded_bytes();
                SourceError::new(path, Why::Line(nr, what))
            };
            if let Some(attribute) = line.strip_prefix("|xattr") {
                let pair = attribute.trim().split_once('=');
                let (name, value) = pair.ok_or_else(|| wrong("an attribute is NAME=VALUE"))?;
                let path = last.ok_or_else(|| wrong("an attribute of no file"))?;
                if self.is_overlay() {
                    let attribute =
                        crate::attributes::from_linux(name.as_bytes(), value.as_bytes())
                            .map_err(|why| SourceError::new(path.as_bytes(), why))?;
                    let what = What::Attribute(attribute);
                    self.add_late(late_of(file, nr, path, what, None, (0, 0)));
                } else {
                    self.attribute(path, name.as_bytes(), value.as_bytes())?;
                }
                continue;
            }
            let line = Line::new(line).map_err(wrong)?;
            last = Some(line.path);
            let what = match line.kind {
                "f" => Some(What::File),
                "d" => Some(What::Directory),
                "r" => Some(What::Recursive),
                _ => None,
            };
            if let Some(what) = what.filter(|_| self.is_overlay()) {
                let owner = (line.uid, line.gid);
                self.add_late(late_of(file, nr, line.path, what, line.mode, owner));
                continue;
            }
            self.add_line(&line).map_err(|error| match error {
                Ok(error) => error,
                Err(what) => wrong(what),
            })?;
        }
        Ok(())
    }

    fn add_line(&mut self, line: &Line<'_>) -> Result<(), Result<SourceError, &'static str>> {
        let meta = |mode| Meta {
            uid: line.uid,
            gid: line.gid,
            ..Meta::new(mode)
        };
        let found = self.find(line.path.as_bytes());
        match (line.kind, found) {
            ("f", Some(id)) if self.names_of(id).is_none() => self.change(id, line),
            ("f", _) => return Err(Err("no such file")),
            ("d", Some(id)) if self.names_of(id).is_some() => self.change(id, line),
            ("d", _) => {
                let mode = line.mode.unwrap_or(0o755);
                self.directory(line.path, meta(mode)).map_err(Ok)?;
            }
            ("r", Some(id)) => {
                let mut pending = vec![id];
                while let Some(id) = pending.pop() {
                    self.change(id, line);
                    pending.extend(self.names(id).map(|(_, id)| id));
                }
            }
            ("r", None) => return Err(Err("no such directory")),
            ("c" | "b" | "p", _) => {
                let kind = match line.kind {
                    "c" => FileType::CharDevice,
                    "b" => FileType::BlockDevice,
                    _ => FileType::Fifo,
                };
                let mode = line.mode.unwrap_or(0o644);
                let (start, step, count) = line.range;
                if count == 0 {
                    self.special(line.path, meta(mode), kind, line.device)
                        .map_err(Ok)?;
                }
                for nr in 0..count {
                    let minor = line.device.minor.saturating_add(nr.saturating_mul(step));
                    let device = Device {
                        minor,
                        ..line.device
                    };
                    let path = format!("{}{}", line.path, start.saturating_add(nr));
                    self.special(path, meta(mode), kind, device).map_err(Ok)?;
                }
            }
            _ => return Err(Err("the type must be one of f d r c b p")),
        }
        Ok(())
    }

    fn change(&mut self, id: NodeId, line: &Line<'_>) {
        let node = self.node_mut(id);
        (node.meta.uid, node.meta.gid) = (line.uid, line.gid);
        if let Some(mode) = line.mode
            && !matches!(node.body, Body::Symlink(_))
        {
            node.meta.mode = mode;
        }
    }
}

fn late_of(
    table: &Path,
    line: u32,
    path: &str,
    what: What,
    mode: Option<u16>,
    owner: (u32, u32),
) -> Late {
    Late {
        path: path.as_bytes().to_vec(),
        what,
        mode,
        owner,
        table: table.as_os_str().as_encoded_bytes().into(),
        line,
    }
}

impl<'a> Line<'a> {
    fn new(text: &'a str) -> Result<Self, &'static str> {
        let words: Vec<&str> = text.split_whitespace().collect();
        if words.len() < 5 || words.len() > 10 {
            return Err("a line has 5 to 10 columns");
        }
        let number = |nr: usize| match words.get(nr) {
            None | Some(&"-") => Ok(0),
            Some(word) => word.parse::<u32>().map_err(|_| "not a number"),
        };
        let mode = match words[2] {
            "-" | "-1" => None,
            word => {
                let mode = u16::from_str_radix(word, 8)
                    .ok()
                    .filter(|&mode| mode <= 0o7777);
                Some(mode.ok_or("the mode must be octal, 0 to 7777")?)
            }
        };
        let line = Self {
            path: words[0],
            kind: words[1],
            mode,
            uid: number(3)?,
            gid: number(4)?,
            device: Device {
                major: number(5)?,
                minor: number(6)?,
            },
            range: (number(7)?, number(8)?, number(9)?),
        };
        if line.range.2 > u32::from(LINK_MAX) {
            return Err("a range of more than 32000 nodes");
        }
        Ok(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_makes_nodes_and_changes_what_is_there() {
        let table = tempfile::NamedTempFile::new().unwrap();
        let text = "# comment\n\n/dev d 755 0 0 - - - - -\n/dev/tty c 666 0 5 4 0 0 1 3\n\
                    /dev/sda b 640 0 6 8 0\n/bin/tool f 4755 1 2 - - - - -\n|xattr user.a=b\n\
                    /home r -1 7 8\n/fifo p 600 0 0\n";
        std::fs::write(table.path(), text).unwrap();
        let mut tree = Tree::new();
        tree.file("bin/tool", Meta::new(0o644), *b"x").unwrap();
        tree.file("home/a/b", Meta::new(0o600), *b"x").unwrap();
        tree.add_device_table(table.path()).unwrap();
        let meta = |tree: &Tree, path: &str| tree.node(tree.find(path.as_bytes()).unwrap()).meta;
        let device =
            |tree: &Tree, path: &str| match tree.node(tree.find(path.as_bytes()).unwrap()).body {
                Body::Device(kind, device) => (kind, device.major, device.minor),
                _ => panic!("{path}"),
            };
        assert_eq!(device(&tree, "dev/tty2"), (FileType::CharDevice, 4, 2));
        assert_eq!(tree.find(b"dev/tty3"), None);
        assert_eq!(device(&tree, "dev/sda"), (FileType::BlockDevice, 8, 0));
        assert_eq!(
            (meta(&tree, "bin/tool").mode, meta(&tree, "bin/tool").uid),
            (0o4755, 1)
        );
        let deep = meta(&tree, "home/a/b");
        assert_eq!((deep.mode, deep.uid, deep.gid), (0o600, 7, 8));
        let tool = tree.node(tree.find(b"bin/tool").unwrap());
        assert_eq!(&*tool.attributes[0].value, b"b");
        for (bad, why) in [
            ("/x f 644 0 0", "line 1: no such file"),
            ("/x z 644 0 0", "line 1: the type"),
            ("\n/x d 999 0 0", "line 2: the mode"),
            ("/x d", "line 1: a line has"),
            ("|xattr user.a=b", "line 1: an attribute of no file"),
        ] {
            std::fs::write(table.path(), bad).unwrap();
            let error = Tree::new()
                .add_device_table(table.path())
                .unwrap_err()
                .to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
