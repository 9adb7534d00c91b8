//! Memory groups (cgroups) that are exhausted, on shared memory: a page belongs to the group of whoever touches it first. A
//! peer that makes its server fill holes without end takes no more from the server's group than the server allows; a peer
//! that exhausts its own group dies of that alone.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod raw;
mod serving;

use conformance::{Fabric, watchdog};
use libxio::transport::SharedMemoryOptions;
use raw::{DOORBELL, End, LIMITS, LONG, Shared, hear, limits, message, request, tell};
use rustix::fs::FallocateFlags;
use serving::Server;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const MIB: usize = 1 << 20;
/// Of the group: what a process of this program needs without any peer is a small part of it.
const GROUP_BYTES: usize = 96 * MIB;

/// A memory group for one child; gone with the value.
struct Group {
    path: PathBuf,
}

impl Group {
    /// `None`, with the reason said, where none can be made.
    fn new(name: &str) -> Option<Group> {
        let name = format!("libxio-test-{name}-{}", std::process::id());
        let root = Path::new("/sys/fs/cgroup");
        let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let own =
            groups.lines().find_map(|line| line.split_once(":memory:").map(|(_, path)| path.to_owned()));
        // In version 2 a group below the root, which may have processes beside its groups.
        let (path, file) = match own {
            Some(own) => (root.join("memory").join(own.trim_start_matches('/')), "memory.limit_in_bytes"),
            None => (root.to_owned(), "memory.max"),
        };
        let _ = std::fs::write(root.join("cgroup.subtree_control"), "+memory");
        let group = Group { path: path.join(name) };
        let limit = std::fs::create_dir(&group.path)
            .and_then(|()| std::fs::write(group.path.join(file), GROUP_BYTES.to_string()));
        match limit {
            Ok(()) => Some(group),
            Err(cause) => {
                println!("skipped: no memory group can be made at {}: {cause}", group.path.display());
                None
            }
        }
    }

