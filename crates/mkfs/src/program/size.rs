//! Numbers with units.

use anyhow::{Context as _, bail};

/// A size in bytes; a bare number counts `unit` bytes.
pub(crate) fn parse_size(text: &str, unit: u32) -> anyhow::Result<u64> {
    let (digits, factor) = split_unit(text, u64::from(unit));
    let bytes = digits
        .parse::<u64>()
        .ok()
        .and_then(|count| count.checked_mul(factor));
    bytes.with_context(|| {
        format!("size {text}: must be a number with k, m, g, t or s, below 16 EiB")
    })
}

/// A number of bytes; the suffixes are those of [`parse_size`].
pub(crate) fn parse_u32(option: &str, text: &str) -> anyhow::Result<u32> {
    let (digits, factor) = split_unit(text, 1);
    let bytes = digits
        .parse::<u64>()
        .ok()
        .and_then(|count| count.checked_mul(factor));
    let bytes = bytes.and_then(|bytes| u32::try_from(bytes).ok());
    bytes.with_context(|| format!("{option} {text}: not a number of bytes"))
}

fn split_unit(text: &str, bare: u64) -> (&str, u64) {
    let units = [('k', 10), ('m', 20), ('g', 30), ('t', 40)];
    let Some(last) = text.chars().last() else {
        return (text, bare);
    };
    let shorter = text.strip_suffix(last).unwrap_or(text);
    if last == 's' {
        return (shorter, 512);
    }
    match units
        .iter()
        .find(|unit| unit.0 == last.to_ascii_lowercase())
    {
        Some(unit) => (shorter, 1 << unit.1),
        None => (text, bare),
    }
}

/// A percentage with up to two decimals, in hundredths.
pub(crate) fn parse_percent(option: &str, text: &str) -> anyhow::Result<u32> {
    parse_share(option, text, 50)
}

/// A percentage up to `max`, in hundredths.
pub(crate) fn parse_share(option: &str, text: &str, max: u32) -> anyhow::Result<u32> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() && fraction.is_empty()
        || !digits(whole)
        || !digits(fraction)
        || fraction.len() > 2
    {
        bail!("{option} {text}: not a percentage with up to two decimals");
    }
    let whole: u32 = if whole.is_empty() {
        0
    } else {
        whole.parse().unwrap_or(u32::MAX)
    };
    let hundredths: u32 = format!("{fraction:0<2}").parse().unwrap_or(0);
    let share = whole.saturating_mul(100).saturating_add(hundredths);
    if share > max * 100 {
        bail!("{option} {text}: must be 0 to {max}");
    }
    Ok(share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [
            ("8", 8192),
            ("8k", 8192),
            ("8K", 8192),
            ("8m", 8 << 20),
            ("3G", 3 << 30),
            ("2t", 2 << 40),
            ("7s", 3584),
            ("0", 0),
        ] {
            assert_eq!(parse_size(text, 1024).unwrap(), bytes, "{text}");
        }
        assert_eq!(parse_size("8", 4096).unwrap(), 32_768);
        for text in ["", "k", "-1", "1x", "1.5m", "99999999999t", "m1"] {
            assert!(parse_size(text, 1024).is_err(), "{text}");
        }
    }

    #[test]
    fn percentages_have_two_decimals() {
        for (text, share) in [
            ("0", 0),
            ("5", 500),
            ("0.5", 50),
            ("12.25", 1225),
            (".1", 10),
            ("50", 5000),
        ] {
            assert_eq!(parse_percent("-m", text).unwrap(), share, "{text}");
        }
        for text in ["", ".", "51", "50.01", "-1", "1.234", "x", "1e1"] {
            assert!(parse_percent("-m", text).is_err(), "{text}");
        }
    }
}
