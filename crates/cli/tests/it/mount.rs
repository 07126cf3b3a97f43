//! `ext2dax mount` as its users call it: processes that stay, signals, what is refused, users who are not root.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const TOOL: &str = env!("CARGO_BIN_EXE_ext2dax");

/// A server that is not there, or not gone, after this time never will be.
const LIMIT: Duration = Duration::from_secs(20);

/// A directory with an image and a place to mount it.
struct Site {
    dir: tempfile::TempDir,
}

impl Site {
    /// `None`, and said so, where nothing can be mounted; in CI that is a failure.
    fn new() -> Option<Self> {
        let device = File::options().read(true).write(true).open("/dev/fuse");
        if !nix::unistd::geteuid().is_root() || device.is_err() {
            assert!(
                std::env::var_os("CI").is_none(),
                "no right to mount, or no /dev/fuse"
            );
            eprintln!("skipped: no right to mount, or no /dev/fuse");
            return None;
        }
        let dir = tempfile::tempdir().expect("a directory");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("set");
        let site = Self { dir };
        ext2dax_mkfs::make_file(site.image(), &ext2dax_mkfs::Options::default(), 8 << 20)
            .expect("made");
        fs::create_dir(site.root()).expect("made");
        Some(site)
    }

    fn image(&self) -> PathBuf {
        self.dir.path().join("image")
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("mount")
    }

    fn file(&self) -> PathBuf {
        self.root().join("file")
    }

    /// The command `mount` with these arguments behind the image and the directory.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(TOOL);
        command
            .arg("mount")
            .args([self.image(), self.root()])
            .args(args)
            .stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("run")
    }

    /// A server in the foreground, when it has mounted.
    fn serve(&self, args: &[&str]) -> Child {
        let server = self.command(args).arg("-f").spawn().expect("run");
        wait_until("no mount", || self.is_mounted());
        server
    }

    fn is_mounted(&self) -> bool {
        let root = self.root();
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("read");
        mounts
            .lines()
            .any(|line| line.split(' ').nth(4).map(Path::new) == Some(&root))
    }

    fn unmount(&self) {
        // A program that another test has just forked holds our files until its exec: then again.
        wait_until("the mount stays in use", || {
            let output = Command::new("umount").arg(self.root()).output();
            output.expect("run").status.success()
        });
    }

    /// Waits until no server has the image, and says whether it is marked as clean.
    fn is_clean(&self) -> bool {
        wait_until("the image stays in use", || {
            let image = File::open(self.image()).expect("there");
            image.try_lock().is_ok()
        });
        let mut image = File::open(self.image()).expect("there");
        let mut state = [0; 2];
        image.seek(SeekFrom::Start(1024 + 58)).expect("there");
        image.read_exact(&mut state).expect("read");
        state[0] & 1 != 0 && state[0] & 2 == 0
    }
}

