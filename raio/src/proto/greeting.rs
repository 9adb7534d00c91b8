//! Which version of the file protocol a connection speaks: the private data of hello and welcome.

use super::{Invalid, VERSION, VERSION_MIN};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of a greeting.
pub const GREETING_BYTES: usize = 32;

const MAGIC: [u8; 4] = *b"RAIO";

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Wire {
    magic: [u8; 4],
    version_min: U16,
    version_max: U16,
    features: U64,
    io_bytes_max: U32,
    reserved: [u8; 12],
}

const _: () = assert!(size_of::<Wire>() == GREETING_BYTES);

/// Most portals that a server names, and most bytes of one: what is beyond is left out, or not looked at.
const PORTALS_MAX: usize = 8;
const PORTAL_BYTES_MAX: usize = 512;

/// A server's other addresses as they follow its greeting: for each its length (u16) and its uri.
#[must_use]
pub fn encode_portals<'a>(uris: impl IntoIterator<Item = &'a str>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for uri in uris.into_iter().filter(|uri| uri.len() <= PORTAL_BYTES_MAX).take(PORTALS_MAX) {
        // At most PORTAL_BYTES_MAX.
        bytes.extend((uri.len() as u16).to_le_bytes());
        bytes.extend(uri.as_bytes());
    }
    bytes
}

/// The addresses after a server's greeting; what can't be understood ends the list.
#[must_use]
pub fn decode_portals(private_data: &[u8]) -> Vec<String> {
    let mut rest = private_data.get(GREETING_BYTES..).unwrap_or_default();
    let mut uris = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk::<2>()
        && uris.len() < PORTALS_MAX
    {
        let length = usize::from(u16::from_le_bytes(*length));
        let Some((uri, after)) = after.split_at_checked(length) else { break };
        let Ok(uri) = std::str::from_utf8(uri) else { break };
        if length > PORTAL_BYTES_MAX {
            break;
        }
        uris.push(uri.to_owned());
        rest = after;
    }
    uris
}

/// The client's says what it speaks, the server's what is spoken from now on (`version_min == version_max`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Greeting {
    /// Oldest version.
    pub version_min: u16,
    /// Newest version.
    pub version_max: u16,
    /// Feature bits; none are defined. A side sends the ones that it offers (client) or agrees to (server), and
    /// ignores those that it does not know.
    pub features: u64,
    /// Greatest length of one read or write in bytes (server), 0 (client).
    pub io_bytes_max: u32,
}

impl Greeting {
    /// The client's greeting.
    #[must_use]
    pub fn client() -> Greeting {
        Greeting { version_min: VERSION_MIN, version_max: VERSION, features: 0, io_bytes_max: 0 }
    }

    /// The server's reply to a client's greeting: the newest version that both speak.
    ///
    /// # Errors
    /// [`Invalid::Version`] where there is none.
    pub fn reply(client: &Greeting, io_bytes_max: u32) -> Result<Greeting, Invalid> {
        let version = VERSION.min(client.version_max);
        if version < VERSION_MIN.max(client.version_min) {
            return Err(Invalid::Version { min: client.version_min, max: client.version_max });
        }
        Ok(Greeting { version_min: version, version_max: version, features: 0, io_bytes_max })
    }

    /// The bytes on the wire.
    #[must_use]
    pub fn encode(&self) -> [u8; GREETING_BYTES] {
        let Greeting { version_min, version_max, features, io_bytes_max } = *self;
        zerocopy::transmute!(Wire {
            magic: MAGIC,
            version_min: version_min.into(),
            version_max: version_max.into(),
            features: features.into(),
            io_bytes_max: io_bytes_max.into(),
            reserved: [0; 12],
        })
    }

    /// Decodes; bytes beyond those known here are left to later versions.
    ///
    /// # Errors
    /// [`Invalid::NotRaio`], or [`Invalid::Version`] where nothing between min and max is spoken here.
    pub fn decode(bytes: &[u8]) -> Result<Greeting, Invalid> {
        let (wire, _) = Wire::ref_from_prefix(bytes).map_err(|_| Invalid::NotRaio)?;
        if wire.magic != MAGIC {
            return Err(Invalid::NotRaio);
        }
        let (min, max) = (wire.version_min.get(), wire.version_max.get());
        if min > max || max < VERSION_MIN || min > VERSION {
            return Err(Invalid::Version { min, max });
        }
        Ok(Greeting {
            version_min: min,
            version_max: max,
            features: wire.features.get(),
            io_bytes_max: wire.io_bytes_max.get(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes_there_and_back() {
        let greeting = Greeting { version_min: 1, version_max: 1, features: 0, io_bytes_max: 4 << 20 };
        let golden = [&b"RAIO\x01\0\x01\0"[..], &[0; 8], &[0, 0, 0x40, 0], &[0; 12]].concat();
        assert_eq!(greeting.encode()[..], golden[..]);
        assert_eq!(Greeting::decode(&golden), Ok(greeting));
        assert_eq!(Greeting::reply(&Greeting::client(), 4 << 20), Ok(greeting));
    }

    #[test]
    fn strangers_and_other_versions_are_told_apart() {
        assert_eq!(Greeting::decode(b""), Err(Invalid::NotRaio));
        assert_eq!(Greeting::decode(&[0; GREETING_BYTES]), Err(Invalid::NotRaio));
        let future =
            Greeting { version_min: VERSION + 1, version_max: VERSION + 2, features: 0, io_bytes_max: 0 };
        let refused = Err(Invalid::Version { min: VERSION + 1, max: VERSION + 2 });
        assert_eq!(Greeting::decode(&future.encode()), refused);
        assert_eq!(Greeting::reply(&future, 1), refused);
        let newer = Greeting { version_max: VERSION + 5, ..Greeting::client() };
        assert_eq!(Greeting::reply(&newer, 1).map(|reply| reply.version_max), Ok(VERSION));
    }

    #[test]
    fn portals_follow_the_greeting() {
        let uris = ["shm:///?socket=/run/raio.sock", "tcp://10.0.0.1:5555/"];
        let bytes = [&Greeting::client().encode()[..], &encode_portals(uris)].concat();
        assert_eq!(bytes[32..34], [29, 0]);
        assert_eq!(decode_portals(&bytes), uris);
        assert!(Greeting::decode(&bytes).is_ok());
        for length in 0..bytes.len() {
            assert!(decode_portals(&bytes[..length]).len() < 2);
        }
        let long = "x".repeat(PORTAL_BYTES_MAX + 1);
        assert!(encode_portals([long.as_str()]).is_empty());
        assert_eq!(decode_portals(&[&[0; 32][..], &[0xff; 3000]].concat()), [""; 0]);
        assert_eq!(encode_portals(["y"; 20]).len(), 8 * 3);
    }
}
