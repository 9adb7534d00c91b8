//! Requests both ways over one connection: a client asks for a sum, and the server asks the client for the numbers.
//!
//! ```console
//! $ cargo run -p examples --bin bidirectional
//! server asks for number 0
//! server asks for number 1
//! server asks for number 2
//! the sum is 42
//! ```

use libxio::{
    AcceptOptions, ConnectionOptions, Context, ContextOptions, Event, OutgoingRequest, OutgoingResponse,
    Request, ServerOptions, Session,
};
use std::error::Error;

const NUMBERS: [u64; 3] = [7, 15, 20];

/// The sum that the server is working on.
struct Job {
    question: Request,
    sum: u64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut server = Context::new(ContextOptions::default())?;
    let listening = server.listen(&"tcp://127.0.0.1:0/".parse()?, ServerOptions::default())?;
    let uri = server.local_uri(listening)?;
    let stop = server.handle();
    let thread = std::thread::spawn(move || {
        let mut job = None;
        server.run(move |context, event| {
            serve(context, event, &mut job).unwrap_or_else(|error| eprintln!("{error}"))
        })
    });

    let mut client = Context::new(ContextOptions::default())?;
    let connection = client.connect(&Session::new(uri), ConnectionOptions::default())?;
    let sum = loop {
        client.wait(None)?;
        match client.next_event() {
            Some(Event::Connected { .. }) => {
                client.request(connection, OutgoingRequest::new(b"sum", 0))?;
            }
            // The server asks back, on the same connection.
            Some(Event::Request(request)) => {
                let which = usize::from(request.header()[0]);
                println!("server asks for number {which}");
                let header = &NUMBERS[which].to_le_bytes();
                client.respond(request, OutgoingResponse { header, ..Default::default() })?;
            }
            Some(Event::Response { outcome, .. }) => break number(&outcome?.header)?,
            Some(Event::Closed { reason, .. }) => return Err(reason.into()),
            _ => {}
        }
    };
    println!("the sum is {sum}");
    stop.stop();
    thread.join().expect("the server does not panic")?;
    Ok(())
}

fn serve(context: &mut Context, event: Event, job: &mut Option<Job>) -> Result<(), Box<dyn Error>> {
    match event {
        Event::ConnectionRequest(request) => {
            context.accept(request, AcceptOptions::new())?;
        }
        // The answer comes later: the request waits in the job.
        Event::Request(question) => {
            context.request(question.connection(), OutgoingRequest::new(&[0], 0))?;
            *job = Some(Job { question, sum: 0 });
        }
        Event::Response { connection, token, outcome, .. } => {
            let Some(mut open) = job.take() else { return Ok(()) };
            open.sum += number(&outcome?.header)?;
            let next = token + 1;
            if next < NUMBERS.len() as u64 {
                context.request(connection, OutgoingRequest::new(&[next as u8], next))?;
                *job = Some(open);
            } else {
                let header = &open.sum.to_le_bytes();
                context.respond(open.question, OutgoingResponse { header, ..Default::default() })?;
            }
        }
        _ => {}
    }
    Ok(())
}

fn number(header: &[u8]) -> Result<u64, Box<dyn Error>> {
    Ok(u64::from_le_bytes(header.try_into()?))
}
