//! The algorithm of a ring of bytes with one producer and one consumer, and of the doorbell between them.
//!
//! Positions count all bytes ever written and read (as in LMAX's Disruptor and Lamport's queue); each has one writer, and
//! its own side keeps a private copy that it believes instead. The other side's position is read once and checked.
//!
//! A side that goes to sleep says so in a word of its own, then looks once more; the other side moves its position, then
//! looks at that word. Between the two steps each has a fence of sequential consistency, so at least one of them sees
//! what the other did (Dekker's argument), and no wake-up is lost.

use crate::wire::Violation;
use std::sync::atomic::{AtomicU64, Ordering, fence};

/// A word of shared memory. Not `AtomicU64` alone, so that loom can stand in for it.
pub(super) trait Word {
    fn load(&self, order: Ordering) -> u64;
    fn store(&self, value: u64, order: Ordering);
    fn swap(&self, value: u64, order: Ordering) -> u64;
    /// Puts another value for one; false, and nothing is changed, where it is not there any more.
    fn replace(&self, value: u64, other: u64) -> bool;
    /// A fence of sequential consistency.
    fn fence();
}

impl Word for AtomicU64 {
    fn load(&self, order: Ordering) -> u64 {
        AtomicU64::load(self, order)
    }

    fn store(&self, value: u64, order: Ordering) {
        AtomicU64::store(self, value, order);
    }

    fn swap(&self, value: u64, order: Ordering) -> u64 {
        AtomicU64::swap(self, value, order)
    }

