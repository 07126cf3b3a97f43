# The one front door. `make demo` shows the main job, `make test` runs the tests; both install what is missing.
CARGO ?= cargo
T ?= 60

.PHONY: all check demo test soak races crash interop bench fuzz docs install unikernel clean

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
	$(CARGO) run --release -q -p ext2dax-benches --bin compare

fuzz:
	.ci/fuzz $(T)

docs:
	$(CARGO) doc --workspace --no-deps

install:
	$(CARGO) install --locked --path crates/mkfs
	$(CARGO) install --locked --path crates/fsck

# The no_std proof: everything up to the file system linked into a freestanding binary.
unikernel:
	.ci/no-std

clean:
	$(CARGO) clean
	rm -rf crates/unikernel/target fuzz/target
