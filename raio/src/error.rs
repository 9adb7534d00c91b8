//! The one error type of this crate. An error says what was attempted, where, and why it failed; [`Error::errno`]
//! gives the number for callers that speak errno.

use crate::proto::{Invalid, Op};
use std::fmt;
use std::io;
use std::sync::Arc;

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, and on whose side. It is displayed as `what: where: why`.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Error {
    // ---- the caller ----
    /// The uri can't be understood, or names a transport that this build does not have.
    Uri {
        /// The uri as given.
        uri: Arc<str>,
        /// What is wrong with it.
        cause: libxio::Error,
    },
    /// The operation can't be asked for like this.
    Invalid {
        /// The operation.
        op: Op,
        /// Which rule it breaks.
        reason: Invalid,
    },
    /// A length above a limit.
    Limit {
        /// The quantity, with its unit.
        what: &'static str,
        /// What was asked for.
        value: u64,
        /// The greatest value allowed.
        limit: u64,
    },
    /// More requests are outstanding than the queue's depth: take completions first.
    QueueFull {
        /// The depth.
        depth: usize,
    },
    /// The file ended before the bytes that were asked for.
    UnexpectedEnd {
        /// The file.
        path: Arc<str>,
        /// Where its end was found, in bytes.
        offset: u64,
    },

    // ---- the server's files ----
    /// The server could not do it.
    Operation {
        /// What.
        op: Op,
        /// To which file, where that is known.
        path: Option<Arc<str>>,
        /// Why, in Linux numbering.
        errno: i32,
    },

    // ---- this machine, the network, the server ----
    /// The connection could not be made.
    Connect {
        /// Where to.
        uri: Arc<str>,
        /// Why not.
        cause: libxio::Error,
    },
    /// What answers there does not speak this protocol, or no common version of it.
    Incompatible {
        /// Where.
        uri: Arc<str>,
        /// How that showed.
        reason: Invalid,
    },
    /// The connection is gone. Writes without an answer may have been done or not.
    Lost {
        /// The server.
        uri: Arc<str>,
        /// Why.
        cause: libxio::Error,
    },
    /// The server's answer breaks the protocol; the connection was given up.
    Protocol {
        /// The server.
        uri: Arc<str>,
        /// Which rule.
        reason: Invalid,
    },
    /// This machine lacks something: io_uring, memory.
    Local(libxio::Error),
}

impl Error {
    /// The errno that describes it best. A lost connection is ETIMEDOUT where the server fell silent, else ECONNRESET.
    #[must_use]
    pub fn errno(&self) -> i32 {
        match self {
            Error::Uri { cause, .. } | Error::Connect { cause, .. } | Error::Local(cause) => cause.errno(),
            Error::Invalid { reason, .. } | Error::Incompatible { reason, .. } => reason.errno(),
            Error::Limit { .. } => libc::EINVAL,
            Error::QueueFull { .. } => libc::EAGAIN,
            Error::UnexpectedEnd { .. } => libc::EIO,
            Error::Operation { errno, .. } => *errno,
            Error::Lost { cause, .. } if cause.errno() == libc::ETIMEDOUT => libc::ETIMEDOUT,
            Error::Lost { .. } | Error::Protocol { .. } => libc::ECONNRESET,
        }
    }

    /// Whether the connection could not be made or is gone, so that nothing more can be done on it.
    #[must_use]
    pub fn is_connection(&self) -> bool {
        matches!(
            self,
            Error::Connect { .. } | Error::Incompatible { .. } | Error::Lost { .. } | Error::Protocol { .. }
        )
    }

