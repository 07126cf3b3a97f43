//! Contenders that hold files and directories: the library by path, and whatever is mounted.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use ext2dax::FileSystem;

/// A file system that a bench works in. Paths are those that [`Tree::path`] answers, so that putting them together is not
/// part of what is timed.
///
/// Every call panics when the file system refuses: a bench asks for nothing that may fail.
#[expect(missing_docs, reason = "the calls are named after what they do")]
pub trait Tree: Sync {
    /// The whole path of a name below the bench's own directory.
    fn path(&self, name: &str) -> String;
    fn create(&self, path: &str);
    /// Whether the name is there.
    fn stat(&self, path: &str) -> bool;
    /// How many names there are, `.` and `..` left out.
    fn list(&self, path: &str) -> usize;
    fn rename(&self, from: &str, to: &str);
    fn link(&self, from: &str, to: &str);
    fn unlink(&self, path: &str);
    fn mkdir(&self, path: &str);
    fn rmdir(&self, path: &str);
    /// Makes a file with these contents.
    fn write_file(&self, path: &str, contents: &[u8]);
    /// Opens a file, reads it to its end, and closes it.
    fn read_file(&self, path: &str, buffer: &mut [u8]) -> usize;
    /// Opens a file for reading and writing, made if it is not there.
    fn open(&self, path: &str) -> Box<dyn Contents>;
}

/// An open file.
#[expect(missing_docs, reason = "the calls are named after what they do")]
pub trait Contents {
    fn read(&self, buffer: &mut [u8], at: u64);
    fn write(&self, bytes: &[u8], at: u64);
}

/// The library, called by path.
#[derive(Clone, Debug)]
pub struct Library(pub FileSystem);

impl Tree for Library {
    fn path(&self, name: &str) -> String {
        format!("/{name}")
    }
    fn create(&self, path: &str) {
        ext2dax::OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&self.0, path)
            .expect("the name is new");
    }
    fn stat(&self, path: &str) -> bool {
        self.0.metadata(path).is_ok()
    }
    fn list(&self, path: &str) -> usize {
        self.0
            .read_dir(path)
            .expect("a directory")
            .fold(0, |count, entry| entry.map(|_| count + 1).expect("whole"))
    }
    fn rename(&self, from: &str, to: &str) {
        self.0.rename(from, to).expect("the file is there");
    }
    fn link(&self, from: &str, to: &str) {
        self.0.hard_link(from, to).expect("the file is there");
    }
    fn unlink(&self, path: &str) {
        self.0.remove_file(path).expect("the file is there");
    }
    fn mkdir(&self, path: &str) {
        self.0.create_dir(path).expect("the name is new");
    }
    fn rmdir(&self, path: &str) {
        self.0.remove_dir(path).expect("an empty directory");
    }
    fn write_file(&self, path: &str, contents: &[u8]) {
        let file = self.0.create(path).expect("space");
        file.write_all_at(contents, 0).expect("space");
    }
    fn read_file(&self, path: &str, buffer: &mut [u8]) -> usize {
        let file = self.0.open(path).expect("the file is there");
        let len = file.read_at(&mut buffer[..], 0).expect("readable");
        assert_eq!(file.read_at(&mut buffer[..], len as u64), Ok(0));
        len
    }
    fn open(&self, path: &str) -> Box<dyn Contents> {
        let options = ext2dax::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true);
        Box::new(options.open(&self.0, path).expect("space"))
    }
}

impl Contents for ext2dax::File {
    fn read(&self, buffer: &mut [u8], at: u64) {
        self.read_exact_at(buffer, at).expect("inside");
    }
    fn write(&self, bytes: &[u8], at: u64) {
        self.write_all_at(bytes, at).expect("space");
    }
}

/// A mounted file system, called through the kernel.
#[derive(Clone, Debug)]
pub struct Mounted(pub PathBuf);

impl Mounted {
    /// The file system that holds `dir`.
    pub fn at(dir: &Path) -> Self {
        Mounted(dir.to_owned())
    }
}

impl Tree for Mounted {
    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
    fn create(&self, path: &str) {
        File::create_new(path).expect("the name is new");
    }
    fn stat(&self, path: &str) -> bool {
        fs::metadata(path).is_ok()
    }
    fn list(&self, path: &str) -> usize {
        fs::read_dir(path)
            .expect("a directory")
            .fold(0, |count, entry| entry.map(|_| count + 1).expect("whole"))
    }
    fn rename(&self, from: &str, to: &str) {
        fs::rename(from, to).expect("the file is there");
    }
    fn link(&self, from: &str, to: &str) {
        fs::hard_link(from, to).expect("the file is there");
    }
    fn unlink(&self, path: &str) {
        fs::remove_file(path).expect("the file is there");
    }
    fn mkdir(&self, path: &str) {
        fs::create_dir(path).expect("the name is new");
    }
    fn rmdir(&self, path: &str) {
        fs::remove_dir(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    }
    fn write_file(&self, path: &str, contents: &[u8]) {
        let file = File::create(path).expect("space");
        file.write_all_at(contents, 0).expect("space");
    }
    fn read_file(&self, path: &str, buffer: &mut [u8]) -> usize {
        let file = File::open(path).expect("the file is there");
        let len = file.read_at(buffer, 0).expect("readable");
        assert_eq!(file.read_at(buffer, len as u64).ok(), Some(0));
        len
    }
    fn open(&self, path: &str) -> Box<dyn Contents> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true);
        Box::new(options.open(path).expect("space"))
    }
}

impl Contents for File {
    fn read(&self, buffer: &mut [u8], at: u64) {
        self.read_exact_at(buffer, at).expect("inside");
    }
    fn write(&self, bytes: &[u8], at: u64) {
        self.write_all_at(bytes, at).expect("space");
    }
}
