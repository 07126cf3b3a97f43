//! What the program says about a plan.

use std::io::{self, Write};

use serde_json::json;

use super::Planned;
use super::args::Args;
use super::target::Target;
use crate::{FilledPlan, Plan};

/// The plan, or what was made of it.
pub(crate) fn plan(
    args: &Args,
    image: &Planned,
    target: &Target,
    warnings: &[String],
    made: bool,
) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    if args.json {
        return Ok(print_json(&mut out, image, target, warnings, made)?);
    }
    if args.quiet {
        return Ok(());
    }
    Ok(print_text(&mut out, args, image, target, made)?)
}

fn print_text(
    out: &mut impl Write,
    args: &Args,
    image: &Planned,
    target: &Target,
    made: bool,
) -> io::Result<()> {
    let plan = image.plan();
    let (geometry, raw) = (plan.geometry(), plan.superblock());
    let verb = match (made, args.super_only) {
        (true, false) => "made",
        (true, true) => "wrote the superblocks and descriptors of",
        (false, false) => "would make",
        (false, true) => "would write the superblocks and descriptors of",
    };
    writeln!(
        out,
        "{}: {verb} {} bytes: {} blocks of {}, {} groups, {} inodes of {}",
        target.name(),
        plan.len_bytes(),
        geometry.blocks_count(),
        geometry.block_size(),
        geometry.groups(),
        geometry.inodes_count(),
        geometry.inode_size()
    )?;
    let filled = image.filled();
    let id = match filled {
        // Nobody knows it before the bytes are read.
        Some(filled) if !made && filled.uuid_follows() => "from the contents".to_owned(),
        _ => uuid(plan).to_string(),
    };
    writeln!(
        out,
        "UUID {id}, features {}",
        geometry.features().names(",")
    )?;
    if let Some(filled) = filled {
        contents(out, filled)?;
    }
    if plan.left_off() > 0 {
        writeln!(
            out,
            "{} blocks at the end are too few for a group and stay unused",
            plan.left_off()
        )?;
    }
    if args.verbose || !made {
        writeln!(
            out,
            "{} blocks free, {} reserved; {} blocks and {} inodes a group; {} descriptor blocks reserved for growing",
            raw.s_free_blocks_count,
            geometry.reserved_blocks(),
            geometry.blocks_per_group(),
            geometry.inodes_per_group(),
            geometry.reserved_gdt_blocks()
        )?;
        let backups: Vec<String> = plan.backups().iter().map(u32::to_string).collect();
        let backups = if backups.is_empty() {
            "none".to_owned()
        } else {
            backups.join(", ")
        };
        writeln!(out, "backup superblocks: {backups}")?;
    }
    Ok(())
}

fn contents(out: &mut impl Write, filled: &FilledPlan) -> io::Result<()> {
    writeln!(
        out,
        "{} files, {} KiB in blocks",
        filled.files(),
        filled.data_bytes() / 1024
    )?;
    let coverage = filled.coverage();
    if coverage.large_bytes > 0 {
        writeln!(
            out,
            "{} files of 2 MiB and more: {}.{:02} % of their bytes in whole aligned steps of 2 MiB",
            coverage.large_files,
            coverage.aligned_bytes * 100 / coverage.large_bytes.max(1),
            coverage.aligned_bytes * 10_000 / coverage.large_bytes.max(1) % 100
        )?;
    }
    Ok(())
}

fn print_json(
    out: &mut impl Write,
    image: &Planned,
    target: &Target,
    warnings: &[String],
    made: bool,
) -> io::Result<()> {
    let plan = image.plan();
    let (geometry, raw) = (plan.geometry(), plan.superblock());
    let features = geometry.features().names(",").to_string();
    let mut object = json!({
        "schema": 1,
        "image": target.name().to_string(),
        "made": made,
        "bytes": plan.len_bytes(),
        "block_size": geometry.block_size(),
        "blocks": geometry.blocks_count(),
        "blocks_free": raw.s_free_blocks_count.get(),
        "blocks_reserved": geometry.reserved_blocks(),
        "blocks_left_off": plan.left_off(),
        "blocks_per_group": geometry.blocks_per_group(),
        "groups": geometry.groups(),
        "inodes": geometry.inodes_count(),
        "inodes_free": raw.s_free_inodes_count.get(),
        "inodes_per_group": geometry.inodes_per_group(),
        "inode_size": geometry.inode_size(),
        "revision": geometry.revision(),
        "reserved_gdt_blocks": geometry.reserved_gdt_blocks(),
        "features": features.split(',').filter(|name| !name.is_empty()).collect::<Vec<_>>(),
        "backups": plan.backups(),
        "uuid": uuid(plan).to_string(),
        "warnings": warnings,
        "label": String::from_utf8_lossy(raw.volume_name()),
    });
    if let Some(filled) = image.filled() {
        if !made && filled.uuid_follows() {
            object["uuid"] = serde_json::Value::Null;
        }
        let coverage = filled.coverage();
        object["contents"] = json!({
            "files": filled.files(),
            "bytes_in_blocks": filled.data_bytes(),
            "digest": filled.content_digest().map(|digest| format!("{digest:032x}")),
            "clamped_times": filled.clamped_times(),
            "large_files": coverage.large_files,
            "large_bytes": coverage.large_bytes,
            "large_bytes_aligned": coverage.aligned_bytes,
        });
    }
    writeln!(out, "{object}")
}

fn uuid(plan: &Plan) -> uuid::Uuid {
    uuid::Uuid::from_bytes(plan.superblock().s_uuid)
}
