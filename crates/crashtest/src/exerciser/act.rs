//! An operation carried out on the file and on the vector, and the answers compared.

use anyhow::{Result, bail, ensure};
use ext2dax::pmem::{UserSlice, UserSliceMut};
use ext2dax::{Error, Fallocate, FileExtent};

use super::plan::{Op, Which};
use super::shown::{PAGE, Trouble};
use super::{Exerciser, Options};

/// What became of an operation, for the log.
#[derive(Clone, Copy, Debug)]
pub(super) enum Outcome {
    /// It was carried out, so many bytes of it.
    Done(u64),
    /// It was refused, as it had to be.
    Refused(Error),
    /// Nothing was there to be done.
    Skipped,
    /// It is the one that failed.
    Wrong,
}

/// What a write may answer.
fn count(
    options: &Options,
    found: Result<u64, Error>,
    wanted: Result<u64, Error>,
) -> Result<Outcome> {
    match (found, wanted) {
        (found, wanted) if found == wanted => Ok(match found {
            Ok(done) => Outcome::Done(done),
            Err(error) => Outcome::Refused(error),
        }),
        // Where space runs out a write is short, and one that has not begun is an error.
        (Ok(done), Ok(wanted)) if options.tight && done < wanted && done > 0 => {
            Ok(Outcome::Done(done))
        }
        (Err(Error::NoSpace), Ok(_)) if options.tight => Ok(Outcome::Refused(Error::NoSpace)),
        (found, wanted) => bail!("the answer is {found:?}, and should be {wanted:?}"),
    }
}

/// Bytes that tell where they came from.
fn pattern(pos: u64, len: u64, fill: u8) -> Vec<u8> {
    (pos..pos + len)
        .map(|at| {
            fill.wrapping_add((at >> 9) as u8)
                .wrapping_add(at as u8 & 7)
                | 1
        })
        .collect()
}

/// Cuts `len` bytes into a few pieces of odd lengths.
fn cuts(pos: u64, len: usize) -> Vec<usize> {
    let mut cuts: Vec<usize> = (0..5).map(|n| len * n / 4).collect();
    if len > 16 {
        cuts[1] = (pos % 7) as usize;
        cuts[3] = len - (pos % 5) as usize;
    }
    cuts
}

impl Exerciser {
    pub(super) fn act(&mut self, op: Op) -> Result<Outcome> {
        match op {
            Op::Read { file, pos, len } => self.read(file, pos, len),
            Op::ReadPieces { file, pos, len } => self.read_pieces(file, pos, len),
            Op::Write {
                file,
                pos,
                len,
                fill,
            } => {
                let bytes = pattern(pos, len, fill);
                let found = self.stage.file(file).write_at(&bytes[..], pos);
                self.written(file, pos, &bytes, found)
            }
            Op::WritePieces {
                file,
                pos,
                len,
                fill,
            } => {
                let bytes = pattern(pos, len, fill);
                let parts: Vec<UserSlice<'_>> = cuts(pos, bytes.len())
                    .windows(2)
                    .map(|cut| UserSlice::from(&bytes[cut[0]..cut[1]]))
                    .collect();
                let found = self.stage.file(file).write_vectored_at(&parts, pos);
                self.written(file, pos, &bytes, found)
            }
            Op::Append { file, len, fill } => {
                let pos = self.bytes[file].size();
                let bytes = pattern(pos, len, fill);
                let found = self.stage.file(file).inode().append(&bytes[..]);
                if let Ok((at, _)) = found {
                    ensure!(
                        at == pos,
                        "an append went to {at:#x}, not to the end {pos:#x}"
                    );
                }
                self.written(file, pos, &bytes, found.map(|(_, done)| done))
            }
            Op::Copy {
                file,
                pos,
                to,
                to_pos,
                len,
            } => self.copy((file, pos), (to, to_pos), len),
            Op::Load { file, pos, len } => self.load(file, pos, len),
            Op::Store {
                file,
                pos,
                len,
                fill,
            } => self.store(file, pos, len, fill),
            Op::FromView {
                file,
                at,
                to,
                pos,
                len,
            } => self.from_view((file, at), (to, pos), len),
            Op::IntoView {
                file,
                at,
                from,
                pos,
                len,
            } => self.into_view((file, at), (from, pos), len),
            Op::Fallocate {
                file,
                how,
                pos,
                len,
            } => self.fallocate(file, how, pos, len),
            Op::Truncate { file, size } => {
                let found = self.stage.file(file).set_len(size).map(|()| size);
                let fits = size <= self.bytes[file].limit();
                let outcome = count(
                    &self.options,
                    found,
                    fits.then_some(size).ok_or(Error::FileTooLarge),
                )?;
                if fits {
                    self.bytes[file].resize(size);
                }
                Ok(outcome)
            }
            Op::Holes { file } => self.holes(file),
            Op::Map {
                file,
                pos,
                len,
                slot,
            } => {
                self.stage.map(file, pos, len, slot)?;
                Ok(Outcome::Done(0))
            }
            Op::Unmap { slot } => {
                self.stage.unmap(slot);
                Ok(Outcome::Done(0))
            }
            Op::Sync { file } => {
                self.stage.file(file).sync_all()?;
                Ok(Outcome::Done(0))
            }
            Op::SyncAll => {
                self.stage.fs().sync()?;
                Ok(Outcome::Done(0))
            }
            Op::Reopen { file } => {
                self.stage.reopen(file)?;
                Ok(Outcome::Done(0))
            }
            Op::Remount => {
                self.stage.down()?;
                self.stage.up()?;
                Ok(Outcome::Done(0))
            }
        }
    }

