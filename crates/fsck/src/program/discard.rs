//! Free blocks given back to the host: holes in the image file.

use std::fs::File;
use std::path::Path;

use ext2dax_fsck::{CheckOptions, Error, free_runs};
use ext2dax_pmem::Pmem;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

/// Makes a hole of every run of free blocks; answers how many bytes they are, and nothing if
/// the device cannot do it. Only after a check that found nothing.
pub(super) fn free_blocks(
    image: &Path,
    offset: u64,
    pmem: &Pmem,
    how: &CheckOptions,
) -> Result<Option<u64>, Error> {
    let file = File::options()
        .write(true)
        .open(image)
        .map_err(|source| Error::Discard { source })?;
    let mut bytes = 0;
    for run in free_runs(pmem, how)? {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let len = run.end - run.start;
        match fallocate(&file, flags, offset + run.start, len) {
            Err(Errno::OPNOTSUPP) => return Ok(None),
            done => done.map_err(|why| Error::Discard { source: why.into() })?,
        }
        bytes += len;
    }
    Ok(Some(bytes))
}
