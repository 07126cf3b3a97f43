use ext2dax::*;
use ext2dax_pmem::*;
use std::time::Instant;
fn cpu() -> u64 {
    std::fs::read_to_string("/proc/thread-self/schedstat")
        .unwrap()
        .split(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap()
}
fn main() {
    let path = "/dev/shm/names-speed.img";
    let bs = std::env::args().nth(1).unwrap_or("4096".into());
    std::fs::File::create(path)
        .unwrap()
        .set_len(2 << 30)
        .unwrap();
    assert!(
        std::process::Command::new("mke2fs")
            .args(["-q", "-F", "-t", "ext2", "-b", &bs, "-N", "300000", path])
            .status()
            .unwrap()
            .success()
    );
    let fs = FileSystem::mount(
        FileRegion::open(path, Access::ReadWrite).unwrap(),
        &MountOptions::new(),
    )
    .unwrap();
    let root = fs.root().unwrap();
    let new = New {
        mode: 0o644,
        ..New::default()
    };
    let n: usize = std::env::args()
        .nth(2)
        .map_or(100_000, |n| n.parse().unwrap());
    let d = root.mkdir(b"d", &New { mode: 0o755, ..new }).unwrap();
    let e = root.mkdir(b"e", &New { mode: 0o755, ..new }).unwrap();
    let names: Vec<Vec<u8>> = (0..n)
        .map(|i| format!("file-number-{i:06}").into_bytes())
        .collect();
    let t = |what: &str, f: &mut dyn FnMut(usize)| {
        let s = cpu();
        for i in 0..n {
            f(i)
        }
        println!("{what:28} {:8.0} ns", (cpu() - s) as f64 / n as f64);
    };
    for round in 0..2 {
        println!("round {round}");
        t("create", &mut |i| {
            d.create(&names[i], &new).unwrap();
        });
        t("lookup hit", &mut |i| {
            std::hint::black_box(d.lookup(&names[(i * 7919) % n]).unwrap());
        });
        t("lookup miss", &mut |i| {
            std::hint::black_box(d.lookup(&names[(i * 7919) % n][1..]).is_err());
        });
        t("link", &mut |i| {
            if i < 30000 {
                let f = d.lookup(&names[0]).unwrap();
                e.link(&names[i], &f).unwrap();
            }
        });
        t("unlink link", &mut |i| {
            if i < 30000 {
                e.unlink(&names[i]).unwrap();
            }
        });
        t("rename same dir", &mut |i| {
            let mut to = names[i].clone();
            to[0] = b'g';
            d.rename(&names[i], &d, &to).unwrap();
        });
        t("rename same dir back", &mut |i| {
            let mut to = names[i].clone();
            to[0] = b'g';
            d.rename(&to, &d, &names[i]).unwrap();
        });
        t("rename other dir", &mut |i| {
            d.rename(&names[i], &e, &names[i]).unwrap();
        });
        t("create again", &mut |i| {
            d.create(&names[i], &new).unwrap();
        });
        t("rename over", &mut |i| {
            e.rename(&names[i], &d, &names[i]).unwrap();
        });
        let s = Instant::now();
        let l = d.read_dir(0, usize::MAX).unwrap().len();
        println!("read_dir {} in {:?}", l, s.elapsed());
        t("unlink", &mut |i| {
            d.unlink(&names[i]).unwrap();
        });
        t("mkdir", &mut |i| {
            d.mkdir(&names[i], &new)
                .map(|_| ())
                .or_else(|e| {
                    if e == Error::TooManyLinks {
                        Ok(())
                    } else {
                        Err(e)
                    }
                })
                .unwrap();
        });
        t("rmdir", &mut |i| {
            d.rmdir(&names[i])
                .map(|_| ())
                .or_else(|e| if e == Error::NotFound { Ok(()) } else { Err(e) })
                .unwrap();
        });
        t("symlink fast", &mut |i| {
            d.symlink(&names[i], b"target", &new).unwrap();
        });
        t("unlink symlink", &mut |i| {
            d.unlink(&names[i]).unwrap();
        });
    }
    drop((root, d, e));
    fs.unmount().unwrap();
    std::process::Command::new("e2fsck")
        .args(["-fn", path])
        .status()
        .unwrap();
    std::fs::remove_file(path).unwrap();
}
