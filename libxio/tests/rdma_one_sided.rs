//! One-sided operations over RDMA that the asking side's device does alone: the owner's processor has no part in them;
//! what is taken back is out of reach at once, also in the middle of an access, and the connection goes on; where one of
//! the sides can't, frames are the way.
//!
//! Needs RDMA devices, as the conformance suite in `rdma.rs`, and the `rdma` command; run with one test at a time.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod rdma_support;

use conformance::{Pair, pattern, watchdog};
use libxio::{
    Access, Connection, ContextOptions, Error, Event, Landing, Region, RemoteRegion, SendOptions,
    ServerOptions, Sgl, StatisticsSnapshot,
};
use std::time::Duration;

const LENGTH: usize = 1 << 20;
/// Queue pairs that a side opens for accesses on one link: each refused access ends one.
const OPENS_MAX: u64 = 8;

/// A connection whose server has exposed a region.
fn exposed(
    access: Access,
    change_client: impl Fn(&mut ContextOptions),
    change_server: impl Fn(&mut ContextOptions),
) -> (Pair, Connection, Connection, Region, RemoteRegion) {
    let mut pair = Pair::with(rdma_support::fabric(), change_client, change_server, ServerOptions::default());
    let (connection, peer) = pair.connect();
    let region = Region::allocate(LENGTH, false).unwrap();
    fill(&region, &pattern(LENGTH, 9));
    let remote = pair.server.expose(peer, &region, 0, LENGTH, access).unwrap();
    settle(&mut pair);
    (pair, connection, peer, region, remote)
}

fn fill(region: &Region, bytes: &[u8]) {
    Sgl::from(region.slice(0, bytes.len()).unwrap()).scatter(0, bytes);
}

fn content(region: &Region) -> Vec<u8> {
    region.slice(0, region.len()).unwrap().to_vec()
}

/// The two ends tell each other what may be reached.
fn settle(pair: &mut Pair) {
    for _ in 0..200 {
        pair.step();
    }
}

fn read(pair: &mut Pair, connection: Connection, remote: &RemoteRegion, length: usize) -> Result<Sgl, Error> {
    let landing = Landing::Pool(length as u32);
    pair.client.remote_read(connection, remote, 0, landing, 1, SendOptions::default()).unwrap();
    outcome(pair)
}

fn write(pair: &mut Pair, connection: Connection, remote: &RemoteRegion, bytes: &[u8]) -> Result<Sgl, Error> {
    let mut data = pair.client.pool().take_list(bytes.len()).unwrap();
    data.scatter(0, bytes);
    pair.client.remote_write(connection, remote, 0, data, 2, SendOptions::default()).unwrap();
    outcome(pair)
}

#[track_caller]
fn outcome(pair: &mut Pair) -> Result<Sgl, Error> {
    match pair.client_event() {
        Event::Response { outcome, .. } => outcome.map(|reply| reply.data),
        other => panic!("not the end of the operation but {other:?}"),
    }
}

fn snapshots(pair: &Pair) -> (StatisticsSnapshot, StatisticsSnapshot) {
    (pair.client.statistics().snapshot(), pair.server.statistics().snapshot())
}

/// Posts, doorbells, completions and copied bytes between two moments.
fn costs(before: &StatisticsSnapshot, after: &StatisticsSnapshot) -> [u64; 4] {
    [
        after.rdma_posts - before.rdma_posts,
        after.rdma_doorbells - before.rdma_doorbells,
        after.rdma_completions - before.rdma_completions,
        after.rdma_bytes_copied - before.rdma_bytes_copied,
    ]
}

