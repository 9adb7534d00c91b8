//! Where a one-sided operation goes: 32 bytes which travel as the header of a RemoteRead or RemoteWrite.

use super::{Violation, body};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of a [`RemoteAddress`].
pub const REMOTE_ADDRESS_BYTES: usize = 32;

/// A place in memory that the peer has exposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RemoteAddress {
    /// The owner's number for the exposed memory.
    pub region: u32,
    /// First byte, counted from the start of the exposed memory.
    pub offset: u64,
    /// The secret that came with the exposed memory's description.
    pub key: [u8; 16],
}

/// The address as bytes.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct AddressBytes {
    region: U32,
    reserved: U32,
    offset: U64,
    key: [u8; 16],
}

const _: () = assert!(size_of::<AddressBytes>() == REMOTE_ADDRESS_BYTES);

impl RemoteAddress {
    /// The bytes of this address.
    #[must_use]
    pub fn encode(&self) -> [u8; REMOTE_ADDRESS_BYTES] {
        let &RemoteAddress { region, offset, key } = self;
        zerocopy::transmute!(AddressBytes {
            region: region.into(),
            reserved: 0.into(),
            offset: offset.into(),
            key
        })
    }

    /// Decodes and validates. Whether there is such memory is the owner's to say.
    ///
    /// # Errors
    /// [`Violation::RemoteAddressLength`], [`Violation::ReservedNotZero`].
    pub fn decode(bytes: &[u8]) -> Result<RemoteAddress, Violation> {
        let raw = AddressBytes::ref_from_bytes(bytes).map_err(|_| Violation::RemoteAddressLength {
            length: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
        })?;
        body::check_reserved("bytes 4 to 7 of a remote address", raw.reserved.get())?;
        Ok(RemoteAddress { region: raw.region.get(), offset: raw.offset.get(), key: raw.key })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[rustfmt::skip]
    const GOLDEN: [u8; REMOTE_ADDRESS_BYTES] = [
        0x04, 0x03, 0x02, 0x01, 0x00, 0x00, 0x00, 0x00, 0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11,
        0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0a, 0x0b, 0x0c, 0x0d, 0x0e, 0x0f,
    ];

    #[test]
    fn golden_bytes() {
        let address = RemoteAddress {
            region: 0x0102_0304,
            offset: 0x1112_1314_1516_1718,
            key: std::array::from_fn(|at| at as u8),
        };
        assert_eq!(address.encode(), GOLDEN);
        assert_eq!(RemoteAddress::decode(&GOLDEN), Ok(address));
    }

    #[test]
    fn length_and_reserved_bytes_are_checked() {
        assert_eq!(RemoteAddress::decode(&GOLDEN[1..]), Err(Violation::RemoteAddressLength { length: 31 }));
        let mut bytes = GOLDEN;
        bytes[7] = 1;
        assert!(matches!(RemoteAddress::decode(&bytes), Err(Violation::ReservedNotZero { .. })));
    }
}
