//! A request as it arrived, checked, with what it costs in turn.

use super::client::{Client, Opened};
use super::fair::Kind;
use crate::backend::Command;
use libxio::{Request, Sgl};
use raio::proto::{self, Handle, Target};

/// What every request costs beside its data, in bytes: so that many small ones are not free.
const BASE_COST_BYTES: u64 = 2 << 10;

/// A request that waits for its turn.
pub(super) struct Item {
    pub request: Request,
    /// Data of a write.
    pub data: Sgl,
    /// The file that it is about, looked up when it arrived: a close that overtakes it does it no harm.
    pub opened: Option<Opened>,
    pub job: Job,
}

/// What it asks for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Job {
    /// Something of an open file.
    File(Handle, Command),
    Close(Handle),
    /// A command with paths; they are read from the request's header when it is served.
    Path,
    Info,
    /// It breaks a rule of the protocol; the errno to answer with.
    Invalid(i32),
}

impl Item {
    pub(super) fn new(request: Request, data: Sgl, mut job: Job, client: &Client) -> Item {
        let mut opened = None;
        if let Job::File(handle, _) = job {
            opened = client.get(handle).cloned();
            if opened.is_none() {
                job = Job::Invalid(libc::EBADF);
            }
        }
        Item { request, data, opened, job }
    }
}

impl Job {
    /// What a request asks for, by its header and the length of its data.
    #[inline]
    pub(super) fn of(header: &[u8], data_length: usize) -> Job {
        match proto::Request::decode(header, data_length) {
            Ok(decoded) => Job::new(&decoded),
            Err(reason) => {
                tracing::debug!(%reason, "a request that breaks the file protocol");
                Job::Invalid(reason.errno())
            }
        }
    }

    /// What it costs in turn, in bytes.
    #[inline]
    pub(super) fn cost(&self) -> u64 {
        // Longer ones are refused in their turn.
        BASE_COST_BYTES + self.bytes().min(libxio::BUFFER_LEN_MAX as u64)
    }

    #[inline]
    fn new(request: &proto::Request<'_>) -> Job {
        match *request {
            proto::Request::Read { handle, offset, length } => {
                Job::File(handle, Command::Read { offset, length })
            }
            proto::Request::Write { handle, offset, length, durable } => {
                Job::File(handle, Command::Write { offset, length, durable })
            }
            proto::Request::Flush { handle, data_only } => Job::File(handle, Command::Flush { data_only }),
            proto::Request::Discard { handle, offset, length } => {
                Job::File(handle, Command::Discard { offset, length })
            }
            proto::Request::Truncate { handle, size } => Job::File(handle, Command::Truncate { size }),
            proto::Request::Stat(Target::Handle(handle)) => Job::File(handle, Command::Stat),
            proto::Request::Close { handle } => Job::Close(handle),
            proto::Request::Info => Job::Info,
            proto::Request::Open { .. }
            | proto::Request::Stat(Target::Path(_))
            | proto::Request::List { .. }
            | proto::Request::Unlink { .. }
            | proto::Request::Rename { .. } => Job::Path,
        }
    }

    /// What could keep it waiting.
    #[inline]
    pub(super) fn kind(&self) -> Kind {
        match self {
            Job::File(_, Command::Read { .. }) => Kind::Data,
            Job::File(_, Command::Truncate { .. } | Command::Stat) | Job::Close(_) | Job::Path => Kind::Call,
            Job::File(..) | Job::Info | Job::Invalid(_) => Kind::Plain,
        }
    }

    /// Bytes that it moves.
    #[inline]
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Job::File(_, Command::Read { length, .. } | Command::Write { length, .. }) => u64::from(*length),
            _ => 0,
        }
    }
}
