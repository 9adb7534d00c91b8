//! The conformance suite on RDMA devices. `XIO_RDMA=SERVER,CLIENT` gives the addresses of the two ends; without it
//! these tests are not run (`cargo xtask test` sets it, in a virtual machine with soft-RoCE).
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use conformance::Fabric;

/// A server at the one end; its clients bind their own end to the other.
fn fabric() -> Fabric {
    let ends = std::env::var("XIO_RDMA").unwrap();
    let (server, client) = ends.split_once(',').unwrap();
    Fabric::built_in(&format!("rdma://{server}:0/?source={client}"))
}

conformance::suite!(rdma, fabric());
