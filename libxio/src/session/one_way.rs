//! One-way messages, one direction each: a cumulative sequence number, a cumulative acknowledgement of what the receiver
//! has released, and a limit on how far the one may run ahead of the other.
//!
//! Numbers on the wire count 1, 2, ... 4294967295, 1; inside they are 64 bits wide and never wrap.

use crate::wire::Violation;
use std::collections::VecDeque;

/// How many numbers there are on the wire.
const NUMBERS: u64 = u32::MAX as u64;

/// The number on the wire of the message with this count, from 1.
fn on_wire(count: u64) -> u32 {
    // Below 2^32.
    ((count - 1) % NUMBERS + 1) as u32
}

/// The lowest count from `first` (at least 1) on that has this number (at least 1) on the wire.
fn count_from(first: u64, sequence: u32) -> u64 {
    let ahead = (u64::from(sequence) - 1 + NUMBERS - (first - 1) % NUMBERS) % NUMBERS;
    first + ahead
}

/// The sending side: an entry for each message that is not acknowledged.
#[derive(Debug)]
pub struct OneWaySender<T> {
    /// Those of the counts above `acknowledged`, in order: at most `limit`.
    entries: VecDeque<T>,
    /// All messages up to this count are acknowledged.
    acknowledged: u64,
    limit: u32,
}

impl<T> OneWaySender<T> {
    /// `limit` is the receiver's `one_way_max`.
    #[must_use]
    pub fn new(limit: u32) -> Self {
        OneWaySender { entries: VecDeque::new(), acknowledged: 0, limit }
    }

    /// How many more messages may be sent before an acknowledgement.
    #[must_use]
    pub fn free(&self) -> u32 {
        self.limit - self.unacknowledged()
    }

    /// Messages sent and not acknowledged.
    #[must_use]
    #[inline]
    pub fn unacknowledged(&self) -> u32 {
        // At most `limit`.
        self.entries.len() as u32
    }

    /// Takes the next number for a message.
    ///
    /// # Errors
    /// The entry, when as many messages are unacknowledged as may be.
    pub fn begin(&mut self, entry: T) -> Result<u32, T> {
        if self.free() == 0 {
            return Err(entry);
        }
        self.entries.push_back(entry);
        Ok(on_wire(self.acknowledged + self.entries.len() as u64))
    }

    /// The entry of a message that is not acknowledged.
    pub fn get_mut(&mut self, sequence: u32) -> Option<&mut T> {
        let ahead = (sequence > 0).then(|| count_from(self.acknowledged + 1, sequence))? - self.acknowledged;
        self.entries.get_mut(usize::try_from(ahead - 1).ok()?)
    }

    /// The `acknowledged` of a received frame: ends the entries up to it, oldest first. 0, and the number known already,
    /// say nothing new.
    ///
    /// # Errors
    /// [`Violation::AcknowledgedTooMuch`]; what `end` returns.
    pub fn acknowledge(
        &mut self,
        sequence: u32,
        mut end: impl FnMut(u32, T) -> Result<(), Violation>,
    ) -> Result<(), Violation> {
        if sequence == 0 || (self.acknowledged > 0 && sequence == on_wire(self.acknowledged)) {
            return Ok(());
        }
        let count = count_from(self.acknowledged + 1, sequence);
        if count - self.acknowledged > self.entries.len() as u64 {
            return Err(Violation::AcknowledgedTooMuch { sequence });
        }
        while self.acknowledged < count {
            let Some(entry) = self.entries.pop_front() else { break };
            self.acknowledged += 1;
            end(on_wire(self.acknowledged), entry)?;
        }
        Ok(())
    }

    /// Ends all entries, oldest first.
    pub fn drain(&mut self) -> impl Iterator<Item = T> + '_ {
        self.entries.drain(..)
    }

    /// As if so many messages had been sent and acknowledged.
    #[cfg(test)]
    fn start_at(&mut self, count: u64) {
        self.acknowledged = count;
    }
}

/// The receiving side: which messages the application has released.
#[derive(Debug)]
pub struct OneWayReceiver {
    /// For each count above `released`: whether it was released, at most `limit` of them.
    ahead: VecDeque<bool>,
    /// All messages up to this count were released.
    released: u64,
    /// The highest acknowledgement that a frame of ours has carried.
    announced: u64,
    limit: u32,
}

impl OneWayReceiver {
    /// `limit` is this side's `one_way_max`.
    #[must_use]
    pub fn new(limit: u32) -> Self {
        OneWayReceiver { ahead: VecDeque::new(), released: 0, announced: 0, limit }
    }

    /// A message has arrived (or been announced).
    ///
    /// # Errors
    /// Its number is not the next; more are unacknowledged than was granted.
    pub fn receive(&mut self, sequence: u32) -> Result<(), Violation> {
        let count = self.released + self.ahead.len() as u64 + 1;
        let expected = on_wire(count);
        if sequence != expected {
            return Err(Violation::OneWayOutOfOrder { sequence, expected });
        }
        if count - self.announced > u64::from(self.limit) {
            return Err(Violation::OneWayExceeded { sequence, limit: self.limit });
        }
        self.ahead.push_back(false);
        Ok(())
    }

    /// The application is done with a message. False for one that is not there (any more).
    pub fn release(&mut self, sequence: u32) -> bool {
        if sequence == 0 {
            return false;
        }
        let index = count_from(self.released + 1, sequence) - self.released - 1;
        let found = usize::try_from(index).ok().and_then(|index| self.ahead.get_mut(index));
        let Some(place @ false) = found else { return false };
        *place = true;
        while self.ahead.front() == Some(&true) {
            self.ahead.pop_front();
            self.released += 1;
        }
        true
    }

