//! Both ends of a pair of rings in one process.

use super::*;
use crate::Region;
use crate::mem::Account;
use std::os::fd::{AsFd, OwnedFd};

fn hold() -> Arc<PeerHold> {
    let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    PeerHold::new(OwnedFd::from(one), Account::unlimited())
}

fn pair() -> (Region, Rings, Rings) {
    let length = length_for(4096, 8192).unwrap();
    let region = Region::allocate(length, false).unwrap();
    let (memfd, _) = region.memfd_for(region.number(), 1).unwrap();
    let memfd = memfd.as_fd();
    let client = Rings::map(memfd, 4096, 8192, End::Client, hold()).unwrap();
    let server = Rings::map(memfd, 4096, 8192, End::Server, hold()).unwrap();
    (region, client, server)
}

fn take(rings: &mut Rings, room: usize) -> Vec<u8> {
    let mut bytes = vec![0; room];
    let moved = rings.read(&mut [IoVec::from_mut_slice(&mut bytes)]).unwrap();
    bytes.truncate(moved.bytes);
    bytes
}

#[test]
fn sizes_are_bounded() {
    for (upward, downward) in [(4096, 4095), (2048, 4096), (4096, 32 << 20), (0, 4096), (12_288, 4096)] {
        assert_eq!(length_for(upward, downward), None);
    }
    assert_eq!(length_for(4096, 16 << 20), Some(4096 + 4096 + (16 << 20)));
}

#[test]
fn bytes_go_both_ways_and_around() {
    let (_region, mut client, mut server) = pair();
    let mut next = 0_u8;
    for round in 0..200_usize {
        let bytes: Vec<u8> = (0..1 + round * 37 % 4096)
            .map(|_| {
                next = next.wrapping_add(1);
                next
            })
            .collect();
        let (one, other) = bytes.split_at(bytes.len() / 3);
        let pieces = [IoVec::from_slice(one), IoVec::from_slice(other)];
        assert_eq!(client.write(&pieces).unwrap().bytes, bytes.len());
        assert_eq!(take(&mut server, 8000), bytes);
        assert_eq!(server.write(&pieces).unwrap().bytes, bytes.len());
        assert_eq!(take(&mut client, 8000), bytes);
    }
}

#[test]
fn what_is_laid_out_comes_whole_and_only_when_published() {
    let (_region, mut client, mut server) = pair();
    let data = |byte: u8, length: usize| Sgl::from(crate::Buffer::from_vec(vec![byte; length]));
    let none = Sgl::new();
    let words: HeadWords = [1, 2, 3, 4, 5, u64::MAX];
    let head: [u8; FRAME_HEAD_BYTES] = zerocopy::transmute!(words.map(u64::to_le));
    for round in 0..100_u8 {
        let long = data(round, 1000);
        let header = vec![b'h'; usize::from(round)];
        assert!(client.lay_out(words, [b"more", &header], &long).unwrap());
        assert!(client.lay_out(words, [b"", b"next"], &none).unwrap());
        assert!(!server.has_arrived() && take(&mut server, 8000).is_empty());
        // Sent behind what was laid out, and with it.
        if round % 2 == 0 {
            assert_eq!(client.write(&[IoVec::from_slice(b"sent")]).unwrap().bytes, 4);
        } else {
            client.publish().unwrap();
        }
        let expected = [&head[..], b"more", &header, &[round; 1000], &head, b"next"].concat();
        let came = take(&mut server, 8000);
        assert_eq!(came[..expected.len()], expected);
        assert_eq!(&came[expected.len()..], if round % 2 == 0 { &b"sent"[..] } else { b"" });
        assert_eq!(client.publish().unwrap(), Bell::Silent, "nothing is left to tell");
    }
    let rest = 4096 - head.len();
    assert!(!client.lay_out(words, [b"x", b""], &data(1, rest)).unwrap(), "there is no room for it");
    assert!(client.lay_out(words, [b"", b""], &data(1, rest)).unwrap());
    assert!(!client.lay_out(words, [b"", b""], &none).unwrap(), "there is no room for it");
    client.publish().unwrap();
    assert_eq!(take(&mut server, 8000)[head.len()..], vec![1; rest]);
    assert!(client.lay_out(words, [b"", b""], &none).unwrap());
}

