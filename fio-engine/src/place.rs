//! File names as R-AIO has them: `/HOST/PORT/PATH`; for a server that is reached by its socket the uri
//! `shm:///PATH?socket=SOCKET`, or, where the job's option `socket` names the socket, the path alone.
//!
//! The path begins with the export's name. An IPv6 address may stand in brackets; fio takes a colon for the end of a
//! name, so on its command line each colon of `filename=` is written `\:`.

use crate::error::Error;
use libxio::Uri;
use raio::libxio;

/// Longest path in bytes.
const PATH_BYTES_MAX: usize = 4096;

/// A server as file names give it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Server {
    /// By the network.
    Host {
        /// Name or address, without brackets.
        host: String,
        port: u16,
    },
    /// By its socket for shared memory, on this host.
    Socket(String),
}

/// A file at a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub server: Server,
    /// The path at the server, with its leading slash; it need not be UTF-8.
    pub path: Vec<u8>,
}

impl Place {
    /// Takes a name apart. `socket` is what the job's option of this name says: then names are paths.
    ///
    /// # Errors
    /// [`Error::Name`] with what is wrong with it.
    pub fn parse(name: &[u8], socket: Option<&str>) -> Result<Place, Error> {
        let bad = |reason| Error::Name { name: String::from_utf8_lossy(name).into_owned(), reason };
        let (server, path) = match (uri_of(name), socket) {
            (Some(uri), _) => by_uri(&uri).map_err(bad)?,
            (None, Some(socket)) => (Server::Socket(socket.to_owned()), by_path(name).map_err(bad)?),
            (None, None) => by_host(name).map_err(bad)?,
        };
        if path.len() > PATH_BYTES_MAX {
            return Err(bad("the path is longer than 4,096 bytes"));
        }
        Ok(Place { server, path })
    }

    /// The path for messages.
    pub fn display(&self) -> String {
        String::from_utf8_lossy(&self.path).into_owned()
    }
}

impl Server {
    /// Where to connect to.
    pub fn uri(&self, scheme: &str) -> Uri {
        match self {
            Server::Host { host, port } => Uri::new(scheme, host, Some(*port), "/"),
            Server::Socket(socket) => Uri::new("shm", "", None, "/").with_query("socket", socket),
        }
    }
}

/// The name as a uri, if it is one. `filename=` has lost the backslash before its colon when it comes here,
/// `filename_format=` has not.
fn uri_of(name: &[u8]) -> Option<String> {
    let rest = name.strip_prefix(b"shm://").or_else(|| name.strip_prefix(br"shm\://"))?;
    Some(format!("shm://{}", String::from_utf8_lossy(rest)))
}

/// `shm:///PATH?socket=SOCKET`.
fn by_uri(uri: &str) -> Result<(Server, Vec<u8>), &'static str> {
    let uri: Uri = uri.parse().map_err(|_| "it is no uri")?;
    let socket = uri.query("socket").filter(|socket| !socket.is_empty());
    let socket = socket.ok_or("the socket is missing: shm:///PATH?socket=SOCKET")?;
    if !uri.host().is_empty() {
        return Err("after shm: come three slashes");
    }
    Ok((Server::Socket(socket.to_owned()), by_path(uri.resource().as_bytes())?))
}

/// The path alone.
fn by_path(name: &[u8]) -> Result<Vec<u8>, &'static str> {
    match name {
        [b'/', _, ..] => Ok(name.to_vec()),
        [b'/'] => Err("the path is missing"),
        _ => Err("the path does not begin with a slash"),
    }
}

/// `/HOST/PORT/PATH`.
fn by_host(name: &[u8]) -> Result<(Server, Vec<u8>), &'static str> {
    let rest = name.strip_prefix(b"/").ok_or("it does not begin with a slash")?;
    let (host, rest) = split(rest).ok_or("nothing follows the host")?;
    let (port, path) = split(rest).ok_or("no path follows the port")?;
    let host = std::str::from_utf8(host).map_err(|_| "the host is not text")?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if host.is_empty() {
        return Err("the host is missing");
    }
    let port = std::str::from_utf8(port).ok().and_then(|port| port.parse().ok()).filter(|port| *port > 0);
    let port = port.ok_or("the port is not a number from 1 to 65535")?;
    if path.is_empty() {
        return Err("the path is missing");
    }
    Ok((Server::Host { host: host.to_owned(), port }, [b"/", path].concat()))
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
        let place = Place::parse(name.as_bytes(), None).unwrap();
        let path = place.display();
        let Server::Host { host, port } = place.server else { panic!("{name}") };
        (host, port, path)
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
        let place = Place::parse(b"/[::1]/5555/data/x", None).unwrap();
        assert_eq!(place.server.uri("tcp").to_string(), "tcp://[::1]:5555/");
    }

    #[test]
    fn a_socket_is_named_by_a_uri_or_by_the_option() {
        for (name, socket, path) in [
            ("shm:///data?socket=/run/x.sock", "/run/x.sock", "/data"),
            ("shm:///data/a%20b?socket=run/x.sock", "run/x.sock", "/data/a b"),
            (r"shm\:///data/x.0?socket=/run/x.sock", "/run/x.sock", "/data/x.0"),
        ] {
            let place = Place::parse(name.as_bytes(), None).unwrap();
            assert_eq!(place.server, Server::Socket(socket.to_owned()), "{name}");
            assert_eq!(place.display(), path, "{name}");
            assert_eq!(place.server.uri("raio").query("socket"), Some(socket));
        }
        let place = Place::parse(b"/data/1/x", Some("/run/x.sock")).unwrap();
        assert_eq!(place.server, Server::Socket("/run/x.sock".to_owned()));
        assert_eq!(place.display(), "/data/1/x");
        let own = Place::parse(b"shm:///data?socket=/own", Some("/run/x.sock")).unwrap();
        assert_eq!(own.server, Server::Socket("/own".to_owned()));
        for (name, socket, part) in [
            ("shm:///data", None, "socket"),
            ("shm:///data?socket=", None, "socket"),
            ("shm://data/x?socket=/x", None, "slashes"),
            ("shm:///?socket=/x", None, "path"),
            ("shm:///%zz?socket=/x", None, "uri"),
            ("data/x", Some("/x"), "slash"),
            ("/", Some("/x"), "path"),
        ] {
            let error = Place::parse(name.as_bytes(), socket).unwrap_err();
            assert!(error.to_string().contains(part), "{name}: {error}");
        }
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
            let error = Place::parse(name.as_bytes(), None).unwrap_err();
            assert!(error.to_string().contains(part), "{name}: {error}");
        }
        let long = [b"/h/1/".as_slice(), &[b'a'; 5000]].concat();
        assert!(Place::parse(&long, None).unwrap_err().to_string().contains("4,096"));
    }
}
