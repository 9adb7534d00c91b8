//! The ends of requests, and their answers.

use super::calls::Ended;
use super::client::Opened;
use super::fair::{Kind, Lane};
use super::pending::{Pending, Work};
use super::{ClientId, Worker};
use crate::backend::{Command, Done, Errno, Outcome};
use libxio::{OutgoingResponse, Request, Sgl};
use raio::proto::{Answer, Attributes, ServerInfo};

/// Length of one I/O that works well, in bytes: large enough for the cost of a request to vanish.
const PREFERRED_IO_BYTES: u32 = 1 << 20;

/// An answer's data in a buffer more than so many times its size is copied into a smaller one before it waits to be
/// sent.
const SLACK_MAX: usize = 4;

/// After answers of so many bytes it is looked at what a client holds.
const LOOK_BYTES: u64 = 64 << 10;

impl Worker {
    /// A command of an open file has ended.
    #[inline]
    pub(super) fn finish(&mut self, id: ClientId, request: Request, command: Command, outcome: Outcome) {
        let counters = &self.setup.counters;
        let (moved, data) = match outcome {
            Ok(Done::Data(data)) => {
                counters.bytes_read.add(data.len() as u64);
                let data = match command {
                    Command::Read { length, .. } => self.without_slack(data, length as usize),
                    _ => data,
                };
                // At most the length that was asked for.
                (data.len() as u32, data)
            }
            Ok(Done::Moved(bytes)) => {
                if matches!(command, Command::Write { .. } | Command::Settle { .. }) {
                    counters.bytes_written.add(u64::from(bytes));
                    (bytes, Sgl::new())
                } else {
                    (0, Sgl::new())
                }
            }
            Err(errno) => return self.fail(id, request, errno),
            Ok(Done::Attributes(attributes)) => {
                let answer = Answer::Found(self.limits(*attributes, false));
                return self.answer(id, request, &answer, Sgl::new());
            }
        };
        self.answer_with(id, request, &Answer::encode_moved(moved), data);
    }

    /// A request that was in the ring or off the loop has ended.
    pub(super) fn end_file(&mut self, pending: Pending, outcome: Outcome) {
        let there = match self.client_of(&pending) {
            Some(client) => {
                client.reading -= pending.bytes;
                true
            }
            None => false,
        };
        let Pending { client: id, request, work, .. } = pending;
        let Work::File(opened, command) = work else { return };
        let read_only = opened.read_only;
        self.retire(opened);
        if !there {
            self.setup.counters.requests_running.subtract(1);
            return;
        }
        let outcome = match outcome {
            Ok(Done::Attributes(mut attributes)) => {
                attributes.read_only |= read_only;
                Ok(Done::Attributes(attributes))
            }
            other => other,
        };
        self.finish(id, request, command, outcome);
        self.reconsider(id);
    }

    /// A call off the loop has ended.
    pub(super) fn call_ended(&mut self, token: u64, ended: Ended) {
        let Some(pending) = self.pending.remove(token) else { return };
        let there = match self.client_of(&pending) {
            Some(client) => {
                client.off_loop -= 1;
                self.fair.resume(Lane::new(pending.client, Kind::Call));
                true
            }
            None => false,
        };
        if let (Work::File(..), outcome) = (&pending.work, &ended) {
            let outcome = match outcome {
                Ended::File(_) => None,
                // It panicked.
                _ => Some(Err(libc::EIO)),
            };
            let outcome = match (outcome, ended) {
                (Some(outcome), _) => outcome,
                (None, Ended::File(outcome)) => outcome,
                (None, _) => Err(libc::EIO),
            };
            return self.end_file(pending, outcome);
        }
        if !there {
            self.setup.counters.requests_running.subtract(1);
            if let (Work::Open { calls, .. }, Ended::Opened(Ok((file, _)))) = (pending.work, ended) {
                self.setup.off_loop.run(calls, move || drop(file));
            }
            return;
        }
        let Pending { client: id, request, work, .. } = pending;
        let (answer, data) = self.ended_well(id, &work, ended);
        if let (Work::Open { .. }, Answer::Failed(_)) = (&work, &answer)
            && let Some(client) = self.clients[id].as_mut()
        {
            client.open -= 1;
        }
        self.answer(id, request, &answer, data);
    }

