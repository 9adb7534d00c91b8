//! One end of a shared-memory link, as a socket of bytes: the rings, the Unix socket beside them, and the regions.

use super::identity::{AllowList, Identity};
use super::lending::{Borrower, Lender};
use super::memory::{End, Moved, RING_BYTES, Rings, length_for};
use super::message::{Incoming, Message, receive, send, sends};
use super::ring::Bell;
use crate::error::advice_on_limit;
use crate::mem::{Account, Amount, IoVec, PeerHold, Purpose};
use crate::transport::{Armed, ByteSocket, NotTaken, WakeWord};
use crate::wire::{HeadWords, PlacedPiece, Violation};
use crate::{Buffer, Error, Region, Result, Sgl};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

/// Receives from an empty ring between two looks at the socket, which tells whether the peer lives: a system call for so
/// many weighs nothing, and a dead peer shows within a few milliseconds of polling.
const POLLS_PER_LOOK: u32 = 2048;
/// Messages taken in one look, so that a peer which sends without end holds up nobody else.
const MESSAGES_PER_LOOK: usize = 64;

/// What a client may hand over before it has asked for more: what most ever do.
const RESERVED_AT_FIRST: Amount = Amount { regions: 16, bytes: 16 << 20 };

/// Looks in which a region has to turn up that a frame names: enough for as many messages as a socket's buffer holds.
const LOOKS_FOR_REGION: usize = 16;

/// One end of a link.
#[derive(Debug)]
pub(super) struct ShmSocket {
    /// The Unix socket; mapped memory of the peer holds it open too, so that its end tells the peer that nothing here
    /// can reach its memory any more.
    hold: Arc<PeerHold>,
    state: State,
    /// The most that is mapped of a client's memory.
    of_one: Amount,
    /// What went wrong at a look at the socket, and is told at the next call.
    failure: Option<io::Error>,
    /// Our sleeping word is set, or was when the peer last looked.
    armed: bool,
    /// While we sleep, the peer wakes us by our sleeping word, not by a message.
    on_word: bool,
    /// The socket was seen to be readable.
    told: bool,
    /// Polls that found nothing since the last look at the socket.
    polls: u32,
    /// The peer has closed its end; what is in the ring is still read.
    ended: bool,
    /// We have ended the link.
    shut: bool,
    /// The client asked for more than there is.
    has_no_room: bool,
    /// The client has to be told what it may hand over.
    owes_limits: bool,
}

#[derive(Debug)]
enum State {
    /// The server's queue of connections was full: tried again.
    Connecting {
        address: SocketAddrUnix,
        allow: AllowList,
    },
    /// The client's first message has not come.
    Unattached,
    /// Nothing can be said or heard any more: it was wrong, or we have ended the link.
    Broken,
    Client {
        rings: Rings,
        lender: Lender,
        server: Identity,
    },
    Server {
        rings: Rings,
        borrower: Borrower,
    },
}

impl ShmSocket {
    /// Connects to the server that listens at a path.
    pub(super) fn connect(path: &str, allow: AllowList) -> Result<ShmSocket> {
        let failed = |errno| Error::ConnectFailed { address: format!("shm:{path}"), errno };
        let address = SocketAddrUnix::new(path).map_err(|errno| failed(errno.raw_os_error()))?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
            .map_err(|errno| failed(errno.raw_os_error()))?;
        let mut this =
            ShmSocket::new(socket, State::Connecting { address, allow }, Account::unlimited(), Amount::MAX);
        match this.settle() {
            Ok(()) => Ok(this),
            Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => Ok(this),
            Err(cause) => Err(failed(cause.raw_os_error().unwrap_or(libc::EIO))),
        }
    }

    /// A link that a listener has accepted.
    pub(super) fn accepted(socket: OwnedFd, account: Account, of_one: Amount) -> ShmSocket {
        ShmSocket::new(socket, State::Unattached, account, of_one)
    }

    fn new(socket: OwnedFd, state: State, account: Account, of_one: Amount) -> ShmSocket {
        let hold = PeerHold::new(socket, account);
        let (armed, on_word, told) = (false, false, false);
        let (ended, shut, has_no_room, owes_limits) = (false, false, false, false);
        ShmSocket {
            hold,
            state,
            of_one,
            failure: None,
            armed,
            on_word,
            told,
            polls: 0,
            ended,
            shut,
            has_no_room,
            owes_limits,
        }
    }

