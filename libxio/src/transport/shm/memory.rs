//! The rings where they are: a memfd with a page of words and two rings of bytes, mapped by both sides.

use super::ring::{
    Bell, Consumer, Producer, arm, bell_for_data, bell_for_room, disarm, is_awake, wait_on_word,
    waits_for_room,
};
use crate::Sgl;
use crate::mem::{Amount, IoVec, PAGE_BYTES, PeerHold, PeerMemory};
use crate::sys::prefetch_bytes;
use crate::transport::WakeWord;
use crate::wire::{FRAME_HEAD_BYTES, HeadWords, Violation};
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Bytes of each ring that a client makes: holds what the context's scratch memory takes at a time, and stays in a
/// level-2 cache.
pub(super) const RING_BYTES: u32 = 256 << 10;
/// Bounds of a ring that a server maps.
const RING_BYTES_MIN: u32 = 4 << 10;
const RING_BYTES_MAX: u32 = 16 << 20;

/// Places of the words in the first page: one in every other cache line, since processors fetch lines in pairs; but what
/// the reader of a ring looks at together lies together.
const UPWARD_HEAD: usize = 0;
const UPWARD_NOTICES: usize = 8;
const UPWARD_TAIL: usize = 128;
const DOWNWARD_HEAD: usize = 256;
const DOWNWARD_NOTICES: usize = 264;
const DOWNWARD_TAIL: usize = 384;
const CLIENT_ASLEEP: usize = 512;
const SERVER_ASLEEP: usize = 640;

/// Where in a word the kernel looks, which waits on 32 bits: the half that the values are in.
const WAITED_HALF: usize = if cfg!(target_endian = "big") { 4 } else { 0 };

/// What is asked for of a frame that has come, before it is read: a head, a small header, and short data.
const SHORT_FRAME_BYTES: usize = 192;

/// Length of the memfd for rings of these sizes; `None` for sizes that are not allowed.
pub(super) fn length_for(upward: u32, downward: u32) -> Option<usize> {
    let fits = |bytes: u32| bytes.is_power_of_two() && (RING_BYTES_MIN..=RING_BYTES_MAX).contains(&bytes);
    (fits(upward) && fits(downward)).then(|| PAGE_BYTES + upward as usize + downward as usize)
}

/// Which end of the rings this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Client,
    Server,
}

/// Both rings, from one end.
#[derive(Debug)]
pub(super) struct Rings {
    memory: Arc<PeerMemory>,
    producer: Producer,
    consumer: Consumer,
    /// Notices that we have given.
    notices: u64,
    /// Of the peer's, as we have last seen it.
    peer_notices: u64,
    noticed: bool,
    /// Where our words and bytes are.
    places: Places,
}

/// Offsets in the memory, of one end.
#[derive(Debug, Clone, Copy)]
struct Places {
    out_head: usize,
    out_notices: usize,
    out_tail: usize,
    out_bytes: usize,
    out_capacity: usize,
    in_head: usize,
    in_notices: usize,
    in_tail: usize,
    in_bytes: usize,
    in_capacity: usize,
    own_asleep: usize,
    peer_asleep: usize,
}

/// Bytes moved, and how the peer has to be woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moved {
    pub bytes: usize,
    pub bell: Bell,
}

impl Rings {
    /// Maps the rings.
    ///
    /// # Errors
    /// EINVAL where the sizes are not allowed, or the memfd is not what it has to be ([`PeerMemory::map`]).
    pub(super) fn map(
        memfd: BorrowedFd<'_>,
        upward: u32,
        downward: u32,
        end: End,
        hold: Arc<PeerHold>,
    ) -> io::Result<Rings> {
        let length =
            length_for(upward, downward).ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
        let memory = PeerMemory::map(memfd, length, hold)?;
        let (up, down) = (upward as usize, downward as usize);
        let places = match end {
            End::Client => Places {
                out_head: UPWARD_HEAD,
                out_notices: UPWARD_NOTICES,
                out_tail: UPWARD_TAIL,
                out_bytes: PAGE_BYTES,
                out_capacity: up,
                in_head: DOWNWARD_HEAD,
                in_notices: DOWNWARD_NOTICES,
                in_tail: DOWNWARD_TAIL,
                in_bytes: PAGE_BYTES + up,
                in_capacity: down,
                own_asleep: CLIENT_ASLEEP,
                peer_asleep: SERVER_ASLEEP,
            },
            End::Server => Places {
                out_head: DOWNWARD_HEAD,
                out_notices: DOWNWARD_NOTICES,
                out_tail: DOWNWARD_TAIL,
                out_bytes: PAGE_BYTES + up,
                out_capacity: down,
                in_head: UPWARD_HEAD,
                in_notices: UPWARD_NOTICES,
                in_tail: UPWARD_TAIL,
                in_bytes: PAGE_BYTES,
                in_capacity: up,
                own_asleep: SERVER_ASLEEP,
                peer_asleep: CLIENT_ASLEEP,
            },
        };
        Ok(Rings {
            memory,
            producer: Producer::new(places.out_capacity as u64),
            consumer: Consumer::new(places.in_capacity as u64),
            notices: 0,
            peer_notices: 0,
            noticed: false,
            places,
        })
    }

