//! RDMA: frames over reliable connected queue pairs, set up by rdma_cm, over InfiniBand, RoCE and iWARP.
//!
//! [`Rdma`] is one context's side of it. `link.rs` is a connection, `sending.rs` and `receiving.rs` are its halves,
//! `endpoint.rs` is the queue pair that they post to; `domain.rs` and `registration.rs` hold what the links of a context
//! share on a device. `verbs.rs` and `cm.rs` wrap the two libraries, which are loaded at run time: where they, or
//! devices, are missing, asking for this transport gives an error that says so. `exposing.rs` and `reaching.rs` are the
//! two ends of one-sided operations; `locked.rs` bounds what is registered. `message.rs`, `notes.rs` and `credit.rs` are pure.

mod cm;
mod credit;
mod domain;
mod endpoint;
mod events;
mod exposing;
mod fetching;
#[cfg(test)]
mod hostile;
mod info;
#[cfg(test)]
mod layout;
mod lending;
mod link;
mod locked;
mod message;
mod notes;
mod reaching;
mod receiving;
mod registration;
mod sending;
mod side_queue;
mod staging;
mod verbs;

use super::{Link, Listener, Transport};
use crate::wire::FrameKind;
use crate::{Error, Result, Statistics, Uri};
pub(crate) use info::devices;

use cm::{CmEventKind, CmId};
use domain::Domains;
use events::DeviceWatch;
use link::RdmaLink;
use message::{BadGreeting, Greeting};
use std::any::Any;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::RawFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Time between attempts to listen again after the device was removed.
const LISTEN_AGAIN_TIME: Duration = Duration::from_millis(500);

/// The scheme of its uris.
pub(crate) const SCHEME: &str = "rdma";

/// The `rdma` scheme, for one context. `rdma://HOST:PORT/...?source=ADDRESS` chooses our own end.
#[derive(Debug)]
pub(crate) struct Rdma {
    shared: Arc<Shared>,
}

/// What the links of a context share.
#[derive(Debug)]
struct Shared {
    domains: Domains,
    options: RdmaOptions,
    /// The context's counters.
    statistics: Arc<Statistics>,
}

impl Rdma {
    pub(crate) fn new(options: RdmaOptions, statistics: Arc<Statistics>) -> Rdma {
        Rdma { shared: Arc::new(Shared { domains: Domains::default(), options, statistics }) }
    }
}

/// When data goes which way over RDMA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RdmaOptions {
    /// Data of at most so many bytes travels in messages, and is copied by the receiver; more is put into, or fetched
    /// from, the memory of the requesting side. Default: 4 KiB, one message.
    pub send_data_max: u32,
    /// Memory that no [`Region`](crate::Region) or pool holds is registered for one operation from this length on, in
    /// bytes; shorter pieces travel in messages. Default: 64 KiB, where registering costs about as much as copying.
    pub register_min: u32,
    /// The links of a context share their receive buffers, where the device can do that. Default: true. Otherwise each link
    /// has its own, which is more memory, and simpler for the device.
    pub shared_receives: bool,
    /// One-sided operations are done by the device of the side that asks, without the owner's doing, where both sides and
    /// their devices can do that. Default: true. Otherwise the owner's context carries each of them out.
    pub one_sided: bool,
    /// Most memory in bytes that is registered with devices for what can do without: exposed memory (which is reached by
    /// frames otherwise), regions and pools (whose data is copied otherwise); all contexts of the process count. Receive
    /// buffers are not in it. Default, `None`: half of what the process may lock (RLIMIT_MEMLOCK), so that new
    /// connections find some for theirs; no limit where there is none, or with CAP_IPC_LOCK.
    pub registered_bytes_max: Option<u64>,
    /// A port may be down for so long before its connections end: what was lost meanwhile, the device sends again. More
    /// than 3 seconds are of little use, since the device gives up after 3.8 where something is on its way. Default: 2 s.
    pub port_down_grace: Duration,
}

