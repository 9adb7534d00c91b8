//! The first frame of the connecting side (its body travels as the frame's header), and what belongs to it.
//!
//! A body may be longer than known here: its fixed part says its own length, and what follows the known parts is left
//! to later versions. The first 12 bytes of a hello never change, so that a server of any version can answer.

use super::Violation;
use super::body::{self, Fixed};
use super::limits::{Limits, LimitsBytes};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Version of the protocol that this library speaks.
pub const VERSION: u16 = 1;
/// Oldest version that it still speaks: the one before [`VERSION`], as far as there is one.
pub const VERSION_MIN: u16 = 1;
/// First bytes of a hello's body. Line ends and a control byte show a link that meddles with text.
pub const HELLO_MAGIC: [u8; 8] = *b"R-XIO\r\n\x01";
/// Feature bit: CRC-32C of headers and data.
pub const FEATURE_CRC: u64 = 1;
/// Feature bit: data lies in the client's memory, which the server reaches in place; frames say where
/// ([`super::Extension`]). In force on links that share memory only.
pub const FEATURE_PLACEMENT: u64 = 2;
/// All feature bits known here.
pub const FEATURES: u64 = FEATURE_CRC | FEATURE_PLACEMENT;
/// Longest resource in bytes.
pub const RESOURCE_BYTES_MAX: usize = 4096;
/// Most private data in a hello, a welcome or a refusal, in bytes.
pub const PRIVATE_DATA_BYTES_MAX: usize = 4096;
/// Longest body: fixed part, resource and private data.
pub const HELLO_BODY_BYTES_MAX: usize = 256 + RESOURCE_BYTES_MAX + PRIVATE_DATA_BYTES_MAX;

/// Identity of a session, given by the server; all zero in the first hello.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct SessionId(pub [u8; 16]);

/// Who runs the loop of a side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum LoopKind {
    /// A loop of its own: it answers probes at any time.
    #[default]
    Own,
    /// The loop runs only inside the caller's calls; silence says nothing.
    Caller,
}

impl LoopKind {
    pub(super) fn to_byte(self) -> u8 {
        match self {
            LoopKind::Own => 0,
            LoopKind::Caller => 1,
        }
    }

    pub(super) fn from_byte(byte: u8) -> Result<LoopKind, Violation> {
        match byte {
            0 => Ok(LoopKind::Own),
            1 => Ok(LoopKind::Caller),
            other => Err(Violation::UnknownLoopKind(other)),
        }
    }
}

/// First frame of the connecting side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Oldest version that it speaks.
    pub version_min: u16,
    /// Newest version that it speaks.
    pub version_max: u16,
    /// Features that it offers.
    pub features: u64,
    /// Who runs its loop.
    pub loop_kind: LoopKind,
    /// The session to join, zero for a new one.
    pub session: SessionId,
    /// The secret that came with the session's welcome; zero for a new one.
    pub session_key: [u8; 16],
    /// The connection within the session that this link belongs to, 0 for a new one.
    pub connection: u32,
    /// Its limits and wishes.
    pub limits: Limits,
    /// What it wants to talk to.
    pub resource: String,
    /// For the server's application.
    pub private_data: Vec<u8>,
}

/// What never changes, whatever the version.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct HelloStart {
    magic: [u8; 8],
    version_min: U16,
    version_max: U16,
}

/// The fixed part.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct HelloBytes {
    start: HelloStart,
    fixed_length: U16,
    loop_kind: u8,
    reserved: u8,
    features: U64,
    session: [u8; 16],
    session_key: [u8; 16],
    connection: U32,
    limits: LimitsBytes,
    resource_length: U16,
    private_data_length: U16,
}

const _: () = assert!(size_of::<HelloStart>() == 12 && size_of::<HelloBytes>() == 100);

impl Fixed for HelloBytes {
    fn length(&self) -> u16 {
        self.fixed_length.get()
    }
}

