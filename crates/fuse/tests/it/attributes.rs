//! Attributes, owners and lists through the mount, as root and as somebody else.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, IFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, XattrFlags, utimensat,
};
use rustix::io::Errno;

use super::Mount;
use super::mounted::{as_nobody, run, skipped_without};

/// User and group of [`as_nobody`].
const NOBODY: u32 = 65_534;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("there").permissions().mode() & 0o7777
}

fn at(secs: i64, nanos: i64) -> Timespec {
    Timespec {
        tv_sec: secs,
        tv_nsec: nanos,
    }
}

#[test]
fn times_are_kept_to_the_nanosecond_before_and_after_the_epoch() {
    let Some(mount) = Mount::new("") else { return };
    let times = [
        at(0, 0),
        at(0, 1),
        at(-1, 500_000_000),
        at(-1, 0),
        at(-2_000_000_000, 999_999_999),
        at(4_000_000_000, 123_456_789),
    ];
    for (i, time) in times.iter().enumerate() {
        let path = mount.path(format!("f{i}"));
        fs::write(&path, "x").expect("written");
        let set = Timestamps {
            last_access: *time,
            last_modification: *time,
        };
        utimensat(CWD, &path, &set, AtFlags::empty()).expect("set");
    }
    let again = Mount::again(mount.end(), "ro");
    for (i, time) in times.iter().enumerate() {
        let stat = fs::metadata(again.path(format!("f{i}"))).expect("there");
        assert_eq!(
            (stat.mtime(), stat.mtime_nsec()),
            (time.tv_sec, time.tv_nsec)
        );
        assert_eq!(
            (stat.atime(), stat.atime_nsec()),
            (time.tv_sec, time.tv_nsec)
        );
    }
    again.end();
}

#[test]
fn a_time_may_be_left_alone_or_be_now() {
    let Some(mount) = Mount::new("") else { return };
    let path = mount.path("file");
    fs::write(&path, "x").expect("written");
    let set = |accessed, modified| {
        let times = Timestamps {
            last_access: accessed,
            last_modification: modified,
        };
        utimensat(CWD, &path, &times, AtFlags::empty()).expect("set");
        let stat = fs::metadata(&path).expect("there");
        (stat.atime(), stat.mtime())
    };
    assert_eq!(set(at(100, 0), at(200, 0)), (100, 200));
    assert_eq!(set(at(0, UTIME_OMIT), at(300, 0)), (100, 300));
    let (accessed, modified) = set(at(0, UTIME_NOW), at(0, UTIME_OMIT));
    assert!(accessed > 1_700_000_000 && modified == 300);
    mount.end();
}

#[test]
fn the_bits_of_set_id_go_with_a_strangers_write_and_with_the_owner() {
    let Some(mount) = Mount::new("allow_other") else {
        return;
    };
    let path = mount.path("program");
    let fresh = |bits| {
        fs::write(&path, "x").expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(bits)).expect("set");
        assert_eq!(mode(&path), bits);
    };
    let file = path.to_str().expect("plain");
    fresh(0o6777);
    fs::write(&path, "y").expect("written by root");
    assert_eq!(mode(&path), 0o6777, "root keeps them");
    for command in [
        format!("printf z >> {file}"),
        format!("truncate -s 0 {file}"),
        format!("truncate -s 9 {file}"),
        format!("fallocate -l 100 {file}"),
    ] {
        fresh(0o6777);
        run(&mut as_nobody(&command));
        assert_eq!(mode(&path), 0o777, "{command}");
    }
    fresh(0o6755);
    rustix::fs::chown(&path, Some(rustix::fs::Uid::from_raw(1234)), None).expect("given away");
    assert_eq!(mode(&path), 0o755);
    fresh(0o6745);
    rustix::fs::chown(&path, None, Some(rustix::fs::Gid::from_raw(1234))).expect("given away");
    assert_eq!(
        mode(&path),
        0o2745,
        "no program of the group: mandatory locking"
    );
    mount.end();
}

