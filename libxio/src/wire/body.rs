//! How bodies are laid out: a fixed part that says its own length, so that later versions can append fields to it, then
//! parts of variable length in a given order. What follows the known parts belongs to later versions.

use super::Violation;
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

/// A fixed part as version 1 has it.
pub(super) trait Fixed: FromBytes + KnownLayout + Immutable + Unaligned {
    /// Its length as the body gives it, in bytes.
    fn length(&self) -> u16;
}

/// Splits a body into its fixed part and what follows it.
pub(super) fn split<T: Fixed>(bytes: &[u8]) -> Result<(&T, &[u8]), Violation> {
    let too_short =
        |expected| Violation::BodyTooShort { length: saturated(bytes.len()), expected: saturated(expected) };
    let (fixed, _) = T::ref_from_prefix(bytes).map_err(|_| too_short(size_of::<T>()))?;
    let length = fixed.length();
    if usize::from(length) < size_of::<T>() {
        let expected = size_of::<T>() as u16; // at most 256 of HELLO_BODY_BYTES_MAX
        return Err(Violation::FixedPartTooShort { length, expected });
    }
    let rest = bytes.get(usize::from(length)..).ok_or_else(|| too_short(length.into()))?;
    Ok((fixed, rest))
}

/// Takes a part off the front of what is left.
pub(super) fn take<'a>(
    rest: &mut &'a [u8],
    field: &'static str,
    length: u16,
    limit: usize,
) -> Result<&'a [u8], Violation> {
    check_length(field, usize::from(length), limit)?;
    let (part, after) = rest
        .split_at_checked(length.into())
        .ok_or(Violation::BodyTooShort { length: saturated(rest.len()), expected: length.into() })?;
    *rest = after;
    Ok(part)
}

/// A part's length against its limit.
pub(super) fn check_length(field: &'static str, length: usize, limit: usize) -> Result<(), Violation> {
    if length > limit {
        return Err(Violation::PartTooLong { field, length: saturated(length), limit: saturated(limit) });
    }
    Ok(())
}

/// Reserved fields are 0.
pub(super) fn check_reserved(field: &'static str, value: u32) -> Result<(), Violation> {
    if value == 0 { Ok(()) } else { Err(Violation::ReservedNotZero { field, value }) }
}

/// The length of a part for its field. One that is too long for the field is too long for every limit as well, and
/// refused by the receiver with `PartTooLong`; senders call `validate` first.
pub(super) fn length_field(part: &[u8]) -> u16 {
    u16::try_from(part.len()).unwrap_or(u16::MAX)
}

fn saturated(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