impl Hello {
    /// Checks everything that a receiver checks; to be called before a hello is sent.
    ///
    /// # Errors
    /// The rule that this hello breaks.
    pub fn validate(&self) -> Result<(), Violation> {
        check_versions(self.version_min, self.version_max)?;
        self.limits.validate()?;
        body::check_length("the resource", self.resource.len(), RESOURCE_BYTES_MAX)?;
        body::check_length("the private data", self.private_data.len(), PRIVATE_DATA_BYTES_MAX)?;
        if !self.resource.starts_with('/') || self.resource.contains('\0') {
            return Err(Violation::BadResource);
        }
        Ok(())
    }

    /// The body's bytes. A receiver refuses them unless [`Hello::validate`] agrees.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let Hello {
            version_min,
            version_max,
            features,
            loop_kind,
            session,
            session_key,
            connection,
            limits,
            resource,
            private_data,
        } = self;
        let fixed = HelloBytes {
            start: HelloStart {
                magic: HELLO_MAGIC,
                version_min: (*version_min).into(),
                version_max: (*version_max).into(),
            },
            fixed_length: (size_of::<HelloBytes>() as u16).into(),
            loop_kind: loop_kind.to_byte(),
            reserved: 0,
            features: (*features).into(),
            session: session.0,
            session_key: *session_key,
            connection: (*connection).into(),
            limits: limits.to_bytes(),
            resource_length: body::length_field(resource.as_bytes()).into(),
            private_data_length: body::length_field(private_data).into(),
        };
        [fixed.as_bytes(), resource.as_bytes(), private_data].concat()
    }

    /// Decodes and validates a body. Versions are judged first: [`Violation::NoCommonVersion`] comes even for a body
    /// whose layout only a later version knows, and is to be answered with [`super::RejectReason::Version`].
    ///
    /// # Errors
    /// The rule that the bytes break.
    pub fn decode(bytes: &[u8]) -> Result<Hello, Violation> {
        let magic = &bytes[..bytes.len().min(HELLO_MAGIC.len())];
        if magic != &HELLO_MAGIC[..magic.len()] {
            return Err(Violation::BadMagic);
        }
        let (start, _) = HelloStart::ref_from_prefix(bytes).map_err(|_| Violation::BodyTooShort {
            length: bytes.len() as u32, // below the 12 bytes of the start
            expected: size_of::<HelloStart>() as u32,
        })?;
        check_versions(start.version_min.get(), start.version_max.get())?;

        let (fixed, mut rest) = body::split::<HelloBytes>(bytes)?;
        body::check_reserved("byte 15 of a hello", fixed.reserved.into())?;
        let resource =
            body::take(&mut rest, "the resource", fixed.resource_length.get(), RESOURCE_BYTES_MAX)?;
        let private_data = body::take(
            &mut rest,
            "the private data",
            fixed.private_data_length.get(),
            PRIVATE_DATA_BYTES_MAX,
        )?;
        let resource =
            std::str::from_utf8(resource).map_err(|_| Violation::NotUtf8 { field: "the resource" })?;
        let hello = Hello {
            version_min: start.version_min.get(),
            version_max: start.version_max.get(),
            features: fixed.features.get(),
            loop_kind: LoopKind::from_byte(fixed.loop_kind)?,
            session: SessionId(fixed.session),
            session_key: fixed.session_key,
            connection: fixed.connection.get(),
            limits: Limits::from_bytes(&fixed.limits),
            resource: resource.to_owned(),
            private_data: private_data.to_owned(),
        };
        hello.validate()?;
        Ok(hello)
    }

    /// The version that both speak: the newest in common. A decoded hello always has one.
    #[must_use]
    pub fn common_version(&self) -> u16 {
        self.version_max.min(VERSION)
    }

    /// The features that both know, out of those that this side `wants`.
    #[must_use]
    pub fn common_features(&self, wants: u64) -> u64 {
        self.features & FEATURES & wants
    }
}

