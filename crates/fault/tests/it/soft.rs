//! The handler on the MMU in memory: what it maps, what it refuses, and what it leaves behind when it refuses.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use ext2dax_dax::vecmap::{Store, VecMap};
use ext2dax_dax::{DaxFile, Frame, Gates, MapError, PAGE_SIZE, PageTable, Prot, View, ViewSpec};
use ext2dax_fault::soft_mmu::{Cpu, Machine, Mapping};
use ext2dax_fault::{Bus, Fault, Outcome, handle};
use ext2dax_format::Error;
use ext2dax_pmem::{AnonRegion, Persist, Pmem, UserSlice, UserSliceMut};

const CPUS: usize = 4;

struct Bench {
    store: Arc<Store>,
    gates: Arc<Gates>,
    machine: Arc<Machine>,
    file: Arc<DaxFile<VecMap>>,
    block: u64,
}

impl Bench {
    fn new(block_bits: u32, blocks: u64, size: u64) -> Bench {
        let region =
            AnonRegion::with_persist(blocks << block_bits, Persist::FlushLines).expect("memory");
        let pmem = Pmem::new(region);
        let junk = vec![0xee; 1 << block_bits];
        (0..blocks).for_each(|n| pmem.write(n << block_bits, &junk));
        let store = Store::new(pmem.clone(), block_bits);
        let gates = Arc::new(Gates::new());
        let map = VecMap::new(&store, 1);
        let file = Arc::new(DaxFile::new(map, pmem.clone(), gates.clone(), size));
        Bench {
            store,
            gates,
            machine: Machine::new(pmem, CPUS),
            file,
            block: 1 << block_bits,
        }
    }

    fn view(&self, pages: Range<u64>, writable: bool, shared: bool) -> Mapping<VecMap> {
        let table = self.machine.table();
        let spec = ViewSpec {
            table: table.clone(),
            pages,
            writable,
            shared,
            sync: false,
        };
        let view = self.file.attach(spec).expect("blocks of a page or more");
        Mapping {
            file: self.file.clone(),
            view,
            table,
        }
    }

    fn shared(&self, pages: Range<u64>) -> Mapping<VecMap> {
        self.view(pages, true, true)
    }

    fn cpu(&self, number: usize) -> Cpu {
        Cpu::new(&self.machine, number)
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        assert_eq!(
            self.file.write_at(at, UserSlice::from(bytes)),
            Ok(bytes.len())
        );
    }

    fn read(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0xaa; len];
        let read = self
            .file
            .read_at(at, UserSliceMut::from(&mut bytes[..]))
            .expect("a good tree");
        bytes.truncate(read);
        bytes
    }
}

fn load(cpu: &Cpu, mapping: &Mapping<VecMap>, at: u64) -> Result<u8, Outcome> {
    let mut byte = [0xaa];
    cpu.load(mapping, at, &mut byte).map(|()| byte[0])
}

const PAST_EOF: Outcome = Outcome::Bus(Bus::PastEof);

#[test]
fn pages_end_where_the_file_ends_for_every_size_and_block_size() {
    for bits in [12, 13, 14, 16] {
        for size in [1, 4095, 4096, 4097, 8191, 8192, 12_289, 65_536, 65_537] {
            let bench = Bench::new(bits, 40, 0);
            let bytes: Vec<u8> = (0..size)
                .map(|n| u8::try_from(n % 251 + 1).expect("small"))
                .collect();
            bench.write(0, &bytes);
            let view = bench.shared(0..64);
            let cpu = bench.cpu(0);
            let last = size as u64 - 1;
            assert_eq!(load(&cpu, &view, last), Ok(bytes[size - 1]));
            let edge = (last / PAGE_SIZE + 1) * PAGE_SIZE;
            for at in last + 1..edge.min(last + 10) {
                assert_eq!(
                    load(&cpu, &view, at),
                    Ok(0),
                    "size {size}: zero up to the end of the page"
                );
            }
            assert_eq!(
                load(&cpu, &view, edge),
                Err(PAST_EOF),
                "size {size}, blocks of {}",
                bench.block
            );
            assert_eq!(cpu.store(&view, edge, &[1]), Err(PAST_EOF));
            // Bytes stored past the end are the page's, never the file's.
            if !size.is_multiple_of(4096) {
                cpu.store(&view, size as u64, &[7])
                    .expect("in the last page");
                bench.file.truncate(size as u64 + 1).expect("room");
                assert_eq!(bench.read(size as u64, 9), [0]);
            }
        }
    }
}

