//! The server's rejection. Its fixed part never changes, so that a client of any version learns why.

use super::body::{self, Fixed};
use super::{PRIVATE_DATA_BYTES_MAX, Violation};
use std::fmt;
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Longest uri in a redirect, in bytes.
pub const REDIRECT_BYTES_MAX: usize = 4096;

/// Why a connection was rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RejectReason {
    /// No version that both speak.
    Version {
        /// Oldest version of the server.
        min: u16,
        /// Newest version of the server.
        max: u16,
    },
    /// The server has no such resource.
    NoResource,
    /// The client may not use it.
    NotPermitted,
    /// The server is at its limits.
    Busy,
    /// The server is going away.
    ShuttingDown,
    /// The session or connection is not known (any more), or the key is wrong.
    UnknownSession,
    /// The server can't do what the hello asks for (several links for one connection, say).
    NotSupported,
    /// The application's own number.
    Application(u32),
    /// The resource is served elsewhere: the refusal says where.
    Redirected,
    /// A reason that only a later version knows, by its number on the wire (above those of the others).
    Other(u32),
}

impl RejectReason {
    /// The errno that says it best.
    #[must_use]
    pub fn errno(self) -> i32 {
        match self {
            RejectReason::Version { .. } => libc::EPROTONOSUPPORT,
            RejectReason::NoResource => libc::ENOENT,
            RejectReason::NotPermitted => libc::EACCES,
            RejectReason::Busy => libc::EBUSY,
            RejectReason::ShuttingDown => libc::ESHUTDOWN,
            RejectReason::UnknownSession => libc::ESTALE,
            RejectReason::NotSupported => libc::EOPNOTSUPP,
            RejectReason::Redirected => libc::EREMCHG,
            RejectReason::Application(_) | RejectReason::Other(_) => libc::ECONNREFUSED,
        }
    }

    /// Its number on the wire and two parameters.
    fn to_numbers(self) -> (u32, [u32; 2]) {
        match self {
            RejectReason::Version { min, max } => (1, [min.into(), max.into()]),
            RejectReason::NoResource => (2, [0; 2]),
            RejectReason::NotPermitted => (3, [0; 2]),
            RejectReason::Busy => (4, [0; 2]),
            RejectReason::ShuttingDown => (5, [0; 2]),
            RejectReason::UnknownSession => (6, [0; 2]),
            RejectReason::NotSupported => (7, [0; 2]),
            RejectReason::Application(number) => (8, [number, 0]),
            RejectReason::Redirected => (9, [0; 2]),
            RejectReason::Other(code) => (code, [0; 2]),
        }
    }

    fn from_numbers(code: u32, parameters: [u32; 2]) -> Result<RejectReason, Violation> {
        let version = |value: u32| {
            u16::try_from(value).map_err(|_| Violation::FieldTooLarge {
                field: "a version in a refusal",
                value: value.into(),
                limit: u16::MAX.into(),
            })
        };
        let used = match code {
            1 => 2,
            2..=7 | 9 => 0,
            8 => 1,
            _ => return Ok(RejectReason::Other(code)),
        };
        for &unused in &parameters[used..] {
            body::check_reserved("a parameter of a refusal", unused)?;
        }
        Ok(match code {
            1 => RejectReason::Version { min: version(parameters[0])?, max: version(parameters[1])? },
            2 => RejectReason::NoResource,
            3 => RejectReason::NotPermitted,
            4 => RejectReason::Busy,
            5 => RejectReason::ShuttingDown,
            6 => RejectReason::UnknownSession,
            7 => RejectReason::NotSupported,
            8 => RejectReason::Application(parameters[0]),
            _ => RejectReason::Redirected,
        })
    }
}

