//! A finding: one inconsistency with its place, and how it reads.

use std::fmt::{self, Display, Write as _};

use crate::fix::Fix;
use crate::problem::{Code, Pass, Preen, Severity};

/// One inconsistency. Which fields are set depends on the code; numbers are as debugfs takes them.
#[derive(Clone, Debug)]
pub struct Finding {
    /// What is wrong.
    pub code: Code,
    /// Residue or Damage; the table's value unless the place decides otherwise.
    pub severity: Severity,
    /// Whether preen may repair it.
    pub preen: Preen,
    /// Inode number, 0 if there is none.
    pub ino: u32,
    /// Directory that holds the entry, 0 if there is none.
    pub parent: u32,
    /// File-system block, 0 if there is none.
    pub block: u32,
    /// Block group.
    pub group: Option<u32>,
    /// Name of an entry or field, or a list of blocks, as bytes (names need not be UTF-8).
    pub name: Vec<u8>,
    /// Path of the inode or of the directory with the entry, where it is known.
    pub path: Vec<u8>,
    /// Byte offset, or index of a block inside the file.
    pub at: u64,
    /// The value on the medium.
    pub found: u64,
    /// The value that the rest of the image asks for.
    pub expected: u64,
    /// Whether a repair has been made.
    pub fixed: bool,
    pub(crate) fix: Fix,
}

impl Finding {
    pub(crate) fn new(code: Code) -> Self {
        let row = code.row();
        Self {
            code,
            severity: row.severity,
            preen: row.preen,
            ino: 0,
            parent: 0,
            block: 0,
            group: None,
            name: Vec::new(),
            path: Vec::new(),
            at: 0,
            found: 0,
            expected: 0,
            fixed: false,
            fix: Fix::Refused,
        }
    }

    pub(crate) fn ino(mut self, ino: u32) -> Self {
        self.ino = ino;
        self
    }
    pub(crate) fn parent(mut self, parent: u32) -> Self {
        self.parent = parent;
        self
    }
    pub(crate) fn block(mut self, block: u32) -> Self {
        self.block = block;
        self
    }
    pub(crate) fn group(mut self, group: u32) -> Self {
        self.group = Some(group);
        self
    }
    pub(crate) fn name(mut self, name: &[u8]) -> Self {
        self.name = name.to_vec();
        self
    }
    pub(crate) fn at(mut self, at: u64) -> Self {
        self.at = at;
        self
    }
    pub(crate) fn found(mut self, found: impl Into<u64>) -> Self {
        self.found = found.into();
        self
    }
    pub(crate) fn expected(mut self, expected: impl Into<u64>) -> Self {
        self.expected = expected.into();
        self
    }
    pub(crate) fn severity(mut self, severity: Severity) -> Self {
        self.severity = severity;
        self
    }
    pub(crate) fn preen(mut self, preen: Preen) -> Self {
        self.preen = preen;
        self
    }
    pub(crate) fn fix(mut self, fix: Fix) -> Self {
        self.fix = fix;
        self
    }

    /// The pass that found it.
    #[must_use]
    pub fn pass(&self) -> Pass {
        self.code.pass()
    }

    /// What the repair does, in a few words.
    #[must_use]
    pub fn action(&self) -> &'static str {
        self.code.row().action
    }

    /// Whether a repair exists at all.
    #[must_use]
    pub fn repairable(&self) -> bool {
        !matches!(self.fix, Fix::Refused)
    }

    /// What is wrong, on one line, without the repair.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        let mut rest = self.code.row().text;
        while let Some(open) = rest.find('{') {
            out.push_str(rest.get(..open).unwrap_or_default());
            let tail = rest.get(open + 1..).unwrap_or_default();
            let Some(close) = tail.find('}') else { break };
            self.push_field(&mut out, tail.get(..close).unwrap_or_default());
            rest = tail.get(close + 1..).unwrap_or_default();
        }
        out.push_str(rest);
        out
    }

    fn push_field(&self, out: &mut String, field: &str) {
        let octal = matches!(
            self.code,
            Code::RootNotDir
                | Code::ReservedMode
                | Code::JournalMode
                | Code::TreatAsDir
                | Code::BadMode
        );
        let _ = match field {
            "ino" => write!(out, "{}", self.ino),
            "parent" => write!(out, "{}", self.parent),
            "block" => write!(out, "{}", self.block),
            "group" => write!(out, "{}", self.group.unwrap_or(0)),
            "at" => write!(out, "{}", self.at),
            "found" if octal => write!(out, "0{:o}", self.found),
            "found" => write!(out, "{}", self.found),
            "expected" => write!(out, "{}", self.expected),
            "name" => write!(out, "{}", Printable(&self.name)),
            "path" if self.path.is_empty() => write!(out, "..."),
            "path" => write!(out, "{}", Printable(&self.path)),
            _ => Ok(()),
        };
    }
}

/// Bytes of a name as a terminal may see them: no control characters, nothing that is not UTF-8.
pub(crate) struct Printable<'a>(pub(crate) &'a [u8]);

impl Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                if c.is_control() {
                    for byte in c.to_string().bytes() {
                        write!(f, "\\x{byte:02x}")?;
                    }
                } else {
                    f.write_char(c)?;
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}
