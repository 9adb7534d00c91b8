//! Places for messages of one length, in the order in which they travel: message number `n` has place `n % places`.
//!
//! The same ring serves a sender (positions say how much is ready and how much is sent) and a receiver (how much has
//! arrived). Where the data of all messages is the same, one block of it stands for all, as a null device's server does.

use std::io::{self, IoSlice, Read, Write};
use std::net::TcpStream;

/// Most pieces of a gathered send when data is shared; the kernel takes 1,024.
const PIECES_MAX: usize = 256;
/// Most bytes of one gathered send when data is shared, as far as a socket's buffer usually reaches.
const SEND_BYTES_MAX: usize = 1 << 20;

/// A ring of places.
#[derive(Debug)]
pub(crate) struct Ring {
    bytes: Vec<u8>,
    /// Bytes of one place.
    stride: usize,
    /// Follows each place on the wire, without lying in the ring.
    shared: Vec<u8>,
    /// Bytes that have been sent or received since the start, shared ones among them.
    moved: u64,
}

impl Ring {
    /// For messages of `length` bytes.
    pub(crate) fn new(places: u64, length: usize) -> Ring {
        Ring { bytes: vec![0; places as usize * length], stride: length, shared: Vec::new(), moved: 0 }
    }

    /// For messages of a head each and one block of data that all share.
    pub(crate) fn with_shared(places: u64, head: usize, data: usize) -> Ring {
        Ring { shared: vec![0; data], ..Ring::new(places, head) }
    }

    fn length(&self) -> u64 {
        (self.stride + self.shared.len()) as u64
    }

    /// A message's place.
    pub(crate) fn place(&mut self, number: u64) -> &mut [u8] {
        let places = (self.bytes.len() / self.stride) as u64;
        let start = (number % places) as usize * self.stride;
        &mut self.bytes[start..start + self.stride]
    }

    /// Whole messages that were moved.
    pub(crate) fn messages(&self) -> u64 {
        self.moved / self.length()
    }

    /// One receive into the places that come next, up to the ring's end. `Ok(false)`: nothing was there.
    pub(crate) fn receive(&mut self, mut socket: &TcpStream) -> io::Result<bool> {
        let start = (self.moved % self.bytes.len() as u64) as usize;
        match socket.read(&mut self.bytes[start..]) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                self.moved += count as u64;
                Ok(true)
            }
            Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(cause) => Err(cause),
        }
    }

    /// One send of what is ready: all messages below `end`.
    pub(crate) fn send(&mut self, socket: &TcpStream, end: u64) -> io::Result<()> {
        let ready = end * self.length();
        if self.moved >= ready {
            return Ok(());
        }
        let sent = if self.shared.is_empty() {
            self.send_plain(socket, ready)
        } else {
            self.send_gathered(socket, ready)
        };
        match sent {
            Ok(count) => self.moved += count as u64,
            Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => {}
            Err(cause) => return Err(cause),
        }
        Ok(())
    }

    fn send_plain(&self, mut socket: &TcpStream, ready: u64) -> io::Result<usize> {
        let start = (self.moved % self.bytes.len() as u64) as usize;
        let count = (ready - self.moved) as usize;
        let (first, rest) = (count.min(self.bytes.len() - start), count);
        if first == rest {
            return socket.write(&self.bytes[start..start + count]);
        }
        let pieces = [IoSlice::new(&self.bytes[start..]), IoSlice::new(&self.bytes[..rest - first])];
        socket.write_vectored(&pieces)
    }

    fn send_gathered(&self, mut socket: &TcpStream, ready: u64) -> io::Result<usize> {
        let mut pieces = [IoSlice::new(&[]); PIECES_MAX];
        let (mut count, mut bytes, mut at) = (0, 0, self.moved);
        while at < ready && count < PIECES_MAX && bytes < SEND_BYTES_MAX {
            let within = (at % self.length()) as usize;
            let piece = if within < self.stride {
                let start = (at / self.length() * self.stride as u64 % self.bytes.len() as u64) as usize;
                &self.bytes[start + within..start + self.stride]
            } else {
                &self.shared[within - self.stride..]
            };
            pieces[count] = IoSlice::new(piece);
            count += 1;
            bytes += piece.len();
            at += piece.len() as u64;
        }
        socket.write_vectored(&pieces[..count])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Moves `messages` of a ring over a socket and says what arrived.
    fn carry(mut from: Ring, messages: u64, places: u64) -> Vec<u8> {
        let (near, far) = crate::pair(false).unwrap();
        let mut into = Ring::new(places, from.length() as usize);
        let mut seen = Vec::new();
        let mut taken = 0;
        let mut ready = 0;
        while taken < messages {
            if ready < messages && ready < taken + places {
                from.place(ready)[0] = ready as u8;
                ready += 1;
            }
            from.send(&near, ready).unwrap();
            into.receive(&far).unwrap();
            while taken < into.messages() {
                seen.push(into.place(taken)[0]);
                taken += 1;
            }
        }
        seen
    }

    #[test]
    fn messages_arrive_in_their_places() {
        let expected: Vec<u8> = (0..100).collect();
        assert_eq!(carry(Ring::new(7, 96), 100, 7), expected);
        assert_eq!(carry(Ring::with_shared(7, 80, 4096), 100, 7), expected);
        assert_eq!(carry(Ring::with_shared(3, 80, 700_000), 100, 3), expected);
    }
}