    /// What was attempted, in a word or two.
    #[must_use]
    pub fn what(&self) -> &'static str {
        match self {
            Error::Uri { .. } => "uri",
            Error::Invalid { op, .. } | Error::Operation { op, .. } => op.name(),
            Error::Limit { what, .. } => what,
            Error::QueueFull { .. } => "submit",
            Error::UnexpectedEnd { .. } => "read",
            Error::Connect { .. } | Error::Incompatible { .. } => "connect",
            Error::Lost { .. } | Error::Protocol { .. } => "connection",
            Error::Local(_) => "this machine",
        }
    }

    /// Where: a path or a uri; empty where there is none.
    #[must_use]
    pub fn place(&self) -> &str {
        match self {
            Error::Uri { uri, .. }
            | Error::Connect { uri, .. }
            | Error::Incompatible { uri, .. }
            | Error::Lost { uri, .. }
            | Error::Protocol { uri, .. } => uri,
            Error::Operation { path: Some(path), .. } | Error::UnexpectedEnd { path, .. } => path,
            _ => "",
        }
    }

    /// Why, as a sentence without what and where.
    #[must_use]
    pub fn why(&self) -> String {
        match self {
            Error::Uri { cause: libxio::Error::BadUri { reason, .. }, .. } => (*reason).to_owned(),
            Error::Connect { cause, .. } | Error::Lost { cause, .. } => explain(cause),
            Error::Uri { cause, .. } | Error::Local(cause) => cause.to_string(),
            Error::Invalid { reason, .. } | Error::Incompatible { reason, .. } => reason.to_string(),
            Error::Limit { value, limit, .. } => format!("it is {value}, at most {limit} is allowed"),
            Error::QueueFull { depth } => {
                format!("{depth} requests are outstanding, which is the queue's depth")
            }
            Error::UnexpectedEnd { offset, .. } => format!("the file ends at byte {offset}"),
            Error::Operation { errno, .. } => describe_errno(*errno),
            Error::Protocol { reason, .. } => format!("the server's answer can't be right: {reason}"),
        }
    }

    /// The same error with the path that it is about, where it has none.
    #[must_use]
    pub fn with_path(self, path: &Arc<str>) -> Error {
        match self {
            Error::Operation { op, path: None, errno } => {
                Error::Operation { op, path: Some(Arc::clone(path)), errno }
            }
            other => other,
        }
    }

    /// A uri that can't be used.
    pub(crate) fn uri(uri: &str, cause: libxio::Error) -> Error {
        Error::Uri { uri: uri.into(), cause }
    }
}

/// Without the address where that is said already.
fn explain(cause: &libxio::Error) -> String {
    match cause {
        libxio::Error::ConnectFailed { errno, .. } | libxio::Error::ConnectionLost { errno, .. } => {
            describe_errno(*errno)
        }
        libxio::Error::TimedOut { silent_ms, .. } => format!("no answer for {silent_ms} ms"),
        libxio::Error::Stalled { length, waited_ms, .. } => {
            format!("an answer of {length} bytes had not arrived whole after {waited_ms} ms")
        }
        libxio::Error::Closed(_) => "the server closed it".to_owned(),
        libxio::Error::Rejected { reason, private_data, .. } => match std::str::from_utf8(private_data) {
            Ok(text) if !text.is_empty() => format!("rejected, {reason}: {text}"),
            _ => format!("rejected, {reason}"),
        },
        other => other.to_string(),
    }
}

/// The system's text for an errno, without its number.
#[must_use]
pub fn describe_errno(errno: i32) -> String {
    let text = io::Error::from_raw_os_error(errno).to_string();
    match text.rfind(" (os error") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what())?;
        if !self.place().is_empty() {
            write!(f, ": {}", self.place())?;
        }
        write!(f, ": {}", self.why())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Uri { cause, .. }
            | Error::Connect { cause, .. }
            | Error::Lost { cause, .. }
            | Error::Local(cause) => Some(cause),
            Error::Invalid { reason, .. }
            | Error::Incompatible { reason, .. }
            | Error::Protocol { reason, .. } => Some(reason),
            _ => None,
        }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> io::Error {
        let kind = match error {
            Error::UnexpectedEnd { .. } => io::ErrorKind::UnexpectedEof,
            _ => io::Error::from_raw_os_error(error.errno()).kind(),
        };
        io::Error::new(kind, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_where_and_why() {
        let path: Arc<str> = "/data/x".into();
        let error = Error::Operation { op: Op::Open, path: None, errno: libc::ENOENT }.with_path(&path);
        assert_eq!(error.to_string(), "open: /data/x: No such file or directory");
        let cause = libxio::Error::ConnectFailed { address: "127.0.0.1:1".into(), errno: libc::ECONNREFUSED };
        let error = Error::Connect { uri: "tcp://127.0.0.1:1/".into(), cause };
        assert_eq!(error.to_string(), "connect: tcp://127.0.0.1:1/: Connection refused");
        assert_eq!(io::Error::from(error).kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn a_lost_connection_is_reset_or_timed_out() {
        let lost = |cause| Error::Lost { uri: "".into(), cause }.errno();
        assert_eq!(lost(libxio::Error::TimedOut { peer: String::new(), silent_ms: 1 }), libc::ETIMEDOUT);
        assert_eq!(lost(libxio::Error::Closed(String::new())), libc::ECONNRESET);
        let broken = libxio::Error::ConnectionLost { peer: String::new(), errno: libc::EPIPE };
        assert_eq!(lost(broken), libc::ECONNRESET);
    }
}
