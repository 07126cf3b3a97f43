//! One thread at a time: what each kind of page does.

use std::sync::Arc;

use ext2dax_fault::Bus;
use ext2dax_fault::host::{Access, Mode, Trap};

use super::{Handle, Host, PAGE, in_each_mode, options, smaps_kib};

#[test]
fn stores_to_a_sparse_file_are_in_the_image_and_everything_else_is_zero() {
    in_each_mode(|mode| {
        let pages = (1 << 30) / PAGE;
        let host = Host::new(&options(mode), 12, 4096, 1 << 30);
        let view = host.view(pages);
        let at = |step: usize| (step * 7919) % pages * PAGE + step % 512 * 8;
        for step in 0..200 {
            assert_eq!(view.load(at(step)), Ok(0), "a hole");
            view.store(at(step), step as u64 + 1).unwrap();
        }
        for step in 0..200 {
            assert_eq!(view.load(at(step)), Ok(step as u64 + 1));
            assert_eq!(
                host.in_image(at(step)),
                step as u64 + 1,
                "the page is the block"
            );
        }
        let mut bytes = [0; 8];
        assert_eq!(host.file.read(at(5) as u64, &mut bytes), 8);
        assert_eq!(u64::from_le_bytes(bytes), 6, "read(2) sees the store");
        assert_eq!(host.file.write(at(5) as u64, &77_u64.to_le_bytes()), 8);
        assert_eq!(view.load(at(5)), Ok(77), "the view sees write(2)");
        assert_eq!(host.mmu.stats().bus, 0);
    });
}

#[test]
fn a_write_into_a_hole_replaces_the_zeroes_that_a_view_has_read() {
    in_each_mode(|mode| {
        let host = Host::new(&options(mode), 12, 256, 64 * PAGE as u64);
        let (one, other) = (host.view(64), host.view(64));
        for page in 0..64 {
            assert_eq!(
                (one.load(page * PAGE), other.load(page * PAGE + 8)),
                (Ok(0), Ok(0))
            );
        }
        assert_eq!(host.file.write(3 * PAGE as u64, &1_u64.to_le_bytes()), 8);
        assert_eq!(
            (one.load(3 * PAGE), other.load(3 * PAGE)),
            (Ok(1), Ok(1)),
            "write(2)"
        );
        one.store(40 * PAGE, 2).unwrap();
        assert_eq!(
            (one.load(40 * PAGE), other.load(40 * PAGE)),
            (Ok(2), Ok(2)),
            "a store through the other view"
        );
        other.store(40 * PAGE, 3).unwrap();
        assert_eq!((one.load(40 * PAGE), host.in_image(40 * PAGE)), (Ok(3), 3));
    });
}

#[test]
fn holes_take_no_memory_when_they_are_read() {
    in_each_mode(|mode| {
        let pages = 4096;
        let host = Host::new(&options(mode), 12, 64, (pages * PAGE) as u64);
        let view = host.view(pages);
        for page in 0..pages {
            assert_eq!(view.load(page * PAGE), Ok(0));
        }
        assert_eq!(host.file.map().attached_from(0), 0, "no load takes a block");
        assert_eq!(smaps_kib(&view, "Anonymous"), 0);
        assert!(
            host.mmu.stats().faults < 256,
            "windows, not pages: {:?}",
            host.mmu.stats()
        );
    });
}

