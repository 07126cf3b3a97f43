//! What read(2) and write(2) do when their buffer is a view, mode by mode.

use std::io::{Seek, SeekFrom, Write};

use ext2dax_fault::host::{Mode, View};
use rustix::io::Errno;

use super::{Host, PAGE, in_each_mode, options};

fn errno(result: std::io::Result<usize>) -> Result<usize, i32> {
    result.map_err(|error| error.raw_os_error().expect("a system call's error"))
}

const FAULT: Result<usize, i32> = Err(Errno::FAULT.raw_os_error());

/// A plain file with 64 KiB of known bytes, at its beginning.
fn source() -> std::fs::File {
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(
        &(0..16_384_u32)
            .flat_map(u32::to_le_bytes)
            .collect::<Vec<u8>>(),
    )
    .expect("written");
    file.seek(SeekFrom::Start(0)).expect("rewound");
    file
}

fn prefault(view: &View, pages: std::ops::Range<usize>) {
    view.prefault(pages.start * PAGE..pages.end * PAGE, true)
        .expect("there is space");
}

#[test]
fn a_hole_can_be_read_into_where_the_kernel_reports_its_faults() {
    in_each_mode(|mode| {
        let host = Host::new(&options(mode), 12, 64, 64 * PAGE as u64);
        let view = host.view(64);
        let result = errno(view.read_from(source(), 8 * PAGE..10 * PAGE));
        if mode == Mode::Userfault {
            assert_eq!(result, Ok(2 * PAGE));
            assert_eq!(view.load(8 * PAGE + 8), Ok(0x0000_0003_0000_0002));
            assert_eq!(host.in_image(9 * PAGE), 0x0000_0401_0000_0400);
        } else {
            assert_eq!(result, FAULT, "and nothing has changed");
            assert_eq!(host.file.map().attached_from(0), 0);
        }
    });
}

#[test]
fn mapped_pages_serve_system_calls_in_every_mode() {
    in_each_mode(|mode| {
        let host = Host::new(&options(mode), 12, 64, 64 * PAGE as u64);
        let view = host.view(64);
        prefault(&view, 8..12);
        assert_eq!(
            errno(view.read_from(source(), 8 * PAGE..12 * PAGE)),
            Ok(4 * PAGE)
        );
        assert_eq!(host.in_image(11 * PAGE), 0x0000_0c01_0000_0c00);
        let mut sink = tempfile::tempfile().expect("a file");
        assert_eq!(
            errno(view.write_to(&sink, 9 * PAGE..12 * PAGE)),
            Ok(3 * PAGE)
        );
        sink.seek(SeekFrom::Start(0)).expect("rewound");
        prefault(&view, 20..23);
        assert_eq!(
            errno(view.read_from(&sink, 20 * PAGE..23 * PAGE)),
            Ok(3 * PAGE)
        );
        assert_eq!(host.in_image(22 * PAGE), 0x0000_0c01_0000_0c00);
    });
}

#[test]
fn prefaulting_changes_no_byte_and_fills_holes_only_for_writing() {
    in_each_mode(|mode| {
        let host = Host::new(&options(mode), 12, 256, 128 * PAGE as u64);
        let view = host.view(128);
        for page in (0..64).step_by(2) {
            view.store(page * PAGE, page as u64 + 1).unwrap();
        }
        let attached = host.file.map().attached_from(0);
        host.file.evict(0..128);
        view.prefault(0..128 * PAGE, false)
            .expect("loads need no space");
        assert_eq!(host.file.map().attached_from(0), attached);
        let faults = host.mmu.stats().faults;
        for page in (0..64).step_by(2) {
            assert_eq!(view.load(page * PAGE), Ok(page as u64 + 1));
        }
        assert_eq!(view.load(127 * PAGE), Ok(0));
        assert_eq!(
            host.mmu.stats().faults,
            faults,
            "everything was mapped beforehand"
        );
        prefault(&view, 100..110);
        assert!(host.file.map().attached_from(100) >= 10);
        assert_eq!(host.in_image(105 * PAGE), 0);
    });
}

#[test]
fn a_buffer_behind_the_end_is_efault_in_every_mode() {
    in_each_mode(|mode| {
        let host = Host::new(&options(mode), 12, 64, 16 * PAGE as u64);
        let view = host.view(32);
        prefault(&view, 0..16);
        assert_eq!(errno(view.read_from(source(), 16 * PAGE..17 * PAGE)), FAULT);
        // Half of it inside: a short count, as for a native mapping.
        assert_eq!(
            errno(view.read_from(source(), 15 * PAGE..17 * PAGE)),
            Ok(PAGE)
        );
        host.file.truncate(4 * PAGE as u64);
        assert_eq!(errno(view.read_from(source(), 8 * PAGE..9 * PAGE)), FAULT);
    });
}

#[test]
fn no_space_is_efault_to_a_system_call() {
    in_each_mode(|mode| {
        let host = Host::new(&options(mode), 12, 64, 64 * PAGE as u64);
        let view = host.view(64);
        host.file.map().set_full(true);
        let free = host.file.map().free_count();
        assert_eq!(errno(view.read_from(source(), 8 * PAGE..9 * PAGE)), FAULT);
        assert_eq!(
            (
                host.file.map().free_count(),
                host.file.map().attached_from(0)
            ),
            (free, 0)
        );
    });
}