    /// Gets on with connecting and attaching; `WouldBlock` until that is done.
    fn settle(&mut self) -> io::Result<()> {
        if self.hold.has_vanished() {
            return Err(io::Error::other(Violation::MemoryVanished));
        }
        if let Some(cause) = self.failure.take() {
            return Err(cause);
        }
        match &self.state {
            State::Client { .. } | State::Server { .. } => Ok(()),
            State::Broken => Err(io::Error::from_raw_os_error(libc::EPIPE)),
            State::Connecting { address, allow } => {
                match rustix::net::connect(self.hold.socket(), address) {
                    Ok(()) => {}
                    Err(rustix::io::Errno::AGAIN) => return Err(io::ErrorKind::WouldBlock.into()),
                    Err(errno) => return Err(errno.into()),
                }
                let server = Identity::of_peer(self.hold.socket())?;
                if !allow.allows(server) {
                    tracing::warn!(uid = server.uid, "the server's user is not one that we talk to");
                    return Err(io::Error::from_raw_os_error(libc::EACCES));
                }
                self.attach(server)
            }
            State::Unattached => {
                if let Err(cause) = self.look() {
                    // Without rings there is no way to say why.
                    self.state = State::Broken;
                    return Err(cause);
                }
                match self.state {
                    State::Unattached if self.ended => Err(io::Error::from_raw_os_error(libc::ECONNRESET)),
                    State::Unattached => Err(io::ErrorKind::WouldBlock.into()),
                    _ => Ok(()),
                }
            }
        }
    }

    /// The client makes the rings and hands them over.
    fn attach(&mut self, server: Identity) -> io::Result<()> {
        let no_memory = || io::Error::from_raw_os_error(libc::ENOMEM);
        let length = length_for(RING_BYTES, RING_BYTES).ok_or_else(no_memory)?;
        let memory = Region::allocate(length, false).map_err(|_| no_memory())?;
        // Without descriptors there is no memfd.
        let (memfd, _) = memory
            .memfd_for(memory.number(), server.number())
            .ok_or_else(|| io::Error::from_raw_os_error(libc::EMFILE))?;
        let memfd = memfd.as_fd();
        let attach = Message::Attach { length: length as u64, upward: RING_BYTES, downward: RING_BYTES };
        if let Err(cause) = send(self.hold.socket(), attach, Some(memfd)) {
            // A server that does not let us in says why before it closes.
            return Err(match receive(self.hold.socket()) {
                Ok(Incoming::Message(Message::Refusal { errno }, _)) => refused(errno),
                _ => cause,
            });
        }
        let rings = Rings::map(memfd, RING_BYTES, RING_BYTES, End::Client, Arc::clone(&self.hold))?;
        self.state = State::Client { rings, lender: Lender::default(), server };
        Ok(())
    }

    fn knows(&self, region: u32) -> bool {
        matches!(&self.state, State::Server { borrower, .. } if borrower.knows(region))
    }

    /// Takes the messages that wait at the socket, up to a number.
    fn look(&mut self) -> io::Result<()> {
        self.look_until(|_| false)
    }

    /// Takes messages as far as one of a kind.
    fn look_until(&mut self, is_last: impl Fn(&Message) -> bool) -> io::Result<()> {
        self.take_messages(is_last).inspect_err(|cause| {
            if let Some(not_taken) = cause.get_ref().and_then(|inner| inner.downcast_ref::<NotTaken>()) {
                self.refuse_memory(*not_taken);
            }
        })
    }

    /// The client hears that it is not at fault; the person at this end hears it once.
    #[cold]
    fn refuse_memory(&self, NotTaken(errno): NotTaken) {
        static TOLD: Once = Once::new();
        TOLD.call_once(|| {
            let advice = advice_on_limit(errno);
            tracing::warn!(cause = %io::Error::from_raw_os_error(errno), "no room to take memory of clients, whose links end: {advice}");
        });
        // It may be gone already.
        let _ = send(self.hold.socket(), Message::Refusal { errno: libc::ENOBUFS as u32 }, None);
    }

