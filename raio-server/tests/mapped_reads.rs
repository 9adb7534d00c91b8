//! Reads of cached files out of mappings: what clients see is what they would see without, and nothing stays mapped.
//!
//! Where the system has no such reads (a kernel before 6.5, a temporary directory on another file system) the data is tested and
//! not how it was read.

#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use raio::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use support::{Server, minute, noise};

const PAGE: usize = 4096;
const WINDOW: usize = 2 << 20;

/// Bytes that differ from their neighbours, none of them zero: ranges that end with a zero are read by the kernel.
fn bytes(length: usize) -> Vec<u8> {
    noise(length).into_iter().map(|byte| byte | 1).collect()
}

fn make(server: &Server, name: &str, length: usize) -> Vec<u8> {
    let bytes = bytes(length);
    std::fs::write(server.path(name), &bytes).unwrap();
    bytes
}

/// Whether this system has mapped reads, for a file of the server's directory.
fn is_supported(server: &Server) -> bool {
    let path = server.path("probe");
    std::fs::write(&path, [1; PAGE]).unwrap();
    let file = std::fs::File::open(&path).unwrap();
    let known = [0xef53, 0x5846_5342, 0x9123_683e, 0xf2f5_2010];
    let mut counts = [0_u64; 5];
    // SAFETY: the call reads two numbers and writes five.
    let outcome =
        unsafe { libc::syscall(451, file.as_raw_fd(), [0_u64, 4096].as_ptr(), counts.as_mut_ptr(), 0) };
    let is_known = known.contains(&rustix::fs::fstatfs(&file).unwrap().f_type);
    std::fs::remove_file(&path).unwrap();
    let is_supported = outcome == 0 && is_known && counts[0] == 1;
    if !is_supported {
        eprintln!("no mapped reads on this system: known file system {is_known}, cachestat {outcome}");
    }
    is_supported
}

/// Reads 4 KiB at an offset until a mapping answers.
fn warm(server: &Server, file: &File, offset: u64) {
    let before = server.counters().reads_mapped;
    let start = Instant::now();
    while server.counters().reads_mapped == before {
        for _ in 0..100 {
            file.read_exact_at(&mut [0; PAGE], offset).unwrap();
        }
        assert!(start.elapsed() < Duration::from_secs(60), "never mapped: {:?}", server.counters());
    }
}

/// Mappings of a file in this process, the server's.
fn mappings(name: &str) -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().filter(|line| line.contains(name)).count()
}

