//! Where the RDMA tests run: `XIO_RDMA=SERVER,CLIENT` gives the addresses of two RDMA devices' interfaces.

use conformance::Fabric;

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
