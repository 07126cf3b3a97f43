//! The tool as a helper of mount(8): `mount.ext2dax IMAGE DIR [-sfnvrw] [-o OPTIONS] [-t TYPE] [-N NAMESPACE]`.
//!
//! The letters are mount(8)'s: `-f` means to go through the motions only, `-s` to put up with options that are unknown
//! (which nothing here does), `-n` to leave /etc/mtab alone (which it is anyway).

use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, Error};

use crate::args::{Args, Command, Mount};

/// Whether the tool was called by a name like `mount.ext2dax`.
pub(crate) fn is_called(args: &[OsString]) -> bool {
    args.first()
        .and_then(|name| Path::new(name).file_name())
        .and_then(OsStr::to_str)
        .is_some_and(|name| name.starts_with("mount."))
}

fn usage(text: String) -> Error {
    Args::command().error(ErrorKind::UnknownArgument, text)
}

/// The arguments as those of the command `mount`.
///
/// # Errors
/// Usage.
pub(crate) fn parse(args: &[OsString]) -> Result<Args, Error> {
    let mut mount = Mount {
        image: "".into(),
        directory: "".into(),
        options: Vec::new(),
        foreground: false,
        debug: false,
        single: false,
        fake: false,
        background: false,
    };
    let mut paths = Vec::new();
    let mut rest = args.iter().skip(1);
    while let Some(arg) = rest.next() {
        let Some(letters) = arg.to_str().and_then(|arg| arg.strip_prefix('-')) else {
            paths.push(arg);
            continue;
        };
        for (at, letter) in letters.char_indices() {
            match letter {
                's' | 'n' | 'v' => {}
                'f' => mount.fake = true,
                'r' => mount.options.push("ro".to_owned()),
                'w' => mount.options.push("rw".to_owned()),
                'o' | 't' | 'N' => {
                    // The value is what follows the letter, or the next argument.
                    let value = match &letters[at + 1..] {
                        "" => rest.next().and_then(|next| next.to_str()),
                        value => Some(value),
                    };
                    let value = value.ok_or_else(|| usage(format!("-{letter} needs a value")))?;
                    match letter {
                        'o' => mount.options.push(value.to_owned()),
                        // The type says no more than the name that the tool was called by.
                        't' => {}
                        _ => return Err(usage("-N: other namespaces are not entered".to_owned())),
                    }
                    break;
                }
                _ => return Err(usage(format!("unexpected argument -{letter}"))),
            }
        }
    }
    let [image, directory] = paths[..] else {
        return Err(usage("expected an image and a directory".to_owned()));
    };
    mount.image = image.into();
    mount.directory = directory.into();
    Ok(Args {
        json: false,
        command: Command::Mount(mount),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    fn mount(line: &str) -> Mount {
        match parse(&words(line)).expect("good arguments").command {
            Command::Mount(mount) => mount,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_names_of_helpers_make_a_helper() {
        assert!(is_called(&words("/sbin/mount.fuse.ext2dax a b")));
        assert!(is_called(&words("mount.ext2dax a b")));
        assert!(!is_called(&words("/mnt.d/ext2dax mount a b")));
        assert!(!is_called(&[]));
    }

    #[test]
    fn letters_are_those_of_mount() {
        let mount = mount("mount.ext2dax disk.img /mnt -n -o ro,acl -t fuse.ext2dax -fv -onoatime");
        assert_eq!(mount.image, Path::new("disk.img"));
        assert_eq!(mount.directory, Path::new("/mnt"));
        assert_eq!(mount.options, ["ro,acl", "noatime"]);
        assert!(mount.fake && !mount.foreground);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for line in [
            "mount.ext2dax disk.img",
            "mount.ext2dax a b c",
            "mount.ext2dax a b -x",
            "mount.ext2dax a b -o",
            "mount.ext2dax a b -N 7",
        ] {
            assert!(parse(&words(line)).is_err(), "{line}");
        }
    }
}