impl fmt::Display for RejectReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RejectReason::Version { min, max } if min == max => {
                write!(f, "it speaks only version {min} of the protocol")
            }
            RejectReason::Version { min, max } => {
                write!(f, "it speaks only versions {min} to {max} of the protocol")
            }
            RejectReason::NoResource => f.write_str("it has no such resource"),
            RejectReason::NotPermitted => f.write_str("this client may not use the resource"),
            RejectReason::Busy => f.write_str("it is at its limit of connections, try again later"),
            RejectReason::ShuttingDown => f.write_str("it is shutting down"),
            RejectReason::UnknownSession => {
                f.write_str("it does not know the session (any more), or the session's key is wrong")
            }
            RejectReason::NotSupported => f.write_str("it can't do what the connection asks for"),
            RejectReason::Redirected => f.write_str("the resource is served elsewhere"),
            RejectReason::Application(number) => write!(f, "its application says no, with number {number}"),
            RejectReason::Other(code) => {
                write!(f, "for a reason that this version does not know, number {code}")
            }
        }
    }
}

/// The server's rejection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub reason: RejectReason,
    /// The uri to try instead, with [`RejectReason::Redirected`]; else empty.
    pub redirect: String,
    /// From the server's application.
    pub private_data: Vec<u8>,
}

/// The fixed part.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RefusalBytes {
    fixed_length: U16,
    reserved: U16,
    code: U32,
    parameters: [U32; 2],
    /// Of the uri that the client shall try instead.
    redirect_length: U16,
    private_data_length: U16,
}

const _: () = assert!(size_of::<RefusalBytes>() == 20);

impl Fixed for RefusalBytes {
    fn length(&self) -> u16 {
        self.fixed_length.get()
    }
}

impl Refusal {
    /// Checks everything that a receiver checks; to be called before a refusal is sent.
    ///
    /// # Errors
    /// The rule that this refusal breaks.
    pub fn validate(&self) -> Result<(), Violation> {
        body::check_length("the redirect", self.redirect.len(), REDIRECT_BYTES_MAX)?;
        body::check_length("the private data", self.private_data.len(), PRIVATE_DATA_BYTES_MAX)?;
        let known = !matches!(self.reason, RejectReason::Other(_));
        if known && (self.reason == RejectReason::Redirected) == self.redirect.is_empty() {
            return Err(Violation::BadRedirect);
        }
        Ok(())
    }

