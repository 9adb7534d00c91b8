//! The verbs that we use, each wrapped once: an object per type, destroyed on drop, in the order that the owners' fields
//! give. The libraries are loaded at run time; where they are missing, every call fails with `EOPNOTSUPP`.

use super::locked::Part;
use crate::{Buffer, Region};
use rdma_sys as sys;
use std::ffi::{CStr, c_int};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr::{self, NonNull};
use std::sync::Arc;

/// The error of a call that says "null" or "not 0" and leaves the reason in errno.
pub(super) fn last_error() -> io::Error {
    io::Error::last_os_error()
}

/// The error of a call that returns 0, or an errno value, or -1 with errno.
pub(super) fn check(result: c_int) -> io::Result<()> {
    match result {
        0 => Ok(()),
        -1 => Err(last_error()),
        errno => Err(io::Error::from_raw_os_error(errno.abs())),
    }
}

pub(super) fn set_nonblocking(fd: RawFd) -> io::Result<()> {
    // SAFETY: plain system calls on a descriptor that the caller keeps open.
    let done = unsafe {
        let flags = libc::fcntl(fd, libc::F_GETFL);
        flags >= 0 && libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK) == 0
    };
    if done { Ok(()) } else { Err(last_error()) }
}

/// An open device. It is librdmacm's, open for as long as a connection identifier on it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Device(NonNull<sys::ibv_context>);

// SAFETY: verbs objects may be used from any thread (ibv_* is thread-safe); whether the device is still open is the
// business of the owners of its connection identifiers.
unsafe impl Send for Device {}
// SAFETY: as above.
unsafe impl Sync for Device {}

/// What a device can do.
#[derive(Debug, Clone, Copy)]
pub(super) struct DeviceLimits {
    pub work_requests_max: u32,
    pub sge_max: u32,
    pub sge_read_max: u32,
    pub completions_max: u32,
    /// 0: it has no shared receive queues.
    pub shared_receives_max: u32,
    /// RDMA READs that it serves, and starts, at a time on one connection.
    pub reads_served_max: u8,
    pub reads_started_max: u8,
    /// Longest message in bytes, on the port asked about.
    pub message_bytes_max: u32,
}

impl Device {
    /// # Safety
    /// The pointer is null, or the device of an identifier that outlives what is made from it.
    pub(super) unsafe fn from_raw(context: *mut sys::ibv_context) -> Option<Device> {
        NonNull::new(context).map(Device)
    }

    pub(super) fn as_ptr(self) -> *mut sys::ibv_context {
        self.0.as_ptr()
    }

    /// Its name, as in /sys/class/infiniband.
    pub(super) fn name(self) -> String {
        // SAFETY: the device is open, so its record and name live; the name is a C string.
        unsafe {
            let name = sys::ibv_get_device_name((*self.as_ptr()).device);
            if name.is_null() { String::new() } else { CStr::from_ptr(name).to_string_lossy().into_owned() }
        }
    }

    pub(super) fn attributes(self) -> io::Result<sys::ibv_device_attr> {
        // SAFETY: all-zero is a valid value of this plain struct, which the call fills.
        unsafe {
            let mut attributes: sys::ibv_device_attr = std::mem::zeroed();
            check(sys::ibv_query_device(self.as_ptr(), &raw mut attributes))?;
            Ok(attributes)
        }
    }

    pub(super) fn port(self, port: u8) -> io::Result<sys::ibv_port_attr> {
        // SAFETY: as in `attributes`.
        unsafe {
            let mut attributes: sys::ibv_port_attr = std::mem::zeroed();
            check(sys::ibv_query_port(self.as_ptr(), port, &raw mut attributes))?;
            Ok(attributes)
        }
    }

    pub(super) fn limits(self, port: u8) -> io::Result<DeviceLimits> {
        let device = self.attributes()?;
        let port = self.port(port)?;
        let positive = |value: c_int| u32::try_from(value).unwrap_or(0);
        let byte = |value: c_int| u8::try_from(value.max(0)).unwrap_or(u8::MAX);
        Ok(DeviceLimits {
            work_requests_max: positive(device.max_qp_wr),
            sge_max: positive(device.max_sge),
            sge_read_max: positive(device.max_sge_rd).max(1),
            completions_max: positive(device.max_cqe),
            shared_receives_max: if device.max_srq > 0 { positive(device.max_srq_wr) } else { 0 },
            reads_served_max: byte(device.max_qp_rd_atom),
            reads_started_max: byte(device.max_qp_init_rd_atom),
            message_bytes_max: port.max_msg_sz,
        })
    }

