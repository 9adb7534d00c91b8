//! One-sided operations: memory that a side exposes to its peer, and reads and writes of the peer's memory, which its
//! application does not see.
//!
//! The owner exposes a part of a region on one connection and sends its description to the peer in any message. The
//! owner's context checks key, bounds and permission of each access. On shared memory it then copies between the exposed
//! memory and that of a client that asks, once, and only the frames travel. Where the asking side's link reaches the memory
//! by itself ([`Link::reach`](crate::transport::Link::reach)) the owner's context has no part in it, and no frames are sent.

use super::Context;
use super::connection::{ConnectionSink, ConnectionState};
use super::event::{Event, Landing, Reply};
use super::handles::{Connection, RequestId};
use super::message::SendOptions;
use super::outgoing::{Beginning, HeldFrame, Numbered, Outstanding, place_data};
use super::requests::{check_landing, earlier, limit};
use super::turn::millis;
use crate::reactor::Key;
use crate::session::Admission;
use crate::transport::{Lent, Link, OutgoingFrame, PLACEMENT_BYTES, Placement, Reach};
use crate::wire::{
    ExtensionBytes, ExtensionWriter, FAILED_NO_REGION, FAILED_NO_ROOM, FAILED_NOT_PERMITTED,
    FAILED_OUT_OF_BOUNDS, FrameFlags, FrameHead, FrameKind, RemoteAddress, Violation,
};
use crate::{Error, HeaderBytes, Region, Result, Sgl, sys};
use std::time::{Duration, Instant};

/// Stretches of memory exposed on one connection at a time.
const EXPOSED_MAX: usize = 65_536;
/// Bytes of a [`RemoteRegion`].
pub const REMOTE_REGION_BYTES: usize = 32 + PLACEMENT_BYTES;

/// What a peer may do with exposed memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Access {
    /// Read it.
    pub read: bool,
    /// Write it.
    pub write: bool,
}

impl Access {
    /// Read only.
    pub const READ: Access = Access { read: true, write: false };
    /// Write only.
    pub const WRITE: Access = Access { read: false, write: true };
    /// Both.
    pub const READ_WRITE: Access = Access { read: true, write: true };
}

/// Describes memory that a peer has exposed on a connection. Whoever has it can use it on that connection, so treat it
/// as a secret.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RemoteRegion {
    number: u32,
    access: Access,
    length: u64,
    key: [u8; 16],
    /// The transport's own; all zero where it has nothing to say.
    placement: Placement,
}

impl std::fmt::Debug for RemoteRegion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let RemoteRegion { number, access, length, .. } = self;
        write!(f, "RemoteRegion({number}, {length} bytes, {access:?})")
    }
}

impl RemoteRegion {
    /// Length in bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// What may be done with it.
    #[must_use]
    pub fn access(&self) -> Access {
        self.access
    }

    /// As bytes, for a message to the peer: number (4), access (4: 1 read, 2 write), length (8), key (16), placement (24),
    /// little-endian.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; REMOTE_REGION_BYTES] {
        let RemoteRegion { number, access, length, key, placement } = self;
        let mut bytes = [0; REMOTE_REGION_BYTES];
        bytes[0..4].copy_from_slice(&number.to_le_bytes());
        bytes[4] = u8::from(access.read) + 2 * u8::from(access.write);
        bytes[8..16].copy_from_slice(&length.to_le_bytes());
        bytes[16..32].copy_from_slice(key);
        bytes[32..].copy_from_slice(placement);
        bytes
    }

    /// From the bytes that the peer sent; none for bytes that are no description.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<RemoteRegion> {
        let bytes: &[u8; REMOTE_REGION_BYTES] = bytes.try_into().ok()?;
        let (number, rest) = bytes.split_first_chunk::<4>()?;
        let (access, rest) = rest.split_first_chunk::<4>()?;
        let (length, rest) = rest.split_first_chunk::<8>()?;
        let (key, rest) = rest.split_first_chunk::<16>()?;
        let [bits @ 0..=3, 0, 0, 0] = *access else { return None };
        Some(RemoteRegion {
            number: u32::from_le_bytes(*number),
            access: Access { read: bits & 1 != 0, write: bits & 2 != 0 },
            length: u64::from_le_bytes(*length),
            key: *key,
            placement: rest.try_into().ok()?,
        })
    }
}

