//! `ext2dax cat`.

use std::io::Write;

use anyhow::Result;
use ext2dax::FileSystem;

use crate::args::{Args, Cat};
use crate::for_each_path;

pub(crate) fn run(
    args: &Args,
    options: &Cat,
    fs: &FileSystem,
    out: &mut dyn Write,
) -> Result<bool> {
    let mut buffer = vec![0; 1 << 20];
    for_each_path(args, &options.paths, |path| {
        let file = fs.open(path.as_os_str())?;
        let mut at = 0;
        loop {
            let read = file.read_at(&mut buffer[..], at)?;
            if read == 0 {
                return Ok(());
            }
            out.write_all(&buffer[..read])?;
            at += read as u64;
        }
    })
}
