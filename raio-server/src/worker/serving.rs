//! Requests in their turn: begun, and gone on with when the ring or a call off the loop has done its part.

use super::calls::{Call, Ended, Reply};
use super::client::{Client, Opened};
use super::fair::ClientId;
use super::job::{Item, Job};
use super::pending::{Pending, Work};
use super::{CLIENT_BYTES_MAX, CLIENT_CALLS_MAX, TURN_BYTES, Worker};
use crate::backend::{Command, Errno, Memory, Step};
use libxio::{Buffer, Completion, Context, Request};
use raio::proto::{self, Handle};

/// A request that is served: whose, and what it costs.
#[derive(Clone, Copy)]
pub(super) struct Served {
    pub id: ClientId,
    pub cost: u64,
}

impl Worker {
    /// A request has arrived: it waits for its turn.
    pub(super) fn receive(&mut self, request: Request) {
        let Some(id) = self.ids.get(&request.connection()).copied() else { return };
        let Some(client) = self.clients[id].as_mut() else { return };
        client.running += 1;
        self.setup.counters.requests_running.add(1);
        if self.draining.is_some() {
            client.held.push(request);
            return;
        }
        let item = Item::new(request);
        self.fair.push(id, item.cost(), item);
    }

    /// Begins requests for a turn's worth of bytes.
    pub(super) fn serve_turn(&mut self) {
        let mut spent = 0;
        while spent < TURN_BYTES {
            let Some((id, cost, item)) = self.fair.next() else { break };
            spent += cost;
            self.serve(Served { id, cost }, item);
        }
    }

    /// Tries again where there was no memory.
    pub(super) fn retry_starved(&mut self) {
        while let Some(id) = self.starved.pop() {
            self.reconsider(id);
        }
    }

    fn serve(&mut self, served: Served, item: Item) {
        let Some(client) = self.clients[served.id].as_mut() else { return };
        match item.job {
            Job::Invalid(errno) => self.fail(served.id, item.request, errno),
            Job::Info => self.answer_info(served.id, item.request),
            Job::File(handle, command) => match client.get(handle).cloned() {
                Some(opened) => self.begin(served, item, opened, command),
                None => self.fail(served.id, item.request, libc::EBADF),
            },
            _ if client.off_loop >= CLIENT_CALLS_MAX => {
                self.fair.put_back(served.id, served.cost, item);
                self.fair.pause(served.id);
            }
            Job::Close(handle) => self.close_file(served, item.request, handle),
            Job::Path => self.begin_call(served, item.request),
        }
    }

    /// Begins a command of an open file.
    fn begin(&mut self, served: Served, item: Item, opened: Opened, mut command: Command) {
        let Item { request, data, job } = item;
        if let Err(errno) = self.check_length(&request, &command) {
            return self.fail(served.id, request, errno);
        }
        let mut source = Source { context: &mut self.context, request: &request };
        let step = opened.file.start(&mut command, data, &mut source);
        match step {
            Step::Memory(data) => {
                self.fair.put_back(served.id, served.cost, Item { request, data, job });
                self.fair.pause(served.id);
                self.starved.push(served.id);
            }
            // Nothing is in flight: most reads of cached files end here.
            Step::Ended(outcome) => {
                self.retire(opened);
                self.finish(served.id, request, command, outcome);
            }
            step => {
                let bytes = job.bytes();
                if let Some(client) = self.clients[served.id].as_mut() {
                    client.in_flight += bytes;
                }
                self.go_on(served.id, request, opened, command, bytes, step);
                self.limit(served.id);
            }
        }
    }

    fn check_length(&self, request: &Request, command: &Command) -> Result<(), Errno> {
        match command {
            Command::Read { length, .. }
                if *length > self.setup.config.io_bytes_max || *length > request.room() =>
            {
                Err(libc::EMSGSIZE)
            }
            Command::Write { length, .. } if *length > self.setup.config.io_bytes_max => Err(libc::EMSGSIZE),
            _ => Ok(()),
        }
    }

    /// Takes the next step of a command that does not end at once.
    fn go_on(
        &mut self,
        id: ClientId,
        request: Request,
        opened: Opened,
        command: Command,
        bytes: u64,
        step: Step,
    ) {
        let connection = request.connection();
        let file = std::sync::Arc::clone(&opened.file);
        let pending = Pending { client: id, connection, request, bytes, work: Work::File(opened, command) };
        match step {
            Step::Ring(operation) => {
                drop(file);
                let token = self.pending.insert(pending);
                if let Err(error) = self.context.submit(operation, token) {
                    tracing::error!(%error, "the ring takes no operation");
                    if let Some(pending) = self.pending.remove(token) {
                        self.end_file(pending, Err(libc::EIO));
                    }
                }
            }
            Step::Block(memory, done) => {
                let token = self.pending.insert(pending);
                self.call(id, token, move || Ended::File(file.block(command, memory, done)));
            }
            // `begin` has asked for all memory that a command needs.
            Step::Memory(_) => self.end_file(pending, Err(libc::ENOMEM)),
            Step::Ended(outcome) => self.end_file(pending, outcome),
        }
    }

