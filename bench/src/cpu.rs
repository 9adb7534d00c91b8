//! Cores and the time spent on them.

use crate::{Result, failed};
use rustix::thread::CpuSet;
use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// Keeps the calling thread on one core; `None` leaves it alone.
///
/// # Errors
/// There is no such core, or the process may not use it.
pub fn pin(core: Option<usize>) -> Result<()> {
    let Some(core) = core else { return Ok(()) };
    if core >= CpuSet::MAX_CPU {
        return Err(format!("core {core}: the highest that can be named is {}", CpuSet::MAX_CPU - 1));
    }
    let mut set = CpuSet::new();
    set.set(core);
    rustix::thread::sched_setaffinity(None, &set).map_err(failed(format!("running on core {core}")))
}

/// Time that all threads of this process have spent on a core so far.
#[must_use]
pub fn process_cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    // A clock of time spent is never negative.
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
