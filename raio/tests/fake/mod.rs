//! A server whose answers a test makes up.
#![allow(dead_code, clippy::unwrap_used, reason = "each test program uses a part of it")]

use libxio::{
    AcceptOptions, Context, ContextHandle, ContextOptions, Event, OutgoingResponse, RejectReason,
    ServerOptions, Sgl,
};
use raio::proto::{Answer, Greeting, Request};

/// A server whose answers a test makes up.
pub struct Fake {
    handle: ContextHandle,
    thread: Option<std::thread::JoinHandle<()>>,
    pub uri: String,
}

/// What to answer: header and data, or nothing at all.
pub type Made = Option<(Vec<u8>, Vec<u8>)>;

impl Fake {
    /// `welcome` is the private data of the acceptance, or the reason of a rejection.
    pub fn start(
        welcome: Result<Vec<u8>, RejectReason>,
        mut answer: impl FnMut(Request<'_>, &Sgl) -> Made + Send + 'static,
    ) -> Fake {
        let (sender, receiver) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let mut context = Context::new(ContextOptions::default()).unwrap();
            let uri = "tcp://127.0.0.1:0/".parse().unwrap();
            let server = context.listen(&uri, ServerOptions::default()).unwrap();
            sender.send((context.handle(), context.local_uri(server).unwrap().to_string())).unwrap();
            let serve = |context: &mut Context, event| match event {
                Event::ConnectionRequest(request) => match &welcome {
                    Ok(private_data) => {
                        let mut options = AcceptOptions::new();
                        options.private_data.clone_from(private_data);
                        context.accept(request, options).unwrap();
                    }
                    Err(reason) => context.reject(request, *reason, b"come back tomorrow").unwrap(),
                },
                Event::Request(request) => {
                    let made = Request::decode(request.header(), request.data().len())
                        .map(|command| answer(command, request.data()))
                        .unwrap();
                    if let Some((header, data)) = made {
                        let response = OutgoingResponse { header: &header, data: data.into() };
                        // The client may be gone, or have no room for what is made up.
                        let _ = context.respond(request, response);
                    }
                }
                _ => {}
            };
            context.run(serve).unwrap();
        });
        let (handle, uri) = receiver.recv().unwrap();
        Fake { handle, thread: Some(thread), uri }
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.handle.stop();
        self.thread.take().unwrap().join().unwrap();
    }
}

/// The usual welcome.
pub fn greeting() -> Result<Vec<u8>, RejectReason> {
    Ok(Greeting::reply(&Greeting::client(), 1 << 20).unwrap().encode().to_vec())
}

/// An answer with data.
pub fn made(answer: Answer, data: &[u8]) -> Made {
    Some((answer.encode().to_vec(), data.to_vec()))
}
