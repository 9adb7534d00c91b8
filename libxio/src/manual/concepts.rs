//! Concepts: what there is, and how it belongs together.
//!
//! ```text
//!       client process                                  server process
//!
//!   thread A       thread B                        acceptor        worker
//!   +-----------+  +-----------+                   +-----------+   +-----------+
//!   | Context   |  | Context   |                   | Context   |   | Context   |
//!   |           |  |           |                   |  Server   |   |           |
//!   | Connection|  | Connection|                   |           |   | Connection|
//!   +-----|-----+  +-----|-----+                   +-----|-----+   | Connection|
//!         |   \        / |                               |         +--|--|-----+
//!         |    Session   |                               | new links  |  |
//!         |              |                               +----------->|  |
//!         |              +--------------- link ----------------------->  |
//!         +------------------------------ link ---------------------------+
//! ```
//!
//! **A [`Context`](crate::Context)** is one thread's loop and everything made on it: connections, servers, timers, file
//! operations, foreign descriptors. It is pulled: [`wait`](crate::Context::wait) takes turns until something has
//! happened, [`next_event`](crate::Context::next_event) hands it out. Events own what they carry, so nothing is borrowed
//! while your code runs, and you may call the context from wherever you handle an event.
//! [`run`](crate::Context::run) does both with a closure.
//!
//! **A [`Session`](crate::Session)** is a client's long-lived dialogue with one resource of one server, named by a
//! [`Uri`](crate::Uri). Several threads share it. The first connection makes it at the server, the others join it; when the
//! last one has closed it is over. At the server, [`ConnectionRequest::session`](crate::ConnectionRequest::session) tells
//! which connections belong together.
//!
//! **A [`Connection`](crate::Connection)** is a client's place in a context, and the server's counterpart in one of its
//! contexts. It has slots (requests under way), limits and grants, each way. A handle to it is a small number that can be
//! copied and compared; when the connection has ended the handle is stale, and every call says so.
//!
//! **A [`Server`](crate::Server)** is an address at which a context listens. Each new connection is an
//! [`Event::ConnectionRequest`](crate::Event::ConnectionRequest) that the application
//! [accepts](crate::Context::accept), [rejects](crate::Context::reject) with a reason, [redirects](crate::Context::redirect)
//! to another server, or [hands over](crate::Context::hand_over) to another context. With
//! [`ServerOptions::workers`](crate::ServerOptions::workers) this arrives at the workers' contexts in turn.
//!
//! **Memory**: a [`Buffer`](crate::Buffer) is an owned piece of memory, wherever it comes from; an [`Sgl`](crate::Sgl) is a
//! list of up to 256 of them, and the data of every message. Buffers come from the context's [`Pool`](crate::Pool), from
//! a [`Region`](crate::Region) (memory that transports know and that can be exposed to a peer), or from a vector. They move
//! into an operation, and come back or are dropped when nothing can touch them any more.
//!
//! **A message** is a small header (by default up to 8 KiB, copied) and data (by default up to 4 MiB, not copied by this
//! library on its way out, and landing where the receiver wants it).
//!
//! The life of a connection, with what each side is told:
//!
//! ```text
//!   client                                            server
//!     connect()  ------------- hello ---------------->  Event::ConnectionRequest
//!     Event::Connected  <----- welcome --------------   accept()
//!     request()  ------------------------------------>  Event::Request
//!     Event::Response  <-----------------------------   respond()
//!     close()    ------------- goodbye -------------->  Event::Closed (Error::Closed)
//!     Event::Closed (Error::ClosedLocally)
//! ```
