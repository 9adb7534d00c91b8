//! What a server is told: where to listen, what to export, its threads and its limits.

use crate::{Error, ExportConfig, Result};
use libxio::transport::SharedMemoryOptions;
use libxio::{BUFFER_LEN_MAX, Uri};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

/// Least memory of a worker in bytes: a few operations of the greatest length.
pub const MEMORY_BYTES_MIN: usize = 16 << 20;

/// Most worker threads.
pub const THREADS_MAX: usize = 1024;

/// How a server is made: take the defaults, then change fields.
#[derive(Debug, Clone)]
pub struct Config {
    /// Addresses to listen on; port 0 takes a free one. At least one, or a socket.
    pub listen: Vec<Uri>,
    /// TCP sockets that listen already, as from [`inherited_sockets`](crate::inherited_sockets).
    pub sockets: Vec<Arc<TcpListener>>,
    /// What clients can open; `/dev/null` is always there.
    pub exports: Vec<ExportConfig>,
    /// Worker threads, each with its own loop; 0: one for each CPU of `cpus`, or of this process. At most
    /// [`THREADS_MAX`].
    pub threads: usize,
    /// CPUs that workers are bound to in turn; empty: they run where the system likes.
    pub cpus: Vec<usize>,
    /// Longest time that a worker polls before it sleeps; zero never polls.
    pub polling_timeout: Duration,
    /// Silence after which a client that runs its own loop is given up.
    pub keepalive: Duration,
    /// Time for the data of a write to arrive whole, beside a second for each 64 KiB of it; with less than a quarter of a
    /// worker's memory free, [`Config::keepalive`] if that is shorter. Then the client is given up.
    pub lease: Duration,
    /// Connections at a time for each address; more are refused as busy.
    pub connections_max: usize,
    /// Connections for each address that have not said hello yet; beyond it the oldest is closed.
    pub handshakes_max: usize,
    /// Time for a new connection to say hello.
    pub handshake_timeout: Duration,
    /// Files that one connection may have open; beyond it opens fail with EMFILE.
    pub open_files_max: usize,
    /// Requests that one connection may have outstanding.
    pub requests_max: u16,
    /// Greatest length of one read or write in bytes, at most [`BUFFER_LEN_MAX`].
    pub io_bytes_max: u32,
    /// Memory for data of each worker in bytes, at least [`MEMORY_BYTES_MIN`].
    pub memory_bytes_max: usize,
    /// Memory of one client that the server maps, for those by shared memory, in bytes; what lies beyond it is copied.
    pub shared_bytes_max: u64,
    /// The same of all clients together, with the rings of each (516 KiB). A client that finds no room for its rings is
    /// refused with ENOBUFS.
    pub shared_total_bytes_max: u64,
    /// Memory of clients by shared memory that each worker pins for O_DIRECT, in bytes: it saves a part of the processor's
    /// time, and can't be swapped meanwhile. 0 pins none.
    pub pinned_bytes_max: u64,
    /// Reads of buffered files on ext2 to ext4, XFS, btrfs and F2FS are copied out of mappings of the file where all of a part
    /// of 2 MiB is in the page cache and read often: at most 2 GiB for each worker (32 for all of them), unmapped when they
    /// were not used for two seconds. It saves the system call; data and short reads are the same.
    pub mapped_reads: bool,
    /// Memory that is registered with RDMA devices for what can do without, of all workers together, in bytes; data of other
    /// memory is copied. `None`: half of what the process may lock (RLIMIT_MEMLOCK), all where that has no limit.
    pub rdma_bytes_max: Option<u64>,
    /// Time that requests in progress are given when the server stops.
    pub drain_timeout: Duration,
    /// Listen beyond this machine without any proof of who the clients are.
    pub insecure: bool,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            listen: Vec::new(),
            sockets: Vec::new(),
            exports: Vec::new(),
            threads: 0,
            cpus: Vec::new(),
            polling_timeout: Duration::from_micros(100),
            keepalive: Duration::from_secs(10),
            lease: Duration::from_secs(600),
            connections_max: 16_384,
            handshakes_max: 1024,
            handshake_timeout: Duration::from_secs(10),
            open_files_max: 1024,
            requests_max: libxio::SLOTS_DEFAULT,
            // The pool's largest buffer: a read is one piece of memory.
            io_bytes_max: BUFFER_LEN_MAX as u32,
            memory_bytes_max: 1 << 30,
            shared_bytes_max: SharedMemoryOptions::default().region_bytes_max,
            shared_total_bytes_max: SharedMemoryOptions::default().total_bytes_max,
            pinned_bytes_max: 256 << 20,
            mapped_reads: true,
            rdma_bytes_max: None,
            drain_timeout: Duration::from_secs(10),
            insecure: false,
        }
    }
}

