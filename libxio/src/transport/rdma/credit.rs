//! Credits: how many messages each side may send so that the other always has a buffer for them.
//!
//! Both directions are counted from the connection's beginning, modulo 2^32 (the model is the cumulative credit of
//! TCP's window, RFC 9293, rather than of increments, which a lost one would falsify). The last credit of a sender is
//! kept for a message that carries nothing but credit, so that two sides that have used theirs up can't wait for each
//! other.

use crate::wire::Violation;

/// Credits that only a credit message may use.
const RESERVE: u32 = 1;

/// Both directions of one connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Credits {
    /// Messages sent.
    sent: u32,
    /// Messages that the peer is ready to receive, in all.
    limit: u32,
    /// The peer's limit at the beginning: it never is more ahead of `sent`.
    peer_window: u32,
    /// Messages received.
    received: u32,
    /// Messages whose buffers are free again.
    released: u32,
    /// Messages that we are ready to receive at a time.
    window: u32,
    /// Our limit as the peer knows it.
    announced: u32,
}

impl Credits {
    /// `window`: what we announced; `peer_window`: what the peer announced.
    pub(super) fn new(window: u32, peer_window: u32) -> Credits {
        Credits {
            sent: 0,
            limit: peer_window,
            peer_window,
            received: 0,
            released: 0,
            window,
            announced: window,
        }
    }

    /// How many messages with frames may be sent now.
    pub(super) fn available(&self) -> u32 {
        self.limit.wrapping_sub(self.sent).saturating_sub(RESERVE)
    }

    /// Whether a message with nothing but credit may be sent now.
    pub(super) fn may_send_credit(&self) -> bool {
        self.limit != self.sent
    }

    /// A message goes out; returns the credit that it carries.
    pub(super) fn send(&mut self) -> u32 {
        self.sent = self.sent.wrapping_add(1);
        self.announced = self.released.wrapping_add(self.window);
        self.announced
    }

    /// A message has come in with this credit.
    pub(super) fn receive(&mut self, credit: u32) -> Result<(), Violation> {
        if self.received == self.announced {
            return Err(Violation::RdmaCreditExceeded);
        }
        self.received = self.received.wrapping_add(1);
        let ahead = credit.wrapping_sub(self.sent);
        // An older, lower credit can't come after a newer one: the connection keeps the order.
        if ahead > self.peer_window || credit.wrapping_sub(self.limit) > self.peer_window {
            return Err(Violation::BadRdmaMessage("its credit is out of range"));
        }
        self.limit = credit;
        Ok(())
    }

    /// The buffers of so many messages are posted again.
    pub(super) fn release(&mut self, messages: u32) {
        self.released = self.released.wrapping_add(messages);
    }

    /// Whether the peer should be told, if nothing else goes out: when half of the window is news.
    pub(super) fn is_due(&self) -> bool {
        let news = self.released.wrapping_add(self.window).wrapping_sub(self.announced);
        news >= self.window.div_ceil(2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    #[test]
    fn the_last_credit_is_for_credits() {
        let mut credits = Credits::new(8, 4);
        for left in [3, 2, 1] {
            assert_eq!(credits.available(), left);
            assert_eq!(credits.send(), 8);
        }
        assert_eq!(credits.available(), 0);
        assert!(credits.may_send_credit());
        credits.send();
        assert!(!credits.may_send_credit());
        credits.receive(5).unwrap();
        assert!(credits.may_send_credit() && credits.available() == 0);
    }

    #[test]
    fn a_peer_that_overruns_or_lies_is_found_out() {
        let mut credits = Credits::new(4, 4);
        for _ in 0..4 {
            credits.receive(4).unwrap();
        }
        assert_eq!(credits.receive(4), Err(Violation::RdmaCreditExceeded));
        credits.release(4);
        assert_eq!(credits.receive(4), Err(Violation::RdmaCreditExceeded), "it does not know yet");
        credits.send();
        credits.receive(4).unwrap();
        assert!(credits.receive(6).is_err(), "more than its window");
        assert!(credits.receive(3).is_err(), "less than before");
    }

    /// Two sides that send whenever they may, over a wire that keeps the order, in every mix of speeds.
    #[test]
    fn nothing_is_overrun_and_nothing_stands_still() {
        for (window, other_window) in [(4, 4), (4, 16), (5, 128)] {
            let mut sides = [Credits::new(window, other_window), Credits::new(other_window, window)];
            // Near the end of the numbers.
            for side in &mut sides {
                for counter in [
                    &mut side.sent,
                    &mut side.limit,
                    &mut side.received,
                    &mut side.released,
                    &mut side.announced,
                ] {
                    *counter = counter.wrapping_sub(1000);
                }
            }
            let mut wires = [VecDeque::new(), VecDeque::new()];
            let mut delivered = [0_u32; 2];
            let mut random = 12345_u32;
            for _ in 0..20_000 {
                random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let at = (random >> 31) as usize;
                let side = &mut sides[at];
                match random >> 29 & 3 {
                    0 | 1 if side.available() > 0 => wires[at].push_back((true, side.send())),
                    2 if side.is_due() && side.may_send_credit() => wires[at].push_back((false, side.send())),
                    _ => {
                        if let Some((is_frame, credit)) = wires[1 - at].pop_front() {
                            side.receive(credit).unwrap();
                            side.release(1);
                            delivered[at] += u32::from(is_frame);
                        }
                    }
                }
            }
            assert!(delivered.iter().all(|frames| *frames > 2000), "{delivered:?}");
        }
    }
}
