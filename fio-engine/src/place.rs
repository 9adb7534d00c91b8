//! File names as R-AIO has them: `/HOST/PORT/PATH`.
//!
//! The path begins with the export's name. An IPv6 address may stand in brackets; fio takes a colon for the end of a
//! name, so on its command line each colon is written `\:`.

use crate::error::Error;
use libxio::Uri;
use raio::libxio;

/// Longest path in bytes.
const PATH_BYTES_MAX: usize = 4096;

/// A server as file names give it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Name or address, without brackets.
    pub host: String,
    pub port: u16,
}

/// A file at a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub server: Server,
    /// The path at the server, with its leading slash; it need not be UTF-8.
    pub path: Vec<u8>,
}

impl Place {
    /// Takes a name apart.
    ///
    /// # Errors
    /// [`Error::Name`] with what is wrong with it.
    pub fn parse(name: &[u8]) -> Result<Place, Error> {
        let bad = |reason| Error::Name { name: String::from_utf8_lossy(name).into_owned(), reason };
        let rest = name.strip_prefix(b"/").ok_or_else(|| bad("it does not begin with a slash"))?;
        let (host, rest) = split(rest).ok_or_else(|| bad("nothing follows the host"))?;
        let (port, path) = split(rest).ok_or_else(|| bad("no path follows the port"))?;
        let host = std::str::from_utf8(host).map_err(|_| bad("the host is not text"))?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if host.is_empty() {
            return Err(bad("the host is missing"));
        }
        let port = std::str::from_utf8(port).ok().and_then(|port| port.parse().ok()).filter(|port| *port > 0);
        let port = port.ok_or_else(|| bad("the port is not a number from 1 to 65535"))?;
        if path.is_empty() {
            return Err(bad("the path is missing"));
        }
        if path.len() >= PATH_BYTES_MAX {
            return Err(bad("the path is longer than 4,096 bytes"));
        }
        let path = [b"/", path].concat();
        Ok(Place { server: Server { host: host.to_owned(), port }, path })
    }

    /// The path for messages.
    pub fn display(&self) -> String {
        String::from_utf8_lossy(&self.path).into_owned()
    }
}

impl Server {
    /// Where to connect to.
    pub fn uri(&self, scheme: &str) -> Uri {
        Uri::new(scheme, &self.host, Some(self.port), "/")
    }
}

/// What stands before the next slash, and after it.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().position(|byte| *byte == b'/')?;
    Some((&bytes[..at], &bytes[at + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(name: &str) -> (String, u16, String) {
        let place = Place::parse(name.as_bytes()).unwrap();
        let path = place.display();
        (place.server.host, place.server.port, path)
    }

    #[test]
    fn names_are_host_port_and_path() {
        for (name, host, port, path) in [
            ("/127.0.0.1/5555/data/x", "127.0.0.1", 5555, "/data/x"),
            ("/storage.example/1/srv/data/a b", "storage.example", 1, "/srv/data/a b"),
            ("/[::1]/65535/null", "::1", 65535, "/null"),
            ("/::1/7/dev/null", "::1", 7, "/dev/null"),
            ("/h/7/deep/er/x:y", "h", 7, "/deep/er/x:y"),
        ] {
            assert_eq!(parsed(name), (host.to_owned(), port, path.to_owned()), "{name}");
        }
    }

    #[test]
    fn an_address_in_brackets_goes_into_the_uri() {
        let place = Place::parse(b"/[::1]/5555/data/x").unwrap();
        assert_eq!(place.server.uri("tcp").to_string(), "tcp://[::1]:5555/");
    }

    #[test]
    fn what_is_not_such_a_name_is_refused_with_the_reason() {
        for (name, part) in [
            ("data/x", "slash"),
            ("/host", "host"),
            ("/host/5555", "port"),
            ("/host/5555/", "path"),
            ("//5555/x", "host"),
            ("/[]/5555/x", "host"),
            ("/host/0/x", "65535"),
            ("/host/65536/x", "65535"),
            ("/tmp/file/x", "65535"),
            ("", "slash"),
        ] {
            let error = Place::parse(name.as_bytes()).unwrap_err();
            assert!(error.to_string().contains(part), "{name}: {error}");
        }
        let long = [b"/h/1/".as_slice(), &[b'a'; 5000]].concat();
        assert!(Place::parse(&long).unwrap_err().to_string().contains("4,096"));
    }
}
