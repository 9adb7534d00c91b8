//! TCP: a non-blocking socket under [`Stream`]. Nagle's algorithm is off, the kernel's buffer autotuning stays on.

use super::{ByteSocket, Link, Listener, Stream, Transport};
use crate::mem::IoVec;
use crate::{Error, Result, Uri, sys};
use socket2::{Domain, Protocol, SockAddr, Socket, TcpKeepalive, Type};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::Duration;

/// Connections that the kernel completes before we accept them; it cuts this to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
/// Silence after which the kernel probes the peer's kernel, in seconds. A peer that thinks or sits in a debugger
/// answers these; a host that is gone does not.
const KERNEL_KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
/// Time between such probes.
const KERNEL_KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// Unanswered probes after which the connection is reset.
const KERNEL_KEEPALIVE_PROBES: u32 = 6;
/// Congestion control between two ends on one host: the one that every kernel has and, unless it is forbidden, everybody may
/// choose (tcp(7)). There is no path to be sparing of, and one that paces, as bbr does, spends a fifth of the sender's time on its
/// timer. It has to be chosen before the connection is set up: a socket that was ever told to pace goes on with that.
const LOCAL_CONGESTION_CONTROL: &[u8] = b"reno";

/// What the kernel hands on as one packet: less than 64 KiB with its heads, in whole parts of what an Ethernet frame of
/// 1,500 bytes carries.
const PACKET_BYTES: usize = 45 * 1448;

/// The `tcp` scheme.
#[derive(Debug)]
pub(crate) struct Tcp;

impl Transport for Tcp {
    fn scheme(&self) -> &'static str {
        "tcp"
    }

    fn connect(&self, uri: &Uri) -> Result<Box<dyn Link>> {
        let addresses = uri.socket_addresses()?;
        let mut socket = None;
        let mut rest = VecDeque::from(addresses);
        let mut failure = libc::EADDRNOTAVAIL;
        while let Some(address) = rest.pop_front() {
            match start_connect(address) {
                Ok(started) => {
                    socket = Some(started);
                    break;
                }
                Err(cause) => failure = cause.raw_os_error().unwrap_or(libc::EIO),
            }
        }
        let address = format!("tcp://{}:{}", bracketed(uri.host()), uri.port());
        let socket =
            socket.ok_or_else(|| Error::ConnectFailed { address: address.clone(), errno: failure })?;
        Ok(Box::new(Stream::new(TcpSocket { socket, untried: rest, connecting: true }, address)))
    }

    fn listen(&self, uri: &Uri) -> Result<Box<dyn Listener>> {
        let mut failure = None;
        for address in uri.socket_addresses()? {
            match listen_at(address) {
                Ok((socket, bound)) => {
                    return Ok(Box::new(TcpListener::new(socket, bound, uri.resource())));
                }
                Err(cause) => failure = Some((address, cause)),
            }
        }
        let (address, cause) = failure.expect("a uri has at least one address, else an error");
        Err(Error::system(format!("listening at tcp://{address}"), &cause))
    }
}

/// A listener on a socket that somebody else made.
pub(crate) fn adopt_tcp(socket: std::net::TcpListener) -> Result<Box<dyn Listener>> {
    let socket = Socket::from(socket);
    let adopt = || {
        let bound = socket.local_addr()?.as_socket();
        let listens = socket.is_listener()? && socket.r#type()? == Type::STREAM;
        // The flags belong to the socket, whoever else holds it.
        socket.set_nonblocking(true)?;
        bound.filter(|_| listens).ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))
    };
    let bound = adopt().map_err(|cause| Error::system("taking over a listening TCP socket", &cause))?;
    Ok(Box::new(TcpListener::new(socket, bound, "/")))
}

fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

fn start_connect(address: SocketAddr) -> io::Result<Socket> {
    let socket =
        Socket::new(Domain::for_address(address), Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    prepare(&socket)?;
    if address.ip().is_loopback() {
        choose_local_congestion_control(&socket);
    }
    match socket.connect(&SockAddr::from(address)) {
        Ok(()) => Ok(socket),
        Err(cause) if cause.raw_os_error() == Some(libc::EINPROGRESS) => Ok(socket),
        Err(cause) => Err(cause),
    }
}

fn listen_at(address: SocketAddr) -> io::Result<(Socket, SocketAddr)> {
    let socket =
        Socket::new(Domain::for_address(address), Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&SockAddr::from(address))?;
    socket.listen(BACKLOG)?;
    let bound = socket.local_addr()?.as_socket().unwrap_or(address);
    Ok((socket, bound))
}

/// What was in force before; `None`, and it stays so, where the choice is forbidden.
fn choose_local_congestion_control(socket: &Socket) -> Option<Vec<u8>> {
    let before = socket.tcp_congestion().ok()?;
    socket.set_tcp_congestion(LOCAL_CONGESTION_CONTROL).ok()?;
    Some(before)
}

fn prepare(socket: &Socket) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(KERNEL_KEEPALIVE_IDLE)
            .with_interval(KERNEL_KEEPALIVE_INTERVAL)
            .with_retries(KERNEL_KEEPALIVE_PROBES),
    )
}

#[derive(Debug)]
struct TcpListener {
    socket: Socket,
    uri: Uri,
    /// The system's congestion control, for peers on other hosts; connections begin with that of the listener, which is for those on
    /// this one.
    elsewhere: Option<Vec<u8>>,
}

impl TcpListener {
    fn new(socket: Socket, bound: SocketAddr, resource: &str) -> TcpListener {
        let elsewhere = choose_local_congestion_control(&socket);
        TcpListener { socket, uri: Uri::tcp(bound, resource), elsewhere }
    }
}