#[test]
fn the_owner_has_no_part_in_reads_and_writes() {
    watchdog();
    // Nobody is asked whether he lives: the owner hears nothing all the time.
    let quiet = |options: &mut ContextOptions| options.keepalive = Duration::from_secs(3600);
    let (mut pair, connection, _, region, remote) = exposed(Access::READ_WRITE, quiet, quiet);
    for (length, rounds) in [(8, 40), (4096, 40), (LENGTH, 6)] {
        let mut before = None;
        for round in 0..rounds + 2 {
            if round == 2 {
                before = Some(snapshots(&pair));
            }
            let bytes = pattern(length, round as u8);
            write(&mut pair, connection, &remote, &bytes).unwrap();
            assert!(region.slice(0, length).unwrap().to_vec() == bytes, "it is there when its end is told");
            assert!(read(&mut pair, connection, &remote, length).unwrap().to_vec() == bytes);
        }
        let (before, after) = (before.unwrap(), snapshots(&pair));
        let operations = 2 * rounds;
        assert_eq!(costs(&before.0, &after.0), [operations, operations, operations, 0], "of {length} bytes");
        assert_eq!(costs(&before.1, &after.1), [0; 4], "of {length} bytes");
        assert_eq!(after.0.operations_alone - before.0.operations_alone, operations);
        assert_eq!(after.0.frames_sent, before.0.frames_sent);
    }
    pair.finish(connection);
}

/// Both ways at once, on one connection, and many at a time: more than the queue pair takes go by frames.
#[test]
fn many_at_a_time_in_both_directions() {
    watchdog();
    let (mut pair, here, there, _, remote) = exposed(Access::READ, |_| {}, |_| {});
    let own = Region::allocate(LENGTH, false).unwrap();
    let given = pair.client.expose(here, &own, 0, LENGTH, Access::WRITE).unwrap();
    settle(&mut pair);
    let part = LENGTH / 128;
    for round in 0..128_u64 {
        let at = round * part as u64;
        let none = SendOptions::default();
        pair.client.remote_read(here, &remote, at, Landing::Pool(part as u32), round, none).unwrap();
        let mut data = pair.server.pool().take_list(part).unwrap();
        data.scatter(0, &pattern(part, round as u8));
        pair.server.remote_write(there, &given, at, data, round, none).unwrap();
    }
    pair.until("all", |pair| pair.client_events.len() == 128 && pair.server_events.len() == 128);
    let expected = pattern(LENGTH, 9);
    for event in std::mem::take(&mut pair.client_events) {
        let Event::Response { token, outcome, .. } = event else { panic!("{event:?}") };
        let at = token as usize * part;
        assert!(outcome.unwrap().data.to_vec() == expected[at..at + part]);
    }
    pair.server_events.clear();
    for (round, bytes) in content(&own).chunks(part).enumerate() {
        assert!(bytes == pattern(part, round as u8));
    }
    for side in [&pair.client, &pair.server] {
        let alone = side.statistics().snapshot().operations_alone;
        assert!((32..=128).contains(&alone), "{alone}");
    }
    pair.finish(here);
}

#[test]
fn what_was_taken_back_is_an_error_and_ends_nothing() {
    watchdog();
    let (mut pair, connection, peer, region, remote) = exposed(Access::READ_WRITE, |_| {}, |_| {});
    read(&mut pair, connection, &remote, 4096).unwrap();
    pair.server.revoke(peer, &remote).unwrap();
    let before = content(&region);
    // At once, before the peer may have heard of it; and after that.
    for _ in 0..2 {
        let ended = write(&mut pair, connection, &remote, &[1; 4096]);
        assert!(matches!(ended, Err(Error::NotExposed)), "{ended:?}");
        let ended = read(&mut pair, connection, &remote, 4096);
        assert!(matches!(ended, Err(Error::NotExposed)), "{ended:?}");
        settle(&mut pair);
    }
    assert!(content(&region) == before);
    // The same number again, with another key.
    let again = pair.server.expose(peer, &region, 0, LENGTH, Access::READ).unwrap();
    settle(&mut pair);
    let alone = pair.client.statistics().snapshot().operations_alone;
    assert!(read(&mut pair, connection, &again, 4096).unwrap().to_vec() == before[..4096]);
    assert_eq!(pair.client.statistics().snapshot().operations_alone, alone + 1);
    let ended = read(&mut pair, connection, &remote, 4096);
    assert!(matches!(ended, Err(Error::NotExposed)), "{ended:?}");
    pair.finish(connection);
}

