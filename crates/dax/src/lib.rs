//! Files as memory: address space, read, write, zero, sync over a block map.