    pub(super) fn sizes_agree(&self) -> Result<()> {
        for file in 0..2 {
            let (found, wanted) = (self.stage.file(file).len()?, self.bytes[file].size());
            ensure!(
                found == wanted,
                "file {file} is {found:#x} bytes long, and should be {wanted:#x}"
            );
        }
        Ok(())
    }

    fn read(&mut self, file: Which, pos: u64, len: u64) -> Result<Outcome> {
        let mut bytes = vec![0xa5; len as usize];
        let done = self.stage.file(file).read_at(&mut bytes[..], pos)?;
        self.compare(file, pos, len, &bytes[..done], "read")
    }

    fn read_pieces(&mut self, file: Which, pos: u64, len: u64) -> Result<Outcome> {
        let mut bytes = vec![0xa5; len as usize];
        let done = {
            let cuts = cuts(pos, bytes.len());
            let mut rest = &mut bytes[..];
            let mut parts = Vec::new();
            for cut in cuts.windows(2) {
                let (part, more) = rest.split_at_mut(cut[1] - cut[0]);
                parts.push(UserSliceMut::from(part));
                rest = more;
            }
            self.stage.file(file).read_vectored_at(&mut parts, pos)?
        };
        self.compare(file, pos, len, &bytes[..done], "read in pieces")
    }

    fn compare(
        &mut self,
        file: Which,
        pos: u64,
        len: u64,
        found: &[u8],
        route: &str,
    ) -> Result<Outcome> {
        let wanted = self.bytes[file].readable(pos, len);
        ensure!(
            found.len() as u64 == wanted,
            "{route}: {} bytes, and should be {wanted}",
            found.len()
        );
        self.bytes[file].compare(pos, found, route)?;
        self.figures.compared += wanted;
        Ok(Outcome::Done(wanted))
    }

    pub(super) fn compare_all(&mut self) -> Result<()> {
        for file in 0..2 {
            let end = self.bytes[file].end();
            let base = end - self.bytes[file].window_len();
            self.read(file, base, end - base)?;
            self.read(file, base.saturating_sub(70_000), 70_000)?;
            self.holes(file)?;
        }
        Ok(())
    }

    fn written(
        &mut self,
        file: Which,
        pos: u64,
        bytes: &[u8],
        found: Result<usize, Error>,
    ) -> Result<Outcome> {
        let limit = self.bytes[file].limit();
        let wanted = match limit.saturating_sub(pos) {
            _ if bytes.is_empty() => Ok(0),
            0 => Err(Error::FileTooLarge),
            room => Ok(room.min(bytes.len() as u64)),
        };
        let outcome = count(&self.options, found.map(|done| done as u64), wanted)?;
        if let Outcome::Done(done) = outcome {
            self.bytes[file].write(pos, &bytes[..done as usize]);
        }
        Ok(outcome)
    }

    fn copy(
        &mut self,
        (from, pos): (Which, u64),
        (to, to_pos): (Which, u64),
        len: u64,
    ) -> Result<Outcome> {
        let found = self
            .stage
            .file(from)
            .copy_range(pos, self.stage.file(to), to_pos, len);
        let room = self.bytes[to].limit().saturating_sub(to_pos);
        let there = self.bytes[from].readable(pos, len);
        let inside = there.min(room);
        let wanted = if there > 0 && room == 0 {
            Err(Error::FileTooLarge)
        } else if from == to && to_pos + inside > pos && to_pos < pos + inside {
            Err(Error::InvalidArgument)
        } else {
            Ok(inside)
        };
        let outcome = count(&self.options, found, wanted)?;
        if let Outcome::Done(done) = outcome {
            let bytes = self.bytes[from].get(pos, done);
            self.bytes[to].write(to_pos, &bytes);
        }
        Ok(outcome)
    }

