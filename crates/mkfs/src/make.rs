//! Whole images in one call.

use std::fs::File;
use std::path::Path;

use ext2dax_pmem::{Access, AnonRegion, FileRegion, Pmem};

use crate::{Before, Options, Plan};

/// Makes an image as a new sparse file, `len` bytes long less what is no whole block or group. A file of that name is
/// emptied first.
///
/// # Errors
/// What the operating system says, or a [`Refusal`](crate::Refusal).
pub fn make_file(path: impl AsRef<Path>, options: &Options, len: u64) -> anyhow::Result<Plan> {
    let path = path.as_ref();
    let plan = Plan::new(options, len)?;
    File::create(path)?.set_len(len)?;
    let region = FileRegion::open(path, Access::ReadWrite)?;
    plan.write_with(&Pmem::new(region), Before::Zeroes, |_| {})?;
    Ok(plan)
}

/// Makes an image in memory.
///
/// # Errors
/// No memory, or a [`Refusal`](crate::Refusal).
pub fn make_memory(options: &Options, len: u64) -> anyhow::Result<Pmem> {
    let plan = Plan::new(options, len)?;
    let pmem = Pmem::new(AnonRegion::new(plan.len_bytes())?);
    plan.write_with(&pmem, Before::Zeroes, |_| {})?;
    Ok(pmem)
}