#[test]
fn a_truncated_page_is_sigbus_at_the_exact_address_and_comes_back_as_zeroes() {
    in_each_mode(|mode| {
        let host = Host::new(&options(mode), 12, 256, 64 * PAGE as u64);
        let view = host.view(128);
        for page in 0..64 {
            view.store(page * PAGE + 16, 0xA5A5).unwrap();
        }
        assert_eq!(
            view.load(64 * PAGE),
            Err(Trap { at: 64 * PAGE }),
            "behind the end from the start"
        );
        // Every boundary that matters: on a page, a byte behind it, a byte before it.
        for size in [40 * PAGE, 30 * PAGE + 1, 20 * PAGE - 1, 10 * PAGE + 24] {
            host.file.truncate(size as u64);
            let end = size.div_ceil(PAGE);
            assert_eq!(
                view.store(end * PAGE + 1016, 1),
                Err(Trap {
                    at: end * PAGE + 1016
                }),
                "size {size}"
            );
            assert_eq!(view.load(end * PAGE), Err(Trap { at: end * PAGE }));
            let last = (end - 1) * PAGE + 16;
            let kept = if last + 8 <= size { 0xA5A5 } else { 0 };
            assert_eq!(
                view.load(last),
                Ok(kept),
                "the last page stays, and is zero behind the end"
            );
            assert_eq!(host.file.map().attached_from(end as u64), 0);
        }
        host.file.truncate(128 * PAGE as u64);
        assert_eq!(view.load(10 * PAGE + 16), Ok(0xA5A5), "inside the old size");
        assert_eq!(view.load(10 * PAGE + 24), Ok(0), "behind it");
        for page in 11..128 {
            assert_eq!(view.load(page * PAGE + 16), Ok(0), "page {page}");
        }
        view.store(127 * PAGE, 9).unwrap();
        assert_eq!(host.in_image(127 * PAGE), 9);
    });
}

#[test]
fn bytes_stored_behind_the_end_never_become_content() {
    in_each_mode(|mode| {
        let host = Host::new(&options(mode), 12, 64, PAGE as u64 + 100);
        let view = host.view(4);
        view.store(PAGE + 104, 0xDEAD).unwrap();
        host.file.truncate(4 * PAGE as u64);
        assert_eq!(view.load(PAGE + 104), Ok(0));
    });
}

#[test]
fn no_space_is_sigbus_that_changes_nothing_and_does_not_stick() {
    in_each_mode(|mode| {
        let host = Host::new(&options(mode), 12, 64, 256 * PAGE as u64);
        let view = host.view(256);
        view.store(0, 1).unwrap();
        host.file.map().set_full(true);
        let free = host.file.map().free_count();
        assert_eq!(view.load(100 * PAGE), Ok(0), "a hole can be read");
        for attempt in 0..4 {
            assert_eq!(
                view.store(100 * PAGE + 8, 1),
                Err(Trap { at: 100 * PAGE + 8 }),
                "attempt {attempt}"
            );
            assert_eq!(view.last_fault_error(), Some((100, Bus::NoSpace)));
        }
        assert_eq!(host.file.map().free_count(), free, "nothing was taken");
        assert_eq!(host.file.map().attached_from(100), 0);
        assert_eq!(view.load(0), Ok(1));
        host.file.map().set_full(false);
        // The error page goes by itself after a while; no count says how long that may take, the watchdog of the test
        // runner does.
        while view.store(100 * PAGE + 8, 7).is_err() {
            std::thread::yield_now();
        }
        assert_eq!(host.in_image(100 * PAGE + 8), 7);
        assert_eq!(view.load(101 * PAGE), Ok(0), "neighbours are no errors");
    });
}

#[test]
fn a_punched_page_reads_zero_and_its_block_is_free() {
    in_each_mode(|mode| {
        let host = Host::new(&options(mode), 12, 64, 32 * PAGE as u64);
        let view = host.view(32);
        for page in 0..32 {
            view.store(page * PAGE, page as u64 + 1).unwrap();
        }
        let free = host.file.map().free_count();
        host.file.punch(8..16);
        assert_eq!(host.file.map().free_count(), free + 8);
        for page in 0..32 {
            let expected = if (8..16).contains(&page) {
                0
            } else {
                page as u64 + 1
            };
            assert_eq!(view.load(page * PAGE), Ok(expected), "page {page}");
        }
        view.store(9 * PAGE, 5).unwrap();
        assert_eq!(host.in_image(9 * PAGE), 5);
        assert_eq!(host.file.map().stored_after_free(), 0);
    });
}