impl Default for RdmaOptions {
    fn default() -> Self {
        RdmaOptions {
            send_data_max: 4 << 10,
            register_min: 64 << 10,
            shared_receives: true,
            one_sided: true,
            registered_bytes_max: None,
            port_down_grace: Duration::from_secs(2),
        }
    }
}

impl Transport for Rdma {
    fn scheme(&self) -> &'static str {
        SCHEME
    }

    fn connect(&self, uri: &Uri) -> Result<Box<dyn Link>> {
        check_available()?;
        let source = match uri.query("source") {
            None => None,
            Some(text) => Some(text.parse::<IpAddr>().map_err(|_| Error::BadUri {
                uri: uri.to_string(),
                reason: "source is the address of an interface of this host",
            })?),
        };
        let mut addresses = uri.socket_addresses()?;
        if let Some(source) = source {
            addresses.retain(|address| address.is_ipv4() == source.is_ipv4());
        }
        let host = if uri.host().contains(':') { format!("[{}]", uri.host()) } else { uri.host().to_owned() };
        let peer = format!("{SCHEME}://{host}:{}", uri.port());
        match RdmaLink::connect(peer.clone(), addresses, source, &self.shared) {
            Ok(link) => Ok(Box::new(link)),
            Err(cause) => {
                Err(Error::ConnectFailed { address: peer, errno: cause.raw_os_error().unwrap_or(libc::EIO) })
            }
        }
    }

    fn listen(&self, uri: &Uri) -> Result<Box<dyn Listener>> {
        check_available()?;
        let mut failure = None;
        for address in uri.socket_addresses()? {
            let listening = CmId::new().and_then(|id| {
                id.listen(address)?;
                Ok(id)
            });
            match listening {
                Ok(id) => {
                    let port = id.local_address().map_or(address.port(), |bound| bound.port());
                    let local = uri.with_address(SocketAddr::new(address.ip(), port));
                    return Ok(Box::new(RdmaListener {
                        watch: watch_of(&id),
                        id,
                        uri: local,
                        shared: Arc::clone(&self.shared),
                        lost: None,
                    }));
                }
                Err(cause) => failure = Some((address, cause)),
            }
        }
        match failure {
            Some((address, cause)) => {
                Err(Error::system(format!("listening at {SCHEME}://{address}"), &cause))
            }
            None => Err(Error::ConnectFailed { address: uri.to_string(), errno: libc::EADDRNOTAVAIL }),
        }
    }
}

/// A listening address.
#[derive(Debug)]
struct RdmaListener {
    id: CmId,
    /// Of the device, where it listens at one alone; after the identifier.
    watch: Option<DeviceWatch>,
    uri: Uri,
    shared: Arc<Shared>,
    /// The device was removed: when to try again to listen.
    lost: Option<Instant>,
}

/// The watch of the device that an identifier is bound to.
fn watch_of(id: &CmId) -> Option<DeviceWatch> {
    id.device().map(|device| DeviceWatch::new(device, id.port()))
}

impl Listener for RdmaListener {
    fn local_uri(&self) -> &Uri {
        &self.uri
    }

    fn accept(&mut self) -> Result<Option<Box<dyn Link>>> {
        self.accept_into(&Arc::clone(&self.shared))
    }

    fn accept_at(&mut self, home: &dyn Transport) -> Result<Option<Box<dyn Link>>> {
        let home = (home as &dyn Any).downcast_ref::<Rdma>().map(|home| Arc::clone(&home.shared));
        self.accept_into(&home.unwrap_or_else(|| Arc::clone(&self.shared)))
    }

    fn readiness(&self) -> Option<RawFd> {
        // Nothing tells that a device has come: it is asked for.
        if self.lost.is_some() { None } else { self.id.fd() }
    }
}

