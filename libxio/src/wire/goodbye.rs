//! The last frame of a side, with the reason.

use super::Violation;
use super::body::{self, Fixed};
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Longest text of a goodbye in bytes: a sentence.
pub const GOODBYE_TEXT_BYTES_MAX: usize = 256;

/// The last frame of a side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Goodbye {
    /// 0 for an orderly close, else the number of the broken rule.
    pub code: u32,
    /// The reason as a sentence, for the other side's log; at most 256 bytes.
    pub text: String,
}

/// The fixed part.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct GoodbyeBytes {
    fixed_length: U16,
    text_length: U16,
    code: U32,
}

const _: () = assert!(size_of::<GoodbyeBytes>() == 8);

impl Fixed for GoodbyeBytes {
    fn length(&self) -> u16 {
        self.fixed_length.get()
    }
}

impl Goodbye {
    /// An orderly close.
    #[must_use]
    pub fn orderly() -> Goodbye {
        Goodbye { code: 0, text: String::new() }
    }

    /// A close because the peer broke a rule.
    #[must_use]
    pub fn because_of(violation: &Violation) -> Goodbye {
        Goodbye { code: violation.code(), text: violation.to_string() }
    }

    /// The body's bytes. Text that is too long is cut, control characters become spaces.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let Goodbye { code, text } = self;
        let mut line = String::with_capacity(text.len().min(GOODBYE_TEXT_BYTES_MAX));
        for character in text.chars().map(|character| if character.is_control() { ' ' } else { character }) {
            if line.len() + character.len_utf8() > GOODBYE_TEXT_BYTES_MAX {
                break;
            }
            line.push(character);
        }
        let fixed = GoodbyeBytes {
            fixed_length: (size_of::<GoodbyeBytes>() as u16).into(),
            text_length: body::length_field(line.as_bytes()).into(),
            code: (*code).into(),
        };
        [fixed.as_bytes(), line.as_bytes()].concat()
    }

    /// Decodes and validates a body.
    ///
    /// # Errors
    /// The rule that the bytes break.
    pub fn decode(bytes: &[u8]) -> Result<Goodbye, Violation> {
        let (fixed, mut rest) = body::split::<GoodbyeBytes>(bytes)?;
        let text = body::take(&mut rest, "the text", fixed.text_length.get(), GOODBYE_TEXT_BYTES_MAX)?;
        let text = std::str::from_utf8(text).map_err(|_| Violation::NotUtf8 { field: "the text" })?;
        if text.chars().any(char::is_control) {
            return Err(Violation::BadText);
        }
        Ok(Goodbye { code: fixed.code.get(), text: text.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: [u8; 11] = [0x08, 0x00, 0x03, 0x00, 0x40, 0x00, 0x00, 0x00, 0x62, 0x79, 0x65];

    #[test]
    fn golden_bytes() {
        let goodbye = Goodbye { code: 64, text: "bye".to_owned() };
        assert_eq!(goodbye.encode(), GOLDEN);
        assert_eq!(Goodbye::decode(&GOLDEN), Ok(goodbye));
        for length in 0..GOLDEN.len() {
            assert!(matches!(Goodbye::decode(&GOLDEN[..length]), Err(Violation::BodyTooShort { .. })));
        }
    }

    #[test]
    fn text_is_one_line_of_bounded_length() {
        let goodbye = Goodbye { code: 0, text: format!("a\nb\u{1b}[2Jc{}", "é".repeat(300)) };
        let found = Goodbye::decode(&goodbye.encode()).unwrap();
        assert!(found.text.starts_with("a b [2Jcé"));
        assert!(found.text.len() <= GOODBYE_TEXT_BYTES_MAX && found.text.len() >= GOODBYE_TEXT_BYTES_MAX - 1);
        let forged =
            |text: &[u8]| Goodbye::decode(&[&[8, 0, text.len() as u8, 0, 0, 0, 0, 0], text].concat());
        assert_eq!(forged(b"a\nb"), Err(Violation::BadText));
        assert_eq!(forged(b"a\xFFb"), Err(Violation::NotUtf8 { field: "the text" }));
        let mut long = vec![8, 0, 1, 1, 0, 0, 0, 0];
        long.extend([b'a'; 257]);
        let too_long = Violation::PartTooLong { field: "the text", length: 257, limit: 256 };
        assert_eq!(Goodbye::decode(&long), Err(too_long));
    }

    #[test]
    fn a_violation_travels_with_its_number_and_sentence() {
        let violation = Violation::UnknownKind(99);
        let found = Goodbye::decode(&Goodbye::because_of(&violation).encode()).unwrap();
        assert_eq!(found, Goodbye { code: 1, text: violation.to_string() });
        assert_eq!(Goodbye::decode(&Goodbye::orderly().encode()), Ok(Goodbye::orderly()));
    }
}
