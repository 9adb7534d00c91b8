//! One-sided reads and writes of exposed memory.

use crate::{Make, Pair, pattern};
use libxio::{
    Access, Connection, Error, Event, Landing, OutgoingOneWay, Region, RemoteRegion, SendOptions, Sgl,
};

const LENGTH: usize = 100_000;

/// A connection whose server has exposed a part of a region (which begins 1,000 bytes into it).
fn exposed(make: Make<'_>, access: Access) -> (Pair, Connection, Connection, Region, RemoteRegion) {
    let mut pair = Pair::new(make());
    let (here, there) = pair.connect();
    let region = Region::allocate(LENGTH + 2000, false).unwrap();
    let given = pair.server.expose(there, &region, 1000, LENGTH, access).unwrap();
    // As applications do: in a message.
    pair.server.send(there, OutgoingOneWay { header: &given.to_bytes(), ..Default::default() }).unwrap();
    let Event::OneWay(message) = pair.client_event() else { panic!() };
    let remote = RemoteRegion::from_bytes(message.header()).unwrap();
    assert_eq!((remote, remote.length(), remote.access()), (given, LENGTH as u64, access));
    (pair, here, there, region, remote)
}

#[track_caller]
fn outcome(pair: &mut Pair, token: u64) -> Result<Sgl, Error> {
    match pair.client_event() {
        Event::Response { token: found, outcome, .. } if found == token => outcome.map(|reply| reply.data),
        other => panic!("not the end of the operation but {other:?}"),
    }
}

fn bytes_of(region: &Region, offset: usize, length: usize) -> Vec<u8> {
    region.slice(offset, length).unwrap().to_vec()
}

/// What is written is in the owner's memory, and is read back; the owner's application sees nothing.
pub fn memory_is_read_and_written(make: Make<'_>) {
    let (mut pair, here, _, region, remote) = exposed(make, Access::READ_WRITE);
    let none = SendOptions::default();
    for (offset, length) in [(0, 1), (17, 4096), (0, LENGTH), (LENGTH - 5, 5), (LENGTH, 0)] {
        let data = pattern(length, offset as u8);
        pair.client.remote_write(here, &remote, offset as u64, data.clone().into(), 1, none).unwrap();
        assert!(outcome(&mut pair, 1).unwrap().is_empty());
        assert!(bytes_of(&region, 1000 + offset, length) == data);
        let landing = Landing::Place(vec![0; length].into());
        pair.client.remote_read(here, &remote, offset as u64, landing, 2, none).unwrap();
        assert!(outcome(&mut pair, 2).unwrap().to_vec() == data);
        let landing = Landing::Pool(length as u32);
        pair.client.remote_read(here, &remote, offset as u64, landing, 3, none).unwrap();
        assert!(outcome(&mut pair, 3).unwrap().to_vec() == data);
    }
    assert_eq!(bytes_of(&region, 0, 1000), vec![0; 1000], "before it nothing is touched");
    assert_eq!(bytes_of(&region, 1000 + LENGTH, 1000), vec![0; 1000], "behind it nothing is touched");
    assert!(pair.server_events.is_empty(), "{:?}", pair.server_events);
    pair.finish(here);
}

/// Many at once, each with its own part.
pub fn many_operations_at_once(make: Make<'_>) {
    let (mut pair, here, _, region, remote) = exposed(make, Access::READ_WRITE);
    for part in 0..100_u64 {
        let data = pattern(1000, part as u8).into();
        pair.client.remote_write(here, &remote, part * 1000, data, part, SendOptions::default()).unwrap();
    }
    pair.until("all writes", |pair| pair.client_events.len() == 100);
    pair.client_events.clear();
    for part in 0..100 {
        assert!(bytes_of(&region, 1000 + part * 1000, 1000) == pattern(1000, part as u8));
        let landing = Landing::Pool(1000);
        pair.client
            .remote_read(here, &remote, part as u64 * 1000, landing, part as u64, SendOptions::default())
            .unwrap();
    }
    pair.until("all reads", |pair| pair.client_events.len() == 100);
    for event in std::mem::take(&mut pair.client_events) {
        let Event::Response { token, outcome, .. } = event else { panic!("{event:?}") };
        assert!(outcome.unwrap().data.to_vec() == pattern(1000, token as u8));
    }
    pair.finish(here);
}

/// A client may expose memory as well.
pub fn the_server_may_reach_the_client(make: Make<'_>) {
    let mut pair = Pair::new(make());
    let (here, there) = pair.connect();
    let region = Region::allocate(4096, false).unwrap();
    let remote = pair.client.expose(here, &region, 0, 4096, Access::WRITE).unwrap();
    let data = Sgl::from(b"from the server".to_vec());
    pair.server.remote_write(there, &remote, 100, data, 1, SendOptions::default()).unwrap();
    assert!(matches!(pair.server_event(), Event::Response { outcome: Ok(_), .. }));
    assert_eq!(bytes_of(&region, 100, 15), b"from the server");
    pair.finish(here);
}

