//! Making the connection, and agreeing on a version.

use super::{Choice, Engine, EngineLimits, Promised, Slab, State, Watch};
use crate::proto::{Greeting, Invalid, RESOURCE};
use crate::{ClientOptions, Error, Result};
use libxio::{ConnectionOptions, Context, ContextOptions, LoopKind, Session, Uri};
use std::collections::VecDeque;
use std::sync::Arc;

/// Entries of a client's submission ring: its one link, its timers and a wake-up need a handful.
const RING_ENTRIES: u32 = 64;

/// Requests that a server may send to a client: none are defined.
const PEER_SLOTS: u16 = 1;

impl Engine {
    /// Begins to connect. Operations are taken from now on; they wait until the server has answered.
    ///
    /// # Errors
    /// [`Error::Uri`], [`Error::Connect`] where the host is not known, [`Error::Local`].
    pub fn begin(uri: &Uri, options: &ClientOptions) -> Result<Engine> {
        let text: Arc<str> = uri.to_string().into();
        let (target, choice) = Choice::begin(uri, options.transport);
        let mut context = Context::new(context_options(options)).map_err(Error::Local)?;
        let statistics = context.statistics();
        let session = Session::new(target.with_resource(RESOURCE));
        let greeting = Greeting::client().encode().to_vec();
        let connection_options = ConnectionOptions { private_data: greeting, ..Default::default() };
        let connection = context.connect(&session, connection_options).map_err(|cause| match cause {
            cause @ (libxio::Error::BadUri { .. } | libxio::Error::UnknownTransport(_)) => {
                Error::Uri { uri: Arc::clone(&text), cause }
            }
            cause => Error::Connect { uri: Arc::clone(&text), cause },
        })?;
        Ok(Engine {
            context,
            connection,
            state: State::Connecting,
            uri: text,
            limits: EngineLimits { io_bytes_max: u32::MAX, requests_max: u32::from(options.requests_max) },
            pending: Slab::new(),
            queued: VecDeque::new(),
            ended: VecDeque::new(),
            call: None,
            scratch: Vec::new(),
            promised: Promised::default(),
            unwatched: 0,
            watch: Watch::new(options.keepalive),
            statistics,
            choice: choice.with_session(session),
        })
    }

    /// The server accepted: take its limits, then send what has waited.
    pub(super) fn connected(&mut self, private_data: &[u8]) {
        if self.move_to_shared_memory(private_data) {
            return;
        }
        let agreed = Greeting::decode(private_data).and_then(|greeting| {
            let Greeting { version_min, version_max, .. } = greeting;
            if version_min == version_max && greeting.io_bytes_max > 0 {
                Ok(greeting)
            } else {
                Err(Invalid::Version { min: version_min, max: version_max })
            }
        });
        let greeting = match agreed {
            Ok(greeting) => greeting,
            Err(reason) => {
                let error = Error::Incompatible { uri: Arc::clone(&self.uri), reason };
                return self.lose_with(error);
            }
        };
        match self.context.peer_limits(self.connection) {
            Ok(limits) => {
                let own = ContextOptions::default().limits.data_bytes_max;
                let window = u32::try_from(limits.window_bytes).unwrap_or(u32::MAX);
                self.limits = EngineLimits {
                    io_bytes_max: greeting.io_bytes_max.min(limits.data_bytes_max).min(window).min(own),
                    requests_max: u32::from(limits.slots),
                };
                tracing::debug!(uri = %self.uri, limits = ?self.limits, "connected");
                self.state = State::Connected;
                self.recheck_queue();
                self.send_queued();
            }
            Err(cause) => self.lose(cause),
        }
    }

    /// Ends what was taken before the limits were known, and is above them.
    fn recheck_queue(&mut self) {
        for _ in 0..self.queued.len() {
            let Some((owner, operation)) = self.queued.pop_front() else { break };
            match self.check(&operation) {
                Ok(()) => self.queued.push_back((owner, operation)),
                Err(error) => self.end(owner, Err(error)),
            }
        }
    }
}

fn context_options(options: &ClientOptions) -> ContextOptions {
    let mut context = ContextOptions {
        polling_timeout: options.polling_timeout,
        ring_entries: RING_ENTRIES,
        loop_kind: LoopKind::Caller,
        keepalive: options.keepalive,
        connect_timeout: options.connect_timeout,
        crc: options.crc,
        ..ContextOptions::default()
    };
    #[cfg(feature = "rdma")]
    {
        context.rdma.registered_bytes_max = options.rdma_bytes_max;
    }
    context.pool.bytes_max = options.pool_bytes_max;
    context.limits.slots = options.requests_max.max(1);
    context.limits.peer_slots = PEER_SLOTS;
    context.limits.keepalive_ms = u32::try_from(options.keepalive.as_millis()).unwrap_or(u32::MAX);
    context
}