    fn replace(&self, value: u64, other: u64) -> bool {
        self.compare_exchange(value, other, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    fn fence() {
        fence(Ordering::SeqCst);
    }
}

/// The writing end of a ring.
#[derive(Debug)]
pub(super) struct Producer {
    /// Bytes published so far: what the shared head says, unless the peer has scribbled on it.
    head: u64,
    /// Bytes laid out behind the head and not published yet.
    laid_out: u64,
    /// Bytes that the ring holds: a power of two.
    capacity: u64,
    /// Something was published since it was last looked whether the consumer sleeps.
    owes_look: bool,
}

impl Producer {
    pub(super) fn new(capacity: u64) -> Producer {
        debug_assert!(capacity.is_power_of_two());
        Producer { head: 0, laid_out: 0, capacity, owes_look: false }
    }

    /// Bytes that can be written now.
    pub(super) fn room(&self, tail: &impl Word) -> Result<u64, Violation> {
        let filled = checked_filled(self.end(), tail.load(Ordering::Acquire), self.capacity)?;
        Ok(self.capacity - filled)
    }

    /// Where what was written ends.
    fn end(&self) -> u64 {
        self.head.wrapping_add(self.laid_out)
    }

    /// Where the next byte goes.
    pub(super) fn offset(&self) -> usize {
        (self.end() & (self.capacity - 1)) as usize
    }

    /// The next `length` bytes are written, and not more than there was room for.
    pub(super) fn lay_out(&mut self, length: u64) {
        self.laid_out += length;
    }

    /// Whether something is written that the consumer does not know of.
    pub(super) fn holds_back(&self) -> bool {
        self.laid_out > 0
    }

    /// Hands what is written to the consumer. Whether it sleeps has to be looked at then, at once or some bytes later.
    pub(super) fn publish(&mut self, head: &impl Word) {
        self.head = self.end();
        self.laid_out = 0;
        self.owes_look = true;
        head.store(self.head, Ordering::Release);
    }

    /// Whether it has to be looked if the consumer sleeps; the look follows.
    pub(super) fn takes_look(&mut self) -> bool {
        std::mem::take(&mut self.owes_look)
    }
}

/// The reading end of a ring.
#[derive(Debug)]
pub(super) struct Consumer {
    /// Bytes read so far.
    tail: u64,
    /// Those that the producer knows of: what the shared tail says, unless the peer has scribbled on it.
    released: u64,
    /// Bytes that the ring holds: a power of two.
    capacity: u64,
    /// So many bytes may be read before the producer has to know of them.
    slack: u64,
}

/// A ring of at least so many bytes has slack. The tail's line of cache is then seldom fetched from the other side, and
/// never between the arrival of a message and its answer.
const SLACK_FROM_BYTES: u64 = 128 << 10;
/// Part of such a ring that is slack.
const SLACK_PART: u64 = 16;

impl Consumer {
    pub(super) fn new(capacity: u64) -> Consumer {
        debug_assert!(capacity.is_power_of_two());
        let slack = if capacity >= SLACK_FROM_BYTES { capacity / SLACK_PART } else { 0 };
        Consumer { tail: 0, released: 0, capacity, slack }
    }

    /// Bytes that can be read now.
    pub(super) fn filled(&self, head: &impl Word) -> Result<u64, Violation> {
        checked_filled(head.load(Ordering::Acquire), self.tail, self.capacity)
    }

    /// Where the next byte is.
    pub(super) fn offset(&self) -> usize {
        (self.tail & (self.capacity - 1)) as usize
    }

    /// The next `length` bytes were copied out; they are not more than were there. True if they have to be released now;
    /// else before this side sleeps.
    pub(super) fn take(&mut self, length: u64) -> bool {
        self.tail = self.tail.wrapping_add(length);
        self.tail.wrapping_sub(self.released) > self.slack
    }

    /// Whether something was read that the producer does not know of.
    pub(super) fn holds_room(&self) -> bool {
        self.tail != self.released
    }

    /// Gives what was read back to the producer.
    pub(super) fn release(&mut self, tail: &impl Word) {
        self.released = self.tail;
        tail.store(self.tail, Ordering::Release);
    }
}

fn checked_filled(head: u64, tail: u64, capacity: u64) -> Result<u64, Violation> {
    let filled = head.wrapping_sub(tail);
    if filled > capacity { Err(Violation::RingPosition { filled, capacity }) } else { Ok(filled) }
}

/// The sleeping word of a side that is awake.
const AWAKE: u64 = 0;
/// It sleeps until there is something to read.
const FOR_DATA: u64 = 1;
/// It sleeps until there is something to read, or room to write.
const FOR_ROOM: u64 = 2;
/// Or-ed to either: it waits on the word itself (futex(2)), which is cheaper than a message on the socket.
const ON_WORD: u64 = 4;

/// How the other side has to be woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bell {
    /// Not at all.
    Silent,
    /// By a message on the socket.
    Message,
    /// By waking who waits on its sleeping word.
    Word,
}

impl Bell {
    /// For a side whose sleeping word was this.
    fn of(asleep: u64) -> Bell {
        match asleep {
            AWAKE => Bell::Silent,
            value if value & ON_WORD != 0 => Bell::Word,
            _ => Bell::Message,
        }
    }
}

/// Says that this side is about to sleep. It has to look at the rings once more afterwards.
pub(super) fn arm<W: Word>(asleep: &W, wants_room: bool) {
    asleep.store(if wants_room { FOR_ROOM } else { FOR_DATA }, Ordering::Relaxed);
    W::fence();
}

/// After [`arm`]: this side will wait on its word, for as long as it has the value returned. `None` where the other side has
/// rung meanwhile, by a message.
pub(super) fn wait_on_word(asleep: &impl Word) -> Option<u64> {
    let value = asleep.load(Ordering::Relaxed);
    let is_armed = value == FOR_DATA || value == FOR_ROOM;
    (is_armed && asleep.replace(value, value | ON_WORD)).then_some(value | ON_WORD)
}

/// This side is awake: no need to ring.
pub(super) fn disarm(asleep: &impl Word) {
    asleep.store(AWAKE, Ordering::Relaxed);
}

/// Whether a side is awake, as far as it has said.
pub(super) fn is_awake(asleep: &impl Word) -> bool {
    asleep.load(Ordering::Relaxed) == AWAKE
}

/// After bytes were published: how the peer has to be woken, if it sleeps.
pub(super) fn bell_for_data<W: Word>(asleep: &W) -> Bell {
    W::fence();
    if is_awake(asleep) { Bell::Silent } else { Bell::of(asleep.swap(AWAKE, Ordering::Relaxed)) }
}

/// Whether the peer sleeps for want of room, as far as it has said.
pub(super) fn waits_for_room(asleep: &impl Word) -> bool {
    asleep.load(Ordering::Relaxed) & !ON_WORD >= FOR_ROOM
}

/// After bytes were released: how the peer has to be woken, if it sleeps for want of room.
pub(super) fn bell_for_room<W: Word>(asleep: &W) -> Bell {
    W::fence();
    if waits_for_room(asleep) { Bell::of(asleep.swap(AWAKE, Ordering::Relaxed)) } else { Bell::Silent }
}

#[cfg(test)]
mod tests {
    use super::*;
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicU64 as LoomWord;
    use loom::thread;