/// The owner checks bounds, permission and key, whatever the other side believes.
pub fn bounds_permission_and_key_are_checked_by_the_owner(make: Make<'_>) {
    let (mut pair, here, _, region, remote) = exposed(make, Access::READ);
    let none = SendOptions::default();
    let landing = || Landing::Pool(10);
    // By the description, at once.
    let denied = pair.client.remote_write(here, &remote, 0, vec![1].into(), 1, none);
    assert!(matches!(denied, Err(Error::NotPermitted)), "{denied:?}");
    for offset in [LENGTH as u64 - 9, LENGTH as u64, u64::MAX] {
        let outside = pair.client.remote_read(here, &remote, offset, landing(), 1, none);
        assert!(matches!(outside, Err(Error::OutOfBounds)), "{outside:?}");
    }
    // With a description that was tampered with, by the owner.
    let tampered = |change: fn(&mut [u8])| {
        let mut bytes = remote.to_bytes();
        change(&mut bytes);
        RemoteRegion::from_bytes(&bytes).unwrap()
    };
    let writable = tampered(|bytes| bytes[4] = 3);
    pair.client.remote_write(here, &writable, 0, vec![1; 50].into(), 2, none).unwrap();
    assert!(matches!(outcome(&mut pair, 2), Err(Error::NotPermitted)));
    let longer = tampered(|bytes| bytes[15] = 0xFF);
    for offset in [LENGTH as u64 - 9, LENGTH as u64 + 1, u64::MAX - (1 << 56), 1 << 40] {
        pair.client.remote_read(here, &longer, offset, landing(), 3, none).unwrap();
        assert!(matches!(outcome(&mut pair, 3), Err(Error::OutOfBounds)));
    }
    for other in
        [tampered(|bytes| bytes[16] ^= 1), tampered(|bytes| bytes[31] ^= 1), tampered(|bytes| bytes[0] = 9)]
    {
        pair.client.remote_read(here, &other, 0, landing(), 4, none).unwrap();
        assert!(matches!(outcome(&mut pair, 4), Err(Error::NotExposed)));
    }
    assert_eq!(bytes_of(&region, 1000, 100), vec![0; 100]);
    pair.finish(here);
}

/// Another connection's key is good for nothing.
pub fn memory_is_exposed_to_one_connection_only(make: Make<'_>) {
    let (mut pair, here, _, _, remote) = exposed(make, Access::READ_WRITE);
    let (other, _) = pair.connect();
    pair.client.remote_read(other, &remote, 0, Landing::Pool(1), 1, SendOptions::default()).unwrap();
    assert!(matches!(outcome(&mut pair, 1), Err(Error::NotExposed)));
    pair.client.abort(other).unwrap();
    pair.until("its end", |pair| pair.server_events.len() + pair.client_events.len() == 2);
    pair.finish(here);
}

/// Revoked memory is not touched any more, and its number comes back with another key.
pub fn exposed_memory_can_be_revoked(make: Make<'_>) {
    let (mut pair, here, there, region, remote) = exposed(make, Access::READ_WRITE);
    pair.server.revoke(there, &remote).unwrap();
    assert!(matches!(pair.server.revoke(there, &remote), Err(Error::StaleHandle(_))));
    let again = pair.server.expose(there, &region, 0, LENGTH, Access::READ_WRITE).unwrap();
    assert_ne!(again, remote);
    pair.client.remote_write(here, &remote, 0, vec![1; 5000].into(), 1, SendOptions::default()).unwrap();
    assert!(matches!(outcome(&mut pair, 1), Err(Error::NotExposed)));
    assert_eq!(bytes_of(&region, 0, LENGTH), vec![0; LENGTH]);
    pair.client.remote_write(here, &again, 0, vec![1; 5000].into(), 2, SendOptions::default()).unwrap();
    assert!(outcome(&mut pair, 2).is_ok());
    pair.finish(here);
}

/// Also while the data of a write is coming in: what is written after the revoke does not land.
pub fn a_write_on_its_way_ends_at_the_revoke(make: Make<'_>) {
    let mut pair = Pair::new(make());
    let (here, there) = pair.connect();
    let length = 4 << 20;
    let region = Region::allocate(length, false).unwrap();
    let remote = pair.server.expose(there, &region, 0, length, Access::WRITE).unwrap();
    pair.client.remote_write(here, &remote, 0, vec![1; length].into(), 1, SendOptions::default()).unwrap();
    let begun = |pair: &Pair| pair.server.statistics().snapshot().bytes_received > 10_000;
    while !begun(&pair) && pair.client_events.is_empty() {
        pair.step();
    }
    pair.server.revoke(there, &remote).unwrap();
    let at_revoke = bytes_of(&region, 0, length);
    let ended = outcome(&mut pair, 1);
    assert!(bytes_of(&region, 0, length) == at_revoke, "written after the revoke");
    assert!(ended.is_err() || at_revoke == vec![1; length], "{ended:?}");
    pair.finish(here);
}
