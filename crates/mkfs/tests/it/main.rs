//! Images that other tools judge.

mod geometry;
mod judge;