#[test]
fn somebody_outside_the_group_takes_its_bit_where_the_group_may_not_execute() {
    let Some(mount) = Mount::new("allow_other") else {
        return;
    };
    let path = mount.path("locked");
    let file = path.to_str().expect("plain");
    for command in [
        format!("printf z >> {file}"),
        format!("truncate -s 0 {file}"),
        format!("fallocate -l 100 {file}"),
    ] {
        for (group, left) in [(1234, 0o767), (NOBODY, 0o2767)] {
            fs::write(&path, "x").expect("written");
            std::os::unix::fs::chown(&path, None, Some(group)).expect("given");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o2767)).expect("set");
            run(&mut as_nobody(&command));
            assert_eq!(mode(&path), left, "{command}, group {group}");
        }
    }
    mount.end();
}

#[test]
fn the_kernel_checks_modes_before_a_request_is_sent() {
    let Some(mount) = Mount::new("allow_other") else {
        return;
    };
    let path = mount.path("secret");
    fs::write(&path, "x").expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("set");
    let file = path.display();
    for command in [
        format!("cat {file}"),
        format!("echo > {file}"),
        format!("rm -f {file}"),
        format!("chmod 666 {file}"),
        format!("touch {file}.new"),
    ] {
        let output = as_nobody(&command).output().expect("run");
        assert!(!output.status.success(), "{command}");
    }
    assert_eq!(fs::read(&path).expect("read"), b"x");
    mount.end();
}

#[test]
fn with_fakeroot_everybody_acts_as_root() {
    let Some(mount) = Mount::new("allow_other,fakeroot") else {
        return;
    };
    let path = mount.path("secret");
    fs::write(&path, "x").expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("set");
    run(&mut as_nobody(&format!(
        "cat {0} && rm -f {0}",
        path.display()
    )));
    assert!(!path.exists());
    mount.end();
}

#[test]
fn without_allow_other_nobody_else_comes_in() {
    let Some(mount) = Mount::new("") else { return };
    let command = format!("ls {}", mount.root().display());
    assert!(!as_nobody(&command).output().expect("run").status.success());
    mount.end();
}

#[test]
fn new_files_belong_to_their_maker_and_obey_the_umask() {
    let Some(mount) = Mount::new("allow_other") else {
        return;
    };
    let root = mount.root();
    fs::set_permissions(&root, fs::Permissions::from_mode(0o1777)).expect("set");
    let at = root.display();
    run(&mut as_nobody(&format!(
        "umask 027; echo x > {at}/file; mkdir {at}/dir; mkfifo {at}/fifo; ln -s x {at}/link"
    )));
    for (name, bits) in [
        ("file", 0o640),
        ("dir", 0o750),
        ("fifo", 0o640),
        ("link", 0o777),
    ] {
        let stat = fs::symlink_metadata(root.join(name)).expect("there");
        assert_eq!((stat.uid(), stat.gid()), (65_534, 65_534), "{name}");
        assert_eq!(stat.permissions().mode() & 0o7777, bits, "{name}");
    }
    mount.end();
}

#[test]
fn a_group_is_handed_down_by_its_bit_or_by_grpid() {
    for (options, bit) in [("", 0o2000), ("grpid", 0)] {
        let Some(mount) = Mount::new(options) else {
            return;
        };
        let dir = mount.path("dir");
        fs::create_dir(&dir).expect("made");
        rustix::fs::chown(&dir, None, Some(rustix::fs::Gid::from_raw(77))).expect("given");
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755 | bit)).expect("set");
        fs::write(dir.join("file"), "x").expect("written");
        fs::create_dir(dir.join("below")).expect("made");
        assert_eq!(fs::metadata(dir.join("file")).expect("there").gid(), 77);
        let below = fs::metadata(dir.join("below")).expect("there");
        assert_eq!(
            (below.gid(), below.permissions().mode() & 0o2000),
            (77, bit)
        );
        mount.end();
    }
}

