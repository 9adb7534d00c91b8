//! What RDMA devices this machine has, for people.

use crate::Result;
use std::net::IpAddr;

/// An RDMA device of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RdmaDevice {
    /// Its name, as in `/sys/class/infiniband`.
    pub name: String,
    /// Firmware version, empty where it has none.
    pub firmware: String,
    /// Most queue pairs: connections.
    pub queue_pairs_max: u32,
    /// Most work requests in a queue.
    pub work_requests_max: u32,
    /// Most pieces of memory in one work request.
    pub pieces_max: u32,
    /// Most registrations of memory.
    pub registrations_max: u32,
    /// Longest registration in bytes.
    pub registration_bytes_max: u64,
    /// Most messages in a shared receive queue; 0 where it has none.
    pub shared_receives_max: u32,
    /// RDMA READs that it serves at a time on one connection.
    pub reads_served_max: u32,
    /// Its ports.
    pub ports: Vec<RdmaPort>,
}

/// A port of an RDMA device.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RdmaPort {
    /// Its number, from 1.
    pub number: u8,
    /// Whether it can carry connections now.
    pub is_active: bool,
    /// The state in words: `active`, `down`, `initialized`, `armed` or `unknown`.
    pub state: &'static str,
    /// `Ethernet` (RoCE, iWARP) or `InfiniBand`.
    pub link_layer: &'static str,
    /// Bytes of the longest packet in use.
    pub mtu: u32,
    /// Longest message in bytes.
    pub message_bytes_max: u32,
    /// Its IP addresses, to connect to and listen at.
    pub addresses: Vec<IpAddr>,
}

/// The RDMA devices of this machine.
///
/// # Errors
/// [`Error::TransportUnavailable`](crate::Error::TransportUnavailable), which says what is missing, where there is none,
/// the libraries are not installed, or this build has no RDMA.
pub fn rdma_devices() -> Result<Vec<RdmaDevice>> {
    #[cfg(feature = "rdma")]
    return super::rdma::devices();
    #[cfg(not(feature = "rdma"))]
    Err(super::no_rdma())
}
