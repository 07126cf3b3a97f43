//! Patterns for paths.

/// A pattern: `*` and `?` stand for anything but `/`, `**` for anything, `[a-z]` and `[!a-z]` for one byte of a set, `\`
/// takes the next byte as it is. A pattern with a `/` that is not its last byte is for whole paths, another one for the
/// last component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    pattern: Vec<u8>,
    whole: bool,
}

impl Glob {
    /// A pattern from its text. Any text is a pattern: a `[` without its end stands for itself.
    #[must_use]
    pub fn new(text: impl AsRef<[u8]>) -> Self {
        let text = text.as_ref();
        let text = text.strip_suffix(b"/").unwrap_or(text);
        let whole = text.contains(&b'/');
        let pattern = text.strip_prefix(b"/").unwrap_or(text).to_vec();
        Self { pattern, whole }
    }

    /// Whether a path without a leading `/` matches.
    #[must_use]
    pub fn matches(&self, path: &[u8]) -> bool {
        let last = path.rsplit(|&byte| byte == b'/').next().unwrap_or(path);
        self.matches_text(if self.whole { path } else { last })
    }

    /// Whether a text matches as a whole.
    #[must_use]
    pub fn matches_text(&self, text: &[u8]) -> bool {
        let pattern = &self.pattern[..];
        let (mut p, mut t) = (0, 0);
        // Where to go back to: behind the last star, and how far it reached. The last star of each kind is enough.
        let mut star: Option<(usize, usize)> = None;
        let mut stars: Option<(usize, usize)> = None;
        loop {
            if pattern[p..].starts_with(b"**") {
                p += 2;
                (stars, star) = (Some((p, t)), None);
                continue;
            }
            if pattern.get(p) == Some(&b'*') {
                p += 1;
                star = Some((p, t));
                continue;
            }
            if t == text.len() && p == pattern.len() {
                return true;
            }
            if let Some((next, true)) = text.get(t).and_then(|&byte| one(pattern, p, byte)) {
                p = next;
                t += 1;
                continue;
            }
            let back = match (star, stars) {
                (Some((p, t)), _) if t < text.len() && text[t] != b'/' => {
                    star = Some((p, t + 1));
                    star
                }
                (_, Some((p, t))) if t < text.len() => {
                    (stars, star) = (Some((p, t + 1)), None);
                    stars
                }
                _ => return false,
            };
            if let Some((to_p, to_t)) = back {
                (p, t) = (to_p, to_t);
            }
        }
    }
}

/// Matches one byte with what stands at `at`: where the pattern goes on, and whether it matched.
fn one(pattern: &[u8], at: usize, byte: u8) -> Option<(usize, bool)> {
    match *pattern.get(at)? {
        b'?' => Some((at + 1, byte != b'/')),
        b'\\' if at + 1 < pattern.len() => Some((at + 2, byte == pattern[at + 1])),
        b'[' => Some(set(pattern, at, byte).unwrap_or((at + 1, byte == b'['))),
        literal => Some((at + 1, byte == literal)),
    }
}

fn set(pattern: &[u8], at: usize, byte: u8) -> Option<(usize, bool)> {
    let mut from = at + 1;
    let not = matches!(pattern.get(from), Some(b'!' | b'^'));
    from += usize::from(not);
    // The first byte belongs to the set even if it is a bracket.
    let end = from
        + 1
        + pattern
            .get(from + 1..)?
            .iter()
            .position(|&byte| byte == b']')?;
    let mut members = &pattern[from..end];
    let mut found = false;
    while let Some((&low, rest)) = members.split_first() {
        members = rest;
        let high = match *rest {
            [b'-', high, ..] => {
                members = &rest[2..];
                high
            }
            _ => low,
        };
        found |= (low..=high).contains(&byte);
    }
    Some((end + 1, found != not && byte != b'/'))
}

#[cfg(test)]
mod tests {
    use super::Glob;

    #[test]
    fn stars_stop_at_slashes_and_double_stars_do_not() {
        for (pattern, text, expected) in [
            ("*", "name", true),
            ("*", "", true),
            ("a*c", "abbc", true),
            ("a*c", "abb", false),
            ("/a/*", "a/b", true),
            ("/a/*", "a/b/c", false),
            ("/a/**", "a/b/c", true),
            ("/**/c", "a/b/c", true),
            ("/a/**/d/*.o", "a/b/c/d/x.o", true),
            ("/a/**/d/*.o", "a/b/c/d/e/x.o", false),
            ("a?c", "abc", true),
            ("/a?c", "a/c", false),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("[]a]x", "]x", true),
            ("[", "[", true),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("a/", "a", true),
            ("*a*b*c*", "xxaxxbxxcxx", true),
            ("*a*b*c*", "xxaxxcxxbxx", false),
            ("\u{e4}?", "\u{e4}x", true),
        ] {
            assert_eq!(
                Glob::new(pattern).matches(text.as_bytes()),
                expected,
                "{pattern} {text}"
            );
        }
    }
}
