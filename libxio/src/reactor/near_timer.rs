//! A timer that is kept near while sleeps are many, so that each of them ends sooner.
//!
//! On a virtual machine a sleeping processor with a timer due soon was seen to be awake 4 to 5 us sooner after it was
//! woken (docs/PERFORMANCE.md has the figures, and what is known of the reason). So while a context sleeps again and
//! again, a timer that nobody waits for is due within 2 ms. It wakes nobody, and once sleeps are long it has fired and is
//! not set again: an idle context has none.

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// How far it is. In a bare program 1 ms gains as much, 4 ms two thirds of it, 10 ms little.
const NEAR_NS: u32 = 2_000_000;
/// So many sleeps in that time are worth the system call that sets it.
const SLEEPS_MIN: u32 = 8;

/// The timer of one context.
#[derive(Debug)]
pub(crate) struct NearTimer {
    /// None where the system has none for us, or does not set it: nobody depends on it.
    timer: Option<OwnedFd>,
    /// Sleeps since the time below.
    sleeps: u32,
    /// When it was last set, or this count begun.
    since_ns: u64,
}

impl NearTimer {
    pub(crate) fn new() -> NearTimer {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        NearTimer { timer: timerfd_create(TimerfdClockId::Monotonic, flags).ok(), sleeps: 0, since_ns: 0 }
    }

    /// A sleep begins: sets the timer where it is wanted. Never inlined: what else the loop's functions are made of shall not
    /// depend on it.
    #[inline(never)]
    pub(crate) fn before_sleep(&mut self, now_ns: u64) {
        self.sleeps = self.sleeps.saturating_add(1);
        let elapsed_ns = now_ns.saturating_sub(self.since_ns);
        if elapsed_ns < u64::from(NEAR_NS) {
            return;
        }
        // Long ago they were many.
        let is_wanted = self.sleeps >= SLEEPS_MIN && elapsed_ns < 2 * u64::from(NEAR_NS);
        (self.sleeps, self.since_ns) = (0, now_ns);
        if is_wanted {
            self.set();
        }
    }

    fn set(&mut self) {
        let none = Timespec { tv_sec: 0, tv_nsec: 0 };
        let time = Itimerspec { it_interval: none, it_value: Timespec { tv_nsec: NEAR_NS.into(), ..none } };
        if let Some(timer) = &self.timer
            && let Err(cause) = timerfd_settime(timer, TimerfdTimerFlags::empty(), &time)
        {
            tracing::debug!(%cause, "the timer is not set: short sleeps end a little later");
            self.timer = None;
        }
    }

    /// Its descriptor, if there is one.
    pub(crate) fn fd(&self) -> Option<RawFd> {
        self.timer.as_ref().map(AsRawFd::as_raw_fd)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::time::timerfd_gettime;
    use std::time::Duration;

    /// Sleeps so often, each so many nanoseconds after the one before; how long the timer has to go then.
    fn sleep(timer: &mut NearTimer, now_ns: &mut u64, count: u32, apart_ns: u64) -> Duration {
        for _ in 0..count {
            *now_ns += apart_ns;
            timer.before_sleep(*now_ns);
        }
        let left = timerfd_gettime(timer.timer.as_ref().unwrap()).unwrap();
        assert_eq!((left.it_interval.tv_sec, left.it_interval.tv_nsec), (0, 0), "it does not fire again");
        Duration::try_from(left.it_value).unwrap()
    }

    #[test]
    fn it_is_set_while_sleeps_are_many() {
        let (mut timer, mut now_ns) = (NearTimer::new(), 7_000_000_000);
        assert_eq!(sleep(&mut timer, &mut now_ns, 100, 1_000_000), Duration::ZERO, "they are long");
        assert_eq!(
            sleep(&mut timer, &mut now_ns, 15, 50_000),
            Duration::ZERO,
            "they were short for a moment"
        );
        // A machine that has no turn for this thread may let it fire before it is looked at.
        let mut left = (0..100).map(|_| sleep(&mut timer, &mut now_ns, 41, 50_000));
        let left = left.find(|left| !left.is_zero()).unwrap();
        assert!(left <= Duration::from_nanos(NEAR_NS.into()));
    }

    #[test]
    fn one_that_can_not_be_set_is_let_go() {
        let (mut timer, mut now_ns) = (NearTimer::new(), 0);
        // Not a timer.
        timer.timer = Some(std::fs::File::open("/dev/null").unwrap().into());
        for _ in 0..200 {
            now_ns += 50_000;
            timer.before_sleep(now_ns);
        }
        assert_eq!(timer.fd(), None);
    }
}
