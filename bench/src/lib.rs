//! What the measurement programs share: reading sizes, pinning threads, telling of times.
//!
//! Each program in `src/bin` answers one question and prints JSON; `cargo xtask bench` runs them beside their peers.

#![forbid(unsafe_code)]

use std::fmt::Display;

mod cpu;
mod descriptors;
pub mod messages;
mod size;
mod times;

pub use cpu::{pin, process_cpu_time};
pub use descriptors::allow_descriptors;
pub use size::parse_bytes;
pub use times::Times;

/// A sentence for the person at the terminal is the whole error.
pub type Result<T> = std::result::Result<T, String>;

/// For `map_err`: what was being done when the system refused.
pub fn failed<W: Display, E: Display>(what: W) -> impl FnOnce(E) -> String {
    move |cause| format!("{what}: {cause}")
}