/// Memory of this side that the peer may reach.
#[derive(Debug)]
pub(crate) struct Exposed {
    key: [u8; 16],
    region: Region,
    offset: usize,
    length: usize,
    access: Access,
}

impl ConnectionState {
    /// Begins an operation that the link does by itself. It takes a slot, whose number it gives back at its end, since the
    /// peer never hears of it. Gives the operation back where the link can't do it.
    #[allow(clippy::result_large_err, reason = "the operation goes back to be sent by frames")]
    fn begin_alone(
        &mut self,
        mut entry: Outstanding,
        address: RemoteAddress,
        data: Sgl,
        link: &mut dyn Link,
        (timeout, now): (Option<Duration>, Instant),
    ) -> std::result::Result<(RequestId, Option<Instant>), (Outstanding, Sgl)> {
        let write = entry.kind == FrameKind::RemoteWrite;
        let deadline = timeout.and_then(|timeout| now.checked_add(timeout));
        entry.deadline = deadline.zip(timeout.map(millis));
        let (slot, sequence) = match self.requester.begin(entry) {
            Ok(numbers) => numbers,
            Err(entry) => return Err((entry, data)),
        };
        let begun = self.requester.get_mut(slot).is_some_and(|entry| {
            let local = match &entry.landing {
                _ if write => &data,
                Landing::Place(list) => list,
                Landing::Pool(_) | Landing::None => return false,
            };
            link.reach(Reach { slot, sequence, address, local, write })
        });
        if !begun && let Some(entry) = self.requester.take_back(slot) {
            return Err((entry, data));
        }
        self.next_deadline = earlier(self.next_deadline, deadline);
        self.counts.requests_sent += 1;
        let mut id = RequestId { slot, sequence };
        if let Some(entry) = self.requester.get_mut(slot) {
            (entry.sequence, entry.alone, entry.nameless) = (sequence, true, true);
            entry.kept = data;
            id = entry.id(slot);
        }
        Ok((id, deadline))
    }

    /// The memory of an access, or the reason why there is none.
    fn exposed_memory(
        &self,
        address: &RemoteAddress,
        length: u32,
        write: bool,
    ) -> std::result::Result<Sgl, u32> {
        let found = self.exposed.get(address.region as usize).and_then(Option::as_ref);
        let exposed = found.filter(|exposed| sys::equal_in_constant_time(&exposed.key, &address.key));
        let exposed = exposed.ok_or(FAILED_NO_REGION)?;
        if !(if write { exposed.access.write } else { exposed.access.read }) {
            return Err(FAILED_NOT_PERMITTED);
        }
        let offset = usize::try_from(address.offset).map_err(|_| FAILED_OUT_OF_BOUNDS)?;
        let end = offset.checked_add(length as usize).filter(|end| *end <= exposed.length);
        end.ok_or(FAILED_OUT_OF_BOUNDS)?;
        let memory = exposed.region.slice(exposed.offset + offset, length as usize);
        let mut list = Sgl::new();
        memory.and_then(|memory| list.push(memory)).map_err(|_| FAILED_OUT_OF_BOUNDS)?;
        Ok(list)
    }
}

