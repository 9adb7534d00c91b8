//! Events of devices (a port goes down, the device fails). A device has one queue of them for the whole process: any
//! link that finds something there takes it and notes it for all.

use super::verbs::{Device, set_nonblocking};
use rdma_sys as sys;
use std::ffi::c_int;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Ports of a device are numbered from 1 up to 255.
const PORTS: usize = 256;

/// What is known of a device in this process.
#[derive(Debug)]
struct DeviceState {
    device: Device,
    /// How often each port has gone down.
    ports_down: [AtomicU32; PORTS],
    has_failed: AtomicBool,
    /// It is being taken away: whoever does that waits until nobody in this process holds it.
    is_removed: AtomicBool,
}

static DEVICES: Mutex<Vec<Arc<DeviceState>>> = Mutex::new(Vec::new());

/// A link's view of its device and port. To be dropped after everything that the link has of the device: with the last
/// one a removed device is let go of.
#[derive(Debug)]
pub(super) struct DeviceWatch {
    state: Arc<DeviceState>,
    port: u8,
    /// How often the port had gone down when the link was made.
    known_down: u32,
}

/// As the library fills it; the type is a plain number here, since a new kernel may send one that the bindings' enum
/// does not have.
#[repr(C)]
struct RawEvent {
    /// A pointer, or the number of a port.
    element: u64,
    kind: c_int,
}

const _: () = assert!(size_of::<RawEvent>() == size_of::<sys::ibv_async_event>());

impl DeviceWatch {
    pub(super) fn new(device: Device, port: u8) -> DeviceWatch {
        let mut known = DEVICES.lock().unwrap_or_else(PoisonError::into_inner);
        // A device that nobody watches may be closed, and another one opened in its place.
        known.retain(|state| Arc::strong_count(state) > 1);
        let state = match known.iter().find(|state| state.device == device) {
            Some(state) => Arc::clone(state),
            None => {
                if let Err(error) = set_nonblocking(device.async_fd()) {
                    tracing::warn!(%error, "events of an RDMA device can't be watched");
                }
                let state = Arc::new(DeviceState {
                    device,
                    ports_down: std::array::from_fn(|_| AtomicU32::new(0)),
                    has_failed: AtomicBool::new(false),
                    is_removed: AtomicBool::new(false),
                });
                known.push(Arc::clone(&state));
                state
            }
        };
        let known_down = state.ports_down[usize::from(port)].load(Ordering::Relaxed);
        DeviceWatch { state, port, known_down }
    }

    /// The device is being taken away.
    pub(super) fn removed(&self) {
        self.state.is_removed.store(true, Ordering::Relaxed);
    }

    /// Takes what has happened; the errno value if this link's port or device is gone.
    pub(super) fn check(&self) -> Option<i32> {
        self.state.take_events();
        if self.state.has_failed.load(Ordering::Relaxed) {
            return Some(libc::ENODEV);
        }
        let down = self.state.ports_down[usize::from(self.port)].load(Ordering::Relaxed);
        (down != self.known_down).then_some(libc::ENETDOWN)
    }
}

impl Drop for DeviceWatch {
    fn drop(&mut self) {
        let mut known = DEVICES.lock().unwrap_or_else(PoisonError::into_inner);
        // This one, and the list's.
        if Arc::strong_count(&self.state) == 2 {
            known.retain(|state| !Arc::ptr_eq(state, &self.state));
            if self.state.is_removed.load(Ordering::Relaxed) {
                tracing::info!(device = self.state.device.name(), "letting go of a removed RDMA device");
                self.state.device.let_go();
            }
        }
    }
}

impl DeviceState {
    fn take_events(&self) {
        loop {
            let mut event = RawEvent { element: 0, kind: -1 };
            let raw = (&raw mut event).cast::<sys::ibv_async_event>();
            // SAFETY: the device is open while a link on it lives, its queue does not block, and the struct has the
            // size that the call fills.
            if unsafe { sys::ibv_get_async_event(self.device.as_ptr(), raw) } != 0 {
                return;
            }
            // The port's number is a 32-bit part of the union.
            let port = event.element as u32;
            if event.kind == sys::ibv_event_type::IBV_EVENT_PORT_ERR as c_int {
                tracing::warn!(device = self.device.name(), port, "RDMA port down");
                if let Some(count) = self.ports_down.get(port as usize) {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            } else if event.kind == sys::ibv_event_type::IBV_EVENT_DEVICE_FATAL as c_int {
                tracing::error!(device = self.device.name(), "RDMA device failed");
                self.has_failed.store(true, Ordering::Relaxed);
            }
            // SAFETY: acknowledged once, as every event has to be.
            unsafe { sys::ibv_ack_async_event(raw) };
        }
    }
}
