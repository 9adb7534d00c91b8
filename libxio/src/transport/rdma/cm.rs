//! Connection identifiers of rdma_cm: addresses, routes, connecting, and the events about them, none of it blocking.

use super::verbs::{Device, check, last_error, set_nonblocking};
use rdma_sys as sys;
use smallvec::SmallVec;
use socket2::SockAddr;
use std::ffi::c_int;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::RawFd;
use std::ptr::{self, NonNull};
use std::time::Duration;

/// Level of options of identifiers; the bindings have no name for it.
const OPTION_ID: c_int = 0;
/// The option for the time that an acknowledgement is waited for.
pub(super) const OPTION_ID_ACK_TIMEOUT: c_int = 3;
/// Connections that wait to be accepted; the kernel cuts this to its own limit.
const BACKLOG: c_int = 1024;

/// An event about an identifier, without what belongs to the library.
#[derive(Debug)]
pub(super) struct CmEvent {
    pub kind: CmEventKind,
    /// 0, a negative errno value, or the reason of a rejection.
    pub status: i32,
    /// What the peer said with connect, accept or reject.
    pub private_data: SmallVec<[u8; 64]>,
    /// RDMA READs that the peer starts, and serves, at a time.
    pub initiator_depth: u8,
    pub responder_resources: u8,
    /// A connection request's own identifier.
    pub request: Option<CmId>,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CmEventKind {
    AddressResolved,
    AddressError,
    RouteResolved,
    RouteError,
    ConnectRequest,
    ConnectError,
    Unreachable,
    Rejected,
    Established,
    Disconnected,
    DeviceRemoved,
    AddressChanged,
    /// Of no interest.
    Other,
}

/// Where events of identifiers come out.
#[derive(Debug)]
struct Channel(NonNull<sys::rdma_event_channel>);

impl Channel {
    fn new() -> io::Result<Channel> {
        // SAFETY: no argument.
        let channel = unsafe { sys::rdma_create_event_channel() };
        let channel = Channel(NonNull::new(channel).ok_or_else(last_error)?);
        set_nonblocking(channel.fd())?;
        Ok(channel)
    }

    fn fd(&self) -> RawFd {
        // SAFETY: the channel lives as long as `self`.
        unsafe { self.0.as_ref().fd }
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        // SAFETY: ours alone; the identifier on it is gone, since its owner drops it first.
        unsafe { sys::rdma_destroy_event_channel(self.0.as_ptr()) };
    }
}

/// A connection identifier: a connection, or a listening address. Its queue pair is made and destroyed by its owner.
#[derive(Debug)]
pub(super) struct CmId {
    raw: NonNull<sys::rdma_cm_id>,
    /// `None` for a connection request that still is on its listener's channel.
    channel: Option<Channel>,
}

// SAFETY: an identifier is this object's alone, and librdmacm may be called from any thread.
unsafe impl Send for CmId {}

impl CmId {
    pub(super) fn new() -> io::Result<CmId> {
        let channel = Channel::new()?;
        let mut raw = ptr::null_mut();
        // SAFETY: the channel lives; the call fills the pointer.
        check(unsafe {
            sys::rdma_create_id(
                channel.0.as_ptr(),
                &raw mut raw,
                ptr::null_mut(),
                sys::rdma_port_space::RDMA_PS_TCP,
            )
        })?;
        let raw = NonNull::new(raw).ok_or_else(last_error)?;
        Ok(CmId { raw, channel: Some(channel) })
    }

    pub(super) fn as_ptr(&self) -> *mut sys::rdma_cm_id {
        self.raw.as_ptr()
    }

    /// Readable when there are events.
    pub(super) fn fd(&self) -> Option<RawFd> {
        self.channel.as_ref().map(Channel::fd)
    }

    /// Gives a connection request a channel of its own.
    pub(super) fn take_channel(&mut self) -> io::Result<()> {
        let channel = Channel::new()?;
        // SAFETY: both live. The call waits for events of this identifier that are not acknowledged: there are none.
        check(unsafe { sys::rdma_migrate_id(self.as_ptr(), channel.0.as_ptr()) })?;
        self.channel = Some(channel);
        Ok(())
    }

    /// The device, once the address is resolved or bound.
    pub(super) fn device(&self) -> Option<Device> {
        // SAFETY: the identifier lives, and keeps its device open.
        unsafe { Device::from_raw(self.raw.as_ref().verbs) }
    }

    pub(super) fn port(&self) -> u8 {
        // SAFETY: the identifier lives.
        unsafe { self.raw.as_ref().port_num }
    }

    pub(super) fn queue_pair(&self) -> *mut sys::ibv_qp {
        // SAFETY: the identifier lives.
        unsafe { self.raw.as_ref().qp }
    }

