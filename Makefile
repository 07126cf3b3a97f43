# The one front door. `make demo` shows the main job, `make test` runs the tests; both install what is missing.
CARGO ?= cargo
T ?= 60
PREFIX ?= /usr/local

.PHONY: all check demo test soak races crash interop bench fuzz fixtures docs install unikernel clean

all:
	$(CARGO) build --workspace

# fmt, clippy, rustdoc, no_std builds, crate arrows, list of files with unsafe, PUBLISH and SAFETY comments.
check:
	.ci/setup check
	.ci/check

demo:
	.ci/setup demo
	$(CARGO) run --release -q -p ext2dax-cli --example demo

test:
	.ci/setup test
	.ci/test

# The long rounds of everything, with their figures.
soak:
	.ci/setup test
	EXT2DAX_SOAK=1 .ci/test

# Fault scenarios and mutations under the schedule explorer.
races:
	.ci/races

# Every crash state of the recorded operations.
crash:
	$(CARGO) test -p ext2dax-crashtest --test it crash -- --nocapture

# Images by others read by us, ours read by others.
interop:
	$(CARGO) test -p ext2dax-crashtest --test it interop -- --nocapture

bench:
	.ci/setup test
	# The FUSE mount is measured through the tool.
	$(CARGO) build --release -q -p ext2dax-cli
	$(CARGO) run --release -q -p ext2dax-benches --bin compare
	$(CARGO) run --release -q -p ext2dax-benches --bin fsck
	$(CARGO) build --release -q -p ext2dax-mkfs
	$(CARGO) run --release -q -p ext2dax-benches --bin mkfs

fuzz:
	.ci/fuzz $(T)

# The images of fixtures/ anew, from their make.sh.
fixtures:
	for script in fixtures/*/make.sh; do echo "$$script"; sh "$$script"; done

docs:
	$(CARGO) doc --workspace --no-deps

# Cargo takes no dots in the names of programs; the file system's own callers, mkfs(8) and fsck(8), want one.
install:
	$(CARGO) build --release --locked -p ext2dax-mkfs -p ext2dax-fsck -p ext2dax-cli
	$(CARGO) run -q --release --locked -p ext2dax-mkfs --example mkfs-man > target/mkfs.ext2dax.8
	$(CARGO) run -q --release --locked -p ext2dax-fsck --example fsck-man > target/fsck.ext2dax.8
	$(CARGO) run -q --release --locked -p ext2dax-cli --example man target/man
	install -d $(DESTDIR)$(PREFIX)/share/man/man1
	install -m 644 target/man/*.1 $(DESTDIR)$(PREFIX)/share/man/man1
	install -D -m 644 target/man/mount.ext2dax.8 $(DESTDIR)$(PREFIX)/share/man/man8/mount.ext2dax.8
	install -D -m 644 target/mkfs.ext2dax.8 $(DESTDIR)$(PREFIX)/share/man/man8/mkfs.ext2dax.8
	install -D -m 644 target/fsck.ext2dax.8 $(DESTDIR)$(PREFIX)/share/man/man8/fsck.ext2dax.8
	install -D target/release/ext2dax $(DESTDIR)$(PREFIX)/bin/ext2dax
	install -d $(DESTDIR)$(PREFIX)/sbin
	ln -sf ../bin/ext2dax $(DESTDIR)$(PREFIX)/sbin/mount.ext2dax
	ln -sf ../bin/ext2dax $(DESTDIR)$(PREFIX)/sbin/mount.fuse.ext2dax
	install -D target/release/mkfs-ext2dax $(DESTDIR)$(PREFIX)/sbin/mkfs.ext2dax
	install -D target/release/fsck-ext2dax $(DESTDIR)$(PREFIX)/sbin/fsck.ext2dax

# The no_std proof: everything up to the file system linked into a freestanding binary.
unikernel:
	.ci/no-std

clean:
	$(CARGO) clean
	rm -rf crates/unikernel/target fuzz/target