    /// The value for the next outgoing frame; it counts as announced.
    #[inline]
    pub fn announce(&mut self) -> u32 {
        if self.released == self.announced {
            return 0;
        }
        self.announced = self.released;
        on_wire(self.released)
    }

    /// Whether a frame of its own is worth it: half of the limit was released since the last announcement, or all that
    /// was received.
    #[must_use]
    pub fn is_due(&self) -> bool {
        let news = self.released - self.announced;
        news > 0 && (news >= u64::from(self.limit.div_ceil(2)) || self.ahead.is_empty())
    }

    /// Messages received and not released (or behind one that is not).
    #[must_use]
    pub fn outstanding(&self) -> u32 {
        // At most `limit`.
        self.ahead.len() as u32
    }

    #[cfg(test)]
    fn start_at(&mut self, count: u64) {
        (self.released, self.announced) = (count, count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acknowledged(sender: &mut OneWaySender<u64>, sequence: u32) -> Result<Vec<u64>, Violation> {
        let mut ended = Vec::new();
        sender.acknowledge(sequence, |_, entry| {
            ended.push(entry);
            Ok(())
        })?;
        Ok(ended)
    }

    #[test]
    fn numbers_on_the_wire_leave_zero_out() {
        assert_eq!([1, NUMBERS, NUMBERS + 1, 2 * NUMBERS + 2].map(on_wire), [1, u32::MAX, 1, 2]);
        for first in [1, 2, NUMBERS, NUMBERS + 1, 5 * NUMBERS + 3] {
            for count in [first, first + 1, first + 1000] {
                assert_eq!(count_from(first, on_wire(count)), count);
            }
        }
    }

    #[test]
    fn no_more_is_sent_than_the_receiver_takes() {
        let mut sender = OneWaySender::new(2);
        assert_eq!((sender.begin(10), sender.begin(11), sender.begin(12)), (Ok(1), Ok(2), Err(12)));
        assert_eq!(sender.get_mut(2), Some(&mut 11));
        assert_eq!(acknowledged(&mut sender, 0), Ok(vec![]));
        assert_eq!(acknowledged(&mut sender, 3), Err(Violation::AcknowledgedTooMuch { sequence: 3 }));
        assert_eq!(acknowledged(&mut sender, 1), Ok(vec![10]));
        assert_eq!(acknowledged(&mut sender, 1), Ok(vec![]), "nothing new");
        assert_eq!(sender.get_mut(1), None);
        assert_eq!(sender.free(), 1);
        assert_eq!(sender.begin(12), Ok(3));
        assert_eq!(acknowledged(&mut sender, 3), Ok(vec![11, 12]));
        assert_eq!(OneWaySender::new(0).begin(1), Err(1));
    }

    #[test]
    fn messages_are_released_in_any_order_and_acknowledged_in_theirs() {
        let mut receiver = OneWayReceiver::new(4);
        for sequence in 1..=4 {
            receiver.receive(sequence).unwrap();
        }
        assert_eq!(receiver.receive(5), Err(Violation::OneWayExceeded { sequence: 5, limit: 4 }));
        assert_eq!(receiver.receive(4), Err(Violation::OneWayOutOfOrder { sequence: 4, expected: 5 }));
        assert!(receiver.release(2) && receiver.release(4));
        assert!(!receiver.release(2) && !receiver.release(5) && !receiver.release(0));
        assert_eq!((receiver.announce(), receiver.is_due()), (0, false));
        assert!(receiver.release(1));
        assert!(receiver.is_due(), "half of the limit");
        assert_eq!(receiver.receive(5), Err(Violation::OneWayExceeded { sequence: 5, limit: 4 }));
        assert_eq!((receiver.announce(), receiver.announce(), receiver.outstanding()), (2, 0, 2));
        receiver.receive(5).unwrap();
        assert!(receiver.release(3) && receiver.release(5) && receiver.is_due());
        assert_eq!((receiver.announce(), receiver.outstanding()), (5, 0));
    }

    proptest::proptest! {
        #[test]
        fn both_sides_agree_over_the_wrap(
            limit in 1..6_u32, start in NUMBERS - 5..NUMBERS + 2, steps in proptest::collection::vec(0..8_u8, 0..200),
        ) {
            let (mut sender, mut receiver) = (OneWaySender::new(limit), OneWayReceiver::new(limit));
            sender.start_at(start);
            receiver.start_at(start);
            let (mut next, mut ended, mut held) = (0, 0, Vec::new());
            for step in steps {
                match step {
                    0..3 => if let Ok(sequence) = sender.begin(next) {
                        next += 1;
                        receiver.receive(sequence).unwrap();
                        held.push(sequence);
                    },
                    3..6 => if !held.is_empty() {
                        assert!(receiver.release(held.remove(usize::from(step) % held.len())));
                    },
                    _ => for entry in acknowledged(&mut sender, receiver.announce()).unwrap() {
                        assert_eq!(entry, ended);
                        ended += 1;
                    },
                }
                assert!(sender.unacknowledged() <= limit);
            }
            for sequence in held {
                assert!(receiver.release(sequence));
            }
            assert!(acknowledged(&mut sender, receiver.announce()).is_ok());
            assert_eq!((sender.unacknowledged(), receiver.outstanding()), (0, 0));
        }
    }
}