fn check_versions(min: u16, max: u16) -> Result<(), Violation> {
    if min == 0 || min > max {
        return Err(Violation::BadVersionRange { min, max });
    }
    if max < VERSION_MIN || min > VERSION {
        return Err(Violation::NoCommonVersion);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::GRANT_AHEAD_MAX;
    use super::*;

    #[rustfmt::skip]
    const GOLDEN: [u8; 108] = [
        0x52, 0x2d, 0x58, 0x49, 0x4f, 0x0d, 0x0a, 0x01, 0x01, 0x00, 0x01, 0x00, 0x64, 0x00, 0x01, 0x00,
        0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07,
        0x08, 0x09, 0x0a, 0x0b, 0x0c, 0x0d, 0x0e, 0x0f, 0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17,
        0x18, 0x19, 0x1a, 0x1b, 0x1c, 0x1d, 0x1e, 0x1f, 0x07, 0x00, 0x00, 0x00, 0x00, 0x04, 0x10, 0x00,
        0x00, 0x21, 0x00, 0x00, 0x00, 0x00, 0x40, 0x00, 0x00, 0x00, 0x80, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x01, 0x00, 0x00, 0x10, 0x27, 0x00, 0x00, 0x00, 0x02, 0x00, 0x00, 0x00, 0x00, 0x10, 0x00,
        0x05, 0x00, 0x03, 0x00, 0x2f, 0x64, 0x61, 0x74, 0x61, 0x6b, 0x65, 0x79,
    ];

    fn hello() -> Hello {
        Hello {
            version_min: 1,
            version_max: 1,
            features: FEATURE_CRC,
            loop_kind: LoopKind::Caller,
            session: SessionId(std::array::from_fn(|at| at as u8)),
            session_key: std::array::from_fn(|at| at as u8 + 16),
            connection: 7,
            limits: Limits {
                slots: 1024,
                peer_slots: 16,
                header_bytes_max: 8448,
                data_bytes_max: 4 << 20,
                window_bytes: 8 << 20,
                replay_bytes_max: 256,
                keepalive_ms: 10_000,
                one_way_max: 512,
                immediate_bytes_max: 1 << 20,
            },
            resource: "/data".to_owned(),
            private_data: b"key".to_vec(),
        }
    }

    /// The golden bytes with some of them replaced.
    fn with(at: usize, bytes: &[u8]) -> Vec<u8> {
        let mut body = GOLDEN.to_vec();
        body[at..at + bytes.len()].copy_from_slice(bytes);
        body
    }

    fn refused(body: &[u8]) -> Violation {
        Hello::decode(body).unwrap_err()
    }

    #[test]
    fn golden_bytes() {
        assert_eq!(hello().encode(), GOLDEN);
        assert_eq!(Hello::decode(&GOLDEN), Ok(hello()));
    }

    #[test]
    fn every_beginning_is_too_short() {
        for length in 0..GOLDEN.len() {
            let found = refused(&GOLDEN[..length]);
            assert!(matches!(found, Violation::BodyTooShort { .. }), "{length}: {found}");
        }
    }

    #[test]
    fn a_later_version_may_append_fields_and_parts() {
        let later = Hello { version_max: 2, features: u64::MAX, ..hello() };
        let mut body = later.encode();
        body.splice(100..100, [0xEE; 20]);
        body[12] += 20;
        body.extend([0xDD; 30]);
        let found = Hello::decode(&body).unwrap();
        assert_eq!(found, later);
        assert_eq!(found.common_version(), 1);
        assert_eq!(found.common_features(u64::MAX), FEATURES);
        assert_eq!(found.common_features(0), 0);
    }

    #[test]
    fn a_future_version_is_told_from_rubbish_whatever_follows() {
        let mut body = with(8, &[2, 0, 9, 0])[..12].to_vec();
        assert_eq!(refused(&body), Violation::NoCommonVersion);
        body.extend([0xFF; 500]);
        assert_eq!(refused(&body), Violation::NoCommonVersion);
        assert_eq!(refused(&with(8, &[2, 0, 1, 0])), Violation::BadVersionRange { min: 2, max: 1 });
        assert_eq!(refused(&with(8, &[0, 0, 1, 0])), Violation::BadVersionRange { min: 0, max: 1 });
        for at in 0..8 {
            assert_eq!(refused(&with(at, b"x")), Violation::BadMagic);
        }
        assert_eq!(refused(b"GET / HTTP/1.1\r\n"), Violation::BadMagic);
        assert_eq!(refused(b"G"), Violation::BadMagic);
    }

    #[test]
    fn fields_are_checked() {
        assert_eq!(refused(&with(12, &[99])), Violation::FixedPartTooShort { length: 99, expected: 100 });
        assert_eq!(refused(&with(12, &[109])), Violation::BodyTooShort { length: 108, expected: 109 });
        assert_eq!(refused(&with(14, &[2])), Violation::UnknownLoopKind(2));
        assert!(matches!(refused(&with(15, &[1])), Violation::ReservedNotZero { value: 1, .. }));
        let huge = (GRANT_AHEAD_MAX + 1).to_le_bytes();
        assert!(matches!(refused(&with(72, &huge)), Violation::FieldTooLarge { field: "window_bytes", .. }));
        assert_eq!(
            refused(&with(72, &((4u64 << 20) - 1).to_le_bytes())),
            Violation::WindowTooSmall { window: (4 << 20) - 1, data_bytes_max: 4 << 20 }
        );
        assert_eq!(refused(&with(98, &[4])), Violation::BodyTooShort { length: 3, expected: 4 });
        let many = (super::super::ONE_WAY_MAX + 1).to_le_bytes();
        assert!(matches!(refused(&with(88, &many)), Violation::FieldTooLarge { field: "one_way_max", .. }));
        assert_eq!(
            refused(&with(96, &4097u16.to_le_bytes())),
            Violation::PartTooLong { field: "the resource", length: 4097, limit: 4096 }
        );
        assert_eq!(
            refused(&with(98, &u16::MAX.to_le_bytes())),
            Violation::PartTooLong { field: "the private data", length: 65_535, limit: 4096 }
        );
    }

    #[test]
    fn resources_are_checked() {
        assert_eq!(refused(&with(100, b"data/")), Violation::BadResource);
        assert_eq!(refused(&with(100, b"/da\0a")), Violation::BadResource);
        assert_eq!(refused(&with(100, b"/da\xFFa")), Violation::NotUtf8 { field: "the resource" });
        assert_eq!(refused(&Hello { resource: String::new(), ..hello() }.encode()), Violation::BadResource);
    }

    #[test]
    fn the_greatest_hello_fits_and_a_greater_one_is_refused_by_both_sides() {
        let greatest = Hello {
            resource: format!("/{}", "r".repeat(RESOURCE_BYTES_MAX - 1)),
            private_data: vec![1; PRIVATE_DATA_BYTES_MAX],
            ..hello()
        };
        let body = greatest.encode();
        assert!(body.len() <= HELLO_BODY_BYTES_MAX);
        assert_eq!(Hello::decode(&body), Ok(greatest.clone()));
        for size in [4096, 70_000] {
            let greater = Hello { resource: format!("/{}", "r".repeat(size)), ..greatest.clone() };
            assert!(matches!(greater.validate(), Err(Violation::PartTooLong { .. })));
            assert!(matches!(refused(&greater.encode()), Violation::PartTooLong { .. }));
            let greater = Hello { private_data: vec![1; size + 1], ..greatest.clone() };
            assert!(matches!(greater.validate(), Err(Violation::PartTooLong { .. })));
            assert!(matches!(refused(&greater.encode()), Violation::PartTooLong { .. }));
        }
    }
}
