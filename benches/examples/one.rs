use ext2dax_benches::{ours, sample::*};
fn main() {
    let what = std::env::args().nth(1).unwrap();
    let mib: usize = std::env::args().nth(2).map_or(256, |s| s.parse().unwrap());
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let image = ours::Image::new(dir.path(), 1024, 150_000 /* inodes */).unwrap();
    let len = mib << 20;
    let file = ext2dax::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .open(image.fs(), "/data")
        .unwrap();
    let chunk = vec![1u8; 1 << 20];
    for at in (0..len).step_by(1 << 20) {
        file.write_all_at(&chunk, at as u64).unwrap();
    }
    let mut n = Numbers::new(1);
    let ats: Vec<u64> = (0..20000)
        .map(|_| n.below((len / 4096) as u64) * 4096)
        .collect();
    let mut page = [7u8; 4096];
    let mut best = f64::MAX;
    let rounds = 300;
    if what == "stat" || what == "create" || what == "rename" {
        let fs = image.fs();
        let count: usize = mib;
        fs.create_dir("/d").unwrap();
        let names: Vec<String> = (0..count).map(|i| format!("/d/file-{i:07}")).collect();
        for nm in &names {
            fs.create(nm.as_str()).unwrap();
        }
        let pick: Vec<&String> = (0..20000)
            .map(|_| &names[n.below(count as u64) as usize])
            .collect();
        let new: Vec<String> = (0..1000).map(|i| format!("/d/new-{i:07}")).collect();
        let other: Vec<String> = (0..1000).map(|i| format!("/d/other-{i:07}")).collect();
        let mut t = [f64::MAX; 4];
        for _ in 0..rounds {
            if what == "stat" {
                t[0] = t[0].min(per_op(20000, || {
                    for nm in &pick {
                        std::hint::black_box(fs.metadata(nm.as_str()).unwrap().len());
                    }
                }));
            } else {
                t[1] = t[1].min(per_op(1000, || {
                    for nm in &new {
                        fs.create(nm.as_str()).unwrap();
                    }
                }));
                t[2] = t[2].min(per_op(1000, || {
                    for (a, b) in new.iter().zip(&other) {
                        fs.rename(a.as_str(), b.as_str()).unwrap();
                    }
                }));
                t[3] = t[3].min(per_op(1000, || {
                    for nm in &other {
                        fs.remove_file(nm.as_str()).unwrap();
                    }
                }));
            }
        }
        println!(
            "{count}: stat {:.0} create {:.0} rename {:.0} unlink {:.0}",
            t[0], t[1], t[2], t[3]
        );
        return;
    }
    for _ in 0..rounds {
        let t = match what.as_str() {
            "w" => per_op(20000, || {
                for &at in &ats {
                    file.write_at(&page[..], at).unwrap();
                }
            }),
            "r" => per_op(20000, || {
                for &at in &ats {
                    file.read_at(&mut page[..], at).unwrap();
                }
            }),
            "w1" => per_op(20000, || {
                for &at in &ats {
                    file.write_at(&page[..1], at).unwrap();
                }
            }),
            _ => per_op(20000, || {
                for &at in &ats {
                    file.read_at(&mut page[..1], at).unwrap();
                }
            }),
        };
        best = best.min(t);
    }
    println!("{what} {mib} MiB: {best:.0} ns");
}
