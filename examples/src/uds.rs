//! A transport of one's own: libxio over Unix stream sockets, by `uds:///resource?socket=/run/x.sock`.
//!
//! It is an ordered stream of bytes, so a [`ByteSocket`] under libxio's [`Stream`] does for the link; what is left is to
//! connect, to listen and to accept. docs/TRANSPORTS.md goes through it, and the conformance suite runs on it
//! (tests/uds.rs).
//!
//! ```
//! let mut options = libxio::ContextOptions::default();
//! options.transports.push(std::sync::Arc::new(examples::uds::Uds));
//! ```

use libxio::transport::{
    ByteSocket, IoVec, Link, Listener, Stream, Transport, receive_vectored, send_vectored,
};
use libxio::{Error, Result, Uri};
use socket2::{Domain, SockAddr, Socket, Type};
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::{Path, PathBuf};

/// Connections that the kernel completes before we accept them; it cuts this to `net.core.somaxconn`.
const BACKLOG: i32 = 1024;

/// The `uds` scheme.
#[derive(Debug)]
pub struct Uds;

/// The socket's path in a uri.
fn path_of(uri: &Uri) -> Result<PathBuf> {
    match uri.query("socket") {
        Some(path) if !path.is_empty() => Ok(PathBuf::from(path)),
        _ => Err(Error::BadUri {
            uri: uri.to_string(),
            reason: "a uds uri names its socket: uds:///resource?socket=/run/x.sock",
        }),
    }
}

fn new_socket() -> io::Result<Socket> {
    Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)
}

fn connect(path: &Path) -> io::Result<Socket> {
    let socket = new_socket()?;
    // A Unix socket is connected at once, or refused; a full backlog is `WouldBlock`.
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(socket)
}

impl Transport for Uds {
    fn scheme(&self) -> &'static str {
        "uds"
    }

    fn connect(&self, uri: &Uri) -> Result<Box<dyn Link>> {
        let path = path_of(uri)?;
        let address = format!("uds:{}", path.display());
        match connect(&path) {
            Ok(socket) => Ok(Box::new(Stream::new(UdsSocket { socket }, address))),
            Err(cause) => {
                Err(Error::ConnectFailed { address, errno: cause.raw_os_error().unwrap_or(libc::EIO) })
            }
        }
    }

    fn listen(&self, uri: &Uri) -> Result<Box<dyn Listener>> {
        let path = path_of(uri)?;
        let failed = |cause| Error::system(format!("listening at {uri}"), &cause);
        let socket = listen_at(&path).map_err(failed)?;
        Ok(Box::new(UdsListener { socket, uri: uri.clone(), path }))
    }
}

fn listen_at(path: &Path) -> io::Result<Socket> {
    let socket = new_socket()?;
    let address = SockAddr::unix(path)?;
    if let Err(cause) = socket.bind(&address) {
        // A server that was killed has left its socket behind: nobody answers there.
        if cause.kind() != io::ErrorKind::AddrInUse || connect(path).is_ok() {
            return Err(cause);
        }
        std::fs::remove_file(path)?;
        socket.bind(&address)?;
    }
    socket.listen(BACKLOG)?;
    Ok(socket)
}

#[derive(Debug)]
struct UdsListener {
    socket: Socket,
    uri: Uri,
    path: PathBuf,
}

impl Listener for UdsListener {
    fn local_uri(&self) -> &Uri {
        &self.uri
    }

    fn accept(&mut self) -> Result<Option<Box<dyn Link>>> {
        match self.socket.accept() {
            Ok((socket, _)) => {
                // Not inherited from the listening socket on Linux.
                socket
                    .set_nonblocking(true)
                    .map_err(|cause| Error::system(format!("accepting at {}", self.uri), &cause))?;
                let peer = format!("uds:{} (client)", self.path.display());
                Ok(Some(Box::new(Stream::new(UdsSocket { socket }, peer))))
            }
            Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(cause) => Err(Error::system(format!("accepting at {}", self.uri), &cause)),
        }
    }

    fn readiness(&self) -> Option<RawFd> {
        Some(self.socket.as_raw_fd())
    }
}

impl Drop for UdsListener {
    fn drop(&mut self) {
        // Gone already: somebody has cleaned up for us.
        let _ = std::fs::remove_file(&self.path);
    }
}

#[derive(Debug)]
struct UdsSocket {
    socket: Socket,
}

impl ByteSocket for UdsSocket {
    fn send(&mut self, pieces: &[IoVec<'_>]) -> io::Result<usize> {
        send_vectored(self.socket.as_fd(), pieces)
    }

    fn receive(&mut self, pieces: &mut [IoVec<'_>]) -> io::Result<usize> {
        receive_vectored(self.socket.as_fd(), pieces)
    }

    fn readiness(&self) -> Option<RawFd> {
        Some(self.socket.as_raw_fd())
    }

    fn shutdown(&mut self) {
        // Not connected any more: then it is down already.
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}
