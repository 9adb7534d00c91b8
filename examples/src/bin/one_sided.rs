//! One-sided access: a server exposes a table; the client reads and writes its rows without an event at the server.
//!
//! ```console
//! $ cargo run -p examples --bin one_sided
//! row 3 was "empty"
//! row 3 is now "taken"
//! row 99: the range leaves the memory that the peer exposes
//! after the revoke: the peer exposes no such memory (any more)
//! ```

use libxio::{
    AcceptOptions, Access, Connection, ConnectionOptions, Context, ContextOptions, Event, Landing,
    OutgoingRequest, OutgoingResponse, Region, RemoteRegion, SendOptions, ServerOptions, Session,
};
use std::error::Error;

const ROWS: usize = 10;
const ROW_BYTES: usize = 5;

fn main() -> Result<(), Box<dyn Error>> {
    let mut server = Context::new(ContextOptions::default())?;
    let listening = server.listen(&"tcp://127.0.0.1:0/".parse()?, ServerOptions::default())?;
    let uri = server.local_uri(listening)?;
    let stop = server.handle();
    let thread = std::thread::spawn(move || -> libxio::Result<()> {
        let table = Region::allocate(ROWS * ROW_BYTES, false)?;
        for row in 0..ROWS {
            table.slice(row * ROW_BYTES, ROW_BYTES)?.copy_from(0, b"empty");
        }
        let mut exposed = None;
        server.run(move |context, event| {
            serve(context, event, &table, &mut exposed).unwrap_or_else(|error| eprintln!("{error}"))
        })
    });

    let mut context = Context::new(ContextOptions::default())?;
    let connection = context.connect(&Session::new(uri), ConnectionOptions::default())?;
    let mut client = Client { context, connection };
    client.answer()?;
    // The description of the table comes in an ordinary response.
    client.context.request(connection, OutgoingRequest::new(b"table?", 0))?;
    let table = RemoteRegion::from_bytes(&client.answer()?.header).ok_or("no description")?;

    println!("row 3 was {:?}", client.read(&table, 3)?);
    let offset = (3 * ROW_BYTES) as u64;
    let data = b"taken".to_vec().into();
    client.context.remote_write(connection, &table, offset, data, 0, SendOptions::default())?;
    client.answer()?;
    println!("row 3 is now {:?}", client.read(&table, 3)?);
    if let Err(error) = client.read(&table, 99) {
        println!("row 99: {error}");
    }
    client.context.request(connection, OutgoingRequest::new(b"revoke", 0))?;
    client.answer()?;
    if let Err(error) = client.read(&table, 3) {
        println!("after the revoke: {error}");
    }
    stop.stop();
    thread.join().expect("the server does not panic")?;
    Ok(())
}

struct Client {
    context: Context,
    connection: Connection,
}

impl Client {
    fn read(&mut self, table: &RemoteRegion, row: usize) -> Result<String, Box<dyn Error>> {
        let landing = Landing::Pool(ROW_BYTES as u32);
        let offset = (row * ROW_BYTES) as u64;
        self.context.remote_read(self.connection, table, offset, landing, 0, SendOptions::default())?;
        Ok(String::from_utf8(self.answer()?.data.to_vec())?)
    }

    /// Waits for the connection, or for the end of a request or a one-sided operation.
    fn answer(&mut self) -> Result<libxio::Reply, Box<dyn Error>> {
        loop {
            self.context.wait(None)?;
            match self.context.next_event() {
                Some(Event::Response { outcome, .. }) => return Ok(outcome?),
                Some(Event::Connected { .. }) => {
                    return Ok(libxio::Reply { header: Default::default(), data: Default::default() });
                }
                Some(Event::Closed { reason, .. }) => return Err(reason.into()),
                _ => {}
            }
        }
    }
}

fn serve(
    context: &mut Context,
    event: Event,
    table: &Region,
    exposed: &mut Option<RemoteRegion>,
) -> libxio::Result<()> {
    match event {
        Event::ConnectionRequest(request) => context.accept(request, AcceptOptions::new()).map(|_| ()),
        Event::Request(request) if request.header() == b"table?" => {
            let region =
                context.expose(request.connection(), table, 0, ROWS * ROW_BYTES, Access::READ_WRITE)?;
            *exposed = Some(region);
            context.respond(request, OutgoingResponse { header: &region.to_bytes(), ..Default::default() })
        }
        Event::Request(request) => {
            if let Some(region) = exposed.take() {
                context.revoke(request.connection(), &region)?;
            }
            context.respond(request, OutgoingResponse::default())
        }
        _ => Ok(()),
    }
}
