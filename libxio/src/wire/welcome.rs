//! The server's acceptance.

use super::body::{self, Fixed};
use super::limits::{Limits, LimitsBytes};
use super::{Hello, LoopKind, PRIVATE_DATA_BYTES_MAX, SessionId, VERSION, VERSION_MIN, Violation};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The server's acceptance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    /// The version that both speak from now on.
    pub version: u16,
    /// The features in force.
    pub features: u64,
    /// Who runs the server's loop.
    pub loop_kind: LoopKind,
    /// Differs for each start of the server.
    pub incarnation: u64,
    /// The session.
    pub session: SessionId,
    /// The secret for joining it.
    pub session_key: [u8; 16],
    /// The connection's number within the session, from 1.
    pub connection: u32,
    /// The server's limits; `slots` is what the client got.
    pub limits: Limits,
    /// From the server's application.
    pub private_data: Vec<u8>,
}

/// The fixed part.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct WelcomeBytes {
    version: U16,
    fixed_length: U16,
    loop_kind: u8,
    reserved: [u8; 3],
    features: U64,
    incarnation: U64,
    session: [u8; 16],
    session_key: [u8; 16],
    connection: U32,
    limits: LimitsBytes,
    private_data_length: U16,
    reserved_end: U16,
}

const _: () = assert!(size_of::<WelcomeBytes>() == 100);

impl Fixed for WelcomeBytes {
    fn length(&self) -> u16 {
        self.fixed_length.get()
    }
}

impl Welcome {
    /// Checks everything that a receiver checks; to be called before a welcome is sent.
    ///
    /// # Errors
    /// The rule that this welcome breaks.
    pub fn validate(&self) -> Result<(), Violation> {
        if !(VERSION_MIN..=VERSION).contains(&self.version) {
            return Err(Violation::VersionNotOffered { version: self.version });
        }
        self.limits.validate()?;
        body::check_length("the private data", self.private_data.len(), PRIVATE_DATA_BYTES_MAX)
    }

    /// Checks that this is an answer to the hello that was sent.
    ///
    /// # Errors
    /// A version or features that it did not offer, or more slots than it asked for.
    pub fn check_against(&self, hello: &Hello) -> Result<(), Violation> {
        if !(hello.version_min..=hello.version_max).contains(&self.version) {
            return Err(Violation::VersionNotOffered { version: self.version });
        }
        let features = self.features & !hello.features;
        if features != 0 {
            return Err(Violation::FeaturesNotOffered { features });
        }
        for (field, slots, offered) in [
            ("slots of the welcome", self.limits.slots, hello.limits.slots),
            ("peer_slots of the welcome", self.limits.peer_slots, hello.limits.peer_slots),
        ] {
            if slots > offered {
                return Err(Violation::FieldTooLarge { field, value: slots.into(), limit: offered.into() });
            }
        }
        Ok(())
    }

