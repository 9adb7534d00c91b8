//! What the examples share: a transport that libxio does not have.

pub mod uds;
