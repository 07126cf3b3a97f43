//! The tool `ext2dax` as tests start it: what a user's binary runs, built along with the tests.

use std::process::ExitCode;

fn main() -> ExitCode {
    ext2dax_cli::main()
}
