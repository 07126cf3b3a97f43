//! What must hold in every crash state.

use anyhow::{Context, Result, bail, ensure};
use ext2dax::{FileSystem, MountOptions};
use ext2dax_fsck::{CheckOptions, Severity};

use super::CrashState;
use super::preen::E2fsck;
use super::scenario::{Promise, Recording, SECRET, medium};
use super::shown::{self, Tree};

const LOST_FOUND: &[u8] = b"/lost+found";

/// Our checker finds nothing but what an interrupted operation may leave.
///
/// # Errors
/// The first finding that is Damage, as the checker prints it.
pub fn residue_only(image: &[u8]) -> Result<()> {
    let options = CheckOptions {
        threads: 1,
        ..CheckOptions::default()
    };
    let report = ext2dax_fsck::check(&medium(image)?, &options).context("our checker gives up")?;
    if let Some(finding) = report.with_severity(Severity::Damage).next() {
        bail!("our checker: {}: {}", finding.code.word(), finding.text());
    }
    Ok(())
}

/// e2fsck repairs without asking and leaves nothing behind; what it made of the image shows the names of before or after,
/// and nobody else's bytes. Sizes may be rounded up to blocks: that is what it does to blocks past the end.
///
/// # Errors
/// Its exit status and what it printed, or what is wrong with the result.
pub fn preened(judge: &E2fsck, recording: &Recording, image: &[u8]) -> Result<()> {
    let verdict = judge.preen(image)?;
    ensure!(verdict.is_good(), "{verdict}");
    let fs = FileSystem::mount_pmem(
        medium(&verdict.image)?,
        &MountOptions::new().read_only(true),
    )
    .context("mount")?;
    let shown = shown::read(&fs).context("read the preened tree")?;
    no_foreign_bytes(&shown).context("after e2fsck -p")?;
    no_lost_attributes(recording, &shown).context("after e2fsck -p")?;
    if matches!(
        recording.promise,
        Promise::EachName | Promise::EmptyTargetMayGo
    ) {
        return each_name(recording, &shown).context("after e2fsck -p");
    }
    ensure!(
        names(&shown) == names(&recording.before) || names(&shown) == names(&recording.after),
        "after e2fsck -p a name is wrong: {:?}",
        shown.keys()
    );
    Ok(())
}

fn no_foreign_bytes(shown: &Tree) -> Result<()> {
    for (path, node) in shown {
        let leak = node.contents.iter().position(|byte| *byte == SECRET);
        ensure!(
            leak.is_none(),
            "{} shows foreign bytes at {leak:?}",
            path.escape_ascii()
        );
    }
    Ok(())
}

/// A file's attributes are those of before or of after.
fn no_lost_attributes(recording: &Recording, shown: &Tree) -> Result<()> {
    for (path, node) in shown {
        let as_in = |tree: &Tree| {
            tree.get(path)
                .is_some_and(|was| was.attributes == node.attributes)
        };
        let new = !recording.before.contains_key(path) && !recording.after.contains_key(path);
        ensure!(
            new || as_in(&recording.before) || as_in(&recording.after),
            "{}: {node:?} has attributes of its own",
            path.escape_ascii()
        );
    }
    Ok(())
}

fn names(tree: &Tree) -> Vec<(&[u8], u32)> {
    tree.iter()
        .map(|(path, node)| (path.as_slice(), node.mode))
        .collect()
}

/// Our mount completes or undoes the operation: the tree is the one before or the one after, and the one after once the
/// call had returned. Unmounted, the image has no more than residue.
///
/// # Errors
/// The difference to the tree that comes closest.
pub fn before_or_after(recording: &Recording, state: &CrashState<'_>) -> Result<()> {
    let returned = state.marks.len() == 2;
    let mut shown = recover(state.image)?;
    if let Some(low) = shown::count_below_names(&shown) {
        bail!("link count below names: {low}");
    }
    no_foreign_bytes(&shown)?;
    let Some(not_after) = shown::difference(&shown, &recording.after) else {
        return Ok(());
    };
    ensure!(
        !returned,
        "the call had returned, but its effect is lost: {not_after}"
    );
    if !recording.before.contains_key(LOST_FOUND) {
        // Made on the way, by an operation of its own.
        if shown.remove(LOST_FOUND).is_some()
            && let Some(root) = shown.get_mut(b"".as_slice())
        {
            root.links -= 1;
        }
    }
    let Some(not_before) = shown::difference(&shown, &recording.before) else {
        return Ok(());
    };
    match recording.promise {
        Promise::Contents => all_but_contents(recording, &shown),
        _ => bail!("neither before ({not_before}) nor after ({not_after})"),
    }
}

