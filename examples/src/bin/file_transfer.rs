//! File transfer: the client sends a file in large pieces; the server says where each lands, and writes it on its ring.
//!
//! ```console
//! $ cargo run -p examples --bin file_transfer -- server tcp://127.0.0.1:5557 /tmp/received
//! listening tcp://127.0.0.1:5557
//! $ cargo run -p examples --bin file_transfer -- client tcp://127.0.0.1:5557/name /etc/services
//! sent 12813 bytes
//! ```
//!
//! A piece is announced, since it is above the server's `immediate_bytes_max`; its data comes when the server has
//! assigned a buffer, so a server decides by itself how much it takes at a time.

use libxio::{
    AcceptOptions, ConnectionOptions, Context, ContextOptions, Event, FileOp, OutgoingRequest,
    OutgoingResponse, Request, ServerOptions, Session, Uri,
};
use std::collections::HashMap;
use std::error::Error;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::ExitCode;

const PIECE_BYTES: usize = 1 << 20;
/// Pieces under way at a time.
const DEPTH: u64 = 4;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["server", uri, folder] => serve(uri, Path::new(folder)),
        ["client", uri, file] => send(uri, file),
        _ => {
            eprintln!("usage: file_transfer server URI FOLDER | file_transfer client URI/NAME FILE");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("file_transfer: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Takes files into a folder, one for each connection.
fn serve(uri: &str, folder: &Path) -> Result<(), Box<dyn Error>> {
    let uri: Uri = uri.parse()?;
    let mut options = ContextOptions::default();
    options.limits.immediate_bytes_max = 0;
    let mut context = Context::new(options)?;
    let server = context.listen(&uri, ServerOptions::default())?;
    println!("listening {}", context.local_uri(server)?);
    let mut files = HashMap::new();
    // Requests whose piece is being written, by the operation's token.
    let mut writing: HashMap<u64, Request> = HashMap::new();
    let mut next = 0;
    context.run(|context, event| {
        let done: libxio::Result<()> = (|| match event {
            Event::ConnectionRequest(request) => {
                // Only a name of its own, in the folder: no way out of it.
                let name = Path::new(request.resource()).file_name().unwrap_or_default().to_owned();
                match File::create(folder.join(name)) {
                    Ok(file) => {
                        files.insert(context.accept(request, AcceptOptions::new())?, file);
                        Ok(())
                    }
                    Err(_) => context.reject(request, libxio::RejectReason::NotPermitted, b""),
                }
            }
            Event::Incoming(incoming) => {
                let memory = context.pool().take_list(incoming.data_length() as usize)?;
                context.assign(incoming, memory)
            }
            Event::Request(mut request) => {
                let Some(file) = files.get(&request.connection()) else { return Ok(()) };
                let Ok(offset) = request.header().try_into().map(u64::from_le_bytes) else { return Ok(()) };
                next += 1;
                let data = request.take_data();
                context.submit(FileOp::Write { fd: file.as_raw_fd(), offset, data, durable: false }, next)?;
                writing.insert(next, request);
                Ok(())
            }
            Event::Completed(completion) => {
                let Some(request) = writing.remove(&completion.token) else { return Ok(()) };
                let whole = completion.result == u32::try_from(completion.data.len()).map_err(|_| 0);
                let header: &[u8] = if whole { b"" } else { b"writing failed" };
                context.respond(request, OutgoingResponse { header, ..Default::default() })
            }
            Event::Closed { connection, .. } => {
                // Its writes hold no reference to the descriptor: it stays open until they are done.
                if !writing.values().any(|request| request.connection() == connection) {
                    files.remove(&connection);
                }
                Ok(())
            }
            _ => Ok(()),
        })();
        if let Err(error) = done {
            eprintln!("file_transfer: {error}");
        }
    })?;
    Ok(())
}

/// Sends a file and waits until all of it is written.
fn send(uri: &str, file: &str) -> Result<(), Box<dyn Error>> {
    let mut file = File::open(file)?;
    let mut context = Context::new(ContextOptions::default())?;
    let connection = context.connect(&Session::new(uri.parse()?), ConnectionOptions::default())?;
    let (mut sent, mut open, mut at_end, mut connected) = (0, 0, false, false);
    while !at_end || open > 0 {
        context.wait(None)?;
        while let Some(event) = context.next_event() {
            match event {
                Event::Connected { .. } => connected = true,
                Event::Response { outcome, .. } => {
                    open -= 1;
                    let problem = outcome?.header;
                    if !problem.is_empty() {
                        return Err(String::from_utf8_lossy(&problem).into());
                    }
                }
                Event::Closed { reason, .. } => return Err(reason.into()),
                _ => {}
            }
        }
        while connected && !at_end && open < DEPTH {
            let mut piece = Vec::with_capacity(PIECE_BYTES);
            file.by_ref().take(PIECE_BYTES as u64).read_to_end(&mut piece)?;
            at_end = piece.is_empty();
            if !at_end {
                let header = &u64::to_le_bytes(sent);
                sent += piece.len() as u64;
                open += 1;
                context.request(
                    connection,
                    OutgoingRequest { data: piece.into(), ..OutgoingRequest::new(header, 0) },
                )?;
            }
        }
    }
    println!("sent {sent} bytes");
    Ok(())
}
