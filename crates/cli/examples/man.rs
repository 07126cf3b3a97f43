//! Writes the manual pages of `ext2dax` into a folder, one for the tool, one for each command, and one for the helper of
//! mount(8).

use std::fs;
use std::io;
use std::path::PathBuf;

fn main() -> io::Result<()> {
    let folder = PathBuf::from(std::env::args_os().nth(1).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            "which folder are the pages for?",
        )
    })?);
    fs::create_dir_all(&folder)?;
    let command = ext2dax_cli::command().disable_help_subcommand(true);
    clap_mangen::generate_to(command, &folder)?;
    fs::write(folder.join("mount.ext2dax.8"), ".so man1/ext2dax-mount.1\n")
}
