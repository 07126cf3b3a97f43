//! Answers on their way to the kernel.

use ext2dax::Attributes;
use fuser::{ReplyAttr, ReplyEmpty, ReplyEntry, ReplyXattr};

use super::FOREVER;
use super::convert::{attr, generation};
use crate::server::Errno;

const ERANGE: Errno = Errno(34);

pub(super) fn entry(reply: ReplyEntry, answer: Result<Attributes, Errno>) {
    match answer {
        Ok(attributes) => reply.entry(&FOREVER, &attr(&attributes), generation(&attributes)),
        Err(errno) => reply.error(errno.into()),
    }
}

pub(super) fn empty(reply: ReplyEmpty, answer: Result<(), Errno>) {
    match answer {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(errno.into()),
    }
}

pub(super) fn attributes(reply: ReplyAttr, answer: Result<Attributes, Errno>) {
    match answer {
        Ok(attributes) => reply.attr(&FOREVER, &attr(&attributes)),
        Err(errno) => reply.error(errno.into()),
    }
}

/// The answer itself, or its length if the caller has no room yet.
pub(super) fn xattr(reply: ReplyXattr, room: u32, answer: Result<Vec<u8>, Errno>) {
    match answer {
        Err(errno) => reply.error(errno.into()),
        Ok(value) => match u32::try_from(value.len()) {
            Ok(len) if room == 0 => reply.size(len),
            Ok(len) if len <= room => reply.data(&value),
            _ => reply.error(ERANGE.into()),
        },
    }
}