    pub(super) fn local_address(&self) -> Option<SocketAddr> {
        // SAFETY: the identifier lives; every member of the union is plain bytes, filled with zeros at first.
        unsafe { address(&self.raw.as_ref().route.addr.src_addr_union.src_storage) }
    }

    pub(super) fn peer_address(&self) -> Option<SocketAddr> {
        // SAFETY: as above.
        unsafe { address(&self.raw.as_ref().route.addr.dst_addr_union.dst_storage) }
    }

    /// Listens at an address. A wildcard address listens on every device.
    pub(super) fn listen(&self, at: SocketAddr) -> io::Result<()> {
        let address = SockAddr::from(at);
        // SAFETY: the identifier lives; the address is read during the call only.
        check(unsafe { sys::rdma_bind_addr(self.as_ptr(), address.as_ptr().cast_mut().cast()) })?;
        // SAFETY: the identifier lives.
        check(unsafe { sys::rdma_listen(self.as_ptr(), BACKLOG) })
    }

    /// Starts to look for the device that leads to `to`; `from` may choose our own address.
    pub(super) fn resolve_address(
        &self,
        from: Option<IpAddr>,
        to: SocketAddr,
        time: Duration,
    ) -> io::Result<()> {
        let from = from.map(|address| SockAddr::from(SocketAddr::new(address, 0)));
        let to = SockAddr::from(to);
        let from = from.as_ref().map_or(ptr::null_mut(), |from| from.as_ptr().cast_mut().cast());
        // SAFETY: the identifier lives; the addresses are read during the call only.
        check(unsafe {
            sys::rdma_resolve_addr(self.as_ptr(), from, to.as_ptr().cast_mut().cast(), millis(time))
        })
    }

    pub(super) fn resolve_route(&self, time: Duration) -> io::Result<()> {
        // SAFETY: the identifier lives.
        check(unsafe { sys::rdma_resolve_route(self.as_ptr(), millis(time)) })
    }

    /// Sets how long the device waits for an acknowledgement: 4.096 us times 2 to this power. Before connecting.
    pub(super) fn set_ack_timeout(&self, exponent: u8) {
        let mut value = exponent;
        // SAFETY: the identifier lives; the value is one byte, read during the call only. A library or a kernel that
        // does not know the option keeps its own time, which is longer.
        let _ = unsafe {
            sys::rdma_set_option(
                self.as_ptr(),
                OPTION_ID,
                OPTION_ID_ACK_TIMEOUT,
                (&raw mut value).cast(),
                size_of::<u8>(),
            )
        };
    }

    pub(super) fn connect(&self, parameters: &ConnectParameters<'_>) -> io::Result<()> {
        let mut raw = parameters.raw();
        // SAFETY: the identifier lives and has its queue pair; the parameters are read during the call only.
        check(unsafe { sys::rdma_connect(self.as_ptr(), &raw mut raw) })
    }

    pub(super) fn accept(&self, parameters: &ConnectParameters<'_>) -> io::Result<()> {
        let mut raw = parameters.raw();
        // SAFETY: as above.
        check(unsafe { sys::rdma_accept(self.as_ptr(), &raw mut raw) })
    }

    pub(super) fn reject(&self, private_data: &[u8]) {
        // The peer learns it by a timeout if this does not work.
        // SAFETY: the identifier lives; the bytes are read during the call only.
        let _ = unsafe {
            let length = u8::try_from(private_data.len()).unwrap_or(0);
            sys::rdma_reject(self.as_ptr(), private_data.as_ptr().cast(), length)
        };
    }

    /// Tells the peer that it is over, and stops the queue pair.
    pub(super) fn disconnect(&self) {
        // SAFETY: the identifier lives. An error says that it is over already.
        let _ = unsafe { sys::rdma_disconnect(self.as_ptr()) };
    }

    /// The next event, if there is one.
    pub(super) fn next_event(&self) -> io::Result<Option<CmEvent>> {
        let Some(channel) = &self.channel else { return Ok(None) };
        let mut event = ptr::null_mut();
        // SAFETY: the channel lives and does not block; the call fills the pointer.
        if unsafe { sys::rdma_get_cm_event(channel.0.as_ptr(), &raw mut event) } != 0 {
            let cause = last_error();
            return match cause.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(None),
                _ => Err(cause),
            };
        }
        // SAFETY: the event lives until it is acknowledged, and is ours alone.
        let copied = unsafe { copy(&*event) };
        // SAFETY: acknowledged once, and not used afterwards.
        unsafe { sys::rdma_ack_cm_event(event) };
        Ok(Some(copied))
    }
}

