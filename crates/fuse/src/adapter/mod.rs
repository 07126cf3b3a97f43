//! Between `fuser` and [`Server`]: the only module that names fuser's requests and replies. Another crate for the protocol
//! would need another of these and nothing else.
//!
//! | module | holds |
//! |---|---|
//! | `convert` | attributes, times, types and device numbers, both ways |
//! | `answer` | answers of one kind each |
//!
//! Details of fuser 0.18 that this relies on: a reply's node number is the inode number of its attributes (so an entry of
//! number 0 is a cached "no such name"), and times before 1970 arrive as the distance of their seconds with the
//! nanoseconds added to it.

mod answer;
mod convert;

use std::cell::RefCell;
use std::ffi::OsStr;
use std::io;
use std::ops::Deref;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use ext2dax::RenameFlags;
use fuser::{
    BsdFileFlags, CopyFileRangeFlags, FileAttr, FileHandle, Filesystem, FopenFlags, Generation,
    INodeNo, InitFlags, IoctlFlags, KernelConfig, LockOwner, Notifier, OpenAccMode, OpenFlags,
    ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry,
    ReplyIoctl, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow,
    WriteFlags,
};

use crate::follow::{Follow, Turn};
use crate::nodes::ROOT;
use crate::server::{Change, Errno, NewNode, Seek, Server, Taken};
use answer::{attributes, empty, entry, xattr};
use convert::{NO_SUCH_NAME, attr, caller, generation, kind, to_time};

/// The image has one writer, this server, and every change comes through the kernel: what the kernel knows stays true
/// until it changes it.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The largest request in bytes: what one read or write of the kernel's may carry.
const MAX_REQUEST: u32 = 1 << 20;

/// The longest copy of one request; the kernel asks for the rest.
const LONGEST_COPY: u64 = 1 << 30;

/// Requests that the kernel may have under way by itself: read-ahead, and writes that nobody waits for.
const MAX_BACKGROUND: u16 = 64;

thread_local! {
    /// Where a read's bytes stand between the image and the kernel: one buffer a thread, as large as its largest read.
    static BYTES: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What the kernel is told about the server when it connects.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Connection {
    pub(crate) writeback_cache: bool,
    pub(crate) acl: bool,
}

/// A server as fuser calls it.
#[derive(Debug)]
pub(crate) struct Adapter {
    pub(crate) server: Arc<Server>,
    pub(crate) connection: Connection,
    pub(crate) follow: Option<Follow>,
    /// The way to tell the kernel something that it did not ask, as soon as there is one.
    pub(crate) notifier: Arc<OnceLock<Notifier>>,
}

impl Adapter {
    /// Has the kernel ask for the attributes of a file again. After an ioctl that changed some it would go on with those it
    /// has, an old change time among them.
    fn forget_attributes(&self, node: INodeNo) {
        if let Some(notifier) = self.notifier.get() {
            // An offset below zero: attributes alone, no pages. It fails for a file that the kernel has forgotten anyway.
            let _ = notifier.inval_inode(node, -1, 0);
        }
    }

    /// The server, for a request that has come: dropped when it has been answered.
    fn server(&self, request: &Request) -> Serving<'_> {
        Serving {
            server: &self.server,
            _turn: self
                .follow
                .as_ref()
                .map(|follow| follow.turn(request.pid())),
        }
    }
}

/// The server, for one request.
struct Serving<'a> {
    server: &'a Server,
    _turn: Option<Turn<'a>>,
}

impl Deref for Serving<'_> {
    type Target = Server;

    fn deref(&self) -> &Server {
        self.server
    }
}

const ENOENT: Errno = Errno(2);

