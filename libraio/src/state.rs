//! What this process has: its sessions by handle and by context, and its registered memory.
//!
//! Submit and getevents find their session by the place in the context's token, without a lock that another session
//! could hold; only calls that name a handle look it up in a map. Places are never freed, and used again.

use crate::chunks::{Chunks, Numbers};
use crate::errno::Errno;
use crate::fork;
use crate::memory::MemoryTable;
use crate::session::Session;
use crate::token::CONTEXT;
use std::collections::HashMap;
use std::ffi::c_int;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Handles begin here; the smaller numbers are those that programs confuse with their own descriptors.
const HANDLE_FIRST: c_int = 10;

/// Steps of 64 sessions: the place in a context's token has 16 bits.
const STEPS: usize = 1024;

/// The handle given next. It goes on counting in a child, so that a parent's handle is never a child's.
static HANDLE_NEXT: AtomicI32 = AtomicI32::new(HANDLE_FIRST);
/// Handles below this belong to a parent of this process.
static HANDLE_INHERITED_END: AtomicI32 = AtomicI32::new(HANDLE_FIRST);
/// The generation of the context made next, for all sessions, and in children too.
static CONTEXT_NEXT: AtomicU64 = AtomicU64::new(1);
/// Contexts of generations below this belong to a parent of this process.
static CONTEXT_INHERITED_END: AtomicU64 = AtomicU64::new(1);
/// Made at the first use; a child makes its own and leaves its parent's alone.
static STATE: AtomicPtr<State> = AtomicPtr::new(std::ptr::null_mut());

/// All that this process has.
#[derive(Debug)]
pub(crate) struct State {
    places: Chunks<Place, STEPS>,
    names: Mutex<Names>,
    pub memory: MemoryTable,
    /// What a parent of this process had, never looked at; it stays reachable, so that it is no leak to those who look
    /// for leaks.
    _inherited: Option<&'static State>,
}

/// Where a session lives.
#[derive(Debug, Default)]
pub(crate) struct Place {
    /// Token of the session's context, so that a stale one is known without the lock; 0 while there is none.
    context: AtomicU64,
    session: Mutex<Option<Session>>,
}

#[derive(Debug, Default)]
struct Names {
    places: HashMap<c_int, usize>,
    numbers: Numbers,
}

/// The state of this process.
pub(crate) fn state() -> &'static State {
    let mut found = STATE.load(Ordering::Acquire);
    if found.is_null() {
        fork::handle_forks();
        let fresh = Box::into_raw(Box::new(State::new(None)));
        found = match STATE.compare_exchange(found, fresh, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => fresh,
            Err(other) => {
                // SAFETY: `fresh` comes from a box and nobody else has seen it.
                drop(unsafe { Box::from_raw(fresh) });
                other
            }
        };
    }
    // SAFETY: a state, once published, is never freed.
    unsafe { &*found }
}

/// In a child made by fork, before anything else runs there.
pub(crate) fn start_again_in_child() {
    HANDLE_INHERITED_END.store(HANDLE_NEXT.load(Ordering::Relaxed), Ordering::Relaxed);
    CONTEXT_INHERITED_END.store(CONTEXT_NEXT.load(Ordering::Relaxed), Ordering::Relaxed);
    // The parent's state is left as it is: its locks may be held by threads that don't exist here.
    // SAFETY: null, or a state, which is never freed.
    let inherited = unsafe { STATE.load(Ordering::Relaxed).as_ref() };
    STATE.store(Box::into_raw(Box::new(State::new(inherited))), Ordering::Release);
}

impl State {
    fn new(inherited: Option<&'static State>) -> State {
        let (places, names, memory) = (Chunks::new(), Mutex::default(), MemoryTable::new());
        State { places, names, memory, _inherited: inherited }
    }

    /// Takes a new session in, and gives it its handle. Where there is no room it is stopped.
    pub(crate) fn add(&self, session: Session) -> Result<c_int, Errno> {
        let mut names = self.names();
        let number = names.numbers.take(Chunks::<Place, STEPS>::PLACES);
        // No handle is ever used twice: they end after two thousand million sessions.
        let handle =
            HANDLE_NEXT.try_update(Ordering::Relaxed, Ordering::Relaxed, |next| next.checked_add(1)).ok();
        let place = number.and_then(|number| self.places.make(number));
        let (Some(number), Some(place), Some(handle)) = (number, place, handle) else {
            drop(names);
            session.stop();
            return Err(Errno::NO_ROOM);
        };
        *place.lock() = Some(session.named(handle, number));
        names.places.insert(handle, number);
        Ok(handle)
    }

    /// Takes a session out. Its place is free for another one.
    pub(crate) fn remove(&self, handle: c_int) -> Option<Session> {
        let mut names = self.names();
        let number = names.places.remove(&handle)?;
        drop(names);
        let place = self.places.get(number)?;
        let session = place.lock().take();
        place.context.store(0, Ordering::Release);
        names = self.names();
        names.numbers.give_back(number);
        session
    }

    /// The place of the session with this handle.
    pub(crate) fn by_handle(&self, handle: c_int) -> Result<&Place, Errno> {
        let number = self.names().places.get(&handle).copied().ok_or(Errno::HANDLE)?;
        self.places.get(number).ok_or(Errno::HANDLE)
    }

    /// The place of the session with this context.
    pub(crate) fn by_context(&self, token: u64) -> Result<&Place, Errno> {
        let place = CONTEXT.place(token).ok_or(Errno::INVALID)?;
        match self.places.get(place).filter(|place| place.context.load(Ordering::Acquire) == token) {
            Some(place) => Ok(place),
            None if CONTEXT.generation(token) < CONTEXT_INHERITED_END.load(Ordering::Relaxed) => {
                Err(Errno::HANDLE)
            }
            None => Err(Errno::INVALID),
        }
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// The session here, locked. A call on it that panicked has left it in an unknown state: it is severed now.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Option<Session>> {
        self.session.lock().unwrap_or_else(|poisoned| {
            self.session.clear_poison();
            let mut guard = poisoned.into_inner();
            if let Some(session) = guard.as_mut() {
                session.sever();
            }
            guard
        })
    }

    /// As `lock`, but `None` while a call runs on the session.
    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, Option<Session>>> {
        self.session.try_lock().ok()
    }

    /// Notes the context that the session has now; 0 for none.
    pub(crate) fn set_context(&self, token: u64) {
        self.context.store(token, Ordering::Release);
    }
}

/// A token for a context of the session at this place.
pub(crate) fn new_context_token(place: usize) -> u64 {
    CONTEXT.token(CONTEXT_NEXT.fetch_add(1, Ordering::Relaxed), place)
}

/// Whether a handle belongs to a parent of this process.
pub(crate) fn is_inherited(handle: c_int) -> bool {
    (HANDLE_FIRST..HANDLE_INHERITED_END.load(Ordering::Relaxed)).contains(&handle)
}
