//! `mkfs.ext2dax`: make an ext2 image.

use std::process::ExitCode;

fn main() -> ExitCode {
    ext2dax_mkfs::program::main()
}