    impl Word for LoomWord {
        fn load(&self, order: Ordering) -> u64 {
            LoomWord::load(self, order)
        }

        fn store(&self, value: u64, order: Ordering) {
            LoomWord::store(self, value, order);
        }

        fn swap(&self, value: u64, order: Ordering) -> u64 {
            LoomWord::swap(self, value, order)
        }

        fn replace(&self, value: u64, other: u64) -> bool {
            self.compare_exchange(value, other, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        }

        fn fence() {
            loom::sync::atomic::fence(Ordering::SeqCst);
        }
    }

    const CAPACITY: u64 = 2;

    /// A ring of two bytes, its words, and a bell whose rings are counted.
    struct Scene {
        head: LoomWord,
        tail: LoomWord,
        asleep: LoomWord,
        bell: LoomWord,
        bytes: [UnsafeCell<u8>; CAPACITY as usize],
    }

    // SAFETY: loom checks every access to the cells, which is the point.
    unsafe impl Sync for Scene {}

    fn scene() -> Arc<Scene> {
        Arc::new(Scene {
            head: LoomWord::new(0),
            tail: LoomWord::new(0),
            asleep: LoomWord::new(AWAKE),
            bell: LoomWord::new(0),
            bytes: [UnsafeCell::new(0), UnsafeCell::new(0)],
        })
    }

    fn write(scene: &Scene, producer: &mut Producer, value: u8) -> bool {
        if producer.room(&scene.tail).unwrap() == 0 {
            return false;
        }
        // SAFETY: loom fails the test if the consumer may be reading this cell.
        scene.bytes[producer.offset()].with_mut(|byte| unsafe { *byte = value });
        producer.lay_out(1);
        producer.publish(&scene.head);
        true
    }

    fn read(scene: &Scene, consumer: &mut Consumer) -> Option<u8> {
        if consumer.filled(&scene.head).unwrap() == 0 {
            return None;
        }
        // SAFETY: loom fails the test if the producer may be writing this cell.
        let value = scene.bytes[consumer.offset()].with(|byte| unsafe { *byte });
        assert!(consumer.take(1), "a small ring has no slack");
        consumer.release(&scene.tail);
        Some(value)
    }

    #[test]
    fn bytes_arrive_in_order_and_are_never_touched_by_both() {
        loom::model(|| {
            let scene = scene();
            let there = Arc::clone(&scene);
            let writer = thread::spawn(move || {
                let mut producer = Producer::new(CAPACITY);
                for value in 1..=3 {
                    while !write(&there, &mut producer, value) {
                        thread::yield_now();
                    }
                }
            });
            let mut consumer = Consumer::new(CAPACITY);
            for expected in 1..=3 {
                let found = loop {
                    match read(&scene, &mut consumer) {
                        Some(found) => break found,
                        None => thread::yield_now(),
                    }
                };
                assert_eq!(found, expected);
            }
            writer.join().unwrap();
        });
    }

