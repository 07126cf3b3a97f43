//! Real programs on a mount of ours: what they leave is right by their own judgement, and the image is clean to both
//! checkers.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use ext2dax_crashtest::judge;
use ext2dax_crashtest::served::{SHARED, Served};

use crate::scratch;

/// Most seconds of one program.
const LIMIT_SECS: u64 = 60;

/// A mount of an image of its own.
struct Workshop {
    scratch: tempfile::TempDir,
    served: Served,
}

impl Workshop {
    /// `None`, and said so, without FUSE, or without one of `programs`.
    fn open(programs: &[&str]) -> Result<Option<Self>> {
        for program in programs {
            if judge::run("which", [program])?.is_none_or(|found| !found.status.success()) {
                judge::skipped(&format!("{program} is not installed"));
                return Ok(None);
            }
        }
        let scratch = scratch::dir()?;
        let image = scratch.path().join("image");
        ext2dax_mkfs::make_file(&image, &ext2dax_mkfs::Options::default(), 128 << 20)?;
        std::fs::create_dir(scratch.path().join("host"))?;
        let served = Served::new(scratch::tool(), &image, SHARED)?;
        Ok(served.map(|served| Self { scratch, served }))
    }

    /// Runs lines of a shell with the mount as `$M` and a directory of the host as `$H`; the first that fails ends it.
    fn sh(&self, lines: &str) -> Result<String> {
        let (mount, host) = (self.served.path(), self.scratch.path().join("host"));
        let script = format!(
            "set -eu; export M={} H={} HOME=/nonexistent GIT_CONFIG_NOSYSTEM=1; cd $M\n{lines}",
            plain(mount)?,
            plain(&host)?
        );
        let output = judge::run_within(LIMIT_SECS, "sh", ["-c", &script])?.context("no shell")?;
        ensure!(
            output.status.success(),
            "{lines}\n{}: {}",
            output.status,
            judge::said(&output)
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Unmounts and has the image looked at.
    fn close(self) -> Result<()> {
        self.served.unmount()?;
        judge::clean(&self.scratch.path().join("image"))
    }
}

fn plain(path: &Path) -> Result<&str> {
    path.to_str().context("a plain path")
}

/// Sources of some size that are there wherever these tests are: their own.
const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

#[test]
fn git_clones_changes_and_packs_a_repository() -> Result<()> {
    let Some(shop) = Workshop::open(&["git"])? else {
        return Ok(());
    };
    shop.sh(&format!(
        "export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
         git init -q -b main $H/origin; cp -R {SOURCES}/fs {SOURCES}/format $H/origin/; rm -rf $H/origin/*/target
         cd $H/origin; git add .; git commit -qm first
         for i in 1 2 3 4 5; do echo $i > number; git add number; git commit -qm $i; done
         git clone -q --no-hardlinks $H/origin $M/clone; cd $M/clone
         git fsck --strict --no-progress; test -z \"$(git status --porcelain)\"
         git checkout -q -b other; git mv fs elsewhere; rm -r format; git add -A; git commit -qm moved
         git checkout -q main; git merge -q --no-edit other; git gc -q; git fsck --strict --no-progress
         git clone -q $M/clone $M/second; diff -r --exclude=.git $M/clone $M/second
         git -C $M/second fsck --strict --no-progress; git worktree add -q $M/tree other; git worktree remove $M/tree; rm -rf $M/second"
    ))?;
    shop.close()
}

#[test]
fn sqlite_keeps_its_promises_with_wal_and_with_mappings() -> Result<()> {
    let Some(shop) = Workshop::open(&["sqlite3"])? else {
        return Ok(());
    };
    let load = "CREATE TABLE t(id INTEGER PRIMARY KEY, word TEXT, bytes BLOB);
         CREATE INDEX words ON t(word);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
           INSERT INTO t SELECT i, 'word ' || (i * 7919 % 20011), randomblob(50 + i % 400) FROM n;
         BEGIN; DELETE FROM t WHERE id % 3 = 0; ROLLBACK;
         DELETE FROM t WHERE id % 3 = 0; UPDATE t SET word = upper(word) WHERE id % 5 = 0; VACUUM;
         PRAGMA integrity_check; SELECT count(*), count(DISTINCT word) FROM t;";
    for (name, first) in [
        ("wal", "PRAGMA journal_mode=WAL;"),
        ("mapped", "PRAGMA mmap_size=268435456;"),
        (
            "both",
            "PRAGMA journal_mode=WAL; PRAGMA mmap_size=268435456;",
        ),
        (
            "plain",
            "PRAGMA journal_mode=DELETE; PRAGMA synchronous=FULL;",
        ),
    ] {
        let said = shop.sh(&format!("sqlite3 $M/{name}.db \"{first} {load}\""))?;
        let answer: Vec<&str> = said.lines().rev().take(2).collect();
        ensure!(answer == ["13334|13334", "ok"], "{name}: {said}");
    }
    // Two writers and a reader at once on one database, as programs use WAL; both wait for each other's locks.
    let said = shop.sh(
        "for half in 0 1; do
           sqlite3 -cmd '.timeout 20000' $M/wal.db \"WITH RECURSIVE n(i) AS
             (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
             INSERT INTO t(word) SELECT 'half $half ' || i FROM n;\" &
         done
         sqlite3 -cmd '.timeout 20000' $M/wal.db 'SELECT count(*) FROM t' > /dev/null; wait
         sqlite3 $M/wal.db \"SELECT count(*) FROM t WHERE word LIKE 'half%'; PRAGMA integrity_check;\"",
    )?;
    ensure!(said == "1000\nok\n", "{said}");
    shop.close()
}

#[test]
fn tar_brings_a_tree_in_and_out_unchanged() -> Result<()> {
    let Some(shop) = Workshop::open(&["tar"])? else {
        return Ok(());
    };
    shop.sh(&format!(
        "cp -R {SOURCES}/fs $H/tree; cd $H/tree; ln -s src link; ln Cargo.toml hard; mkfifo fifo; mkdir -m 2750 dir
         touch -d '1999-12-31 23:59:59.987654321 UTC' Cargo.toml; truncate -s 9m sparse; echo end >> sparse
         touch \"$(printf 'odd \\377 name')\"; chown -h 12:34 link; chown 70000:80000 dir
         tar -C $H -cSf $H/first.tar tree; tar -C $M -xpf $H/first.tar
         diff -r --no-dereference -x fifo $H/tree $M/tree
         tar -C $M -df $H/first.tar
         list() {{ (cd $1 && find . | LC_ALL=C sort | while IFS= read -r f; do stat -c '%n %F %a %u:%g %h %Y %N' \"$f\"; done); }}
         list $H/tree | grep -av ' directory ' > $H/a; list $M/tree | grep -av ' directory ' > $H/b; cmp $H/a $H/b
         test $(stat -c %b $M/tree/sparse) -lt 100; rm -rf $M/tree"
    ))?;
    shop.close()
}

#[test]
fn make_and_cc_build_a_project() -> Result<()> {
    let Some(shop) = Workshop::open(&["make", "cc", "ar"])? else {
        return Ok(());
    };
    let said = shop.sh(
        r#"mkdir -p $M/project/src; cd $M/project
         for i in $(seq 40); do
           printf '#include "all.h"\nint f%s(int x) { return x + %s; }\n' $i $i > src/f$i.c
           echo "int f$i(int);" >> src/all.h
         done
         { echo '#include <stdio.h>'; echo '#include "all.h"'; echo 'int main(void) { int x = 0;'
           for i in $(seq 40); do echo "x = f$i(x);"; done; printf '%s\n' 'printf("%d\n", x); return 0; }'; } > src/main.c
         printf 'OBJ := $(patsubst src/%%.c,build/%%.o,$(wildcard src/f*.c))\n' > Makefile
         printf 'program: src/main.c build/lib.a\n\tcc -O1 -o $@ $^\n' >> Makefile
         printf 'build/lib.a: $(OBJ)\n\tar rcs $@ $^\n' >> Makefile
         printf 'build/%%.o: src/%%.c src/all.h\n\t@mkdir -p build\n\tcc -O1 -c -o $@ $<\n' >> Makefile
         make -j2 > $H/log; ./program; make -q program
         touch src/f7.c; make -j2 > $H/second; test $(grep -c -e '-c -o' $H/second) = 1; ./program"#,
    )?;
    ensure!(said == "820\n820\n", "{said}");
    shop.close()
}

#[test]
fn rsync_carries_attributes_and_lists() -> Result<()> {
    let Some(shop) = Workshop::open(&["rsync", "setfattr", "setfacl", "getfattr", "getfacl"])?
    else {
        return Ok(());
    };
    shop.sh(&format!(
        "cp -R {SOURCES}/fs $M/from; cd $M/from
         setfattr -n user.note -v 'a note' Cargo.toml; setfattr -n trusted.t -v x Cargo.toml
         setfacl -m u:12:rw,g:34:r Cargo.toml; setfacl -d -m u:56:rwx src; setfattr -n user.d -v y src
         touch -d '2001-02-03 04:05:06.789' Cargo.toml; ln Cargo.toml hard; chmod 4755 tests
         rsync -aHAX --numeric-ids $M/from/ $M/to/
         test -z \"$(rsync -aHAXni --numeric-ids $M/from/ $M/to/)\"
         show() {{ (cd $1; find . | LC_ALL=C sort > $H/names; getfacl -n - < $H/names
           xargs getfattr -h -d -m '^(user|trusted)' < $H/names); }}
         show $M/from > $H/a; show $M/to > $H/b; cmp $H/a $H/b; grep -q 'user:56:rwx' $H/b; grep -q 'a note' $H/b
         test $(stat -c %i $M/to/hard) = $(stat -c %i $M/to/Cargo.toml)
         rm $M/from/Cargo.toml; rsync -aHAX --delete --numeric-ids $M/from/ $M/to/; test ! -e $M/to/Cargo.toml"
    ))?;
    shop.close()
}