#[test]
fn an_evicted_page_comes_back_with_its_bytes() {
    in_each_mode(|mode| {
        let host = Host::new(&options(mode), 12, 1024, 512 * PAGE as u64);
        let view = host.view(512);
        for round in 1..4 {
            for page in (0..512).step_by(3) {
                view.store(page * PAGE + 8 * round, round as u64).unwrap();
            }
            host.file.evict(0..512);
            assert_eq!(smaps_kib(&view, "Rss"), 0, "nothing is mapped");
            for page in (0..512).step_by(3) {
                assert_eq!(view.load(page * PAGE + 8 * round), Ok(round as u64));
            }
        }
    });
}

#[test]
fn blocks_larger_than_the_page_are_shown_whole() {
    in_each_mode(|mode| {
        for bits in [13, 14, 16] {
            let pages_per_block = 1 << (bits - 12);
            let pages = 8 * pages_per_block + 1;
            let host = Host::new(&options(mode), bits, 64, (pages * PAGE) as u64);
            let view = host.view(pages + pages_per_block);
            assert_eq!(view.load(PAGE), Ok(0));
            view.store(0, 1).unwrap();
            assert_eq!(host.file.write(PAGE as u64, &2_u64.to_le_bytes()), 8);
            assert_eq!(
                (view.load(0), view.load(PAGE)),
                (Ok(1), Ok(2)),
                "block of {pages_per_block} pages"
            );
            // The last block reaches behind the end; its pages there do not exist.
            view.store((pages - 1) * PAGE, 3).unwrap();
            assert_eq!(view.load(pages * PAGE), Err(Trap { at: pages * PAGE }));
            assert_eq!(host.in_image((pages - 1) * PAGE), 3);
        }
    });
}

#[test]
fn a_view_of_the_middle_shows_the_middle() {
    in_each_mode(|mode| {
        let host = Host::new(&options(mode), 12, 256, 200 * PAGE as u64);
        let whole = host.view(200);
        let part = host
            .mmu
            .map(
                Handle(Arc::clone(&host.file)),
                50 * PAGE as u64..100 * PAGE as u64,
                Access::Read,
            )
            .expect("a view of the middle");
        for page in 0..200 {
            whole.store(page * PAGE, page as u64 + 1).unwrap();
        }
        for page in 0..50 {
            assert_eq!(part.load(page * PAGE), Ok(page as u64 + 51));
        }
        host.file.truncate(60 * PAGE as u64 + 8);
        assert_eq!(part.load(10 * PAGE), Ok(61));
        assert_eq!(part.load(11 * PAGE), Err(Trap { at: 11 * PAGE }));
    });
}

#[test]
fn views_come_and_go_and_leave_the_bytes() {
    in_each_mode(|mode| {
        let host = Host::new(&options(mode), 12, 256, 100 * PAGE as u64);
        for round in 0..100_u64 {
            let view = host.view(100);
            let page = usize::try_from(round).expect("few rounds");
            view.store(page * PAGE, round + 1).unwrap();
            if round > 0 {
                assert_eq!(view.load((page - 1) * PAGE), Ok(round));
            }
            let _ = view.close();
        }
        assert!(!host.file.has_views());
        assert_eq!(host.in_image(42 * PAGE), 43);
    });
}

#[test]
fn the_automatic_choice_is_the_best_mode_and_says_why() {
    let host = Host::new(
        &ext2dax_fault::host::Options::default(),
        12,
        16,
        PAGE as u64,
    );
    println!("automatic: {} ({})", host.mmu.mode(), host.mmu.reason());
    assert!(!host.mmu.reason().is_empty());
    if host.mmu.mode() == Mode::Signals {
        assert!(
            host.mmu.reason().contains("userfault"),
            "the better modes' refusals are named"
        );
    }
    let view = host.view(1);
    view.store(0, 1).unwrap();
    assert_eq!(host.in_image(0), 1);
}
