//! Requests in their turn: begun, and gone on with when the ring or a call off the loop has done its part.

use super::calls::{Call, Ended, Reply};
use super::client::{Client, Opened};
use super::fair::{Kind, Lane};
use super::job::{Item, Job};
use super::pending::{Pending, Work};
use super::{
    AT_ONCE_BYTES, CLIENT_BYTES_MAX, CLIENT_CALLS_MAX, ClientId, FREE_MEMORY_PARTS, TURN_BYTES, Worker,
};
use crate::backend::{Command, Errno, Memory, OpenFile, Step};
use crate::offloop::Group;
use crate::windows::Windows;
use libxio::{Buffer, Completion, Context, Event, Request, Sgl};
use raio::proto::{self, Handle};

/// A request that is served: whose, and what it costs.
#[derive(Clone, Copy)]
pub(super) struct Served {
    pub id: ClientId,
    lane: Lane,
    cost: u64,
}

impl Worker {
    /// A request has arrived. Where nobody waits it has its turn at once, else it waits for it.
    #[inline]
    pub(super) fn receive(&mut self, mut request: Request) {
        let Some(id) = self.id_of(request.connection()) else { return };
        let Some(client) = self.clients[id].as_mut() else { return };
        client.running += 1;
        self.setup.counters.requests_running.add(1);
        if self.draining.is_some() {
            client.held.push(request);
            return;
        }
        let data = request.take_data();
        let job = Job::of(request.header(), data.len());
        let (lane, cost) = (Lane::new(id, job.kind()), job.cost());
        if let Job::File(handle, command) = job
            && lane.kind() != Kind::Call
            && self.starved.is_empty()
            && self.may_begin(id, cost)
            && self.fair.is_next(lane)
        {
            self.spent += cost;
            self.begin_at_once(Served { id, lane, cost }, request, data, handle, command);
            return;
        }
        let Some(client) = self.clients[id].as_ref() else { return };
        let item = Item::new(request, data, job, client);
        self.fair.push(lane, cost, item);
    }

    /// Lets the file that a request is about get ready, which is served soon; false where it is something else.
    #[inline]
    pub(super) fn expect(&self, event: &Event) -> bool {
        let Event::Request(request) = event else { return false };
        let client = self.id_of(request.connection()).and_then(|id| self.clients[id].as_ref());
        let Some(client) = client else { return false };
        if let Job::File(handle, command) = Job::of(request.header(), request.data().len())
            && let Some(opened) = client.get(handle)
        {
            opened.file.expect(&command, self.windows.as_ref());
        }
        true
    }

    /// Whether a client has not begun a quantum at once in this turn, nor all together a turn's worth.
    #[inline]
    fn may_begin(&mut self, id: ClientId, cost: u64) -> bool {
        if self.at_once.0 != id {
            self.at_once = (id, 0);
        }
        self.at_once.1 += cost;
        self.at_once.1 <= AT_ONCE_BYTES && self.spent + cost <= TURN_BYTES
    }

    /// Begins a command of an open file as soon as it has come: nearly all end there, and have not been moved once.
    #[inline]
    fn begin_at_once(
        &mut self,
        served: Served,
        request: Request,
        data: Sgl,
        handle: Handle,
        mut command: Command,
    ) {
        if let Err(errno) = self.check_length(&request, &command) {
            return self.fail(served.id, request, errno);
        }
        let opened = self.clients[served.id].as_ref().and_then(|client| client.get(handle));
        let Some(opened) = opened else { return self.fail(served.id, request, libc::EBADF) };
        let mut source =
            Source { context: &mut self.context, windows: self.windows.as_mut(), request: &request };
        let job = Job::File(handle, command);
        match opened.file.start(&mut command, data, &mut source) {
            Step::Ended(outcome) => self.finish(served.id, request, command, outcome),
            step => {
                let opened = opened.clone();
                self.begun(served, request, opened, job, command, step);
            }
        }
    }

    /// Begins requests for what is left of a turn's bytes.
    pub(super) fn serve_turn(&mut self) {
        while self.spent < TURN_BYTES {
            let Some((lane, cost, item)) = self.fair.next() else { break };
            self.spent += cost;
            self.serve(Served { id: lane.client(), lane, cost }, item);
        }
    }

    /// Tries again where there was no memory.
    pub(super) fn retry_starved(&mut self) {
        while let Some(lane) = self.starved.pop() {
            self.fair.resume(lane);
        }
    }

    fn serve(&mut self, served: Served, mut item: Item) {
        let Some(client) = self.clients[served.id].as_mut() else { return };
        if item.job.kind() == Kind::Call && client.off_loop >= CLIENT_CALLS_MAX {
            self.fair.put_back(served.lane, served.cost, item);
            // Until one of its calls has ended.
            self.fair.pause(served.lane);
            return;
        }
        match item.job {
            Job::Invalid(errno) => self.fail(served.id, item.request, errno),
            Job::Info => self.answer_info(served.id, item.request),
            Job::File(_, command) => match item.opened.take() {
                Some(opened) => self.begin(served, item, opened, command),
                None => self.fail(served.id, item.request, libc::EBADF),
            },
            Job::Close(handle) => self.close_file(served, item.request, handle),
            Job::Path => self.begin_call(served, item.request),
        }
    }