impl Filesystem for Adapter {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let mut wanted = InitFlags::FUSE_ASYNC_READ
            | InitFlags::FUSE_BIG_WRITES
            | InitFlags::FUSE_MAX_PAGES
            | InitFlags::FUSE_PARALLEL_DIROPS
            | InitFlags::FUSE_ASYNC_DIO
            | InitFlags::FUSE_DO_READDIRPLUS
            | InitFlags::FUSE_READDIRPLUS_AUTO
            | InitFlags::FUSE_CACHE_SYMLINKS
            | InitFlags::FUSE_EXPLICIT_INVAL_DATA
            | InitFlags::FUSE_HANDLE_KILLPRIV_V2
            | InitFlags::FUSE_DONT_MASK
            | InitFlags::FUSE_EXPORT_SUPPORT;
        if self.connection.acl {
            wanted |= InitFlags::FUSE_POSIX_ACL;
        }
        if self.connection.writeback_cache {
            wanted |= InitFlags::FUSE_WRITEBACK_CACHE;
        }
        // An older kernel has less; none of these is needed to be right.
        let offered = config.capabilities();
        let _ = config.add_capabilities(wanted & offered);
        let _ = config.set_max_write(MAX_REQUEST);
        let _ = config.set_max_background(MAX_BACKGROUND);
        Ok(())
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let server = self.server(request);
        match server.lookup(parent.0, name.as_bytes()) {
            // The way up from a file that was asked for by its handle. The kernel has one number for the root; its inode
            // number comes with the next look at it, so what is said here must not last.
            Ok(attributes) if name == ".." && server.is_root(&attributes) => {
                let root = FileAttr {
                    ino: INodeNo(ROOT),
                    ..attr(&attributes)
                };
                reply.entry_with_ttls(&Duration::ZERO, &FOREVER, &root, generation(&attributes));
            }
            Err(ENOENT) => reply.entry(&FOREVER, &NO_SUCH_NAME, Generation(0)),
            answer => entry(reply, answer),
        }
    }

    // Not a turn: one request may forget many files, and nobody waits for an answer.
    fn forget(&self, _request: &Request, node: INodeNo, times: u64) {
        self.server.forget(node.0, times);
    }

    fn getattr(
        &self,
        request: &Request,
        node: INodeNo,
        _handle: Option<FileHandle>,
        reply: ReplyAttr,
    ) {
        let server = self.server(request);
        attributes(reply, server.attributes(node.0));
    }

    fn setattr(
        &self,
        request: &Request,
        node: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let server = self.server(request);
        let _reserve = server.acting_for(caller(request));
        let change = Change {
            mode,
            uid,
            gid,
            size,
            accessed: atime.map(to_time),
            modified: mtime.map(to_time),
        };
        let answer = server.set_attributes(caller(request), node.0, change);
        attributes(reply, answer);
    }

    fn readlink(&self, request: &Request, node: INodeNo, reply: ReplyData) {
        let server = self.server(request);
        match server.readlink(node.0) {
            Ok(target) => reply.data(&target),
            Err(errno) => reply.error(errno.into()),
        }
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        device: u32,
        reply: ReplyEntry,
    ) {
        let server = self.server(request);
        let _reserve = server.acting_for(caller(request));
        let new = NewNode {
            mode,
            umask,
            device,
        };
        entry(
            reply,
            server.mknod(caller(request), parent.0, name.as_bytes(), new),
        );
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let server = self.server(request);
        let _reserve = server.acting_for(caller(request));
        let new = NewNode {
            mode,
            umask,
            device: 0,
        };
        entry(
            reply,
            server.mkdir(caller(request), parent.0, name.as_bytes(), new),
        );
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let server = self.server(request);
        empty(reply, server.unlink(parent.0, name.as_bytes()));
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let server = self.server(request);
        empty(reply, server.rmdir(parent.0, name.as_bytes()));
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let server = self.server(request);
        let _reserve = server.acting_for(caller(request));
        let target = target.as_os_str().as_bytes();
        entry(
            reply,
            server.symlink(caller(request), parent.0, name.as_bytes(), target),
        );
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: fuser::RenameFlags,
        reply: ReplyEmpty,
    ) {
        let server = self.server(request);
        let _reserve = server.acting_for(caller(request));
        let flags = if flags.is_empty() {
            RenameFlags::Replace
        } else if flags == fuser::RenameFlags::RENAME_NOREPLACE {
            RenameFlags::NoReplace
        } else if flags == fuser::RenameFlags::RENAME_EXCHANGE {
            RenameFlags::Exchange
        } else {
            return reply.error(Errno::EINVAL.into());
        };
        let (from, to) = (name.as_bytes(), new_name.as_bytes());
        empty(
            reply,
            server.rename(parent.0, from, new_parent.0, to, flags),
        );
    }

    fn link(
        &self,
        request: &Request,
        node: INodeNo,
        parent: INodeNo,
        name: &OsStr,
        reply: ReplyEntry,
    ) {
        let server = self.server(request);
        let _reserve = server.acting_for(caller(request));
        entry(reply, server.link(node.0, parent.0, name.as_bytes()));
    }

    fn open(&self, request: &Request, node: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let server = self.server(request);
        let writes = flags.acc_mode() != OpenAccMode::O_RDONLY;
        let appends = flags.0 & O_APPEND != 0;
        match server.check_open(node.0, writes, appends) {
            // The kernel names the file with every request, so there is nothing to keep a handle for.
            Ok(()) => reply.opened(
                FileHandle(0),
                FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH,
            ),
            Err(errno) => reply.error(errno.into()),
        }
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let server = self.server(request);
        let _reserve = server.acting_for(caller(request));
        let new = NewNode {
            mode,
            umask,
            device: 0,
        };
        let answer = server.mknod(caller(request), parent.0, name.as_bytes(), new);
        match answer {
            Ok(attributes) => reply.created(
                &FOREVER,
                &attr(&attributes),
                generation(&attributes),
                FileHandle(0),
                FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH,
            ),
            Err(errno) => reply.error(errno.into()),
        }
    }

    fn read(
        &self,
        request: &Request,
        node: INodeNo,
        _handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let server = self.server(request);
        BYTES.with_borrow_mut(|bytes| {
            let size = size as usize;
            if bytes.len() < size {
                bytes.resize(size, 0);
            }
            match server.read(node.0, offset, &mut bytes[..size]) {
                Ok(read) => reply.data(&bytes[..read]),
                Err(errno) => reply.error(errno.into()),
            }
        });
    }

    fn write(
        &self,
        request: &Request,
        node: INodeNo,
        _handle: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let server = self.server(request);
        let _reserve = server.acting_for(caller(request));
        let unprivileged = write_flags
            .contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID)
            .then(|| caller(request));
        match server.write(node.0, offset, data, unprivileged) {
            Ok(written) => reply.written(u32::try_from(written).unwrap_or(u32::MAX)),
            Err(errno) => reply.error(errno.into()),
        }
    }

    fn release(
        &self,
        _request: &Request,
        _node: INodeNo,
        _handle: FileHandle,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn flush(
        &self,
        _request: &Request,
        _node: INodeNo,
        _handle: FileHandle,
        _owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        // Nothing waits for a close here, and the kernel need not ask again.
        reply.error(Errno::ENOSYS.into());
    }

    fn fsync(
        &self,
        request: &Request,
        node: INodeNo,
        _handle: FileHandle,
        _data_only: bool,
        reply: ReplyEmpty,
    ) {
        let server = self.server(request);
        empty(reply, server.sync(node.0));
    }

    fn opendir(&self, _request: &Request, _node: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        // Not FOPEN_CACHE_DIR: a listing that the kernel goes on with from its own copy may lose names, since it looks
        // for a cookie that went with its name.
        reply.opened(FileHandle(0), FopenFlags::empty());
    }

    fn readdir(
        &self,
        request: &Request,
        node: INodeNo,
        _handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let server = self.server(request);
        let answer = server.list(node.0, offset, |listed| {
            let full = reply.add(
                INodeNo(u64::from(listed.ino)),
                listed.next,
                kind(listed.file_type),
                OsStr::from_bytes(listed.name),
            );
            if full { Taken::No } else { Taken::Yes }
        });
        match answer {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(errno.into()),
        }
    }

    fn readdirplus(
        &self,
        request: &Request,
        node: INodeNo,
        _handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let server = self.server(request);
        let answer = server.list_plus(node.0, offset, |listed| {
            // The kernel takes no more than the number and the type from `.` and `..`, and does not count them.
            let full = match &listed.attributes {
                Some(attributes) => reply.add(
                    INodeNo(u64::from(listed.ino)),
                    listed.next,
                    OsStr::from_bytes(listed.name),
                    &FOREVER,
                    &attr(attributes),
                    generation(attributes),
                ),
                None => {
                    let bare = FileAttr {
                        ino: INodeNo(u64::from(listed.ino)),
                        kind: kind(listed.file_type),
                        ..NO_SUCH_NAME
                    };
                    reply.add(
                        bare.ino,
                        listed.next,
                        OsStr::from_bytes(listed.name),
                        &Duration::ZERO,
                        &bare,
                        Generation(0),
                    )
                }
            };
            if full { Taken::No } else { Taken::Yes }
        });
        match answer {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(errno.into()),
        }
    }

    fn fsyncdir(
        &self,
        request: &Request,
        node: INodeNo,
        _handle: FileHandle,
        _data_only: bool,
        reply: ReplyEmpty,
    ) {
        let server = self.server(request);
        empty(reply, server.sync(node.0));
    }

    fn statfs(&self, request: &Request, _node: INodeNo, reply: ReplyStatfs) {
        let server = self.server(request);
        let counts = match server.statfs() {
            Ok(counts) => counts,
            Err(errno) => return reply.error(errno.into()),
        };
        reply.statfs(
            counts.blocks,
            counts.blocks_free,
            counts.blocks_available,
            u64::from(counts.inodes),
            counts.inodes_free,
            counts.block_size,
            counts.name_max,
            counts.block_size,
        );
    }

    fn ioctl(
        &self,
        request: &Request,
        node: INodeNo,
        _handle: FileHandle,
        _flags: IoctlFlags,
        command: u32,
        input: &[u8],
        _output_size: u32,
        reply: ReplyIoctl,
    ) {
        let server = self.server(request);
        match server.ioctl(caller(request), node.0, command, input) {
            Ok(output) => {
                if output.is_empty() {
                    self.forget_attributes(node);
                }
                reply.ioctl(0, &output);
            }
            Err(errno) => reply.error(errno.into()),
        }
    }

    fn setxattr(
        &self,
        request: &Request,
        node: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let server = self.server(request);
        let _reserve = server.acting_for(caller(request));
        let name = name.as_bytes();
        let answer = server.set_xattr(caller(request), node.0, name, value, flags);
        empty(reply, answer);
    }

    fn getxattr(
        &self,
        request: &Request,
        node: INodeNo,
        name: &OsStr,
        size: u32,
        reply: ReplyXattr,
    ) {
        let server = self.server(request);
        xattr(reply, size, server.xattr(node.0, name.as_bytes()));
    }

    fn listxattr(&self, request: &Request, node: INodeNo, size: u32, reply: ReplyXattr) {
        let server = self.server(request);
        xattr(reply, size, server.list_xattrs(caller(request), node.0));
    }

    fn removexattr(&self, request: &Request, node: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let server = self.server(request);
        let _reserve = server.acting_for(caller(request));
        empty(reply, server.remove_xattr(node.0, name.as_bytes()));
    }

    fn fallocate(
        &self,
        request: &Request,
        node: INodeNo,
        _handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let server = self.server(request);
        let _reserve = server.acting_for(caller(request));
        let answer = server.allocate(caller(request), node.0, offset, length, mode);
        empty(reply, answer);
    }

    fn lseek(
        &self,
        request: &Request,
        node: INodeNo,
        _handle: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let server = self.server(request);
        let what = match whence {
            SEEK_DATA => Seek::Data,
            SEEK_HOLE => Seek::Hole,
            _ => return reply.error(Errno::EINVAL.into()),
        };
        let answer = u64::try_from(offset)
            .map_err(|_| ext2dax::Error::NoSuchOffset.into())
            .and_then(|pos| server.seek(node.0, pos, what));
        match answer.map(i64::try_from) {
            Ok(Ok(found)) => reply.offset(found),
            Ok(Err(_)) => reply.error(Errno::EINVAL.into()),
            Err(errno) => reply.error(errno.into()),
        }
    }

    fn copy_file_range(
        &self,
        request: &Request,
        from: INodeNo,
        _from_handle: FileHandle,
        from_offset: u64,
        to: INodeNo,
        _to_handle: FileHandle,
        to_offset: u64,
        length: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let server = self.server(request);
        let _reserve = server.acting_for(caller(request));
        // The answer has 32 bits.
        let length = length.min(LONGEST_COPY);
        let answer = server.copy(
            caller(request),
            (from.0, from_offset),
            (to.0, to_offset),
            length,
        );
        match answer {
            Ok(copied) => reply.written(u32::try_from(copied).unwrap_or(u32::MAX)),
            Err(errno) => reply.error(errno.into()),
        }
    }
}

const O_APPEND: i32 = 0o2000;
const SEEK_DATA: i32 = 3;
const SEEK_HOLE: i32 = 4;
