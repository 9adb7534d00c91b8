//! Serves files, directories and devices to raio clients.
//!
//! [`start`] makes a server from a [`Config`]: an acceptor, and one worker for each CPU with a loop of its own, on
//! which the connections are placed. [`Running`] stops it.
//!
//! ```
//! use raio_server::{Config, ExportConfig, parse_listen};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path().display();
//! let running = raio_server::start(Config {
//!     listen: vec![parse_listen("tcp://127.0.0.1:0")?],
//!     exports: vec![ExportConfig::parse(&format!("data={path}"))?],
//!     threads: 1,
//!     ..Config::default()
//! })?;
//! let uri = running.uris()[0].with_resource("/data/greeting");
//!
//! let file = raio::File::create(&uri.to_string())?;
//! file.write_all_at(b"hello", 0)?;
//! file.close()?;
//! assert_eq!(std::fs::read(directory.path().join("greeting"))?, b"hello");
//! running.stop();
//! # Ok(())
//! # }
//! ```

#![deny(unsafe_code)]

mod backend;
mod config;
mod counters;
mod error;
mod export_config;
mod exports;
mod offloop;
mod server;
#[allow(unsafe_code, reason = "the raw calls, each with its reasons")]
mod sys;
mod windows;
mod worker;

pub use config::{Config, MEMORY_BYTES_MIN, THREADS_MAX, parse_listen};
pub use counters::CountersSnapshot;
pub use error::{Error, Result};
pub use export_config::{ExportConfig, ExportTarget, NULL_BYTES, parse_size};
pub use server::{Running, start};
pub use sys::inherited_sockets;
