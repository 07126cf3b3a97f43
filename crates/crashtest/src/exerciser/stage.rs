//! What is torn down and set up again: mount, MMU, open files, views.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{Context, Result, anyhow, ensure};
use ext2dax::fault::host::{HostMmu, Mode, Options as MmuOptions, Want, survive_bus};
use ext2dax::fault::soft_mmu::Machine;
use ext2dax::{File, FileSystem, MountOptions, OpenOptions};
use ext2dax_pmem::{Access, Pmem};

use super::plan::{SLOTS, Which};
use super::shown::{PAGE, Shown};
use super::{Mapping, Options};
use crate::judge;

const NAMES: [&str; 2] = ["/first", "/second"];

/// The MMU of this process, its threads running.
struct Host {
    mmu: HostMmu,
    threads: Vec<JoinHandle<()>>,
}

/// What a mount has beside it.
enum Mmu {
    None,
    Soft(Arc<Machine>),
    Host(Host),
}

/// What lives between two remounts. Views go before files, files before the mount.
struct Scene {
    views: [Option<(Which, std::ops::Range<u64>, Shown)>; SLOTS],
    files: [File; 2],
    fs: FileSystem,
    mmu: Mmu,
}

/// The image and what stands on it.
pub(super) struct Stage {
    _dir: tempfile::TempDir,
    image: std::path::PathBuf,
    mapping: Mapping,
    few_mappings: bool,
    scene: Option<Scene>,
}

impl Stage {
    pub(super) fn new(options: &Options, window: u64) -> Result<Self> {
        let shm = Path::new("/dev/shm");
        let dir = if shm.is_dir() {
            tempfile::tempdir_in(shm)?
        } else {
            tempfile::tempdir()?
        };
        let image = dir.path().join("image");
        let mkfs = ext2dax_mkfs::Options {
            block_size: options.block_size,
            inodes: ext2dax_mkfs::Inodes::Count(64),
            reserved_share: 0,
            ..ext2dax_mkfs::Options::default()
        };
        // Twice what both windows need, indirect blocks included.
        let len = (2 << 20) + window * 4 + u64::from(options.block_size) * 20;
        ext2dax_mkfs::make_file(&image, &mkfs, len)?;
        let mut stage = Self {
            _dir: dir,
            image,
            mapping: options.mapping,
            few_mappings: options.seed.is_multiple_of(2),
            scene: None,
        };
        stage.up()?;
        if options.tight {
            stage.leave_free(window)?;
        }
        Ok(stage)
    }

    /// A third file takes all space but for so many bytes: less than both windows need, more than one does.
    fn leave_free(&self, bytes: u64) -> Result<()> {
        let statfs = self.fs().statfs();
        let free = statfs.blocks_free * u64::from(statfs.block_size);
        let ballast = open(self.fs(), "/ballast")?;
        ballast.allocate(0..free.saturating_sub(bytes * 5 / 4))?;
        Ok(())
    }

    pub(super) fn image(&self) -> &Path {
        &self.image
    }

    /// Mounts, and opens both files.
    pub(super) fn up(&mut self) -> Result<()> {
        let region = judge::region(&self.image, Access::ReadWrite)?;
        let region = Arc::new(region);
        let mmu = match self.mapping {
            Mapping::Host(mode) => Mmu::Host(Host::new(&region, mode, self.few_mappings)?),
            Mapping::Soft => Mmu::Soft(Machine::new(Pmem::from_region(region.clone()), 2)),
            Mapping::None => Mmu::None,
        };
        let fs = FileSystem::mount_pmem(Pmem::from_region(region), &MountOptions::default())?;
        let [first, second] = NAMES.map(|name| open(&fs, name));
        self.scene = Some(Scene {
            views: Default::default(),
            files: [first?, second?],
            fs,
            mmu,
        });
        Ok(())
    }

