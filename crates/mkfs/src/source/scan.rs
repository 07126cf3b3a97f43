//! Which blocks of the files hold something: a block of zero bytes becomes a hole, whatever the source's own layout,
//! so that equal bytes make equal images.

use std::ops::Range;
use std::os::fd::AsFd as _;

use ext2dax_pmem::Buffer;
use rustix::fs::SeekFrom;

use super::{Blocks, Contents, Data, Open, SourceError};
use crate::few::Few;
use crate::parallel;
use crate::tree::{Body, NodeId, Tree};

/// What becomes a hole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Holes {
    /// Blocks of zero bytes.
    #[default]
    Zeroes,
    /// What is a hole in the source. Zero bytes that the source stores are stored here, too.
    Keep,
    /// Nothing: every block is allocated.
    Fill,
}

/// How much of the files is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// Every byte.
    All,
    /// Of large files without holes some samples: they are read once then, when they are copied, and whoever copies them
    /// sees whether that was right.
    Samples,
}

/// Bytes that one step of a thread looks at; larger files are shared by several threads.
const STEP: u64 = 16 << 20;
/// Bytes read at a time: a buffer of this size stays in the processor's cache.
const BUFFER: usize = 256 << 10;

/// A part of a file for a thread.
type Step = (NodeId, u64, u64);

/// Finds the blocks of all files.
///
/// # Errors
/// The first file, in the order of the tree, that cannot be read.
pub(crate) fn run(
    tree: &mut Tree,
    files: &[NodeId],
    block_size: u32,
    (holes, look): (Holes, Look),
    threads: usize,
) -> Result<(), SourceError> {
    let mut sampled: Vec<NodeId> = Vec::new();
    let mut steps: Vec<Step> = Vec::new();
    for &id in files {
        let Body::Regular(contents) = &tree.node(id).body else {
            continue;
        };
        match in_memory(contents, tree, block_size, holes) {
            Some(found) => give(tree, id, found),
            None if look == Look::Samples
                && holes == Holes::Zeroes
                && seems_full(contents, tree, block_size)? =>
            {
                sampled.push(id);
            }
            None => split(contents, tree, block_size, holes, |from, to| {
                steps.push((id, from, to));
            })?,
        }
    }
    let batches = batches(&steps);
    let found = {
        let (tree, steps) = (&*tree, &steps);
        let buffer = || Buffer::new(BUFFER);
        parallel::try_map(batches.len(), threads, buffer, |buffer, nr| {
            let found = steps[batches[nr].clone()].iter().map(|(id, from, to)| {
                let Body::Regular(contents) = &tree.node(*id).body else {
                    return Ok(Few::None);
                };
                scan(contents, tree, *from..*to, block_size, holes, buffer)
            });
            found.collect::<Result<Vec<_>, SourceError>>()
        })?
    };
    for id in sampled {
        if let Body::Regular(contents) = &mut tree.node_mut(id).body {
            let len = contents.size.div_ceil(u64::from(block_size));
            let len = u32::try_from(len).expect("sizes were checked before");
            push(&mut contents.blocks, Blocks { start: 0, len });
            contents.sampled = true;
        }
    }
    for (&(id, ..), found) in steps.iter().zip(found.into_iter().flatten()) {
        give(tree, id, found);
    }
    Ok(())
}

