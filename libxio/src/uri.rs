//! Uniform resource identifiers: `tcp://host:port/resource`, `shm:///resource?socket=/run/raio.sock`.
//!
//! Syntax after RFC 3986; `%XX` is decoded in the resource. An IPv6 host stands in brackets.

use crate::{Error, Result};
use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;

/// Where a resource lives and how to reach it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Uri {
    scheme: String,
    host: String,
    port: Option<u16>,
    resource: String,
    query: Vec<(String, String)>,
}

/// The port that a uri without one means.
pub const DEFAULT_PORT: u16 = 5555;

/// Longest uri accepted, in bytes: a 4,096-byte path, every byte percent-encoded, and a host name.
pub const URI_LEN_MAX: usize = 3 * 4096 + 512;

impl Uri {
    /// A `tcp` uri for a socket address and a resource (its leading `/` may be left out).
    #[must_use]
    pub fn tcp(address: SocketAddr, resource: &str) -> Self {
        Uri::new("tcp", &address.ip().to_string(), Some(address.port()), resource)
    }

    /// A uri from its parts; `host` without brackets, `resource` not encoded.
    #[must_use]
    pub fn new(scheme: &str, host: &str, port: Option<u16>, resource: &str) -> Self {
        let resource = if resource.starts_with('/') { resource.to_owned() } else { format!("/{resource}") };
        Uri { scheme: scheme.to_owned(), host: host.to_owned(), port, resource, query: Vec::new() }
    }

    /// The transport: `tcp`, `shm`, `rdma`, `raio`, or one that the application added.
    #[must_use]
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// The host, without the brackets of an IPv6 address; empty for local transports.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, [`DEFAULT_PORT`] where none was given.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(DEFAULT_PORT)
    }

    /// The resource, decoded, with its leading `/`.
    #[must_use]
    pub fn resource(&self) -> &str {
        &self.resource
    }

    /// The value of a query parameter.
    #[must_use]
    pub fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The same place with one more query parameter.
    #[must_use]
    pub fn with_query(mut self, name: &str, value: &str) -> Self {
        self.query.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The same place with another resource.
    #[must_use]
    pub fn with_resource(&self, resource: &str) -> Self {
        let mut other = Uri::new(&self.scheme, &self.host, self.port, resource);
        other.query.clone_from(&self.query);
        other
    }

    /// The same uri with this address, as it was found by listening.
    #[cfg(feature = "rdma")]
    pub(crate) fn with_address(&self, address: SocketAddr) -> Self {
        Uri { host: address.ip().to_string(), port: Some(address.port()), ..self.clone() }
    }

    /// The same place by another transport.
    #[must_use]
    pub fn with_scheme(&self, scheme: &str) -> Self {
        Uri { scheme: scheme.to_owned(), ..self.clone() }
    }

    /// The socket addresses behind host and port, by the system's resolver (this call may block on DNS).
    ///
    /// # Errors
    /// [`Error::ConnectFailed`] where the name has no address.
    pub fn socket_addresses(&self) -> Result<Vec<SocketAddr>> {
        let failed =
            |errno| Error::ConnectFailed { address: format!("{}:{}", self.host, self.port()), errno };
        let found: Vec<_> = (self.host.as_str(), self.port())
            .to_socket_addrs()
            .map_err(|cause| match cause.raw_os_error() {
                Some(errno) => failed(errno),
                None => Error::System {
                    what: format!("no address for host {:?}", self.host),
                    errno: libc::EHOSTUNREACH,
                },
            })?
            .collect();
        if found.is_empty() { Err(failed(libc::EADDRNOTAVAIL)) } else { Ok(found) }
    }
}

impl FromStr for Uri {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = |reason| Error::BadUri { uri: text.chars().take(200).collect(), reason };
        if text.len() > URI_LEN_MAX {
            return Err(bad("it is longer than any path can make it"));
        }
        let (scheme, rest) =
            text.split_once("://").ok_or_else(|| bad("expected scheme://host:port/resource"))?;
        let scheme_fits = scheme.bytes().next().is_some_and(|first| first.is_ascii_lowercase())
            && scheme.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        if !scheme_fits {
            return Err(bad("the scheme is made of lower-case letters and digits"));
        }
        let (authority, path_and_query) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, "/"),
        };
        let (path, query_text) = path_and_query.split_once('?').unwrap_or((path_and_query, ""));
        let (host, port) = split_authority(authority).map_err(bad)?;
        let resource = decode(path).ok_or_else(|| {
            bad("a % needs two hexadecimal digits after it, and \
             the decoded resource must be UTF-8 without NUL")
        })?;
        let mut query = Vec::new();
        for pair in query_text.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decode(value).ok_or_else(|| bad("the query is not well encoded"))?;
            query.push((key.to_owned(), value));
        }
        Ok(Uri { scheme: scheme.to_owned(), host, port, resource, query })
    }
}

