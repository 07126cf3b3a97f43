//! `ext2dax ls`.

use std::io::Write;

use anyhow::Result;
use ext2dax::{FileSystem, Metadata};

use crate::args::{Args, Ls};
use crate::{for_each_path, show};

pub(crate) fn run(args: &Args, options: &Ls, fs: &FileSystem, out: &mut dyn Write) -> Result<bool> {
    let mut listing = Listing {
        json: args.json,
        options,
        fs,
        out,
        headings: options.recursive || options.paths.len() > 1,
    };
    for_each_path(args, &options.paths, |path| {
        let path = path.as_encoded_bytes();
        let metadata = fs.symlink_metadata(path)?;
        if metadata.is_dir() {
            listing.directory(path)
        } else {
            listing.entry(path, path, &metadata)
        }
    })
}

struct Listing<'a> {
    json: bool,
    options: &'a Ls,
    fs: &'a FileSystem,
    out: &'a mut dyn Write,
    headings: bool,
}

impl Listing<'_> {
    /// A directory and, with -R, those below it, in the order of their names.
    fn directory(&mut self, path: &[u8]) -> Result<()> {
        if self.headings && !self.json {
            writeln!(self.out, "{}:", show::name(path))?;
        }
        let mut entries = Vec::new();
        for entry in self.fs.read_dir(path)? {
            let entry = entry?;
            if self.options.all || !entry.file_name().starts_with(b".") {
                entries.push(entry);
            }
        }
        entries.sort_by(|one, other| one.file_name().cmp(other.file_name()));
        let mut below = Vec::new();
        for entry in &entries {
            let metadata = entry.metadata()?;
            self.entry(entry.file_name(), &entry.path(), &metadata)?;
            if metadata.is_dir() {
                below.push(entry.path());
            }
        }
        if self.options.recursive {
            for path in below {
                if !self.json {
                    writeln!(self.out)?;
                }
                self.directory(&path)?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, name: &[u8], path: &[u8], metadata: &Metadata) -> Result<()> {
        let attributes = metadata.attributes();
        let target = if metadata.is_symlink() {
            Some(self.fs.read_link(path)?)
        } else {
            None
        };
        if self.json {
            let mut object = show::attributes(attributes);
            object["path"] = show::name(path).into();
            if let Some(target) = target {
                object["target"] = show::name(&target).into();
            }
            writeln!(self.out, "{object}")?;
            return Ok(());
        }
        if self.options.inode {
            write!(self.out, "{:>8} ", attributes.ino)?;
        }
        if self.options.long {
            let size = match attributes.device {
                Some(device) => format!("{}, {}", device.major, device.minor),
                None => attributes.size.to_string(),
            };
            let (mode, time) = (show::mode(attributes), show::time(attributes.modified));
            let (links, uid, gid) = (attributes.links, attributes.uid, attributes.gid);
            write!(
                self.out,
                "{mode} {links:>3} {uid:>5} {gid:>5} {size:>12} {time} "
            )?;
        }
        write!(self.out, "{}", show::name(name))?;
        match target.filter(|_| self.options.long) {
            Some(target) => writeln!(self.out, " -> {}", show::name(&target))?,
            None => writeln!(self.out)?,
        }
        Ok(())
    }
}
