//! Sizes, times and rates as operators write them: `"64MiB"`, `"100ms"`, `"256kbit"`. In comes
//! text, out goes a number or the reason why not; and back, for messages and documentation.

use std::time::Duration;

const SIZES: [(&str, u64); 7] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

const TIMES_MS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("ms", 1),
    ("m", 60_000),
    ("s", 1_000),
];

const BITS: [(&str, u64); 4] = [
    ("Gbit", 1_000_000_000),
    ("Mbit", 1_000_000),
    ("kbit", 1_000),
    ("bit", 1),
];

/// How a size is written, for hints.
pub const SIZE_HINT: &str = "write a whole number and a unit: B, KiB, MiB, GiB (1024), kB, MB, GB (1000), such as \"64MiB\"";
/// How a time is written, for hints.
pub const TIME_HINT: &str = "write a whole number and a unit: ms, s, m, h, d, such as \"30s\"";
/// How a rate is written, for hints.
pub const RATE_HINT: &str =
    "write bits a second (\"256kbit\", \"1Mbit\") or bytes a second (\"32KiB\", \"1MB\")";

/// A size in bytes.
#[must_use]
pub fn size(text: &str) -> Option<u64> {
    amount(text, &SIZES)
}

/// A time.
#[must_use]
pub fn time(text: &str) -> Option<Duration> {
    amount(text, &TIMES_MS).map(Duration::from_millis)
}

/// A rate in bytes a second, from bits or bytes.
#[must_use]
pub fn rate(text: &str) -> Option<u64> {
    let text = text.strip_suffix("/s").unwrap_or(text);
    amount(text, &BITS)
        .map(|bits| bits / 8)
        .or_else(|| size(text))
}

/// A share of the whole in 1/1000, from a decimal number.
#[must_use]
pub fn share(text: &str) -> Option<u32> {
    let share: f64 = text.replace('_', "").parse().ok()?;
    (0.0..=1.0)
        .contains(&share)
        .then(|| (share * 1000.0).round() as u32)
}

/// A share in 1/1000 as an operator would write it.
#[must_use]
pub fn show_share(permille: u32) -> String {
    (f64::from(permille) / 1000.0).to_string()
}

/// A size as an operator would write it.
#[must_use]
pub fn show_size(bytes: u64) -> String {
    show(bytes, &SIZES[..3], "B")
}

/// A time as an operator would write it.
#[must_use]
pub fn show_time(time: Duration) -> String {
    let [d, h, ms, m, s] = TIMES_MS;
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    match millis {
        0 => "0s".to_owned(),
        _ => show(millis, &[d, h, m, s], ms.0),
    }
}

/// A rate in bytes a second as an operator would write it.
#[must_use]
pub fn show_rate(bytes: u64) -> String {
    show(bytes.saturating_mul(8), &BITS[..3], "bit")
}

/// The units are tried in order, so that one that ends like another stands before it.
fn amount(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (number, factor) = units
        .iter()
        .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)))?;
    let number = number.trim_end_matches(' ');
    if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

fn show(amount: u64, units: &[(&str, u64)], smallest: &str) -> String {
    units
        .iter()
        .find(|(_, factor)| amount >= *factor && amount.is_multiple_of(*factor))
        .map_or_else(
            || format!("{amount}{smallest}"),
            |(unit, factor)| format!("{}{unit}", amount / factor),
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_every_unit_read() {
        assert_eq!(size("64MiB"), Some(64 << 20));
        assert_eq!(size("16 KiB"), Some(16 << 10));
        assert_eq!(size("3GB"), Some(3_000_000_000));
        assert_eq!(size("12B"), Some(12));
        assert_eq!(time("100ms"), Some(Duration::from_millis(100)));
        assert_eq!(time("5s"), Some(Duration::from_secs(5)));
        assert_eq!(time("10m"), Some(Duration::from_secs(600)));
        assert_eq!(time("7d"), Some(Duration::from_secs(7 * 86_400)));
        assert_eq!(rate("256kbit"), Some(32_000));
        assert_eq!(rate("1Mbit/s"), Some(125_000));
        assert_eq!(rate("32KiB"), Some(32 << 10));
        assert_eq!(share("0.3"), Some(300));
        assert_eq!(share("5e-2"), Some(50));
    }

    #[test]
    fn is_what_is_no_amount_refused() {
        for text in [
            "",
            "MiB",
            "-1MiB",
            "1.5MiB",
            "1MX",
            "1 m b",
            "1mib",
            "99999999999GiB",
            "+1B",
            "1",
        ] {
            assert_eq!(size(text), None, "{text}");
        }
        for text in [
            "",
            "5",
            "5min",
            "1h30m",
            "1e3s",
            "５s",
            "99999999999999999d",
        ] {
            assert_eq!(time(text), None, "{text}");
        }
        assert_eq!(rate("fast"), None);
        for text in ["nan", "inf", "-0.1", "1.01", "1e400", ""] {
            assert_eq!(share(text), None, "{text}");
        }
    }

    #[test]
    fn does_what_is_shown_read_back() {
        for bytes in [1, 1000, 1024, 64 << 20, 3 << 30, 1_000_001] {
            assert_eq!(size(&show_size(bytes)), Some(bytes));
            assert_eq!(rate(&show_rate(bytes)), Some(bytes));
        }
        for millis in [0, 1, 1500, 60_000, 7 * 86_400_000] {
            let wait = Duration::from_millis(millis);
            assert_eq!(time(&show_time(wait)), Some(wait));
        }
        for permille in [0, 50, 300, 999, 1000] {
            assert_eq!(share(&show_share(permille)), Some(permille));
        }
        assert_eq!(show_time(Duration::from_secs(7 * 86_400)), "7d");
        assert_eq!(show_size(64 << 20), "64MiB");
    }
}
