//! libxio inside a loop of one's own, here epoll: the loop waits on the context's descriptor beside its others (a
//! timerfd that ticks), and drives the context when it is readable.
//!
//! ```console
//! $ cargo run -p examples --bin external_loop_epoll
//! tick 1: answered
//! tick 2: answered
//! tick 3: answered
//! ```

use libxio::{
    AcceptOptions, ConnectionOptions, Context, ContextOptions, Event, OutgoingRequest, OutgoingResponse,
    ServerOptions, Session,
};
use rustix::event::epoll;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use std::error::Error;
use std::time::Duration;

const CONTEXT: u64 = 1;
const TICK: u64 = 2;

fn main() -> Result<(), Box<dyn Error>> {
    // The server and its client live in this one thread and context.
    let mut context = Context::new(ContextOptions::default())?;
    let server = context.listen(&"tcp://127.0.0.1:0/".parse()?, ServerOptions::default())?;
    let session = Session::new(context.local_uri(server)?);
    let connection = context.connect(&session, ConnectionOptions::default())?;

    let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK)?;
    let interval = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
    let every = Itimerspec { it_interval: interval, it_value: interval };
    rustix::time::timerfd_settime(&timer, TimerfdTimerFlags::empty(), &every)?;

    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(
        &epoll,
        context.poll_fd_borrowed()?,
        epoll::EventData::new_u64(CONTEXT),
        epoll::EventFlags::IN,
    )?;
    epoll::add(&epoll, &timer, epoll::EventData::new_u64(TICK), epoll::EventFlags::IN)?;

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
        let mut ready = Vec::with_capacity(8);
        epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut ready), None)?;
        if ready.iter().any(|event| event.data.u64() == TICK) {
            rustix::io::read(&timer, &mut [0; 8])?;
            if connected {
                context.request(connection, OutgoingRequest::new(b"tick", answered + 1))?;
            }
        }
    }
    Ok(())
}
