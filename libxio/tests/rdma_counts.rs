//! What an operation over RDMA costs: work requests, doorbells, completions and copies on each side, as
//! docs/ARCHITECTURE.md says it. Needs RDMA devices, as the conformance suite in `rdma.rs`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod rdma_support;

use conformance::{Pair, pattern};
use libxio::{
    Access, Error, Event, Landing, OutgoingRequest, OutgoingResponse, Region, SendOptions, ServerOptions,
    Sgl, StatisticsSnapshot,
};

/// Operations that are counted; those before have warmed everything up.
const COUNT: u64 = 64;

/// Counts of one side, per [`COUNT`] operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Counts {
    posts: u64,
    doorbells: u64,
    completions: u64,
    copied: u64,
}

fn between(before: &StatisticsSnapshot, after: &StatisticsSnapshot) -> Counts {
    Counts {
        posts: after.rdma_posts - before.rdma_posts,
        doorbells: after.rdma_doorbells - before.rdma_doorbells,
        completions: after.rdma_completions - before.rdma_completions,
        copied: after.rdma_bytes_copied - before.rdma_bytes_copied,
    }
}

/// Runs operations one after another; what they cost the client and the server.
fn measure(request: usize, response: usize, answer: impl Fn(&Pair) -> Sgl) -> (Counts, Counts) {
    let mut pair = Pair::new(rdma_support::fabric());
    let (connection, _) = pair.connect();
    let mut before = None;
    for round in 0..COUNT + 8 {
        if round == 8 {
            before = Some((pair.client.statistics().snapshot(), pair.server.statistics().snapshot()));
        }
        let data = if request > 0 {
            let mut list = pair.client.pool().take_list(request).unwrap();
            list.scatter(0, &pattern(request, round as u8));
            list
        } else {
            Sgl::new()
        };
        let landing = if response > 0 {
            Landing::Place(pair.client.pool().take_list(response).unwrap())
        } else {
            Landing::None
        };
        let header = [round as u8; 64];
        let request = OutgoingRequest { data, landing, ..OutgoingRequest::new(&header, round) };
        pair.client.request(connection, request).unwrap();
        let request = pair.request();
        let data = answer(&pair);
        pair.server.respond(request, OutgoingResponse { header: &header, data }).unwrap();
        let Event::Response { outcome: Ok(reply), .. } = pair.client_event() else { panic!() };
        assert_eq!((reply.header[0], reply.data.len()), (round as u8, response));
        // The last completions of this operation come in.
        pair.settle_briefly();
    }
    let (client, server) = before.unwrap();
    (
        between(&client, &pair.client.statistics().snapshot()),
        between(&server, &pair.server.statistics().snapshot()),
    )
}

trait Settle {
    fn settle_briefly(&mut self);
}

impl Settle for Pair {
    fn settle_briefly(&mut self) {
        for _ in 0..20 {
            self.step();
        }
    }
}

/// Completions that tell of work without data: one for 64 requests, in either direction.
const RARE: u64 = COUNT / 64 + 1;

#[track_caller]
fn assert_costs(counts: Counts, posts: u64, doorbells: u64, completions: u64, copied: u64) {
    let expected = Counts { posts, doorbells, completions, copied };
    assert_eq!(
        (counts.posts, counts.doorbells, counts.copied),
        (posts * COUNT, doorbells * COUNT, copied * COUNT),
        "{counts:?} for {COUNT} operations, of which each should cost {expected:?}"
    );
    let range = completions * COUNT..=completions * COUNT + RARE;
    assert!(range.contains(&counts.completions), "{counts:?} for {COUNT} operations, each {expected:?}");
}

#[test]
fn a_small_message_each_way_is_a_send_each() {
    let (client, server) = measure(0, 0, |_| Sgl::new());
    assert_costs(client, 1, 1, 1, 0);
    assert_costs(server, 1, 1, 1, 0);
}

#[test]
fn little_data_is_free_when_it_is_in_the_message() {
    let (client, server) = measure(64, 64, |pair| {
        let mut list = pair.server.pool().take_list(64).unwrap();
        list.scatter(0, &[7; 64]);
        list
    });
    // Copied into the message and out of it; no completion tells that the memory is free.
    assert_costs(client, 1, 1, 1, 128);
    assert_costs(server, 1, 1, 1, 128);
}

#[test]
fn four_kilobytes_travel_in_the_message_and_are_copied_once() {
    let (client, server) = measure(0, 4096, |pair| pair.server.pool().take_list(4096).unwrap());
    assert_costs(client, 1, 1, 1, 4096);
    // The completion of the SEND gives the data's memory back.
    assert_costs(server, 1, 1, 2, 0);
}

#[test]
fn a_large_response_is_written_into_its_place() {
    let (client, server) = measure(0, 1 << 20, |pair| pair.server.pool().take_list(1 << 20).unwrap());
    assert_costs(client, 1, 1, 1, 0);
    assert_costs(server, 2, 1, 2, 0);
}

#[test]
fn zeros_are_sent_from_where_they_lie() {
    let (client, server) = measure(0, 256 << 10, |_| libxio::zeros(256 << 10));
    assert_costs(client, 1, 1, 1, 0);
    assert_costs(server, 2, 1, 2, 0);
}

#[test]
fn exposed_memory_is_written_into_the_readers_place() {
    const LENGTH: usize = 1 << 20;
    // As where the reader's device can't do it alone (`rdma_one_sided.rs`).
    let mut pair = Pair::with(
        rdma_support::fabric(),
        |options| options.rdma.one_sided = false,
        |_| {},
        ServerOptions::default(),
    );
    let (connection, peer) = pair.connect();
    let region = Region::allocate(LENGTH, false).unwrap();
    let content = pattern(LENGTH, 9);
    region.slice(0, LENGTH).map(Sgl::from).unwrap().scatter(0, &content);
    let exposed = pair.server.expose(peer, &region, 0, LENGTH, Access::READ).unwrap();
    let mut before = None;
    for round in 0..COUNT + 8 {
        if round == 8 {
            before = Some((pair.client.statistics().snapshot(), pair.server.statistics().snapshot()));
        }
        let landing = Landing::Place(pair.client.pool().take_list(LENGTH).unwrap());
        pair.client.remote_read(connection, &exposed, 0, landing, round, SendOptions::default()).unwrap();
        let Event::Response { outcome: Ok(reply), .. } = pair.client_event() else { panic!() };
        assert!(reply.data.to_vec() == content);
        pair.settle_briefly();
    }
    let (client, server) = before.unwrap();
    assert_costs(between(&client, &pair.client.statistics().snapshot()), 1, 1, 1, 0);
    assert_costs(between(&server, &pair.server.statistics().snapshot()), 2, 1, 2, 0);
    // What was taken back is out of reach, and the connection goes on.
    pair.server.revoke(peer, &exposed).unwrap();
    let landing = Landing::Place(pair.client.pool().take_list(LENGTH).unwrap());
    pair.client.remote_read(connection, &exposed, 0, landing, 1, SendOptions::default()).unwrap();
    let event = pair.client_event();
    assert!(matches!(event, Event::Response { outcome: Err(Error::NotExposed), .. }), "{event:?}");
    pair.finish(connection);
}

#[test]
fn a_large_request_is_read_from_where_it_lies() {
    let (client, server) = measure(256 << 10, 0, |_| Sgl::new());
    assert_costs(client, 1, 1, 1, 0);
    assert_costs(server, 2, 2, 2, 0);
}
