//! One client and one server over one connection: how long messages take and what they cost.
//!
//! Both ends count their system calls (a send, a receive or a ring enter each), because counts stay the same on a busy
//! machine, which times don't.

use hdrhistogram::Histogram;
use libxio::{
    AcceptOptions, Connection, ConnectionOptions, Context, ContextOptions, Error, Event, Landing,
    OutgoingOneWay, OutgoingRequest, OutgoingResponse, PinnedContext, Receipt, Result, ServerOptions,
    Session, Statistics, StatisticsSnapshot, Uri,
};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Header of a request whose data comes back.
const ECHO: &[u8] = b"echo";
/// Header of a request that is answered with as much data as there is room.
const READ: &[u8] = b"read";
/// Header of a request that is answered without data.
const WRITE: &[u8] = b"write";

/// Header of a request that is answered without data, once every byte of its own was read.
const FILL: &[u8] = b"fill";
/// Header of a request for the number of one-way messages that have arrived, as eight bytes in the answer's header.
const COUNT: &[u8] = b"count";

/// One-way messages between two looks at what has come: few enough that acknowledgements are seen in time.
const ONE_WAY_BURST: u32 = 64;

/// Which way the data goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pattern {
    /// To the server and back.
    Echo,
    /// From the server.
    Read,
    /// To the server.
    Write,
    /// To the server; each byte is written before, and read there.
    Fill,
    /// To the server in messages without an answer; their number is asked for in the end.
    OneWay,
}

impl Pattern {
    fn header(self) -> &'static [u8] {
        match self {
            Pattern::Echo => ECHO,
            Pattern::Read => READ,
            Pattern::Write => WRITE,
            Pattern::Fill => FILL,
            Pattern::OneWay => &[],
        }
    }

    /// Its name in results.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Pattern::Echo => "echo",
            Pattern::Read => "read",
            Pattern::Write => "write",
            Pattern::Fill => "fill",
            Pattern::OneWay => "one-way",
        }
    }
}

/// What one run measures.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Which way the data goes.
    pub pattern: Pattern,
    /// Bytes of data in a message.
    pub size: u32,
    /// Requests outstanding at a time.
    pub depth: u64,
    /// How long to measure, after a tenth of it to get warm.
    pub time: Duration,
    /// Ends it after so many requests, for counting instructions.
    pub messages_max: u64,
}

/// What a run found.
#[derive(Debug)]
pub struct Found {
    /// What was asked for.
    pub load: Load,
    /// Requests answered in the measured time.
    pub messages: u64,
    /// The measured time.
    pub time: Duration,
    /// From a request to its response, in nanoseconds.
    pub latency_ns: Histogram<u64>,
    /// What the client counted.
    pub client: StatisticsSnapshot,
    /// What the server counted, where it runs in this process.
    pub server: Option<StatisticsSnapshot>,
}

/// Options of a context for measuring: it polls for this long before it sleeps.
#[must_use]
pub fn options(polling_timeout: Duration) -> ContextOptions {
    ContextOptions { polling_timeout, ..ContextOptions::default() }
}

/// Serves at a uri until it is stopped; says where as soon as it listens.
///
/// # Errors
/// The address can't be had, or the ring fails.
pub fn serve(uri: &Uri, options: ContextOptions, ready: impl FnOnce(Uri, &Context)) -> Result<()> {
    let mut context = PinnedContext::new(options)?;
    let server = context.listen(uri, ServerOptions::default())?;
    ready(context.local_uri(server)?, &context);
    let mut one_way = 0;
    context.run(move |context, event| {
        let answered = match event {
            Event::ConnectionRequest(request) => context.accept(request, AcceptOptions::new()).map(|_| ()),
            Event::Request(request) => answer(context, request, one_way),
            Event::OneWay(message) => {
                one_way += 1;
                context.release(message, Receipt::Accepted)
            }
            _ => Ok(()),
        };
        // The client may be gone; what it asked is gone with it.
        if let Err(error) = answered {
            eprintln!("{error}");
        }
    })
}

fn answer(context: &mut Context, mut request: libxio::Request, one_way: u64) -> Result<()> {
    let count = one_way.to_le_bytes();
    let mut header = &[][..];
    let data = match request.header() {
        ECHO => request.take_data(),
        READ => context.pool().take_list(request.room() as usize)?,
        FILL => {
            // Reads it all; the sum itself is of no interest.
            std::hint::black_box(request.data().crc32c());
            libxio::Sgl::new()
        }
        COUNT => {
            header = &count;
            libxio::Sgl::new()
        }
        _ => libxio::Sgl::new(),
    };
    context.respond(request, OutgoingResponse { header, data })
}

/// A connection to a server of [`serve`].
#[derive(Debug)]
pub struct Client {
    context: Context,
    connection: Connection,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// The server can't be reached, or refuses.
    pub fn connect(uri: Uri, options: ContextOptions) -> Result<Client> {
        let mut context = Context::new(options)?;
        let connection = context.connect(&Session::new(uri), ConnectionOptions::default())?;
        loop {
            context.wait(None)?;
            match context.next_event() {
                Some(Event::Connected { .. }) => return Ok(Client { context, connection }),
                Some(Event::Closed { reason, .. }) => return Err(reason),
                _ => {}
            }
        }
    }