    /// Loads what a view shows of these bytes, page by page.
    fn load(&mut self, file: Which, pos: u64, len: u64) -> Result<Outcome> {
        let mut done = 0;
        for (at, len) in pages(pos, len) {
            let Some(view) = self.stage.view(file, at) else {
                continue;
            };
            let mut bytes = vec![0xa5; len as usize];
            let size = self.bytes[file].size();
            match view.load(at, &mut bytes)? {
                Ok(()) => {
                    ensure!(
                        at / PAGE * PAGE < size,
                        "a load past the end at {at:#x} succeeded"
                    );
                    // Behind the end, in its page, there may be anything that was stored there.
                    let inside = self.bytes[file].readable(at, len);
                    self.bytes[file].compare(at, &bytes[..inside as usize], "load")?;
                    self.figures.compared += inside;
                    done += inside;
                }
                Err(Trouble::PastEnd) => ensure!(
                    at / PAGE * PAGE >= size,
                    "SIGBUS inside the file, at {at:#x}"
                ),
                // A page of this process for which there was no space stays an error for a moment.
                Err(Trouble::NoSpace) if self.options.tight => {}
                Err(trouble) => bail!("a load got {trouble:?}"),
            }
        }
        Ok(Outcome::Done(done))
    }

    /// Stores through a view, page by page; also behind the end, in its page.
    fn store(&mut self, file: Which, pos: u64, len: u64, fill: u8) -> Result<Outcome> {
        let mut stored = 0;
        for (at, len) in pages(pos, len) {
            let Some(view) = self.stage.view(file, at) else {
                continue;
            };
            let bytes = pattern(at, len, fill);
            let size = self.bytes[file].size();
            match view.store(at, &bytes)? {
                Ok(()) => {
                    ensure!(
                        at / PAGE * PAGE < size,
                        "a store past the end at {at:#x} succeeded"
                    );
                    self.bytes[file].store(at, &bytes);
                    stored += len;
                }
                Err(Trouble::PastEnd) => ensure!(
                    at / PAGE * PAGE >= size,
                    "SIGBUS inside the file, at {at:#x}"
                ),
                Err(Trouble::NoSpace) if self.options.tight => {}
                Err(trouble) => bail!("a store got {trouble:?}"),
            }
        }
        Ok(if stored > 0 {
            Outcome::Done(stored)
        } else {
            Outcome::Skipped
        })
    }

    /// A write whose source faults as it is copied; the two ranges do not meet.
    #[expect(clippy::wrong_self_convention, reason = "the direction of a copy")]
    fn from_view(
        &mut self,
        (file, at): (Which, u64),
        (to, pos): (Which, u64),
        len: u64,
    ) -> Result<Outcome> {
        let len = self.bytes[file].readable(at, len);
        let view = self.stage.view(file, at);
        let Some(source) = view.and_then(|view| view.source(at, len)) else {
            return Ok(Outcome::Skipped);
        };
        let len = source.len() as u64;
        if file == to && pos + len > at && pos < at + len {
            return Ok(Outcome::Skipped);
        }
        let bytes = self.bytes[file].get(at, len);
        let found = self.stage.file(to).write_at(source, pos);
        if self.options.tight && found == Err(Error::BadAddress) {
            return Ok(Outcome::Refused(Error::BadAddress));
        }
        self.written(to, pos, &bytes, found)
    }

    /// A read whose destination faults as it is copied; the two ranges do not meet.
    #[expect(clippy::wrong_self_convention, reason = "the direction of a copy")]
    fn into_view(
        &mut self,
        (file, at): (Which, u64),
        (from, pos): (Which, u64),
        len: u64,
    ) -> Result<Outcome> {
        let len = self.bytes[file].readable(at, len);
        let view = self.stage.view(file, at);
        let Some(target) = view.and_then(|view| view.target(at, len)) else {
            return Ok(Outcome::Skipped);
        };
        let len = target.len() as u64;
        if file == from && pos + len > at && pos < at + len {
            return Ok(Outcome::Skipped);
        }
        let bytes = self.bytes[from].get(pos, self.bytes[from].readable(pos, len));
        let found = self.stage.file(from).read_at(target, pos);
        let done = match found {
            // No block for a hole under the destination.
            Err(Error::BadAddress) if self.options.tight && !bytes.is_empty() => 0,
            Ok(done) if done == bytes.len() || self.options.tight && done < bytes.len() => done,
            found => bail!(
                "a read into a view answers {found:?}, and should have {}",
                bytes.len()
            ),
        };
        self.bytes[file].store(at, &bytes[..done]);
        self.figures.compared += done as u64;
        Ok(Outcome::Done(done as u64))
    }