/// Four pages of one block: had each page an entry of its own, the store would allocate the block and leave the other
/// view its zero page of the second page for ever, since a later write(2) there finds an old block and unmaps nothing.
#[test]
fn zero_pages_of_a_large_block_go_together() {
    for bits in [13, 14, 16] {
        let bench = Bench::new(bits, 4, 1 << bits);
        let (ours, other) = (bench.shared(0..16), bench.shared(0..16));
        let (cpu, remote) = (bench.cpu(0), bench.cpu(1));
        assert_eq!(load(&remote, &other, PAGE_SIZE), Ok(0));
        cpu.store(&ours, 0, &[1]).expect("room");
        bench.write(PAGE_SIZE, &[5]);
        assert_eq!(load(&remote, &other, PAGE_SIZE), Ok(5));
        assert_eq!(bench.read(0, 1), [1]);
    }
}

#[test]
fn store_that_finds_no_space_changes_nothing_and_works_once_there_is_some() {
    let bench = Bench::new(12, 2, 3 * PAGE_SIZE);
    let view = bench.shared(0..3);
    let cpu = bench.cpu(0);
    cpu.store(&view, 0, &[1]).expect("room");
    cpu.store(&view, PAGE_SIZE, &[2]).expect("room");
    assert_eq!(load(&cpu, &view, 2 * PAGE_SIZE), Ok(0));
    for _ in 0..3 {
        assert_eq!(
            cpu.store(&view, 2 * PAGE_SIZE, &[3]),
            Err(Outcome::Bus(Bus::NoSpace))
        );
    }
    assert_eq!(
        (bench.store.free_count(), bench.file.map().attached().0),
        (0, 2)
    );
    assert_eq!(load(&cpu, &view, 2 * PAGE_SIZE), Ok(0), "still readable");
    bench.file.punch(0..PAGE_SIZE).expect("a good tree");
    assert_eq!(cpu.store(&view, 2 * PAGE_SIZE, &[3]), Ok(()));
    assert_eq!(bench.read(2 * PAGE_SIZE, 1), [3]);
}

#[test]
fn damaged_tree_answers_bus_and_is_reported_and_the_page_works_after_repair() {
    let bench = Bench::new(12, 4, 2 * PAGE_SIZE);
    bench.write(0, &[9]);
    let view = bench.shared(0..2);
    let cpu = bench.cpu(0);
    let corrupt = Error::from(ext2dax_format::CorruptKind::InodeType { inode: 12, mode: 0 });
    bench.file.map().fail(Some(corrupt));
    assert_eq!(load(&cpu, &view, 0), Err(Outcome::Bus(Bus::Corrupt)));
    assert_eq!(
        cpu.store(&view, PAGE_SIZE, &[1]),
        Err(Outcome::Bus(Bus::Corrupt))
    );
    assert_eq!(bench.file.map().complaints().len(), 2);
    bench.file.map().fail(Some(Error::Io));
    assert_eq!(load(&cpu, &view, 0), Err(Outcome::Bus(Bus::Io)));
    assert_eq!(
        bench.file.map().complaints().len(),
        2,
        "a failing medium is no damaged tree"
    );
    bench.file.map().fail(None);
    assert_eq!(load(&cpu, &view, 0), Ok(9));
    assert!(!bench.file.has_dirty());
}