impl ConnectionSink<'_> {
    /// Where the data of a remote write lands; none where it is refused.
    pub(super) fn place_remote(
        &mut self,
        head: &FrameHead,
        header: &[u8],
    ) -> std::result::Result<Option<Sgl>, Violation> {
        let address = RemoteAddress::decode(header)?;
        let memory = self.state.exposed_memory(&address, head.data_length, true).ok();
        self.state.landing_in = memory.is_some().then_some(address.region);
        Ok(memory)
    }

    pub(super) fn remote_write(
        &mut self,
        head: &FrameHead,
        header: &[u8],
        data: &Sgl,
    ) -> std::result::Result<(), Violation> {
        let address = RemoteAddress::decode(header)?;
        self.state.landing_in = None;
        self.state.receiving.release(u64::from(head.data_length));
        let outcome = match self.state.exposed_memory(&address, head.data_length, true) {
            // It lies in the peer's memory; otherwise it has landed.
            Ok(memory) if head.extension_length > 0 => {
                self.count_copy(memory.copy_from_list(data));
                Ok(Sgl::new())
            }
            // It was revoked while the data came in.
            Ok(_) if data.len() != head.data_length as usize => Err(FAILED_NO_REGION),
            Ok(_) => Ok(Sgl::new()),
            Err(reason) => Err(reason),
        };
        self.end_remote(head, outcome, &Sgl::new())
    }

    /// `landing` is the peer's memory where the bytes shall be; empty where they travel.
    pub(super) fn remote_read(
        &mut self,
        head: &FrameHead,
        header: &[u8],
        landing: &Sgl,
    ) -> std::result::Result<(), Violation> {
        let address = RemoteAddress::decode(header)?;
        let outcome = if head.room > self.state.theirs.data_bytes_max {
            Err(FAILED_NO_ROOM)
        } else {
            self.state.exposed_memory(&address, head.room, false)
        };
        self.end_remote(head, outcome, landing)
    }

    /// An operation that the link has begun by itself has ended; or it goes to this address by frames.
    pub(super) fn end_alone(&mut self, slot: u16, sequence: u32, refused: Option<RemoteAddress>) {
        let state = &mut *self.state;
        if !state.requester.is_current(slot, sequence) {
            return;
        }
        let Some(address) = refused else { return self.done_alone(slot) };
        self.statistics.operations_refused.add(1);
        self.statistics.requests_sent.add(1);
        let Some(entry) = state.requester.get_mut(slot) else { return };
        entry.alone = false;
        let data = std::mem::take(&mut entry.kept);
        match state.start(Numbered::Request { slot }, &address.encode(), data, ExtensionBytes::new()) {
            Some(OutgoingFrame { head, header, data, .. }) => {
                self.replies.push(HeldFrame::new(head, HeaderBytes::from_slice(header), data));
            }
            None => {
                self.statistics.waiting_for_grant.add(1);
                self.statistics.grant_stalls.add(1);
            }
        }
    }

    fn done_alone(&mut self, slot: u16) {
        let Some(entry) = self.state.requester.take_back(slot) else { return };
        self.statistics.requests_outstanding.subtract(1);
        self.statistics.operations_alone.add(1);
        let connection = self.state.handle;
        let id = entry.id(slot);
        if let Some(token) = entry.notify {
            self.events.push_back(Event::Sent { connection, token, outcome: Ok(entry.kept) });
        }
        let data = match entry.landing {
            Landing::Place(list) => list,
            Landing::Pool(_) | Landing::None => Sgl::new(),
        };
        if entry.expired {
            if entry.named {
                let token = entry.token;
                self.events.push_back(Event::Released { connection, token, memory: data });
            }
            return;
        }
        self.statistics.request_latency.record(self.now_ns.saturating_sub(entry.begun_ns));
        let outcome = Ok(Reply { header: HeaderBytes::new(), data });
        self.events.push_back(Event::Response { connection, id, token: entry.token, outcome });
    }

    /// Bytes were copied between exposed memory and the peer's.
    fn count_copy(&mut self, bytes: usize) {
        self.copied += bytes;
        self.statistics.bytes_copied.add(bytes as u64);
        self.statistics.bytes_in_place.add(bytes as u64);
    }

    /// Answers a remote read or write.
    fn end_remote(
        &mut self,
        head: &FrameHead,
        outcome: std::result::Result<Sgl, u32>,
        landing: &Sgl,
    ) -> std::result::Result<(), Violation> {
        self.statistics.requests_received.add(1);
        self.state.counts.requests_received += 1;
        let state = &mut *self.state;
        let (slot, sequence) = (head.slot, head.sequence);
        if state.responder.admit(slot, sequence, true)? != Admission::Execute {
            return Ok(());
        }
        let mut answer = state.frame_for(FrameKind::Response, RequestId { slot, sequence });
        let mut data = Sgl::new();
        match outcome {
            Ok(memory) => {
                state.responder.complete(slot, sequence, &[], memory.len(), |_| {});
                data = memory;
            }
            Err(reason) => {
                state.responder.fail(slot, sequence, reason);
                (answer.flags, answer.room) = (FrameFlags::FAILED, reason);
            }
        }
        let mut frame = HeldFrame::new(answer, HeaderBytes::new(), data);
        if !landing.is_empty() && !frame.data.is_empty() {
            let (in_place, copied) = place_data(&std::mem::take(&mut frame.data), landing, self.state.crc);
            self.count_copy(copied);
            (frame.in_place, frame.extension) = (Some(in_place), ExtensionWriter::placed());
        }
        self.replies.push(frame);
        Ok(())
    }
}

