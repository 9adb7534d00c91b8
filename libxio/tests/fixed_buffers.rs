//! Memory of a peer that is used for direct I/O again and again is pinned by the ring, within a limit, until it is gone.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use conformance::{Fabric, Pair};
use libxio::{
    Connection, ContextOptions, Event, FileOp, Landing, OutgoingRequest, OutgoingResponse, Region,
    ServerOptions, StatisticsSnapshot,
};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

const LENGTH: usize = 128 << 10;
const REGION: usize = 1 << 20;

fn pair(pinned_bytes_max: u64) -> Pair {
    let limit = |options: &mut ContextOptions| options.pinned_bytes_max = pinned_bytes_max;
    Pair::with(Fabric::shm(), |_| (), limit, ServerOptions::default())
}

fn file() -> (File, Vec<u8>) {
    let file = tempfile::tempfile().unwrap();
    let bytes: Vec<u8> = (0..2 * LENGTH).map(|at| ((at * 31) >> 7) as u8).collect();
    file.write_all_at(&bytes, 0).unwrap();
    (file, bytes)
}

fn server_counts(pair: &Pair) -> StatisticsSnapshot {
    pair.server.statistics().snapshot()
}

/// Waits until the server has done an operation of its ring.
fn completed(pair: &mut Pair) -> libxio::Completion {
    match pair.server_event() {
        Event::Completed(completion) => completion,
        other => panic!("{other:?}"),
    }
}

/// The server reads the file into the client's memory, and writes it from there.
fn round(pair: &mut Pair, connection: Connection, region: &Region, file: &File, bytes: &[u8], at: usize) {
    let fd = file.as_raw_fd();
    let landing = Landing::Place(region.slice(at, LENGTH).unwrap().into());
    let data = region.slice(REGION / 2, LENGTH).unwrap().into();
    region.slice(REGION / 2, LENGTH).unwrap().copy_from(0, &vec![at as u8; LENGTH]);
    pair.client
        .request(connection, OutgoingRequest { data, landing, ..OutgoingRequest::new(b"", 1) })
        .unwrap();
    let mut request = pair.request();
    let buffer = pair.server.response_buffer(&request, LENGTH).unwrap();
    pair.server.submit_direct(FileOp::Read { fd, offset: 100, buffer }, 1).unwrap();
    let read = completed(pair);
    assert_eq!(read.result, Ok(LENGTH as u32));
    let data = request.take_data();
    let offset = 10 << 20;
    pair.server.submit_direct(FileOp::Write { fd, offset, data, durable: false }, 2).unwrap();
    assert_eq!(completed(pair).result, Ok(LENGTH as u32));
    let response = OutgoingResponse { header: b"", data: read.data };
    pair.server.respond(request, response).unwrap();
    let Event::Response { outcome: Ok(reply), .. } = pair.client_event() else { panic!() };
    assert!(reply.data.to_vec() == bytes[100..100 + LENGTH]);
    let mut written = vec![0; LENGTH];
    file.read_exact_at(&mut written, offset).unwrap();
    assert!(written == vec![at as u8; LENGTH]);
}

#[test]
fn memory_is_pinned_once_it_is_used_again_and_again_and_until_it_is_gone() {
    let mut pair = pair(1 << 30);
    let (connection, _) = pair.connect();
    let (file, bytes) = file();
    for _ in 0..3 {
        let region = Region::allocate(REGION, false).unwrap();
        let before = server_counts(&pair).operations_pinned;
        round(&mut pair, connection, &region, &file, &bytes, 4096);
        assert_eq!(server_counts(&pair).pinned_bytes, 0, "used once");
        for at in 0..20 {
            round(&mut pair, connection, &region, &file, &bytes, 4096 * at);
        }
        let counts = server_counts(&pair);
        assert_eq!(counts.pinned_bytes, REGION as u64);
        assert!(counts.operations_pinned > before + 20, "{counts:?}");
        drop(region);
        // The next region tells the server that this one is gone.
        let other = Region::allocate(REGION, false).unwrap();
        round(&mut pair, connection, &other, &file, &bytes, 0);
        pair.until("the end of what was pinned", |pair| server_counts(pair).pinned_bytes == 0);
    }
    let region = Region::allocate(REGION, false).unwrap();
    for at in 0..20 {
        round(&mut pair, connection, &region, &file, &bytes, 4096 * at);
    }
    assert_eq!(server_counts(&pair).pinned_bytes, REGION as u64);
    pair.client.abort(connection).unwrap();
    pair.until("the end of the connection", |pair| server_counts(pair).connections == 0);
    pair.until("the end of what was pinned", |pair| server_counts(pair).pinned_bytes == 0);
}

#[test]
fn what_is_pinned_is_bounded() {
    for (limit, regions) in [(0, 0), (REGION as u64 - 1, 0), (2 * REGION as u64, 2)] {
        let mut pair = pair(limit);
        let (connection, _) = pair.connect();
        let (file, bytes) = file();
        let all: Vec<_> = (0..4).map(|_| Region::allocate(REGION, false).unwrap()).collect();
        for region in &all {
            for at in 0..20 {
                round(&mut pair, connection, region, &file, &bytes, 4096 * at);
            }
        }
        assert_eq!(server_counts(&pair).pinned_bytes, regions * REGION as u64, "{limit}");
    }
}

/// For the test below: a user that may lock little.
#[test]
fn with_little_locked_memory() {
    if std::env::var_os("LIBXIO_TEST_LITTLE_LOCKED_MEMORY").is_none() {
        return;
    }
    let mut pair = pair(1 << 30);
    let (connection, _) = pair.connect();
    let (file, bytes) = file();
    let regions: Vec<_> = (0..4).map(|_| Region::allocate(REGION, false).unwrap()).collect();
    for region in &regions {
        for at in 0..20 {
            round(&mut pair, connection, region, &file, &bytes, 4096 * at);
        }
    }
    println!("\npinned: {}", server_counts(&pair).pinned_bytes);
}

#[test]
fn a_part_of_what_may_be_locked_is_left_to_others() {
    use std::os::unix::process::CommandExt;
    if !rustix::process::geteuid().is_root() {
        return println!("skipped: needs root, to be somebody else with a lower limit");
    }
    let mut command = std::process::Command::new("/proc/self/exe");
    command
        .args(["with_little_locked_memory", "--exact", "--nocapture"])
        .env("LIBXIO_TEST_LITTLE_LOCKED_MEMORY", "1")
        .stdin(std::process::Stdio::null());
    // SAFETY: raw system calls on values that live.
    unsafe {
        command.pre_exec(|| {
            let limit = libc::rlimit { rlim_cur: 8 << 20, rlim_max: 8 << 20 };
            let ok = libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) == 0
                && libc::syscall(libc::SYS_setresgid, 54_321, 54_321, 54_321) == 0
                && libc::syscall(libc::SYS_setresuid, 54_321, 54_321, 54_321) == 0;
            if ok { Ok(()) } else { Err(std::io::Error::last_os_error()) }
        });
    }
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && said.lines().any(|line| line == format!("pinned: {}", 2 * REGION)),
        "{output:?}"
    );
}
