//! Guarantees: what is promised, and what is not.
//!
//! # Promised
//!
//! - **Once.** A request is executed at most once, and ends in exactly one [`Event::Response`](crate::Event::Response). A
//!   one-way message is delivered at most once. Each receipt that was asked for on a one-way message comes exactly once,
//!   as does each notice and each cancel's result; what can't come because the connection ended comes as an error.
//! - **In order.** Requests and one-way messages of one direction of a connection are delivered in the order in which they
//!   were sent; one that is announced counts where it was announced. Responses come in the order in which they are given.
//! - **Closed once.** Every connection ends in one [`Event::Closed`](crate::Event::Closed), after everything else that it
//!   has to say. Afterwards its handle is stale.
//! - **Memory is yours again** when it comes back in an event, or is dropped: by then neither this process, nor the kernel,
//!   a device or the peer touches it. [`abort`](crate::Context::abort) gives this before it returns.
//! - **Bounded.** A receiver holds no more than it has granted: messages by slots and
//!   [`one_way_max`](crate::wire::Limits::one_way_max), bytes by [`window_bytes`](crate::wire::Limits::window_bytes). An
//!   application that does not release stops the senders on its connection, and nothing else.
//! - **Nothing waits for ever.** Setting a connection up, a silent peer, a farewell: each has a time limit. A peer that does
//!   not answer probes is given up after [`keepalive`](crate::ContextOptions::keepalive).
//! - **Strangers.** What a peer sends is checked before memory is touched. It can't make this side panic, hang, or take
//!   memory; who breaks a rule is told its number and loses the connection.
//!
//! # Not promised
//!
//! - **That a request was not executed** because it failed. When a connection is lost, the peer may have executed it, or
//!   may still do so. Where this matters, make requests that can be asked about.
//! - **That a message was read** because it was sent: a notice says that it is with the transport. Ask for a receipt.
//! - **Order between connections**, also of one session.
//! - **Order of one-sided operations**, with each other or with messages, other than by waiting for their ends. A write that
//!   has failed may have been made in part.
//! - **Atomic one-sided reads**: bytes that change while they are read may be old or new, each for itself.
//! - **Secrecy on the wire.** Plain tcp is neither encrypted nor protected against change by others; checksums
//!   ([`ContextOptions::crc`](crate::ContextOptions::crc)) find damage, not malice.
//!
//! # How things end
//!
//! | call or cause | what was queued | outstanding requests | the peer sees |
//! |---|---|---|---|
//! | [`close`](crate::Context::close) | is sent, within a second | `ClosedLocally` | everything, then `Closed` |
//! | [`abort`](crate::Context::abort) | is dropped | `ClosedLocally` | `ConnectionLost` |
//! | dropping the context | is dropped | no more events | `ConnectionLost` |
//! | the peer closes | is dropped | `Closed` | |
//! | the link breaks | is dropped | `ConnectionLost` | `ConnectionLost` |
//! | the peer is silent | is dropped | `TimedOut` | perhaps nothing |
//! | a rule is broken | is dropped | `Protocol` | `Closed`, with the sentence |
