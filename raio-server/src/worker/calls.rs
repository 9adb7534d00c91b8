//! Calls off the loop: commands with paths, and how the end of a call comes back to the worker.

use super::Mail;
use crate::backend::{Backend, Errno, Listing, OpenFile, Outcome};
use crate::exports::{Exports, Found};
use crate::offloop::Group;
use crossbeam_channel::Sender;
use libxio::ContextHandle;
use raio::proto::{Attributes, LIST_BYTES_MAX, OpenFlags, Request, Target};
use std::sync::Arc;

/// How a call off the loop has ended.
pub(crate) enum Ended {
    /// A command of an open file.
    File(Outcome),
    /// An open.
    Opened(Result<(Arc<dyn OpenFile>, Attributes), Errno>),
    /// A look at a path.
    Found(Result<Attributes, Errno>),
    /// A list.
    Listed(Result<Listing, Errno>),
    /// A call that has nothing to say but whether it went well.
    Called(Result<(), Errno>),
}

/// A worker as other threads see it.
#[derive(Clone)]
pub(super) struct Postbox {
    pub mail: Sender<Mail>,
    pub context: ContextHandle,
}

impl Postbox {
    pub(super) fn post(&self, mail: Mail) {
        // A worker that is gone needs no mail.
        if self.mail.send(mail).is_ok() {
            // The bell. If the inbox is full the worker is awake, and looks at its mail every turn.
            let _ = self.context.post_message(0, Box::new(()));
        }
    }
}

/// Tells the worker how a call has ended: EIO where it never said so, since it panicked.
pub(super) struct Reply {
    pub postbox: Postbox,
    pub token: u64,
    pub told: bool,
}

impl Reply {
    pub(super) fn tell(mut self, ended: Ended) {
        self.told = true;
        self.postbox.post(Mail::Ended(self.token, ended));
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if !self.told {
            self.postbox.post(Mail::Ended(self.token, Ended::Called(Err(libc::EIO))));
        }
    }
}

/// A call with paths, resolved to its export, ready to run anywhere.
pub(super) struct Call {
    backend: Arc<dyn Backend>,
    name: Vec<u8>,
    kind: Kind,
    pub read_only: bool,
    /// Of the export's calls off the loop.
    pub calls: Group,
}

enum Kind {
    Open { flags: OpenFlags, mode: u32 },
    Stat,
    List { cookie: u64, room: usize },
    Unlink { directory: bool },
    Rename { to: Vec<u8>, no_replace: bool },
}

impl Call {
    /// Finds the export that a command's path names.
    ///
    /// # Errors
    /// ENOENT for a path of no export, EROFS for a change of a read-only one, EXDEV for a rename from one export to
    /// another, EISDIR and the like for the place above all exports.
    pub(super) fn new(exports: &Exports, request: &Request<'_>, room: usize) -> Result<Call, Errno> {
        let (path, kind) = match *request {
            Request::Open { path, flags, mode } => (path, Kind::Open { flags, mode }),
            Request::Stat(Target::Path(path)) => (path, Kind::Stat),
            Request::List { path, cookie } => (path, Kind::List { cookie, room: room.min(LIST_BYTES_MAX) }),
            Request::Unlink { path, directory } => (path, Kind::Unlink { directory }),
            Request::Rename { from, no_replace, .. } => (from, Kind::Rename { to: Vec::new(), no_replace }),
            _ => return Err(libc::EINVAL),
        };
        let (export, name) = match exports.find(path) {
            Found::Name(export, name) => (export, name),
            Found::Nothing => return Err(libc::ENOENT),
            Found::Top => {
                return Err(match kind {
                    Kind::Open { .. } => libc::EISDIR,
                    Kind::Stat | Kind::List { .. } => libc::EOPNOTSUPP,
                    Kind::Unlink { .. } | Kind::Rename { .. } => libc::EBUSY,
                });
            }
        };
        let changes = match &kind {
            Kind::Open { flags, .. } => flags.bits() & (OpenFlags::WRITE.with(OpenFlags::CREATE).bits()) != 0,
            Kind::Unlink { .. } | Kind::Rename { .. } => true,
            Kind::Stat | Kind::List { .. } => false,
        };
        if changes && export.read_only() {
            return Err(libc::EROFS);
        }
        let kind = match (kind, request) {
            (Kind::Rename { no_replace, .. }, Request::Rename { to, .. }) => match exports.find(to) {
                Found::Name(other, to) if Arc::ptr_eq(&other.backend, &export.backend) => {
                    Kind::Rename { to, no_replace }
                }
                _ => return Err(libc::EXDEV),
            },
            (kind, _) => kind,
        };
        let (backend, read_only) = (Arc::clone(&export.backend), export.read_only());
        Ok(Call { backend, name, kind, read_only, calls: export.calls })
    }

    /// Whether it opens a file.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.kind, Kind::Open { .. })
    }

    /// Runs it; may wait.
    pub(super) fn run(self) -> Ended {
        let Call { backend, name, kind, .. } = self;
        match kind {
            Kind::Open { flags, mode } => Ended::Opened(backend.open(&name, flags, mode).and_then(|file| {
                let attributes = file.attributes()?;
                Ok((file, attributes))
            })),
            Kind::Stat => Ended::Found(backend.stat(&name)),
            Kind::List { cookie, room } => Ended::Listed(backend.list(&name, cookie, room)),
            Kind::Unlink { directory } => Ended::Called(backend.unlink(&name, directory)),
            Kind::Rename { to, no_replace } => Ended::Called(backend.rename(&name, &to, no_replace)),
        }
    }
}
