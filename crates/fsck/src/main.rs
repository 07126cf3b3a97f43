//! `fsck.ext2dax`: checks ext2 images with e2fsck's options and exit status.

mod program;

use std::process::ExitCode;

fn main() -> ExitCode {
    program::run(std::env::args_os())
}
