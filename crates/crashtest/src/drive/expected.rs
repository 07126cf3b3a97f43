//! What the model says of an operation.

use std::collections::BTreeMap;
use std::ops::Range;

use ext2dax::Fallocate;

use crate::model::errno::{EINVAL, ENOENT, ENOSPC, ENXIO, EOPNOTSUPP};
use crate::model::{File, Kind, Model, Outcome, Path};

use super::{Bytes, Op, Shown, acl, mode_of_another, seen, seen_names};

/// What `op` must answer, given what it did answer: a system may run out of space, wholly or halfway through a write,
/// and the model then does as much.
///
/// # Errors
/// Those of the system call, in the order in which Linux finds them.
pub fn expected(model: &mut Model, op: &Op, actual: Outcome) -> Outcome {
    let makes = matches!(
        op,
        Op::Create(..) | Op::Mkdir(..) | Op::Mknod(..) | Op::Symlink(..) | Op::OpenNameless(..)
    );
    let grows = matches!(
        op,
        Op::Write(..)
            | Op::WriteVectored(..)
            | Op::WriteDirect(..)
            | Op::Append(..)
            | Op::WriteOpen(..)
            | Op::Link(..)
            | Op::LinkOpen(..)
            | Op::Rename(..)
    );
    if actual == Err(ENOSPC) && (makes || grows) {
        // A write that fails may have set the time all the same, as in Linux: asking for the contents forgets it.
        match op {
            Op::Write(path, ..)
            | Op::WriteVectored(path, ..)
            | Op::WriteDirect(path, ..)
            | Op::Append(path, ..) => drop(model.contents_mut(path)),
            Op::WriteOpen(slot, ..) => drop(model.open_contents(*slot)),
            _ => {}
        }
        return Err(ENOSPC);
    }
    match op {
        Op::Create(path, mode) => model.make(path, Kind::File(Default::default()), *mode, (0, 0)),
        Op::Mkdir(path, mode) => model.make(path, Kind::Dir(BTreeMap::new()), *mode, (0, 0)),
        Op::Mknod(path, file_type, device, mode) => {
            model.make(path, Kind::Special(*file_type, *device), *mode, (0, 0))
        }
        Op::Symlink(target, path) => model.make(path, Kind::Symlink(target.clone()), 0o777, (0, 0)),
        Op::Link(from, to) => model.link(from, to),
        Op::Unlink(path) => model.unlink(path),
        Op::Rmdir(path) => model.rmdir(path),
        Op::Rename(from, to) => model.rename(from, to),
        Op::RenameWith(from, to, how) => model.rename_with(from, to, *how),
        Op::ReadLink(path) => match model.file_or_err(path).map(|file| &file.kind) {
            Ok(Kind::Symlink(target)) => Ok(seen(target)),
            Ok(_) => Err(EINVAL),
            Err(errno) => Err(errno),
        },
        Op::Stat(path) => model.file_or_err(path).map(|file| shown(file).seen()),
        Op::Truncate(path) => match model.contents_mut(path) {
            Ok(contents) => {
                contents.set_len(0);
                Ok(0)
            }
            Err(ENOENT) => model.make(path, Kind::File(Default::default()), 0o644, (0, 0)),
            Err(errno) => Err(errno),
        },
        Op::Sync(path) => model.contents(path).map(|_| 0),
        Op::SeekData(path, at) => model
            .contents(path)
            .and_then(|contents| seek(contents.size(), *at, actual, false)),
        Op::SeekHole(path, at) => model
            .contents(path)
            .and_then(|contents| seek(contents.size(), *at, actual, true)),
        Op::CopyRange(from, at, to, to_at, len) => model.copy_range(from, *at, to, *to_at, *len),
        Op::Fallocate(path, how, range) => fallocate(model, path, *how, range),
        Op::SyncAll => Ok(0),
        Op::WriteVectored(path, at, pieces) => {
            let all = pieces.iter().flat_map(|bytes| bytes.make());
            let mut all: Vec<u8> = all.collect();
            if all.is_empty() {
                // Not even its time changes.
                return model.contents(path).map(|_| 0);
            }
            if let Ok(done @ 1..) = actual {
                all.truncate(usize::try_from(done).expect("a length"));
            }
            model.contents_mut(path)?.write(*at, &all);
            Ok(all.len() as u64)
        }
        Op::ReadVectored(path, at, pieces) => {
            let contents = model.contents(path)?;
            Ok(seen(&contents.read(*at, pieces.iter().sum())))
        }
        Op::Write(path, at, bytes) | Op::WriteDirect(path, at, bytes) => {
            let contents = model.contents_mut(path)?;
            let done = written(*bytes, actual);
            contents.write(*at, &bytes.make()[..done]);
            Ok(done as u64)
        }
        Op::Append(path, bytes) => {
            let contents = model.contents_mut(path)?;
            let done = written(*bytes, actual);
            let end = contents.size();
            contents.write(end, &bytes.make()[..done]);
            Ok(done as u64)
        }
        Op::ReadDirect(path, at, len) => {
            let contents = model.contents(path)?;
            Ok(seen(&contents.read(*at, *len)))
        }
        Op::Read(path, at, len) => match model.file(path).map(|file| &file.kind) {
            Some(Kind::File(contents)) => Ok(seen(&contents.read(*at, *len))),
            _ => model.contents_mut(path).map(|_| 0),
        },
        Op::SetLen(path, size) => model
            .contents_mut(path)
            .map(|contents| contents.set_len(*size))
            .map(|()| 0),
        Op::Punch(path, range) => model
            .contents_mut(path)
            .map(|contents| contents.zero(range.start, range.end))
            .map(|()| 0),
        Op::ZeroRange(path, range) | Op::Allocate(path, range) => {
            let contents = model.contents_mut(path)?;
            if matches!(op, Op::ZeroRange(..)) {
                contents.zero(range.start, range.end);
            }
            // Running out of space halfway leaves the file grown, as fallocate does; the contents are the same.
            contents.set_len(contents.size().max(range.end));
            if actual == Err(ENOSPC) {
                Err(ENOSPC)
            } else {
                Ok(0)
            }
        }
        Op::Chmod(path, mode) => model.change(path, |file| file.mode = *mode),
        Op::Chown(path, uid, gid) => model.change(path, |file| {
            file.owner = (*uid, *gid);
            file.mode = mode_of_another(file.kind.file_type(), file.mode);
        }),
        Op::SetTimes(path, accessed, modified) => model.change(path, |file| {
            file.accessed = Some(*accessed);
            file.modified = Some(*modified);
        }),
        Op::List(path) | Op::ListSlowly(path, _) => model.listing(path).map(seen_names),
        // What a value may be and what fits is for other systems to compare; the model keeps what it means for modes.
        Op::SetXattr(path, name, value, _) => {
            if actual.is_ok() {
                model.set_acl(path, name == acl::DEFAULT, acl_bits(name, value));
            }
            model.file_or_err(path).and(actual)
        }
        Op::RemoveXattr(path, name) => {
            if actual.is_ok() && name == acl::DEFAULT {
                model.set_acl(path, true, None);
            }
            model.file_or_err(path).and(actual)
        }
        Op::GetXattr(path, _) | Op::ListXattrs(path) => model.file_or_err(path).and(actual),
        Op::Open(slot, path) => model.open(*slot, path),
        Op::OpenNameless(slot, path, mode) => model.make_nameless(*slot, path, *mode, (0, 0)),
        Op::LinkOpen(slot, path) => model.link_open(*slot, path),
        Op::StatOpen(slot) => Ok(model.open_file(*slot).map_or(0, |file| shown(file).seen())),
        Op::WriteOpen(slot, at, bytes) => Ok(model.open_contents(*slot).map_or(0, |contents| {
            let done = written(*bytes, actual);
            contents.write(*at, &bytes.make()[..done]);
            done as u64
        })),
        Op::ReadOpen(slot, at, len) => Ok(model
            .open_contents(*slot)
            .map_or(0, |contents| seen(&contents.read(*at, *len)))),
        Op::SetLenOpen(slot, size) => {
            if let Some(contents) = model.open_contents(*slot) {
                contents.set_len(*size);
            }
            Ok(0)
        }
        Op::Close(slot) => {
            model.close(*slot);
            Ok(0)
        }
    }
}