    /// The ring has done its part of a command.
    pub(super) fn resume(&mut self, completion: Completion) {
        let Some(pending) = self.pending.remove(completion.token) else { return };
        let Pending { client, connection, request, bytes, work } = pending;
        let Work::File(opened, mut command) = work else { return };
        match opened.file.resume(&mut command, completion) {
            Step::Ended(outcome) => {
                let work = Work::File(opened, command);
                self.end_file(Pending { client, connection, request, bytes, work }, outcome);
            }
            step => self.go_on(client, request, opened, command, bytes, step),
        }
    }

    /// Runs something off the loop for a client.
    fn call(&mut self, id: ClientId, token: u64, body: impl FnOnce() -> Ended + Send + 'static) {
        if let Some(client) = self.clients[id].as_mut() {
            client.off_loop += 1;
        }
        let reply = Reply { postbox: self.postbox.clone(), token, told: false };
        self.setup.off_loop.run(move || {
            let ended = body();
            reply.tell(ended);
        });
    }

    /// Begins a command with paths.
    fn begin_call(&mut self, served: Served, request: Request) {
        let call = proto::Request::decode(request.header(), 0)
            .map_err(proto::Invalid::errno)
            .and_then(|decoded| Call::new(&self.exports, &decoded, request.room() as usize));
        let call = match call {
            Ok(call) => call,
            Err(errno) => return self.fail(served.id, request, errno),
        };
        let Some(client) = self.clients[served.id].as_mut() else { return };
        let mut work = Work::Call;
        if call.is_open() {
            if client.open >= self.setup.config.open_files_max {
                return self.fail(served.id, request, libc::EMFILE);
            }
            // It has its place from now on.
            client.open += 1;
            work = Work::Open { read_only: call.read_only };
        }
        let connection = request.connection();
        let token = self.pending.insert(Pending { client: served.id, connection, request, bytes: 0, work });
        self.call(served.id, token, move || call.run());
    }

    /// Closes a file; where nothing else uses it, the answer waits for close(2).
    fn close_file(&mut self, served: Served, request: Request, handle: Handle) {
        let opened = self.clients[served.id].as_mut().and_then(|client| client.remove(handle));
        let Some(Opened { file, .. }) = opened else {
            return self.fail(served.id, request, libc::EBADF);
        };
        self.setup.counters.open_files.subtract(1);
        let connection = request.connection();
        let pending = Pending { client: served.id, connection, request, bytes: 0, work: Work::Call };
        let token = self.pending.insert(pending);
        self.call(served.id, token, move || {
            drop(file);
            Ended::Called(Ok(()))
        });
    }

    /// Lets go of a file that was used; if it was closed meanwhile, this is its end, which may wait.
    pub(super) fn retire(&mut self, opened: Opened) {
        if std::sync::Arc::strong_count(&opened.file) == 1 {
            self.setup.off_loop.run(move || drop(opened));
        }
    }

    /// Leaves a client alone that has as much in flight as it may.
    pub(super) fn limit(&mut self, id: ClientId) {
        let Some(client) = self.clients[id].as_ref() else { return };
        let Ok(unsent) = self.context.unsent_bytes(client.connection) else { return };
        let unsent = unsent as u64;
        if client.in_flight + unsent < CLIENT_BYTES_MAX {
            return;
        }
        self.fair.pause(id);
        self.setup.counters.clients_paused.add(1);
        // With more than half in flight the next completion looks again.
        if unsent > CLIENT_BYTES_MAX / 2 {
            // The connection was there a moment ago.
            let _ = self.context.notify_drained(client.connection, CLIENT_BYTES_MAX as usize / 2);
        }
    }

    /// Serves a client again that was left alone, if it may be served.
    pub(super) fn reconsider(&mut self, id: ClientId) {
        if self.clients.get(id).is_some_and(Option::is_some) {
            self.fair.resume(id);
            self.limit(id);
        }
    }

    /// The client of something that has ended, if it is still there.
    pub(super) fn client_of(&mut self, pending: &Pending) -> Option<&mut Client> {
        let client = self.clients.get_mut(pending.client)?.as_mut()?;
        (client.connection == pending.connection).then_some(client)
    }
}

/// Memory for one request.
struct Source<'a> {
    context: &'a mut Context,
    request: &'a Request,
}

impl Memory for Source<'_> {
    fn response_buffer(&mut self, length: usize) -> Result<Option<Buffer>, Errno> {
        match self.context.response_buffer(self.request, length) {
            Ok(buffer) => Ok(Some(buffer)),
            Err(libxio::Error::PoolExhausted { .. } | libxio::Error::System { .. }) => Ok(None),
            Err(error) => Err(error.errno()),
        }
    }

    fn buffer(&mut self, length: usize) -> Option<Buffer> {
        self.context.pool().take(length).ok()
    }
}