    /// The body's bytes. A receiver refuses them unless [`Welcome::validate`] agrees.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let Welcome {
            version,
            features,
            loop_kind,
            incarnation,
            session,
            session_key,
            connection,
            limits,
            private_data,
        } = self;
        let fixed = WelcomeBytes {
            version: (*version).into(),
            fixed_length: (size_of::<WelcomeBytes>() as u16).into(),
            loop_kind: loop_kind.to_byte(),
            reserved: [0; 3],
            features: (*features).into(),
            incarnation: (*incarnation).into(),
            session: session.0,
            session_key: *session_key,
            connection: (*connection).into(),
            limits: limits.to_bytes(),
            private_data_length: body::length_field(private_data).into(),
            reserved_end: 0.into(),
        };
        [fixed.as_bytes(), private_data].concat()
    }

    /// Decodes and validates a body; [`Welcome::check_against`] does the rest.
    ///
    /// # Errors
    /// The rule that the bytes break.
    pub fn decode(bytes: &[u8]) -> Result<Welcome, Violation> {
        let (fixed, mut rest) = body::split::<WelcomeBytes>(bytes)?;
        let [a, b, c] = fixed.reserved;
        body::check_reserved("bytes 5 to 7 of a welcome", u32::from_le_bytes([a, b, c, 0]))?;
        body::check_reserved("bytes 98 to 99 of a welcome", fixed.reserved_end.get().into())?;
        let private_data = body::take(
            &mut rest,
            "the private data",
            fixed.private_data_length.get(),
            PRIVATE_DATA_BYTES_MAX,
        )?;
        let welcome = Welcome {
            version: fixed.version.get(),
            features: fixed.features.get(),
            loop_kind: LoopKind::from_byte(fixed.loop_kind)?,
            incarnation: fixed.incarnation.get(),
            session: SessionId(fixed.session),
            session_key: fixed.session_key,
            connection: fixed.connection.get(),
            limits: Limits::from_bytes(&fixed.limits),
            private_data: private_data.to_owned(),
        };
        welcome.validate()?;
        Ok(welcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[rustfmt::skip]
    const GOLDEN: [u8; 102] = [
        0x01, 0x00, 0x64, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07,
        0x08, 0x09, 0x0a, 0x0b, 0x0c, 0x0d, 0x0e, 0x0f, 0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17,
        0x18, 0x19, 0x1a, 0x1b, 0x1c, 0x1d, 0x1e, 0x1f, 0x07, 0x00, 0x00, 0x00, 0x00, 0x04, 0x10, 0x00,
        0x00, 0x21, 0x00, 0x00, 0x00, 0x00, 0x40, 0x00, 0x00, 0x00, 0x80, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x01, 0x00, 0x00, 0x10, 0x27, 0x00, 0x00, 0x00, 0x02, 0x00, 0x00, 0x00, 0x00, 0x10, 0x00,
        0x02, 0x00, 0x00, 0x00, 0x6f, 0x6b,
    ];

    fn welcome() -> Welcome {
        Welcome {
            version: 1,
            features: 1,
            loop_kind: LoopKind::Own,
            incarnation: 0x1122_3344_5566_7788,
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
            private_data: b"ok".to_vec(),
        }
    }

    fn refused(at: usize, byte: u8) -> Violation {
        let mut body = GOLDEN;
        body[at] = byte;
        Welcome::decode(&body).unwrap_err()
    }

    #[test]
    fn golden_bytes() {
        assert_eq!(welcome().encode(), GOLDEN);
        assert_eq!(Welcome::decode(&GOLDEN), Ok(welcome()));
    }

    #[test]
    fn every_beginning_is_too_short() {
        for length in 0..GOLDEN.len() {
            let found = Welcome::decode(&GOLDEN[..length]);
            assert!(matches!(found, Err(Violation::BodyTooShort { .. })), "{length}: {found:?}");
        }
    }

    #[test]
    fn fields_are_checked() {
        assert_eq!(refused(0, 0), Violation::VersionNotOffered { version: 0 });
        assert_eq!(refused(0, 2), Violation::VersionNotOffered { version: 2 });
        assert_eq!(refused(2, 99), Violation::FixedPartTooShort { length: 99, expected: 100 });
        assert_eq!(refused(4, 9), Violation::UnknownLoopKind(9));
        for at in [5, 6, 7, 98, 99] {
            assert!(matches!(refused(at, 1), Violation::ReservedNotZero { .. }));
        }
        assert_eq!(refused(96, 3), Violation::BodyTooShort { length: 2, expected: 3 });
        assert!(matches!(refused(79, 1), Violation::FieldTooLarge { .. }));
    }

    #[test]
    fn a_welcome_gives_no_more_than_the_hello_asked_for() {
        let welcome = welcome();
        let hello = Hello {
            version_min: 1,
            version_max: 1,
            features: 1,
            loop_kind: LoopKind::Own,
            session: SessionId::default(),
            session_key: [0; 16],
            connection: 0,
            limits: welcome.limits,
            resource: "/".to_owned(),
            private_data: Vec::new(),
        };
        assert_eq!(welcome.check_against(&hello), Ok(()));
        let other = Hello { features: 0, ..hello.clone() };
        assert_eq!(welcome.check_against(&other), Err(Violation::FeaturesNotOffered { features: 1 }));
        let other = Hello { version_min: 2, version_max: 2, ..hello.clone() };
        assert_eq!(welcome.check_against(&other), Err(Violation::VersionNotOffered { version: 1 }));
        let other = Hello { limits: Limits { peer_slots: 15, ..hello.limits }, ..hello.clone() };
        assert!(matches!(
            welcome.check_against(&other),
            Err(Violation::FieldTooLarge { value: 16, limit: 15, .. })
        ));
        let other = Hello { limits: Limits { slots: 1023, ..hello.limits }, ..hello };
        assert!(matches!(
            welcome.check_against(&other),
            Err(Violation::FieldTooLarge { value: 1024, limit: 1023, .. })
        ));
    }
}
