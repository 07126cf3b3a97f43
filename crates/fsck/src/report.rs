//! What a check returns.

use std::time::Duration;

use crate::census::{Census, Counts};
use crate::finding::Finding;
use crate::layout::feature;
use crate::open::Volume;
use crate::preamble;
use crate::problem::{Pass, Preen, Severity};

/// Numbers of the file system, counted and not copied from the superblock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Inodes in use by the count of pass 1, reserved ones included.
    pub inodes_used: u64,
    /// All inodes.
    pub inodes: u64,
    /// Blocks in use by the count of pass 1; the boot block of 1 KiB file systems counts as used.
    pub blocks_used: u64,
    /// All blocks.
    pub blocks: u64,
    /// Bytes of a block.
    pub block_size: u32,
    /// Files by type.
    pub counts: Counts,
    /// The journal has not been replayed.
    pub needs_recovery: bool,
    /// Bits of `s_feature_compat` that nobody here knows: such an image is not repaired.
    pub unknown_compat: u32,
}

impl Summary {
    pub(crate) fn new(volume: &Volume, census: &Census, findings: &[Finding]) -> Self {
        let layout = &volume.layout;
        Self {
            inodes_used: census.counts.inodes(),
            inodes: layout.inodes.into(),
            blocks_used: census.claimed_count + u64::from(layout.first_data_block),
            blocks: layout.blocks.into(),
            block_size: layout.block_size,
            counts: census.counts,
            needs_recovery: preamble::needs_replay(volume, findings),
            unknown_compat: layout.compat & !feature::COMPAT_KNOWN,
        }
    }
}

/// The result of a check.
#[derive(Clone, Debug)]
pub struct Report {
    /// All findings, in the order of the passes.
    pub findings: Vec<Finding>,
    /// Counts.
    pub summary: Summary,
    /// How long each pass took.
    pub times: Vec<(Pass, Duration)>,
}

impl Report {
    pub(crate) fn new(
        findings: Vec<Finding>,
        summary: Summary,
        times: Vec<(Pass, Duration)>,
    ) -> Self {
        Self {
            findings,
            summary,
            times,
        }
    }

    /// Nothing was found.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }

    /// Everything that was found may be what an interrupted ext2dax left.
    #[must_use]
    pub fn is_residue_only(&self) -> bool {
        self.findings
            .iter()
            .all(|finding| finding.severity == Severity::Residue)
    }

    /// Preen may repair everything that was found.
    #[must_use]
    pub fn is_preen_safe(&self) -> bool {
        self.findings
            .iter()
            .all(|finding| finding.preen == Preen::Safe)
    }

    /// The findings with a severity.
    pub fn with_severity(&self, severity: Severity) -> impl Iterator<Item = &Finding> {
        self.findings
            .iter()
            .filter(move |finding| finding.severity == severity)
    }
}
