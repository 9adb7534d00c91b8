//! The transports that are measured, as data: adding one is a line.

use super::place::Place;

/// A transport of ours.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Transport {
    pub(crate) name: &'static str,
    /// What a server listens at; `FOLDER` stands for the results' folder.
    listen: &'static str,
}

/// All there are.
pub(crate) const TRANSPORTS: &[Transport] = &[
    Transport { name: "tcp", listen: "tcp://127.0.0.1:0" },
    Transport { name: "shm", listen: "shm:///?socket=FOLDER/shm.sock" },
];

impl Transport {
    /// What the server is told to listen at.
    pub(crate) fn listen(&self, place: &Place) -> String {
        self.listen.replace("FOLDER", &place.folder.display().to_string())
    }

    /// A file's uri: the server's, or the one that names the same socket, with the path in its place before the
    /// parameters.
    pub(crate) fn with_path(&self, uri: &str, path: &str) -> String {
        let (base, parameters) = uri.split_at(uri.find('?').unwrap_or(uri.len()));
        let (scheme, address) = base.split_once("://").unwrap_or(("tcp", base));
        if scheme == "shm" && parameters.is_empty() {
            return format!("shm://{path}?socket={address}");
        }
        format!("{scheme}://{}{path}{parameters}", address.trim_end_matches('/'))
    }

    /// How fio names the file.
    pub(crate) fn fio_options(&self, uri: &str, path: &str) -> Vec<String> {
        let address = uri.split("://").nth(1).unwrap_or_default().trim_end_matches('/');
        if self.name == "shm" {
            let (place, parameters) = address.split_once('?').unwrap_or((address, ""));
            let socket = parameters.split('&').find_map(|parameter| parameter.strip_prefix("socket="));
            return vec![format!("--socket={}", socket.unwrap_or(place)), format!("--filename={path}")];
        }
        match address.rsplit_once(':') {
            Some((host, port)) => vec![format!("--filename=/{host}/{port}{path}")],
            None => vec![format!("--filename=/{address}{path}")],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_and_names() {
        let [tcp, shm] = TRANSPORTS else { panic!() };
        assert_eq!(tcp.with_path("tcp://127.0.0.1:7/", "/null"), "tcp://127.0.0.1:7/null");
        assert_eq!(shm.with_path("shm:///?socket=/x/y.sock", "/null"), "shm:///null?socket=/x/y.sock");
        assert_eq!(shm.with_path("shm:///x/y.sock", "/null"), "shm:///null?socket=/x/y.sock");
        assert_eq!(tcp.fio_options("tcp://127.0.0.1:7", "/null"), ["--filename=/127.0.0.1/7/null"]);
        for uri in ["shm:///?socket=/x/y.sock", "shm:///x/y.sock"] {
            assert_eq!(shm.fio_options(uri, "/null"), ["--socket=/x/y.sock", "--filename=/null"]);
        }
    }
}
