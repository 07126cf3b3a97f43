#!/bin/sh
# cargo runner: run-qemu.sh ELF, with IMAGE=file (an ext2 image; the guest works on a copy). Exit status 0 when the kernel
# reported success. A triple fault ends QEMU with status 0, so 0 is a failure here.
set -eu
rc=0
timeout "${TIMEOUT:-120}" qemu-system-x86_64 -accel tcg -cpu max -m 512M -kernel "$1" -initrd "${IMAGE:?an ext2 image}" \
  -nodefaults -no-reboot -display none -monitor none -serial stdio \
  -device isa-debug-exit,iobase=0xf4,iosize=4 </dev/null || rc=$?
case $rc in
  33) exit 0 ;;
  0) echo "the machine ended without an answer: triple fault or reset" >&2; exit 1 ;;
  *) exit "$rc" ;;
esac
