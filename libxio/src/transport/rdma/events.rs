//! Events of devices (a port goes down or comes up, the device fails). A device has one queue of them for the whole
//! process: any link that finds something there takes it and notes it for all. A port that is down ends its links after a
//! grace: the device sends again what was lost meanwhile.

use super::verbs::{Device, set_nonblocking};
use rdma_sys as sys;
use std::ffi::c_int;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Ports of a device are numbered from 1 up to 255.
const PORTS: usize = 256;

/// What is known of a device in this process.
#[derive(Debug)]
struct DeviceState {
    device: Device,
    /// Held by who takes events: two threads could note a port's going down and coming up in the wrong order.
    taking: Mutex<()>,
    /// Since when each port is down, in milliseconds of [`now_ms`]; 0 where it is not known to be.
    ports_down: [AtomicU64; PORTS],
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
}

/// How a link's port and device are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Health {
    Sound,
    /// The port is down; if it is so for this time yet, the link has to go.
    Down {
        left: Duration,
    },
    /// The link has to go, for the reason of this errno value.
    Lost(i32),
}

/// Milliseconds since the first call, from 1.
fn now_ms() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
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
                    taking: Mutex::new(()),
                    device,
                    ports_down: std::array::from_fn(|_| AtomicU64::new(0)),
                    has_failed: AtomicBool::new(false),
                    is_removed: AtomicBool::new(false),
                });
                known.push(Arc::clone(&state));
                state
            }
        };
        DeviceWatch { state, port }
    }

    /// The device is being taken away.
    pub(super) fn removed(&self) {
        self.state.is_removed.store(true, Ordering::Relaxed);
    }

    /// Takes what has happened, and says how this link's port and device are. A port may be down for so long.
    pub(super) fn check(&self, grace: Duration) -> Health {
        self.state.take_events();
        if self.state.has_failed.load(Ordering::Relaxed) {
            return Health::Lost(libc::ENODEV);
        }
        let since = self.state.ports_down[usize::from(self.port)].load(Ordering::Relaxed);
        health(since, now_ms(), grace)
    }
}

fn health(since_ms: u64, now_ms: u64, grace: Duration) -> Health {
    if since_ms == 0 {
        return Health::Sound;
    }
    match grace.checked_sub(Duration::from_millis(now_ms.saturating_sub(since_ms))) {
        Some(left) if !left.is_zero() => Health::Down { left },
        _ => Health::Lost(libc::ENETDOWN),
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
        // Whoever has it takes them all.
        let Ok(_taking) = self.taking.try_lock() else { return };
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
                if let Some(since) = self.ports_down.get(port as usize) {
                    // Told twice, it is down since the first time.
                    let _ = since.compare_exchange(0, now_ms(), Ordering::Relaxed, Ordering::Relaxed);
                }
            } else if event.kind == sys::ibv_event_type::IBV_EVENT_PORT_ACTIVE as c_int {
                tracing::info!(device = self.device.name(), port, "RDMA port up");
                if let Some(since) = self.ports_down.get(port as usize) {
                    since.store(0, Ordering::Relaxed);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_may_be_down_for_the_grace() {
        let grace = Duration::from_millis(2000);
        assert_eq!(health(0, 500, grace), Health::Sound);
        assert_eq!(health(100, 100, grace), Health::Down { left: grace });
        assert_eq!(health(100, 2099, grace), Health::Down { left: Duration::from_millis(1) });
        assert_eq!(health(100, 2100, grace), Health::Lost(libc::ENETDOWN));
        assert_eq!(health(100, u64::MAX, grace), Health::Lost(libc::ENETDOWN));
        assert_eq!(health(100, 99, grace), Health::Down { left: grace }, "noted by another thread just now");
        assert_eq!(health(100, 100, Duration::ZERO), Health::Lost(libc::ENETDOWN));
    }
}