    /// Begins a command of an open file.
    fn begin(&mut self, served: Served, item: Item, opened: Opened, mut command: Command) {
        let Item { request, data, job, .. } = item;
        if let Err(errno) = self.check_length(&request, &command) {
            return self.fail(served.id, request, errno);
        }
        let mut source =
            Source { context: &mut self.context, windows: self.windows.as_mut(), request: &request };
        match opened.file.start(&mut command, data, &mut source) {
            // Nothing is in flight: most reads of cached files end here.
            Step::Ended(outcome) => {
                self.retire(opened);
                self.finish(served.id, request, command, outcome);
            }
            step => self.begun(served, request, opened, job, command, step),
        }
    }

    /// A command has not ended at once.
    fn begun(
        &mut self,
        served: Served,
        request: Request,
        opened: Opened,
        job: Job,
        command: Command,
        step: Step,
    ) {
        if let Step::Memory(data) = step {
            let item = Item { request, data, opened: Some(opened), job };
            self.fair.put_back(served.lane, served.cost, item);
            self.fair.pause(served.lane);
            self.starved.push(served.lane);
            return;
        }
        let bytes = if job.kind() == Kind::Data { job.bytes() } else { 0 };
        if let Some(client) = self.clients[served.id].as_mut() {
            client.reading += bytes;
        }
        self.go_on(served.id, request, opened, command, bytes, step);
        self.limit(served.id);
    }

    #[inline]
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
        let (file, calls) = (std::sync::Arc::clone(&opened.file), opened.calls);
        let pending = Pending { client: id, connection, request, bytes, work: Work::File(opened, command) };
        match step {
            Step::Ring(operation) => {
                let is_direct = file.is_direct();
                drop(file);
                let token = self.pending.insert(pending);
                let outcome = if is_direct {
                    self.context.submit_direct(operation, token)
                } else {
                    self.context.submit(operation, token)
                };
                if let Err(error) = outcome {
                    tracing::error!(%error, "the ring takes no operation");
                    if let Some(pending) = self.pending.remove(token) {
                        self.end_file(pending, Err(libc::EIO));
                    }
                }
            }
            Step::Block(memory, done) => {
                let token = self.pending.insert(pending);
                self.call(id, calls, token, move || Ended::File(file.block(command, memory, done)));
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
    fn call(
        &mut self,
        id: ClientId,
        calls: Group,
        token: u64,
        body: impl FnOnce() -> Ended + Send + 'static,
    ) {
        if let Some(client) = self.clients[id].as_mut() {
            client.off_loop += 1;
        }
        let reply = Reply { postbox: self.postbox.clone(), token, told: false };
        self.setup.off_loop.run(calls, move || {
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
            work = Work::Open { read_only: call.read_only, calls: call.calls };
        }
        let connection = request.connection();
        let token = self.pending.insert(Pending { client: served.id, connection, request, bytes: 0, work });
        self.call(served.id, call.calls, token, move || call.run());
    }

    /// Closes a file; where nothing else uses it, the answer waits for close(2).
    fn close_file(&mut self, served: Served, request: Request, handle: Handle) {
        let opened = self.clients[served.id].as_mut().and_then(|client| client.remove(handle));
        let Some(Opened { file, calls, .. }) = opened else {
            return self.fail(served.id, request, libc::EBADF);
        };
        self.setup.counters.open_files.subtract(1);
        self.closed(&*file);
        // They hold the file too.
        let windows = self.windows.as_mut().map(Windows::take_retired);
        let connection = request.connection();
        let pending = Pending { client: served.id, connection, request, bytes: 0, work: Work::Call };
        let token = self.pending.insert(pending);
        self.call(served.id, calls, token, move || {
            drop(windows);
            drop(file);
            Ended::Called(Ok(()))
        });
    }

    /// A client has closed a file.
    pub(super) fn closed(&mut self, file: &dyn OpenFile) {
        if let (Some(windows), Some(key)) = (&mut self.windows, file.windows_key()) {
            windows.closed(key);
        }
    }

    /// Lets go of a file that was used; if it was closed meanwhile, this is its end, which may wait.
    pub(super) fn retire(&mut self, opened: Opened) {
        if std::sync::Arc::strong_count(&opened.file) == 1 {
            self.setup.off_loop.run(opened.calls, move || drop(opened));
        }
    }

    /// Leaves a client's reads alone while it holds as much memory as it may.
    pub(super) fn limit(&mut self, id: ClientId) {
        let Some(client) = self.clients[id].as_ref() else { return };
        let Ok(unsent) = self.context.unsent_bytes(client.connection) else { return };
        let held = client.reading + unsent as u64;
        let pool = self.context.pool();
        let free = pool.bytes_max().saturating_sub(pool.bytes_in_use()) as u64;
        if held == 0 || held < CLIENT_BYTES_MAX.min(free / FREE_MEMORY_PARTS) {
            return;
        }
        self.fair.pause(Lane::new(id, Kind::Data));
        self.setup.counters.clients_paused.add(1);
        // Where nothing waits to be sent, the end of a read looks again.
        if unsent > 0 {
            // The connection was there a moment ago.
            let _ = self.context.notify_drained(client.connection, unsent / 2);
        }
    }

    /// Serves a client's reads again, if it may have more memory.
    pub(super) fn reconsider(&mut self, id: ClientId) {
        if self.clients.get(id).is_some_and(Option::is_some) {
            self.fair.resume(Lane::new(id, Kind::Data));
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
    windows: Option<&'a mut Windows>,
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

    #[inline]
    fn windows(&mut self) -> Option<&mut Windows> {
        self.windows.as_deref_mut()
    }
}