#[test]
fn attributes_are_kept_and_listed_to_those_who_may_see_them() {
    let Some(mount) = Mount::new("allow_other") else {
        return;
    };
    let path = mount.path("file");
    fs::write(&path, "x").expect("written");
    let set = |name: &str, value: &[u8], flags| rustix::fs::setxattr(&path, name, value, flags);
    set("user.a", b"first", XattrFlags::empty()).expect("set");
    set("trusted.b", &[7; 1000], XattrFlags::empty()).expect("set");
    set("security.c", b"", XattrFlags::empty()).expect("set");
    assert_eq!(set("user.a", b"x", XattrFlags::CREATE), Err(Errno::EXIST));
    assert_eq!(set("user.z", b"x", XattrFlags::REPLACE), Err(Errno::NODATA));
    assert_eq!(
        set("user.z", &[1; 8000], XattrFlags::empty()),
        Err(Errno::NOSPC)
    );
    assert_eq!(
        set("nosuch.z", b"x", XattrFlags::empty()),
        Err(Errno::OPNOTSUPP)
    );
    let both = XattrFlags::CREATE | XattrFlags::REPLACE;
    assert_eq!(set("user.a", b"x", both), Err(Errno::EXIST));
    assert_eq!(set("user.z", b"x", both), Err(Errno::NODATA));
    set("user.a", b"second", XattrFlags::REPLACE).expect("set");
    let mut buf = [0; 100];
    assert_eq!(rustix::fs::getxattr(&path, "user.a", &mut buf[..]), Ok(6));
    assert_eq!(&buf[..6], b"second");
    assert_eq!(
        rustix::fs::getxattr(&path, "user.a", &mut buf[..3]),
        Err(Errno::RANGE)
    );
    assert_eq!(
        rustix::fs::getxattr(&path, "user.q", &mut buf[..]),
        Err(Errno::NODATA)
    );
    let mut list = [0; 200];
    let len = rustix::fs::listxattr(&path, &mut list[..]).expect("listed");
    let mut names: Vec<_> = list[..len - 1].split(|byte| *byte == 0).collect();
    names.sort();
    assert_eq!(names, [&b"security.c"[..], b"trusted.b", b"user.a"]);
    if !skipped_without("getfattr") {
        let command = format!("getfattr -m - {}", path.display());
        let said = run(&mut as_nobody(&command));
        assert!(
            said.contains("user.a") && !said.contains("trusted.b"),
            "{said}"
        );
    }
    rustix::fs::removexattr(&path, "user.a").expect("removed");
    assert_eq!(rustix::fs::removexattr(&path, "user.a"), Err(Errno::NODATA));
    mount.end();
}

#[test]
fn lists_are_enforced_inherited_and_kept_in_step_with_the_mode() {
    if skipped_without("setfacl") {
        return;
    }
    let Some(mount) = Mount::new("allow_other") else {
        return;
    };
    let path = mount.path("file");
    let file = path.display();
    fs::write(&path, "x").expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("set");
    let shell = |line: &str| run(std::process::Command::new("sh").args(["-c", line]));
    assert!(
        !as_nobody(&format!("cat {file}"))
            .output()
            .expect("run")
            .status
            .success()
    );
    shell(&format!("setfacl -m u:nobody:r {file}"));
    run(&mut as_nobody(&format!("cat {file}")));
    assert_eq!(mode(&path), 0o640, "the mask is the mode's group");
    shell(&format!("chmod g= {file}"));
    assert!(
        !as_nobody(&format!("cat {file}"))
            .output()
            .expect("run")
            .status
            .success()
    );
    let dir = mount.path("dir");
    fs::create_dir(&dir).expect("made");
    shell(&format!("setfacl -d -m u:nobody:rwx,o:- {}", dir.display()));
    shell(&format!("umask 077; echo > {}/new", dir.display()));
    assert_eq!(
        mode(&dir.join("new")),
        0o660,
        "the default list stands in for the umask"
    );
    let said = shell(&format!("getfacl -c {}/new", dir.display()));
    assert!(said.contains("user:nobody:rwx"), "{said}");
    mount.end();
}

