//! Check, mount, walk, read, change, check again.
#![no_main]

use ext2dax_crashtest::hostile::exercise;
use ext2dax_fuzz::Input;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: Input| {
    exercise(&input.image());
});
