//! What goes over the socket beside the rings: the handing over of memory, and doorbells. Messages of 32 bytes on a
//! SOCK_SEQPACKET socket, which keeps their bounds.

use crate::transport::NotTaken;
use crate::wire::Violation;
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Version of these messages and of the rings' layout.
const VERSION: u8 = 1;

/// A message, without the descriptor that came with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Message {
    /// Client, first: here are the rings (with a memfd).
    Attach { length: u64, upward: u32, downward: u32 },
    /// Client: a region (with a memfd).
    Region { number: u32, length: u64 },
    /// Client: a region that will not be named any more.
    Withdraw { number: u32 },
    /// Wake up.
    Doorbell,
    /// Server: you may not come in, for this errno.
    Refusal { errno: u32 },
    /// Server, after Attach and in answer: hand over no more than this. Client: what it would hand over.
    Limits { regions: u32, bytes: u64 },
    /// Server: so much of what was withdrawn is unmapped, since the link began.
    Unmapped { regions: u32, bytes: u64 },
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Default)]
#[repr(C)]
struct MessageBytes {
    kind: u8,
    version: u8,
    reserved: U16,
    number: U32,
    length: U64,
    upward: U32,
    downward: U32,
    reserved_end: U64,
}

const MESSAGE_BYTES: usize = size_of::<MessageBytes>();
const _: () = assert!(MESSAGE_BYTES == 32);

impl Message {
    fn encode(self) -> MessageBytes {
        let mut bytes = MessageBytes { version: VERSION, ..MessageBytes::default() };
        match self {
            Message::Attach { length, upward, downward } => {
                bytes.kind = 1;
                bytes.length = length.into();
                bytes.upward = upward.into();
                bytes.downward = downward.into();
            }
            Message::Region { number, length } => {
                bytes.kind = 2;
                bytes.number = number.into();
                bytes.length = length.into();
            }
            Message::Withdraw { number } => {
                bytes.kind = 3;
                bytes.number = number.into();
            }
            Message::Doorbell => bytes.kind = 4,
            Message::Refusal { errno } => {
                bytes.kind = 5;
                bytes.number = errno.into();
            }
            Message::Limits { regions, bytes: length } => {
                bytes.kind = 6;
                bytes.number = regions.into();
                bytes.length = length.into();
            }
            Message::Unmapped { regions, bytes: length } => {
                bytes.kind = 7;
                bytes.number = regions.into();
                bytes.length = length.into();
            }
        }
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Message, Violation> {
        let Ok(raw) = MessageBytes::read_from_bytes(bytes) else {
            return Err(Violation::BadSideMessage("it is not 32 bytes long"));
        };
        if raw.version != VERSION {
            return Err(Violation::BadSideMessage("its version is not 1"));
        }
        let (number, length) = (raw.number.get(), raw.length.get());
        let message = match raw.kind {
            1 => Message::Attach { length, upward: raw.upward.get(), downward: raw.downward.get() },
            2 => Message::Region { number, length },
            3 => Message::Withdraw { number },
            4 => Message::Doorbell,
            5 => Message::Refusal { errno: number },
            6 => Message::Limits { regions: number, bytes: length },
            7 => Message::Unmapped { regions: number, bytes: length },
            _ => return Err(Violation::BadSideMessage("its kind is not known")),
        };
        // Whatever the kind does not use is 0.
        if message.encode().as_bytes() != bytes {
            return Err(Violation::BadSideMessage("a field that its kind does not use is not 0"));
        }
        Ok(message)
    }
}

/// Sends a message without blocking.
///
/// # Errors
/// EAGAIN when the peer has many messages to read; EPIPE or ECONNRESET when it is gone; ETOOMANYREFS and others for the
/// descriptor.
pub(super) fn send(
    socket: BorrowedFd<'_>,
    message: Message,
    memfd: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let bytes = message.encode();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors;
    if let Some(memfd) = memfd {
        descriptors = [memfd];
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
    }
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    rustix::net::sendmsg(socket, &[IoSlice::new(bytes.as_bytes())], &mut control, flags)?;
    Ok(())
}

/// Sends a message without memory, without blocking; false where the peer has many messages to read.
///
/// # Errors
/// As of [`send`].
pub(super) fn sends(socket: BorrowedFd<'_>, message: Message) -> io::Result<bool> {
    match send(socket, message, None) {
        Ok(()) => Ok(true),
        Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(cause) => Err(cause),
    }
}

/// What a look at the socket has brought.
#[derive(Debug)]
pub(super) enum Incoming {
    Message(Message, Option<OwnedFd>),
    Nothing,
    /// The peer has closed its end.
    End,
}

/// Receives a message without blocking.
///
/// # Errors
/// The socket's own, a [`Violation`] within an [`io::Error`], or [`NotTaken`] where this process has no descriptor left for the
/// one that came.
pub(super) fn receive(socket: BorrowedFd<'_>) -> io::Result<Incoming> {
    // One byte more than a message, so that a longer one shows.
    let mut bytes = [0; MESSAGE_BYTES + 1];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let mut outcome = rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags);
    if matches!(outcome, Err(Errno::CONNRESET)) {
        // The peer has closed without reading all that we said; what it said before (a refusal) comes after that news.
        outcome = rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags);
    }
    let received = match outcome {
        Ok(received) => received,
        Err(Errno::AGAIN | Errno::INTR) => return Ok(Incoming::Nothing),
        Err(Errno::CONNRESET) => return Ok(Incoming::End),
        Err(errno) => return Err(errno.into()),
    };
    if received.bytes == 0 {
        return Ok(Incoming::End);
    }
    let mut descriptor = None;
    for control_message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = control_message {
            for received in descriptors {
                if descriptor.replace(received).is_some() {
                    return Err(broken("more than one descriptor came with it"));
                }
            }
        }
    }
    // What did not fit was closed by the kernel. There was room for two.
    if received.flags.contains(ReturnFlags::CTRUNC) {
        if descriptor.is_none() {
            // The file exists already, so what is missing is a descriptor of this process.
            return Err(io::Error::other(NotTaken(libc::EMFILE)));
        }
        return Err(broken("more than one descriptor came with it"));
    }
    let message = Message::decode(&bytes[..received.bytes]).map_err(io::Error::other)?;
    let wants_memory = matches!(message, Message::Attach { .. } | Message::Region { .. });
    if wants_memory != descriptor.is_some() {
        return Err(broken("memory came with it, or did not, against its kind"));
    }
    Ok(Incoming::Message(message, descriptor))
}