impl Drop for Site {
    /// A test that failed leaves no mount behind.
    fn drop(&mut self) {
        if self.is_mounted() {
            let _ = Command::new("umount").arg("-l").arg(self.root()).output();
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn wait_until(what: &str, mut is: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is() {
        assert!(start.elapsed() < LIMIT, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn wait_for(mut child: Child) -> std::process::ExitStatus {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("a child") {
            return status;
        }
        if start.elapsed() > LIMIT {
            let _ = child.kill();
            panic!("the server does not end");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn the_command_returns_when_the_mount_is_there_and_leaves_a_server() {
    let Some(site) = Site::new() else { return };
    for args in [&[][..], &["-o", "threads=3"], &["-s"]] {
        let output = site.run(args);
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert_eq!(
            (text(&output.stdout), text(&output.stderr)),
            (String::new(), String::new())
        );
        assert!(site.is_mounted());
        fs::write(site.file(), "x").expect("written");
        assert_eq!(fs::read(site.file()).expect("read"), b"x");
        site.unmount();
        assert!(site.is_clean());
    }
}

#[test]
fn signals_end_the_mount_and_leave_a_clean_image() {
    let Some(site) = Site::new() else { return };
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let server = site.serve(&[]);
        fs::write(site.file(), signal.as_str()).expect("written");
        // Somebody who stays makes no difference.
        let open = File::open(site.file()).expect("opened");
        let id = i32::try_from(server.id()).expect("a process number");
        kill(Pid::from_raw(id), signal).expect("sent");
        let status = wait_for(server);
        assert!(status.success(), "{signal}: {status}");
        assert!(!site.is_mounted() && site.is_clean(), "{signal}");
        drop(open);
    }
    let server = site.serve(&["-o", "ro"]);
    assert_eq!(fs::read(site.file()).expect("read"), b"SIGHUP");
    site.unmount();
    assert!(wait_for(server).success());
}

#[test]
fn the_next_mount_recovers_what_a_killed_server_left() {
    let Some(site) = Site::new() else { return };
    let mut server = site.serve(&[]);
    fs::write(site.file(), "still there").expect("written");
    let nameless = File::create(site.root().join("nameless")).expect("made");
    nameless.set_len(100_000).expect("extended");
    fs::remove_file(site.root().join("nameless")).expect("removed");
    server.kill().expect("killed");
    server.wait().expect("a child");
    drop(nameless);
    assert!(site.is_mounted(), "a mount without a server");
    assert!(fs::read(site.file()).is_err());
    assert!(!site.is_clean());
    let output = site.run(&[]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(fs::read(site.file()).expect("read"), b"still there");
    site.unmount();
    assert!(!site.is_mounted(), "the dead mount is gone, too");
    let _ = site.is_clean();
    // What was in flight may have left blocks marked, which a checker gives back without asking.
    for (args, most) in [("-fp", 1), ("-fn", 0)] {
        let judge = Command::new("e2fsck")
            .arg(args)
            .arg(site.image())
            .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
            .output();
        let Ok(output) = judge else {
            assert!(std::env::var_os("CI").is_none(), "e2fsck is missing");
            eprintln!("skipped: e2fsck is missing");
            return;
        };
        let status = output.status.code().expect("an end");
        assert!(status <= most, "{args}: {status}: {}", text(&output.stdout));
    }
    assert!(site.is_clean());
}

#[test]
fn what_cannot_be_mounted_is_said_in_one_line() {
    let Some(site) = Site::new() else { return };
    let refused = |output: &Output, status: i32, words: &[&str]| {
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        for word in words {
            assert!(said.contains(word), "{word}: {said}");
        }
        assert!(!site.is_mounted());
    };
    for foreground in [&[][..], &["-f"]] {
        let run = |args: &[&str]| site.run(&[args, foreground].concat());
        refused(
            &run(&["-o", "cache_size=1m"]),
            2,
            &["cache_size=1m", "in place"],
        );
        refused(
            &run(&["-o", "ro,nosuchoption"]),
            2,
            &["nosuchoption", "unknown"],
        );
        refused(&run(&["-o", "norecovery"]), 2, &["norecovery", "ro"]);
        refused(&run(&["-o", "offset=16m"]), 1, &["image", "16777216"]);
    }
    let tool = |args: &[&Path]| {
        Command::new(TOOL)
            .arg("mount")
            .args(args)
            .output()
            .expect("run")
    };
    let (image, root, nowhere) = (site.image(), site.root(), site.dir.path().join("nowhere"));
    refused(&tool(&[&nowhere, &root]), 1, &["nowhere", "No such file"]);
    refused(&tool(&[&image, &nowhere]), 1, &["nowhere", "No such file"]);
    refused(&tool(&[&image, &image]), 1, &["image", "not a directory"]);
    let other = site.dir.path().join("text");
    fs::write(&other, vec![b'x'; 100_000]).expect("written");
    refused(&tool(&[&other, &root]), 1, &["text", "superblock"]);
    fs::write(&other, [b"\x1f\x8b".as_slice(), &[9; 100_000]].concat()).expect("written");
    refused(&tool(&[&other, &root]), 1, &["text", "looks like gzip"]);
    refused(
        &tool(&[site.dir.path(), &root]),
        1,
        &["a directory cannot hold an image"],
    );
    assert_eq!(tool(&[&image]).status.code(), Some(2));
    let holder = site.serve(&[]);
    let second = site.dir.path().join("second");
    fs::create_dir(&second).expect("made");
    let output = tool(&[&image, &second]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(
        said.contains(&format!("in use by process {}", holder.id())),
        "{said}"
    );
    site.unmount();
    assert!(wait_for(holder).success());
}

#[test]
fn as_a_helper_of_mount_it_takes_its_arguments() {
    let Some(site) = Site::new() else { return };
    let helper = site.dir.path().join("mount.fuse.ext2dax");
    symlink(TOOL, &helper).expect("made");
    let run = |args: &[&str]| {
        let mut command = Command::new(&helper);
        command.args([site.image(), site.root()]).args(args);
        command.output().expect("run")
    };
    let output = run(&["-f", "-o", "rw"]);
    assert!(output.status.success() && !site.is_mounted());
    let options = "ro,noatime,noauto,user,x-systemd.automount,_netdev";
    let output = run(&["-n", "-o", options, "-t", "fuse.ext2dax"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let mounts = fs::read_to_string("/proc/self/mounts").expect("read");
    let root = site.root();
    let line = mounts
        .lines()
        .find(|line| line.split(' ').nth(1).map(Path::new) == Some(&root))
        .expect("mounted");
    let fields: Vec<&str> = line.split(' ').collect();
    assert_eq!(
        (Path::new(fields[0]), fields[2]),
        (site.image().as_path(), "fuse.ext2dax")
    );
    assert!(
        fields[3].starts_with("ro,") && fields[3].contains("noatime"),
        "{line}"
    );
    site.unmount();
}

#[test]
fn a_user_who_is_not_root_mounts_through_fusermount() {
    let Some(site) = Site::new() else { return };
    if !Path::new("/usr/bin/fusermount3").exists() {
        assert!(std::env::var_os("CI").is_none(), "fusermount3 is missing");
        eprintln!("skipped: fusermount3 is missing");
        return;
    }
    // Where he can reach it; and with a device that he may open, as on most systems, whatever this one says.
    let tool = site.dir.path().join("ext2dax");
    fs::copy(TOOL, &tool).expect("copied");
    let nobody = Some(nix::unistd::Uid::from_raw(65_534));
    for path in [site.image(), site.root()] {
        nix::unistd::chown(&path, nobody, None).expect("given");
    }
    let steps = "
        ./ext2dax mount image mount
        grep \"$PWD/mount fuse\" /proc/self/mounts | cut -d ' ' -f 3
        if echo x > mount/file; then echo 'the root directory of the image is not his'; fi
        fusermount3 -u mount
        ./ext2dax mount image mount -o fakeroot; echo x > mount/file; cat mount/file; fusermount3 -u mount
        if grep \"$PWD/mount fuse\" /proc/self/mounts; then exit 9; fi";
    let line = format!(
        "mknod -m 666 device c 10 229; mount --bind device /dev/fuse
         exec setpriv --reuid=65534 --regid=65534 --clear-groups sh -ec '{}'",
        steps.replace('\'', "'\\''")
    );
    let output = Command::new("unshare")
        .args(["-m", "--propagation", "private", "sh", "-ec", &line])
        .current_dir(site.dir.path())
        .output()
        .expect("run");
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_eq!(text(&output.stdout), "fuse.ext2dax\nx\n", "{said}");
    assert!(site.is_clean());
}
