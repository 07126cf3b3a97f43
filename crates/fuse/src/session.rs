//! A mount from its beginning to its end.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use ext2dax::{Error, FileSystem};
use fuser::{Config, Session, SessionACL};

use crate::adapter::{Adapter, Connection};
use crate::follow::Follow;
use crate::mount::{self, KernelOptions, Mountpoint};
use crate::server::{Behaviour, Server};

/// How long those who still use a mount may go on after it was told to end.
const GRACE: Duration = Duration::from_secs(2);

/// How a file system is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServeOptions {
    /// What the kernel does.
    pub kernel: KernelOptions,
    /// What the server does.
    pub behaviour: Behaviour,
    /// Event loops, each a thread; 1 or more.
    pub threads: usize,
    /// Event loops run where the program runs that they serve, while there is one.
    pub follow: bool,
    /// The kernel collects writes before it sends them.
    pub writeback_cache: bool,
    /// The kernel enforces access control lists, and with them modes and owners.
    pub acl: bool,
}

/// Why a mount did not come about, or did not end well.
#[derive(Debug)]
#[non_exhaustive]
pub enum MountError {
    /// The operating system refused something.
    System(io::Error),
    /// The file system did.
    FileSystem(Error),
}

impl fmt::Display for MountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System(error) => error.fmt(f),
            Self::FileSystem(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for MountError {
    /// What lies behind the error that this one shows as its own.
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::System(error) => error.source(),
            Self::FileSystem(error) => error.source(),
        }
    }
}

impl From<io::Error> for MountError {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}

impl From<Error> for MountError {
    fn from(error: Error) -> Self {
        Self::FileSystem(error)
    }
}

/// What ends the wait of [`Mounted::run`].
enum Event {
    /// The kernel has no mount any more, and the event loops are gone.
    Ended(io::Result<()>),
    /// Somebody asked for the end.
    Asked,
}

/// A file system that is mounted, and served as soon as [`Mounted::run`] is called.
#[derive(Debug)]
pub struct Mounted {
    session: Session<Adapter>,
    server: Arc<Server>,
    mountpoint: Arc<Mountpoint>,
    sender: Sender<Event>,
    events: Receiver<Event>,
}

/// Mounts `fs` at `directory`. Whoever uses the mount waits until it is served.
///
/// # Errors
/// [`MountError`]; nothing is mounted then, and `fs` is unmounted.
pub fn mount(
    fs: FileSystem,
    directory: &Path,
    options: &ServeOptions,
) -> Result<Mounted, MountError> {
    let server = Arc::new(Server::new(fs, options.behaviour)?);
    let mut config = Config::default();
    config.n_threads = Some(options.threads);
    config.clone_fd = options.threads > 1 && mount::can_clone();
    let (device, mountpoint) = mount::attach(directory, &options.kernel)?;
    // Without it requests are only slower.
    let follow = options
        .follow
        .then(|| Follow::new(options.threads))
        .and_then(Result::ok);
    let notifier = Arc::new(OnceLock::new());
    let adapter = Adapter {
        server: Arc::clone(&server),
        connection: Connection {
            writeback_cache: options.writeback_cache,
            acl: options.acl,
        },
        follow,
        notifier: Arc::clone(&notifier),
    };
    // The kernel has checked already whom it lets in.
    let session = match Session::from_fd(adapter, device, SessionACL::All, config) {
        Ok(session) => session,
        Err(error) => {
            // The first error is the one to tell.
            let _ = mountpoint.detach();
            return Err(error.into());
        }
    };
    // It is the only one to be set.
    let _ = notifier.set(session.notifier());
    mountpoint.read_further_ahead();
    let (sender, events) = channel();
    Ok(Mounted {
        session,
        server,
        mountpoint: Arc::new(mountpoint),
        sender,
        events,
    })
}

/// Ends a mount from another thread.
#[derive(Clone, Debug)]
pub struct Ender {
    mountpoint: Arc<Mountpoint>,
    sender: Sender<Event>,
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ended(_) => "Ended",
            Self::Asked => "Asked",
        })
    }
}

impl Ender {
    /// Takes the mount off its directory, with everything written back. Who has files open there may go on for two
    /// seconds; then the file system ends all the same, cleanly, and they get errors.
    ///
    /// # Errors
    /// What the system says; the end comes anyway.
    pub fn end(&self) -> io::Result<()> {
        let flushed = self.mountpoint.flush();
        let detached = self.mountpoint.detach();
        // If nobody waits any more, the mount is over.
        let _ = self.sender.send(Event::Asked);
        flushed.and(detached)
    }
}

impl Mounted {
    /// A way to end the mount.
    #[must_use]
    pub fn ender(&self) -> Ender {
        Ender {
            mountpoint: Arc::clone(&self.mountpoint),
            sender: self.sender.clone(),
        }
    }

    /// The directory that the mount covers, by its full name.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.mountpoint.path()
    }

    /// Serves until the mount ends, by `umount` or an [`Ender`], then unmounts the file system: the image is clean on
    /// return.
    ///
    /// # Errors
    /// `System` if the connection to the kernel broke; `FileSystem` if the image could not be made durable. The image is
    /// as clean as it could be made.
    pub fn run(self) -> Result<(), MountError> {
        let Self {
            session,
            server,
            mountpoint: _,
            sender,
            events,
        } = self;
        let done = sender.clone();
        thread::Builder::new()
            .name("ext2dax-fuse".to_owned())
            .spawn(move || {
                let result = session.run();
                let _ = done.send(Event::Ended(result));
            })?;
        // `sender` is alive, so the channel is.
        let served = match events.recv() {
            Ok(Event::Ended(result)) => result,
            Ok(Event::Asked) | Err(_) => match events.recv_timeout(GRACE) {
                Ok(Event::Ended(result)) => result,
                Ok(Event::Asked)
                | Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Ok(()),
            },
        };
        drop(sender);
        server.close()?;
        Ok(served?)
    }
}
