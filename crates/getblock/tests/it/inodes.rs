//! Inode numbers.

use std::collections::{HashMap, HashSet};
use std::sync::mpsc;

use ext2dax_format::{Error, Ino, RawInode};
use ext2dax_getblock::{Placement, Volume};
use ext2dax_pmem::field;
use ext2dax_sync::lane::lane;
use zerocopy::little_endian::U32;

use crate::image::{Image, judges};

const NEAR_ROOT: Placement = Placement::Near { parent: Ino::ROOT };
const TOP: Placement = Placement::Directory {
    parent: Ino::ROOT,
    top: true,
};

#[test]
fn every_inode_can_be_had_once_and_none_that_is_reserved() {
    if !judges() {
        return;
    }
    let image = Image::new(&["-b", "1024", "-N", "256"], 16 * 1024);
    let before = image.volume.counts();
    let mut taken = Vec::new();
    let error = loop {
        match image.volume.allocate_inode(NEAR_ROOT) {
            Ok(tentative) => taken.push(tentative),
            Err(error) => break error,
        }
    };
    assert_eq!(error, Error::NoInodes);
    assert_eq!(taken.len() as u64, before.free_inodes);
    let numbers: HashSet<u32> = taken
        .iter()
        .map(|tentative| tentative.ino().get())
        .collect();
    assert_eq!(numbers.len(), taken.len(), "no number twice");
    assert!(
        numbers
            .iter()
            .all(|&ino| ino >= image.volume.geometry().first_ino())
    );
    assert_eq!(image.volume.counts().free_inodes, 0);
    taken
        .into_iter()
        .for_each(|tentative| image.volume.release(tentative));
    assert_eq!(image.volume.counts(), before);
    image.check(&[]);
}

/// Another thread that takes numbers when it is asked to.
struct Neighbour {
    ask: mpsc::Sender<()>,
    answers: mpsc::Receiver<Result<u32, Error>>,
}

impl Neighbour {
    /// A thread of another lane than the caller's. Lanes are few: the next new thread may have the same.
    fn new<'s>(scope: &'s std::thread::Scope<'s, '_>, volume: &'s Volume) -> Self {
        let own = lane();
        loop {
            let (ask, asked) = mpsc::channel();
            let (answer, answers) = mpsc::channel();
            let (tell, told) = mpsc::channel();
            scope.spawn(move || {
                tell.send(lane()).expect("somebody listens");
                for () in asked {
                    let taken = volume.allocate_inode(NEAR_ROOT);
                    let number = taken.map(|tentative| tentative.keep().get());
                    answer.send(number).expect("somebody listens");
                }
            });
            if told.recv().expect("a new thread") != own {
                return Self { ask, answers };
            }
        }
    }

    fn take(&self) -> Result<u32, Error> {
        self.ask.send(()).expect("it waits");
        self.answers.recv().expect("it answers")
    }
}

/// Two threads that make files in one group in turns: numbers of different lines of the bitmap, so that they do not meet
/// there and in the inode table. The lowest ones that are free, and all of them in the end.
#[test]
fn threads_side_by_side_take_numbers_that_lie_apart() {
    /// The number of the first bit of the second line.
    const SECOND: u32 = 512 + 1;
    if !judges() {
        return;
    }
    let image = Image::new(&["-b", "4096", "-N", "1500"], 16 * 1024);
    let before = image.volume.counts().free_inodes;
    let take = || image.volume.allocate_inode(NEAR_ROOT);
    let number = || take().map(|tentative| tentative.keep().get());
    std::thread::scope(|scope| {
        let neighbour = Neighbour::new(scope, &image.volume);
        let first = number().expect("an inode");
        for turn in 1..=20 {
            assert_eq!(number(), Ok(first + turn), "the next one of this thread");
            assert_eq!(neighbour.take(), Ok(SECOND + turn - 1), "the second line");
        }
        // A number that comes back is the lowest one, and this thread's.
        let back = image.volume.geometry().ino(first + 3).expect("it was had");
        image.volume.free_inode(back, false);
        assert_eq!(neighbour.take(), Ok(SECOND + 20));
        assert_eq!(number(), Ok(first + 3));
        // Nobody goes without as long as there is a number anywhere.
        for turn in 42..before {
            let taken = if turn % 2 == 0 {
                number()
            } else {
                neighbour.take()
            };
            taken.expect("one that is left");
        }
        assert_eq!(number(), Err(Error::NoInodes));
        assert_eq!(neighbour.take(), Err(Error::NoInodes));
    });
}

#[test]
fn a_number_that_comes_back_has_another_generation() {
    if !judges() {
        return;
    }
    let image = Image::new(&["-b", "4096"], 8 * 1024);
    let mut last = 0;
    for _ in 0..3 {
        let tentative = image.volume.allocate_inode(NEAR_ROOT).expect("an inode");
        assert!(tentative.generation() != last && tentative.generation() != 0);
        last = tentative.generation();
        let at = field!(tentative.offset(), RawInode, i_generation);
        image.volume.pmem().store(at, U32::new(last));
        image.volume.release(tentative);
    }
}

#[test]
fn top_level_directories_spread_and_their_files_stay_near() {
    if !judges() {
        return;
    }
    let image = Image::new(&["-b", "1024"], 64 * 1024);
    let geometry = image.volume.geometry();
    let mut groups = HashMap::new();
    for _ in 0..geometry.groups() * 2 {
        let directory = image.volume.allocate_inode(TOP).expect("an inode").keep();
        let (home, _) = geometry.locate_ino(directory);
        *groups.entry(home).or_insert(0) += 1;
        let file = image
            .volume
            .allocate_inode(Placement::Near { parent: directory })
            .expect("an inode");
        assert_eq!(geometry.locate_ino(file.keep()).0, home);
        let below = Placement::Directory {
            parent: directory,
            top: false,
        };
        let below = image.volume.allocate_inode(below).expect("an inode").keep();
        assert_eq!(
            geometry.locate_ino(below).0,
            home,
            "a group that is not crowded"
        );
    }
    assert!(groups.len() >= geometry.groups() as usize / 2, "{groups:?}");
}

#[test]
fn directories_are_counted_where_they_come_and_go() {
    if !judges() {
        return;
    }
    let image = Image::new(&["-b", "1024"], 16 * 1024);
    let kept: Vec<_> = (0..20)
        .map(|_| image.volume.allocate_inode(TOP).expect("an inode"))
        .collect();
    kept.into_iter()
        .for_each(|tentative| image.volume.release(tentative));
    image.check(&[]);
}
