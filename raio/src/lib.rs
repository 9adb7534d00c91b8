//! raio: read and write files that live on another machine, or in another process.
//!
//! [`proto`] holds the commands and answers as bytes; client and server speak through it alone.

#![deny(unsafe_code)]

pub mod proto;