impl RdmaListener {
    /// Listens again where the device was removed; false while there is none.
    fn is_listening(&mut self) -> bool {
        let Some(retry) = self.lost else { return true };
        if Instant::now() < retry {
            return false;
        }
        let mut failure = None;
        for address in self.uri.socket_addresses().unwrap_or_default() {
            let listening = CmId::new().and_then(|id| {
                id.listen(address)?;
                Ok(id)
            });
            match listening {
                Ok(id) => {
                    tracing::info!(uri = %self.uri, "listening again");
                    self.watch = watch_of(&id);
                    self.id = id;
                    self.lost = None;
                    return true;
                }
                Err(error) => failure = Some(error),
            }
        }
        tracing::debug!(uri = %self.uri, ?failure, "still no device to listen at");
        self.lost = Some(Instant::now() + LISTEN_AGAIN_TIME);
        false
    }

    /// Accepts a link with the resources of this context.
    fn accept_into(&mut self, shared: &Arc<Shared>) -> Result<Option<Box<dyn Link>>> {
        while self.is_listening() {
            let event = self
                .id
                .next_event()
                .map_err(|cause| Error::system(format!("accepting at {}", self.uri), &cause))?;
            let Some(mut event) = event else { return Ok(None) };
            if event.kind == CmEventKind::DeviceRemoved {
                tracing::warn!(uri = %self.uri, "the RDMA device that is listened at was removed");
                self.lost = Some(Instant::now());
                if let Some(watch) = &self.watch {
                    watch.removed();
                }
                // The old identifier keeps the device from going, so another one without any takes its place.
                self.id = CmId::new().map_err(|cause| Error::system("after a device's removal", &cause))?;
                self.watch = None;
                continue;
            }
            let Some(id) = event.request.take() else { continue };
            let greeting = match Greeting::decode(&event.private_data) {
                Ok(greeting) => greeting,
                Err(why) => {
                    tracing::info!(?why, "a connection request that is none of ours");
                    let own = Greeting { credits: 0, message_bytes: 0, notes: false }.encode();
                    // A peer of another version learns ours; others get nothing.
                    id.reject(if matches!(why, BadGreeting::Version(_)) { &own } else { &[] });
                    continue;
                }
            };
            match RdmaLink::accept(id, greeting, &event, shared) {
                Ok(link) => return Ok(Some(Box::new(link))),
                // The identifier is gone with the link, which rejects the request.
                Err(error) => tracing::warn!(%error, "an RDMA connection can't be accepted"),
            }
        }
        Ok(None)
    }
}

/// Says what is missing where RDMA can't be used on this machine.
fn check_available() -> Result<()> {
    match CmId::new() {
        Ok(_) => Ok(()),
        Err(cause) => Err(Error::TransportUnavailable { scheme: SCHEME, reason: what_is_missing(&cause) }),
    }
}

fn what_is_missing(cause: &io::Error) -> String {
    if cause.raw_os_error() == Some(libc::EOPNOTSUPP) {
        return "the RDMA libraries librdmacm.so.1 and libibverbs.so.1 are not installed (Debian: librdmacm1, \
                ibverbs-providers)"
            .into();
    }
    let is_empty =
        |folder: &str| std::fs::read_dir(folder).map_or(true, |mut entries| entries.next().is_none());
    if is_empty("/sys/class/infiniband") {
        return "this machine has no RDMA device (/sys/class/infiniband is empty; a network interface gets one by \
                `rdma link add rxe0 type rxe netdev INTERFACE`)"
            .into();
    }
    if !Path::new("/dev/infiniband/rdma_cm").exists() {
        return "/dev/infiniband/rdma_cm is missing (`modprobe rdma_ucm`)".into();
    }
    format!("the connection manager can't be used: {cause}")
}

fn has_checksum_always(kind: FrameKind) -> bool {
    matches!(kind, FrameKind::Hello | FrameKind::Welcome | FrameKind::Refusal)
}
