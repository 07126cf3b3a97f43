//! `ext2dax`: look into an ext2 image.

use std::process::ExitCode;

fn main() -> ExitCode {
    ext2dax_cli::main()
}