#[test]
fn private_view_shares_until_it_stores_and_keeps_its_page_through_a_punch() {
    let bench = Bench::new(12, 4, 0);
    bench.write(0, &[1; 8192]);
    let private = bench.view(0..2, true, false);
    let cpu = bench.cpu(0);
    assert_eq!(load(&cpu, &private, 5), Ok(1));
    bench.write(5, &[2]);
    assert_eq!(load(&cpu, &private, 5), Ok(2), "not copied yet");
    cpu.store(&private, 6, &[9]).expect("a copy");
    assert_eq!(
        (load(&cpu, &private, 5), load(&cpu, &private, 6)),
        (Ok(2), Ok(9))
    );
    assert_eq!(bench.read(6, 1), [1], "the file has not changed");
    assert!(!bench.file.has_dirty());
    bench.write(5, &[3]);
    assert_eq!(load(&cpu, &private, 5), Ok(2), "a copy does not follow");
    bench.file.punch(0..8192).expect("a good tree");
    assert_eq!(
        (load(&cpu, &private, 6), load(&cpu, &private, PAGE_SIZE)),
        (Ok(9), Ok(0))
    );
    bench.file.truncate(0).expect("a good tree");
    assert_eq!(
        load(&cpu, &private, 6),
        Err(PAST_EOF),
        "a truncation takes private pages, too"
    );
    // A copy of a hole is a page of zeroes, and takes no block.
    bench.file.truncate(PAGE_SIZE).expect("a good tree");
    cpu.store(&private, 0, &[4]).expect("a copy");
    assert_eq!(
        (load(&cpu, &private, 1), bench.store.free_count()),
        (Ok(0), 4)
    );
}

#[test]
fn view_refuses_what_it_was_not_made_for() {
    let bench = Bench::new(12, 4, 3 * PAGE_SIZE);
    let reader = bench.view(1..2, false, true);
    let cpu = bench.cpu(0);
    assert_eq!(load(&cpu, &reader, PAGE_SIZE), Ok(0));
    assert_eq!(cpu.store(&reader, PAGE_SIZE, &[1]), Err(Outcome::Segv));
    assert_eq!(
        load(&cpu, &reader, 0),
        Err(Outcome::Segv),
        "outside the view"
    );
    let cut = |idx, write| {
        handle(
            &bench.file,
            &reader.view,
            &Fault {
                in_copy: true,
                ..Fault::at(idx, write)
            },
        )
    };
    assert_eq!(
        (cut(1, true), cut(1, false)),
        (Outcome::CutShort, Outcome::Installed)
    );
    let _ = bench.file.detach(&reader.view);
    assert_eq!(
        handle(&bench.file, &reader.view, &Fault::at(1, false)),
        Outcome::Retry
    );
    assert!(
        bench.machine.translations().is_empty(),
        "nothing is made for a dead view"
    );
    let huge = bench.shared(0..3);
    assert_eq!(
        handle(
            &bench.file,
            &huge.view,
            &Fault {
                huge: true,
                ..Fault::at(0, true)
            }
        ),
        Outcome::FallbackToPage
    );
}

/// A table that only counts, for a platform where calls are dear or stores go unnoticed.
#[derive(Default)]
struct Calls {
    maps: Mutex<Vec<(u64, Frame, u32, Prot)>>,
    bus: Mutex<Vec<u64>>,
    unnoticed: bool,
    busy: bool,
    never_unmaps: bool,
}

impl PageTable for Calls {
    fn map(&self, idx: u64, frame: Frame, pages: u32, prot: Prot) -> Result<(), MapError> {
        if self.busy {
            return Err(MapError::Busy);
        }
        self.maps
            .lock()
            .expect("no panic inside")
            .push((idx, frame, pages, prot));
        Ok(())
    }
    fn map_private(&self, _idx: u64, _source: Frame) -> Result<(), MapError> {
        Err(MapError::NoMemory)
    }
    fn unmap(&self, _pages: Range<u64>, _private_too: bool) {}
    fn write_protect(&self, _pages: Range<u64>) {}
    fn write_notice(&self) -> bool {
        !self.unnoticed
    }
    fn may_unmap(&self) -> bool {
        !self.never_unmaps
    }
    fn map_bus(&self, idx: u64) {
        self.bus.lock().expect("no panic inside").push(idx);
    }
}

