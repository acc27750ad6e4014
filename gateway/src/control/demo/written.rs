//! How the demo writes numbers for people: 12,345, 3.4 MiB, 5.1 ms. Numbers in, text out.

use std::time::Duration;

/// With commas between thousands.
#[must_use]
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A size in the unit that suits it.
#[must_use]
pub fn size(bytes: u64) -> String {
    match bytes {
        0..1_024 => format!("{bytes} B"),
        1_024..1_048_576 => format!("{:.0} KiB", bytes as f64 / 1_024.0),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}

/// A latency: milliseconds with a tenth, from a second on seconds.
#[must_use]
pub fn latency(micros: u64) -> String {
    match micros {
        0..1_000_000 => format!("{:.1} ms", micros as f64 / 1e3),
        _ => format!("{:.1} s", micros as f64 / 1e6),
    }
}

/// Minutes and seconds since the start.
#[must_use]
pub fn time(since_start: Duration) -> String {
    let seconds = since_start.as_secs();
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn are_numbers_written_for_people() {
        let numbers = [0, 999, 1_000, 1_234_567].map(grouped);
        assert_eq!(numbers, ["0", "999", "1,000", "1,234,567"]);
        let sizes = [7, 2_048, 3_565_158].map(size);
        assert_eq!(sizes, ["7 B", "2 KiB", "3.4 MiB"]);
        assert_eq!([5_120, 22_500_000].map(latency), ["5.1 ms", "22.5 s"]);
        assert_eq!(time(Duration::from_secs(75)), "1:15");
    }
}
