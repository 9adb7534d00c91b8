//! The async face in tokio.

#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use raio::asynchronous::AsyncFile;
use raio::{ClientOptions, OpenOptions};
use rustix::process::Signal;
use std::sync::Arc;
use std::time::Duration;
use support::{Server, ServerProcess, minute, noise};

/// Not a test: the body of a server process.
#[test]
fn serve() {
    support::serve_if_asked();
}

fn single() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn multi() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

async fn open(uri: &str) -> AsyncFile {
    AsyncFile::open(uri, OpenOptions::new().read(true).write(true)).await.unwrap()
}

#[test]
fn what_is_written_is_read_back() {
    let _watchdog = minute();
    let server = Server::start();
    server.file("some", 0);
    single().block_on(async {
        let file = open(&server.uri("/data/some")).await;
        let bytes = noise(100_000);
        assert_eq!(file.write_at(3, bytes.clone()).await.unwrap(), bytes.len());
        file.flush().await.unwrap();
        assert!(file.read_at(3, 100_000).await.unwrap().to_vec() == bytes);
        assert_eq!(file.read_into(3, vec![0; 10]).await.unwrap().to_vec(), bytes[..10]);
        assert_eq!(file.stat().await.unwrap().size, 100_003);
        file.truncate(5).await.unwrap();
        assert_eq!(file.read_at(0, 100).await.unwrap().len(), 5);
        file.close().await.unwrap();
    });
}

#[test]
fn many_futures_of_one_task_and_of_many() {
    let _watchdog = minute();
    let server = Server::start();
    let bytes = Arc::new(server.file("some", 1 << 20));
    for runtime in [single(), multi()] {
        runtime.block_on(async {
            let file = Arc::new(open(&server.uri("/data/some")).await);
            let (one, two, three) = tokio::join!(file.read_at(0, 512), file.read_at(4096, 512), file.stat());
            assert!(one.unwrap().to_vec() == bytes[..512] && two.unwrap().to_vec() == bytes[4096..4608]);
            assert_eq!(three.unwrap().size, 1 << 20);
            let tasks: Vec<_> = (0..64_usize)
                .map(|task| {
                    let (file, bytes) = (Arc::clone(&file), Arc::clone(&bytes));
                    tokio::spawn(async move {
                        for round in 0..50 {
                            let block = (task * 31 + round * 17) % 256;
                            let data = file.read_at(block as u64 * 4096, 4096).await.unwrap();
                            assert!(data.to_vec() == bytes[block * 4096..][..4096]);
                        }
                    })
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
        });
    }
}

#[test]
fn a_dropped_future_harms_nobody() {
    let _watchdog = minute();
    let server = Server::start();
    let bytes = server.file("some", 1 << 20);
    multi().block_on(async {
        let file = Arc::new(open(&server.uri("/data/some")).await);
        for round in 0..200_u64 {
            let other = Arc::clone(&file);
            let patient = tokio::spawn(async move { other.read_at(0, 4096).await.unwrap().len() });
            let hasty =
                tokio::time::timeout(Duration::from_micros(round % 50), file.read_at(4096, 65_536)).await;
            if let Ok(data) = hasty {
                assert!(data.unwrap().to_vec() == bytes[4096..4096 + 65_536]);
            }
            assert_eq!(patient.await.unwrap(), 4096);
        }
    });
}

#[test]
fn mistakes_are_told() {
    let _watchdog = minute();
    let server = Server::start();
    single().block_on(async {
        let mut read = OpenOptions::new();
        read.read(true);
        let error = AsyncFile::open(&server.uri("/data/none"), &read).await.unwrap_err();
        assert_eq!(error.to_string(), "open: /data/none: No such file or directory");
        let error = AsyncFile::open("tcp://127.0.0.1:1/x", &read).await.unwrap_err();
        assert_eq!(error.errno(), libc::ECONNREFUSED);
        server.file("some", 10);
        let file = AsyncFile::open(&server.uri("/data/some"), &read).await.unwrap();
        assert_eq!(file.write_at(0, b"x".to_vec()).await.unwrap_err().errno(), libc::EBADF);
        let limit = file.io_bytes_max();
        assert_eq!(file.read_at(0, limit + 1).await.unwrap_err().errno(), libc::EINVAL);
    });
}

#[test]
fn a_killed_and_a_stopped_server_end_the_futures() {
    let _watchdog = minute();
    for (signal, errno) in [(Signal::KILL, libc::ECONNRESET), (Signal::STOP, libc::ETIMEDOUT)] {
        let server = ServerProcess::start();
        single().block_on(async {
            let client = ClientOptions { keepalive: Duration::from_secs(1), ..ClientOptions::default() };
            let mut options = OpenOptions::new();
            let file =
                AsyncFile::open(&server.uri("/null"), options.read(true).client(client)).await.unwrap();
            file.read_at(0, 4096).await.unwrap();
            server.signal(signal);
            // It may answer for a moment more; both futures end whatever it does.
            let ended = loop {
                match tokio::join!(file.read_at(0, 1 << 20), file.read_at(1 << 20, 1 << 20)) {
                    (Err(one), Err(two)) => break [one.errno(), two.errno()],
                    _ => tokio::time::sleep(Duration::from_millis(1)).await,
                }
            };
            assert_eq!(ended, [errno; 2], "{signal:?}");
            assert_eq!(file.stat().await.unwrap_err().errno(), errno, "{signal:?}");
        });
    }
}