/// Whether a large file has no hole, and no block of zeroes in any of the samples.
fn seems_full(contents: &Contents, tree: &Tree, block_size: u32) -> Result<bool, SourceError> {
    const SAMPLES: u64 = 16;
    if contents.size < STEP {
        return Ok(false);
    }
    let open = contents.open(tree)?;
    if !open.is_allocated() {
        return Ok(false);
    }
    let mut bytes = Buffer::new(BUFFER);
    for nr in 0..SAMPLES {
        let at = contents.size / SAMPLES * nr;
        open.read_at(at - at % u64::from(block_size), &mut bytes)?;
        // Programs and libraries have padding between their parts, which is seldom in a sample.
        let padded = nr == 0 && (bytes.starts_with(b"\x7fELF") || bytes.starts_with(b"!<arch>\n"));
        if padded || has_zeroes(&bytes, block_size) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether one of the blocks is zero.
pub(crate) fn has_zeroes(bytes: &[u8], block_size: u32) -> bool {
    bytes.chunks(block_size as usize).any(is_zero)
}

/// Adds blocks that were found.
fn give(tree: &mut Tree, id: NodeId, found: Few<Blocks>) {
    if let Body::Regular(contents) = &mut tree.node_mut(id).body {
        if contents.blocks.is_empty() {
            contents.blocks = found;
        } else {
            found
                .iter()
                .for_each(|blocks| push(&mut contents.blocks, *blocks));
        }
    }
}

/// The blocks of a file whose bytes are here already, and few.
fn in_memory(
    contents: &Contents,
    tree: &Tree,
    block_size: u32,
    holes: Holes,
) -> Option<Few<Blocks>> {
    const FEW: usize = 64 << 10;
    let (Data::Bytes(_) | Data::Kept(..)) = contents.data else {
        return None;
    };
    let Ok(Open::Bytes(bytes)) = contents.open(tree) else {
        return None;
    };
    (bytes.len() <= FEW).then(|| {
        let mut found = Few::None;
        for (start, block) in (0..).zip(bytes.chunks(block_size as usize)) {
            if holes != Holes::Zeroes || !is_zero(block) {
                push(&mut found, Blocks { start, len: 1 });
            }
        }
        found
    })
}

/// Runs of steps for one thread: many small ones, so that the threads do not meet too often, or one large one.
fn batches(steps: &[Step]) -> Vec<Range<usize>> {
    const FILES: usize = 64;
    let (mut all, mut first, mut bytes) = (Vec::new(), 0, 0);
    for (nr, (_, from, to)) in steps.iter().enumerate() {
        bytes += to - from;
        if bytes >= STEP / 4 || nr + 1 - first == FILES || nr + 1 == steps.len() {
            all.push(first..nr + 1);
            (first, bytes) = (nr + 1, 0);
        }
    }
    all
}

/// The steps of a file: ranges that start on whole blocks, without the large holes.
fn split(
    contents: &Contents,
    tree: &Tree,
    block_size: u32,
    holes: Holes,
    mut step: impl FnMut(u64, u64),
) -> Result<(), SourceError> {
    if contents.size <= STEP {
        if contents.size > 0 {
            step(0, contents.size);
        }
        return Ok(());
    }
    let open = contents.open(tree)?;
    let mut at = 0;
    // Where each byte has a place there is no hole to ask for; asking takes a walk over all pages.
    let is_whole = holes != Holes::Keep && open.is_allocated();
    let next = |at| match is_whole {
        true => Ok((at < contents.size).then_some((at, contents.size))),
        false => next_data(&open, at, contents.size, block_size),
    };
    while let Some((start, stop)) = next(at)? {
        at = start;
        while at < stop {
            let to = (at - at % STEP + STEP).min(stop);
            step(at, to);
            at = to;
        }
    }
    Ok(())
}

/// The blocks of one step.
fn scan(
    contents: &Contents,
    tree: &Tree,
    range: Range<u64>,
    block_size: u32,
    holes: Holes,
    buffer: &mut [u8],
) -> Result<Few<Blocks>, SourceError> {
    let (from, end) = (range.start, range.end);
    let mut found = Few::None;
    let number = |offset: u64| {
        u32::try_from(offset / u64::from(block_size)).expect("sizes were checked before")
    };
    let blocks = |from: u64, to: u64| {
        let start = number(from);
        Blocks {
            start,
            len: number(to.next_multiple_of(u64::from(block_size))) - start,
        }
    };
    if holes == Holes::Fill {
        found.push(blocks(from, end));
        return Ok(found);
    }
    let open = contents.open(tree)?;
    let mut at = from;
    // The steps of a large file are without its holes already; a small one is read faster than asked about.
    let is_data =
        matches!(open, Open::File(..)) && (contents.size > STEP || holes == Holes::Zeroes);
    let next = |at| match is_data {
        true => Ok((at < end).then_some((at, end))),
        false => next_data(&open, at, end, block_size),
    };
    while let Some((start, stop)) = next(at)? {
        if holes == Holes::Keep {
            push(&mut found, blocks(start, stop));
            at = stop;
            continue;
        }
        at = start;
        while at < stop {
            let len = usize::try_from(stop - at).unwrap_or(BUFFER).min(BUFFER);
            open.read_at(at, &mut buffer[..len])?;
            for (nr, block) in (0_u64..).zip(buffer[..len].chunks(block_size as usize)) {
                if !is_zero(block) {
                    let offset = at + nr * u64::from(block_size);
                    push(&mut found, blocks(offset, offset + 1));
                }
            }
            at += len as u64;
        }
    }
    Ok(found)
}

/// The next range from `at` on that may hold something: whole blocks, but for the last one before `end`.
fn next_data(
    open: &Open<'_>,
    at: u64,
    end: u64,
    block_size: u32,
) -> Result<Option<(u64, u64)>, SourceError> {
    /// Files below this are read whole: asking costs more.
    const ASK: u64 = 64 << 10;
    if at >= end {
        return Ok(None);
    }
    let whole = |start: u64, stop: u64| {
        let block_size = u64::from(block_size);
        let start = (start - start % block_size).max(at);
        Some((start, stop.next_multiple_of(block_size).min(end)))
    };
    match open {
        Open::Bytes(_) => Ok(Some((at, end))),
        Open::Pieces(_, pieces) => {
            let first = pieces.partition_point(|piece| piece.offset + piece.len <= at);
            let next = pieces.get(first).filter(|piece| piece.offset < end);
            Ok(next.and_then(|piece| whole(piece.offset.max(at), piece.offset + piece.len)))
        }
        Open::File(_, _, stamp) if stamp.size < ASK => Ok(Some((at, end))),
        Open::File(file, _, _) => {
            let Ok(start) = rustix::fs::seek(file.as_fd(), SeekFrom::Data(at)) else {
                // Nothing but a hole up to the end, or a file system that cannot tell.
                let knows = rustix::fs::seek(file.as_fd(), SeekFrom::Hole(at)).is_ok();
                return Ok((!knows).then_some((at, end)));
            };
            let stop = rustix::fs::seek(file.as_fd(), SeekFrom::Hole(start)).unwrap_or(end);
            Ok(whole(start, stop).filter(|_| start < end))
        }
    }
}

/// Adds blocks behind those that are there.
fn push(to: &mut Few<Blocks>, blocks: Blocks) {
    match to.last_mut() {
        // Pieces that are no whole blocks may name a block twice.
        Some(last) if last.end() >= u64::from(blocks.start) => {
            let end = last.end().max(blocks.end());
            last.len = u32::try_from(end - u64::from(last.start)).unwrap_or(u32::MAX);
        }
        _ => to.push(blocks),
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<16>();
    words.iter().all(|word| u128::from_le_bytes(*word) == 0) && rest.iter().all(|&byte| byte == 0)
}
