//! Many requests in flight on one file.

#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use raio::engine::{Engine, Operation, Outcome};
use raio::proto::OpenFlags;
use raio::{ClientOptions, Error, OpenOptions, Queue};
use std::collections::HashSet;
use std::time::Duration;
use support::{Server, minute, noise};

fn open(server: &Server, name: &str, depth: usize) -> Queue {
    Queue::open(&server.uri(name), OpenOptions::new().read(true).write(true), depth).unwrap()
}

#[test]
fn every_request_completes_once_with_its_data() {
    let _watchdog = minute();
    let server = Server::start();
    let bytes = server.file("blocks", 4 << 20);
    for depth in [1, 7, 256] {
        let mut queue = open(&server, "/data/blocks", depth);
        let blocks = 1024;
        let mut seen = HashSet::new();
        let mut next = 0;
        while seen.len() < blocks {
            while next < blocks && queue.room() > 0 {
                queue.submit_read(next as u64 * 4096, 4096, next as u64).unwrap();
                next += 1;
            }
            assert!(queue.wait(1, None).unwrap() > 0);
            while let Some(completion) = queue.next() {
                let block = completion.token as usize;
                assert!(seen.insert(block), "block {block} completed twice");
                let data = completion.result.unwrap().into_data().to_vec();
                assert!(data == bytes[block * 4096..(block + 1) * 4096], "block {block} at depth {depth}");
            }
        }
        assert_eq!((queue.room(), queue.wait(1, None).unwrap()), (depth, 0));
        queue.close().unwrap();
    }
}

#[test]
fn the_depth_is_a_limit_until_completions_are_taken() {
    let _watchdog = minute();
    let server = Server::start();
    server.file("some", 8192);
    let mut queue = open(&server, "/data/some", 2);
    queue.submit_read(0, 512, 1).unwrap();
    queue.submit_read(512, 512, 2).unwrap();
    assert!(matches!(queue.submit_read(0, 512, 3), Err(Error::QueueFull { depth: 2 })));
    assert_eq!(queue.wait(2, None).unwrap(), 2);
    assert!(matches!(queue.submit_read(0, 512, 3), Err(Error::QueueFull { .. })), "they were not taken yet");
    assert!(queue.next().is_some());
    queue.submit_read(0, 512, 3).unwrap();
}

#[test]
fn writes_flushes_and_memory_of_the_caller() {
    let _watchdog = minute();
    let server = Server::start();
    server.file("some", 1 << 20);
    let mut queue = open(&server, "/data/some", 16);
    let bytes = noise(8 << 10);
    for block in 0..8_u64 {
        let mut buffer = queue.buffer(1024).unwrap();
        buffer.try_as_mut_slice().unwrap().copy_from_slice(&bytes[block as usize * 1024..][..1024]);
        queue.submit_write(block * 1024, buffer, block).unwrap();
    }
    queue.submit_write_durable(1 << 19, b"durable".to_vec(), 8).unwrap();
    assert_eq!(queue.wait(9, None).unwrap(), 9);
    while let Some(completion) = queue.next() {
        let expected = if completion.token == 8 { 7 } else { 1024 };
        assert_eq!(completion.result.unwrap().bytes(), expected);
    }
    queue.submit_flush(true, 0).unwrap();
    queue.submit_read_into(0, vec![0; 8 << 10], 1).unwrap();
    queue.submit_read_into((1 << 20) - 10, vec![9; 100], 2).unwrap();
    queue.submit_discard(1 << 18, 4096, 3).unwrap();
    assert_eq!(queue.wait(4, None).unwrap(), 4);
    while let Some(completion) = queue.next() {
        match (completion.token, completion.result.unwrap()) {
            (1, outcome) => assert!(outcome.into_data().to_vec() == bytes),
            (2, outcome) => assert_eq!(outcome.into_data().len(), 10, "cut to what there was"),
            (_, outcome) => assert!(matches!(outcome, Outcome::Done)),
        }
    }
}