/// Time and again, more often than queue pairs are opened: from then on frames are the way.
#[test]
fn an_access_on_its_way_ends_at_the_revoke() {
    watchdog();
    const LENGTH: usize = 4 << 20;
    let (mut pair, connection, peer, _, _) = exposed(Access::WRITE, |_| {}, |_| {});
    let region = Region::allocate(LENGTH, false).unwrap();
    let mut remote = pair.server.expose(peer, &region, 0, LENGTH, Access::WRITE).unwrap();
    settle(&mut pair);
    let mut refused = 0;
    for round in 0..2 * OPENS_MAX {
        fill(&region, &vec![0; LENGTH]);
        let data = vec![1; LENGTH].into();
        pair.client.remote_write(connection, &remote, 0, data, 1, SendOptions::default()).unwrap();
        let begun = |region: &Region| region.slice(0, 1).unwrap().to_vec() == [1];
        while !begun(&region) && pair.client_events.is_empty() {
            pair.step();
        }
        pair.server.revoke(peer, &remote).unwrap();
        let at_revoke = content(&region);
        let ended = outcome(&mut pair);
        assert!(content(&region) == at_revoke, "round {round}: written after the revoke");
        assert!(ended.is_err() || at_revoke == vec![1; LENGTH], "round {round}: {ended:?}");
        refused += u64::from(ended.is_err());
        remote = pair.server.expose(peer, &region, 0, LENGTH, Access::WRITE).unwrap();
        settle(&mut pair);
    }
    let found = pair.client.statistics().snapshot();
    println!("{refused} of {} ended in the middle, {} by refusal", 2 * OPENS_MAX, found.operations_refused);
    assert!(refused > 0 && found.operations_refused > 0, "none was on its way");
    assert!(found.operations_refused <= OPENS_MAX);
    write(&mut pair, connection, &remote, &[3; 5000]).unwrap();
    assert!(content(&region)[..5000] == [3; 5000]);
    pair.finish(connection);
}

#[test]
fn frames_are_the_way_where_one_side_can_not() {
    watchdog();
    let off = |options: &mut ContextOptions| options.rdma.one_sided = false;
    let sum = |options: &mut ContextOptions| options.crc = true;
    let none = |_: &mut ContextOptions| {};
    let cases: [[fn(&mut ContextOptions); 2]; 4] = [[off, none], [none, off], [off, off], [sum, sum]];
    for [client, server] in cases {
        let (mut pair, connection, peer, region, remote) = exposed(Access::READ_WRITE, client, server);
        write(&mut pair, connection, &remote, &[5; 70_000]).unwrap();
        assert!(content(&region)[..70_000] == [5; 70_000]);
        assert!(read(&mut pair, connection, &remote, LENGTH).unwrap().to_vec() == content(&region));
        pair.server.revoke(peer, &remote).unwrap();
        assert!(matches!(read(&mut pair, connection, &remote, 1), Err(Error::NotExposed)));
        assert_eq!(pair.client.statistics().snapshot().operations_alone, 0);
        pair.finish(connection);
    }
}

/// A key is its link's alone: a connection that comes after it is given another.
#[test]
fn keys_do_not_outlive_their_link() {
    watchdog();
    let held = |kind| rdma_support::held("rxe0", kind);
    let before = [held("pd"), held("qp"), held("cq"), held("mr")];
    let (mut pair, connection, _, region, remote) = exposed(Access::READ_WRITE, |_| {}, |_| {});
    read(&mut pair, connection, &remote, 4096).unwrap();
    pair.client.abort(connection).unwrap();
    pair.until("the server's end", |pair| !pair.server_events.is_empty());
    pair.client_events.clear();
    pair.server_events.clear();
    let (connection, peer) = pair.connect();
    let again = pair.server.expose(peer, &region, 0, LENGTH, Access::READ_WRITE).unwrap();
    assert_ne!(again, remote);
    settle(&mut pair);
    for _ in 0..2 {
        let ended = read(&mut pair, connection, &remote, 4096);
        assert!(matches!(ended, Err(Error::NotExposed)), "{ended:?}");
    }
    let alone = pair.client.statistics().snapshot().operations_alone;
    read(&mut pair, connection, &again, 4096).unwrap();
    assert_eq!(pair.client.statistics().snapshot().operations_alone, alone + 1);
    pair.finish(connection);
    drop(pair);
    for (kind, count) in ["pd", "qp", "cq", "mr"].into_iter().zip(before) {
        rdma_support::assert_held("rxe0", kind, count);
    }
}