    /// The body's bytes. A receiver refuses them unless [`Refusal::validate`] agrees.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let Refusal { reason, redirect, private_data } = self;
        let (code, parameters) = reason.to_numbers();
        let fixed = RefusalBytes {
            fixed_length: (size_of::<RefusalBytes>() as u16).into(),
            reserved: 0.into(),
            code: code.into(),
            parameters: parameters.map(U32::new),
            redirect_length: body::length_field(redirect.as_bytes()).into(),
            private_data_length: body::length_field(private_data).into(),
        };
        [fixed.as_bytes(), redirect.as_bytes(), private_data].concat()
    }

    /// Decodes and validates a body.
    ///
    /// # Errors
    /// The rule that the bytes break.
    pub fn decode(bytes: &[u8]) -> Result<Refusal, Violation> {
        let (fixed, mut rest) = body::split::<RefusalBytes>(bytes)?;
        body::check_reserved("bytes 2 to 3 of a refusal", fixed.reserved.get().into())?;
        let redirect =
            body::take(&mut rest, "the redirect", fixed.redirect_length.get(), REDIRECT_BYTES_MAX)?;
        let redirect =
            std::str::from_utf8(redirect).map_err(|_| Violation::NotUtf8 { field: "the redirect" })?;
        let private_data = body::take(
            &mut rest,
            "the private data",
            fixed.private_data_length.get(),
            PRIVATE_DATA_BYTES_MAX,
        )?;
        let reason = RejectReason::from_numbers(fixed.code.get(), fixed.parameters.map(U32::get))?;
        let refusal =
            Refusal { reason, redirect: redirect.to_owned(), private_data: private_data.to_owned() };
        refusal.validate()?;
        Ok(refusal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[rustfmt::skip]
    const GOLDEN: [u8; 22] = [
        0x14, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x02, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x02, 0x00, 0x6e, 0x6f,
    ];

    fn refused(at: usize, byte: u8) -> Violation {
        let mut body = GOLDEN;
        body[at] = byte;
        Refusal::decode(&body).unwrap_err()
    }

    #[test]
    fn golden_bytes() {
        let refusal = Refusal {
            reason: RejectReason::Version { min: 1, max: 2 },
            redirect: String::new(),
            private_data: b"no".to_vec(),
        };
        assert_eq!(refusal.encode(), GOLDEN);
        assert_eq!(Refusal::decode(&GOLDEN), Ok(refusal));
    }

    #[test]
    fn every_reason_has_its_number_an_errno_and_a_sentence() {
        for (code, reason, parameters) in [
            (1, RejectReason::Version { min: 3, max: 4 }, [3, 4]),
            (2, RejectReason::NoResource, [0, 0]),
            (3, RejectReason::NotPermitted, [0, 0]),
            (4, RejectReason::Busy, [0, 0]),
            (5, RejectReason::ShuttingDown, [0, 0]),
            (6, RejectReason::UnknownSession, [0, 0]),
            (7, RejectReason::NotSupported, [0, 0]),
            (8, RejectReason::Application(77), [77, 0]),
            (9, RejectReason::Redirected, [0, 0]),
            (10, RejectReason::Other(10), [0, 0]),
        ] {
            assert_eq!(reason.to_numbers(), (code, parameters));
            assert_eq!(RejectReason::from_numbers(code, parameters), Ok(reason));
            assert_ne!(reason.errno(), 0);
            let sentence = reason.to_string();
            assert!(sentence.contains(' ') && !sentence.contains('{'), "{sentence}");
        }
    }

    #[test]
    fn fields_are_checked() {
        for length in 0..GOLDEN.len() {
            assert!(matches!(Refusal::decode(&GOLDEN[..length]), Err(Violation::BodyTooShort { .. })));
        }
        assert_eq!(refused(0, 19), Violation::FixedPartTooShort { length: 19, expected: 20 });
        assert!(matches!(refused(2, 1), Violation::ReservedNotZero { .. }));
        assert!(matches!(refused(4, 2), Violation::ReservedNotZero { .. }), "Busy has no parameters");
        assert!(matches!(refused(10, 1), Violation::FieldTooLarge { value: 65_537, limit: 65_535, .. }));
        assert_eq!(refused(16, 1), Violation::BodyTooShort { length: 1, expected: 2 });
    }

    #[test]
    fn a_redirect_says_where() {
        let refusal = Refusal {
            reason: RejectReason::Redirected,
            redirect: "tcp://other:7/x".to_owned(),
            private_data: b"go".to_vec(),
        };
        assert_eq!(refusal.validate(), Ok(()));
        let body = refusal.encode();
        assert_eq!(body[20..35], *b"tcp://other:7/x");
        assert_eq!(Refusal::decode(&body), Ok(refusal.clone()));
        let nowhere = Refusal { redirect: String::new(), ..refusal.clone() };
        assert_eq!(Refusal::decode(&nowhere.encode()), Err(Violation::BadRedirect));
        let busy = Refusal { reason: RejectReason::Busy, ..refusal.clone() };
        assert_eq!(Refusal::decode(&busy.encode()), Err(Violation::BadRedirect));
        let far = Refusal { redirect: "x".repeat(4097), ..refusal.clone() };
        assert!(matches!(Refusal::decode(&far.encode()), Err(Violation::PartTooLong { .. })));
        let mut garbled = body;
        garbled[22] = 0xFF;
        assert_eq!(Refusal::decode(&garbled), Err(Violation::NotUtf8 { field: "the redirect" }));
    }

    #[test]
    fn a_later_version_may_append_and_have_reasons_of_its_own() {
        let mut body = GOLDEN.to_vec();
        body[4] = 200;
        body.splice(20..20, [0xEE; 9]);
        body[0] += 9;
        body.extend([0xDD; 9]);
        let found = Refusal::decode(&body).unwrap();
        assert_eq!(
            found,
            Refusal {
                reason: RejectReason::Other(200),
                redirect: String::new(),
                private_data: b"no".to_vec()
            }
        );
    }
}
