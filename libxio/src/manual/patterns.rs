//! Patterns: the ways to exchange messages. All of them work both ways on every connection.
//!
//! # Requests
//!
//! [`request`](crate::Context::request) takes a slot until its [`Event::Response`](crate::Event::Response). The
//! [`Landing`](crate::Landing) says where the response's data goes: nowhere, into the pool, or into memory of yours.
//! The responder keeps the [`Request`](crate::Request) for as long as it likes and answers in any order, from any event;
//! dropped, it is answered with [`Error::Unanswered`](crate::Error::Unanswered).
//!
//! A request is *idempotent* or not. The answer to one that is not has to be kept for the case that the connection breaks
//! just then, so it is small ([`Limits::replay_bytes_max`](crate::wire::Limits::replay_bytes_max), by default 256 bytes).
//!
//! # One-way messages
//!
//! [`send`](crate::Context::send) needs no slot and has no answer. The receiver [releases](crate::Context::release) each
//! message when it is done with it. It is bounded in how many messages and how many bytes it holds, and so is the sender:
//! [`Error::OneWayExhausted`](crate::Error::OneWayExhausted) says that the peer takes no more now, and
//! [`Event::SendReady`](crate::Event::SendReady) that it does again.
//!
//! # Receipts, notices, deadlines, hints
//!
//! [`SendOptions`](crate::SendOptions) go with any message: a *receipt* from the peer's application
//! ([accepted or rejected](crate::Receipt)), a *notice* that the message is with the transport and its memory free
//! ([`Event::Sent`](crate::Event::Sent)), a *timeout* for a request's answer, and the hint that *more* follows at once.
//! What is sent within one turn travels together in any case: there is one flush a turn.
//!
//! # Cancel
//!
//! [`cancel`](crate::Context::cancel) asks the peer to give a request up; it may be too late. Until the peer has said what
//! became of it the request keeps its slot and its landing memory. A request whose time is over ends for the application
//! at once, and is cancelled in the same way behind its back. The responder hears of it by
//! [`Event::Cancel`](crate::Event::Cancel) and may [abandon](crate::Context::abandon) the request, or answer it.
//!
//! ```text
//!   request(timeout 1 s) ------------------------------>  Event::Request      (works ...)
//!   1 s later: Event::Response(DeadlineExceeded)
//!                        ----------- cancel ----------->  Event::Cancel
//!   Event::Released(memory)  <-- cancelled, or answered   abandon() or respond()
//! ```
//!
//! # Announced data: the receiver says where it lands
//!
//! A side that sets [`Limits::immediate_bytes_max`](crate::wire::Limits::immediate_bytes_max) gets messages with more data
//! than that as [`Event::Incoming`](crate::Event::Incoming): the header and the length. It chooses memory and calls
//! [`assign`](crate::Context::assign); then the data travels, and the message arrives as ever. It costs a round trip, and
//! holds no memory before it is wanted.
//!
//! # One-sided operations
//!
//! A side [exposes](crate::Context::expose) a stretch of a region to the peer of one connection, and sends its
//! [description](crate::RemoteRegion) in a message. The peer [reads](crate::Context::remote_read) and
//! [writes](crate::Context::remote_write) it; the owner's context checks key, bounds and permission, and its application
//! sees nothing. It can be [revoked](crate::Context::revoke) at any time. On shared memory the owner copies between
//! the exposed memory and that of a client which asks, and no data travels.
//!
//! # Which one?
//!
//! | you want | use |
//! |---|---|
//! | an answer | a request |
//! | to tell, at a high rate | one-way messages |
//! | to know that it was told | a one-way message with a receipt |
//! | to move much data to where it belongs | a request with a landing (towards you), announced data (away from you) |
//! | to look at the peer's state often, without its doing | remote reads |