    /// The consumer goes to sleep while the producer writes so many bytes, and then looks at it once.
    fn nobody_is_left_asleep(count: u8) {
        loom::model(move || {
            let scene = scene();
            let there = Arc::clone(&scene);
            let writer = thread::spawn(move || {
                let mut producer = Producer::new(CAPACITY);
                assert!((0..count).all(|value| write(&there, &mut producer, value)));
                assert!(producer.takes_look() && !producer.takes_look());
                if bell_for_data(&there.asleep) == Bell::Message {
                    there.bell.store(1, Ordering::SeqCst);
                }
            });
            let mut consumer = Consumer::new(CAPACITY);
            let mut left = count;
            let sleeps = loop {
                while read(&scene, &mut consumer).is_some() {
                    left -= 1;
                }
                if left == 0 {
                    break false;
                }
                arm(&scene.asleep, false);
                if consumer.filled(&scene.head).unwrap() == 0 {
                    break true;
                }
                disarm(&scene.asleep);
            };
            writer.join().unwrap();
            assert!(!sleeps || scene.bell.load(Ordering::SeqCst) == 1, "it sleeps, and nobody rings");
        });
    }

    /// Either it sees the byte before it sleeps, or it is rung.
    #[test]
    fn a_sleeper_is_never_left_with_data() {
        nobody_is_left_asleep(1);
    }

    /// The look at the sleeper may come after more bytes, once for all.
    #[test]
    fn a_sleeper_is_never_left_by_a_late_look() {
        nobody_is_left_asleep(2);
    }

    /// The consumer goes on to wait on its word. The kernel lets it sleep only while the word is what it was told, and wakes
    /// it if the ring comes later: to look and to be woken exclude each other.
    #[test]
    fn a_sleeper_on_its_word_is_rung_there() {
        loom::model(|| {
            let scene = scene();
            let there = Arc::clone(&scene);
            let writer = thread::spawn(move || {
                let mut producer = Producer::new(CAPACITY);
                assert!(write(&there, &mut producer, 7));
                bell_for_data(&there.asleep)
            });
            let mut consumer = Consumer::new(CAPACITY);
            arm(&scene.asleep, false);
            let came = consumer.filled(&scene.head).unwrap() > 0;
            let word = wait_on_word(&scene.asleep);
            let sleeps = word.is_none_or(|value| scene.asleep.load(Ordering::SeqCst) == value);
            let bell = writer.join().unwrap();
            let expected = if word.is_some() { Bell::Word } else { Bell::Message };
            assert!(came || !sleeps || bell == expected, "{word:?} {bell:?}");
            assert!(read(&scene, &mut consumer).is_some());
        });
    }

    /// The same for a producer that waits for room.
    #[test]
    fn a_sleeper_is_never_left_with_room() {
        loom::model(|| {
            let scene = scene();
            let mut producer = Producer::new(CAPACITY);
            let mut consumer = Consumer::new(CAPACITY);
            assert!(write(&scene, &mut producer, 1) && write(&scene, &mut producer, 2));
            let there = Arc::clone(&scene);
            let reader = thread::spawn(move || {
                assert_eq!(read(&there, &mut consumer), Some(1));
                if bell_for_room(&there.asleep) == Bell::Message {
                    there.bell.store(1, Ordering::SeqCst);
                }
            });
            let sleeps = loop {
                if write(&scene, &mut producer, 3) {
                    break false;
                }
                arm(&scene.asleep, true);
                if producer.room(&scene.tail).unwrap() == 0 {
                    break true;
                }
                disarm(&scene.asleep);
            };
            reader.join().unwrap();
            assert!(!sleeps || scene.bell.load(Ordering::SeqCst) == 1, "it sleeps, and nobody rings");
        });
    }

    #[test]
    fn positions_that_cannot_be_are_refused() {
        let producer = Producer::new(16);
        let consumer = Consumer::new(16);
        for wrong in [17, 1 << 32, u64::MAX / 2, u64::MAX] {
            assert!(consumer.filled(&AtomicU64::new(wrong)).is_err());
            assert!(producer.room(&AtomicU64::new(wrong)).is_err() || wrong > u64::MAX - 16);
        }
        assert_eq!(consumer.filled(&AtomicU64::new(16)), Ok(16));
        let mut producer = Producer::new(16);
        let head = AtomicU64::new(0);
        producer.lay_out(20);
        producer.publish(&head);
        assert_eq!((producer.offset(), head.load(Ordering::Relaxed)), (4, 20));
    }
}
