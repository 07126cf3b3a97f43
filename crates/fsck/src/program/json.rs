//! What a program reads: one object a line.

use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;

use ext2dax_fsck::{Finding, Preen, Report, Severity};
use serde_json::{Value, json};

use super::options::Options;

/// Number of the shape of these objects; it goes up when a field changes its meaning.
const SCHEMA: u32 = 1;

/// One object for each finding, then one for the summary.
pub(super) fn print_report(options: &Options, fixed: &[Finding], report: &Report) {
    let mut out = io::stdout().lock();
    let chosen =
        |finding: &&Finding| options.only.is_empty() || options.only.contains(&finding.code);
    for finding in fixed.iter().chain(report.findings.iter().filter(chosen)) {
        let _ = writeln!(out, "{}", finding_object(finding));
    }
    let summary = &report.summary;
    let times: Vec<Value> = report
        .times
        .iter()
        .map(|(pass, time)| json!({"pass": *pass as u8, "seconds": time.as_secs_f64()}))
        .collect();
    let object = json!({
        "schema": SCHEMA,
        "type": "summary",
        "image": bytes(options.image.as_os_str().as_bytes()),
        "fixed": fixed.len(),
        "clean": report.is_clean(),
        "damage": report.with_severity(Severity::Damage).count(),
        "residue": report.with_severity(Severity::Residue).count(),
        "preen_safe": report.is_preen_safe(),
        "inodes_used": summary.inodes_used,
        "inodes": summary.inodes,
        "blocks_used": summary.blocks_used,
        "blocks": summary.blocks,
        "block_size": summary.block_size,
        "needs_recovery": summary.needs_recovery,
        "passes": times,
    });
    let _ = writeln!(out, "{object}");
}

/// The error that kept the check from running.
pub(super) fn print_error(options: &Options, why: &str) {
    let image = bytes(options.image.as_os_str().as_bytes());
    let object =
        json!({"schema": SCHEMA, "type": "error", "op": "fsck", "image": image, "text": why});
    let _ = writeln!(io::stderr(), "{object}");
}

fn finding_object(finding: &Finding) -> Value {
    let mut object = json!({
        "schema": SCHEMA,
        "type": "finding",
        "code": finding.code.word(),
        "pass": finding.pass() as u8,
        "severity": if finding.severity == Severity::Residue { "residue" } else { "damage" },
        "preen": finding.preen == Preen::Safe,
        "text": finding.text(),
        "action": finding.action(),
        "at": finding.at,
        "found": finding.found,
        "expected": finding.expected,
        "fixed": finding.fixed,
    });
    let Some(map) = object.as_object_mut() else {
        return object;
    };
    for (key, value) in [
        ("ino", finding.ino),
        ("parent", finding.parent),
        ("block", finding.block),
    ] {
        if value != 0 {
            map.insert(key.to_owned(), value.into());
        }
    }
    if let Some(group) = finding.group {
        map.insert("group".to_owned(), group.into());
    }
    for (key, value) in [("name", &finding.name), ("path", &finding.path)] {
        if !value.is_empty() {
            map.insert(key.to_owned(), bytes(value));
            if std::str::from_utf8(value).is_err() {
                let hex: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
                map.insert(format!("{key}_hex"), hex.into());
            }
        }
    }
    object
}

fn bytes(bytes: &[u8]) -> Value {
    String::from_utf8_lossy(bytes).into_owned().into()
}
