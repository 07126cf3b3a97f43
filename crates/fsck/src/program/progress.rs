//! Where the check is, for people and for programs.

use std::fs::File;
use std::io::{self, IsTerminal as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::Ordering;

use ext2dax_fsck::{Progress, Step};
use indicatif::{ProgressBar, ProgressStyle};

use super::signals::Signals;

/// What shows the progress of this run.
#[derive(Debug, Default)]
pub(super) struct Display {
    pub(super) progress: Progress,
    bar: Option<ProgressBar>,
}

impl Display {
    /// A bar on the terminal for 0, lines `PASS CURRENT MAXIMUM NAME` for any other descriptor; with a minus, or where
    /// nothing was asked for, only after SIGUSR1.
    pub(super) fn new(fd: Option<i32>, image: &Path, signals: &Signals) -> Self {
        match fd {
            None | Some(0) => Self::bar(signals),
            Some(fd) => Self {
                progress: lines(fd, image, signals),
                bar: None,
            },
        }
    }

    fn bar(signals: &Signals) -> Self {
        // It is drawn on standard error: findings may go to a file meanwhile.
        if !io::stderr().is_terminal() {
            return Self::default();
        }
        let bar = ProgressBar::new(1000);
        let template = "{prefix} [{bar:40}] {percent:>3} %  {msg}{elapsed}, {eta} to go";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        let (wanted, drawn) = (signals.progress.clone(), bar.clone());
        let progress = Progress::new(move |step| match wanted.load(Ordering::Relaxed) {
            true => draw(&drawn, step),
            false if drawn.position() != 0 && !drawn.is_finished() => drawn.finish_and_clear(),
            false => {}
        });
        Self {
            progress,
            bar: Some(bar),
        }
    }

    /// Runs something that writes to the terminal with the bar out of its way.
    pub(super) fn suspended<T>(&self, work: impl FnOnce() -> T) -> T {
        match &self.bar {
            Some(bar) => bar.suspend(work),
            None => work(),
        }
    }

    /// Takes the bar away: the work is done.
    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn draw(bar: &ProgressBar, step: Step) {
    // How far the passes reach on the bar, in thousandths: pass 1 reads the inode tables, which is most of the work.
    let (start, len) = match step.pass {
        1 => (0, 600),
        2 => (600, 350),
        _ => (950, 50),
    };
    let at = start + len * u64::from(step.done) / u64::from(step.all.max(1));
    if bar.is_finished() {
        bar.reset();
    }
    // Threads come here out of order, and a repair checks again: the bar never goes back.
    if at > bar.position() {
        bar.set_prefix(format!("pass {}", step.pass));
        bar.set_message(match step.findings {
            0 => String::new(),
            1 => "1 finding, ".to_owned(),
            count => format!("{count} findings, "),
        });
        bar.set_position(at);
    }
}

fn lines(fd: i32, image: &Path, signals: &Signals) -> Progress {
    let name = image.as_os_str().as_bytes().to_vec();
    let Ok(file) = File::options()
        .write(true)
        .open(format!("/proc/self/fd/{}", fd.unsigned_abs()))
    else {
        return Progress::default();
    };
    let file = Mutex::new(file);
    let wanted = signals.progress.clone();
    Progress::new(move |step| {
        if !wanted.load(Ordering::Relaxed) {
            return;
        }
        let Step {
            pass, done, all, ..
        } = step;
        let mut line = format!("{pass} {done} {all} ").into_bytes();
        line.extend_from_slice(&name);
        line.push(b'\n');
        if let Ok(mut file) = file.lock() {
            let _ = file.write_all(&line);
        }
    })
}
