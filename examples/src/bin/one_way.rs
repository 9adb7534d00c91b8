//! One-way messages with receipts: a sensor reports, a collector accepts what makes sense and rejects the rest.
//!
//! ```console
//! $ cargo run -p examples --bin one_way
//! reading 0: 21.5 accepted
//! reading 1: 21.7 accepted
//! reading 2: -400.0 rejected
//! reading 3: 21.6 accepted
//! ```

use libxio::{
    AcceptOptions, ConnectionOptions, Context, ContextOptions, Event, OutgoingOneWay, Receipt, SendOptions,
    ServerOptions, Session,
};
use std::error::Error;

const READINGS: [f32; 4] = [21.5, 21.7, -400.0, 21.6];
const ABSOLUTE_ZERO: f32 = -273.15;

fn main() -> Result<(), Box<dyn Error>> {
    let mut collector = Context::new(ContextOptions::default())?;
    let server = collector.listen(&"tcp://127.0.0.1:0/".parse()?, ServerOptions::default())?;
    let uri = collector.local_uri(server)?;
    let stop = collector.handle();
    let thread = std::thread::spawn(move || collector.run(collect));

    let mut sensor = Context::new(ContextOptions::default())?;
    let connection = sensor.connect(&Session::new(uri), ConnectionOptions::default())?;
    let mut receipts = 0;
    while receipts < READINGS.len() {
        sensor.wait(None)?;
        while let Some(event) = sensor.next_event() {
            match event {
                // All four travel together: a turn sends what it has gathered.
                Event::Connected { .. } => {
                    for (token, reading) in (0..).zip(READINGS) {
                        let options = SendOptions { receipt: true, ..SendOptions::default() };
                        let header = &reading.to_le_bytes();
                        sensor.send(
                            connection,
                            OutgoingOneWay { header, token, options, ..Default::default() },
                        )?;
                    }
                }
                Event::Receipt { token, outcome, .. } => {
                    let said = match outcome? {
                        Receipt::Accepted => "accepted",
                        Receipt::Rejected => "rejected",
                    };
                    println!("reading {token}: {:.1} {said}", READINGS[token as usize]);
                    receipts += 1;
                }
                Event::Closed { reason, .. } => return Err(reason.into()),
                _ => {}
            }
        }
    }
    stop.stop();
    thread.join().expect("the collector does not panic")?;
    Ok(())
}

fn collect(context: &mut Context, event: Event) {
    // A sensor that has left needs no receipt.
    let _ = match event {
        Event::ConnectionRequest(request) => context.accept(request, AcceptOptions::new()).map(|_| ()),
        Event::OneWay(message) => {
            let reading = message.header().try_into().map(f32::from_le_bytes);
            let sensible = reading.is_ok_and(|reading| reading >= ABSOLUTE_ZERO);
            context.release(message, if sensible { Receipt::Accepted } else { Receipt::Rejected })
        }
        _ => Ok(()),
    };
}
