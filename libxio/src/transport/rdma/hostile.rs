//! A peer that names to the device what it was not granted: another link's key, one that was revoked, a place beyond its
//! own, memory that may only be read. The owner's device refuses each; nobody's memory is touched, and both links live on.
//!
//! Needs RDMA devices (`XIO_RDMA=SERVER,CLIENT`, as the integration tests); run in the virtual machine with `--ignored`.

use super::endpoint::Remote;
use super::notes::Grant;
use crate::wire::{FrameHead, FrameKind};
use crate::{
    AcceptOptions, Access, Connection, ConnectionOptions, Context, ContextOptions, Error, Event, Landing,
    Region, RemoteRegion, SendOptions, ServerOptions, Session, Sgl, Uri,
};
use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

const LENGTH: usize = 8192;
const LONG: Duration = Duration::from_secs(20);

thread_local! {
    static SEEN: RefCell<Vec<Grant>> = const { RefCell::new(Vec::new()) };
    static FORGED: Cell<Option<Remote>> = const { Cell::new(None) };
}

/// A grant has come in.
pub(super) fn seen(grant: Grant) {
    SEEN.with_borrow_mut(|seen| seen.push(grant));
}

/// What an operation names to the device: the place that it should, or what a test has put in its place.
pub(super) fn forged(honest: Remote) -> Remote {
    FORGED.take().unwrap_or(honest)
}

/// The last grant that has come in: its place and key.
fn last_grant() -> Remote {
    SEEN.with_borrow(|seen| {
        seen.last().map(|grant| Remote { address: grant.address, key: grant.remote_key }).unwrap()
    })
}

struct Ends {
    client: Context,
    server: Context,
    events: Vec<Event>,
    server_events: Vec<Event>,
    uri: Uri,
}

impl Ends {
    fn new() -> Ends {
        let value = std::env::var("XIO_RDMA").expect("XIO_RDMA=SERVER,CLIENT says where the devices are");
        let (host, source) = value.split_once(',').unwrap();
        let options = || ContextOptions { polling_timeout: Duration::ZERO, ..ContextOptions::default() };
        let (client, mut server) = (Context::new(options()).unwrap(), Context::new(options()).unwrap());
        let at = format!("rdma://{host}:0/?source={source}").parse().unwrap();
        let listening = server.listen(&at, ServerOptions::default()).unwrap();
        let uri = server.local_uri(listening).unwrap();
        Ends { client, server, events: Vec::new(), server_events: Vec::new(), uri }
    }

    fn step(&mut self) {
        for (context, events) in
            [(&mut self.client, &mut self.events), (&mut self.server, &mut self.server_events)]
        {
            context.wait(Some(Duration::ZERO)).unwrap();
            events.extend(std::iter::from_fn(|| context.next_event()));
        }
    }

    /// The client's next event.
    fn event(&mut self) -> Event {
        let start = Instant::now();
        while self.events.is_empty() {
            assert!(start.elapsed() < LONG, "{:?}", self.server_events);
            self.step();
        }
        self.events.remove(0)
    }

    fn connect(&mut self) -> (Connection, Connection) {
        let here =
            self.client.connect(&Session::new(self.uri.clone()), ConnectionOptions::default()).unwrap();
        let start = Instant::now();
        let there = loop {
            assert!(start.elapsed() < LONG, "{:?}", self.events);
            self.step();
            if let Some(Event::ConnectionRequest(request)) = self.server_events.pop() {
                break self.server.accept(request, AcceptOptions::new()).unwrap();
            }
        };
        let event = self.event();
        assert!(matches!(event, Event::Connected { .. }), "{event:?}");
        (here, there)
    }

    /// Exposes the middle of a region that is three times as long, and waits until the client is granted it.
    fn expose(&mut self, there: Connection, access: Access) -> (Region, RemoteRegion, Remote) {
        let region = Region::allocate(3 * LENGTH, false).unwrap();
        let grants = SEEN.with_borrow(Vec::len);
        let remote = self.server.expose(there, &region, LENGTH, LENGTH, access).unwrap();
        let start = Instant::now();
        while SEEN.with_borrow(Vec::len) == grants {
            assert!(start.elapsed() < LONG, "no grant");
            self.step();
        }
        (region, remote, last_grant())
    }

    /// Operations that the device did, and that were refused.
    fn counts(&self) -> (u64, u64) {
        let found = self.client.statistics().snapshot();
        (found.operations_alone, found.operations_refused)
    }

    fn write(&mut self, here: Connection, remote: &RemoteRegion) {
        let mut data = self.client.pool().take_list(LENGTH).unwrap();
        data.scatter(0, &[7; LENGTH]);
        self.client.remote_write(here, remote, 0, data, 1, SendOptions::default()).unwrap();
        let event = self.event();
        assert!(matches!(event, Event::Response { outcome: Ok(_), .. }), "{event:?}");
    }

    fn read(&mut self, here: Connection, remote: &RemoteRegion) -> Sgl {
        let landing = Landing::Pool(LENGTH as u32);
        self.client.remote_read(here, remote, 0, landing, 1, SendOptions::default()).unwrap();
        match self.event() {
            Event::Response { outcome: Ok(reply), .. } => reply.data,
            other => panic!("{other:?}"),
        }
    }

