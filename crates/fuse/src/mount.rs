//! Attaching the mount to a directory, and taking it off.
//!
//! With the right to mount, by system call. Without it, by `fusermount3`, which has that right and hands the connection
//! over through a socket.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSliceMut, Read as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::mount::{MountFlags, UnmountFlags, unmount};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

const DEVICE: &str = "/dev/fuse";

/// How far the kernel reads ahead, if it can be told.
const READ_AHEAD_KIB: u32 = 1024;

/// What the kernel does for the mount by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelOptions {
    /// What `df` and `mount` show as the source.
    pub source: String,
    /// The type is `fuse.` with this behind it, or `fuse` if this is empty.
    pub subtype: String,
    /// Users other than the one who mounts may use it.
    pub allow_other: bool,
    /// Modes, owners and ACLs are checked before a request is sent.
    pub default_permissions: bool,
    /// Nothing can be changed.
    pub read_only: bool,
    /// Set-id bits count.
    pub suid: bool,
    /// Device files are devices.
    pub dev: bool,
    /// Programs can be run.
    pub exec: bool,
    /// Access times stay.
    pub no_atime: bool,
    /// Each write ends with an fsync.
    pub sync: bool,
    /// Each change of names is durable on return.
    pub dirsync: bool,
}

/// A directory that a mount covers.
#[derive(Debug)]
pub(crate) struct Mountpoint {
    path: PathBuf,
    device: OwnedFd,
}

/// Mounts at `path`, an existing directory.
///
/// # Errors
/// What the system says, with what to do about it where that is known.
pub(crate) fn attach(path: &Path, options: &KernelOptions) -> io::Result<(OwnedFd, Mountpoint)> {
    let path = directory(path)?;
    let device = match attach_by_call(&path, options) {
        Err(error) if is_refused(&error) => attach_by_helper(&path, options)?,
        other => other?,
    };
    let mountpoint = Mountpoint {
        path,
        device: device.try_clone()?,
    };
    Ok((device, mountpoint))
}

/// The full name of a directory that can be mounted on. What a server that died has left there goes first: no process
/// can use it.
///
/// # Errors
/// What the system says; there is no such directory, or what is left there cannot be taken off.
pub fn directory(path: &Path) -> io::Result<PathBuf> {
    let at =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    if fs::metadata(path).is_err_and(|error| is_errno(&error, Errno::NOTCONN)) {
        detach_path(path).map_err(|error| {
            io::Error::new(
                error.kind(),
                format!(
                    "{0}: a server that is gone has left its mount there: run `fusermount3 -u {0}`",
                    path.display()
                ),
            )
        })?;
    }
    let full = path.canonicalize().map_err(at)?;
    if !fs::metadata(&full).map_err(at)?.is_dir() {
        return Err(io::Error::new(
            io::ErrorKind::NotADirectory,
            format!("{}: not a directory", path.display()),
        ));
    }
    Ok(full)
}

fn is_errno(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}

/// No right to mount, or none to open the device: `fusermount3` may have both.
fn is_refused(error: &io::Error) -> bool {
    is_errno(error, Errno::PERM) || is_errno(error, Errno::ACCESS)
}

fn attach_by_call(path: &Path, options: &KernelOptions) -> io::Result<OwnedFd> {
    let device = open_device()?;
    let mut words = vec![
        format!("fd={}", device.as_raw_fd()),
        format!("rootmode={:o}", fs::metadata(path)?.mode() & 0o170_000),
        format!("user_id={}", rustix::process::getuid().as_raw()),
        format!("group_id={}", rustix::process::getgid().as_raw()),
    ];
    words.extend(common_words(options));
    let words = CString::new(words.join(",")).map_err(io::Error::other)?;
    let flags = [
        (options.read_only, MountFlags::RDONLY),
        (!options.suid, MountFlags::NOSUID),
        (!options.dev, MountFlags::NODEV),
        (!options.exec, MountFlags::NOEXEC),
        (options.no_atime, MountFlags::NOATIME),
        (options.sync, MountFlags::SYNCHRONOUS),
        (options.dirsync, MountFlags::DIRSYNC),
    ];
    let flags = flags
        .into_iter()
        .filter(|(wanted, _)| *wanted)
        .fold(MountFlags::empty(), |all, (_, flag)| all | flag);
    let file_system = match &*options.subtype {
        "" => "fuse".to_owned(),
        subtype => format!("fuse.{subtype}"),
    };
    match rustix::mount::mount(&*options.source, path, &*file_system, flags, Some(&*words)) {
        Ok(()) => Ok(device.into()),
        // The helper may have the right.
        Err(error @ (Errno::PERM | Errno::ACCESS)) => Err(error.into()),
        Err(error) => {
            let error = io::Error::from(error);
            let said = format!("{}: the kernel does not mount: {error}", path.display());
            Err(io::Error::new(error.kind(), said))
        }
    }
}

fn open_device() -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(DEVICE)
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => io::Error::new(
                error.kind(),
                format!("{DEVICE} is missing: load the module with `modprobe fuse`"),
            ),
            _ => error,
        })
}