impl Context {
    /// Exposes `length` bytes of a region from `offset` to the peer of a connection, until they are revoked or the
    /// connection ends. The peer's reads and writes happen at any time, in no order with anything else, and without an
    /// event.
    ///
    /// # Errors
    /// [`Error::LimitExceeded`] where the range leaves the region, or 65,536 stretches are exposed on the connection;
    /// [`Error::StaleHandle`].
    pub fn expose(
        &mut self,
        connection: Connection,
        region: &Region,
        offset: usize,
        length: usize,
        access: Access,
    ) -> Result<RemoteRegion> {
        let (_, state) = self.open_connection(connection)?;
        let memory = region.slice(offset, length)?;
        let free = state.exposed.iter().position(Option::is_none).unwrap_or(state.exposed.len());
        if free >= EXPOSED_MAX {
            return Err(Error::LimitExceeded {
                what: "stretches of memory exposed on a connection",
                value: EXPOSED_MAX as u64 + 1,
                limit: EXPOSED_MAX as u64,
            });
        }
        let key = sys::random_bytes().map_err(|cause| Error::system("reading random bytes", &cause))?;
        let exposed = Some(Exposed { key, region: region.clone(), offset, length, access });
        match state.exposed.get_mut(free) {
            Some(place) => *place = exposed,
            None => state.exposed.push(exposed),
        }
        let link = state.link;
        // Below EXPOSED_MAX.
        let number = free as u32;
        let placement =
            self.links.get_mut(link).and_then(|entry| entry.link.expose(number, &memory, access, &key));
        let length = length as u64;
        Ok(RemoteRegion { number, access, length, key, placement: placement.unwrap_or_default() })
    }

    /// Takes exposed memory back: when this returns, no operation of the peer begins on it or writes it any more.
    /// Answers to reads that had arrived may still carry its bytes; the region itself lives until they are sent.
    ///
    /// # Errors
    /// [`Error::StaleHandle`] where it is not exposed (any more).
    pub fn revoke(&mut self, connection: Connection, region: &RemoteRegion) -> Result<()> {
        let key = connection.key(self.number).ok_or(Error::StaleHandle("connection"))?;
        let state = self.connections.get_mut(key).ok_or(Error::StaleHandle("connection"))?;
        let place = state.exposed.get_mut(region.number as usize);
        let found = place.filter(|place| place.as_ref().is_some_and(|exposed| exposed.key == region.key));
        *found.ok_or(Error::StaleHandle("exposed memory"))? = None;
        let landing = state.landing_in == Some(region.number);
        let link = state.link;
        if let Some(entry) = self.links.get_mut(link) {
            entry.link.revoke(region.number);
            if landing {
                entry.link.discard_landing();
            }
        }
        Ok(())
    }

    /// Reads from the peer's exposed memory: as many bytes from `offset` as the landing has room for. It ends as a
    /// request does, with an [`Event::Response`](crate::Event::Response) whose header is empty; it takes a slot and may have
    /// a deadline. A cancel is always too late; where this side's device reaches the memory by itself (RDMA) there is
    /// nobody to ask, and [`Context::cancel`] says [`Error::StaleHandle`].
    ///
    /// # Errors
    /// [`Error::OutOfBounds`], [`Error::NotPermitted`] by the description; otherwise as [`Context::request`].
    pub fn remote_read(
        &mut self,
        connection: Connection,
        region: &RemoteRegion,
        offset: u64,
        landing: Landing,
        token: u64,
        options: SendOptions,
    ) -> Result<RequestId> {
        check_access(region, offset, landing.room(), region.access.read)?;
        check_landing(&landing)?;
        let (key, state) = self.open_connection(connection)?;
        let room = limit("bytes of a remote read", landing.room(), state.own.data_bytes_max)?;
        let address = RemoteAddress { region: region.number, offset, key: region.key };
        let mut beginning = Beginning::new(FrameKind::RemoteRead, token, landing, room, self.now_ns);
        let options = SendOptions { receipt: false, notify: None, ..options };
        if options.more {
            beginning.flags = FrameFlags::MORE;
        }
        self.begin_remote(key, beginning, address, Sgl::new(), &options)
    }

