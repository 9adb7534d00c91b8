//! Events of devices (a port goes down or comes up, the device fails). A device has one queue of them for the whole
//! process: any link that finds something there takes it, notes it for all, and rings for those that sleep on other threads.
//! A port that is down ends its links after a grace: the device sends again what was lost meanwhile.

use super::verbs::{Device, set_nonblocking};
use rdma_sys as sys;
use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use std::ffi::c_int;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Ports of a device are numbered from 1 up to 255.
const PORTS: usize = 256;

/// Descriptors that a link waits for: of the completion queue, the identifier, the device, its bell and the alarm; and of
/// devices that it has tried to connect by.
const DESCRIPTORS_MAX: usize = 16;

/// What is known of a device in this process.
#[derive(Debug)]
struct DeviceState {
    device: Device,
    /// Held by who takes events: two threads could note a port's going down and coming up in the wrong order.
    taking: Mutex<()>,
    /// Rung when something was noted here; `None` where there was no descriptor for it: then links notice by themselves.
    bell: Option<Bell>,
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
    /// Rings heard.
    heard: u64,
}

/// A descriptor that is never read, so that it rings for all who wait for its edges.
#[derive(Debug)]
struct Bell {
    descriptor: OwnedFd,
    /// Counted after the ring: who hears one and does not find it counted yet hears it again.
    rung: AtomicU64,
}

impl Bell {
    fn new() -> io::Result<Bell> {
        let descriptor = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Bell { descriptor, rung: AtomicU64::new(0) })
    }

    fn ring(&self) {
        // It is full after 2^64 of them.
        let _ = rustix::io::write(&self.descriptor, &1_u64.to_ne_bytes());
        self.rung.fetch_add(1, Ordering::Release);
    }
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

/// Takes the edges that a link's descriptor shows: afterwards it is readable only for what still waits.
pub(super) fn take_edges(descriptors: &OwnedFd) -> io::Result<()> {
    let mut events = [const { MaybeUninit::uninit() }; DESCRIPTORS_MAX];
    epoll::wait(descriptors, &mut events, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
    Ok(())
}

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
                    bell: Bell::new().inspect_err(|error| tracing::warn!(%error, "no descriptor")).ok(),
                    ports_down: std::array::from_fn(|_| AtomicU64::new(0)),
                    has_failed: AtomicBool::new(false),
                    is_removed: AtomicBool::new(false),
                });
                known.push(Arc::clone(&state));
                state
            }
        };
        DeviceWatch { state, port, heard: 0 }
    }

    /// To wait for its edges: it rings when another link has noted something.
    pub(super) fn bell(&self) -> Option<BorrowedFd<'_>> {
        self.state.bell.as_ref().map(|bell| bell.descriptor.as_fd())
    }

    /// Whether it has rung since this was last asked.
    pub(super) fn has_rung(&mut self) -> bool {
        let rung = self.state.bell.as_ref().map_or(0, |bell| bell.rung.load(Ordering::Acquire));
        std::mem::replace(&mut self.heard, rung) != rung
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
        if self.take_all()
            && let Some(bell) = &self.bell
        {
            bell.ring();
        }
    }

    /// Takes the events; whether there was one.
    fn take_all(&self) -> bool {
        let mut some = false;
        loop {
            let mut event = RawEvent { element: 0, kind: -1 };
            let raw = (&raw mut event).cast::<sys::ibv_async_event>();
            // SAFETY: the device is open while a link on it lives, its queue does not block, and the struct has the
            // size that the call fills.
            if unsafe { sys::ibv_get_async_event(self.device.as_ptr(), raw) } != 0 {
                return some;
            }
            some = true;
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
    use rustix::event::{PollFd, PollFlags, poll};

    /// Each of those who wait hears each ring once, however many wait.
    #[test]
    fn a_bell_rings_for_all_and_once() {
        let bell = Bell::new().unwrap();
        let ends = [(); 3].map(|()| {
            let end = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
            let edges = epoll::EventFlags::IN | epoll::EventFlags::ET;
            epoll::add(&end, &bell.descriptor, epoll::EventData::new_u64(0), edges).unwrap();
            end
        });
        let hears = |end: &OwnedFd| {
            let now = Timespec { tv_sec: 0, tv_nsec: 0 };
            poll(&mut [PollFd::new(end, PollFlags::IN)], Some(&now)).unwrap() == 1
        };
        for round in 0..3 {
            assert!(!ends.iter().any(hears), "{round}");
            bell.ring();
            for end in &ends {
                assert!(hears(end) && hears(end));
                take_edges(end).unwrap();
                assert!(!hears(end));
            }
        }
    }

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