    /// Gives the device's descriptors back to the kernel, and puts others (of /dev/null) in their place: librdmacm keeps
    /// a device open that it has opened once, until it is used for another one, and soft-RoCE's removal waits for that.
    /// Calls on the device fail from now on; its own closing, later, closes the others.
    pub(super) fn let_go(self) {
        let Ok(null) = std::fs::File::open("/dev/null") else { return };
        // SAFETY: the device's record lives as long as librdmacm, which never lets go of it before a new device comes. The
        // descriptors are open; what was made on the device is gone, so nobody maps or reads them.
        unsafe {
            let context = self.0.as_ref();
            for fd in [context.cmd_fd, context.async_fd] {
                libc::dup3(null.as_raw_fd(), fd, libc::O_CLOEXEC);
            }
        }
    }

    /// Events of the device: to be read by anybody who uses it, since each comes once for all.
    pub(super) fn async_fd(self) -> RawFd {
        // SAFETY: the device is open.
        unsafe { (*self.as_ptr()).async_fd }
    }
}

/// A protection domain.
#[derive(Debug)]
pub(super) struct ProtectionDomain(NonNull<sys::ibv_pd>);

// SAFETY: as for `Device`: verbs are thread-safe, and the pointer is this object's alone.
unsafe impl Send for ProtectionDomain {}
// SAFETY: as above.
unsafe impl Sync for ProtectionDomain {}

impl ProtectionDomain {
    pub(super) fn new(device: Device) -> io::Result<ProtectionDomain> {
        // SAFETY: the device is open.
        let domain = unsafe { sys::ibv_alloc_pd(device.as_ptr()) };
        NonNull::new(domain).map(ProtectionDomain).ok_or_else(last_error)
    }

    pub(super) fn as_ptr(&self) -> *mut sys::ibv_pd {
        self.0.as_ptr()
    }
}

impl Drop for ProtectionDomain {
    fn drop(&mut self) {
        // SAFETY: ours alone; what was made in it is gone, since its owners drop it first.
        unsafe { sys::ibv_dealloc_pd(self.as_ptr()) };
    }
}

/// Who may touch registered memory through the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Access {
    /// This side may send from it.
    LocalRead,
    /// This side may send from it and receive into it.
    Local,
    /// The peers of the protection domain may read and write it too.
    Remote,
    /// The peers may do this with it, and this side does nothing.
    Exposed { read: bool, write: bool },
}

/// Registered memory: its pages stay where they are until this is dropped.
#[derive(Debug)]
pub(super) struct MemoryRegion {
    raw: NonNull<sys::ibv_mr>,
    /// It is known to the device no more.
    is_ended: bool,
    /// The domain goes after what is in it.
    _domain: Arc<ProtectionDomain>,
    /// Of what may be registered, where it counts; given back after the registration.
    _part: Option<Part>,
}

// SAFETY: as for `ProtectionDomain`.
unsafe impl Send for MemoryRegion {}
// SAFETY: as above.
unsafe impl Sync for MemoryRegion {}

impl MemoryRegion {
    /// Registers a range.
    ///
    /// # Safety
    /// The range is mapped, and stays so until this is dropped; with `Remote`, the peers' writes harm nobody.
    pub(super) unsafe fn register(
        domain: &Arc<ProtectionDomain>,
        address: *mut u8,
        length: usize,
        access: Access,
    ) -> io::Result<MemoryRegion> {
        use sys::ibv_access_flags as flags;
        let access = match access {
            Access::LocalRead => flags(0),
            Access::Local => flags::IBV_ACCESS_LOCAL_WRITE,
            Access::Remote => {
                flags::IBV_ACCESS_LOCAL_WRITE | flags::IBV_ACCESS_REMOTE_READ | flags::IBV_ACCESS_REMOTE_WRITE
            }
            Access::Exposed { read, write } => {
                let mut rights = flags(0);
                if read {
                    rights |= flags::IBV_ACCESS_REMOTE_READ;
                }
                if write {
                    // A device lets nobody write from afar what may not be written from here.
                    rights |= flags::IBV_ACCESS_LOCAL_WRITE | flags::IBV_ACCESS_REMOTE_WRITE;
                }
                rights
            }
        };
        // The flags are small positive numbers.
        let access = access.0 as c_int;
        // SAFETY: the caller's promise, and the domain is alive.
        let raw = unsafe { sys::ibv_reg_mr(domain.as_ptr(), address.cast(), length, access) };
        let raw = NonNull::new(raw).ok_or_else(last_error)?;
        Ok(MemoryRegion { raw, is_ended: false, _domain: Arc::clone(domain), _part: None })
    }

