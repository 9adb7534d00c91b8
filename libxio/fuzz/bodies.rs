//! What the fuzz targets do with their input. `libxio/tests/corpus.rs` includes this file and runs the bodies over the
//! corpus in the ordinary tests.

#![allow(clippy::unwrap_used, reason = "a fuzz target fails by panicking")]
#![allow(missing_docs, reason = "not a library")]

#[path = "../tests/raw/mod.rs"]
mod raw;
#[path = "shared.rs"]
mod scribbling;

pub use scribbling::shared;

use libxio::transport::{Faults, SimNetwork, Stranger};
use libxio::wire::{
    FRAME_HEAD_BYTES, FrameHead, FrameKind, FrameLimits, Goodbye, Hello, Limits, LoopKind,
    REMOTE_ADDRESS_BYTES, Refusal, RemoteAddress, SessionId, VERSION, VERSION_MIN, Welcome,
};
use libxio::{
    AcceptOptions, Access, ConnectionOptions, Context, ContextOptions, Event, Landing, OutgoingOneWay,
    OutgoingRequest, OutgoingResponse, PoolOptions, Receipt, Region, SendOptions, ServerOptions, Session,
};
use std::sync::Arc;
use std::time::Duration;

/// Small limits, so that inputs of a few hundred bytes reach them.
const LIMITS: Limits = Limits {
    slots: 4,
    peer_slots: 4,
    header_bytes_max: 512,
    data_bytes_max: 8192,
    window_bytes: 16_384,
    replay_bytes_max: 64,
    keepalive_ms: 1000,
    immediate_bytes_max: 1024,
    one_way_max: 4,
};
/// Turns that a context gets to take in one input; it needs far fewer.
const TURNS_MAX: usize = 2000;

/// Every decoder takes any bytes; what it understands it writes in a form that means the same.
pub fn wire(input: &[u8]) {
    if let Some((head, rest)) = input.split_first_chunk::<FRAME_HEAD_BYTES>() {
        for crc in [false, true] {
            let limits = FrameLimits {
                header_bytes_max: 512,
                data_bytes_max: 8192,
                immediate_bytes_max: 1024,
                extension_bytes_max: 0,
                slots: 4,
                own_slots: 4,
                crc,
            };
            for limits in [limits, FrameLimits::handshake()] {
                if let Ok(found) = FrameHead::decode(head, &limits) {
                    let length = (found.header_length as usize).min(rest.len());
                    let _ = FrameHead::verify(head, &rest[..length]);
                    if length == found.header_length as usize {
                        let again = found.encode(&rest[..length], limits.crc);
                        assert_eq!(FrameHead::decode(&again, &limits), Ok(found));
                    }
                }
            }
        }
    }
    if let Ok(found) = Hello::decode(input) {
        assert_eq!(Hello::decode(&found.encode()), Ok(found));
    }
    if let Ok(found) = Welcome::decode(input) {
        assert_eq!(Welcome::decode(&found.encode()), Ok(found));
    }
    if let Ok(found) = Refusal::decode(input) {
        assert_eq!(Refusal::decode(&found.encode()), Ok(found));
    }
    if let Ok(found) = Goodbye::decode(input) {
        assert_eq!(Goodbye::decode(&found.encode()), Ok(found));
    }
    if let Ok(found) = RemoteAddress::decode(input) {
        assert_eq!(found.encode()[..], input[..REMOTE_ADDRESS_BYTES]);
    }
    if let Ok(text) = std::str::from_utf8(input)
        && let Ok(uri) = text.parse::<libxio::Uri>()
    {
        assert_eq!(uri.to_string().parse::<libxio::Uri>().unwrap(), uri);
    }
}

fn context(network: &SimNetwork) -> Context {
    Context::new(ContextOptions {
        clock: network.clock(),
        transports: vec![Arc::new(network.clone())],
        limits: LIMITS,
        pool: PoolOptions { bytes_max: 1 << 20, huge_pages: false },
        keepalive: Duration::from_secs(1),
        connect_timeout: Duration::from_secs(1),
        ..ContextOptions::default()
    })
    .unwrap()
}