/// Where only root comes in nothing is checked, and so the kernel does not enforce lists; they are kept all the same.
#[test]
fn lists_are_kept_where_only_root_comes_in() {
    if skipped_without("setfacl") {
        return;
    }
    let Some(mount) = Mount::new("") else { return };
    let path = mount.path("file");
    fs::write(&path, "x").expect("written");
    run(std::process::Command::new("setfacl")
        .args(["-m", "u:nobody:rwx"])
        .arg(&path));
    assert_eq!(mode(&path), 0o674);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o604)).expect("set");
    let said = run(std::process::Command::new("getfacl").arg("-c").arg(&path));
    assert!(
        said.contains("user:nobody:rwx") && said.contains("mask::---"),
        "{said}"
    );
    mount.end();
}

#[test]
fn without_lists_there_are_none() {
    if skipped_without("setfacl") {
        return;
    }
    let Some(mount) = Mount::new("noacl") else {
        return;
    };
    fs::write(mount.path("file"), "x").expect("written");
    let output = std::process::Command::new("setfacl")
        .args(["-m", "u:nobody:r"])
        .arg(mount.path("file"))
        .output()
        .expect("run");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains("not supported"),
        "{said}"
    );
    mount.end();
}

#[test]
fn flags_are_set_shown_and_obeyed() {
    let Some(mount) = Mount::new("") else { return };
    let path = mount.path("file");
    fs::write(&path, "x").expect("written");
    let file = File::open(&path).expect("opened");
    let set = |flags| rustix::fs::ioctl_setflags(&file, flags).expect("set");
    let changed = || {
        let stat = fs::metadata(&path).expect("there");
        (stat.ctime(), stat.ctime_nsec())
    };
    let before = changed();
    // Times are those of the last tick, which is up to 10 ms ago.
    std::thread::sleep(std::time::Duration::from_millis(20));
    set(IFlags::IMMUTABLE | IFlags::NODUMP);
    let after = changed();
    assert!(
        after > before,
        "flags change the change time: {before:?}, then {after:?}"
    );
    assert_eq!(
        rustix::fs::ioctl_getflags(&file).expect("told"),
        IFlags::IMMUTABLE | IFlags::NODUMP
    );
    let refused = |flags| rustix::fs::ioctl_setflags(&file, flags).expect_err("refused");
    for flags in [IFlags::IMMUTABLE, IFlags::IMMUTABLE | IFlags::NOATIME] {
        assert_eq!(refused(flags), Errno::PERM, "it stays immutable");
    }
    set(IFlags::IMMUTABLE | IFlags::NODUMP);
    let denied = std::io::ErrorKind::PermissionDenied;
    let open = |options: &mut fs::OpenOptions| options.open(&path).map_err(|error| error.kind());
    assert_eq!(open(fs::OpenOptions::new().write(true)).err(), Some(denied));
    assert_eq!(
        fs::remove_file(&path).expect_err("immutable").kind(),
        denied
    );
    set(IFlags::APPEND);
    assert_eq!(open(fs::OpenOptions::new().write(true)).err(), Some(denied));
    assert!(open(fs::OpenOptions::new().append(true)).is_ok());
    set(IFlags::empty());
    assert!(open(fs::OpenOptions::new().write(true)).is_ok());
    let of_directories = IFlags::from_bits_retain(0x2_0000);
    assert_eq!(refused(of_directories), Errno::OPNOTSUPP, "topdir");
    drop(file);
    mount.end();
}

#[test]
fn the_generation_is_shown_and_set() {
    if skipped_without("lsattr") {
        return;
    }
    let Some(mount) = Mount::new("") else { return };
    let path = mount.path("file");
    fs::write(&path, "x").expect("written");
    let tool = |name: &str, args: &[&str]| {
        run(std::process::Command::new(name)
            .args(args)
            .arg(&path)
            .env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin"))
    };
    tool("chattr", &["-v", "12345678"]);
    let said = tool("lsattr", &["-v"]);
    assert!(said.trim_start().starts_with("12345678 "), "{said}");
    mount.end();
}
