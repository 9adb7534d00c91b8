//! The manual. Its chapters:
//!
//! 1. [Concepts](concepts): context, session, connection, server, memory, and how they belong together.
//! 2. [Patterns](patterns): requests, one-way messages, receipts, cancel, announced data, one-sided operations.
//! 3. [Threads](threads): what may be used from where, and how contexts fit into other loops.
//! 4. [Guarantees](guarantees): what is promised, what is not, and what happens when things end.
//! 5. [Tuning](tuning): polling, sizes, depths, limits; what to look at in the statistics.
//! 6. [Errors](errors): who is at fault, and what to do.
//!
//! Programs to start from are in the repository's `examples/` folder; what travels on the wire is described in
//! `docs/PROTOCOL.md`, how to add a transport in `docs/TRANSPORTS.md`.

pub mod concepts;
pub mod errors;
pub mod guarantees;
pub mod patterns;
pub mod threads;
pub mod tuning;
