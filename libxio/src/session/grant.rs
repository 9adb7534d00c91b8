//! Byte grants: cumulative limits on request data, one direction each.
//!
//! A grant belongs to a link: it starts at the window of the receiver's hello or welcome and only rises. Counters never
//! wrap (2^64 bytes are years at any speed), so a frame that is late can only repeat an older, lower grant.

use crate::wire::{GRANT_AHEAD_MAX, Violation};

/// The sending side of a grant.
#[derive(Debug, Clone)]
pub struct SendGrant {
    /// Bytes that the receiver is ready for, since the link began.
    granted: u64,
    /// Bytes taken of it, never above `granted`.
    sent: u64,
}

impl SendGrant {
    /// A grant that starts at the window from the peer's hello or welcome.
    #[must_use]
    pub fn new(window: u64) -> SendGrant {
        SendGrant { granted: window, sent: 0 }
    }

    /// Bytes that may still be sent.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.granted - self.sent
    }

    /// Takes `length` bytes if the grant reaches so far. A request with no data always passes.
    #[inline]
    pub fn take(&mut self, length: u64) -> bool {
        let fits = self.granted - self.sent >= length;
        if fits {
            self.sent += length;
        }
        fits
    }

    /// The cumulative grant of a received frame; a lower one than known is old and ignored.
    ///
    /// # Errors
    /// A grant that would overflow or exceeds `sent + GRANT_AHEAD_MAX`.
    #[inline]
    pub fn raise(&mut self, cumulative: u64) -> Result<(), Violation> {
        let limit = self.sent.saturating_add(GRANT_AHEAD_MAX);
        if cumulative > limit {
            return Err(Violation::GrantTooLarge { granted: cumulative, limit });
        }
        self.granted = self.granted.max(cumulative);
        Ok(())
    }
}

/// The receiving side of a grant.
#[derive(Debug, Clone)]
pub struct ReceiveGrant {
    /// How far the grant goes beyond what was released.
    window: u64,
    /// The highest grant that a frame of ours has carried.
    announced: u64,
    /// Bytes received, never above `announced`.
    received: u64,
    /// Bytes that the application is done with, never above `received`.
    released: u64,
}

impl ReceiveGrant {
    /// A grant of `window` bytes ahead of what was released.
    #[must_use]
    pub fn new(window: u64) -> ReceiveGrant {
        ReceiveGrant { window, announced: window, received: 0, released: 0 }
    }

    /// `length` bytes of request data were announced by a frame head.
    ///
    /// # Errors
    /// [`Violation::GrantExceeded`].
    #[inline]
    pub fn receive(&mut self, length: u64) -> Result<(), Violation> {
        let received = self.received.saturating_add(length);
        if received > self.announced {
            return Err(Violation::GrantExceeded { received, granted: self.announced });
        }
        self.received = received;
        Ok(())
    }

    /// The application is done with `length` bytes.
    #[inline]
    pub fn release(&mut self, length: u64) {
        debug_assert!(length <= self.outstanding(), "more released than was received");
        self.released += length.min(self.outstanding());
    }

    /// The value for the next outgoing frame; it counts as announced.
    #[inline]
    pub fn announce(&mut self) -> u64 {
        self.announced = self.reach();
        self.announced
    }

    #[inline]
    fn reach(&self) -> u64 {
        self.released.saturating_add(self.window)
    }

    /// Whether half a window has been released since the last announcement, or everything received has been, so that a
    /// frame of its own is worth it. The second keeps a sender from waiting for ever with a request of more than half a
    /// window.
    #[must_use]
    #[inline]
    pub fn is_due(&self) -> bool {
        let news = self.reach() - self.announced;
        news > 0 && (news >= self.window.div_ceil(2) || self.outstanding() == 0)
    }

    /// Bytes received and not released.
    #[must_use]
    #[inline]
    pub fn outstanding(&self) -> u64 {
        self.received - self.released
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_sent_than_granted() {
        let mut grant = SendGrant::new(10);
        assert!(grant.take(0) && grant.take(6) && !grant.take(5) && grant.take(4));
        assert!(!grant.take(1) && grant.take(0));
        grant.raise(15).unwrap();
        grant.raise(12).unwrap(); // late
        assert!(!grant.take(6) && grant.take(5));
        assert!(!grant.take(u64::MAX));
    }

    #[test]
    fn a_grant_beyond_reason_is_refused() {
        let mut grant = SendGrant::new(10);
        assert!(grant.take(3));
        let limit = GRANT_AHEAD_MAX + 3;
        grant.raise(limit).unwrap();
        assert_eq!(grant.raise(limit + 1), Err(Violation::GrantTooLarge { granted: limit + 1, limit }));
        assert!(grant.raise(u64::MAX).is_err());
    }

    #[test]
    fn no_more_is_received_than_announced() {
        let mut grant = ReceiveGrant::new(10);
        grant.receive(10).unwrap();
        grant.receive(0).unwrap();
        let too_much = Err(Violation::GrantExceeded { received: 11, granted: 10 });
        assert_eq!(grant.receive(1), too_much);
        grant.release(4);
        assert_eq!(grant.receive(1), too_much, "released is not yet announced");
        assert_eq!(grant.announce(), 14);
        grant.receive(4).unwrap();
        assert_eq!(grant.outstanding(), 10);
        assert!(grant.receive(u64::MAX).is_err());
    }

    #[test]
    fn a_frame_of_its_own_is_due_at_half_a_window_or_when_all_is_released() {
        let mut grant = ReceiveGrant::new(10);
        assert!(!grant.is_due());
        grant.receive(8).unwrap();
        grant.release(4);
        assert!(!grant.is_due());
        grant.release(1);
        assert!(grant.is_due());
        grant.announce();
        assert!(!grant.is_due());
        grant.release(2);
        assert!(!grant.is_due());
        grant.release(1);
        assert!(grant.is_due(), "all is released");
        assert_eq!(grant.announce(), 18);
        assert!(!grant.is_due());
    }

    #[test]
    fn a_window_of_nothing_grants_nothing() {
        let mut grant = ReceiveGrant::new(0);
        grant.receive(0).unwrap();
        assert!(grant.receive(1).is_err());
        assert!(!grant.is_due());
        assert_eq!(grant.announce(), 0);
    }
}