impl Listener for TcpListener {
    fn local_uri(&self) -> &Uri {
        &self.uri
    }

    fn accept(&mut self) -> Result<Option<Box<dyn Link>>> {
        loop {
            // accept4 with SOCK_CLOEXEC; the flag for non-blocking is set after it.
            match self.socket.accept() {
                Ok((socket, address)) => {
                    let ready = socket.set_nonblocking(true).and_then(|()| prepare(&socket));
                    if ready.is_err() {
                        continue;
                    }
                    let peer =
                        address.as_socket().map_or_else(|| "tcp://?".into(), |peer| format!("tcp://{peer}"));
                    let socket = TcpSocket { socket, untried: VecDeque::new(), connecting: false };
                    if let Some(elsewhere) = &self.elsewhere
                        && !socket.peer_is_local()
                    {
                        // Else it goes on as between two ends on one host, which is not wrong.
                        let _ = socket.socket.set_tcp_congestion(elsewhere);
                    }
                    return Ok(Some(Box::new(Stream::new(socket, peer))));
                }
                Err(cause) => match cause.raw_os_error() {
                    Some(libc::EAGAIN) => return Ok(None),
                    // The peer gave up meanwhile, or the network had something to say about it (accept(2)).
                    Some(
                        libc::EINTR | libc::ECONNABORTED | libc::EPROTO | libc::ENETDOWN | libc::EHOSTUNREACH,
                    ) => {}
                    _ => return Err(Error::system(format!("accepting at {}", self.uri), &cause)),
                },
            }
        }
    }

    fn readiness(&self) -> Option<RawFd> {
        Some(self.socket.as_raw_fd())
    }
}

#[derive(Debug)]
struct TcpSocket {
    socket: Socket,
    /// Addresses of the host still to be tried while connecting.
    untried: VecDeque<SocketAddr>,
    connecting: bool,
}

impl TcpSocket {
    /// While connecting: `WouldBlock` until it is decided, then on to the next address where it failed.
    fn settle(&mut self) -> io::Result<()> {
        if !self.connecting {
            return Ok(());
        }
        loop {
            let failure = match self.socket.take_error()? {
                Some(cause) => cause,
                None => match self.socket.peer_addr() {
                    Ok(_) => {
                        self.connecting = false;
                        self.untried.clear();
                        return Ok(());
                    }
                    Err(cause) if cause.raw_os_error() == Some(libc::ENOTCONN) => {
                        return Err(io::ErrorKind::WouldBlock.into());
                    }
                    Err(cause) => cause,
                },
            };
            match self.untried.pop_front().map(start_connect) {
                Some(Ok(socket)) => self.socket = socket,
                Some(Err(_)) if !self.untried.is_empty() => {}
                Some(Err(cause)) => return Err(cause),
                None => return Err(failure),
            }
        }
    }
}

impl ByteSocket for TcpSocket {
    fn send(&mut self, pieces: &[IoVec<'_>]) -> io::Result<usize> {
        self.settle()?;
        sys::send_vectored(self.socket.as_fd(), pieces)
    }

    fn packet_bytes(&self) -> Option<usize> {
        Some(PACKET_BYTES)
    }

    fn receive(&mut self, pieces: &mut [IoVec<'_>]) -> io::Result<usize> {
        self.settle()?;
        sys::receive_vectored(self.socket.as_fd(), pieces)
    }

    fn readiness(&self) -> Option<RawFd> {
        Some(self.socket.as_raw_fd())
    }

    fn is_told_by_descriptor(&self) -> bool {
        !self.connecting
    }

    fn peer_is_local(&self) -> bool {
        let address = |found: io::Result<SockAddr>| found.ok()?.as_socket().map(|address| address.ip());
        let own = address(self.socket.local_addr());
        own.is_some() && own == address(self.socket.peer_addr())
    }

    fn shutdown(&mut self) {
        // Not connected any more: then it is down already.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn name(socket: &Socket) -> String {
        let name = socket.tcp_congestion().unwrap();
        String::from_utf8(name).unwrap().trim_end_matches('\0').to_owned()
    }

    /// Both ends of a connection, as they are before anything was accepted in the way of a listener.
    fn connect(listener: &TcpListener) -> (TcpSocket, Socket) {
        let address = listener.socket.local_addr().unwrap().as_socket().unwrap();
        let socket = start_connect(address).unwrap();
        let mut client = TcpSocket { socket, untried: VecDeque::new(), connecting: true };
        let deadline = Instant::now() + Duration::from_secs(20);
        while let Err(cause) = client.settle() {
            assert_eq!(cause.kind(), io::ErrorKind::WouldBlock);
            assert!(Instant::now() < deadline, "the connection is not set up");
        }
        (client, listener.socket.accept().unwrap().0)
    }

    #[test]
    fn two_ends_on_one_host_begin_with_a_control_that_does_not_pace() {
        let (socket, bound) = listen_at(([127, 0, 0, 1], 0).into()).unwrap();
        let before = name(&socket);
        let listener = TcpListener::new(socket, bound, "/");
        let Some(elsewhere) = &listener.elsewhere else {
            // It is forbidden here.
            assert_ne!(before, "reno");
            return;
        };
        assert_eq!(String::from_utf8_lossy(elsewhere).trim_end_matches('\0'), before);
        let (client, server) = connect(&listener);
        assert_eq!((name(&client.socket).as_str(), name(&server).as_str()), ("reno", "reno"));
        server.set_tcp_congestion(elsewhere).unwrap();
        assert_eq!(name(&server), before, "a peer on another host gets the system's back");
    }
}