/// A frame around a body, its length and checksum put in.
pub fn framed(kind: FrameKind, body: &[u8]) -> Vec<u8> {
    let head = FrameHead { header_length: body.len() as u32, ..FrameHead::new(kind) };
    let mut bytes = head.encode(body, false).to_vec();
    bytes.extend_from_slice(body);
    bytes
}

/// A client that may do all that it likes.
pub fn hello() -> Hello {
    Hello {
        version_min: VERSION_MIN,
        version_max: VERSION,
        features: 0,
        loop_kind: LoopKind::Caller,
        session: SessionId::default(),
        session_key: [0; 16],
        connection: 0,
        limits: LIMITS,
        resource: "/fuzz".into(),
        private_data: Vec::new(),
    }
}

/// A server that lets the client do all that it likes.
pub fn welcome() -> Welcome {
    Welcome {
        version: VERSION,
        features: 0,
        loop_kind: LoopKind::Own,
        incarnation: 1,
        session: SessionId([1; 16]),
        session_key: [2; 16],
        connection: 1,
        limits: LIMITS,
        private_data: Vec::new(),
    }
}

/// The first byte of an input says what the rest is.
struct Script<'a> {
    /// Said first: a handshake, whole.
    prologue: Vec<u8>,
    rest: &'a [u8],
    /// Bytes said at a time.
    step: usize,
}

fn script<'a>(input: &'a [u8], kind: FrameKind, body: &[u8]) -> Option<Script<'a>> {
    let (&mode, rest) = input.split_first()?;
    let step = [usize::MAX, 1, 7, 100][usize::from(mode >> 2) % 4];
    Some(match mode % 4 {
        // Raw bytes from the start.
        0 => Script { prologue: Vec::new(), rest, step },
        // The body of a first frame, which is otherwise right.
        1 => Script { prologue: framed(kind, rest), rest: &[], step },
        // Frames after a handshake.
        _ => Script { prologue: framed(kind, body), rest, step },
    })
}

/// Says what fits and hears what there is; false when the connection is over.
fn talk(stranger: &mut Stranger, script: &mut Script<'_>) -> bool {
    let mut heard = [0; 4096];
    if !script.prologue.is_empty() {
        return match stranger.say(&script.prologue) {
            Ok(count) => {
                script.prologue.drain(..count);
                true
            }
            Err(_) => false,
        };
    }
    let part = &script.rest[..script.rest.len().min(script.step)];
    if !part.is_empty() {
        match stranger.say(part) {
            Ok(count) => script.rest = &script.rest[count..],
            Err(_) => return false,
        }
    }
    stranger.hear(&mut heard).is_ok()
}

fn turn(context: &mut Context) -> Vec<Event> {
    turn_for(context, Duration::ZERO)
}

fn turn_for(context: &mut Context, wait: Duration) -> Vec<Event> {
    context.wait(Some(wait)).unwrap();
    std::iter::from_fn(|| context.next_event()).collect()
}

/// An application that uses what it is given; `Err` of a call is an answer like any other.
fn apply(context: &mut Context, event: Event) {
    match event {
        Event::ConnectionRequest(request) => {
            if let Ok(connection) = context.accept(request, AcceptOptions::new()) {
                busy(context, connection);
            }
        }
        Event::Connected { connection, .. } => busy(context, connection),
        Event::Request(mut request) => {
            if request.wants_receipt() {
                let _ = context.give_receipt(&mut request, Receipt::Accepted);
            }
            let header = request.header().to_vec();
            match header.first() {
                // Dropped without an answer.
                Some(1) => {}
                Some(2) => drop(context.abandon(request)),
                _ => {
                    let mut data = request.take_data();
                    data.truncate(request.room() as usize);
                    let _ = context.respond(request, OutgoingResponse { header: &header, data });
                }
            }
        }
        Event::OneWay(message) => drop(context.release(message, Receipt::Accepted)),
        Event::Incoming(incoming) => {
            if let Ok(memory) = context.pool().take_list(incoming.data_length() as usize) {
                let _ = context.assign(incoming, memory);
            }
        }
        _ => {}
    }
}