/// How much of a write the model carries out: what the system did, if it did something.
fn written(bytes: Bytes, actual: Outcome) -> usize {
    match actual {
        Ok(done) if done > 0 && done < bytes.len as u64 => {
            usize::try_from(done).expect("less than the length")
        }
        _ => bytes.len,
    }
}

/// What an attribute means for modes, if it does.
fn acl_bits(name: &[u8], value: &[u8]) -> Option<[u16; 3]> {
    // A list of no entries removes the list.
    let lists = name == acl::ACCESS || name == acl::DEFAULT;
    (lists && value.len() > 4).then(|| acl::mode_bits(value))
}

fn shown(file: &File) -> Shown {
    let (size, device) = match &file.kind {
        Kind::File(contents) => (contents.size(), None),
        Kind::Symlink(target) => (target.len() as u64, None),
        Kind::Special(_, device) => (0, Some(*device)),
        Kind::Dir(_) => (0, None),
    };
    Shown {
        mode: u32::from(file.kind.file_type().mode() | file.mode),
        links: file.links(),
        owner: file.owner,
        size,
        device,
    }
}

/// The model does not know where blocks lie: an answer inside the file will do, and nothing past its end.
fn seek(size: u64, at: u64, actual: Outcome, hole: bool) -> Outcome {
    match actual {
        _ if at >= size => Err(ENXIO),
        Ok(found) if found >= at && found < size + u64::from(hole) => actual,
        Err(ENXIO) if !hole => actual,
        _ => Ok(size),
    }
}

fn fallocate(model: &mut Model, path: &Path, how: Fallocate, range: &Range<u64>) -> Outcome {
    let contents = model.contents_mut(path)?;
    match how {
        Fallocate::ZeroRangeKeepSize | Fallocate::AllocateKeepSize
            if range.end > contents.size() =>
        {
            Err(EOPNOTSUPP)
        }
        Fallocate::ZeroRangeKeepSize => {
            contents.zero(range.start, range.end);
            Ok(0)
        }
        Fallocate::AllocateKeepSize => Ok(0),
        _ => Err(EOPNOTSUPP),
    }
}
