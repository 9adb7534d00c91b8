//! Threads: what may be used from where.
//!
//! | thing | thread |
//! |---|---|
//! | [`Context`](crate::Context) | `Send`, not `Sync`: any thread, one at a time |
//! | [`PinnedContext`](crate::PinnedContext) | the thread that made it; costs the kernel less per completion |
//! | [`ContextHandle`](crate::ContextHandle) | any: posts closures and messages into the context, wakes and stops it |
//! | [`Session`](crate::Session) | any, at the same time |
//! | [`Pool`](crate::Pool), [`Region`](crate::Region) | any, at the same time, without locks once warm |
//! | [`Buffer`](crate::Buffer), [`Sgl`](crate::Sgl), [`Request`](crate::Request), [`OneWay`](crate::OneWay) | `Send`: they may be worked on elsewhere, and are answered or released in the context that they came from |
//! | [`Statistics`](crate::Statistics) | any, at the same time |
//! | handles ([`Connection`](crate::Connection), ...) | plain numbers, good only with their own context |
//!
//! A server with several threads makes a context for each, one of which listens and has the others' handles as
//! [workers](crate::ServerOptions::workers). Nothing is shared by them on the data path, so nothing is locked. A client with
//! several threads makes a context for each, too, and a connection of the same session in each.
//!
//! To have something done by another thread, move the [`Request`](crate::Request) to it and
//! [post](crate::ContextHandle::post) the answer back:
//!
//! ```
//! # use libxio::{Context, ContextOptions, OutgoingResponse, Request};
//! fn work_elsewhere(context: &Context, request: Request) {
//!     let home = context.handle();
//!     std::thread::spawn(move || {
//!         let answer = request.header().to_ascii_uppercase();
//!         // A context that is gone has answered for its requests already.
//!         let _ = home.post(move |context| {
//!             let response = OutgoingResponse { header: &answer, ..Default::default() };
//!             let _ = context.respond(request, response);
//!         });
//!     });
//! }
//! ```
//!
//! # Other loops
//!
//! [`poll_fd`](crate::Context::poll_fd) gives a descriptor for epoll, tokio, libevent or glib. Call
//! [`wait`](crate::Context::wait) with zero until it returns 0, handling events in between; then everything is armed, and
//! the descriptor becomes readable when there is more (also when a timer or a keepalive is due, or another thread has
//! posted). The examples `external_loop_epoll` and `external_loop_tokio` are complete. The other way round,
//! [`add_fd`](crate::Context::add_fd) brings your descriptors into the context's loop, and
//! [`submit`](crate::Context::submit) your file operations.
//!
//! # Panics
//!
//! A panic in your handler, or in a closure that was posted, leaves the context as it is: events are taken out before you
//! see them, and a request that is dropped on the way is answered for. Catch the panic and go on, or drop the context.