fn split_authority(authority: &str) -> std::result::Result<(String, Option<u16>), &'static str> {
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or("an IPv6 host needs a closing bracket")?;
        match rest.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None if rest.is_empty() => (host, None),
            None => return Err("after the bracket comes :port"),
        }
    } else {
        match authority.split_once(':') {
            Some((_, port)) if port.contains(':') => return Err("an IPv6 host stands in brackets"),
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        }
    };
    if host.chars().any(|found| found.is_whitespace() || found.is_control() || "[]?#@".contains(found)) {
        return Err("the host has a character that no host has");
    }
    let port = match port {
        Some(digits) if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some(digits.parse().map_err(|_| "the port is above 65535")?)
        }
        Some(_) => return Err("the port is a number from 0 to 65535"),
        None => None,
    };
    Ok((host.to_owned(), port))
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let high = char::from(rest.next()?).to_digit(16)?;
        let low = char::from(rest.next()?).to_digit(16)?;
        bytes.push(u8::try_from(high * 16 + low).ok()?);
    }
    if bytes.contains(&0) { None } else { String::from_utf8(bytes).ok() }
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.scheme)?;
        if self.host.contains(':') {
            write!(f, "[{}]", self.host)?;
        } else {
            f.write_str(&self.host)?;
        }
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        encode(&self.resource, f)?;
        for (index, (key, value)) in self.query.iter().enumerate() {
            write!(f, "{}{key}=", if index == 0 { '?' } else { '&' })?;
            encode(value, f)?;
        }
        Ok(())
    }
}

fn encode(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~:@+,=".contains(&byte) {
            write!(f, "{}", char::from(byte))?;
        } else {
            write!(f, "%{byte:02X}")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_hosts() {
        for host in ["[[1]", "a]", "[a]b", "a b", "a?b", "user@host", "a\u{7}"] {
            let uri = format!("tcp://{host}/e");
            assert!(matches!(uri.parse::<Uri>(), Err(Error::BadUri { .. })), "{uri:?}");
        }
    }

    #[test]
    fn parts_are_found_and_printed_back() {
        for (text, scheme, host, port, resource) in [
            ("tcp://127.0.0.1:5555/data/big.img", "tcp", "127.0.0.1", 5555, "/data/big.img"),
            ("raio://[::1]:80/", "raio", "::1", 80, "/"),
            ("shm:///export/x?socket=/run/raio.sock", "shm", "", DEFAULT_PORT, "/export/x"),
            ("tcp://host:0/a%20b%25", "tcp", "host", 0, "/a b%"),
        ] {
            let uri: Uri = text.parse().unwrap();
            assert_eq!(
                (uri.scheme(), uri.host(), uri.port(), uri.resource()),
                (scheme, host, port, resource)
            );
            assert_eq!(uri.to_string(), text);
            assert_eq!(uri.to_string().parse::<Uri>().unwrap(), uri);
        }
        let uri: Uri = "shm:///x?socket=/run/raio.sock".parse().unwrap();
        assert_eq!(uri.query("socket"), Some("/run/raio.sock"));
        assert_eq!(uri.query("other"), None);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for text in [
            "",
            "data",
            "tcp:/x",
            "://h:1/",
            "TCP://h:1/",
            "tcp://h:x/",
            "tcp://h:/",
            "tcp://h:70000/",
            "tcp://::1:5/",
            "tcp://[::1/",
            "tcp://[::1]x/",
            "tcp://h:1/%",
            "tcp://h:1/%zz",
            "tcp://h:1/%00",
            "tcp://h:1/%ff",
            "tcp://h:+5/",
        ] {
            assert!(matches!(text.parse::<Uri>(), Err(Error::BadUri { .. })), "{text}");
        }
        assert!(format!("tcp://h:1/{}", "a".repeat(URI_LEN_MAX)).parse::<Uri>().is_err());
    }
}