    fn take_messages(&mut self, is_last: impl Fn(&Message) -> bool) -> io::Result<()> {
        self.polls = 0;
        for _ in 0..MESSAGES_PER_LOOK {
            let (message, memfd) = match receive(self.hold.socket())? {
                Incoming::Message(message, memfd) if is_last(&message) => {
                    self.take(message, memfd)?;
                    break;
                }
                Incoming::Message(message, memfd) => (message, memfd),
                Incoming::Nothing => break,
                Incoming::End => {
                    self.ended = true;
                    break;
                }
            };
            self.take(message, memfd)?;
        }
        if let State::Client { rings, lender, .. } = &mut self.state
            && lender.looks(self.hold.socket())
        {
            rings.give_notice();
        }
        self.tell_room()
    }

    fn take(&mut self, message: Message, memfd: Option<OwnedFd>) -> io::Result<()> {
        match (&mut self.state, message, memfd) {
            (_, Message::Doorbell, _) => Ok(()),
            (State::Client { .. }, Message::Refusal { errno }, _) => Err(refused(errno)),
            (State::Client { lender, .. }, Message::Limits { regions, bytes }, _) => {
                lender.limit(Amount::new(regions, bytes));
                Ok(())
            }
            (State::Client { lender, .. }, Message::Unmapped { regions, bytes }, _) => {
                lender.unmapped(Amount::new(regions, bytes), self.hold.socket()).map_err(io::Error::other)
            }
            (State::Unattached, Message::Attach { length, upward, downward }, Some(memfd)) => {
                self.take_rings(length, upward, downward, &memfd)
            }
            (State::Server { rings, .. }, Message::Limits { regions, bytes }, _) => {
                // The rings are one region more.
                let needed = rings.amount();
                let wanted = self.of_one.min(Amount::new(regions, bytes)).plus(needed);
                self.hold.account().lower(wanted);
                let fits = self.hold.account().reserve(wanted, Purpose::Asked { needed });
                // Once for each: it asks again now and then, as often as it likes.
                if !fits && !std::mem::replace(&mut self.has_no_room, true) {
                    let peer = Identity::of_peer(self.hold.socket()).map_or(0, |peer| peer.pid);
                    tracing::warn!(pid = peer, regions, bytes, "no room to map more memory of this client");
                }
                self.owes_limits = true;
                Ok(())
            }
            (State::Server { borrower, .. }, Message::Region { number, length }, Some(memfd)) => {
                borrower.take(number, length, &memfd, &self.hold)
            }
            (State::Server { borrower, .. }, Message::Withdraw { number }, _) => {
                borrower.give_back(number).map_err(io::Error::other)
            }
            _ => Err(broken("it has no place in the present state")),
        }
    }

    /// The rings of a client that has just come.
    fn take_rings(&mut self, length: u64, upward: u32, downward: u32, memfd: &OwnedFd) -> io::Result<()> {
        if length_for(upward, downward).is_none_or(|bytes| bytes as u64 != length) {
            return Err(broken("the rings are not of the length that it says"));
        }
        let amount = Amount::new(1, length);
        if !self.hold.account().reserve(amount, Purpose::Needed) {
            let peer = Identity::of_peer(self.hold.socket())?;
            tracing::warn!(pid = peer.pid, uid = peer.uid, "refused: no room to map its rings");
            // It may be gone already.
            let _ = send(self.hold.socket(), Message::Refusal { errno: libc::ENOBUFS as u32 }, None);
            return Err(io::Error::from_raw_os_error(libc::ENOBUFS));
        }
        let hold = Arc::clone(&self.hold);
        let rings = Rings::map(memfd.as_fd(), upward, downward, End::Server, hold).map_err(|cause| {
            match cause.raw_os_error() {
                Some(errno @ libc::ENOMEM) => io::Error::other(NotTaken(errno)),
                _ => broken("the rings are not a sealed memfd of the length that it says"),
            }
        })?;
        self.state = State::Server { rings, borrower: Borrower::new() };
        self.hold.account().reserve(self.of_one.min(RESERVED_AT_FIRST).plus(amount), Purpose::AtFirst);
        self.owes_limits = true;
        Ok(())
    }

    /// Tells the client what it may hand over, if it has asked, and what was unmapped of what it has withdrawn.
    fn tell_room(&mut self) -> io::Result<()> {
        let State::Server { rings, borrower } = &mut self.state else { return Ok(()) };
        let mut tells = borrower.tell_unmapped(&self.hold)?;
        if self.owes_limits {
            let Amount { regions, bytes } = self.hold.account().reserved().minus(rings.amount());
            // What it has no room to hear is said at the next look.
            self.owes_limits = !sends(self.hold.socket(), Message::Limits { regions, bytes })?;
            tells |= !self.owes_limits;
        }
        if tells {
            rings.give_notice();
        }
        Ok(())
    }

