//! Hello world on libxio: a server that greets, and a client that asks for a greeting.
//!
//! ```console
//! $ cargo run -p examples --bin hello_world -- server tcp://127.0.0.1:5556
//! listening tcp://127.0.0.1:5556
//! $ cargo run -p examples --bin hello_world -- client tcp://127.0.0.1:5556/greetings world
//! hello, world
//! ```

use libxio::{
    AcceptOptions, ConnectionOptions, Context, ContextOptions, Event, OutgoingRequest, OutgoingResponse,
    ServerOptions, Session, Uri,
};
use std::error::Error;
use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["server", uri] => serve(uri),
        ["client", uri, name] => greet(uri, name),
        _ => {
            eprintln!("usage: hello_world server URI | hello_world client URI NAME");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hello_world: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Greets whoever asks, until it is ended.
fn serve(uri: &str) -> Result<(), Box<dyn Error>> {
    let uri: Uri = uri.parse()?;
    let mut context = Context::new(ContextOptions::default())?;
    let server = context.listen(&uri, ServerOptions::default())?;
    println!("listening {}", context.local_uri(server)?);
    context.run(|context, event| {
        // A client that left before its answer is no fault of ours.
        let _ = match event {
            Event::ConnectionRequest(request) => context.accept(request, AcceptOptions::new()).map(|_| ()),
            Event::Request(request) => {
                let greeting = format!("hello, {}", String::from_utf8_lossy(request.header()));
                let response = OutgoingResponse { header: greeting.as_bytes(), ..Default::default() };
                context.respond(request, response)
            }
            _ => Ok(()),
        };
    })?;
    Ok(())
}

/// Asks once, prints the answer, and closes.
fn greet(uri: &str, name: &str) -> Result<(), Box<dyn Error>> {
    let mut context = Context::new(ContextOptions::default())?;
    let connection = context.connect(&Session::new(uri.parse()?), ConnectionOptions::default())?;
    loop {
        context.wait(None)?;
        while let Some(event) = context.next_event() {
            match event {
                Event::Connected { .. } => {
                    context.request(connection, OutgoingRequest::new(name.as_bytes(), 0))?;
                }
                Event::Response { outcome, .. } => {
                    println!("{}", String::from_utf8_lossy(&outcome?.header));
                    context.close(connection)?;
                }
                Event::Closed { reason: libxio::Error::ClosedLocally, .. } => return Ok(()),
                Event::Closed { reason, .. } => return Err(reason.into()),
                _ => {}
            }
        }
    }
}
