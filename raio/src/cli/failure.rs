//! What went wrong, as a line for people, advice, and an exit code.

use super::{place, say};
use libxio::Uri;
use raio::{Client, ClientOptions, Error, describe_errno};
use std::io;
use std::process::ExitCode;
use std::time::Duration;

/// A command's end that is not success.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The arguments make no sense. Exit code 2.
    Usage { text: String, advice: Option<String> },
    /// The library failed, with the uri that was worked on. Exit code 3 for the connection, else 1.
    Remote { error: Error, uri: Option<Box<Uri>> },
    /// Something else failed: what, where, why. Exit code 1.
    Other { what: &'static str, place: String, why: String, advice: Option<String> },
    /// Nobody reads the output any more: not worth a word.
    OutputClosed,
}

impl Failure {
    /// The arguments make no sense.
    pub(crate) fn usage(text: impl Into<String>, advice: Option<String>) -> Failure {
        Failure::Usage { text: text.into(), advice }
    }

    /// An operation on this machine failed.
    pub(crate) fn local(what: &'static str, place: impl ToString, cause: &io::Error) -> Failure {
        let why = cause.raw_os_error().map_or_else(|| cause.to_string(), describe_errno);
        Failure::Other { what, place: place.to_string(), why, advice: None }
    }

    /// For `map_err`: an operation on the server of a uri failed.
    pub(crate) fn at(uri: &Uri) -> impl Fn(Error) -> Failure + use<> {
        let uri = Box::new(uri.clone());
        move |error| Failure::Remote { error, uri: Some(uri.clone()) }
    }

    /// RDMA can't be used here; the error says what is missing.
    pub(crate) fn no_rdma(error: libxio::Error) -> Failure {
        Failure::Other {
            what: "list devices",
            place: "this machine".into(),
            why: error.to_string(),
            advice: None,
        }
    }

    /// Standard output failed.
    pub(crate) fn output(cause: io::Error) -> Failure {
        if cause.kind() == io::ErrorKind::BrokenPipe {
            Failure::OutputClosed
        } else {
            Failure::local("write", "standard output", &cause)
        }
    }

    /// Prints it, and says the exit code.
    pub(crate) fn report(self, options: &ClientOptions) -> ExitCode {
        let (text, advice, code) = match self {
            Failure::OutputClosed => return ExitCode::SUCCESS,
            Failure::Usage { text, advice } => (text, advice, 2),
            Failure::Other { what, place, why, advice } => (format!("{what}: {place}: {why}"), advice, 1),
            Failure::Remote { error: error @ Error::Uri { .. }, .. } => (error.to_string(), None, 2),
            Failure::Remote { error, uri } => {
                let advice = uri.as_ref().and_then(|uri| advise(&error, uri, options));
                (error.to_string(), advice, if error.is_connection() { 3 } else { 1 })
            }
        };
        eprintln!("raio: {text}");
        if let Some(advice) = advice {
            eprintln!("      {advice}");
        }
        ExitCode::from(code)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Remote { error, uri: None }
    }
}