fn attach(bench: &Bench, pages: Range<u64>, table: Calls) -> (Arc<View>, Arc<Calls>) {
    let table = Arc::new(table);
    let spec = ViewSpec {
        table: table.clone(),
        pages,
        writable: true,
        shared: true,
        sync: false,
    };
    (
        bench.file.attach(spec).expect("blocks of a page or more"),
        table,
    )
}

impl Calls {
    fn take(&self) -> Vec<(u64, Frame, u32, Prot)> {
        std::mem::take(&mut self.maps.lock().expect("no panic inside"))
    }
}

#[test]
fn neighbours_are_served_in_one_call_as_far_as_the_run_goes() {
    for bits in [12, 14] {
        let pages = (1 << bits) / PAGE_SIZE;
        let bench = Bench::new(bits, 16, 16 << bits);
        let (view, table) = attach(&bench, 0..16 * pages, Calls::default());
        let around = |idx, write| Fault {
            around: 0..8 * pages,
            fill: 0..8 * pages,
            ..Fault::at(idx, write)
        };
        assert_eq!(
            handle(&bench.file, &view, &around(2 * pages + pages / 2, true)),
            Outcome::Installed
        );
        let count = u32::try_from(6 * pages).expect("small");
        assert_eq!(
            table.take(),
            [(2 * pages, Frame::Media(0), count, Prot::ReadWrite)]
        );
        assert_eq!(
            bench.file.map().attached().0,
            6,
            "holes are filled as far as asked, no further"
        );
        assert!(bench.file.has_dirty());
        bench.file.sync(0..u64::MAX).expect("a good medium");
        assert!(
            !bench.file.has_dirty(),
            "every neighbour was marked, and is clean now"
        );
        // A load in front of them: the holes up to the first entry that exists.
        assert_eq!(
            handle(&bench.file, &view, &around(0, false)),
            Outcome::Installed
        );
        assert_eq!(
            table.take(),
            [(
                0,
                Frame::Zero,
                u32::try_from(2 * pages).expect("small"),
                Prot::Read
            )]
        );
        // Only the page itself, if nothing else was allowed.
        assert_eq!(
            handle(&bench.file, &view, &Fault::at(9 * pages, true)),
            Outcome::Installed
        );
        assert_eq!(
            table.take(),
            [(9 * pages, Frame::Media(6 << bits), 1, Prot::ReadWrite)]
        );
    }
}

#[test]
fn neighbours_cost_the_faulting_page_nothing_when_space_runs_out() {
    let bench = Bench::new(12, 3, 16 * PAGE_SIZE);
    let (view, table) = attach(&bench, 0..16, Calls::default());
    let around = |idx| Fault {
        around: 0..16,
        fill: 0..16,
        ..Fault::at(idx, true)
    };
    assert_eq!(handle(&bench.file, &view, &around(4)), Outcome::Installed);
    assert_eq!(table.take(), [(4, Frame::Media(0), 3, Prot::ReadWrite)]);
    assert_eq!(
        handle(&bench.file, &view, &around(9)),
        Outcome::Bus(Bus::NoSpace)
    );
    assert_eq!(
        (
            table.take().len(),
            table.bus.lock().expect("no panic inside").clone()
        ),
        (0, vec![9])
    );
    assert_eq!(bench.file.evict(0..16), ());
    assert_eq!(handle(&bench.file, &view, &around(4)), Outcome::Installed);
    assert_eq!(
        table.take().len(),
        1,
        "what was given back can be asked for again"
    );
}