    /// What they take of what may be mapped.
    pub(super) fn amount(&self) -> Amount {
        let Places { out_capacity, in_capacity, .. } = self.places;
        Amount::new(1, (PAGE_BYTES + out_capacity + in_capacity) as u64)
    }

    /// A word of the first page. The memory may vanish: only within a touch.
    fn word(memory: &PeerMemory, place: usize) -> &AtomicU64 {
        // SAFETY: the place is 8-byte aligned and inside the first page, which is mapped as long as the memory is
        // borrowed; whatever the peer writes there is a valid u64, and both sides use atomic instructions.
        unsafe { AtomicU64::from_ptr(memory.as_ptr().add(place).cast()) }
    }

    /// Runs an access to the rings; the memory may vanish under it.
    fn touch<R>(memory: &PeerMemory, access: impl FnOnce() -> Result<R, Violation>) -> Result<R, Violation> {
        memory.touch(access).unwrap_or(Err(Violation::MemoryVanished))
    }

    /// Copies as much of the pieces into the outgoing ring as there is room for; 0 bytes when it is full.
    pub(super) fn write(&mut self, pieces: &[IoVec<'_>]) -> Result<Moved, Violation> {
        let Rings { memory, producer, places, .. } = self;
        let memory = &**memory;
        Self::touch(memory, || {
            let room = producer.room(Self::word(memory, places.out_tail))? as usize;
            let mut done = 0;
            for piece in pieces {
                let length = piece.len().min(room - done);
                // SAFETY: there is room, and the piece is at least as long.
                Self::put(memory, places, producer.offset() + done, length, |start, target, length| unsafe {
                    piece.copy_to_raw(start, target, length);
                });
                done += length;
                if done == room {
                    break;
                }
            }
            producer.lay_out(done as u64);
            Ok(Moved { bytes: done, bell: Self::hand_over(memory, producer, places) })
        })
    }

    /// Copies a frame into the outgoing ring without telling the peer; false where there is no room for all of it.
    #[inline]
    pub(super) fn lay_out(
        &mut self,
        head: HeadWords,
        parts: [&[u8]; 2],
        data: &Sgl,
    ) -> Result<bool, Violation> {
        let Rings { memory, producer, places, .. } = self;
        let memory = &**memory;
        let before_data = FRAME_HEAD_BYTES + parts[0].len() + parts[1].len();
        let length = before_data + data.len();
        Self::touch(memory, || {
            if producer.room(Self::word(memory, places.out_tail))? < length as u64 {
                return Ok(false);
            }
            let mut at = producer.offset();
            if at + before_data <= places.out_capacity {
                // SAFETY: the ring's bytes lie inside the memory, and these inside the ring; there is room for them.
                unsafe {
                    let mut target = memory.as_ptr().add(places.out_bytes + at);
                    for word in head {
                        target.cast::<u64>().write_unaligned(word.to_le());
                        target = target.add(size_of::<u64>());
                    }
                    for part in parts {
                        copy_short(part, target);
                        target = target.add(part.len());
                    }
                }
                at += before_data;
            } else {
                let head: [u8; FRAME_HEAD_BYTES] = zerocopy::transmute!(head.map(u64::to_le));
                for part in [&head[..], parts[0], parts[1]] {
                    // SAFETY: there is room, and the part is as long as it says.
                    Self::put(memory, places, at, part.len(), |start, target, length| unsafe {
                        copy_short(&part[start..start + length], target);
                    });
                    at += part.len();
                }
            }
            for piece in data.pieces() {
                // SAFETY: as above.
                Self::put(memory, places, at, piece.len(), |start, target, length| unsafe {
                    piece.copy_to_raw(start, target, length);
                });
                at += piece.len();
            }
            producer.lay_out(length as u64);
            Ok(true)
        })
    }

    /// Tells the peer of what was laid out, and says how it has to be woken.
    pub(super) fn publish(&mut self) -> Result<Bell, Violation> {
        let Rings { memory, producer, places, .. } = self;
        let memory = &**memory;
        Self::touch(memory, || Ok(Self::hand_over(memory, producer, places)))
    }

    /// As [`Rings::publish`], but that it is not looked whether the peer sleeps: that has to follow, by a publish, and costs a
    /// fence, which waits until all that was written has left the processor.
    pub(super) fn publish_early(&mut self) -> Result<(), Violation> {
        let Rings { memory, producer, places, .. } = self;
        let memory = &**memory;
        Self::touch(memory, || {
            if producer.holds_back() {
                producer.publish(Self::word(memory, places.out_head));
            }
            Ok(())
        })
    }

    /// How the peer has to be woken for what was published early; what is laid out stays so.
    pub(super) fn look_late(&mut self) -> Bell {
        let Rings { memory, producer, places, .. } = self;
        let memory = &**memory;
        // Memory that vanished has nobody behind it who would read.
        Self::touch(memory, || Ok(Self::look(memory, producer, places))).unwrap_or(Bell::Silent)
    }

    /// Publishes what was laid out, if anything was, and says how the peer has to be woken. Only within a touch.
    fn hand_over(memory: &PeerMemory, producer: &mut Producer, places: &Places) -> Bell {
        if producer.holds_back() {
            producer.publish(Self::word(memory, places.out_head));
        }
        Self::look(memory, producer, places)
    }

    /// How the peer has to be woken for what is published, if that was not looked at since. Only within a touch.
    fn look(memory: &PeerMemory, producer: &mut Producer, places: &Places) -> Bell {
        if producer.takes_look() {
            bell_for_data(Self::word(memory, places.peer_asleep))
        } else {
            Bell::Silent
        }
    }

    /// Has `length` bytes copied into the outgoing ring from a position on, and around its end: `copy` is told from where
    /// in the source, to which place, and how many. Not more than the ring holds, and only within a touch.
    #[inline]
    fn put(
        memory: &PeerMemory,
        places: &Places,
        position: usize,
        length: usize,
        copy: impl Fn(usize, *mut u8, usize),
    ) {
        let at = position & (places.out_capacity - 1);
        let first = length.min(places.out_capacity - at);
        // SAFETY: the ring's bytes lie inside the memory, `at + first` and the rest from its start inside the ring. The
        // peer may read or write there, which hurts nobody: the bytes are raw.
        let (target, start) = unsafe {
            let ring = memory.as_ptr().add(places.out_bytes);
            (ring.add(at), ring)
        };
        if first > 0 {
            copy(0, target, first);
        }
        if length > first {
            copy(first, start, length - first);
        }
    }

    /// Copies what is in the incoming ring to the pieces, as much as they hold; 0 bytes when it is empty.
    pub(super) fn read(&mut self, pieces: &mut [IoVec<'_>]) -> Result<Moved, Violation> {
        let Rings { memory, consumer, peer_notices, noticed, places, .. } = self;
        let memory = &**memory;
        Self::touch(memory, || {
            let filled = consumer.filled(Self::word(memory, places.in_head))? as usize;
            let notices = Self::word(memory, places.in_notices).load(Ordering::Relaxed);
            if notices != *peer_notices {
                *peer_notices = notices;
                *noticed = true;
            }
            if filled == 0 {
                return Ok(Moved { bytes: 0, bell: Bell::Silent });
            }
            let mut done = 0;
            for piece in pieces {
                let length = piece.len().min(filled - done);
                let at = (consumer.offset() + done) & (places.in_capacity - 1);
                let first = length.min(places.in_capacity - at);
                // SAFETY: as in `write`; the piece may be written, since it is a place to receive into.
                unsafe {
                    let ring = memory.as_ptr().add(places.in_bytes);
                    piece.copy_from_raw(0, ring.add(at), first);
                    if length > first {
                        piece.copy_from_raw(first, ring, length - first);
                    }
                }
                done += length;
                if done == filled {
                    break;
                }
            }
            let is_due = consumer.take(done as u64) || waits_for_room(Self::word(memory, places.peer_asleep));
            let bell = if is_due { Self::release(memory, consumer, places) } else { Bell::Silent };
            Ok(Moved { bytes: done, bell })
        })
    }

    /// Gives what was read back to the peer, if there is something that it does not know of, and says how it has to be
    /// woken. Only within a touch.
    fn release(memory: &PeerMemory, consumer: &mut Consumer, places: &Places) -> Bell {
        if !consumer.holds_room() {
            return Bell::Silent;
        }
        consumer.release(Self::word(memory, places.in_tail));
        bell_for_room(Self::word(memory, places.peer_asleep))
    }

    /// Gives what was read back to the peer, before a sleep, and says how it has to be woken.
    pub(super) fn give_room(&mut self) -> Bell {
        let Rings { memory, consumer, places, .. } = self;
        let memory = &**memory;
        // Memory that vanished shows at the next read.
        Self::touch(memory, || Ok(Self::release(memory, consumer, places))).unwrap_or(Bell::Silent)
    }

    /// Whether the incoming ring has something that was not there at the last read, or the memory is not what it was.
    #[inline]
    pub(super) fn has_arrived(&self) -> bool {
        let Rings { memory, consumer, places, .. } = self;
        let memory = &**memory;
        let filled = Self::touch(memory, || consumer.filled(Self::word(memory, places.in_head)));
        let has_arrived = !matches!(filled, Ok(0));
        if has_arrived {
            // It is read in a moment, and comes from the other processor's cache as well.
            let start = memory.as_ptr().wrapping_add(places.in_bytes + consumer.offset());
            prefetch_bytes(start, SHORT_FRAME_BYTES);
        }
        has_arrived
    }

    /// Tells the peer that a message waits for it at the socket, which it does not look at while it is busy.
    pub(super) fn give_notice(&mut self) {
        self.notices += 1;
        let Rings { memory, notices, places, .. } = self;
        // Memory that vanished shows at the next read.
        let _ = memory.touch(|| Self::word(memory, places.out_notices).store(*notices, Ordering::Relaxed));
    }

    /// Whether the peer had given notice since this was last asked, by the last [`Rings::read`].
    pub(super) fn takes_notice(&mut self) -> bool {
        std::mem::take(&mut self.noticed)
    }

    /// Whether the other end does not sleep; it may say so at any time.
    pub(super) fn peer_is_awake(&self) -> bool {
        let Rings { memory, places, .. } = self;
        let memory = &**memory;
        Self::touch(memory, || Ok(is_awake(Self::word(memory, places.peer_asleep)))).unwrap_or(false)
    }

    /// Says that this end is about to sleep; true if there is something to do already, and it does not sleep.
    pub(super) fn arm(&mut self, wants_data: bool, wants_room: bool) -> Result<bool, Violation> {
        let Rings { memory, producer, consumer, places, .. } = self;
        let memory = &**memory;
        Self::touch(memory, || {
            let asleep = Self::word(memory, places.own_asleep);
            arm(asleep, wants_room);
            let ready = (wants_data && consumer.filled(Self::word(memory, places.in_head))? > 0)
                || (wants_room && producer.room(Self::word(memory, places.out_tail))? > 0);
            if ready {
                disarm(asleep);
            }
            Ok(ready)
        })
    }

    /// After [`Rings::arm`]: says that this end waits on its sleeping word, and what it is. `None` if it has been rung
    /// meanwhile, by a message.
    pub(super) fn wait_on_word(&mut self) -> Option<WakeWord> {
        let Rings { memory, places, .. } = self;
        let memory = &**memory;
        let asleep = Self::touch(memory, || Ok(wait_on_word(Self::word(memory, places.own_asleep))));
        // The values that a side says itself are small.
        let value = asleep.ok()?? as u32;
        let address = memory.as_ptr().wrapping_add(places.own_asleep + WAITED_HALF).cast_const().cast();
        Some(WakeWord { address, value })
    }

    /// Wakes the other end, which waits on its sleeping word. One waiter: others can only be the peer's own doing.
    pub(super) fn wake_peer(&self) {
        let Rings { memory, places, .. } = self;
        // SAFETY: as in `word`; nothing is read or written here, the kernel takes the address as a name.
        let word =
            unsafe { AtomicU32::from_ptr(memory.as_ptr().add(places.peer_asleep + WAITED_HALF).cast()) };
        // Memory that vanished shows at the next read.
        let _ = rustix::thread::futex::wake(word, rustix::thread::futex::Flags::empty(), 1);
    }

    /// Says that this end is awake.
    pub(super) fn disarm(&mut self) {
        let Rings { memory, places, .. } = self;
        // Memory that vanished shows at the next read.
        let _ = memory.touch(|| disarm(Self::word(memory, places.own_asleep)));
    }
}

/// Copies bytes of which there are mostly fewer than a call of memcpy is worth.
///
/// # Safety
/// `target` is valid for writes of as many bytes, and no part of them.
#[inline]
unsafe fn copy_short(bytes: &[u8], target: *mut u8) {
    /// Most bytes that are copied here, a word at a time.
    const SHORT: usize = 64;
    let (source, length) = (bytes.as_ptr(), bytes.len());
    // SAFETY: both are valid for `length` bytes, and every word lies inside them: the last one ends where they end.
    unsafe {
        if length > SHORT {
            std::ptr::copy_nonoverlapping(source, target, length);
        } else if length >= size_of::<u64>() {
            let last = length - size_of::<u64>();
            let mut at = 0;
            while at < last {
                target.add(at).cast::<u64>().write_unaligned(source.add(at).cast::<u64>().read_unaligned());
                at += size_of::<u64>();
            }
            target.add(last).cast::<u64>().write_unaligned(source.add(last).cast::<u64>().read_unaligned());
        } else {
            for at in 0..length {
                target.add(at).write(source.add(at).read());
            }
        }
    }
}

#[cfg(test)]
mod tests;
