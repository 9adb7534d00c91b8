//! The transport of the example passes the conformance suite.

use conformance::Fabric;
use examples::uds::Uds;
use std::sync::Arc;

/// Sockets in a folder of their own.
fn fabric() -> Fabric {
    let folder = tempfile::tempdir().expect("a folder for the sockets");
    let uri = |name: &str| format!("uds:///?socket={}", folder.path().join(name).display());
    let other = Fabric::built_in(&uri("other.sock")).listen;
    let one = Fabric::built_in(&uri("one.sock"));
    Fabric { listen_other: other, transports: vec![Arc::new(Uds)], keep: Some(Arc::new(folder)), ..one }
}

conformance::suite!(uds, fabric());