#[test]
fn trying_form_never_waits_and_changes_nothing_when_it_gives_up() {
    let bench = Bench::new(12, 4, 4 * PAGE_SIZE);
    let (view, table) = attach(
        &bench,
        0..4,
        Calls {
            never_unmaps: true,
            ..Calls::default()
        },
    );
    let attempt = |idx, write| {
        handle(
            &bench.file,
            &view,
            &Fault {
                nowait: true,
                ..Fault::at(idx, write)
            },
        )
    };
    let frozen = bench.gates.freeze().expect("nobody else freezes");
    assert_eq!(
        (attempt(0, true), attempt(0, false)),
        (Outcome::WouldBlock, Outcome::Installed)
    );
    drop(frozen);
    let stable = bench.file.stable(0..PAGE_SIZE).expect("no pins");
    assert_eq!(
        (attempt(0, true), attempt(0, false)),
        (Outcome::WouldBlock, Outcome::WouldBlock)
    );
    drop(stable);
    // The zero page of another view has to be unmapped there, which this thread may not do.
    let other = bench.shared(0..4);
    assert_eq!(attempt(0, true), Outcome::WouldBlock);
    assert_eq!(
        (bench.store.free_count(), bench.file.has_dirty()),
        (4, false)
    );
    let _ = bench.file.detach(&other.view);
    assert_eq!(attempt(0, true), Outcome::Installed);
    table.take();
    let (held, _) = attach(
        &bench,
        0..4,
        Calls {
            busy: true,
            ..Calls::default()
        },
    );
    let refused = handle(
        &bench.file,
        &held,
        &Fault {
            nowait: true,
            ..Fault::at(3, false)
        },
    );
    assert_eq!(
        refused,
        Outcome::WouldBlock,
        "the table itself would have to wait"
    );
    assert_eq!(
        handle(&bench.file, &view, &Fault::at(3, true)),
        Outcome::Installed
    );
    assert_eq!(
        table.take(),
        [(3, Frame::Media(PAGE_SIZE), 1, Prot::ReadWrite)]
    );
}

#[test]
fn table_without_store_notice_gets_loads_of_blocks_writable_and_dirty() {
    let bench = Bench::new(12, 4, 0);
    bench.write(0, &[1; 4096]);
    bench.file.truncate(2 * PAGE_SIZE).expect("room");
    let (view, table) = attach(
        &bench,
        0..2,
        Calls {
            unnoticed: true,
            ..Calls::default()
        },
    );
    assert_eq!(
        handle(&bench.file, &view, &Fault::at(0, false)),
        Outcome::Installed
    );
    assert_eq!(table.take(), [(0, Frame::Media(0), 1, Prot::ReadWrite)]);
    assert!(bench.file.has_dirty());
    assert_eq!(
        handle(&bench.file, &view, &Fault::at(1, false)),
        Outcome::Installed
    );
    assert_eq!(
        table.take(),
        [(1, Frame::Zero, 1, Prot::Read)],
        "a load fills no hole"
    );
    assert_eq!(bench.store.free_count(), 3);
}

#[test]
fn page_far_behind_the_entries_made_at_attach_is_served() {
    let far = 3 << 20;
    let bench = Bench::new(12, 4, (far + 1) * PAGE_SIZE);
    let view = bench.shared(0..far + 1);
    let cpu = bench.cpu(0);
    let unmade = Fault {
        nowait: true,
        ..Fault::at(far, true)
    };
    assert_eq!(
        handle(&bench.file, &view.view, &unmade),
        Outcome::WouldBlock
    );
    cpu.store(&view, far * PAGE_SIZE + 9, &[5]).expect("room");
    assert_eq!(bench.read(far * PAGE_SIZE + 9, 1), [5]);
}

