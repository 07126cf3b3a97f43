//! Where the image goes: what is there already, and who uses it.

use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use ext2dax_format::signature::looks_like;
use ext2dax_pmem::{Access, FileRegion, Medium as MediumKind, Pmem};

use super::args::Asked;
use crate::{Before, Medium};

mod aside;

use aside::Aside;

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

/// What there is where the image should go.
#[derive(Debug)]
pub(crate) struct Found {
    path: PathBuf,
    kind: Kind,
    offset: u64,
    /// Bytes that a file or device has.
    existing: Option<u64>,
}

/// The target, looked at and not yet changed.
#[derive(Debug)]
pub(crate) struct Target {
    path: PathBuf,
    kind: Kind,
    offset: u64,
    /// Bytes for the image, what is no whole block included: that is how long a disk image should be.
    len: u64,
}

/// A target that is being written.
pub(crate) struct Opened<'a> {
    target: &'a Target,
    pub(crate) pmem: Pmem,
    pub(crate) before: Before,
    /// The same bytes behind a page cache.
    file: Option<File>,
    aside: Option<Aside>,
    /// The file that will be replaced, locked.
    _old: Option<FileRegion>,
}

impl Found {
    pub(crate) fn name(&self) -> std::path::Display<'_> {
        self.path.display()
    }

    pub(crate) fn is_missing(&self) -> bool {
        self.kind == Kind::Missing
    }

    pub(crate) fn is_device(&self) -> bool {
        self.kind == Kind::Device
    }

    pub(crate) fn is_file(&self) -> bool {
        matches!(self.kind, Kind::File(_))
    }

    /// Bytes for the image: as asked, else what there is.
    pub(crate) fn len(&self, size: Asked, in_blocks: bool) -> anyhow::Result<u64> {
        let (name, offset) = (self.name(), self.offset);
        match (size, self.existing) {
            (Asked::Bytes(size), _) => {
                let unit = if in_blocks {
                    "; a bare number with -b counts blocks"
                } else {
                    ""
                };
                self.check_room(size)
                    .map_err(|error| anyhow::anyhow!("{error}{unit}"))?;
                Ok(size)
            }
            (_, Some(existing)) if existing > offset => Ok(existing - offset),
            (_, Some(existing)) => {
                bail!("{name}: {existing} bytes, nothing after offset {offset}; give a size")
            }
            (_, None) => bail!("{name}: does not exist; give a size to make it"),
        }
    }

    /// A device cannot grow.
    pub(crate) fn check_room(&self, size: u64) -> anyhow::Result<()> {
        let room = self.existing.unwrap_or(0).saturating_sub(self.offset);
        if self.kind == Kind::Device && size > room {
            bail!(
                "{}: size {size} bytes, the device has {room} after the offset",
                self.name()
            );
        }
        Ok(())
    }

    /// The target for an image of so many bytes.
    pub(crate) fn sized(self, len: u64) -> Target {
        Target {
            path: self.path,
            kind: self.kind,
            offset: self.offset,
            len,
        }
    }
}

impl Target {
    /// Looks what there is.
    pub(crate) fn look(path: &Path, offset: u64) -> anyhow::Result<Found> {
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
        Ok(Found {
            path: path.to_owned(),
            kind,
            offset,
            existing,
        })
    }