#[test]
fn lengths_above_the_limit_are_refused_with_the_limit() {
    let _watchdog = minute();
    let server = Server::start();
    server.file("some", 100);
    let mut queue = open(&server, "/data/some", 4);
    let limit = queue.io_bytes_max();
    let refused = queue.submit_read(0, limit + 1, 1).unwrap_err();
    assert!(matches!(refused, Error::Limit { limit: told, .. } if told == u64::from(limit)), "{refused}");
    assert_eq!(queue.room(), 4, "what is refused takes no room");
    queue.submit_read(0, limit, 1).unwrap();
    queue.wait(1, None).unwrap();
    assert_eq!(queue.next().unwrap().result.unwrap().bytes(), 100);
}

#[test]
fn many_reads_larger_than_the_pool_wait_instead_of_failing() {
    let _watchdog = minute();
    let server = Server::start();
    let client = ClientOptions { pool_bytes_max: 4 << 20, ..ClientOptions::default() };
    let mut queue =
        Queue::open(&server.uri("/null"), OpenOptions::new().read(true).client(client), 64).unwrap();
    for number in 0..64 {
        queue.submit_read(number << 20, 1 << 20, number).unwrap();
    }
    let mut done = 0;
    while done < 64 {
        queue.wait(1, None).unwrap();
        while let Some(completion) = queue.next() {
            assert_eq!(completion.result.unwrap().bytes(), 1 << 20);
            done += 1;
        }
    }
}

#[test]
fn more_than_the_servers_slots_are_queued_and_can_be_taken_back() {
    let _watchdog = minute();
    let server = Server::start();
    let uri = server.uri("/null").parse().unwrap();
    let options = ClientOptions { requests_max: 4, ..ClientOptions::default() };
    let mut engine = Engine::connect(&uri, &options).unwrap();
    assert_eq!(engine.limits().requests_max, 4);
    let open = Operation::Open { path: b"/null".to_vec(), flags: OpenFlags::READ, mode: 0 };
    let Outcome::Opened { handle, .. } = engine.call(open).unwrap() else { panic!("not opened") };
    for token in 0..100 {
        let landing = libxio::Landing::Pool(512);
        engine.submit(Operation::Read { handle, offset: 0, length: 512, landing }, token).unwrap();
    }
    assert!(engine.cancel_queued(99) && !engine.cancel_queued(99), "the last still waits, and only once");
    assert!(!engine.cancel_queued(0), "the first is on its way");
    assert_eq!(engine.outstanding(), 99);
    // A call has its turn among them, and leaves their completions.
    let info = engine.call(Operation::Info).unwrap();
    assert!(matches!(info, Outcome::Info(_)));
    let mut tokens = HashSet::new();
    while tokens.len() < 99 {
        engine.poll(None).unwrap();
        while let Some(completion) = engine.next() {
            completion.result.unwrap();
            assert!(tokens.insert(completion.token));
        }
    }
    assert_eq!((engine.outstanding(), engine.poll(None).unwrap()), (0, 0));
    engine.close();
}

#[test]
fn an_outer_loop_can_wait_on_the_descriptor() {
    let _watchdog = minute();
    let server = Server::start();
    server.file("some", 100);
    let mut queue = open(&server, "/data/some", 1);
    let fd = queue.poll_fd().unwrap();
    for round in 0..50 {
        queue.submit_read(0, 100, round).unwrap();
        while queue.wait(1, Some(Duration::ZERO)).unwrap() == 0 {
            wait_readable(fd);
        }
        assert_eq!(queue.next().unwrap().token, round);
    }
}

fn wait_readable(fd: i32) {
    let mut entry = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: one valid entry.
    let ready = unsafe { libc::poll(&raw mut entry, 1, 20_000) };
    assert_eq!(ready, 1, "the descriptor has to become readable");
}
