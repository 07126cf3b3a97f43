//! `-E`: keys with values, separated by commas. Several `-E` add up.

use anyhow::{Context as _, bail};

use super::args::Request;
use super::size;

pub(crate) fn apply(lists: &[String], request: &mut Request) -> anyhow::Result<()> {
    for word in lists
        .iter()
        .flat_map(|list| list.split(','))
        .filter(|word| !word.is_empty())
    {
        let (key, value) = word
            .split_once('=')
            .map_or((word, None), |(key, value)| (key, Some(value)));
        apply_one(key, value, request).with_context(|| format!("-E {word}"))?;
    }
    Ok(())
}

fn apply_one(key: &str, value: Option<&str>, request: &mut Request) -> anyhow::Result<()> {
    let options = &mut request.options;
    let needed = || value.context("needs a value");
    let number = || -> anyhow::Result<u32> { needed()?.parse().ok().context("not a number") };
    match key {
        "offset" => {
            request.offset = size::parse_size(needed()?, 1)?;
            if !request.offset.is_multiple_of(512) {
                bail!("must be a multiple of 512");
            }
        }
        "root_owner" => options.root_owner = root_owner(value)?,
        "root_perms" => {
            let mode = u16::from_str_radix(needed()?, 8)
                .ok()
                .filter(|&mode| mode <= 0o7777);
            options.root_mode = mode.context("must be octal, 0 to 7777")?;
        }
        "hash_seed" => {
            let uuid = uuid::Uuid::try_parse(needed()?)
                .ok()
                .context("not a UUID")?;
            options.hash_seed = Some(*uuid.as_bytes());
        }
        "num_backup_sb" => {
            options.backup_superblocks = number()?;
            request.backups_given = true;
            if options.backup_superblocks > 2 {
                bail!("must be 0, 1 or 2");
            }
        }
        "resize" => {
            // A bare number counts blocks, as for mke2fs.
            let bytes = size::parse_size(needed()?, options.block_size)?;
            let blocks = u32::try_from(bytes / u64::from(options.block_size));
            options.resize_to = Some(blocks.context("more blocks than ext2 has")?);
        }
        "stride" => options.raid.0 = u16::try_from(number()?).context("must be below 65536")?,
        "stripe_width" | "stripe-width" => options.raid.1 = number()?,
        "revision" => options.revision = number()?,
        "share_xattr_blocks" => request.share_attributes = true,
        "root_selinux" => request.root_label = Some(needed()?.to_owned()),
        "test_fs" => options.test_fs = true,
        "reproducible" => request.reproducible = true,
        "align" => match needed()? {
            "2M" | "2m" => request.align = true,
            "none" => request.align = false,
            _ => bail!("must be 2M or none"),
        },
        "align_base" => request.align_base = Some(size::parse_size(needed()?, 1)?),
        "no_copy_xattrs" => request.no_attributes = true,
        "discard" => request.discard = true,
        "nodiscard" => request.discard = false,
        "lazy_itable_init" => {
            request
                .notes
                .push(format!("-E {key}: changes nothing here"));
        }
        "assume_storage_prezeroed" => request.prezeroed = value != Some("0"),
        "encoding" | "encoding_flags" => bail!("casefold is an ext4 feature"),
        "mmp_update_interval" => bail!("mmp is an ext4 feature"),
        "orphan_file_size" => bail!("orphan_file is an ext4 feature"),
        "packed_meta_blocks" => bail!("flex_bg is an ext4 feature"),
        "lazy_journal_init" => bail!("a journal is an ext3 feature"),
        "quotatype" => bail!("quota is an ext4 feature"),
        _ => bail!("unknown key"),
    }
    Ok(())
}

/// `U:G`; without a value the caller's own numbers, as mke2fs does.
fn root_owner(value: Option<&str>) -> anyhow::Result<(u32, u32)> {
    let Some(value) = value else {
        return Ok(own_ids());
    };
    let (uid, gid) = value.split_once(':').context("must be UID:GID")?;
    Ok((
        uid.parse().context("not a user number")?,
        gid.parse().context("not a group number")?,
    ))
}

#[cfg(unix)]
fn own_ids() -> (u32, u32) {
    use std::os::unix::fs::MetadataExt as _;
    // The owner of /proc/self is the process's effective user and group.
    std::fs::metadata("/proc/self").map_or((0, 0), |meta| (meta.uid(), meta.gid()))
}

#[cfg(not(unix))]
fn own_ids() -> (u32, u32) {
    (0, 0)
}
