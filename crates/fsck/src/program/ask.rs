//! Questions on the terminal.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ext2dax_fsck::Finding;

/// Whether there is somebody to ask.
pub(super) fn possible() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// The state of a conversation.
#[derive(Debug, Default)]
pub(super) struct Questions {
    all: bool,
    ended: bool,
    /// Tells the signals that nothing is in work.
    asking: Arc<AtomicBool>,
}

impl Questions {
    pub(super) fn new(asking: Arc<AtomicBool>) -> Self {
        Self {
            asking,
            ..Self::default()
        }
    }

    /// Asks about one finding: y, n, or a for this and all that follow. An empty line takes the answer that the question
    /// shows in brackets, as e2fsck does. The end of input is a no to everything.
    pub(super) fn ask(&mut self, finding: &Finding) -> bool {
        if self.all {
            return true;
        }
        println(&finding.text());
        while !self.ended {
            let mut out = io::stdout().lock();
            let _ = write!(out, "  {}<y> (y, n, a for all)? ", finding.action());
            let _ = out.flush();
            let mut line = String::new();
            self.asking.store(true, Ordering::Relaxed);
            let read = io::stdin().lock().read_line(&mut line).unwrap_or(0);
            self.asking.store(false, Ordering::Relaxed);
            if read == 0 {
                self.ended = true;
                break;
            }
            match line.trim().to_ascii_lowercase().as_str() {
                "" | "y" | "yes" => return true,
                "n" | "no" => return false,
                "a" | "all" => {
                    self.all = true;
                    return true;
                }
                _ => {}
            }
        }
        false
    }
}

fn println(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}