    fn enter(&self, child: &Child) {
        std::fs::write(self.path.join("cgroup.procs"), child.id().to_string()).unwrap();
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let start = Instant::now();
        // What has died is in it for a moment longer.
        while std::fs::remove_dir(&self.path).is_err() && self.path.exists() && start.elapsed() < LONG {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// This program again, in the group before it does anything.
fn child(group: &Group, test: &str, variable: (&str, &str)) -> Child {
    let child = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env(variable.0, variable.1)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    group.enter(&child);
    child
}

/// Waits until it is told to begin: only then is the child in its group.
fn wait_for_begin() {
    std::io::stdin().read_exact(&mut [0]).unwrap();
}

fn begin(child: &mut Child) -> impl Iterator<Item = String> + use<> {
    use std::io::Write;
    child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok)
}

/// What the server says that the guest may hand over.
fn said_limit(guest: &End) -> usize {
    loop {
        let (answer, _) = hear(&guest.socket).expect("limits");
        if answer[0] == LIMITS {
            return u64::from_le_bytes(answer[8..16].try_into().unwrap()) as usize;
        }
    }
}

/// Asks for more, piece by piece, until there is no more or `enough`; what it may hand over then.
fn ask_for_all(guest: &End, enough: usize) -> usize {
    let mut most = said_limit(guest);
    while most < enough {
        let wanted = most as u64 + 4 * MIB as u64;
        tell(&guest.socket, &message(LIMITS, 1024, wanted, (0, 0)), &[]);
        match said_limit(guest) {
            same if same == most => break,
            more => most = more,
        }
    }
    most
}

/// For the test below: a server with the limits that it finds right by itself.
#[test]
fn server_in_a_group() {
    let Ok(path) = std::env::var("LIBXIO_TEST_SERVER_IN_A_GROUP") else { return };
    wait_for_begin();
    let server = Server::at(&path);
    println!("\nmay map {}", SharedMemoryOptions::default().total_bytes_max);
    // As long as the test takes, and no longer than it lives.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    drop(server);
}

/// Holes are filled by whoever touches them: here by the server, as much as it maps, again and again, by three peers.
#[test]
fn peers_cannot_exhaust_the_memory_group_of_their_server() {
    watchdog();
    let Some(group) = Group::new("server") else { return };
    let path = Fabric::shm().listen.resource().to_owned();
    let mut child = child(&group, "server_in_a_group", ("LIBXIO_TEST_SERVER_IN_A_GROUP", &path));
    let mut said = begin(&mut child);
    let total =
        said.find_map(|line| line.strip_prefix("may map ").map(|text| text.parse::<usize>().unwrap()));
    let total = total.expect("the server begins");
    assert_eq!(total, GROUP_BYTES / 2, "the group's limit counts");
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    let mut peers = Vec::new();
    let mut mapped = 0;
    for _ in 0..3 {
        let mut guest = End::client(&path);
        guest.greet();
        let most = ask_for_all(&guest, 4 * GROUP_BYTES);
        assert!(most < total, "{most} of {total}");
        // All that it may, in regions of 4 MiB.
        let regions: Vec<_> = (0..most / (4 * MIB)).map(|_| Shared::new(4 * MIB)).collect();
        for (number, region) in regions.iter().enumerate() {
            guest.hand_over(number as u32, region);
        }
        mapped += regions.len() * 4 * MIB;
        peers.push((guest, regions, 0));
    }
    assert!(mapped <= total, "{mapped} of {total}");
    assert!(mapped > total / 2, "the peers could do something: {mapped} of {total}");
    for round in 0..3 {
        for (guest, regions, sequence) in &mut peers {
            for (number, region) in regions.iter().enumerate() {
                for page in 0..region.length / 4096 {
                    *sequence += 1;
                    let landing = (number as u32, 4096, page as u64 * 4096);
                    guest.write(&request(0, *sequence, (0, 4096), &[], &[landing]));
                    guest.read_frame(&limits()).expect("an answer");
                }
            }
            if round < 2 {
                for region in regions.iter() {
                    rustix::fs::fallocate(&region.memfd, punch, 0, region.length as u64).unwrap();
                }
            }
        }
    }
    // Now all holes are filled, by the server.
    assert!(peers.iter().all(|(guest, ..)| !guest.is_closed()));
    assert!(child.try_wait().unwrap().is_none(), "the server has died");
    child.kill().unwrap();
    child.wait().unwrap();
    let _ = std::fs::remove_file(&path);
}

/// For the test below: a peer that fills more than its group has, while the server reads it.
#[test]
fn guest_in_a_group() {
    let Ok(path) = std::env::var("LIBXIO_TEST_GUEST_IN_A_GROUP") else { return };
    wait_for_begin();
    let mut guest = End::client(&path);
    guest.greet();
    let region = Shared::new(2 * GROUP_BYTES);
    if ask_for_all(&guest, region.length) < region.length {
        return println!("\nskipped: this machine's servers map less than {} bytes", region.length);
    }
    guest.hand_over(0, &region);
    let mut sequence = 0;
    let mut all = true;
    for page in 0..region.length / 4096 {
        // Pages of its own, and pages that the server fills: those are the server's.
        if page % 8 == 0 {
            sequence += 1;
            guest.write(&request(
                0,
                sequence,
                (4096, 4096),
                &[(0, 4096, page as u64 * 4096)],
                &[(0, 4096, 0)],
            ));
            all &= guest.read_frame(&limits()).is_some();
        }
        region.write(page * 4096, &[1; 4096]);
    }
    tell(&guest.socket, &message(DOORBELL, 0, 0, (0, 0)), &[]);
    println!("\nis still there, {all}");
}

/// A peer that exhausts its own group in the middle of its work is killed by the kernel, and its server goes on.
#[test]
fn a_peer_that_exhausts_its_own_memory_group_dies_alone() {
    let Some(group) = Group::new("guest") else { return };
    let server = Server::start();
    for _ in 0..2 {
        let mut child = child(&group, "guest_in_a_group", ("LIBXIO_TEST_GUEST_IN_A_GROUP", &server.path));
        let said: Vec<String> = begin(&mut child).collect();
        let end = child.wait().unwrap();
        if let Some(skipped) = said.iter().find(|line| line.starts_with("skipped")) {
            return println!("{skipped}");
        }
        use std::os::unix::process::ExitStatusExt;
        assert_eq!(end.signal(), Some(libc::SIGKILL), "{said:?}");
        server.until("the end of the peer", |now| now.connections == 0 && now.requests_running == 0);
        server.serves();
    }
}
