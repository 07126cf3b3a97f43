//! Prints the manual page of `mkfs.ext2dax`.

use std::io::{self, Write as _};

fn main() -> io::Result<()> {
    let mut page = Vec::new();
    clap_mangen::Man::new(ext2dax_mkfs::program::command())
        .section("8")
        .render(&mut page)?;
    io::stdout().write_all(&page)
}