    fn ended_well(&mut self, id: ClientId, work: &Work, ended: Ended) -> (Answer, Sgl) {
        let answer = match ended {
            Ended::Opened(Ok((file, attributes))) => {
                let &Work::Open { read_only, calls } = work else {
                    return (Answer::Failed(libc::EIO), Sgl::new());
                };
                let attributes = self.limits(attributes, read_only);
                let Some(client) = self.clients[id].as_mut() else {
                    return (Answer::Failed(libc::EIO), Sgl::new());
                };
                if let (Some(windows), Some(key)) = (&mut self.windows, file.windows_key()) {
                    windows.opened(key);
                }
                let handle = client.insert(Opened { file, read_only, calls });
                self.setup.counters.open_files.add(1);
                Answer::Opened(handle, attributes)
            }
            Ended::Found(Ok(attributes)) => Answer::Found(self.limits(attributes, false)),
            Ended::Listed(Ok(listing)) => {
                let answer = Answer::Listed { cookie: listing.cookie, more: listing.more };
                return (answer, Sgl::from(listing.bytes));
            }
            Ended::Called(Ok(())) => Answer::DONE,
            Ended::Opened(Err(errno))
            | Ended::Found(Err(errno))
            | Ended::Listed(Err(errno))
            | Ended::Called(Err(errno)) => Answer::Failed(errno),
            Ended::File(_) => Answer::Failed(libc::EIO),
        };
        (answer, Sgl::new())
    }

    /// Adds the limits that I/O has here.
    fn limits(&self, mut attributes: Attributes, read_only: bool) -> Attributes {
        attributes.io_bytes_max = self.setup.config.io_bytes_max;
        attributes.preferred_io_bytes = PREFERRED_IO_BYTES.min(self.setup.config.io_bytes_max);
        attributes.read_only |= read_only;
        attributes
    }

    /// A short answer must not keep a large buffer while it waits to be sent: a client that reads nothing would hold
    /// far more memory than it is charged for.
    #[inline]
    fn without_slack(&self, data: Sgl, asked: usize) -> Sgl {
        if asked <= 4096 || data.len() * SLACK_MAX > asked || data.is_empty() {
            return data;
        }
        self.in_smaller_buffer(data)
    }

    fn in_smaller_buffer(&self, data: Sgl) -> Sgl {
        match self.context.pool().take(data.len()) {
            Ok(mut small) => {
                if let Some(bytes) = small.try_as_mut_slice() {
                    data.gather(0, bytes);
                    return small.into();
                }
                data
            }
            Err(_) => data,
        }
    }

    /// Answers with what the server is.
    pub(super) fn answer_info(&mut self, id: ClientId, request: Request) {
        let protocol = self.clients[id].as_ref().map_or(0, |client| client.protocol);
        let counters = self.setup.shared.counters();
        let config = &self.setup.config;
        let info = ServerInfo {
            name: "raio-server".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol,
            workers: u16::try_from(self.setup.shared.workers()).unwrap_or(u16::MAX),
            io_bytes_max: config.io_bytes_max,
            uptime_ms: u64::try_from(self.setup.shared.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            connections: counters.connections,
            connections_total: counters.connections_total,
            open_files: counters.open_files,
            requests: counters.requests,
            bytes_read: counters.bytes_read,
            bytes_written: counters.bytes_written,
            reads_mapped: counters.reads_mapped,
            exports: self.exports.info(),
        };
        let (bytes, whole) = info.encode(request.room() as usize);
        self.answer(id, request, &Answer::Listed { cookie: 0, more: !whole }, Sgl::from(bytes));
    }

    pub(super) fn fail(&mut self, id: ClientId, request: Request, errno: Errno) {
        self.answer(id, request, &Answer::Failed(errno), Sgl::new());
    }

    fn answer(&mut self, id: ClientId, request: Request, answer: &Answer, data: Sgl) {
        self.answer_with(id, request, &answer.encode(), data);
    }

    #[inline]
    fn answer_with(&mut self, id: ClientId, request: Request, header: &[u8], data: Sgl) {
        let counters = &self.setup.counters;
        counters.requests_running.subtract(1);
        counters.requests.add(1);
        let mut look = false;
        if let Some(client) = self.clients[id].as_mut() {
            client.running -= 1;
            client.answered += data.len() as u64;
            look = client.answered >= LOOK_BYTES;
        }
        if let Err(error) = self.context.respond(request, OutgoingResponse { header, data }) {
            // The connection has ended, which its own event tells; or the client gave too little room.
            tracing::debug!(%error, "an answer could not be given");
        }
        if look {
            if let Some(client) = self.clients[id].as_mut() {
                client.answered = 0;
            }
            self.limit(id);
        }
        self.close_if_done(id);
    }
}