fn common_words(options: &KernelOptions) -> Vec<String> {
    let mut words = Vec::new();
    if options.allow_other {
        words.push("allow_other".to_owned());
    }
    if options.default_permissions {
        words.push("default_permissions".to_owned());
    }
    words
}

/// A value inside a comma-separated list.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace(',', "\\,")
}

fn helper_words(options: &KernelOptions) -> String {
    let mut words = vec![format!("fsname={}", escaped(&options.source))];
    if !options.subtype.is_empty() {
        words.push(format!("subtype={}", escaped(&options.subtype)));
    }
    words.extend(common_words(options));
    let pairs = [
        (options.read_only, "ro", "rw"),
        (options.suid, "suid", "nosuid"),
        (options.dev, "dev", "nodev"),
        (options.exec, "exec", "noexec"),
        (options.no_atime, "noatime", "atime"),
        (options.sync, "sync", "async"),
    ];
    words.extend(
        pairs
            .into_iter()
            .map(|(is, yes, no)| if is { yes } else { no }.to_owned()),
    );
    if options.dirsync {
        words.push("dirsync".to_owned());
    }
    words.join(",")
}

fn attach_by_helper(path: &Path, options: &KernelOptions) -> io::Result<OwnedFd> {
    let (ours, theirs) = UnixStream::pair()?;
    fcntl_setfd(&theirs, FdFlags::empty())?;
    let mut helper = Command::new("fusermount3")
        .arg("-o")
        .arg(helper_words(options))
        .arg("--")
        .arg(path)
        .env("_FUSE_COMMFD", theirs.as_raw_fd().to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("no right to mount, and fusermount3 cannot be run: {error}"),
            )
        })?;
    drop(theirs);
    let device = receive(&ours);
    let mut said = String::new();
    if let Some(stderr) = &mut helper.stderr {
        // What it says is only for the message.
        let _ = stderr.read_to_string(&mut said);
    }
    helper.wait()?;
    device?.ok_or_else(|| {
        let said = said.trim();
        let said = said.strip_prefix("fusermount3: ").unwrap_or(said);
        io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("fusermount3: {said}"),
        )
    })
}

/// The connection that comes with one byte, `None` if the socket closes without.
fn receive(socket: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    rustix::io::retry_on_intr(|| {
        recvmsg(
            socket,
            &mut [IoSliceMut::new(&mut byte)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )
    })?;
    Ok(control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    }))
}

/// Takes the topmost mount off `path`; where somebody still uses it, it disappears now and ends when they are done.
fn detach_path(path: &Path) -> io::Result<()> {
    match unmount(path, UnmountFlags::empty()) {
        Ok(()) => return Ok(()),
        Err(Errno::BUSY) => return Ok(unmount(path, UnmountFlags::DETACH)?),
        Err(Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    let output = Command::new("fusermount3")
        .args(["-u", "-q", "-z", "--"])
        .arg(path)
        .stdin(Stdio::null())
        .output()?;
    if output.status.success() {
        Ok(())
    } else {
        Err(io::Error::other(
            String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        ))
    }
}

impl Mountpoint {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the kernel still has the mount.
    fn is_mounted(&self) -> bool {
        let mut fds = [PollFd::new(&self.device, PollFlags::empty())];
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        poll(&mut fds, Some(&now)).is_ok() && !fds[0].revents().contains(PollFlags::ERR)
    }

    /// Takes the mount off, unless somebody else did: then another one may be at its place.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn detach(&self) -> io::Result<()> {
        if self.is_mounted() {
            detach_path(&self.path)
        } else {
            Ok(())
        }
    }

    /// Lets the kernel read further ahead than the 128 KiB of its own choice, where that may be set: one request for a
    /// megabyte instead of eight.
    pub(crate) fn read_further_ahead(&self) {
        let Some(device) = self.device_number() else {
            return;
        };
        // Without the right to, reading is as fast as it is.
        let _ = fs::write(
            format!("/sys/class/bdi/{device}/read_ahead_kb"),
            READ_AHEAD_KIB.to_string(),
        );
    }

    /// Major and minor number of the mount, as mountinfo has them: asking the mount itself would wait for its server.
    fn device_number(&self) -> Option<String> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        let path = mountinfo_path(&self.path);
        let line = mounts
            .lines()
            .rev()
            .find(|line| line.split(' ').nth(4) == Some(&path))?;
        line.split(' ').nth(2).map(str::to_owned)
    }

    /// Writes back what the kernel keeps of the mount.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn flush(&self) -> io::Result<()> {
        if !self.is_mounted() {
            return Ok(());
        }
        let directory = File::open(&self.path)?;
        Ok(rustix::fs::syncfs(directory.as_fd())?)
    }
}

/// A path as mountinfo writes it: blanks and backslashes in octal.
fn mountinfo_path(path: &Path) -> String {
    let mut text = String::new();
    for letter in path.to_string_lossy().chars() {
        match letter {
            ' ' | '\t' | '\n' | '\\' => text.push_str(&format!("\\{:03o}", u32::from(letter))),
            _ => text.push(letter),
        }
    }
    text
}

/// Whether each event loop can have a connection of its own.
pub(crate) fn can_clone() -> bool {
    open_device().is_ok()
}
