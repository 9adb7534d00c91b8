//! fork(2): what a session is made of belongs to the process that made it.
//!
//! A child finds a fresh, empty [`State`](crate::state::State), and the descriptors that it inherited are closed, so
//! that the parent's connections end with the parent. Nothing else of the parent's sessions is touched in the child:
//! no destructor runs, no goodbye is said, and their memory stays what the kernel made of it.
//!
//! The list of descriptors is locked across fork by its handlers, and descriptors of sessions are closed under the same
//! lock, so a child never closes a number that meanwhile means something else. Links may be closed by the engine at any
//! time; they are told from strangers by their inode.

use crate::errno::Errno;
use crate::state;
use std::cell::RefCell;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

/// One descriptor that children close.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Listed {
    fd: RawFd,
    device: u64,
    inode: u64,
}

static LIST: Mutex<Vec<Listed>> = Mutex::new(Vec::new());

thread_local! {
    /// The lock on the list, held by the thread that forks.
    static FORKING: RefCell<Option<MutexGuard<'static, Vec<Listed>>>> = const { RefCell::new(None) };
}

fn list() -> MutexGuard<'static, Vec<Listed>> {
    LIST.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sees to it that fork is handled. Called before the first descriptor is made.
pub(crate) fn handle_forks() {
    static HANDLERS: Once = Once::new();
    HANDLERS.call_once(|| {
        // SAFETY: the handlers are functions without arguments that don't unwind: they lock, close and allocate only.
        let outcome = unsafe { libc::pthread_atfork(Some(before), Some(in_parent), Some(in_child)) };
        if outcome != 0 {
            tracing::warn!(
                errno = outcome,
                "pthread_atfork failed: children keep this process's connections"
            );
        }
    });
}

extern "C" fn before() {
    let _ = FORKING.try_with(|forking| forking.replace(Some(list())));
}

extern "C" fn in_parent() {
    let _ = FORKING.try_with(|forking| forking.take());
}

extern "C" fn in_child() {
    let inherited = FORKING.try_with(|forking| forking.take()).ok().flatten();
    if let Some(mut inherited) = inherited {
        for listed in inherited.drain(..) {
            if identity(listed.fd) == Some((listed.device, listed.inode)) {
                // SAFETY: the descriptor was made by this library (same number, same file), and its owner in this
                // process, a copy of the parent's session, will never be looked at again.
                unsafe { libc::close(listed.fd) };
            }
        }
    }
    state::start_again_in_child();
}

fn identity(fd: RawFd) -> Option<(u64, u64)> {
    if fd < 0 {
        return None;
    }
    // SAFETY: the descriptor is used for this one call, which says if it is not open.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    rustix::fs::fstat(fd).ok().map(|stat| (stat.st_dev, stat.st_ino))
}

/// Makes something that has descriptors; children close those that `descriptors` names.
pub(crate) fn make<T>(
    make: impl FnOnce() -> Result<T, Errno>,
    descriptors: impl FnOnce(&T) -> Vec<RawFd>,
) -> Result<(T, Descriptors), Errno> {
    let mut list = list();
    let made = make()?;
    let numbers = add(&mut list, descriptors(&made));
    Ok((made, Descriptors { numbers }))
}

/// Lists descriptors; those that are open.
fn add(list: &mut Vec<Listed>, descriptors: Vec<RawFd>) -> Vec<RawFd> {
    let mut numbers = Vec::new();
    for fd in descriptors {
        if let Some((device, inode)) = identity(fd) {
            list.push(Listed { fd, device, inode });
            numbers.push(fd);
        }
    }
    numbers
}

/// Descriptors on the list.
#[derive(Debug)]
pub(crate) struct Descriptors {
    numbers: Vec<RawFd>,
}

impl Descriptors {
    /// Their owner has others now. (A child that another thread makes between their making and this call keeps them
    /// open: they are closed when it ends, or begins another program.)
    pub(crate) fn renew(&mut self, descriptors: impl Iterator<Item = RawFd>) {
        let mut list = list();
        list.retain(|listed| !self.numbers.contains(&listed.fd));
        self.numbers = add(&mut list, descriptors.collect());
    }

    /// Drops their owner, which closes them, and takes them off the list, as one step.
    pub(crate) fn close_with<T>(self, owner: T) {
        let mut list = list();
        list.retain(|listed| !self.numbers.contains(&listed.fd));
        drop(owner);
    }
}

/// A descriptor of our own that children close.
#[derive(Debug)]
pub(crate) struct PrivateFd {
    /// Some until it is dropped.
    inner: Option<(OwnedFd, Descriptors)>,
}

impl PrivateFd {
    pub(crate) fn make(make_fd: impl FnOnce() -> rustix::io::Result<OwnedFd>) -> Result<PrivateFd, Errno> {
        let made = make(|| Ok(make_fd()?), |fd| vec![fd.as_raw_fd()])?;
        Ok(PrivateFd { inner: Some(made) })
    }
}

impl std::os::fd::AsFd for PrivateFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_ref().map(|(fd, _)| fd.as_fd()).expect("it is there until it is dropped")
    }
}

impl Drop for PrivateFd {
    fn drop(&mut self) {
        if let Some((fd, descriptors)) = self.inner.take() {
            descriptors.close_with(fd);
        }
    }
}