/// Something of every kind for the peer to answer, rightly or wrongly, and memory for it to reach.
fn busy(context: &mut Context, connection: libxio::Connection) {
    let options = SendOptions { receipt: true, notify: Some(1), ..SendOptions::default() };
    for (token, length) in [(0, 0), (1, 100), (2, 4000)] {
        let request = OutgoingRequest {
            data: vec![1; length].into(),
            landing: if token == 1 { Landing::Place(vec![0; 300].into()) } else { Landing::Pool(4096) },
            ..OutgoingRequest::new(b"to the peer", token)
        };
        let _ = context.request_with(connection, request, options);
    }
    let message = OutgoingOneWay { header: b"one way", options, ..OutgoingOneWay::default() };
    let _ = context.send(connection, message);
    let region = Region::allocate(4096, false).unwrap();
    let _ = context.expose(connection, &region, 0, 4096, Access { read: true, write: true });
}

/// The peer has gone: everything ends, and nothing is kept.
fn wind_down(context: &mut Context, network: &SimNetwork) {
    let mut turns = 0;
    while context.statistics().snapshot().connections > 0 {
        for event in turn(context) {
            apply(context, event);
        }
        network.advance(Duration::from_millis(20));
        turns += 1;
        assert!(turns < TURNS_MAX, "a connection outlives its peer");
    }
    for event in turn(context) {
        drop(event);
    }
    turn(context);
    let counters = context.statistics().snapshot();
    assert_eq!((counters.requests_running, counters.requests_outstanding), (0, 0));
    assert_eq!(context.pool().bytes_in_use(), 0, "memory is kept for a peer that is gone");
}

/// A whole server, its client a stranger that says the input.
pub fn server(input: &[u8]) {
    let Some(mut script) = script(input, FrameKind::Hello, &hello().encode()) else { return };
    let network = SimNetwork::new(1, Faults::NONE);
    let mut context = context(&network);
    let listening = context.listen(&"sim://server:0/".parse().unwrap(), ServerOptions::default()).unwrap();
    let mut stranger = network.stranger(&context.local_uri(listening).unwrap()).unwrap();
    let mut turns = 0;
    while talk(&mut stranger, &mut script) && (!script.rest.is_empty() || turns < 8) {
        for event in turn(&mut context) {
            apply(&mut context, event);
        }
        network.advance(Duration::from_micros(10));
        turns += 1;
        if turns > TURNS_MAX + input.len() {
            break;
        }
    }
    drop(stranger);
    wind_down(&mut context, &network);
}

/// A whole client, its server a stranger that says the input.
pub fn client(input: &[u8]) {
    let Some(mut script) = script(input, FrameKind::Welcome, &welcome().encode()) else { return };
    let network = SimNetwork::new(1, Faults::NONE);
    let mut context = context(&network);
    let listener = network.listen_with_strangers(&"sim://server:0/".parse().unwrap()).unwrap();
    let session = Session::new(listener.uri().clone());
    context.connect(&session, ConnectionOptions::default()).unwrap();
    let mut stranger = listener.accept().unwrap();
    let mut turns = 0;
    while talk(&mut stranger, &mut script) && (!script.rest.is_empty() || turns < 8) {
        for event in turn(&mut context) {
            apply(&mut context, event);
        }
        network.advance(Duration::from_micros(10));
        turns += 1;
        if turns > TURNS_MAX + input.len() {
            break;
        }
    }
    drop(stranger);
    wind_down(&mut context, &network);
}
