//! Images that other tools judge, and the program.

mod geometry;
mod images;
mod judge;
mod program;