fn wait_until_unmapped(name: &str) {
    let start = Instant::now();
    while mappings(name) > 0 {
        assert!(start.elapsed() < Duration::from_secs(60), "{name} stays mapped");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn data_is_that_of_the_file() {
    let _watchdog = minute();
    let socket = tempfile::tempdir().unwrap();
    let socket = socket.path().join("raio.sock");
    let listen = raio_server::parse_listen(&format!("shm://{}", socket.display())).unwrap();
    let server = Server::with(|config| config.listen.push(listen));
    let length = WINDOW + WINDOW / 2 + 77;
    let bytes = make(&server, "data-of-the-file", length);
    for uri in [
        server.uri("/data/data-of-the-file"),
        format!("shm:///data/data-of-the-file?socket={}", socket.display()),
    ] {
        let before = server.counters().reads_mapped;
        let file = File::open(&uri).unwrap();
        let mut word = 88_172_645_463_325_252_u64;
        for round in 0..6000 {
            word ^= word << 13;
            word ^= word >> 7;
            word ^= word << 17;
            let at = word as usize % length;
            let mut back = vec![0; if round % 50 == 0 { 300_000 } else { 1 + (word >> 40) as usize % 9000 }];
            let count = file.read_at(&mut back, at as u64).unwrap();
            assert_eq!(count, back.len().min(length - at), "{at}");
            assert!(back[..count] == bytes[at..at + count], "{count} bytes at {at} are others");
        }
        if is_supported(&server) {
            let mapped = server.counters().reads_mapped - before;
            assert!(mapped > 1000, "{mapped} of 6000 reads were mapped");
            let client = raio::Client::connect(&server.uri("/")).unwrap();
            assert_eq!(client.info().unwrap().reads_mapped, server.counters().reads_mapped);
        }
    }
    server.wait_until_clean();
    wait_until_unmapped("data-of-the-file");
}

#[test]
fn reads_see_every_write_at_once() {
    let _watchdog = minute();
    let server = Server::start();
    make(&server, "written", WINDOW);
    let file = OpenOptions::new().read(true).write(true).open(&server.uri("/data/written")).unwrap();
    let local = std::fs::OpenOptions::new().write(true).open(server.path("written")).unwrap();
    if is_supported(&server) {
        warm(&server, &file, 0);
    }
    let before = server.counters().reads_mapped;
    for round in 1..=250_u8 {
        if round % 2 == 0 {
            local.write_all_at(&[round; PAGE], 100).unwrap();
        } else {
            file.write_all_at(&[round; PAGE], 100).unwrap();
        }
        for _ in 0..4 {
            let mut back = [0; PAGE];
            file.read_exact_at(&mut back, 100).unwrap();
            assert!(back == [round; PAGE], "{round}");
        }
    }
    if is_supported(&server) {
        assert!(server.counters().reads_mapped > before);
    }
}

#[test]
fn a_file_that_was_cut_answers_short_at_once() {
    let _watchdog = minute();
    let server = Server::start();
    let length = 64 * PAGE;
    let bytes = make(&server, "cut", length);
    let file = OpenOptions::new().read(true).write(true).open(&server.uri("/data/cut")).unwrap();
    let local = std::fs::OpenOptions::new().write(true).open(server.path("cut")).unwrap();
    let has_windows = is_supported(&server);
    for (round, size) in [0, 1, 100, PAGE, PAGE + 1, 2 * PAGE - 1, 32 * PAGE, 63 * PAGE + 7, length - 1]
        .into_iter()
        .cycle()
        .take(18)
        .enumerate()
    {
        local.write_all_at(&bytes, 0).unwrap();
        if has_windows {
            warm(&server, &file, 0);
        }
        // By somebody else, or by the client.
        if round % 2 == 0 {
            local.set_len(size as u64).unwrap();
        } else {
            file.truncate(size as u64).unwrap();
        }
        for (at, wanted) in [
            (0, length),
            (0, PAGE),
            (size.saturating_sub(10), 20),
            (size, 10),
            (60 * PAGE, PAGE),
            (0, size + 1),
        ] {
            let mut back = vec![0xaa; wanted];
            let count = file.read_at(&mut back, at as u64).unwrap();
            assert_eq!(count, size.saturating_sub(at).min(wanted), "{wanted} bytes at {at} of {size}");
            assert!(back[..count] == bytes[at..at + count], "{wanted} bytes at {at} of {size}");
        }
        // Longer again, by zeros.
        local.set_len(length as u64).unwrap();
        let mut back = vec![0xaa; length];
        file.read_exact_at(&mut back, 0).unwrap();
        assert!(back[..size] == bytes[..size] && back[size..].iter().all(|byte| *byte == 0), "{size}");
    }
    server.serves();
}

#[test]
fn a_removed_file_is_read_to_its_close_and_held_no_longer() {
    let _watchdog = minute();
    let server = Server::start();
    let bytes = make(&server, "removed-while-mapped", WINDOW);
    let file = File::open(&server.uri("/data/removed-while-mapped")).unwrap();
    if is_supported(&server) {
        warm(&server, &file, 0);
        assert_eq!(mappings("removed-while-mapped"), 1);
    }
    std::fs::remove_file(server.path("removed-while-mapped")).unwrap();
    let mut back = vec![0; WINDOW];
    file.read_exact_at(&mut back, 0).unwrap();
    assert!(back == bytes);
    file.close().unwrap();
    wait_until_unmapped("removed-while-mapped");
}

#[test]
fn what_is_not_read_any_more_is_unmapped() {
    let _watchdog = minute();
    let server = Server::start();
    let bytes = make(&server, "open-and-idle", 3 * WINDOW);
    let file = File::open(&server.uri("/data/open-and-idle")).unwrap();
    if is_supported(&server) {
        for number in 0..3 {
            warm(&server, &file, (number * WINDOW) as u64);
        }
        assert_eq!(mappings("open-and-idle"), 3);
    }
    wait_until_unmapped("open-and-idle");
    let mut back = vec![0; 100];
    file.read_exact_at(&mut back, WINDOW as u64).unwrap();
    assert!(back == bytes[WINDOW..WINDOW + 100]);
}

#[test]
fn a_cold_file_goes_through_the_ring() {
    let _watchdog = minute();
    let server = Server::start();
    let bytes = make(&server, "cold", 2 * WINDOW);
    let local = std::fs::File::open(server.path("cold")).unwrap();
    local.sync_all().unwrap();
    rustix::fs::fadvise(&local, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    let file = File::open(&server.uri("/data/cold")).unwrap();
    for at in (0..2 * WINDOW).step_by(16 * PAGE) {
        let mut back = vec![0; 16 * PAGE];
        file.read_exact_at(&mut back, at as u64).unwrap();
        assert!(back == bytes[at..at + back.len()], "{at}");
    }
    let counters = server.counters();
    assert_eq!((counters.windows_mapped, counters.reads_mapped), (0, 0), "one pass maps nothing");
}

#[test]
fn neither_direct_io_nor_a_server_told_so_maps_anything() {
    let _watchdog = minute();
    let read = |server: &Server, options: &mut OpenOptions| {
        let bytes = make(server, "unmapped", 16 * PAGE);
        let file = options.read(true).open(&server.uri("/data/unmapped")).unwrap();
        for round in 0..2000 {
            let at = round % 16 * PAGE;
            let mut back = vec![0; PAGE];
            file.read_exact_at(&mut back, at as u64).unwrap();
            assert!(back == bytes[at..at + PAGE]);
        }
        let counters = server.counters();
        assert_eq!((counters.windows_mapped, counters.reads_mapped), (0, 0));
    };
    read(&Server::with(|config| config.mapped_reads = false), &mut OpenOptions::new());
    read(&Server::start(), OpenOptions::new().direct(true));
}

/// A file changes its size and its bytes while it is read: what was changed before a read began, and not again before it ended,
/// shows exactly.
#[test]
fn readers_of_a_changing_file_see_what_there_was() {
    let _watchdog = minute();
    let server = Server::start();
    let full = 100 * PAGE;
    make(&server, "changing", full);
    let uri = server.uri("/data/changing");
    let local = std::fs::OpenOptions::new().write(true).open(server.path("changing")).unwrap();
    // Odd while it changes; else the version. The file's size, and each of its bytes, follow from it.
    let version = AtomicU64::new(0);
    let (reads, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    let size_of = |version: u64| match version / 2 % 4 {
        0 | 2 => full,
        1 => (version as usize * 7919) % full,
        _ => (version as usize * 31 % 100) * PAGE,
    };
    let byte_of = |version: u64| (version / 2 % 255) as u8 + 1;
    let change = |version: u64| {
        local.write_all_at(&vec![byte_of(version); full], 0).unwrap();
        local.set_len(size_of(version) as u64).unwrap();
    };
    change(0);
    let reader = |number: u64| {
        let file = File::open(&uri).unwrap();
        let mut word = 88_172_645_463_325_252 + number;
        let mut exact = 0_u64;
        let mut back = vec![0; 3 * PAGE];
        while !is_over.load(Ordering::Relaxed) {
            word ^= word << 13;
            word ^= word >> 7;
            word ^= word << 17;
            let at = word as usize % full;
            let wanted = 1 + (word >> 40) as usize % back.len();
            let before = version.load(Ordering::SeqCst);
            let count = file.read_at(&mut back[..wanted], at as u64).unwrap();
            let after = version.load(Ordering::SeqCst);
            reads.fetch_add(1, Ordering::Relaxed);
            if before == after && before.is_multiple_of(2) {
                let size = size_of(before);
                assert_eq!(count, size.saturating_sub(at).min(wanted), "{wanted} at {at} of {size}");
                let byte = byte_of(before);
                assert!(back[..count].iter().all(|found| *found == byte), "{wanted} at {at} of {size}");
                exact += 1;
            }
        }
        exact
    };
    let exact: u64 = std::thread::scope(|scope| {
        let reader = &reader;
        let readers = [1, 2].map(|number| scope.spawn(move || reader(number)));
        for number in 1..=150 {
            let seen = reads.load(Ordering::Relaxed);
            // Now and then long enough for the file to be mapped.
            let pause = if number % 3 == 0 { 800 } else { 20 };
            while reads.load(Ordering::Relaxed) < seen + pause && !readers.iter().any(|one| one.is_finished())
            {
                std::thread::sleep(Duration::from_micros(200));
            }
            version.store(2 * number - 1, Ordering::SeqCst);
            change(2 * number);
            version.store(2 * number, Ordering::SeqCst);
        }
        is_over.store(true, Ordering::Relaxed);
        readers.into_iter().map(|reader| reader.join().unwrap()).sum()
    });
    assert!(exact > 1000, "{exact} reads could be judged");
    if is_supported(&server) {
        let counters = server.counters();
        assert!(counters.reads_mapped > 100 && counters.windows_mapped > 1, "{counters:?}");
    }
}
