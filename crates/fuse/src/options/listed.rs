//! What each option means, for the users of a program: help texts and manual pages are made from this list.

/// Words that mean the same or the opposite, with a value where they have one, and what they do.
pub const LISTED: &[(&str, &str)] = &[
    (
        "ro, rw",
        "nothing in the image changes; it may (the default)",
    ),
    (
        "offset=BYTES",
        "where the image begins in the file or device; suffixes k m g t s (512 bytes)",
    ),
    (
        "errors=continue, errors=remount-ro",
        "what damage does to the mount; as the superblock says unless given",
    ),
    (
        "reclaim",
        "after a crash, what has leaked is given back first, and the image ends clean",
    ),
    (
        "norecovery, noload",
        "only with ro: look at what a crash left as it is",
    ),
    (
        "allow_other",
        "other users may come in; modes and owners are checked then",
    ),
    (
        "default_permissions",
        "the kernel checks modes and owners even where only root comes in",
    ),
    ("fakeroot", "nobody is checked, everybody acts as root"),
    (
        "kernel",
        "as a mount by the kernel: allow_other, suid and dev together",
    ),
    (
        "acl, noacl",
        "access control lists are served (the default), or not",
    ),
    (
        "grpid, bsdgroups, nogrpid, sysvgroups",
        "new files take the group of their directory, or of who makes them (the default)",
    ),
    (
        "resuid=UID, resgid=GID",
        "who may use the reserved blocks; as the superblock says unless given",
    ),
    (
        "bsddf, minixdf",
        "the size in statfs leaves out what the file system needs itself (the default), or not",
    ),
    (
        "atime, relatime, noatime",
        "access times as relatime keeps them (the default), or never",
    ),
    (
        "sync, async, dirsync",
        "every write, or every change of a name, is durable when it returns",
    ),
    (
        "suid, nosuid, dev, nodev, exec, noexec",
        "as in mount(8); nosuid and nodev unless told otherwise",
    ),
    (
        "writeback_cache, no_writeback_cache",
        "the kernel gathers small writes before it sends them, or not (the default)",
    ),
    (
        "threads=N",
        "event loops, 1 to 256; one a processor unless given, 8 at most",
    ),
    (
        "follow, nofollow",
        "with CAP_SYS_NICE, the server runs on the processor of a program that asks one thing after the other (the \
         default), or not",
    ),
    (
        "fsname=NAME, subtype=TYPE",
        "what tools show as source and type; the image and ext2dax unless given",
    ),
    ("no_default_opts", "no source and type but those given"),
];

#[cfg(test)]
mod tests {
    use super::super::{FLAGS, Options};
    use super::LISTED;

    /// Those that `Options::set_value` takes.
    const VALUED: &[&str] = &[
        "offset", "threads", "errors", "resuid", "resgid", "fsname", "subtype",
    ];

    fn words() -> impl Iterator<Item = &'static str> {
        LISTED.iter().flat_map(|(words, _)| words.split(", "))
    }

    #[test]
    fn every_option_that_does_something_is_listed_once() {
        let names = || words().map(|word| word.split('=').next().expect("there is one"));
        for known in FLAGS.iter().map(|(name, _)| name).chain(VALUED) {
            let times = names().filter(|name| name == known).count();
            let wanted = if *known == "errors" { 2 } else { 1 };
            assert_eq!(times, wanted, "{known}");
        }
    }

    #[test]
    fn every_listed_option_is_taken() {
        for word in words() {
            let given = word
                .replace("BYTES", "1m")
                .replace("UID", "7")
                .replace("GID", "7")
                .replace("=N", "=2");
            // norecovery stands only together with ro.
            assert!(Options::parse(&format!("ro,{given}")).is_ok(), "{given}");
        }
    }
}