    fn fallocate(&mut self, file: Which, how: Fallocate, pos: u64, len: u64) -> Result<Outcome> {
        let found = self.stage.file(file).fallocate(how, pos..pos + len);
        let bytes = &mut self.bytes[file];
        let grows = matches!(how, Fallocate::Allocate | Fallocate::ZeroRange);
        let keeps = matches!(
            how,
            Fallocate::AllocateKeepSize | Fallocate::ZeroRangeKeepSize
        );
        let wanted = if len == 0 {
            Err(Error::InvalidArgument)
        } else if how != Fallocate::PunchHole && pos + len > bytes.limit() {
            Err(Error::FileTooLarge)
        } else if matches!(how, Fallocate::CollapseRange | Fallocate::InsertRange)
            || keeps && pos + len > bytes.size()
        {
            Err(Error::NotSupported)
        } else {
            Ok(len)
        };
        let outcome = count(&self.options, found.map(|()| len), wanted)?;
        if matches!(outcome, Outcome::Done(_)) {
            if grows && pos + len > bytes.size() {
                bytes.resize(pos + len);
            }
            if !matches!(how, Fallocate::Allocate | Fallocate::AllocateKeepSize) {
                bytes.zero(pos, pos + len);
            }
        }
        Ok(outcome)
    }

    /// SEEK_DATA, SEEK_HOLE and the extents tell the same story, blocks lie in one place each, and holes read zero.
    fn holes(&mut self, file: Which) -> Result<Outcome> {
        let handle = self.stage.file(file);
        let (size, block) = (self.bytes[file].size(), u64::from(self.options.block_size));
        let extents = handle.extents(0..u64::MAX, usize::MAX)?;
        let mut at = 0;
        for FileExtent {
            logical,
            len,
            last,
            physical,
        } in merged(&extents)
        {
            ensure!(
                logical % block == 0 && len % block == 0 && physical % block == 0,
                "a torn extent at {logical:#x}"
            );
            let (data, hole) = (handle.seek_data(at), handle.seek_hole(logical));
            ensure!(
                data == Ok(logical),
                "SEEK_DATA from {at:#x} is {data:x?}, the extent is at {logical:#x}"
            );
            let end = (logical + len).min(size);
            ensure!(
                hole == Ok(end),
                "SEEK_HOLE from {logical:#x} is {hole:x?}, the extent ends at {end:#x}"
            );
            self.zero_between(file, at, logical)?;
            ensure!(
                last == (handle.seek_data(end) == Err(Error::NoSuchOffset)),
                "an extent that is wrongly the last"
            );
            at = end;
        }
        ensure!(
            handle.seek_data(at) == Err(Error::NoSuchOffset),
            "data behind the last extent"
        );
        self.zero_between(file, at, size)?;
        let mut places: Vec<_> = extents
            .iter()
            .map(|extent| (extent.physical, extent.len))
            .collect();
        places.sort_unstable();
        ensure!(
            places.windows(2).all(|two| two[0].0 + two[0].1 <= two[1].0),
            "a block in two places of the file"
        );
        Ok(Outcome::Done(extents.len() as u64))
    }

    /// The vector has nothing where the file has a hole.
    fn zero_between(&self, file: Which, from: u64, to: u64) -> Result<()> {
        let bytes = &self.bytes[file];
        let base = bytes.end() - bytes.window_len();
        let (from, to) = (from.max(base), to.min(bytes.end()));
        if from < to {
            let inside = bytes.get(from, to - from);
            ensure!(
                inside.iter().all(|&byte| byte == 0),
                "data in the hole {from:#x}..{to:#x}"
            );
        }
        Ok(())
    }
}

/// Extents that touch in the file as one, wherever they lie.
fn merged(extents: &[FileExtent]) -> Vec<FileExtent> {
    let mut all: Vec<FileExtent> = Vec::new();
    for extent in extents {
        match all
            .last_mut()
            .filter(|before| before.logical + before.len == extent.logical)
        {
            Some(before) => {
                before.len += extent.len;
                before.last = extent.last;
            }
            None => all.push(*extent),
        }
    }
    all
}

/// The range page by page.
fn pages(pos: u64, len: u64) -> impl Iterator<Item = (u64, u64)> {
    let end = pos + len;
    let mut at = pos;
    std::iter::from_fn(move || {
        let from = at;
        at = ((from / PAGE + 1) * PAGE).min(end);
        (from < end).then_some((from, at - from))
    })
}
