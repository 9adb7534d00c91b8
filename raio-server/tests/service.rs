//! Many clients on one worker, and the server's end: fair, nothing lost, nothing allocated.

#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use raio::{Client, File, OpenOptions, Queue};
use raio_server::ExportConfig;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use support::{Server, minute, noise};

#[test]
fn a_deep_queue_of_large_reads_leaves_a_small_client_its_turns() {
    let _watchdog = minute();
    let server = Server::start();
    server.file("large", 8 << 20);
    server.file("small", 4096);
    let (stop, large) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut queue =
                Queue::open(&server.uri("/data/large"), OpenOptions::new().read(true), 256).unwrap();
            let mut token = 0;
            while !stop.load(Ordering::Relaxed) {
                while queue.room() > 0 {
                    queue.submit_read((token % 8) << 20, 1 << 20, token).unwrap();
                    token += 1;
                }
                queue.wait(1, None).unwrap();
                while let Some(completion) = queue.next() {
                    completion.result.unwrap();
                    large.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        server.wait_for("the large one has begun", |now| now.bytes_read > 32 << 20);
        let file = File::open(&server.uri("/data/small")).unwrap();
        let mut buffer = [0; 4096];
        let (rounds, before) = (200, large.load(Ordering::Relaxed));
        for _ in 0..rounds {
            file.read_exact_at(&mut buffer, 0).unwrap();
        }
        let between = large.load(Ordering::Relaxed) - before;
        stop.store(true, Ordering::Relaxed);
        // In the order of arrival each small read would wait for the 256 large ones in front of it.
        assert!(between < 32 * rounds, "{between} large reads for {rounds} small ones");
    });
}

#[test]
fn a_stopping_server_answers_what_it_took_and_says_goodbye() {
    let _watchdog = minute();
    let mut server = Server::start();
    server.file("some", 0);
    let mut idle = support::Raw::connect(&server);
    let mut queue = Queue::open(&server.uri("/data/some"), OpenOptions::new().write(true), 64).unwrap();
    let bytes = noise(64 << 10);
    for token in 0..64 {
        queue.submit_write_durable(token << 16, bytes.clone(), token).unwrap();
    }
    queue.flush().unwrap();
    server.wait_for("some were taken", |now| now.requests_running > 0 || now.requests > 60);
    let path = server.path("some");
    let kept = std::mem::replace(&mut server.directory, tempfile::tempdir().unwrap());
    let stopping = std::thread::spawn(move || server.stop());
    let (mut done, mut lost) = (Vec::new(), 0);
    while queue.wait(1, None).unwrap() > 0 {
        while let Some(completion) = queue.next() {
            match completion.result {
                Ok(outcome) => {
                    assert_eq!(outcome.bytes(), bytes.len());
                    done.push(completion.token);
                }
                Err(error) => {
                    assert_eq!(error.errno(), libc::ECONNRESET, "{error}");
                    lost += 1;
                }
            }
        }
    }
    assert_eq!(done.len() + lost, 64, "each ends once");
    stopping.join().unwrap();
    let on_disk = std::fs::read(path).unwrap();
    for token in done {
        assert!(on_disk[token as usize * bytes.len()..][..bytes.len()] == bytes[..], "write {token}");
    }
    // Not a reset: a goodbye.
    let reason = idle.answer().unwrap_err();
    assert!(matches!(reason, libxio::Error::Closed(_)), "{reason}");
    drop(kept);
}

#[test]
fn exports_change_while_the_server_runs() {
    let _watchdog = minute();
    let server = Server::with(|config| config.exports.push(ExportConfig::parse("memory=memory:1M").unwrap()));
    server.file("some", 100);
    let client = Client::connect(&server.uri("/")).unwrap();
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    let open = options.open_on(&client, "/data/some").unwrap();
    options.open_on(&client, "/memory").unwrap().write_at(b"kept", 0).unwrap();
    let texts = [format!("other={}", server.directory.path().display()), "memory=memory:1M".to_owned()];
    let exports: Vec<_> = texts.iter().map(|text| ExportConfig::parse(text).unwrap()).collect();
    server.running().set_exports(&exports).unwrap();
    assert_eq!(client.stat("/other/some").unwrap().size, 100);
    assert_eq!(client.stat("/data/some").unwrap_err().errno(), libc::ENOENT);
    assert_eq!(open.read_at(&mut [0; 100], 0).unwrap(), 100, "open files stay open");
    let mut back = [0; 4];
    options.open_on(&client, "/memory").unwrap().read_exact_at(&mut back, 0).unwrap();
    assert_eq!(&back, b"kept");
    // A mistake changes nothing.
    let wrong = ExportConfig::parse("x=/no/such/place").unwrap();
    assert!(server.running().set_exports(&[wrong]).is_err());
    assert_eq!(client.info().unwrap().exports.len(), 2);
}

#[test]
fn the_memory_of_a_worker_is_a_limit_that_requests_wait_for() {
    let _watchdog = minute();
    let server = Server::with(|config| config.memory_bytes_max = raio_server::MEMORY_BYTES_MIN);
    let bytes = server.file("large", 4 << 20);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut options = OpenOptions::new();
                let mut queue =
                    Queue::open(&server.uri("/data/large"), options.read(true).write(true), 16).unwrap();
                for round in 0..4 {
                    for token in 0..16 {
                        let offset = (token % 4) << 20;
                        if token % 3 == 0 {
                            let block = bytes[offset as usize..][..1 << 20].to_vec();
                            queue.submit_write(offset, block, token).unwrap();
                        } else {
                            queue.submit_read(offset, 1 << 20, token).unwrap();
                        }
                    }
                    queue.wait(16, None).unwrap();
                    while let Some(completion) = queue.next() {
                        assert_eq!(completion.result.unwrap().bytes(), 1 << 20, "round {round}");
                    }
                }
            });
        }
    });
    server.wait_until_clean();
}

#[test]
fn workers_share_the_connections() {
    let _watchdog = minute();
    let server = Server::with(|config| config.threads = 3);
    let bytes = server.file("some", 1 << 20);
    std::thread::scope(|scope| {
        for _ in 0..9 {
            scope.spawn(|| {
                let file = File::open(&server.uri("/data/some")).unwrap();
                let mut back = vec![0; bytes.len()];
                file.read_exact_at(&mut back, 0).unwrap();
                assert!(back == bytes);
                file.close().unwrap();
            });
        }
    });
    let info = Client::connect(&server.uri("/")).unwrap().info().unwrap();
    assert_eq!((info.workers, info.connections_total, info.bytes_read), (3, 10, 9 << 20));
}
