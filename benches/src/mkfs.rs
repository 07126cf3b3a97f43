//! Programs that make images, timed beside each other, the file systems that they write to, and the sources that they read.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Result, ensure};

use crate::table::Row;
use crate::tmpfs::Tmpfs;

/// A program and its arguments; the word `image` stands for the image, which is removed before each round.
#[derive(Debug)]
pub struct Contender {
    name: &'static str,
    words: Vec<String>,
    once: bool,
}

impl Contender {
    /// The words are separated by spaces; the first one is the program, `mkfs` is ours.
    #[must_use]
    pub fn new(name: &'static str, words: &str) -> Self {
        Self {
            name,
            words: words.split_whitespace().map(str::to_owned).collect(),
            once: false,
        }
    }

    /// One round is enough, for it is slow.
    #[must_use]
    pub fn once(self) -> Self {
        Self { once: true, ..self }
    }
}

/// A folder for images.
#[derive(Debug)]
pub struct Place {
    /// What it is.
    pub what: &'static str,
    dir: PathBuf,
    /// What is mounted there, for as long as this lives.
    _tmpfs: Option<Tmpfs>,
}

impl Place {
    /// A folder that is there already.
    #[must_use]
    pub fn at(what: &'static str, dir: PathBuf) -> Self {
        let _tmpfs = None;
        Self { what, dir, _tmpfs }
    }

    /// Mounts a tmpfs of its own; `None`, and a word about it, where that is not allowed or there is no such option.
    ///
    /// # Errors
    /// A folder that cannot be made.
    pub fn mount(what: &'static str, dir: PathBuf, options: &str) -> Result<Option<Self>> {
        std::fs::create_dir(&dir)?;
        match Tmpfs::mount(&dir, options) {
            Ok(tmpfs) => {
                let _tmpfs = Some(tmpfs);
                Ok(Some(Self { what, dir, _tmpfs }))
            }
            Err(why) => {
                eprintln!("left out: images on {what}: {why:#}");
                Ok(None)
            }
        }
    }

    fn image(&self) -> PathBuf {
        self.dir.join("image")
    }
}

/// Where and how often.
#[derive(Debug)]
pub struct Bench {
    /// The folder in which programs run, where the sources are.
    pub dir: PathBuf,
    /// Where images go, one after the other.
    pub places: Vec<Place>,
    /// Our program.
    pub ours: PathBuf,
    /// Rounds; figures are their medians.
    pub rounds: usize,
    /// Contenders that stay out.
    pub without: Vec<String>,
}

impl Bench {
    /// One round: nanoseconds on the wall, `None` if there is no such program.
    #[expect(
        clippy::cast_precision_loss,
        reason = "durations are far below 2^52 ns"
    )]
    fn round(&self, contender: &Contender, image: &Path) -> Result<Option<f64>> {
        let _ = std::fs::remove_file(image);
        let program = match contender.words[0].as_str() {
            "mkfs" => self.ours.as_path(),
            other => Path::new(other),
        };
        let words = contender.words[1..].iter();
        let words = words.map(|word| match word.as_str() {
            "image" => image.as_os_str(),
            other => other.as_ref(),
        });
        let mut command = Command::new(program);
        command.current_dir(&self.dir).args(words);
        if contender.name == "cat" {
            command.stdout(File::create(image)?);
        } else {
            command.stdout(Stdio::null());
        }
        let start = Instant::now();
        let output = match command.stderr(Stdio::piped()).output() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            output => output?,
        };
        let took = start.elapsed().as_nanos() as f64;
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{}: {complaint}", contender.name);
        Ok(Some(took))
    }

    /// All rounds of one row on each place.
    ///
    /// # Errors
    /// A program that fails.
    pub fn rows(&self, what: &str, mut contenders: Vec<Contender>) -> Result<Vec<Row>> {
        contenders.retain(|contender| !self.without.iter().any(|name| name == contender.name));
        let places = self.places.iter();
        places
            .map(|place| self.row(&format!("{what}, on {}", place.what), &contenders, place))
            .collect()
    }

    fn row(&self, what: &str, contenders: &[Contender], place: &Place) -> Result<Row> {
        let mut times: Vec<Vec<f64>> = vec![Vec::new(); contenders.len()];
        for round in 0..self.rounds {
            for (contender, times) in contenders.iter().zip(&mut times) {
                if contender.once && round > 0 {
                    continue;
                }
                // The first touch of memory that a virtual machine has given back to its host costs several times the
                // copy: one run before the one that counts leaves memory that was in use a moment ago.
                if !contender.once {
                    self.round(contender, &place.image())?;
                }
                match self.round(contender, &place.image())? {
                    Some(took) => times.push(took),
                    None if round == 0 => eprintln!("missing: {}", contender.name),
                    None => {}
                }
            }
        }
        let _ = std::fs::remove_file(place.image());
        let (mut medians, mut spread) = (Vec::new(), Vec::new());
        for (contender, mut times) in contenders.iter().zip(times) {
            times.sort_by(f64::total_cmp);
            let name = contender.name.to_owned();
            if let [shortest, .., longest] = times[..] {
                spread.push((name.clone(), shortest, longest));
            }
            if let Some(median) = times.get(times.len() / 2) {
                medians.push((name, *median));
            }
        }
        Ok(Row {
            spread,
            ..Row::new(what, medians)
        })
    }
}

/// Makes a source in a folder, unless an earlier run left it there.
///
/// # Errors
/// What the system says.
pub fn source(dir: &Path, name: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let (source, begun) = (dir.join(name), dir.join("begun"));
    if !source.exists() {
        let _ = std::fs::remove_dir_all(&begun);
        std::fs::create_dir(&begun)?;
        make(&begun)?;
        std::fs::rename(&begun, &source)?;
    }
    Ok(source)
}

/// Files of `size` bytes that no compression and no search for zeroes makes short work of, 1,000 in a directory.
///
/// # Errors
/// What the system says.
pub fn noise(dir: &Path, files: u64, size: u64) -> Result<()> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut piece = vec![0; 1 << 20];
    for nr in 0..files {
        let inside = dir.join(format!("d{:03}", nr / 1000));
        std::fs::create_dir_all(&inside)?;
        let mut file = File::create(inside.join(format!("file-{nr:05}")))?;
        let mut left = size;
        while left > 0 {
            for word in piece.as_chunks_mut::<8>().0 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                *word = state.to_le_bytes();
            }
            let step = left.min(1 << 20);
            file.write_all(&piece[..usize::try_from(step)?])?;
            left -= step;
        }
    }
    Ok(())
}
