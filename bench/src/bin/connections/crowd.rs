//! Connections that read, all on one context.

use bench::{Result, Times, failed};
use libxio::{
    Connection, ConnectionOptions, Context, ContextOptions, Event, Landing, LoopKind, OutgoingRequest,
    Session, Uri,
};
use raio::proto::{Answer, Greeting, Handle, Op, OpenFlags, RESOURCE, Request};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Connections being set up at a time: fewer than a server allows to be without a hello.
const CONNECTING_MAX: usize = 256;
/// Time without any progress after which it is given up.
const SILENCE_MAX: Duration = Duration::from_secs(20);
/// The token of an open; those of reads are below.
const OPEN: u64 = u64::MAX;

/// A connection and its open file.
#[derive(Debug)]
struct Member {
    connection: Connection,
    handle: Option<Handle>,
    /// Number of its next read; its place in the file follows from it.
    next: u64,
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Crowd {
    context: Context,
    members: Vec<Member>,
    /// Index of each connection among the members.
    index: HashMap<Connection, usize>,
    depth: u16,
    length: u32,
    blocks: u64,
    header: Vec<u8>,
}

impl Crowd {
    /// Connects all and opens the file on each.
    pub(crate) fn open(uri: &Uri, count: u32, depth: u16, length: u32, polling: Duration) -> Result<Crowd> {
        let mut options = ContextOptions {
            polling_timeout: polling,
            loop_kind: LoopKind::Caller,
            ..ContextOptions::default()
        };
        options.limits.slots = depth.max(1);
        options.limits.peer_slots = 1;
        let context = Context::new(options).map_err(failed("making a context"))?;
        let (members, index) = (Vec::new(), HashMap::new());
        let mut crowd = Crowd { context, members, index, depth, length, blocks: 1, header: Vec::new() };
        let (mut opened, count) = (0, count as usize);
        while opened < count {
            while crowd.members.len() < count && crowd.members.len() - opened < CONNECTING_MAX {
                crowd.connect(uri)?;
            }
            let event = crowd.wait()?;
            opened += usize::from(crowd.set_up(event, uri)?);
        }
        Ok(crowd)
    }

    /// Begins a connection, in a session of its own, as separate clients have.
    fn connect(&mut self, uri: &Uri) -> Result<()> {
        let session = Session::new(uri.with_resource(RESOURCE));
        let private_data = Greeting::client().encode().to_vec();
        let options = ConnectionOptions { private_data, ..ConnectionOptions::default() };
        let connection = self.context.connect(&session, options).map_err(failed("connecting"))?;
        self.index.insert(connection, self.members.len());
        self.members.push(Member { connection, handle: None, next: 0 });
        Ok(())
    }

    /// Takes a step of setting up; says whether a connection is complete with it.
    fn set_up(&mut self, event: Event, uri: &Uri) -> Result<bool> {
        match event {
            Event::Connected { connection, .. } => {
                let path = uri.resource().as_bytes();
                let open = Request::Open { path, flags: OpenFlags::READ, mode: 0 };
                open.encode(&mut self.header).map_err(failed("naming the file"))?;
                let request =
                    OutgoingRequest { idempotent: false, ..OutgoingRequest::new(&self.header, OPEN) };
                self.context.request(connection, request).map_err(failed("opening the file"))?;
                Ok(false)
            }
            Event::Response { connection, token: OPEN, outcome, .. } => {
                let reply = outcome.map_err(failed("opening the file"))?;
                match Answer::decode(Op::Open, &reply.header, 0) {
                    Ok(Answer::Opened(handle, attributes)) => {
                        self.blocks = (attributes.size / u64::from(self.length)).max(1);
                        if let Some(member) =
                            self.index.get(&connection).and_then(|at| self.members.get_mut(*at))
                        {
                            member.handle = Some(handle);
                        }
                        Ok(true)
                    }
                    Ok(Answer::Failed(errno)) => Err(format!("{uri}: {}", raio::describe_errno(errno))),
                    answer => Err(format!("{uri}: an unexpected answer: {answer:?}")),
                }
            }
            event => other(event).map(|()| false),
        }
    }

    /// Keeps them open until `until` returns.
    pub(crate) fn hold(&mut self, until: impl FnOnce() + Send) -> Result<()> {
        let stop = self.context.handle();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                until();
                stop.stop();
            });
            let run = self.context.run(|_, event| drop(event));
            run.map_err(failed("running the loop"))
        })
    }

    /// Reads on all of them for a time.
    pub(crate) fn read_for(&mut self, time: Duration, times: &mut Times) -> Result<()> {
        let mut since = vec![Instant::now(); self.members.len() * usize::from(self.depth)];
        for member in 0..self.members.len() {
            for place in 0..usize::from(self.depth) {
                self.read(member, place, &mut since)?;
            }
        }
        let deadline = Instant::now() + time;
        let mut flying = since.len();
        while flying > 0 {
            match self.wait()? {
                Event::Response { connection, token, outcome, .. } => {
                    let now = Instant::now();
                    let reply = outcome.map_err(failed("reading"))?;
                    if reply.data.len() != self.length as usize {
                        return Err(format!("{} bytes came instead of {}", reply.data.len(), self.length));
                    }
                    let Some(member) = self.index.get(&connection).copied() else { continue };
                    let place = token as usize % usize::from(self.depth);
                    times.record(now - since[member * usize::from(self.depth) + place]);
                    if now < deadline {
                        self.read(member, place, &mut since)?;
                    } else {
                        flying -= 1;
                    }
                }
                event => other(event)?,
            }
        }
        Ok(())
    }

    fn read(&mut self, index: usize, place: usize, since: &mut [Instant]) -> Result<()> {
        let member = &mut self.members[index];
        let Some(handle) = member.handle else { return Ok(()) };
        member.next = member.next.wrapping_add(7919);
        let offset = member.next % self.blocks * u64::from(self.length);
        let read = Request::Read { handle, offset, length: self.length };
        read.encode(&mut self.header).map_err(failed("reading"))?;
        let landing = Landing::Pool(self.length);
        let request = OutgoingRequest { landing, ..OutgoingRequest::new(&self.header, place as u64) };
        since[index * usize::from(self.depth) + place] = Instant::now();
        self.context.request(member.connection, request).map(drop).map_err(failed("reading"))
    }

    /// The next event; none for too long is an error.
    fn wait(&mut self) -> Result<Event> {
        let deadline = Instant::now() + SILENCE_MAX;
        loop {
            if let Some(event) = self.context.next_event() {
                return Ok(event);
            }
            if Instant::now() > deadline {
                return Err(format!("nothing happened for {} s", SILENCE_MAX.as_secs()));
            }
            self.context.wait(Some(SILENCE_MAX)).map_err(failed("waiting"))?;
        }
    }
}

/// What ends the measurement, and what does not matter.
fn other(event: Event) -> Result<()> {
    match event {
        Event::Closed { reason, .. } => Err(format!("a connection was lost: {reason}")),
        _ => Ok(()),
    }
}