    /// Closes everything, and unmounts.
    pub(super) fn down(&mut self) -> Result<()> {
        let Some(scene) = self.scene.take() else {
            return Ok(());
        };
        let Scene {
            views,
            files,
            fs,
            mmu,
        } = scene;
        drop(views);
        drop(files);
        fs.unmount()?;
        if let Mmu::Host(host) = mmu {
            host.stop();
        }
        Ok(())
    }

    fn scene(&mut self) -> &mut Scene {
        self.scene.as_mut().expect("mounted between two remounts")
    }

    pub(super) fn fs(&self) -> &FileSystem {
        &self.scene.as_ref().expect("mounted").fs
    }

    pub(super) fn file(&self, which: Which) -> &File {
        &self.scene.as_ref().expect("mounted").files[which]
    }

    /// The largest size of a file here.
    pub(super) fn limit(&self) -> u64 {
        self.fs().geometry().max_file_size()
    }

    pub(super) fn reopen(&mut self, which: Which) -> Result<()> {
        let scene = self.scene();
        for view in &mut scene.views {
            if view.as_ref().is_some_and(|(of, _, _)| *of == which) {
                *view = None;
            }
        }
        // Closed for good before it is opened again: its last handle drops what is kept in core.
        scene.files[which] = scene.files[1 - which].share();
        scene.files[which] = open(&scene.fs, NAMES[which])?;
        Ok(())
    }

    /// Maps bytes of a file, in whole pages.
    pub(super) fn map(&mut self, which: Which, pos: u64, len: u64, slot: usize) -> Result<()> {
        let scene = self.scene();
        scene.views[slot] = None;
        let pages = pos / PAGE..(pos + len.max(1)).div_ceil(PAGE);
        let file = &scene.files[which];
        let shown = match &scene.mmu {
            Mmu::None => return Ok(()),
            Mmu::Soft(machine) => {
                Shown::soft(machine, file, pages.clone(), slot.is_multiple_of(2))?
            }
            Mmu::Host(host) => Shown::host(&host.mmu, file, &pages)?,
        };
        scene.views[slot] = Some((which, pages, shown));
        Ok(())
    }

    pub(super) fn unmap(&mut self, slot: usize) {
        self.scene().views[slot] = None;
    }

    /// A view that shows the page at byte `at`; which one if there are several, `at` decides.
    pub(super) fn view(&self, which: Which, at: u64) -> Option<&Shown> {
        let scene = self.scene.as_ref()?;
        let start = (at / PAGE) as usize;
        (0..SLOTS)
            .filter_map(|n| scene.views[(start + n) % SLOTS].as_ref())
            .find(|(of, pages, _)| *of == which && pages.contains(&(at / PAGE)))
            .map(|(_, _, shown)| shown)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // After a failure the threads of the MMU have to end all the same.
        let _ = self.down();
    }
}

impl Host {
    fn new(region: &ext2dax_pmem::FileRegion, mode: Mode, few_mappings: bool) -> Result<Self> {
        survive_bus()?;
        let mut options = MmuOptions::default();
        options.mode = Want::Only(mode);
        // So few that windows are given up while they are used.
        options.max_mappings = few_mappings.then_some(96);
        let mmu = HostMmu::new(region.file(), region.offset(), &options)?;
        let (faults, resolver) = (mmu.fault_loop(), mmu.resolver());
        let threads = vec![
            std::thread::spawn(move || faults.run()),
            std::thread::spawn(move || resolver.run()),
        ];
        Ok(Self { mmu, threads })
    }

    fn stop(mut self) {
        self.mmu.stop();
        for thread in self.threads.drain(..) {
            thread
                .join()
                .expect("the threads of the MMU end without a panic");
        }
    }
}

fn open(fs: &FileSystem, name: &str) -> Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .open(fs, name)
        .with_context(|| name.to_owned())?;
    ensure!(file.len().is_ok(), anyhow!("{name} has no length"));
    Ok(file)
}