    /// Runs a load; `server` are the counters of the other end, where it runs in this process.
    ///
    /// # Errors
    /// The connection is lost.
    pub fn run(&mut self, load: Load, server: Option<&Arc<Statistics>>) -> Result<Found> {
        if load.pattern == Pattern::OneWay {
            return self.run_one_way(load);
        }
        let mut run = Run::new(load);
        for _ in 0..load.depth {
            self.send(&mut run)?;
        }
        let counters = |client: &Client| {
            (client.context.statistics().snapshot(), server.map(|server| server.snapshot()))
        };
        let begun = Instant::now();
        let mut measured_from = None;
        let mut before = counters(self);
        while run.outstanding > 0 {
            self.context.wait(None)?;
            let now = Instant::now();
            while let Some(event) = self.context.next_event() {
                match event {
                    Event::Response { token, outcome, .. } => run.answered(token, now, outcome?),
                    Event::Closed { reason, .. } => return Err(reason),
                    _ => continue,
                }
                if !run.over {
                    self.send(&mut run)?;
                }
            }
            if measured_from.is_none() && now - begun >= load.time / 10 {
                measured_from = Some(now);
                before = counters(self);
                run.begin();
            }
            let measured = measured_from.map(|from| now - from);
            if !run.over
                && measured.is_some_and(|measured| measured >= load.time || run.messages >= load.messages_max)
            {
                run.end(measured.unwrap_or_default(), counters(self));
            }
        }
        let (client, server) = run.counters;
        Ok(Found {
            load,
            messages: run.counted,
            time: run.time,
            client: difference(&before.0, &client),
            server: before.1.zip(server).map(|(before, after)| difference(&before, &after)),
            latency_ns: run.latency_ns,
        })
    }

    /// Sends messages as fast as the server takes them; they count when it says that they have arrived.
    fn run_one_way(&mut self, load: Load) -> Result<Found> {
        let first = self.arrived()?;
        let begun = Instant::now();
        let (mut sent, mut warm) = (0_u64, None);
        let before = self.context.statistics().snapshot();
        loop {
            let mut has_room = true;
            for _ in 0..ONE_WAY_BURST {
                let data = self.context.pool().take_list(load.size as usize)?;
                let message = OutgoingOneWay { data, ..OutgoingOneWay::default() };
                match self.context.send(self.connection, message) {
                    Ok(()) => sent += 1,
                    Err(Error::OneWayExhausted(_)) => {
                        has_room = false;
                        break;
                    }
                    Err(error) => return Err(error),
                }
            }
            // Who was turned away is told when there is room again.
            self.context.wait(has_room.then_some(Duration::ZERO))?;
            while let Some(event) = self.context.next_event() {
                if let Event::Closed { reason, .. } = event {
                    return Err(reason);
                }
            }
            let now = Instant::now();
            let (warm_sent, from) = match warm {
                None if now - begun >= load.time / 10 => *warm.insert((sent, now)),
                None => continue,
                Some(warm) => warm,
            };
            if now - from < load.time && sent - warm_sent < load.messages_max {
                continue;
            }
            let arrived = self.arrived()? - first;
            if arrived != sent {
                return Err(Error::LimitExceeded {
                    what: "messages that arrived",
                    value: arrived,
                    limit: sent,
                });
            }
            return Ok(Found {
                load,
                messages: sent - warm_sent,
                time: from.elapsed(),
                latency_ns: histogram(),
                client: difference(&before, &self.context.statistics().snapshot()),
                server: None,
            });
        }
    }

    /// Asks how many one-way messages have arrived. Messages and requests of a connection arrive in order.
    fn arrived(&mut self) -> Result<u64> {
        self.context.request(self.connection, OutgoingRequest::new(COUNT, 0))?;
        loop {
            self.context.wait(None)?;
            while let Some(event) = self.context.next_event() {
                match event {
                    Event::Response { outcome, .. } => {
                        let header = outcome?.header;
                        let bytes =
                            header.first_chunk().ok_or(Error::Unsupported("a server of another version"))?;
                        return Ok(u64::from_le_bytes(*bytes));
                    }
                    Event::Closed { reason, .. } => return Err(reason),
                    _ => {}
                }
            }
        }
    }