    /// As [`MemoryRegion::register`], for what can do without: if no more than `bytes_max` are registered for that.
    ///
    /// # Safety
    /// As for [`MemoryRegion::register`].
    pub(super) unsafe fn register_within(
        bytes_max: u64,
        domain: &Arc<ProtectionDomain>,
        address: *mut u8,
        length: usize,
        access: Access,
    ) -> io::Result<MemoryRegion> {
        let part = Part::take(address, length, bytes_max)?;
        // SAFETY: the caller's promise.
        let mut region = unsafe { MemoryRegion::register(domain, address, length, access)? };
        region._part = Some(part);
        Ok(region)
    }

    /// Takes the registration back at once: afterwards the device touches the memory no more. Not to be used any more.
    ///
    /// # Errors
    /// The device will not.
    pub(super) fn deregister(&mut self) -> io::Result<()> {
        if std::mem::replace(&mut self.is_ended, true) {
            return Ok(());
        }
        // SAFETY: ours alone, and done once.
        check(unsafe { sys::ibv_dereg_mr(self.raw.as_ptr()) })
    }

    pub(super) fn local_key(&self) -> u32 {
        // SAFETY: the registration lives as long as `self`.
        unsafe { self.raw.as_ref().lkey }
    }

    /// Whether a buffer lies in it.
    pub(super) fn covers(&self, buffer: &Buffer) -> bool {
        // SAFETY: as above.
        let raw = unsafe { self.raw.as_ref() };
        let (start, buffer_start) = (raw.addr as usize, buffer.as_ptr() as usize);
        buffer_start >= start && buffer_start + buffer.len() <= start + raw.length
    }

    pub(super) fn remote_key(&self) -> u32 {
        // SAFETY: as above.
        unsafe { self.raw.as_ref().rkey }
    }
}

impl Drop for MemoryRegion {
    fn drop(&mut self) {
        if let Err(error) = self.deregister() {
            tracing::error!(%error, "memory can't be deregistered");
        }
    }
}

/// Memory of our own, registered whole, for messages.
#[derive(Debug)]
pub(super) struct RegisteredRegion {
    // The registration goes before the memory.
    registration: MemoryRegion,
    region: Region,
}

impl RegisteredRegion {
    pub(super) fn allocate(domain: &Arc<ProtectionDomain>, length: usize) -> io::Result<RegisteredRegion> {
        let region =
            Region::allocate(length, false).map_err(|error| io::Error::from_raw_os_error(error.errno()))?;
        // SAFETY: the region lives in the same struct, behind the registration; nobody but us knows it.
        let registration =
            unsafe { MemoryRegion::register(domain, region.as_ptr(), region.len(), Access::Local)? };
        Ok(RegisteredRegion { registration, region })
    }

    pub(super) fn as_ptr(&self) -> *mut u8 {
        self.region.as_ptr()
    }

    pub(super) fn local_key(&self) -> u32 {
        self.registration.local_key()
    }

    /// Its first bytes.
    ///
    /// # Safety
    /// The device does not write them while the slice lives.
    pub(super) unsafe fn bytes(&self, length: usize) -> &[u8] {
        // SAFETY: the region is at least so long after the cut; the caller promises that nobody writes it.
        unsafe { std::slice::from_raw_parts(self.as_ptr(), length.min(self.region.len())) }
    }
}

/// A descriptor that becomes readable when an armed completion queue gets something.
#[derive(Debug)]
pub(super) struct CompletionChannel(NonNull<sys::ibv_comp_channel>);

// SAFETY: as for `ProtectionDomain`.
unsafe impl Send for CompletionChannel {}

impl CompletionChannel {
    pub(super) fn new(device: Device) -> io::Result<CompletionChannel> {
        // SAFETY: the device is open.
        let channel = unsafe { sys::ibv_create_comp_channel(device.as_ptr()) };
        let channel = CompletionChannel(NonNull::new(channel).ok_or_else(last_error)?);
        set_nonblocking(channel.fd())?;
        Ok(channel)
    }

    pub(super) fn fd(&self) -> RawFd {
        // SAFETY: the channel lives as long as `self`.
        unsafe { self.0.as_ref().fd }
    }
}

impl Drop for CompletionChannel {
    fn drop(&mut self) {
        // SAFETY: ours alone; the queue that used it is gone, since its owner drops it first.
        unsafe { sys::ibv_destroy_comp_channel(self.0.as_ptr()) };
    }
}

/// A completion queue.
#[derive(Debug)]
pub(super) struct CompletionQueue {
    raw: NonNull<sys::ibv_cq>,
    channel: CompletionChannel,
}

