//! Times as operators read and write them: RFC 3339, or so long ago (`2h`).

use crate::control::config::units;
use crate::traffic::message::WallTime;

const DAY_SECONDS: i64 = 86_400;

/// A time as it is written on a command line, seen from `now`.
///
/// # Errors
/// It is none; the text says how to write one.
pub fn parse(text: &str, now: WallTime) -> Result<WallTime, String> {
    let ago = units::time(text).and_then(|ago| u64::try_from(ago.as_micros()).ok());
    let ago = ago.map(|ago| WallTime::from_micros(now.micros().saturating_sub(ago)));
    ago.or_else(|| rfc3339(text)).ok_or_else(|| {
        format!(
            "{text:?} is no time; write one like \"2026-11-21T08:30:00Z\" (RFC 3339, with Z or an offset like +01:00), or how long ago: \"90s\", \"15m\", \"2h\", \"3d\""
        )
    })
}

/// A time in RFC 3339, UTC, to the millisecond: clocks are read one after the other, so that more would
/// not be the same twice.
#[must_use]
pub fn show(wall: WallTime) -> String {
    let millis = wall.micros() / 1000 % 1000;
    format!("{}.{millis:03}Z", show_seconds(wall).trim_end_matches('Z'))
}

/// The same to the second.
#[must_use]
pub fn show_seconds(wall: WallTime) -> String {
    let seconds = i64::try_from(wall.micros() / 1_000_000).unwrap_or(i64::MAX);
    let (year, month, day) = civil(seconds.div_euclid(DAY_SECONDS));
    let of_day = seconds.rem_euclid(DAY_SECONDS);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// RFC 3339, 5.6; seconds may be left out, and a blank may stand for the `T`.
fn rfc3339(text: &str) -> Option<WallTime> {
    let (date, time) = text.split_once(['T', 't', ' '])?;
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let (clock, offset_seconds) = split_offset(time)?;
    let (clock, micros) = match clock.split_once('.') {
        Some((clock, fraction)) => (clock, fraction_micros(fraction)?),
        None => (clock, 0),
    };
    let [hour, minute, second] = match clock.len() {
        5 => {
            let [hour, minute] = numbers(clock, ':', [2, 2])?;
            [hour, minute, 0]
        }
        _ => numbers(clock, ':', [2, 2, 2])?,
    };
    if hour > 23 || minute > 59 || second > 60 || !is_day(year, month, day) {
        return None;
    }
    let seconds = days(year, month, day) * DAY_SECONDS + hour * 3600 + minute * 60 + second;
    let seconds = u64::try_from(seconds - offset_seconds).ok()?;
    Some(WallTime::from_micros(seconds * 1_000_000 + micros))
}

fn split_offset(time: &str) -> Option<(&str, i64)> {
    if let Some(clock) = time.strip_suffix(['Z', 'z']) {
        return Some((clock, 0));
    }
    let at = time.rfind(['+', '-'])?;
    let (clock, offset) = time.split_at_checked(at)?;
    let sign = if offset.starts_with('-') { -1 } else { 1 };
    let [hours, minutes] = numbers(offset.get(1..)?, ':', [2, 2])?;
    (hours < 24 && minutes < 60).then_some((clock, sign * (hours * 3600 + minutes * 60)))
}

fn fraction_micros(digits: &str) -> Option<u64> {
    let there = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let six = format!("{digits:0<6}");
    there.then(|| six.get(..6)?.parse().ok()).flatten()
}

/// Numbers of so many digits each.
fn numbers<const N: usize>(text: &str, by: char, digits: [usize; N]) -> Option<[i64; N]> {
    let mut numbers = [0; N];
    let mut parts = text.split(by);
    for (number, digits) in numbers.iter_mut().zip(digits) {
        let part = parts.next()?;
        if part.len() != digits || !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        *number = part.parse().ok()?;
    }
    parts.next().is_none().then_some(numbers)
}

fn is_day(year: i64, month: i64, day: i64) -> bool {
    day >= 1 && (1..=12).contains(&month) && civil(days(year, month, day)) == (year, month, day)
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar, counted in years that begin in March, so
/// that the leap day is the last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The date of such a day.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = (shifted + 2) % 12 + 1;
    (year + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: WallTime = WallTime::from_micros(1_795_239_395_000_000);

    #[test]
    fn is_a_time_shown_as_it_is_read() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T23:59:59Z", 951_868_799),
            ("2024-12-31T12:00:00Z", 1_735_646_400),
            ("2026-11-21T05:36:35Z", 1_795_239_395),
            ("2100-03-01T00:00:00Z", 4_107_542_400),
        ] {
            let wall = WallTime::from_micros(seconds * 1_000_000);
            assert_eq!(show_seconds(wall), text);
            assert_eq!(parse(text, NOW), Ok(wall));
        }
        let wall = parse("2026-11-21 06:36:35.5+01:00", NOW).unwrap();
        assert_eq!(show(wall), "2026-11-21T05:36:35.500Z");
        assert_eq!(parse("2026-11-21T05:36Z", NOW).unwrap().micros() % 60, 0);
    }

    #[test]
    fn is_so_long_ago_a_time() {
        let ago = NOW.micros() - parse("2h", NOW).unwrap().micros();
        assert_eq!(ago, 7_200_000_000);
    }

    #[test]
    fn is_what_is_no_time_told() {
        for text in [
            "",
            "yesterday",
            "2h3m",
            "-2h",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-11-21",
            "2026-11-21T05:36:35",
            "2026-11-21T25:00:00Z",
            "2026-11-21T05:36:35.Z",
            "2026-11-21T05:36:35+0100",
            "1960-01-01T00:00:00Z",
            "ü026-11-21T05:36:35Z",
        ] {
            let error = parse(text, NOW).unwrap_err();
            assert!(error.contains("is no time; write"), "{text}");
        }
    }
}
