//! Numbers as people write and read them.

use super::Parsed;
use std::time::Duration;

/// A number of bytes: digits, perhaps followed by k, M, G or T, in powers of 1024.
pub(crate) fn bytes(text: &str) -> Parsed<u64> {
    let (digits, factor) = match text.char_indices().last() {
        Some((end, unit)) => match unit.to_ascii_lowercase() {
            'k' => (&text[..end], 1 << 10),
            'm' => (&text[..end], 1 << 20),
            'g' => (&text[..end], 1 << 30),
            't' => (&text[..end], 1_u64 << 40),
            _ => (text, 1),
        },
        None => (text, 1),
    };
    let number = digits.parse::<u64>().map_err(|_| "expected a number like 4096, 4k or 1M".to_owned())?;
    number.checked_mul(factor).filter(|bytes| i64::try_from(*bytes).is_ok()).ok_or("too large".to_owned())
}

/// A number of bytes that is not zero and fits one request.
pub(crate) fn block(text: &str) -> Parsed<u32> {
    match bytes(text)? {
        0 => Err("must be more than 0".to_owned()),
        number => u32::try_from(number).map_err(|_| "too large for one request".to_owned()),
    }
}

/// A number of requests or threads, at least 1.
pub(crate) fn count(text: &str) -> Parsed<usize> {
    match text.parse::<usize>() {
        Ok(number @ 1..=65_536) => Ok(number),
        _ => Err("expected a number from 1 to 65536".to_owned()),
    }
}

/// Seconds, with a fraction if need be.
pub(crate) fn seconds(text: &str) -> Parsed<Duration> {
    let number = text.parse::<f64>().ok().filter(|seconds| (0.001..=1e6).contains(seconds));
    number.map(Duration::from_secs_f64).ok_or("expected seconds, from 0.001 to 1000000".to_owned())
}

/// Bytes for people: `1.5 MiB`.
pub(crate) fn show_bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A short time for people: `12.3 us`.
pub(crate) fn show_nanoseconds(nanoseconds: u64) -> String {
    let value = nanoseconds as f64;
    match nanoseconds {
        0..1_000 => format!("{nanoseconds} ns"),
        1_000..1_000_000 => format!("{:.1} us", value / 1e3),
        1_000_000..1_000_000_000 => format!("{:.2} ms", value / 1e6),
        _ => format!("{:.2} s", value / 1e9),
    }
}

/// A point in time, in nanoseconds since 1970, in UTC: `2026-11-24 05:30:00`. The calendar is Howard Hinnant's
/// "chrono-compatible low-level date algorithms", days to civil.
pub(crate) fn show_time(nanoseconds: i64) -> String {
    let seconds = nanoseconds.div_euclid(1_000_000_000);
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, expected) in
            [("0", 0), ("512", 512), ("4k", 4096), ("1M", 1 << 20), ("2g", 2 << 30), ("1T", 1 << 40)]
        {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
        for text in ["", "k", "-1", "4kk", "1.5M", "9223372036854775808", "99999999T", "é"] {
            assert!(bytes(text).is_err(), "{text}");
        }
        assert!(block("0").is_err() && block("4G").is_err() && block("4M") == Ok(4 << 20));
        assert!(seconds("0").is_err() && seconds("nan").is_err());
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        assert!(count("0").is_err() && count("32") == Ok(32));
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!(show_bytes(1023), "1023 B");
        assert_eq!(show_bytes(3 << 19), "1.5 MiB");
        assert_eq!(show_bytes(u64::MAX), "16.0 EiB");
        assert_eq!(show_nanoseconds(12_345), "12.3 us");
        assert_eq!(show_time(0), "1970-01-01 00:00:00");
        assert_eq!(show_time(951_782_400_000_000_000), "2000-02-29 00:00:00");
        assert_eq!(show_time(1_795_498_200_123_456_789), "2026-11-24 05:30:00");
        assert_eq!(show_time(-1), "1969-12-31 23:59:59");
    }
}