// SAFETY: as for `ProtectionDomain`.
unsafe impl Send for CompletionQueue {}

impl CompletionQueue {
    pub(super) fn new(device: Device, entries: u32) -> io::Result<CompletionQueue> {
        let channel = CompletionChannel::new(device)?;
        let entries = c_int::try_from(entries).unwrap_or(c_int::MAX);
        // SAFETY: device and channel live; no user context; vector 0 is on every device.
        let raw =
            unsafe { sys::ibv_create_cq(device.as_ptr(), entries, ptr::null_mut(), channel.0.as_ptr(), 0) };
        Ok(CompletionQueue { raw: NonNull::new(raw).ok_or_else(last_error)?, channel })
    }

    pub(super) fn as_ptr(&self) -> *mut sys::ibv_cq {
        self.raw.as_ptr()
    }

    pub(super) fn fd(&self) -> RawFd {
        self.channel.fd()
    }

    /// Takes completions, at most as many as there is room for. The room needs no contents: it is asked for in every
    /// turn, mostly in vain, and filling it would be most of the cost.
    pub(super) fn poll<'a>(
        &mut self,
        room: &'a mut [MaybeUninit<sys::ibv_wc>],
    ) -> io::Result<&'a [sys::ibv_wc]> {
        let most = c_int::try_from(room.len()).unwrap_or(c_int::MAX);
        // SAFETY: the queue lives and there is room for so many.
        let count = unsafe { sys::ibv_poll_cq(self.as_ptr(), most, room.as_mut_ptr().cast()) };
        let count = usize::try_from(count).map_err(|_| io::Error::from_raw_os_error(libc::EIO))?;
        // SAFETY: the library has filled so many, which the cut keeps inside the room.
        Ok(unsafe { std::slice::from_raw_parts(room.as_ptr().cast(), count.min(room.len())) })
    }

    /// Makes the descriptor readable at the next completion. What came before has to be polled after this.
    pub(super) fn arm(&mut self) -> io::Result<()> {
        // SAFETY: the queue lives.
        check(unsafe { sys::ibv_req_notify_cq(self.as_ptr(), 0) })
    }

    /// Takes the events that made the descriptor readable.
    pub(super) fn take_events(&mut self) {
        let mut count = 0;
        loop {
            let (mut queue, mut context) = (ptr::null_mut(), ptr::null_mut());
            // SAFETY: the channel lives, does not block, and the call fills both pointers.
            let result =
                unsafe { sys::ibv_get_cq_event(self.channel.0.as_ptr(), &raw mut queue, &raw mut context) };
            if result != 0 {
                break;
            }
            count += 1;
        }
        if count > 0 {
            // SAFETY: the events were of this queue, the only one on the channel.
            unsafe { sys::ibv_ack_cq_events(self.as_ptr(), count) };
        }
    }
}

impl Drop for CompletionQueue {
    fn drop(&mut self) {
        // An event that was not taken would make the destruction wait for its acknowledgement.
        self.take_events();
        // SAFETY: ours alone; the queue pair that used it is gone, since its owner drops it first.
        unsafe { sys::ibv_destroy_cq(self.as_ptr()) };
    }
}

/// A shared receive queue.
#[derive(Debug)]
pub(super) struct SharedReceiveQueue(NonNull<sys::ibv_srq>);

// SAFETY: as for `ProtectionDomain`.
unsafe impl Send for SharedReceiveQueue {}
// SAFETY: as above.
unsafe impl Sync for SharedReceiveQueue {}

impl SharedReceiveQueue {
    pub(super) fn new(domain: &ProtectionDomain, messages_max: u32) -> io::Result<SharedReceiveQueue> {
        let mut attributes = sys::ibv_srq_init_attr {
            srq_context: ptr::null_mut(),
            attr: sys::ibv_srq_attr { max_wr: messages_max, max_sge: 1, srq_limit: 0 },
        };
        // SAFETY: the domain lives; the attributes are read and written during the call only.
        let raw = unsafe { sys::ibv_create_srq(domain.as_ptr(), &raw mut attributes) };
        NonNull::new(raw).map(SharedReceiveQueue).ok_or_else(last_error)
    }

    pub(super) fn as_ptr(&self) -> *mut sys::ibv_srq {
        self.0.as_ptr()
    }
}

impl Drop for SharedReceiveQueue {
    fn drop(&mut self) {
        // SAFETY: ours alone; the queue pairs that used it are gone, since they hold its owner.
        unsafe { sys::ibv_destroy_srq(self.as_ptr()) };
    }
}