    /// After a sleep: says that this side is awake, and takes what woke it.
    fn wake(&mut self) -> io::Result<()> {
        let told = std::mem::take(&mut self.told);
        if std::mem::take(&mut self.armed) {
            if let Some(rings) = self.rings() {
                rings.disarm();
            }
            if self.on_word && !told {
                return Ok(());
            }
        } else if !told {
            return Ok(());
        }
        // Behind the bell there is nothing, most times, and to see that is a system call. What is there keeps the socket
        // readable, so that no sleep outlasts it, and where it has to be seen at once there is notice of it in the ring.
        self.look_until(|message| matches!(message, Message::Doorbell))
    }

    fn rings(&mut self) -> Option<&mut Rings> {
        match &mut self.state {
            State::Client { rings, .. } | State::Server { rings, .. } => Some(rings),
            State::Connecting { .. } | State::Unattached | State::Broken => None,
        }
    }

    /// Wakes the peer.
    #[inline]
    fn ring(&self, bell: Bell) -> io::Result<()> {
        match (bell, &self.state) {
            (Bell::Silent, _) => Ok(()),
            (Bell::Word, State::Client { rings, .. } | State::Server { rings, .. }) => {
                rings.wake_peer();
                Ok(())
            }
            // What it has not read wakes it as well.
            _ => sends(self.hold.socket(), Message::Doorbell).map(|_| ()),
        }
    }
}

/// What the server says.
fn refused(errno: u32) -> io::Error {
    // An errno is at most 4,095.
    io::Error::from_raw_os_error(errno.clamp(1, 4095) as i32)
}

fn broken(why: &'static str) -> io::Error {
    io::Error::other(Violation::BadSideMessage(why))
}