    /// The device is asked for this place in a write, and a read, to memory that was granted: they are refused, go by
    /// frames to where they should, and afterwards the device does the next ones again.
    fn lie(&mut self, here: Connection, own: &RemoteRegion, place: Remote, what: &str) {
        for write in [true, false] {
            let (alone, refused) = self.counts();
            FORGED.set(Some(place));
            if write {
                self.write(here, own);
            } else {
                assert_eq!(self.read(here, own).to_vec(), [7; LENGTH], "{what}");
            }
            assert_eq!(self.counts(), (alone, refused + 1), "{what}, write: {write}");
            let start = Instant::now();
            while self.counts() == (alone, refused + 1) {
                assert!(start.elapsed() < LONG, "{what}: the device does nothing any more");
                self.write(here, own);
                self.step();
            }
        }
    }
}

fn content(region: &Region) -> Vec<u8> {
    region.slice(0, region.len()).unwrap().to_vec()
}

#[test]
#[ignore = "needs RDMA devices: cargo xtask test --only rdma"]
fn another_links_key_opens_nothing() {
    let mut ends = Ends::new();
    let (victim, victims_peer) = ends.connect();
    let (here, there) = ends.connect();
    let (memory, remote, place) = ends.expose(victims_peer, Access::READ_WRITE);
    let (_, own, _) = ends.expose(there, Access::READ_WRITE);
    ends.lie(here, &own, place, "another link's key");
    assert_eq!(content(&memory), [0; 3 * LENGTH]);
    // Whose key it is does not notice.
    let (alone, refused) = ends.counts();
    assert_eq!(ends.read(victim, &remote).to_vec(), [0; LENGTH]);
    assert_eq!(ends.counts(), (alone + 1, refused));
}

#[test]
#[ignore = "needs RDMA devices: cargo xtask test --only rdma"]
fn a_revoked_key_opens_nothing() {
    let mut ends = Ends::new();
    let (here, there) = ends.connect();
    let (_, own, _) = ends.expose(there, Access::READ_WRITE);
    let (memory, remote, place) = ends.expose(there, Access::READ_WRITE);
    ends.server.revoke(there, &remote).unwrap();
    ends.lie(here, &own, place, "a revoked key");
    assert_eq!(content(&memory), [0; 3 * LENGTH]);
}

#[test]
#[ignore = "needs RDMA devices: cargo xtask test --only rdma"]
fn a_key_opens_nothing_beyond_its_memory() {
    let mut ends = Ends::new();
    let (here, there) = ends.connect();
    let (_, own, _) = ends.expose(there, Access::READ_WRITE);
    let (memory, _, place) = ends.expose(there, Access::READ_WRITE);
    for address in [place.address - 1, place.address + 1, place.address + LENGTH as u64] {
        ends.lie(here, &own, Remote { address, ..place }, "a place beyond its memory");
        assert_eq!(content(&memory), [0; 3 * LENGTH], "{address:#x} for {place:?}");
    }
}

#[test]
#[ignore = "needs RDMA devices: cargo xtask test --only rdma"]
fn memory_for_reading_is_not_written() {
    let mut ends = Ends::new();
    let (here, there) = ends.connect();
    let (_, own, _) = ends.expose(there, Access::READ_WRITE);
    let (memory, _, place) = ends.expose(there, Access::READ);
    let (alone, refused) = ends.counts();
    FORGED.set(Some(place));
    ends.write(here, &own);
    assert_eq!(ends.counts(), (alone, refused + 1));
    assert_eq!(content(&memory), [0; 3 * LENGTH]);
}

/// A side that has exposed memory says why it ends a connection that broke a rule; then nobody reaches the memory.
#[test]
#[ignore = "needs RDMA devices: cargo xtask test --only rdma"]
fn who_breaks_a_rule_is_told_though_memory_is_exposed() {
    let mut ends = Ends::new();
    let (here, there) = ends.connect();
    let (memory, remote, place) = ends.expose(there, Access::READ_WRITE);
    ends.write(here, &remote);
    // A request for a slot that was never given.
    ends.client
        .forge_frame(here, FrameHead { slot: u16::MAX, sequence: 1, ..FrameHead::new(FrameKind::Request) });
    let event = ends.event();
    let Event::Closed { reason: Error::Closed(said), .. } = event else { panic!("{event:?}") };
    assert!(said.contains("slot"), "{said}");
    let start = Instant::now();
    while !ends.server_events.iter().any(|event| matches!(event, Event::Closed { .. })) {
        assert!(start.elapsed() < LONG, "{:?}", ends.server_events);
        ends.step();
    }
    let (other, theres) = ends.connect();
    let (_, own, _) = ends.expose(theres, Access::READ_WRITE);
    ends.lie(other, &own, place, "the key of a connection that has ended");
    assert_eq!(content(&memory)[LENGTH..2 * LENGTH], [7; LENGTH]);
    assert_eq!(content(&memory)[..LENGTH], [0; LENGTH]);
}
