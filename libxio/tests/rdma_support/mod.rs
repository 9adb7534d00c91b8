//! Where the RDMA tests run: `XIO_RDMA=SERVER,CLIENT` gives the addresses of two RDMA devices' interfaces.

use conformance::Fabric;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// For the kernel's own tidying.
#[allow(dead_code, reason = "not every test asks for it")]
const HELD_TIME: Duration = Duration::from_secs(30);

/// Addresses of the server's and the client's end.
pub fn ends() -> (String, String) {
    let value = std::env::var("XIO_RDMA").expect("XIO_RDMA=SERVER,CLIENT says where the devices are");
    let (server, client) = value.split_once(',').expect("XIO_RDMA=SERVER,CLIENT");
    (server.to_owned(), client.to_owned())
}

/// A server at the one end; its clients bind their own end to the other.
pub fn fabric() -> Fabric {
    let (server, client) = ends();
    let host = if server.contains(':') { format!("[{server}]") } else { server };
    Fabric::built_in(&format!("rdma://{host}:0/?source={client}"))
}

/// How many objects of this kind (pd, cq, qp, mr, ...) a device has.
#[allow(dead_code, reason = "not every test asks for it")]
pub fn held(device: &str, kind: &str) -> u64 {
    let output = Command::new("rdma").args(["resource", "show", device]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut words = text.split_whitespace();
    words.find(|word| *word == kind).unwrap_or_else(|| panic!("no {kind} in {text:?}"));
    words.next().unwrap().parse().unwrap()
}

/// Waits until a device has as many of them; the kernel's own tidying takes a moment.
#[allow(dead_code, reason = "not every test asks for it")]
#[track_caller]
pub fn assert_held(device: &str, kind: &str, expected: u64) {
    let start = Instant::now();
    while held(device, kind) != expected {
        assert!(start.elapsed() < HELD_TIME, "{} of {kind} instead of {expected}", held(device, kind));
        thread::sleep(Duration::from_millis(20));
    }
}