fn broken(why: &'static str) -> io::Error {
    io::Error::other(Violation::BadSideMessage(why))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType};
    use std::os::fd::AsFd;

    fn pair() -> (OwnedFd, OwnedFd) {
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .unwrap()
    }

    #[test]
    fn golden_bytes() {
        let attach = Message::Attach { length: 0x0102_0304, upward: 0x1000, downward: 0x2000 };
        #[rustfmt::skip]
        let golden = [
            1, 1, 0, 0, 0, 0, 0, 0, 4, 3, 2, 1, 0, 0, 0, 0,
            0, 0x10, 0, 0, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ];
        assert_eq!(attach.encode().as_bytes(), golden);
        for message in [
            attach,
            Message::Region { number: 7, length: 1 << 40 },
            Message::Withdraw { number: 7 },
            Message::Doorbell,
            Message::Refusal { errno: 13 },
            Message::Limits { regions: 1024, bytes: 16 << 30 },
            Message::Unmapped { regions: 3, bytes: 3 << 20 },
        ] {
            assert_eq!(Message::decode(message.encode().as_bytes()), Ok(message));
        }
        for at in [1, 2, 3, 24, 31] {
            let mut bytes = golden;
            bytes[at] ^= 0x80;
            assert!(Message::decode(&bytes).is_err(), "{at}");
        }
        assert!(Message::decode(&golden[..31]).is_err());
    }

    #[test]
    fn messages_and_descriptors_arrive_and_wrong_ones_are_refused() {
        let (one, other) = pair();
        let file = tempfile::tempfile().unwrap();
        send(one.as_fd(), Message::Doorbell, None).unwrap();
        send(one.as_fd(), Message::Region { number: 1, length: 2 }, Some(file.as_fd())).unwrap();
        assert!(matches!(receive(other.as_fd()).unwrap(), Incoming::Message(Message::Doorbell, None)));
        let region = receive(other.as_fd()).unwrap();
        assert!(matches!(region, Incoming::Message(Message::Region { number: 1, length: 2 }, Some(_))));
        assert!(matches!(receive(other.as_fd()).unwrap(), Incoming::Nothing));
        send(one.as_fd(), Message::Region { number: 1, length: 2 }, None).unwrap();
        assert!(receive(other.as_fd()).is_err(), "no memory");
        send(one.as_fd(), Message::Doorbell, Some(file.as_fd())).unwrap();
        assert!(receive(other.as_fd()).is_err(), "memory that nobody wants");
        rustix::net::send(&one, &[1; 33], SendFlags::empty()).unwrap();
        assert!(receive(other.as_fd()).is_err(), "too long");
        drop(one);
        assert!(matches!(receive(other.as_fd()).unwrap(), Incoming::End));
    }
}
