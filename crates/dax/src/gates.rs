//! The three gates of a file system: pins, writers, write faults.
//!
//! # Locking
//! They close in rank order, each drained before the next closes: PIN, WRITE, FAULT. A pin holder may call write(2), and
//! a writer may fault on its source, so each gate must stay open for those who are still inside the one before it.
//! Whoever freezes takes no INODE: a read(2) whose destination is a frozen mapping waits for the thaw with INODE held.

use ext2dax_format::Error;
use ext2dax_sync::{Gate, mutant, rank};

/// One set a file system.
#[derive(Debug)]
pub struct Gates {
    /// Held open by every pin, for its whole life.
    pub pin: Gate,
    /// Entered by every operation that changes the file system, outside faults.
    pub write: Gate,
    /// Entered by faults of shared views that make a page writable.
    pub fault: Gate,
}

impl Gates {
    /// All open.
    #[must_use]
    pub const fn new() -> Gates {
        Gates {
            pin: Gate::new(rank::GATE_PIN),
            write: Gate::new(rank::GATE_WRITE),
            fault: Gate::new(rank::GATE_FAULT),
        }
    }

    /// Closes and drains all three, however long pins take. From the return on nothing changes a byte of any file until
    /// the answer is dropped; [`DaxFile::settle`](crate::DaxFile::settle) then cleans each file's pages.
    ///
    /// # Locking
    /// The caller holds nothing, no pin either.
    ///
    /// # Errors
    /// `Busy`: frozen already. Everything is as before.
    pub fn freeze(&self) -> Result<Frozen<'_>, Error> {
        let (first, second) = if mutant("WRITE closes before PIN") {
            (&self.write, &self.pin)
        } else {
            (&self.pin, &self.write)
        };
        if !first.close() {
            return Err(Error::Busy);
        }
        first.drain();
        for gate in [second, &self.fault] {
            gate.close();
            gate.drain();
        }
        Ok(Frozen { gates: self })
    }

    /// The same, but gives up when `patience` says so; it is asked again and again while pins are held.
    ///
    /// # Errors
    /// `Busy`: frozen already, or pins outlasted the patience. Everything is as before.
    pub fn freeze_within(&self, mut patience: impl FnMut() -> bool) -> Result<Frozen<'_>, Error> {
        if !self.pin.close() {
            return Err(Error::Busy);
        }
        while self.pin.count() > 0 {
            if !patience() {
                self.pin.open();
                return Err(Error::Busy);
            }
            ext2dax_sync::relax();
        }
        for gate in [&self.write, &self.fault] {
            gate.close();
            gate.drain();
        }
        Ok(Frozen { gates: self })
    }
}

impl Default for Gates {
    fn default() -> Self {
        Self::new()
    }
}

/// A frozen file system. Dropping it thaws.
#[derive(Debug)]
#[must_use = "the file system thaws when this is dropped"]
pub struct Frozen<'a> {
    gates: &'a Gates,
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        self.gates.fault.open();
        self.gates.write.open();
        self.gates.pin.open();
    }
}
