//! One place of the table of windows: whose it is, and what is known of it until when.

use super::{LEASE_MS, WindowKey};
use libxio::FileWindow;

/// What may be done with a window until its slot's time is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// It is counted what it would save.
    Counting,
    /// All its pages were in memory a moment ago: they are copied from.
    Leased,
    /// It was no use: it is left alone.
    Refused,
}

#[derive(Debug)]
pub(super) struct Slot {
    pub key: WindowKey,
    pub state: State,
    /// When the state ends, by the coarse clock in milliseconds.
    pub until_ms: u64,
    /// What the window has saved in this time, or would have, in nanoseconds.
    pub saved_ns: u32,
    /// It was copied from since the last sweep.
    pub is_used: bool,
    /// By how much the reads that could not be answered without a system call outnumber those that could, in this lease.
    pub doubts: u32,
    /// Stays mapped when a lease ends, until it is swept away or another window comes here.
    pub window: Option<FileWindow>,
}

impl Slot {
    /// Nobody's.
    pub(super) const fn vacant() -> Slot {
        Slot {
            key: WindowKey::NONE,
            state: State::Counting,
            until_ms: 0,
            saved_ns: 0,
            is_used: false,
            doubts: 0,
            window: None,
        }
    }

    /// Whether it is copied from.
    #[inline]
    pub(super) fn is_leased(&self, key: WindowKey, now_ms: u64) -> bool {
        self.key == key && self.state == State::Leased && now_ms < self.until_ms
    }

    /// Whether it keeps its place when another window's read, worth so much, comes here. What was saved is a claim that such
    /// reads use up; a lease's lasts a while longer than the lease.
    pub(super) fn keeps_place(&mut self, worth_ns: u32, now_ms: u64) -> bool {
        if self.state == State::Leased && now_ms < self.until_ms {
            return true;
        }
        let is_claimed = self.saved_ns > 0 && now_ms < self.until_ms.saturating_add(LEASE_MS);
        self.saved_ns = self.saved_ns.saturating_sub(worth_ns);
        is_claimed
    }

    /// Begins to be in a state.
    pub(super) fn enter(&mut self, state: State, until_ms: u64) {
        self.state = state;
        self.until_ms = until_ms;
        self.saved_ns = 0;
        self.doubts = 0;
    }
}