/// What to do about common mistakes.
fn advise(error: &Error, uri: &Uri, options: &ClientOptions) -> Option<String> {
    let socket = if uri.scheme() == "shm" { uri.query("socket") } else { None };
    let server = match socket {
        Some(socket) => format!("shm://{socket}"),
        None => format!("{}:{}", uri.host(), uri.port()),
    };
    match (error, error.errno()) {
        (Error::Connect { cause: libxio::Error::Rejected { .. }, .. }, _) => None,
        (Error::Connect { .. }, libc::ENOENT | libc::ECONNREFUSED) if socket.is_some() => Some(format!(
            "no server listens at that socket: is it running, and is that its path? To start one:\n      \
             raio-server --export data=/srv/data --listen {server}"
        )),
        (Error::Connect { .. }, libc::EACCES) if socket.is_some() => Some(format!(
            "only the server's own user and root come in: to let others in, start it with --listen {server}?allow=UID"
        )),
        (Error::Connect { .. }, libc::ENOBUFS) if socket.is_some() => Some(
            "the server maps as much of its clients' memory as it may (raio-server --shared-memory-total): try again \
             when others have gone, or connect by TCP"
                .to_owned(),
        ),
        (Error::Connect { .. }, libc::ECONNREFUSED) => Some(format!(
            "nothing listens at {server}: is the server running, and is that its port? To start one:\n      \
             raio-server --export data=/srv/data --listen tcp://{server}"
        )),
        (Error::Connect { .. }, libc::ETIMEDOUT) => Some(format!(
            "check the address and firewalls, and that it is a raio-server that listens at {server}"
        )),
        (Error::Connect { .. }, libc::EHOSTUNREACH | libc::ENETUNREACH | libc::EADDRNOTAVAIL) => {
            Some("check the host's name or address".to_owned())
        }
        (Error::Connect { .. } | Error::Incompatible { .. }, _) => {
            Some(format!("check that it is a raio-server, of a version that fits, that listens at {server}"))
        }
        (Error::Operation { .. }, libc::ENOENT) => known_exports(uri, options),
        (Error::Operation { .. }, libc::EROFS) => {
            Some("the export is read-only: see raio info for the others".to_owned())
        }
        (Error::Operation { .. }, libc::EISDIR) => Some("it is a directory: raio ls lists it".to_owned()),
        (Error::Operation { .. }, libc::EXDEV) => Some(
            "the path leads out of its export (by .. or a symbolic link), or the two names are in different exports"
                .to_owned(),
        ),
        (Error::Operation { .. }, libc::EACCES | libc::EPERM) => {
            Some("the user that the server runs as may not do this".to_owned())
        }
        (Error::Operation { .. }, libc::ENOSPC | libc::EDQUOT) => {
            Some("the file system of the export is full".to_owned())
        }
        _ => None,
    }
}

/// The exports there are, where the path is beneath none of them.
fn known_exports(uri: &Uri, options: &ClientOptions) -> Option<String> {
    // Advice must not take as long as the work.
    let second = Duration::from_secs(1);
    let options = ClientOptions { connect_timeout: second, keepalive: second, ..options.clone() };
    let info = Client::connect_with(uri, &options).ok()?.info().ok()?;
    let path = uri.resource().as_bytes();
    let beneath = |export: &[u8]| {
        path.strip_prefix(export)
            .is_some_and(|rest| rest.is_empty() || rest[0] == b'/' || export.ends_with(b"/"))
    };
    if info.exports.iter().any(|export| beneath(&export.path)) {
        return None;
    }
    if info.exports.is_empty() {
        return Some("the server has no exports: start it with --export NAME=PATH".to_owned());
    }
    let names: Vec<_> = info.exports.iter().map(|export| say::name(&export.path)).collect();
    Some(format!("no such export; the server has {}", names.join(", ")))
}

/// Connects, with the advice that belongs to it.
pub(crate) fn connect(text: &str, options: &ClientOptions) -> Result<(Uri, Client), Failure> {
    let uri = place::remote(text)?;
    let client = Client::connect_with(&uri, options).map_err(Failure::at(&uri))?;
    Ok((uri, client))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_about_a_socket_names_it() {
        let uri: Uri = "shm:///data?socket=/run/raio.sock".parse().unwrap();
        let advice = |errno| {
            let cause = libxio::Error::ConnectFailed { address: "shm:/run/raio.sock".to_owned(), errno };
            let error = Error::Connect { uri: uri.to_string().into(), cause };
            advise(&error, &uri, &ClientOptions::default()).unwrap()
        };
        assert!(advice(libc::ENOENT).contains("--listen shm:///run/raio.sock"));
        assert!(advice(libc::ECONNREFUSED).contains("is it running"));
        assert!(advice(libc::EACCES).contains("/run/raio.sock?allow=UID"));
        assert!(advice(libc::ENOBUFS).contains("--shared-memory-total"));
    }
}
