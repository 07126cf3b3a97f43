//! How far it is: a bar, or lines for a program that wants to draw its own.

use std::fs::{File, OpenOptions};
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use super::args::Args;
use crate::Progress;

/// Lines come no more often than this, but for the last one of a pass.
const STEP: Duration = Duration::from_millis(100);

/// Where progress goes.
pub(super) enum Bar {
    None,
    Drawn(indicatif::ProgressBar),
    /// `PASS CURRENT MAXIMUM NAME` each, as fsck's `-C FD` has it.
    Lines(Lines),
}

pub(super) struct Lines {
    file: File,
    name: String,
    pass: u32,
    last: Option<Instant>,
}

impl Bar {
    /// As `--progress` says; without it a bar on a terminal.
    pub(super) fn new(args: &Args) -> anyhow::Result<Self> {
        let draws = || Self::Drawn(indicatif::ProgressBar::new(0));
        match args.progress.as_deref() {
            None if std::io::stderr().is_terminal() && !args.quiet && !args.json => Ok(draws()),
            None | Some("none") => Ok(Self::None),
            Some("bar") => Ok(draws()),
            Some(fd) => Self::lines(fd, &args.image),
        }
    }

    fn lines(fd: &str, image: &Path) -> anyhow::Result<Self> {
        let Ok(number) = fd.parse::<u16>() else {
            bail!("--progress={fd}: must be bar, none or the number of an open file descriptor");
        };
        let file = OpenOptions::new()
            .append(true)
            .open(format!("/proc/self/fd/{number}"))
            .with_context(|| format!("--progress={fd}"))?;
        Ok(Self::Lines(Lines {
            file,
            name: image.display().to_string(),
            pass: 0,
            last: None,
        }))
    }

    pub(super) fn step(&mut self, Progress { done, all }: Progress) {
        match self {
            Self::None => {}
            Self::Drawn(bar) => {
                bar.set_length(all);
                bar.set_position(done);
            }
            Self::Lines(lines) => lines.step(done, all),
        }
    }

    pub(super) fn finish(&self) {
        if let Self::Drawn(bar) = self {
            bar.finish_and_clear();
        }
    }
}

impl Lines {
    /// Another number of steps is another pass: tables first, then contents.
    fn step(&mut self, done: u64, all: u64) {
        if self.pass == 0 || done <= 1 {
            self.pass += 1;
            self.last = None;
        }
        let now = Instant::now();
        let soon = self.last.is_some_and(|last| now - last < STEP);
        if soon && done < all {
            return;
        }
        self.last = Some(now);
        // Whoever listens may have gone.
        let _ = writeln!(self.file, "{} {done} {all} {}", self.pass, self.name);
    }
}