impl Config {
    /// Checks what can be checked without opening anything.
    ///
    /// # Errors
    /// [`Error::OutOfRange`], [`Error::ListenText`], [`Error::Exposed`], [`Error::Inherited`].
    pub fn check(&self) -> Result<()> {
        let range = |what, value: usize, min: usize, max: usize| {
            if (min..=max).contains(&value) {
                return Ok(());
            }
            Err(Error::OutOfRange { what, value: value as u64, min: min as u64, max: max as u64 })
        };
        range("number of worker threads", self.threads, 0, THREADS_MAX)?;
        range("number of connections", self.connections_max, 1, 1 << 20)?;
        range("number of connections without a hello", self.handshakes_max, 1, 1 << 20)?;
        range("number of open files of a connection", self.open_files_max, 1, 1 << 20)?;
        range("number of requests of a connection", usize::from(self.requests_max), 1, 65_535)?;
        range("greatest I/O in bytes", self.io_bytes_max as usize, 512, BUFFER_LEN_MAX)?;
        range("memory of a worker in bytes", self.memory_bytes_max, MEMORY_BYTES_MIN, usize::MAX)?;
        if self.listen.is_empty() && self.sockets.is_empty() {
            let reason = "no address is given".to_owned();
            return Err(Error::ListenText { text: String::new(), reason });
        }
        if self.insecure {
            return Ok(());
        }
        // Who comes by shared memory is on this machine, and its user is looked at.
        for uri in self.listen.iter().filter(|uri| uri.scheme() != "shm") {
            let addresses =
                uri.socket_addresses().map_err(|cause| Error::Listen { uri: uri.to_string(), cause })?;
            if !addresses.iter().all(|address| address.ip().is_loopback()) {
                return Err(Error::Exposed { uri: uri.to_string() });
            }
        }
        for socket in &self.sockets {
            let address = socket.local_addr().map_err(|cause| Error::Inherited { cause })?;
            if !address.ip().is_loopback() {
                return Err(Error::Exposed { uri: format!("tcp://{address}") });
            }
        }
        Ok(())
    }
}

/// An address to listen on: `tcp://127.0.0.1:5555`, or `127.0.0.1:5555`, or `rdma://10.0.0.1:5555`, or
/// `shm:///run/raio.sock` for clients on this machine (with `?allow=USER,USER` or `?allow=any`, by numbers, for others than this process's user and root).
///
/// # Errors
/// [`Error::ListenText`].
pub fn parse_listen(text: &str) -> Result<Uri> {
    let bad = |reason: String| Error::ListenText { text: text.to_owned(), reason };
    let full = if text.contains("://") { text.to_owned() } else { format!("tcp://{text}") };
    let uri: Uri = full.parse().map_err(|cause| match cause {
        libxio::Error::BadUri { reason, .. } => bad(reason.to_owned()),
        other => bad(other.to_string()),
    })?;
    if uri.scheme() == "shm" {
        let names_socket = uri.resource() != "/" || uri.query("socket").is_some();
        if !uri.host().is_empty() || !names_socket {
            return Err(bad("after shm:// comes the path of a socket, with its leading slash".to_owned()));
        }
        return Ok(uri);
    }
    if !matches!(uri.scheme(), "tcp" | "rdma") {
        return Err(bad(format!(
            "transport {:?} is not known to this server, tcp, rdma and shm are",
            uri.scheme()
        )));
    }
    if uri.host().is_empty() {
        return Err(bad("the host is missing".to_owned()));
    }
    if uri.resource() != "/" {
        return Err(bad("nothing comes after the port".to_owned()));
    }
    Ok(uri)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_with_and_without_a_scheme() {
        for text in ["tcp://127.0.0.1:5", "127.0.0.1:5", "tcp://127.0.0.1:5/", "rdma://127.0.0.1:5"] {
            let uri = parse_listen(text).unwrap();
            assert_eq!((uri.host(), uri.port()), ("127.0.0.1", 5));
        }
        assert_eq!(parse_listen("[::1]:0").unwrap().host(), "::1");
        assert_eq!(parse_listen("shm:///run/raio.sock?allow=7").unwrap().resource(), "/run/raio.sock");
        for text in ["shm://", "shm:///", "shm://run/raio.sock"] {
            assert!(matches!(parse_listen(text), Err(Error::ListenText { .. })), "{text}");
        }
        for text in ["", "tcp://", "udp://1.2.3.4:5", "1.2.3.4:99999", "1.2.3.4:x", "tcp://1.2.3.4:5/data"] {
            assert!(matches!(parse_listen(text), Err(Error::ListenText { .. })), "{text}");
        }
    }

    #[test]
    fn addresses_beyond_this_machine_need_leave() {
        let mut config = Config { listen: vec![parse_listen("0.0.0.0:0").unwrap()], ..Config::default() };
        assert!(matches!(config.check(), Err(Error::Exposed { .. })));
        config.insecure = true;
        config.check().unwrap();
        config.io_bytes_max = 1;
        assert!(matches!(config.check(), Err(Error::OutOfRange { .. })));
    }
}
