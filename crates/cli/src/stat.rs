//! `ext2dax stat`.

use std::io::Write;

use anyhow::Result;
use ext2dax::{Attributes, FileSystem};

use crate::args::{Args, Stat};
use crate::{for_each_path, show};

pub(crate) fn run(
    args: &Args,
    options: &Stat,
    fs: &FileSystem,
    out: &mut dyn Write,
) -> Result<bool> {
    for_each_path(args, &options.paths, |path| {
        let metadata = fs.symlink_metadata(path.as_os_str())?;
        let name = show::name(path.as_encoded_bytes());
        let target = if metadata.is_symlink() {
            Some(show::name(&fs.read_link(path.as_os_str())?))
        } else {
            None
        };
        if args.json {
            let mut object = show::attributes(metadata.attributes());
            object["path"] = name.into();
            if let Some(target) = target {
                object["target"] = target.into();
            }
            writeln!(out, "{object}")?;
            return Ok(());
        }
        let shown = target.map_or_else(|| name.clone(), |target| format!("{name} -> {target}"));
        text(&shown, metadata.attributes(), out)
    })
}

fn text(name: &str, inode: &Attributes, out: &mut dyn Write) -> Result<()> {
    writeln!(out, "  File: {name}")?;
    writeln!(
        out,
        "  Size: {:<15} Sectors: {:<10} Block: {:<6} {}",
        inode.size,
        inode.sectors,
        inode.block_size,
        show::kind(inode.file_type)
    )?;
    writeln!(
        out,
        " Inode: {:<15} Links: {:<12} Generation: {}",
        inode.ino, inode.links, inode.generation
    )?;
    writeln!(
        out,
        "Access: ({:04o}/{})  Uid: {}  Gid: {}",
        inode.permissions,
        show::mode(inode),
        inode.uid,
        inode.gid
    )?;
    if let Some(device) = inode.device {
        writeln!(out, "Device: {}, {}", device.major, device.minor)?;
    }
    if !inode.flags.is_empty() {
        writeln!(out, " Flags: {:#x} {:?}", inode.flags.bits(), inode.flags)?;
    }
    writeln!(out, "Access: {}", show::exact_time(inode.accessed))?;
    writeln!(out, "Modify: {}", show::exact_time(inode.modified))?;
    writeln!(out, "Change: {}", show::exact_time(inode.changed))?;
    if let Some(created) = inode.created {
        writeln!(out, " Birth: {}", show::exact_time(created))?;
    }
    Ok(())
}
