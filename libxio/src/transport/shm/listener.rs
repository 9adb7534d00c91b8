//! Where clients on this host come in: a Unix socket in the file system.

use super::identity::{AllowList, Identity};
use super::message::{Message, send};
use super::socket::ShmSocket;
use crate::mem::{Account, Amount, Budget};
use crate::transport::{Link, Listener, Stream};
use crate::{Error, Result, Uri};
use rustix::fs::{FileType, Mode};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

/// Connections that wait to be accepted; the kernel cuts this to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
/// Refused peers in one call, so that a crowd of them does not hold up the others.
const REFUSALS_PER_CALL: usize = 16;

/// A listening socket; its file goes with it.
#[derive(Debug)]
pub(super) struct ShmListener {
    socket: OwnedFd,
    uri: Uri,
    path: String,
    allow: AllowList,
    /// What may be mapped of each client, and of all.
    of_one: Amount,
    budget: Arc<Budget>,
    /// Device and inode of the file, so that another server's is left alone.
    file: Option<(u64, u64)>,
}

impl ShmListener {
    /// Listens at the path that the uri names as its resource, or by `?socket=`. A socket that a dead server has left
    /// there is replaced.
    pub(super) fn bind(uri: &Uri, of_one: Amount, budget: Arc<Budget>) -> Result<ShmListener> {
        let path = uri.query("socket").unwrap_or(uri.resource()).to_owned();
        let failed = |cause: Errno| Error::system(format!("listening at shm:{path}"), &cause.into());
        if path == "/" {
            return Err(Error::BadUri {
                uri: uri.to_string(),
                reason: "a shared-memory server needs a path for its socket: shm:///run/raio.sock",
            });
        }
        let allow = AllowList::of(uri)?;
        let address = SocketAddrUnix::new(path.as_str()).map_err(failed)?;
        let open = || {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
        };
        let socket = open().map_err(failed)?;
        match rustix::net::bind(&socket, &address) {
            Err(Errno::ADDRINUSE) if is_abandoned(&path, &address, &open().map_err(failed)?) => {
                rustix::fs::unlink(path.as_str()).map_err(failed)?;
                rustix::net::bind(&socket, &address).map_err(failed)?;
            }
            outcome => outcome.map_err(failed)?,
        }
        // Who may connect is decided by who they are; the file's mode says the same to a look at it.
        let mode = if allow == AllowList::Own { 0o600 } else { 0o666 };
        rustix::fs::chmod(path.as_str(), Mode::from_raw_mode(mode)).map_err(failed)?;
        let file = rustix::fs::stat(path.as_str()).ok().map(|status| (status.st_dev, status.st_ino));
        rustix::net::listen(&socket, BACKLOG).map_err(failed)?;
        Ok(ShmListener { socket, uri: local_uri(uri, &path)?, path, allow, of_one, budget, file })
    }
}

/// The uri that a client uses: the resource is free, the socket is a parameter.
fn local_uri(uri: &Uri, path: &str) -> Result<Uri> {
    let resource = if uri.query("socket").is_some() { uri.resource() } else { "/" };
    Ok(Uri::new("shm", "", None, resource).with_query("socket", path))
}

/// Whether a socket is at the path that nobody listens at. A process that was killed may seem to listen for a moment
/// longer: its io_uring holds the socket until the kernel has cleared it away.
fn is_abandoned(path: &str, address: &SocketAddrUnix, probe: &OwnedFd) -> bool {
    let is_socket = rustix::fs::lstat(path)
        .is_ok_and(|status| FileType::from_raw_mode(status.st_mode) == FileType::Socket);
    is_socket
        && match rustix::net::connect(probe, address) {
            Err(Errno::CONNREFUSED) => true,
            Ok(()) => Identity::of_peer(probe.as_fd()).is_ok_and(Identity::is_dead),
            Err(_) => false,
        }
}

impl Listener for ShmListener {
    fn local_uri(&self) -> &Uri {
        &self.uri
    }

    fn accept(&mut self) -> Result<Option<Box<dyn Link>>> {
        for _ in 0..REFUSALS_PER_CALL {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let socket = match rustix::net::accept_with(&self.socket, flags) {
                Ok(socket) => socket,
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::INTR | Errno::CONNABORTED) => continue,
                Err(errno) => {
                    let cause = io::Error::from(errno);
                    return Err(Error::system(format!("accepting at shm:{}", self.path), &cause));
                }
            };
            match Identity::of_peer(socket.as_fd()) {
                Ok(peer) if self.allow.allows(peer) => {
                    let name = format!("shm:pid={},uid={}", peer.pid, peer.uid);
                    let account = Account::new(Arc::clone(&self.budget));
                    let socket = ShmSocket::accepted(socket, account, self.of_one);
                    return Ok(Some(Box::new(Stream::new(socket, name))));
                }
                Ok(peer) => {
                    tracing::warn!(
                        uid = peer.uid,
                        pid = peer.pid,
                        path = self.path,
                        "refused: not on the allow list"
                    );
                    // It may be gone already.
                    let _ = send(socket.as_fd(), Message::Refusal { errno: libc::EACCES as u32 }, None);
                }
                Err(cause) => tracing::warn!(%cause, path = self.path, "a peer without credentials"),
            }
        }
        Ok(None)
    }

    fn readiness(&self) -> Option<RawFd> {
        Some(self.socket.as_raw_fd())
    }
}

impl Drop for ShmListener {
    fn drop(&mut self) {
        let ours = rustix::fs::stat(self.path.as_str())
            .is_ok_and(|status| self.file == Some((status.st_dev, status.st_ino)));
        if ours {
            // Somebody else's business if it can't be.
            let _ = rustix::fs::unlink(self.path.as_str());
        }
    }
}
