//! Where the image goes: what is there already, and who uses it.

use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use ext2dax_format::signature::looks_like;
use ext2dax_pmem::{Access, FileRegion, Pmem};

use crate::Before;

/// What was found at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Nothing: a file will be made.
    Missing,
    /// A regular file of this many bytes.
    File(u64),
    /// A device.
    Device,
}

/// The target, looked at and not yet changed.
#[derive(Debug)]
pub(crate) struct Target {
    path: PathBuf,
    kind: Kind,
    offset: u64,
    len: u64,
}

impl Target {
    /// Looks, and decides about the size.
    pub(crate) fn look(
        path: &Path,
        offset: u64,
        size: Option<u64>,
        in_blocks: bool,
    ) -> anyhow::Result<Self> {
        let name = path.display();
        let kind = match std::fs::metadata(path) {
            Ok(meta) if meta.is_file() => Kind::File(meta.len()),
            Ok(meta) if meta.file_type().is_block_device() || meta.file_type().is_char_device() => {
                Kind::Device
            }
            Ok(meta) if meta.is_dir() => bail!("{name}: is a directory; give a file or a device"),
            Ok(_) => bail!("{name}: neither a regular file nor a device"),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Kind::Missing,
            Err(error) => return Err(error).with_context(|| name.to_string()),
        };
        let existing = match kind {
            Kind::Missing => None,
            Kind::File(len) => Some(len),
            Kind::Device => Some(device_len(path)?),
        };
        let len = match (size, existing) {
            (Some(size), Some(existing))
                if kind == Kind::Device && size > existing.saturating_sub(offset) =>
            {
                let unit = if in_blocks {
                    "; a bare number with -b counts blocks"
                } else {
                    ""
                };
                bail!(
                    "{name}: size {size} bytes, the device has {} after the offset{unit}",
                    existing.saturating_sub(offset)
                );
            }
            (Some(size), _) => size,
            (None, Some(existing)) if existing > offset => existing - offset,
            (None, Some(existing)) => {
                bail!("{name}: {existing} bytes, nothing after offset {offset}; give a size")
            }
            (None, None) => bail!("{name}: does not exist; give a size to make it"),
        };
        Ok(Self {
            path: path.to_owned(),
            kind,
            offset,
            len,
        })
    }

    /// Bytes for the image, at most.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    pub(crate) fn name(&self) -> std::path::Display<'_> {
        self.path.display()
    }

    /// Refuses a target with a known signature, or one in use.
    pub(crate) fn check_free_to_use(&self, force: u8) -> anyhow::Result<()> {
        if self.kind == Kind::Missing {
            return Ok(());
        }
        let name = self.name();
        if force < 2
            && let Some(user) = user_of(&self.path)
        {
            bail!("{name}: in use ({user}); -F -F overwrites it all the same");
        }
        if force < 1
            && let Some(kind) = self.signature()?
        {
            bail!("{name}: contains {kind}; -F overwrites it");
        }
        Ok(())
    }

    fn signature(&self) -> anyhow::Result<Option<&'static str>> {
        use std::io::{Seek as _, SeekFrom};
        let read = || -> std::io::Result<Vec<u8>> {
            let mut file = File::open(&self.path)?;
            file.seek(SeekFrom::Start(self.offset))?;
            let mut head = Vec::new();
            file.take(65_536).read_to_end(&mut head)?;
            Ok(head)
        };
        // A dax device cannot be read, only mapped.
        let head = match read() {
            Ok(head) => head,
            Err(_) if self.kind == Kind::Device => {
                let region =
                    FileRegion::open_at(&self.path, Access::ReadOnlyForced, self.offset, None)?;
                let pmem = Pmem::new(region);
                let mut head = vec![0; usize::try_from(pmem.len().min(65_536)).unwrap_or(0)];
                pmem.read(0, &mut head);
                head
            }
            Err(error) => return Err(error).with_context(|| self.name().to_string()),
        };
        Ok(looks_like(&head).filter(|&kind| kind != "zero bytes"))
    }

    /// Makes the file or makes it longer, and maps it. A file that holds nothing but the image is emptied first, so that
    /// free blocks take no room.
    pub(crate) fn open(&self, planned: u64) -> anyhow::Result<(Pmem, Before)> {
        let before = self
            .prepare(planned)
            .with_context(|| self.name().to_string())?;
        let opened = FileRegion::open_at(&self.path, Access::ReadWrite, self.offset, Some(planned));
        match opened {
            Ok(region) => Ok((Pmem::new(region), before)),
            Err(error) => {
                self.undo();
                Err(error.into())
            }
        }
    }

    fn prepare(&self, planned: u64) -> std::io::Result<Before> {
        let end = self
            .offset
            .checked_add(planned)
            .ok_or(std::io::ErrorKind::FileTooLarge)?;
        // The size as asked, with what is no whole block: that is how long a disk image should be.
        let wanted = self
            .offset
            .checked_add(self.len)
            .ok_or(std::io::ErrorKind::FileTooLarge)?;
        match self.kind {
            Kind::Missing => {
                let file = File::create_new(&self.path)?;
                file.set_len(wanted).inspect_err(|_| self.undo())?;
                Ok(Before::Zeroes)
            }
            Kind::File(len) => {
                let file = OpenOptions::new().write(true).open(&self.path)?;
                if len < end {
                    file.set_len(wanted)?;
                }
                let whole = self.offset == 0 && len <= wanted;
                // Whoever else has the file open must not see it emptied: the lock comes first.
                if whole && file.try_lock().is_ok() {
                    file.set_len(0)?;
                    file.set_len(wanted)?;
                    return Ok(Before::Zeroes);
                }
                Ok(Before::Anything)
            }
            Kind::Device => Ok(Before::Anything),
        }
    }

    /// Removes a file that was made for nothing.
    pub(crate) fn undo(&self) {
        if self.kind == Kind::Missing {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn device_len(path: &Path) -> anyhow::Result<u64> {
    let region = FileRegion::open(path, Access::ReadOnlyForced)?;
    Ok(Pmem::new(region).len())
}

/// Who uses a file or device: a mount, swap or loop device, as far as the kernel tells.
fn user_of(path: &Path) -> Option<String> {
    let path = std::fs::canonicalize(path).ok()?;
    let first_word = |line: &str| line.split(' ').next().map(PathBuf::from);
    let text = path.to_str()?;
    for line in std::fs::read_to_string("/proc/self/mounts")
        .unwrap_or_default()
        .lines()
    {
        if first_word(line)
            .and_then(|source| std::fs::canonicalize(source).ok())
            .as_deref()
            == Some(&path)
        {
            return Some(format!(
                "mounted on {}",
                line.split(' ').nth(1).unwrap_or("?")
            ));
        }
    }
    for line in std::fs::read_to_string("/proc/swaps")
        .unwrap_or_default()
        .lines()
        .skip(1)
    {
        if line.split_whitespace().next() == Some(text) {
            return Some("swap".to_owned());
        }
    }
    for entry in std::fs::read_dir("/sys/block").ok()?.flatten() {
        let backing =
            std::fs::read_to_string(entry.path().join("loop/backing_file")).unwrap_or_default();
        if backing.trim_end() == text {
            return Some(format!("by {}", entry.file_name().display()));
        }
    }
    None
}