    pub(crate) fn name(&self) -> std::path::Display<'_> {
        self.path.display()
    }

    /// Refuses a target with a known signature, or one in use. What comes back keeps a device from being mounted as long
    /// as it lives.
    pub(crate) fn check_free_to_use(&self, force: u8) -> anyhow::Result<Option<File>> {
        if self.kind == Kind::Missing {
            return Ok(None);
        }
        let name = self.name();
        let mut claim = None;
        if force < 2 {
            let busy = |user: &str| {
                anyhow::anyhow!("{name}: in use ({user}); -F -F overwrites it all the same")
            };
            if let Some(user) = user_of(&self.path) {
                return Err(busy(&user));
            }
            if self.kind == Kind::Device {
                claim = self.claim().map_err(|error| match error.kind() {
                    std::io::ErrorKind::ResourceBusy => {
                        busy("mounted, or part of something that is")
                    }
                    _ => anyhow::Error::new(error).context(name.to_string()),
                })?;
            }
        }
        if force < 1
            && let Some(kind) = self.signature()?
        {
            bail!("{name}: contains {kind}; -F overwrites it");
        }
        Ok(claim)
    }

    /// The kernel lets one have a block device for itself: a mount, a partition in use, or us.
    fn claim(&self) -> std::io::Result<Option<File>> {
        use rustix::fs::{Mode, OFlags};
        if !std::fs::metadata(&self.path)?.file_type().is_block_device() {
            return Ok(None);
        }
        let flags = OFlags::RDONLY | OFlags::EXCL | OFlags::CLOEXEC;
        let file = rustix::fs::open(&self.path, flags, Mode::empty())?;
        Ok(Some(File::from(file)))
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

    /// Makes room for the image and maps it. A file that holds nothing else is written aside, without a name where the
    /// file system can, and takes its place when it is done.
    pub(crate) fn open(&self, planned: u64, discard: bool) -> anyhow::Result<Opened<'_>> {
        let end = self.offset.checked_add(self.len.max(planned));
        let end = end.with_context(|| format!("{}: too large", self.name()))?;
        let fits = match self.kind {
            Kind::Missing => true,
            Kind::File(len) => len <= end,
            Kind::Device => false,
        };
        let whole = self.offset == 0 && fits;
        if !whole {
            return self.open_in_place(planned, end, discard);
        }
        let old = match self.kind {
            Kind::File(1..) => Some(FileRegion::open(&self.path, Access::ReadWrite)?),
            _ => None,
        };
        let aside = Aside::new(&self.path).with_context(|| self.name().to_string())?;
        let file = aside.file();
        file.set_len(end).with_context(|| self.name().to_string())?;
        let region = FileRegion::open_at(aside.path(), Access::ReadWrite, 0, Some(planned))?;
        let file = bulk_file(&region)?;
        Ok(Opened {
            target: self,
            pmem: Pmem::new(region),
            before: Before::Zeroes,
            file,
            aside: Some(aside),
            _old: old,
        })
    }

    pub(crate) fn is_missing(&self) -> bool {
        self.kind == Kind::Missing
    }

    /// Where the image ends in the file or device.
    pub(crate) fn end(&self) -> u64 {
        self.offset.saturating_add(self.len)
    }

    /// A device, or a file that holds more than the image.
    pub(crate) fn open_in_place(
        &self,
        planned: u64,
        end: u64,
        discard: bool,
    ) -> anyhow::Result<Opened<'_>> {
        let made = self.kind == Kind::Missing;
        if self.kind != Kind::Device {
            let open = || -> std::io::Result<()> {
                let file = OpenOptions::new()
                    .write(true)
                    .create(made)
                    .truncate(false)
                    .open(&self.path)?;
                if file.metadata()?.len() < end {
                    file.set_len(end)?;
                }
                Ok(())
            };
            open().with_context(|| self.name().to_string())?;
        }
        let region =
            FileRegion::open_at(&self.path, Access::ReadWrite, self.offset, Some(planned))?;
        let file = bulk_file(&region)?;
        let cleared = made || discard && clear(&region, self.offset, end - self.offset);
        Ok(Opened {
            target: self,
            pmem: Pmem::new(region),
            before: if cleared {
                Before::Zeroes
            } else {
                Before::Anything
            },
            file,
            aside: None,
            _old: None,
        })
    }
}

impl Opened<'_> {
    /// Where the image starts in the file or device.
    pub(crate) fn offset(&self) -> u64 {
        self.target.offset
    }

    /// Where the bytes go.
    pub(crate) fn medium(&self) -> Medium<'_> {
        match &self.file {
            Some(file) => Medium::file(&self.pmem, file, self.target.offset),
            None => Medium::memory(&self.pmem),
        }
    }

    /// The image is whole: it gets its name.
    pub(crate) fn commit(self) -> anyhow::Result<()> {
        let name = self.target.name();
        match self.aside {
            Some(aside) => aside
                .rename_to(&self.target.path)
                .with_context(|| name.to_string()),
            None => Ok(()),
        }
    }
}

/// Gives back what the range takes, and with it its bytes: a hole in a file, a discard that leaves zeroes on a device.
/// Whether that was possible; a device that cannot promise zeroes refuses.
fn clear(region: &FileRegion, offset: u64, len: u64) -> bool {
    use rustix::fs::FallocateFlags;
    if matches!(region.medium(), MediumKind::DaxDevice) {
        return false;
    }
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(region.file(), flags, offset, len).is_ok()
}

/// The file behind a region whose stores go to a page cache anyway.
fn bulk_file(region: &FileRegion) -> std::io::Result<Option<File>> {
    match region.medium() {
        MediumKind::File | MediumKind::MemoryFile | MediumKind::BlockDevice => {
            region.file().try_clone().map(Some)
        }
        MediumKind::DaxFile | MediumKind::DaxDevice => Ok(None),
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
        // A source may be any word: only a whole path says which file is meant.
        if first_word(line)
            .filter(|source| source.is_absolute())
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
