//! libxio inside tokio: a task drives the context whenever its descriptor is readable, beside everything else that the
//! runtime does (here a timer).
//!
//! ```console
//! $ cargo run -p examples --bin external_loop_tokio
//! tick 1: answered
//! tick 2: answered
//! tick 3: answered
//! ```

use libxio::{
    AcceptOptions, ConnectionOptions, Context, ContextOptions, Event, OutgoingRequest, OutgoingResponse,
    ServerOptions, Session,
};
use std::error::Error;
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    // The server and its client live in this one thread and context.
    let mut context = Context::new(ContextOptions::default())?;
    let server = context.listen(&"tcp://127.0.0.1:0/".parse()?, ServerOptions::default())?;
    let session = Session::new(context.local_uri(server)?);
    let connection = context.connect(&session, ConnectionOptions::default())?;

    let descriptor = context.poll_fd_borrowed()?.try_clone_to_owned()?;
    // SAFETY: an `OwnedFd` stays open, and the same descriptor, until the `AsyncFd` that owns it has ended its
    // registration.
    let descriptor = unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }?;
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    let (mut connected, mut answered) = (false, 0);
    while answered < 3 {
        // Until it returns 0: then everything is armed, and the descriptor tells when there is more.
        while context.wait(Some(Duration::ZERO))? > 0 {
            while let Some(event) = context.next_event() {
                match event {
                    Event::ConnectionRequest(request) => {
                        context.accept(request, AcceptOptions::new())?;
                    }
                    Event::Connected { .. } => connected = true,
                    Event::Request(request) => context.respond(request, OutgoingResponse::default())?,
                    Event::Response { token, outcome, .. } => {
                        outcome?;
                        println!("tick {token}: answered");
                        answered += 1;
                    }
                    Event::Closed { reason, .. } => return Err(reason.into()),
                    _ => {}
                }
            }
        }
        tokio::select! {
            // Cleared before the context is driven, so that nothing which comes in between is missed.
            ready = descriptor.readable() => ready?.clear_ready(),
            _ = ticks.tick() => {
                if connected {
                    context.request(connection, OutgoingRequest::new(b"tick", answered + 1))?;
                }
            }
        }
    }
    Ok(())
}
