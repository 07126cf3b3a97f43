//! ext2dax without an operating system: makes a file system in the memory that the monitor loaded if there is none yet,
//! mounts it, writes a file, changes it through a
//! mapping of the soft MMU, reads it back, unmounts. Stable Rust, target x86_64-unknown-linux-gnu.
//!
//! Building it is the proof that nothing up to the file system needs std: a binary with a panic handler of its own does
//! not link as soon as anything below it does.

#![no_std]
#![no_main]

extern crate alloc;

mod console;
mod heap;
mod module;

use core::arch::global_asm;
use core::panic::PanicInfo;

use console::{Exit, exit};
use alloc::sync::Arc;

use ext2dax::fault::soft_mmu::{Cpu, Faulting, Machine, SoftTable};
use ext2dax::fault::{Fault, Outcome};
use ext2dax::{Error, FileSystem, Map, MountOptions, Window};
use ext2dax_mkfs::{Options, Plan};
use ext2dax_pmem::Pmem;

global_asm!(include_str!("boot.s"));
global_asm!(include_str!("mem.s"));

/// Where `s_magic` stands.
const MAGIC: u64 = 1024 + 56;
const PATH: &[u8] = b"/unikernel";
const TEXT: &[u8] = b"written without an operating system";
const STORED: &[u8] = b"stored ";

#[unsafe(no_mangle)]
extern "C" fn kmain(start_info: u64) -> ! {
    let Some(image) = module::Module::find(start_info, heap::END) else {
        say!("no module: give an ext2 image as the initial RAM disk");
        exit(Exit::NoImage)
    };
    match demonstrate(image) {
        Ok(()) => {
            say!("PASS, {} bytes of heap", heap::used());
            exit(Exit::Success)
        }
        Err(error) => {
            say!("FAILED: {error}");
            exit(Exit::Failed)
        }
    }
}

fn demonstrate(image: module::Module) -> Result<(), Error> {
    let pmem = Pmem::new(image);
    let mut magic = [0; 2];
    pmem.read(MAGIC, &mut magic);
    if magic == [0; 2] {
        make_file_system(&pmem)?;
    }
    let fs = FileSystem::mount_pmem(pmem.clone(), &MountOptions::new())?;
    say!("mounted: {} blocks free", fs.statfs().blocks_free);
    fs.write(PATH, TEXT)?;
    store_through_mapping(&fs, pmem)?;
    let read = fs.read(PATH)?;
    say!("{}", core::str::from_utf8(&read).unwrap_or("not text"));
    fs.unmount()?;
    let want = [STORED, &TEXT[STORED.len()..]].concat();
    if read == want { Ok(()) } else { Err(Error::Io) }
}

/// A module of zero bytes becomes an empty image.
fn make_file_system(pmem: &Pmem) -> Result<(), Error> {
    let plan = Plan::new(&Options::default(), pmem.len()).and_then(|plan| plan.write(pmem).map(|()| plan));
    let plan = plan.map_err(|refusal| {
        say!("no file system: {refusal}");
        Error::NoSpace
    })?;
    say!("made a file system of {} blocks", plan.geometry().blocks_count());
    Ok(())
}

/// Maps the file and stores to it as a program would, faults included.
fn store_through_mapping(fs: &FileSystem, pmem: Pmem) -> Result<(), Error> {
    let machine = Machine::new(pmem, 1);
    let table = machine.table();
    let window = Window { pages: 0..1, writable: true, shared: true, sync: false };
    let mapping = Program { map: fs.inode(PATH)?.map(table.clone(), window)?, table };
    Cpu::new(&machine, 0).store(&mapping, 0, STORED).map_err(|outcome| {
        say!("the store ended in {outcome:?}");
        Error::BadAddress
    })
}

/// A mapping of ours, as the soft MMU sees it.
struct Program {
    map: Map,
    table: Arc<SoftTable>,
}

impl Faulting for Program {
    fn table(&self) -> &SoftTable {
        &self.table
    }

    fn fault(&self, fault: &Fault) -> Outcome {
        self.map.fault(fault)
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    say!("{info}");
    exit(Exit::Panic)
}

/// liballoc refers to the unwinder; with `panic = "abort"` nobody calls it.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

/// As [`rust_eh_personality`].
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() -> ! {
    exit(Exit::Panic)
}
