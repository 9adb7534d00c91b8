//! Answers become outcomes.

use super::{Engine, Pending};
use crate::operation::{Entry, Outcome};
use crate::proto::{Answer, Entries, Invalid, Op, ServerInfo};
use crate::{Error, Result};
use libxio::Reply;
use std::sync::Arc;

impl Engine {
    /// A request has ended at the messaging layer.
    #[inline]
    pub(super) fn answered(&mut self, pending: Pending, outcome: libxio::Result<Reply>) {
        if let Ok(reply) = &outcome
            && let Some(bytes) = Answer::decode_moved(pending.op, &reply.header, reply.data.len())
        {
            self.promised.subtract(pending.promised);
            let outcome = match outcome {
                Ok(Reply { data, .. }) if pending.op == Op::Read => Outcome::Read { bytes, data },
                _ => Outcome::Written { bytes },
            };
            return self.end(pending.owner, Ok(outcome));
        }
        self.answered_otherwise(pending, outcome);
    }

    /// As [`Engine::answered`], of anything but a read or write that went well.
    fn answered_otherwise(&mut self, pending: Pending, outcome: libxio::Result<Reply>) {
        let Pending { owner, op, promised, again } = pending;
        self.promised.subtract(promised);
        let result = match outcome {
            Ok(reply) => self.decode(op, reply),
            Err(cause) => Err(self.failed(op, cause)),
        };
        match (result, again) {
            (Err(Error::Operation { errno: libc::EPERM, .. }), Some(operation)) if self.lost().is_none() => {
                self.queued.push_front((owner, *operation));
            }
            (result, _) => self.end(owner, result),
        }
    }

    fn decode(&mut self, op: Op, reply: Reply) -> Result<Outcome> {
        let answer = match Answer::decode(op, &reply.header, reply.data.len()) {
            Ok(answer) => answer,
            Err(reason) => return Err(self.distrust(reason)),
        };
        let outcome = match (op, answer) {
            (_, Answer::Failed(errno)) => return Err(Error::Operation { op, path: None, errno }),
            (Op::Read, Answer::Moved(bytes)) => Ok(Outcome::Read { bytes, data: reply.data }),
            (Op::Write, Answer::Moved(bytes)) => Ok(Outcome::Written { bytes }),
            (_, Answer::Moved(_)) => Ok(Outcome::Done),
            (_, Answer::Opened(handle, attributes)) => {
                Ok(Outcome::Opened { handle, attributes: Box::new(attributes) })
            }
            (_, Answer::Found(attributes)) => Ok(Outcome::Attributes(Box::new(attributes))),
            (Op::Info, Answer::Listed { .. }) => {
                ServerInfo::decode(&reply.data.to_vec()).map(|info| Outcome::Info(Box::new(info)))
            }
            (_, Answer::Listed { cookie, more }) => {
                owned_entries(&reply.data.to_vec()).map(|entries| Outcome::Entries { entries, cookie, more })
            }
        };
        outcome.map_err(|reason| self.distrust(reason))
    }

    /// The messaging layer has no answer.
    fn failed(&mut self, op: Op, cause: libxio::Error) -> Error {
        match cause {
            libxio::Error::Unanswered => Error::Operation { op, path: None, errno: libc::EIO },
            cause @ libxio::Error::PoolExhausted { .. } => Error::Local(cause),
            cause => match self.lost() {
                // What the connection was given up for says more than that this side closed it.
                Some(error) => error.clone(),
                None => Error::Lost { uri: Arc::clone(&self.uri), cause },
            },
        }
    }
}

fn owned_entries(bytes: &[u8]) -> std::result::Result<Vec<Entry>, Invalid> {
    Entries::new(bytes)
        .map(|entry| {
            entry.map(|entry| Entry {
                name: entry.name.to_vec(),
                mode: entry.mode,
                size: entry.size,
                modified_ns: entry.modified_ns,
            })
        })
        .collect()
}
