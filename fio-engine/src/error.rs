//! What can go wrong, in sentences that say what to do.

use crate::fio::{self, Job};
use std::fmt;

/// A failure, before it becomes an errno for fio and a line for the user.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// A file name that is none.
    Name {
        /// As given.
        name: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// A file that a job wants to read is not there, and no size was given to make it with.
    Missing {
        /// Its path at the server.
        path: String,
    },
    /// It is something that can't be read and written at offsets.
    Kind {
        /// Its path at the server.
        path: String,
        /// What it is.
        kind: &'static str,
    },
    /// The file has to be made, which the job's options forbid.
    MayNotCreate {
        /// Its path at the server.
        path: String,
        /// The option.
        option: &'static str,
    },
    /// An option that this engine, or this version, can't follow.
    Option {
        /// Its name.
        name: &'static str,
        /// Why not.
        reason: &'static str,
    },
    /// The connection, or the server, has an error.
    Remote(raio::Error),
}

impl Error {
    /// The number for fio.
    pub fn errno(&self) -> i32 {
        match self {
            Error::Name { .. } | Error::Option { .. } => libc::EINVAL,
            Error::Missing { .. } | Error::MayNotCreate { .. } => libc::ENOENT,
            Error::Kind { kind: "directory", .. } => libc::EISDIR,
            Error::Kind { .. } => libc::EINVAL,
            Error::Remote(error) => error.errno(),
        }
    }

    /// What the user can do about it.
    pub fn advice(&self) -> Option<&'static str> {
        match self {
            Error::Name { .. } => Some(
                "names are /HOST/PORT/PATH, the path with the export's name in front: /127.0.0.1/5555/data/file \
                 (colons of an IPv6 address are written \\: for fio), or shm\\:///PATH?socket=SOCKET for shared memory",
            ),
            Error::Missing { .. } => {
                Some("give size= to have it laid out, or look at what is there with: raio ls")
            }
            Error::Kind { .. } => Some("name a file, or a block device, beneath it"),
            Error::MayNotCreate { .. } => Some("make the file before, or leave the option out"),
            Error::Option { .. } => Some("leave it out"),
            Error::Remote(error) => remote_advice(error),
        }
    }

    /// Tells the user, and the job that it has failed at `what`.
    pub fn report(&self, job: Job, what: &str) {
        match self.advice() {
            Some(advice) => fio::log_error(&format!("{self}; {advice}")),
            None => fio::log_error(&self.to_string()),
        }
        job.fail(self.errno(), what);
    }
}

fn remote_advice(error: &raio::Error) -> Option<&'static str> {
    let errno = error.errno();
    match error {
        raio::Error::Uri { .. } => Some("transport=auto takes the best that there is"),
        raio::Error::Connect { .. } if errno == libc::ECONNREFUSED => {
            Some("is raio-server running there, and is the port the one that it printed?")
        }
        raio::Error::Connect { .. } if errno == libc::ETIMEDOUT => {
            Some("is it a raio-server's port, and does a firewall let it through? (connect_timeout_ms)")
        }
        raio::Error::Connect { .. } => Some("are host and port, or the socket, in the file's name right?"),
        raio::Error::Incompatible { .. } => Some("use client and server of neighbouring versions"),
        raio::Error::Lost { .. } => {
            Some("look at the server's log; writes without an answer may be done or not")
        }
        _ => match errno {
            libc::ENOENT => Some("the path begins with the export's name: see raio ls"),
            libc::EROFS => Some("the export is read-only: read only, or export it writable"),
            libc::EACCES | libc::EPERM => Some("the user that the server runs as has to be allowed to"),
            libc::ENOSPC | libc::EDQUOT => Some("make room at the server, or give a smaller size="),
            libc::EINVAL => Some("with direct=1, block sizes and offsets have to fit the server's device"),
            _ => None,
        },
    }
}

impl From<raio::Error> for Error {
    fn from(error: raio::Error) -> Error {
        Error::Remote(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Name { name, reason } => write!(f, "file name {name}: {reason}"),
            Error::Missing { path } => write!(f, "{path}: No such file or directory"),
            Error::Kind { path, kind } => write!(f, "{path}: it is a {kind}"),
            Error::MayNotCreate { path, option } => {
                write!(f, "{path}: it has to be made, or made longer, which {option} forbids")
            }
            Error::Option { name, reason } => write!(f, "option {name}: {reason}"),
            Error::Remote(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn errors_say_what_where_and_what_to_do() {
        let path: Arc<str> = "/data/x".into();
        let error: Error =
            raio::Error::Operation { op: raio::proto::Op::Open, path: Some(path), errno: libc::EROFS }.into();
        assert_eq!(error.to_string(), "open: /data/x: Read-only file system");
        assert!(error.advice().unwrap().contains("writable"));
        assert_eq!(error.errno(), libc::EROFS);
        let error = Error::Kind { path: "/data".to_owned(), kind: "directory" };
        assert_eq!((error.errno(), error.to_string().as_str()), (libc::EISDIR, "/data: it is a directory"));
    }
}
