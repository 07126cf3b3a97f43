//! The checker alone: it answers, the same on one thread and on two.
#![no_main]

use ext2dax_crashtest::hostile::region;
use ext2dax_fsck::{CheckOptions, check};
use ext2dax_fuzz::Input;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: Input| {
    let pmem = region(&input.image()).expect("memory for an image");
    let texts = |threads| {
        let options = CheckOptions {
            threads,
            ..CheckOptions::default()
        };
        let report = check(&pmem, &options).ok()?;
        Some(
            report
                .findings
                .iter()
                .map(|finding| finding.text())
                .collect::<Vec<_>>(),
        )
    };
    assert_eq!(texts(1), texts(2));
});
