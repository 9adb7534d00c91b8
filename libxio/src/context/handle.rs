//! A context seen from other threads.

use super::serving::Adoption;
use super::statistics::Statistics;
use super::{Context, RequestId, handles::Connection};
use crate::Result;
use crate::reactor::{Outbox, Waker};
use crate::transport::Transport;
use crossbeam_queue::SegQueue;
use std::any::Any;
use std::sync::Arc;

/// What arrives from other threads.
pub(crate) enum Post {
    Run(Box<dyn FnOnce(&mut Context) + Send>),
    Message {
        token: u64,
        payload: Box<dyn Any + Send>,
    },
    /// A link whose hello was read by an acceptor.
    Adopt(Box<Adoption>),
}

impl std::fmt::Debug for Post {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Post::Run(_) => "Run",
            Post::Message { .. } => "Message",
            Post::Adopt(_) => "Adopt",
        })
    }
}

/// Reaches a context from any thread. At most 16,384 posts wait in its inbox.
#[derive(Debug, Clone)]
pub struct ContextHandle {
    pub(crate) outbox: Outbox<Post>,
    pub(crate) statistics: Arc<Statistics>,
    /// The context's, so that links can be made for it elsewhere.
    pub(super) transports: Arc<[Arc<dyn Transport>]>,
}

impl ContextHandle {
    /// The context's transport for a scheme.
    pub(super) fn transport(&self, scheme: &str) -> Option<&dyn Transport> {
        self.transports.iter().find(|transport| transport.scheme() == scheme).map(AsRef::as_ref)
    }

    /// Runs a closure in the context's thread, at its next turn.
    ///
    /// # Errors
    /// The inbox is full, or the context is gone.
    pub fn post(&self, closure: impl FnOnce(&mut Context) + Send + 'static) -> Result<()> {
        self.outbox.post(Post::Run(Box::new(closure)))
    }

    /// Becomes [`Event::Message`](crate::Event::Message) in the context.
    ///
    /// # Errors
    /// The inbox is full, or the context is gone.
    pub fn post_message(&self, token: u64, payload: Box<dyn Any + Send>) -> Result<()> {
        self.outbox.post(Post::Message { token, payload })
    }

    /// Makes [`Context::run`] return once what was posted before has run. A context that is gone has stopped already.
    pub fn stop(&self) {
        self.outbox.stop();
    }

    /// Makes the context take a turn.
    pub fn wake(&self) {
        self.outbox.wake();
    }

    /// The context's counters.
    #[must_use]
    pub fn statistics(&self) -> Arc<Statistics> {
        Arc::clone(&self.statistics)
    }
}

/// Messages that were dropped without an answer or a release, on their way back to the context.
#[derive(Debug)]
pub(crate) struct DroppedMessages {
    pub queue: SegQueue<(Connection, DroppedMessage)>,
    pub waker: Arc<Waker>,
}

/// A message that was dropped. Lengths are what the byte grant gets back.
#[derive(Debug, Clone, Copy)]
pub(crate) enum DroppedMessage {
    Request {
        id: RequestId,
        data_length: u32,
    },
    OneWay {
        sequence: u32,
        data_length: u32,
        wants_receipt: bool,
    },
    /// A one-way message whose data was not asked for.
    Announced {
        sequence: u32,
        wants_receipt: bool,
    },
}
