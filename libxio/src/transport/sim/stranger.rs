//! Peers of bytes: what a test or a fuzzer is told to say, a context on the other end has to bear.

use super::{ByteSocket, SimListener, SimNetwork, SimSocket};
use crate::mem::IoVec;
use crate::{Result, Uri};
use std::io::{self, ErrorKind};

/// An end of a simulated connection that speaks bytes and knows no protocol.
#[derive(Debug)]
pub struct Stranger {
    socket: SimSocket,
}

/// A listener whose connections are taken by [`Stranger`]s.
#[derive(Debug)]
pub struct StrangerListener {
    listener: SimListener,
}

impl SimNetwork {
    /// Connects a stranger to a listener of this network.
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn stranger(&self, uri: &Uri) -> Result<Stranger> {
        let (socket, _) = self.open(uri)?;
        Ok(Stranger { socket })
    }

    /// Listens with strangers.
    ///
    /// # Errors
    /// The address is taken.
    pub fn listen_with_strangers(&self, uri: &Uri) -> Result<StrangerListener> {
        Ok(StrangerListener { listener: self.bind(uri)? })
    }
}

impl StrangerListener {
    /// Where it listens, with the port that was found.
    #[must_use]
    pub fn uri(&self) -> &Uri {
        &self.listener.uri
    }

    /// The next connection, if there is one.
    #[must_use]
    pub fn accept(&self) -> Option<Stranger> {
        self.listener.take_waiting().map(|socket| Stranger { socket })
    }
}

impl Stranger {
    /// Says as much of this as the network takes; returns how many bytes that is.
    ///
    /// # Errors
    /// The connection is over.
    pub fn say(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.socket.send(&[IoVec::from_slice(bytes)]) {
            Err(cause) if cause.kind() == ErrorKind::WouldBlock => Ok(0),
            other => other,
        }
    }

    /// What has arrived, at most `bytes.len()` bytes; 0 when there is nothing now.
    ///
    /// # Errors
    /// The connection is over.
    pub fn hear(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self.socket.receive(&mut [IoVec::from_mut_slice(bytes)]) {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Err(cause) if cause.kind() == ErrorKind::WouldBlock => Ok(0),
            other => other,
        }
    }
}