impl Drop for CmId {
    fn drop(&mut self) {
        // SAFETY: ours alone; its queue pair was destroyed by the owner, and every event is acknowledged.
        unsafe { sys::rdma_destroy_id(self.as_ptr()) };
    }
}

/// How to connect or accept.
#[derive(Debug)]
pub(super) struct ConnectParameters<'a> {
    pub private_data: &'a [u8],
    pub initiator_depth: u8,
    pub responder_resources: u8,
    /// Times that a packet is sent again; below 7, since soft-RoCE takes 7 for ever.
    pub retry_count: u8,
}

impl ConnectParameters<'_> {
    fn raw(&self) -> sys::rdma_conn_param {
        sys::rdma_conn_param {
            private_data: self.private_data.as_ptr().cast(),
            private_data_len: u8::try_from(self.private_data.len()).unwrap_or(0),
            responder_resources: self.responder_resources,
            initiator_depth: self.initiator_depth,
            flow_control: 1,
            retry_count: self.retry_count.min(6),
            // Credits keep the receiver ready; this is for a peer that another one's overrun has robbed of a buffer.
            rnr_retry_count: 6,
            srq: 0,
            qp_num: 0,
        }
    }
}

fn millis(time: Duration) -> c_int {
    c_int::try_from(time.as_millis()).unwrap_or(c_int::MAX)
}

/// # Safety
/// The event is one that the library gave, not yet acknowledged.
unsafe fn copy(event: &sys::rdma_cm_event) -> CmEvent {
    use sys::rdma_cm_event_type as kinds;
    let kind = match event.event {
        kinds::RDMA_CM_EVENT_ADDR_RESOLVED => CmEventKind::AddressResolved,
        kinds::RDMA_CM_EVENT_ADDR_ERROR => CmEventKind::AddressError,
        kinds::RDMA_CM_EVENT_ROUTE_RESOLVED => CmEventKind::RouteResolved,
        kinds::RDMA_CM_EVENT_ROUTE_ERROR => CmEventKind::RouteError,
        kinds::RDMA_CM_EVENT_CONNECT_REQUEST => CmEventKind::ConnectRequest,
        kinds::RDMA_CM_EVENT_CONNECT_ERROR => CmEventKind::ConnectError,
        kinds::RDMA_CM_EVENT_UNREACHABLE => CmEventKind::Unreachable,
        kinds::RDMA_CM_EVENT_REJECTED => CmEventKind::Rejected,
        kinds::RDMA_CM_EVENT_ESTABLISHED => CmEventKind::Established,
        kinds::RDMA_CM_EVENT_DISCONNECTED => CmEventKind::Disconnected,
        kinds::RDMA_CM_EVENT_DEVICE_REMOVAL => CmEventKind::DeviceRemoved,
        kinds::RDMA_CM_EVENT_ADDR_CHANGE => CmEventKind::AddressChanged,
        _ => CmEventKind::Other,
    };
    let with_data =
        matches!(kind, CmEventKind::ConnectRequest | CmEventKind::Established | CmEventKind::Rejected);
    let mut private_data = SmallVec::new();
    let (mut initiator_depth, mut responder_resources) = (0, 0);
    if with_data {
        // SAFETY: these kinds of events on this port space carry connection parameters.
        let parameters = unsafe { &event.param.conn };
        initiator_depth = parameters.initiator_depth;
        responder_resources = parameters.responder_resources;
        if !parameters.private_data.is_null() {
            // SAFETY: the library gives so many bytes there, until the event is acknowledged.
            let bytes = unsafe {
                std::slice::from_raw_parts(
                    parameters.private_data.cast::<u8>(),
                    usize::from(parameters.private_data_len),
                )
            };
            private_data.extend_from_slice(bytes);
        }
    }
    let request = (kind == CmEventKind::ConnectRequest)
        .then(|| NonNull::new(event.id).map(|raw| CmId { raw, channel: None }))
        .flatten();
    CmEvent { kind, status: event.status, private_data, initiator_depth, responder_resources, request }
}

/// The address in storage that the library filled.
fn address(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    let raw: *const libc::sockaddr_storage = storage;
    match c_int::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says which struct it is, and the storage is large enough for each.
            let found = unsafe { &*raw.cast::<libc::sockaddr_in>() };
            let ip = IpAddr::from(found.sin_addr.s_addr.to_ne_bytes());
            Some(SocketAddr::new(ip, u16::from_be(found.sin_port)))
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let found = unsafe { &*raw.cast::<libc::sockaddr_in6>() };
            let ip = IpAddr::from(Ipv6Addr::from(found.sin6_addr.s6_addr));
            Some(SocketAddr::new(ip, u16::from_be(found.sin6_port)))
        }
        _ => None,
    }
}