impl ByteSocket for ShmSocket {
    fn send(&mut self, pieces: &[IoVec<'_>]) -> io::Result<usize> {
        self.settle()?;
        // If the sleeping word is set it stays so: who only sends does not look at what comes, and has to be rung for it.
        let Some(rings) = self.rings() else { return Err(io::ErrorKind::WouldBlock.into()) };
        let Moved { bytes, bell } = rings.write(pieces).map_err(io::Error::other)?;
        self.ring(bell)?;
        if bytes == 0 {
            self.wake()?;
            // A peer that is gone makes no room.
            if self.ended {
                return Err(io::Error::from_raw_os_error(libc::EPIPE));
            }
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(bytes)
    }

    #[inline]
    fn lays_out(&self) -> bool {
        true
    }

    #[inline]
    fn lay_out(&mut self, head: HeadWords, parts: [&[u8]; 2], data: &Sgl) -> bool {
        // What is wrong shows at the next send, publish or receive.
        self.rings().is_some_and(|rings| rings.lay_out(head, parts, data).unwrap_or(false))
    }

    fn publish(&mut self) -> io::Result<()> {
        self.settle()?;
        let Some(rings) = self.rings() else { return Ok(()) };
        let bell = rings.publish().map_err(io::Error::other)?;
        self.ring(bell)
    }

    fn publish_early(&mut self) -> io::Result<()> {
        self.settle()?;
        let Some(rings) = self.rings() else { return Ok(()) };
        rings.publish_early().map_err(io::Error::other)
    }

    fn receive(&mut self, pieces: &mut [IoVec<'_>]) -> io::Result<usize> {
        self.settle()?;
        self.wake()?;
        let Some(rings) = self.rings() else { return Err(io::ErrorKind::WouldBlock.into()) };
        let Moved { bytes, bell } = rings.read(pieces).map_err(io::Error::other)?;
        let noticed = rings.takes_notice();
        // A peer that is gone needs no bell, and what it said before is read.
        let _ = self.ring(bell);
        if bytes > 0 {
            self.polls = 0;
            if noticed && let Err(cause) = self.look() {
                // What has come before is taken first.
                self.failure = Some(cause);
            }
            return Ok(bytes);
        }
        if self.ended {
            return Ok(0);
        }
        self.polls += 1;
        if noticed || self.polls >= POLLS_PER_LOOK {
            self.look()?;
        }
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn has_arrived(&self) -> Option<bool> {
        match &self.state {
            State::Client { rings, .. } | State::Server { rings, .. } if !self.armed && !self.ended => {
                Some(rings.has_arrived())
            }
            _ => None,
        }
    }

    fn sends_early(&self) -> bool {
        match &self.state {
            State::Client { rings, .. } | State::Server { rings, .. } => rings.peer_is_awake(),
            _ => false,
        }
    }

    fn readiness(&self) -> Option<RawFd> {
        match self.state {
            State::Connecting { .. } => None,
            _ => Some(self.hold.socket().as_raw_fd()),
        }
    }

    fn shutdown(&mut self) {
        // The end of the socket may be long in coming: it waits for whoever is still at the peer's memory.
        if let Some(bell) = self.rings().map(Rings::look_late) {
            // A peer that is gone needs no bell.
            let _ = self.ring(bell);
        }
        self.shut = true;
        match self.state {
            // The server reads this as the end, and closes its socket once nothing there reaches our memory any more.
            // No connection, no need.
            State::Connecting { .. } | State::Client { .. } => {
                let _ = rustix::net::shutdown(self.hold.socket(), rustix::net::Shutdown::Write);
            }
            // Closing the socket is the client's sign that we are done with its memory: that is when the last
            // operation on it has ended.
            State::Unattached | State::Server { .. } | State::Broken => self.state = State::Broken,
        }
    }

    fn arm(&mut self, reads: bool, blocked: bool) -> Armed {
        if !reads && !blocked {
            return Armed::Wait(0);
        }
        if self.ended || self.hold.has_vanished() {
            return Armed::Ready;
        }
        let bell = self.rings().map_or(Bell::Silent, Rings::give_room);
        // A peer that is gone needs no room.
        let _ = self.ring(bell);
        // Messages that come meanwhile make the socket readable.
        if let Some(rings) = self.rings() {
            match rings.arm(reads, blocked) {
                // What is wrong shows at the next send or receive.
                Ok(true) | Err(_) => return Armed::Ready,
                Ok(false) => (self.armed, self.on_word) = (true, false),
            }
        }
        Armed::Wait(libc::POLLIN)
    }

    fn wake_word(&mut self) -> Option<WakeWord> {
        let word = if self.armed { self.rings()?.wait_on_word() } else { None };
        self.on_word = word.is_some();
        word
    }

    fn descriptor_is_ready(&mut self) {
        self.told = true;
    }

    fn peer_is_local(&self) -> bool {
        true
    }

    fn shares_memory(&self) -> bool {
        true
    }

    fn lends(&self) -> bool {
        matches!(self.state, State::Client { .. } | State::Connecting { .. })
    }

    fn lend(&mut self, buffer: &Buffer) -> Option<PlacedPiece> {
        if let State::Client { lender, .. } = &self.state
            && !lender.knows_limits()
            // The server says it before it welcomes anybody.
            && let Err(cause) = self.look()
        {
            self.failure = Some(cause);
            return None;
        }
        match &mut self.state {
            State::Client { rings, lender, server } => {
                let mut asks = false;
                let piece = lender.lend(buffer, self.hold.socket(), server.number(), &mut asks);
                if asks {
                    rings.give_notice();
                }
                piece
            }
            _ => None,
        }
    }

    fn borrow(&mut self, piece: PlacedPiece) -> io::Result<Buffer> {
        // It was handed over before the frame was written: the message waits at the socket, perhaps behind others.
        for _ in 0..LOOKS_FOR_REGION {
            if self.knows(piece.region) {
                break;
            }
            self.look()?;
        }
        match &self.state {
            State::Server { borrower, .. } => borrower.reach(piece),
            _ => Err(Violation::BadPlacement("only a client's memory is reached")),
        }
        .map_err(io::Error::other)
    }

    fn is_released(&mut self, wait: Duration) -> bool {
        if !self.lends() {
            return true;
        }
        let deadline = Instant::now() + wait;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = rustix::event::Timespec {
                tv_sec: left.as_secs().cast_signed(),
                tv_nsec: left.subsec_nanos().into(),
            };
            // Our own end is shut: a hang-up says that the other one is closed too.
            let mut watched = [PollFd::from_borrowed_fd(self.hold.socket(), PollFlags::empty())];
            let polled = poll(&mut watched, Some(&timeout));
            if watched[0].revents().intersects(PollFlags::HUP | PollFlags::ERR) {
                return true;
            }
            match polled {
                Err(rustix::io::Errno::INTR) if !left.is_zero() => {}
                _ => return false,
            }
        }
    }
}
