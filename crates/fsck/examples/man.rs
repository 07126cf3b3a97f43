//! Prints the manual page of `fsck.ext2dax`.

use std::io::{self, Write as _};

#[path = "../src/program/options.rs"]
#[expect(
    dead_code,
    reason = "the program reads the options; the page only names them"
)]
mod options;

fn main() -> io::Result<()> {
    let mut page = Vec::new();
    clap_mangen::Man::new(options::command())
        .section("8")
        .render(&mut page)?;
    io::stdout().write_all(&page)
}