/// Port of xfstests generic/340 and its kin: threads race to store their markers into pages that are holes, while one
/// thread punches other pages and one syncs. Every marker must be there in the end, through the views and through read.
#[test]
fn markers_of_racing_threads_all_arrive() {
    for bits in [12, 14] {
        let pages = 64;
        let bench = Bench::new(bits, 200 >> (bits - 12), (pages + 16) * PAGE_SIZE);
        let views: Vec<_> = (0..2).map(|_| bench.shared(0..pages + 16)).collect();
        let inode = ext2dax_sync::RwLock::new(ext2dax_sync::rank::INODE, ());
        std::thread::scope(|scope| {
            for thread in 0..3u8 {
                let (cpu, view) = (bench.cpu(thread.into()), &views[usize::from(thread) % 2]);
                scope.spawn(move || {
                    for step in 0..pages {
                        let page = (step * 7 + u64::from(thread) * 13) % pages;
                        let at = page * PAGE_SIZE + u64::from(thread);
                        cpu.store(view, at, &[thread + 1]).expect("room");
                        assert_eq!(load(&cpu, view, at), Ok(thread + 1));
                    }
                });
            }
            let (bench, inode, spare) =
                (&bench, &inode, pages * PAGE_SIZE..(pages + 16) * PAGE_SIZE);
            let (cpu, view) = (bench.cpu(3), &views[0]);
            scope.spawn(move || {
                for round in 0..50 {
                    cpu.store(view, spare.start + (round % 16) * PAGE_SIZE, &[7])
                        .expect("room");
                    let _gate = bench.gates.write.enter();
                    let _inode = inode.write();
                    bench.file.punch(spare.clone()).expect("a good tree");
                    bench.file.sync(0..u64::MAX).expect("a good medium");
                }
            });
        });
        for page in 0..pages {
            assert_eq!(bench.read(page * PAGE_SIZE, 3), [1, 2, 3], "page {page}");
            for (cpu, view) in views.iter().enumerate() {
                assert_eq!(load(&bench.cpu(cpu), view, page * PAGE_SIZE + 2), Ok(3));
            }
        }
        assert_eq!(bench.file.quarantined(), 0);
    }
}

#[test]
fn pages_that_a_private_view_has_made_its_own_do_not_keep_their_neighbours_out() {
    for bits in [12, 14] {
        let bench = Bench::new(bits, 8, 0);
        let pages = 4 * (bench.block / PAGE_SIZE);
        bench.write(
            0,
            &vec![7; usize::try_from(4 * bench.block).expect("small")],
        );
        let private = bench.view(0..pages, true, false);
        let cpu = bench.cpu(0);
        cpu.store(&private, PAGE_SIZE, &[9])
            .expect("inside the file");
        let wide = |idx| Fault {
            around: 0..pages,
            ..Fault::at(idx, false)
        };
        for idx in [0, 2, 3] {
            assert_eq!(
                handle(&bench.file, &private.view, &wide(idx)),
                Outcome::Installed
            );
            assert_eq!(load(&cpu, &private, idx * PAGE_SIZE), Ok(7));
        }
        assert_eq!(load(&cpu, &private, PAGE_SIZE), Ok(9), "still its own");
        assert_eq!(bench.read(PAGE_SIZE, 1), [7]);
    }
}

#[test]
fn a_fault_brings_the_whole_run_along_forwards_and_backwards_and_no_foreign_block() {
    for bits in [12, 14] {
        let per_block = (1 << bits) / PAGE_SIZE;
        let bench = Bench::new(bits, 16, 16 << bits);
        // Blocks 0 to 3 in one run, a hole at 4, 5 to 9 in another run.
        bench.write(0, &vec![1; 4 << bits]);
        bench.write(5 << bits, &vec![2; 5 << bits]);
        let (view, table) = attach(&bench, 0..16 * per_block, Calls::default());
        let (other, others) = attach(&bench, 0..16 * per_block, Calls::default());
        let wide = |idx| Fault {
            around: 0..16 * per_block,
            ..Fault::at(idx, true)
        };
        // One page first, so that its entry is there already, and dirty.
        let first = Fault::at(7 * per_block, true);
        assert_eq!(handle(&bench.file, &view, &first), Outcome::Installed);
        table.take();
        let (seventh, count) = (7 * per_block, u32::try_from(5 * per_block).expect("small"));
        assert_eq!(
            handle(&bench.file, &other, &wide(seventh)),
            Outcome::Installed
        );
        let wanted = (
            5 * per_block,
            Frame::Media(4 << bits),
            count,
            Prot::ReadWrite,
        );
        assert_eq!(others.take(), [wanted], "{bits}");
        let count = u32::try_from(4 * per_block).expect("small");
        assert_eq!(
            handle(&bench.file, &other, &wide(3 * per_block)),
            Outcome::Installed
        );
        let wanted = (0, Frame::Media(0), count, Prot::ReadWrite);
        assert_eq!(others.take(), [wanted], "{bits}");
        bench.file.sync(0..u64::MAX).expect("a good medium");
        assert!(!bench.file.has_dirty(), "every page is clean again");
    }
}
