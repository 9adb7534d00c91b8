//! Memory of the application's own that is registered as a region: the device learns of it once, however often it is used;
//! the device never uses what it knew of an address that was unmapped, or registered anew; and there is a limit.
//!
//! Needs RDMA devices, as the conformance suite in `rdma.rs`, and the `rdma` command; run with one test at a time.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod rdma_support;

use conformance::{Pair, pattern, watchdog};
use libxio::{Buffer, Connection, Landing, OutgoingRequest, Region, Sgl};
use std::ptr::{self, NonNull};

const LENGTH: usize = 128 << 10;
/// Regions that a domain registers at a time.
const REGISTRATIONS_MAX: u64 = 4096;

/// Pages of the application's own.
struct Pages {
    address: NonNull<libc::c_void>,
    length: usize,
}

impl Pages {
    /// Anywhere, or just here.
    fn map(length: usize, at: Option<NonNull<libc::c_void>>) -> Pages {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let flags = if at.is_some() { flags | libc::MAP_FIXED_NOREPLACE } else { flags };
        let place = at.map_or(ptr::null_mut(), NonNull::as_ptr);
        // SAFETY: new pages, which replace none.
        let address = unsafe { libc::mmap(place, length, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
        assert!(address != libc::MAP_FAILED && (at.is_none() || address == place));
        Pages { address: NonNull::new(address).unwrap(), length }
    }

    fn region(&self) -> Region {
        // SAFETY: the tests drop the region, and end what uses it, before the pages go.
        unsafe { Region::register(self.address.cast(), self.length) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: mapped by this, and nobody uses them any more.
        unsafe { libc::munmap(self.address.as_ptr(), self.length) };
    }
}

fn buffer(region: &Region) -> Buffer {
    region.slice(0, region.len()).unwrap()
}

/// Sends what is in one region, and has it sent back into another; what has come.
fn exchange(pair: &mut Pair, connection: Connection, from: &Region, into: &Region) -> Vec<u8> {
    let (data, landing) = (Sgl::from(buffer(from)), Landing::Place(buffer(into).into()));
    let request = OutgoingRequest { data, landing, ..OutgoingRequest::new(b"", 1) };
    let reply = pair.echo(connection, request);
    assert_eq!(reply.data.len(), from.len());
    drop(reply);
    buffer(into).to_vec()
}

/// Regions registered by the client, and memory registered for one operation.
fn made(pair: &Pair) -> (u64, u64) {
    let found = pair.client.statistics().snapshot();
    (found.rdma_registrations, found.rdma_registrations_once)
}

#[test]
fn a_region_is_registered_once() {
    watchdog();
    let mut pair = Pair::new(rdma_support::fabric());
    let (connection, _) = pair.connect();
    let (from, into) = (Pages::map(LENGTH, None), Pages::map(LENGTH, None));
    let (source, target) = (from.region(), into.region());
    let before = made(&pair);
    for round in 0..40 {
        let content = pattern(LENGTH, round);
        buffer(&source).copy_from(0, &content);
        assert!(exchange(&mut pair, connection, &source, &target) == content, "round {round}");
    }
    let after = made(&pair);
    assert_eq!((after.0 - before.0, after.1 - before.1), (2, 0));
    drop((source, target));
    pair.finish(connection);
}

/// The same memory in a new region, and the same address with other pages in it.
#[test]
fn nothing_old_is_used_for_an_address() {
    watchdog();
    let mut pair = Pair::new(rdma_support::fabric());
    let (connection, _) = pair.connect();
    let (mut from, mut into) = (Pages::map(LENGTH, None), Pages::map(LENGTH, None));
    exchange(&mut pair, connection, &from.region(), &into.region());
    let held = rdma_support::held("rxe1", "mr");
    for round in 1..=20 {
        if round % 2 == 0 {
            let places = (from.address, into.address);
            drop((from, into));
            (from, into) = (Pages::map(LENGTH, Some(places.0)), Pages::map(LENGTH, Some(places.1)));
        }
        let (source, target) = (from.region(), into.region());
        let content = pattern(LENGTH, round);
        buffer(&source).copy_from(0, &content);
        let before = made(&pair);
        for _ in 0..3 {
            assert!(exchange(&mut pair, connection, &source, &target) == content, "round {round}");
            buffer(&target).copy_from(0, &[0; LENGTH]);
        }
        let after = made(&pair);
        assert_eq!((after.0 - before.0, after.1 - before.1), (2, 0), "round {round}");
        drop((source, target));
        // Taken back before its owner may do anything with the memory.
        assert_eq!(rdma_support::held("rxe1", "mr"), held, "round {round}");
    }
    pair.finish(connection);
}

/// Of more regions, each stays as it is: what is beyond the limit is copied, until others have gone.
#[test]
fn there_is_a_limit() {
    watchdog();
    const SMALL: usize = 8 << 10;
    let mut pair = Pair::new(rdma_support::fabric());
    let (connection, _) = pair.connect();
    let pages = Pages::map(SMALL, None);
    let source = pages.region();
    buffer(&source).copy_from(0, &pattern(SMALL, 1));
    let mut targets = Vec::new();
    let all = Pages::map(SMALL * 4200, None);
    for number in 0..4200 {
        // SAFETY: inside the pages, which outlive the region.
        let target = unsafe { Region::register(all.address.cast::<u8>().add(number * SMALL), SMALL) };
        assert!(exchange(&mut pair, connection, &source, &target) == pattern(SMALL, 1), "region {number}");
        targets.push(target);
    }
    assert_eq!(made(&pair), (REGISTRATIONS_MAX, 0));
    assert!(rdma_support::held("rxe1", "mr") < REGISTRATIONS_MAX + 64);
    targets.truncate(4000);
    let target = Pages::map(SMALL, None);
    let region = target.region();
    assert!(exchange(&mut pair, connection, &source, &region) == pattern(SMALL, 1));
    assert!(made(&pair).0 > REGISTRATIONS_MAX, "there is room again");
    drop((region, targets, source));
    pair.finish(connection);
}