    /// Writes to the peer's exposed memory at `offset`. It ends as [`Context::remote_read`] does. After an error, or
    /// when the connection is lost meanwhile, any part of the range may have been written.
    ///
    /// # Errors
    /// As [`Context::remote_read`].
    pub fn remote_write(
        &mut self,
        connection: Connection,
        region: &RemoteRegion,
        offset: u64,
        data: Sgl,
        token: u64,
        options: SendOptions,
    ) -> Result<RequestId> {
        check_access(region, offset, data.len(), region.access.write)?;
        let (key, state) = self.open_connection(connection)?;
        limit("bytes of a remote write", data.len(), state.theirs.data_bytes_max)?;
        let address = RemoteAddress { region: region.number, offset, key: region.key };
        let mut beginning = Beginning::new(FrameKind::RemoteWrite, token, Landing::None, 0, self.now_ns);
        let options = SendOptions { receipt: false, ..options };
        if options.more {
            beginning.flags = FrameFlags::MORE;
        }
        self.begin_remote(key, beginning, address, data, &options)
    }

    /// Begins a one-sided operation: the link does it by itself if it can, else it goes by frames.
    fn begin_remote(
        &mut self,
        key: Key,
        beginning: Beginning,
        address: RemoteAddress,
        data: Sgl,
        options: &SendOptions,
    ) -> Result<RequestId> {
        let write = beginning.kind == FrameKind::RemoteWrite;
        let length = if write { data.len() } else { beginning.room as usize };
        // Where data is checked, it has to go by frames, which carry the sum.
        if let Some(state) = self.connections.get_mut(key).filter(|state| !state.crc)
            && let Some(link) = self.links.get_mut(state.link)
            && link.link.reaches(&address, length, write)
        {
            let named = matches!(beginning.landing, Landing::Place(_));
            let mut entry = beginning.begin(0, named, &Lent::default());
            let in_pool = matches!(entry.landing, Landing::Pool(_));
            if in_pool && let Ok(list) = self.pool.take_list(length) {
                entry.landing = Landing::Place(list);
            }
            entry.notify = options.notify;
            let now = if self.options.clock.is_virtual() { self.now } else { Instant::now() };
            let timeout = options.timeout;
            match state.begin_alone(entry, address, data, link.link.as_mut(), (timeout, now)) {
                Ok((id, deadline)) => {
                    self.next_expiry = earlier(self.next_expiry, deadline);
                    self.statistics.requests_outstanding.add(1);
                    let link = state.link;
                    self.touch_link(link);
                    return Ok(id);
                }
                Err((mut entry, data)) => {
                    if in_pool {
                        entry.landing = Landing::Pool(entry.room);
                    }
                    let beginning = entry.into_beginning();
                    return self.begin_request(key, beginning, &address.encode(), data, options);
                }
            }
        }
        self.begin_request(key, beginning, &address.encode(), data, options)
    }
}

fn check_access(region: &RemoteRegion, offset: u64, length: usize, permitted: bool) -> Result<()> {
    if !permitted {
        return Err(Error::NotPermitted);
    }
    match offset.checked_add(length as u64) {
        Some(end) if end <= region.length => Ok(()),
        _ => Err(Error::OutOfBounds),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_travels_as_bytes() {
        let region = RemoteRegion {
            number: 7,
            access: Access::READ_WRITE,
            length: 1 << 33,
            key: [9; 16],
            placement: [3; PLACEMENT_BYTES],
        };
        let bytes = region.to_bytes();
        assert_eq!(RemoteRegion::from_bytes(&bytes), Some(region));
        assert_eq!(RemoteRegion::from_bytes(&bytes[1..]), None);
        let mut other = bytes;
        other[4] = 4;
        assert_eq!(RemoteRegion::from_bytes(&other), None);
        assert!(!format!("{region:?}").contains("9, 9"), "the key is not printed");
    }
}