/// What a crash leaked: free blocks and inodes that a mount gives back only on request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leaked {
    /// Blocks.
    pub blocks: u64,
    /// Inodes.
    pub inodes: u64,
}

/// A mount that gives back what has leaked leaves a clean image, and shows what one that does not would show.
///
/// # Errors
/// What a checker finds, ours in every state and e2fsck where it is asked.
pub fn reclaimed(state: &CrashState<'_>, judge: Option<&E2fsck>) -> Result<Leaked> {
    let free = |options: &MountOptions| -> Result<_> {
        let pmem = medium(state.image)?;
        let fs = FileSystem::mount_pmem(pmem.clone(), options).context("mount")?;
        let (shown, counts) = (shown::read(&fs)?, fs.statfs());
        fs.unmount().context("unmount")?;
        Ok((shown, counts, super::scenario::contents(&pmem)))
    };
    let (plain, before, _) = free(&MountOptions::new())?;
    let (shown, after, image) = free(&MountOptions::new().reclaim(true))?;
    if let Some(difference) = shown::difference(&shown, &plain) {
        bail!("what had leaked was somebody's: {difference}");
    }
    let report = ext2dax_fsck::check(&medium(&image)?, &CheckOptions::default())?;
    if let Some(finding) = report.findings.first() {
        bail!("our checker: {}: {}", finding.code.word(), finding.text());
    }
    ensure!(
        image[1024 + 58] & 1 == 1,
        "the image is not marked as clean"
    );
    if let Some(judge) = judge {
        let (status, output) = judge.check(&image)?;
        ensure!(status == 0, "e2fsck -fn exits {status}: {output}");
    }
    let leaked = |after: u64, before: u64| after.checked_sub(before).context("less is free");
    Ok(Leaked {
        blocks: leaked(after.blocks_free, before.blocks_free)?,
        inodes: leaked(after.inodes_free, before.inodes_free)?,
    })
}

fn each_name(recording: &Recording, shown: &Tree) -> Result<()> {
    let Recording { before, after, .. } = recording;
    for (path, node) in shown {
        let as_in = |tree: &Tree| {
            tree.get(path)
                .is_some_and(|was| (was.mode, &was.contents) == (node.mode, &node.contents))
        };
        let hidden = path.starts_with(b"/lost+found/#");
        ensure!(
            hidden || as_in(before) || as_in(after),
            "{}: {node:?} is new",
            path.escape_ascii()
        );
    }
    let may_go = |path: &[u8]| {
        recording.promise == Promise::EmptyTargetMayGo && before[path].ino != after[path].ino
    };
    let lost = before
        .keys()
        .find(|path| after.contains_key(*path) && !shown.contains_key(*path) && !may_go(path));
    ensure!(lost.is_none(), "a name that was to stay is gone: {lost:?}");
    let object = |tree: &Tree, ino: u32| tree.values().any(|node| node.ino == ino);
    let lost = after
        .values()
        .find(|node| object(before, node.ino) && !object(shown, node.ino));
    ensure!(lost.is_none(), "nothing leads to {lost:?} any more");
    Ok(())
}

fn all_but_contents(recording: &Recording, shown: &Tree) -> Result<()> {
    ensure!(
        names(shown) == names(&recording.before) || names(shown) == names(&recording.after),
        "a name is wrong"
    );
    for (path, node) in shown {
        let size_in = |tree: &Tree| tree.get(path).is_some_and(|was| was.size == node.size);
        let known = size_in(&recording.before) || size_in(&recording.after);
        ensure!(
            known,
            "{}: {node:?} has a size of its own",
            path.escape_ascii()
        );
    }
    Ok(())
}

/// Mounts a copy for writing, as it was left; what the mount shows after its recovery.
fn recover(image: &[u8]) -> Result<Tree> {
    let pmem = medium(image)?;
    let fs = FileSystem::mount_pmem(pmem.clone(), &MountOptions::new()).context("mount")?;
    let shown = shown::read(&fs).context("read the tree")?;
    fs.unmount().context("unmount")?;
    residue_only(&super::scenario::contents(&pmem)).context("after recovery")?;
    Ok(shown)
}