    fn send(&mut self, run: &mut Run) -> Result<()> {
        let Load { pattern, size, .. } = run.load;
        let pool = self.context.pool();
        let (mut data, mut landing) = (libxio::Sgl::new(), Landing::None);
        if pattern != Pattern::Read {
            data = pool.take_list(size as usize)?;
        }
        if pattern == Pattern::Fill {
            fill(&mut data, run.messages as u8);
        }
        if matches!(pattern, Pattern::Echo | Pattern::Read) {
            landing = Landing::Place(pool.take_list(size as usize)?);
        }
        let token = run.sent();
        let request = OutgoingRequest { data, landing, ..OutgoingRequest::new(pattern.header(), token) };
        match self.context.request(self.connection, request) {
            Ok(_) => Ok(()),
            Err(Error::SlotsExhausted(slots)) => Err(Error::LimitExceeded {
                what: "depth in requests",
                value: run.load.depth,
                limit: u64::from(slots),
            }),
            Err(other) => Err(other),
        }
    }
}

/// A load while it runs.
struct Run {
    load: Load,
    outstanding: u64,
    /// Send time of each request outstanding, by token.
    sent_at: Vec<Instant>,
    free: Vec<u64>,
    /// Since the measuring began.
    messages: u64,
    over: bool,
    /// `messages` when it was over, and in what time.
    counted: u64,
    time: Duration,
    counters: (StatisticsSnapshot, Option<StatisticsSnapshot>),
    latency_ns: Histogram<u64>,
}

impl Run {
    fn new(load: Load) -> Run {
        Run {
            load,
            outstanding: 0,
            sent_at: vec![Instant::now(); usize::try_from(load.depth).unwrap_or(usize::MAX)],
            free: (0..load.depth).rev().collect(),
            messages: 0,
            over: false,
            counted: 0,
            time: Duration::ZERO,
            counters: Default::default(),
            latency_ns: histogram(),
        }
    }

    fn sent(&mut self) -> u64 {
        let token = self.free.pop().expect("no more are sent than the depth");
        self.sent_at[token as usize] = Instant::now();
        self.outstanding += 1;
        token
    }

    fn answered(&mut self, token: u64, now: Instant, reply: libxio::Reply) {
        let is_answered = matches!(self.load.pattern, Pattern::Echo | Pattern::Read);
        let expected = if is_answered { self.load.size } else { 0 };
        assert_eq!(reply.data.len(), expected as usize, "an answer of the wrong length");
        self.outstanding -= 1;
        self.free.push(token);
        self.messages += 1;
        if !self.over {
            let latency = now.saturating_duration_since(self.sent_at[token as usize]);
            self.latency_ns.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
        }
    }

    fn begin(&mut self) {
        self.messages = 0;
        self.latency_ns.reset();
    }

    fn end(&mut self, time: Duration, counters: (StatisticsSnapshot, Option<StatisticsSnapshot>)) {
        self.over = true;
        (self.counted, self.time, self.counters) = (self.messages, time, counters);
    }
}

/// Writes every byte of a message's data.
fn fill(data: &mut libxio::Sgl, byte: u8) {
    let block = [byte; 4096];
    for offset in (0..data.len()).step_by(block.len()) {
        let length = block.len().min(data.len() - offset);
        data.scatter(offset, &block[..length]);
    }
}

/// Of times in nanoseconds: a minute at three digits, longer ones are cut to it.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("the bounds are in order")
}

/// What was counted between two moments.
fn difference(before: &StatisticsSnapshot, after: &StatisticsSnapshot) -> StatisticsSnapshot {
    StatisticsSnapshot {
        link_sends: after.link_sends - before.link_sends,
        link_receives: after.link_receives - before.link_receives,
        link_receives_empty: after.link_receives_empty - before.link_receives_empty,
        ring_enters: after.ring_enters - before.ring_enters,
        sleeps: after.sleeps - before.sleeps,
        turns: after.turns - before.turns,
        ..*after
    }
}

impl Found {
    /// Requests in a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.messages as f64 / self.time.as_secs_f64()
    }

    /// As one line of JSON: times in nanoseconds, rates per second.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let quantile = |quantile| self.latency_ns.value_at_quantile(quantile);
        json!({
            "pattern": self.load.pattern.name(),
            "size": self.load.size,
            "depth": self.load.depth,
            "messages": self.messages,
            "seconds": self.time.as_secs_f64(),
            "messages_per_second": self.rate(),
            "bytes_per_second": self.rate() * f64::from(self.load.size),
            "latency_ns": {
                "min": self.latency_ns.min(),
                "mean": self.latency_ns.mean(),
                "p50": quantile(0.5),
                "p99": quantile(0.99),
                "p999": quantile(0.999),
                "max": self.latency_ns.max(),
            },
            "client": self.cost(&self.client),
            "server": self.server.as_ref().map(|server| self.cost(server)),
        })
    }

    /// System calls of one side for each message. Looks that found nothing while polling are told apart: they are what
    /// a core does that has nothing else to do.
    fn cost(&self, side: &StatisticsSnapshot) -> Value {
        let per_message = |count: u64| count as f64 / self.messages.max(1) as f64;
        json!({
            "sends": per_message(side.link_sends),
            "receives": per_message(side.link_receives),
            "receives_empty": per_message(side.link_receives_empty),
            "ring_enters": per_message(side.ring_enters),
            "sleeps": per_message(side.sleeps),
            "turns": per_message(side.turns),
        })
    }
}
