//! Byte-addressable media: the region contract, its safe handle, providers and the recorder.
