//! The classes of damage that e2fsck is tested with, made here by hand: a good image, something done to it, and e2fsck as
//! the judge of what is found, of the exit status in every mode, of the image afterwards and of the files that are left.

mod blocks;
mod dirs;
mod explained;
mod groups;
mod inodes;
mod journal;
mod names;
mod oracle;
mod pairs;
mod space;
mod supers;

use crate::lab::Lab;

/// A class of damage on one or more shapes of image.
pub(crate) struct Class {
    pub(crate) name: &'static str,
    /// Shapes of `samples`, by name.
    pub(crate) shapes: &'static [&'static str],
    /// Starts of codes, each of which has to be found.
    pub(crate) finds: &'static [&'static str],
    pub(crate) damage: fn(&mut Lab),
}

pub(crate) const fn class(
    name: &'static str,
    shapes: &'static [&'static str],
    finds: &'static [&'static str],
    damage: fn(&mut Lab),
) -> Class {
    Class {
        name,
        shapes,
        finds,
        damage,
    }
}

/// Blocks of 1 KiB with small and with large inodes, blocks of 4 KiB.
pub(crate) const SIZES: &[&str] = &["1k-128", "1k", "4k"];

const ALL: &[&[Class]] = &[
    supers::CLASSES,
    groups::CLASSES,
    inodes::CLASSES,
    blocks::CLASSES,
    dirs::CLASSES,
    names::CLASSES,
    space::CLASSES,
    journal::CLASSES,
];
