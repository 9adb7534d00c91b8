//! Numbers of bytes as people write them.

use crate::Result;

/// A number of bytes: digits, perhaps followed by k, M or G, in powers of 1024. Also a parser for clap.
///
/// # Errors
/// It is something else, or too large.
pub fn parse_bytes(text: &str) -> Result<usize> {
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 10),
        Some(b'm' | b'M') => (&text[..text.len() - 1], 20),
        Some(b'g' | b'G') => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    let number: usize = digits.parse().map_err(|_| "expected a number like 4096, 4k or 1M".to_owned())?;
    number.checked_mul(1 << shift).ok_or("too large".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, expected) in [("0", 0), ("512", 512), ("4k", 4096), ("1M", 1 << 20), ("2g", 2 << 30)] {
            assert_eq!(parse_bytes(text), Ok(expected), "{text}");
        }
        for text in ["", "k", "-1", "4kk", "1.5M", "é", "99999999999G"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }
}