#[test]
fn a_full_ring_takes_no_more_and_rings_when_it_has_room() {
    let (_region, mut client, mut server) = pair();
    let bytes = vec![1; 5000];
    assert_eq!(client.write(&[IoVec::from_slice(&bytes)]).unwrap().bytes, 4096);
    assert_eq!(client.write(&[IoVec::from_slice(&bytes)]).unwrap().bytes, 0);
    assert!(!client.arm(true, true).unwrap());
    let mut room = [0; 10];
    let pieces = &mut [IoVec::from_mut_slice(&mut room)];
    assert_eq!(server.read(pieces).unwrap(), Moved { bytes: 10, bell: Bell::Message });
    assert_eq!(server.read(pieces).unwrap(), Moved { bytes: 10, bell: Bell::Silent });
    assert!(client.arm(true, true).unwrap(), "there is room");
    assert!(!client.arm(true, false).unwrap());
    assert_eq!(server.write(&[IoVec::from_slice(b"x")]).unwrap().bell, Bell::Message);
    assert_eq!(server.write(&[IoVec::from_slice(b"x")]).unwrap().bell, Bell::Silent);
    assert!(client.wait_on_word().is_none(), "it was rung by a message");
}

#[test]
fn who_waits_on_its_word_is_woken_there() {
    let (_region, mut client, mut server) = pair();
    for round in 0..2 {
        assert!(!client.arm(true, false).unwrap());
        let word = client.wait_on_word().unwrap();
        assert!(client.wait_on_word().is_none(), "it waits already");
        let bytes = [IoVec::from_slice(b"x")];
        assert_eq!(server.write(&bytes).unwrap().bell, Bell::Word, "{round}");
        // SAFETY: the address is in the mapped page, and this thread alone writes there.
        assert_ne!(unsafe { word.address.read_volatile() }, word.value);
        server.wake_peer();
        assert_eq!(take(&mut client, 10), b"x");
    }
    // For data alone, no room wakes it.
    client.write(&[IoVec::from_slice(&[1; 4096])]).unwrap();
    for (wants_room, bell) in [(false, Bell::Silent), (true, Bell::Word)] {
        assert!(!client.arm(true, wants_room).unwrap());
        client.wait_on_word().unwrap();
        let mut one = [0; 1];
        assert_eq!(server.read(&mut [IoVec::from_mut_slice(&mut one)]).unwrap().bell, bell);
        client.disarm();
        client.write(&[IoVec::from_slice(&[1; 1])]).unwrap();
    }
}

#[test]
fn a_large_ring_gives_room_back_in_time() {
    let (bytes, capacity) = (200, 128 << 10);
    let length = length_for(capacity, 4096).unwrap();
    let region = Region::allocate(length, false).unwrap();
    let (memfd, _) = region.memfd_for(region.number(), 1).unwrap();
    let mut client = Rings::map(memfd.as_fd(), capacity, 4096, End::Client, hold()).unwrap();
    let mut server = Rings::map(memfd.as_fd(), capacity, 4096, End::Server, hold()).unwrap();
    let room = |client: &Rings| {
        let Rings { memory, producer, places, .. } = client;
        producer.room(Rings::word(memory, places.out_tail)).unwrap() as usize
    };
    let message = vec![1; bytes];
    for _ in 0..2000 {
        assert_eq!(client.write(&[IoVec::from_slice(&message)]).unwrap().bytes, bytes);
        assert_eq!(take(&mut server, bytes).len(), bytes);
        assert!(room(&client) >= capacity as usize * 15 / 16 - bytes);
    }
    assert_eq!(server.give_room(), Bell::Silent);
    assert_eq!(room(&client), capacity as usize, "who goes to sleep gives all room back");
    // Who sleeps for want of room is rung at once.
    let all = vec![2; capacity as usize];
    assert_eq!(client.write(&[IoVec::from_slice(&all)]).unwrap().bytes, capacity as usize);
    assert!(!client.arm(true, true).unwrap());
    let mut one = [0; 1];
    let pieces = &mut [IoVec::from_mut_slice(&mut one)];
    assert_eq!(server.read(pieces).unwrap(), Moved { bytes: 1, bell: Bell::Message });
    assert_eq!(room(&client), 1);
}

#[test]
fn scribbled_words_are_noticed() {
    for place in [UPWARD_HEAD, UPWARD_TAIL] {
        let (region, mut client, mut server) = pair();
        client.write(&[IoVec::from_slice(b"hello")]).unwrap();
        region.slice(place, 8).unwrap().copy_from(0, &u64::MAX.to_le_bytes());
        let mut room = [0; 10];
        let read = server.read(&mut [IoVec::from_mut_slice(&mut room)]);
        let written = client.write(&[IoVec::from_slice(b"x")]);
        assert!(
            matches!(read, Err(Violation::RingPosition { .. }))
                || matches!(written, Ok(Moved { bytes: 1, .. }) | Err(Violation::RingPosition { .. }))
        );
    }
}
