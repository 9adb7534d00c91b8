//! The sending half of a link: queued frames become messages, as far as credits, the send queue and the staging memory
//! reach; all of a turn go with one doorbell.
//!
//! A frame's head, extension and header are staged in registered memory. Its data follows from where it lies, if the
//! device knows that memory, else it is staged too (a copy); little data always is. The data of a response that has a
//! landing in the peer's memory, and would not fit one message, goes there by RDMA WRITE before the message.

use super::RdmaOptions;
use super::cm::CmId;
use super::credit::Credits;
use super::domain::MESSAGE_BYTES;
use super::endpoint::{Endpoint, LocalPiece};
use super::lending::{Landings, Pieces, Registrations, length_of, remote_at};
use super::message::{MESSAGE_HEAD_BYTES, MessageHead, MessageKind};
use super::registration::KeyCache;
use crate::transport::{OutgoingFrame, SentFrame, Sink};
use crate::wire::{ExtensionBytes, ExtensionWriter, FRAME_HEAD_BYTES, FrameFlags, FrameKind};
use crate::{Buffer, HeaderBytes, Sgl};
use smallvec::SmallVec;
use std::collections::VecDeque;
use std::io;

/// Data of so many bytes is cheaper staged than named to the device, which would have to tell when it is free.
const STAGED_DATA_BYTES: usize = 512;

/// Frames that wait to be sent, and what is known of those on their way.
#[derive(Debug, Default)]
pub(super) struct Sending {
    queue: VecDeque<Outgoing>,
    /// Bytes of the queue that are not posted yet.
    unsent: usize,
    /// Frames with data that the device may still read, oldest first.
    awaited: VecDeque<Awaited>,
    /// Work up to this number is done.
    done: u64,
    /// A farewell (a frame after which the link is let go) that is posted: number of its work, and bytes.
    farewell: Option<(u64, usize)>,
}

/// A posted frame with data.
#[derive(Debug)]
struct Awaited {
    work: u64,
    name: SentFrame,
    data: Sgl,
    /// Held for its drop.
    _registrations: Registrations,
}

/// A frame in the queue.
#[derive(Debug)]
struct Outgoing {
    head: [u8; FRAME_HEAD_BYTES],
    extension: ExtensionBytes,
    header: HeaderBytes,
    data: Sgl,
    /// Bytes of head, extension, header and data that are posted in messages.
    sent: usize,
    name: SentFrame,
    /// Data was named to the device, which reads it until the work is done; what was copied is free at once.
    named: bool,
    write: Option<Write>,
}

/// Data that goes by RDMA WRITE.
#[derive(Debug)]
struct Write {
    /// Where it goes.
    to: Pieces,
    /// Bytes that WRITEs are posted for.
    posted: usize,
    registrations: Registrations,
}

impl Outgoing {
    fn staged_length(&self) -> usize {
        FRAME_HEAD_BYTES + self.extension.len() + self.header.len()
    }

    /// Bytes that go in messages.
    fn length(&self) -> usize {
        self.staged_length() + if self.write.is_some() { 0 } else { self.data.len() }
    }
}

/// What a flush came to.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sent {
    pub bytes: usize,
    /// Something has to wait for credits or the device.
    pub blocked: bool,
}

impl Sending {
    /// Bytes that are not yet safely with the peer: of the queue, and of a farewell that the device still has.
    pub(super) fn unsent(&self) -> usize {
        self.unsent + self.farewell.map_or(0, |(_, bytes)| bytes)
    }

    /// Frames that are not posted whole.
    pub(super) fn frames(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Queues a frame.
    pub(super) fn push(
        &mut self,
        frame: OutgoingFrame<'_>,
        crc: bool,
        landings: &mut Landings,
        peer: Option<(&Endpoint, &mut KeyCache, &RdmaOptions)>,
    ) {
        let OutgoingFrame { mut head, header, data, mut extension, in_place } = frame;
        // RDMA places data by address: there is nothing to align.
        head.data_padding = 0;
        if let Some((length, data_crc)) = in_place {
            (head.data_length, head.data_crc) = (length, data_crc);
        } else if !head.flags.contains(FrameFlags::ANNOUNCED) {
            // Data was checked against the peer's limit, which is u32.
            head.data_length = data.len() as u32;
            if crc && !data.is_empty() {
                head.data_crc = data.crc32c();
            }
        }
        let mut write = None;
        if head.kind == FrameKind::Response {
            let to = landings.take(head.slot);
            let fits = FRAME_HEAD_BYTES + header.len() + data.len() <= MESSAGE_BYTES - MESSAGE_HEAD_BYTES;
            if let Some((endpoint, keys, options)) = peer
                && !(fits && data.len() <= options.send_data_max as usize)
                && !data.is_empty()
                && length_of(&to) >= data.len() as u64
                && let Some(registrations) = register(&data, endpoint, keys, options)
            {
                extension = ExtensionWriter::placed();
                write = Some(Write { to, posted: 0, registrations });
            }
        }
        // Headers were checked against the peer's limit, which is u32; extensions are far below u16.
        head.header_length = header.len() as u32;
        head.extension_length = extension.len() as u16;
        let name = SentFrame::from(&head);
        let crc = crc || super::has_checksum_always(name.kind);
        let head = if extension.is_empty() || !crc {
            head.encode(header, crc)
        } else {
            let mut follows = HeaderBytes::from_slice(&extension);
            follows.extend_from_slice(header);
            head.encode(&follows, crc)
        };
        let header = HeaderBytes::from_slice(header);
        let outgoing = Outgoing { head, extension, header, data, sent: 0, name, named: false, write };
        self.unsent += outgoing.length();
        self.queue.push_back(outgoing);
    }

    /// Work up to this number is done.
    pub(super) fn done(&mut self, upto: u64) {
        self.done = self.done.max(upto);
        if self.farewell.is_some_and(|(work, _)| work <= upto) {
            self.farewell = None;
        }
    }

    /// Whether there are frames whose data [`Sending::report`] gives back.
    pub(super) fn has_news(&self) -> bool {
        self.awaited.front().is_some_and(|frame| frame.work <= self.done)
    }

    /// Gives the data of frames that are gone back.
    pub(super) fn report(&mut self, sink: &mut dyn Sink) {
        while self.awaited.front().is_some_and(|frame| frame.work <= self.done) {
            if let Some(Awaited { name, data, .. }) = self.awaited.pop_front() {
                sink.frame_sent(name, data);
            }
        }
    }

    /// Whether a frame that has come answers one whose data the device may still read: the peer has it, but its
    /// acknowledgement is not here yet.
    pub(super) fn awaits(&self, answer: &[u8]) -> bool {
        if self.awaited.is_empty() {
            return false;
        }
        let Some(&[kind, flags, slot_low, slot_high, ref sequence @ ..]) = answer.first_chunk::<8>() else {
            return false;
        };
        let slot = u16::from_le_bytes([slot_low, slot_high]);
        let sequence = u32::from_le_bytes(*sequence);
        let is_one_way = FrameFlags(flags).contains(FrameFlags::ONE_WAY);
        match FrameKind::from_byte(kind) {
            Ok(FrameKind::Response | FrameKind::Receipt | FrameKind::Ready | FrameKind::CancelResult) => {
                self.awaited.iter().any(|frame| match (is_one_way, frame.name.kind) {
                    (true, FrameKind::OneWay) => frame.name.sequence == sequence,
                    (true, _) | (false, FrameKind::OneWay | FrameKind::Response) => false,
                    (false, _) => frame.name.slot == slot,
                })
            }
            _ => false,
        }
    }

    /// Lets go of everything.
    pub(super) fn clear(&mut self) {
        self.queue.clear();
        self.awaited.clear();
        self.unsent = 0;
        self.farewell = None;
    }

    /// Posts as much as may go; the sink hears of frames that are gone.
    pub(super) fn flush(
        &mut self,
        id: &CmId,
        endpoint: &mut Endpoint,
        credits: &mut Credits,
        keys: &mut KeyCache,
        message_bytes: usize,
        sink: &mut dyn Sink,
    ) -> io::Result<Sent> {
        let mut sent = Sent::default();
        while let Some(front) = self.queue.front_mut() {
            if !front.post_writes(endpoint, keys)? {
                sent.blocked = true;
                break;
            }
            if credits.available() == 0 || endpoint.room() == 0 {
                sent.blocked = true;
                break;
            }
            let kind = if front.sent == 0 { MessageKind::Frame } else { MessageKind::More };
            let room = message_bytes - MESSAGE_HEAD_BYTES;
            // Of head and header first, then of data.
            let staged_length = front.staged_length();
            let staged = (staged_length - front.sent.min(staged_length)).min(room);
            let data_start = front.sent.saturating_sub(staged_length);
            let data_left = front.length() - staged_length - data_start;
            let data_length =
                if front.sent + staged < staged_length { 0 } else { data_left.min(room - staged) };
            let mut pieces: SmallVec<[LocalPiece; 16]> = SmallVec::new();
            let mut named = 0;
            if data_length > STAGED_DATA_BYTES {
                named = name_pieces(
                    &front.data,
                    data_start,
                    data_length,
                    endpoint.pieces_max - 1,
                    &mut pieces,
                    |buffer| keys.find(buffer, endpoint.domain().registrations()).map(|keys| keys.local),
                );
            }
            let (data_length, copied) = if named > 0 { (named, 0) } else { (data_length, data_length) };
            let Some(memory) = endpoint.stage(MESSAGE_HEAD_BYTES + staged + copied) else {
                sent.blocked = true;
                break;
            };
            let head = MessageHead { kind, credit: credits.send() };
            memory[..MESSAGE_HEAD_BYTES].copy_from_slice(&head.encode());
            let (parts, data_part) = memory[MESSAGE_HEAD_BYTES..].split_at_mut(staged);
            front.copy_staged(parts);
            if copied > 0 {
                front.data.gather(data_start, data_part);
            }
            endpoint.counters.copied_bytes += copied as u64;
            let bytes = staged + data_length;
            front.named |= named > 0;
            front.sent += bytes;
            self.unsent -= bytes;
            sent.bytes += bytes;
            let is_last = front.sent == front.length();
            let is_farewell = matches!(front.name.kind, FrameKind::Goodbye | FrameKind::Refusal);
            // Somebody waits for data memory, and for a farewell to be out.
            let reads_data = front.named || front.write.is_some();
            let signal = is_last && (is_farewell || reads_data);
            let work = endpoint.chain_send(&pieces, signal);
            if !is_last {
                continue;
            }
            if is_farewell {
                self.farewell = Some((work, bytes));
            }
            if let Some(Outgoing { name, data, write, .. }) = self.queue.pop_front() {
                if let Some(write) = &write {
                    sent.bytes += write.posted;
                }
                if !reads_data {
                    sink.frame_sent(name, data);
                } else {
                    let _registrations = write.map(|write| write.registrations).unwrap_or_default();
                    self.awaited.push_back(Awaited { work, name, data, _registrations });
                }
            }
        }
        endpoint.ring(id)?;
        Ok(sent)
    }

    /// Sends a message with nothing but credit, if one is due and nothing else carried it.
    pub(super) fn send_credit(
        &self,
        id: &CmId,
        endpoint: &mut Endpoint,
        credits: &mut Credits,
    ) -> io::Result<()> {
        if !credits.is_due() || !credits.may_send_credit() || endpoint.room() == 0 {
            return Ok(());
        }
        let Some(memory) = endpoint.stage(MESSAGE_HEAD_BYTES) else { return Ok(()) };
        let head = MessageHead { kind: MessageKind::Credit, credit: credits.send() };
        memory.copy_from_slice(&head.encode());
        endpoint.chain_send(&[], false);
        endpoint.ring(id)
    }
}

impl Outgoing {
    /// Copies the next bytes of head, extension and header.
    fn copy_staged(&self, target: &mut [u8]) {
        let mut done = 0;
        let mut skip = self.sent;
        for part in [&self.head[..], &self.extension, &self.header] {
            let from = skip.min(part.len());
            skip -= from;
            let length = (part.len() - from).min(target.len() - done);
            target[done..done + length].copy_from_slice(&part[from..from + length]);
            done += length;
        }
    }

    /// Posts the WRITEs of the data; false where they have to wait for room.
    fn post_writes(&mut self, endpoint: &mut Endpoint, keys: &mut KeyCache) -> io::Result<bool> {
        let Some(write) = &mut self.write else { return Ok(true) };
        while write.posted < self.data.len() {
            if endpoint.room() == 0 {
                return Ok(false);
            }
            let Some((remote, length)) = remote_at(&write.to, write.posted) else {
                return Err(io::Error::from_raw_os_error(libc::EPROTO));
            };
            let length = length.min(endpoint.transfer_max);
            let once = &write.registrations;
            let mut pieces = SmallVec::new();
            let domain = endpoint.domain();
            let named =
                name_pieces(&self.data, write.posted, length, endpoint.pieces_max, &mut pieces, |buffer| {
                    let known = keys.find(buffer, domain.registrations()).map(|keys| keys.local);
                    known
                        .or_else(|| once.iter().find(|once| once.covers(buffer)).map(|once| once.local_key()))
                });
            if named == 0 {
                return Err(io::Error::from_raw_os_error(libc::EFAULT));
            }
            endpoint.chain_write(&pieces, remote);
            write.posted += named;
        }
        Ok(true)
    }
}

/// Sees to it that the device knows all pieces of a list; `None` where that can't be, or is not worth it: then the data
/// goes in messages.
fn register(
    data: &Sgl,
    endpoint: &Endpoint,
    keys: &mut KeyCache,
    options: &RdmaOptions,
) -> Option<Registrations> {
    let mut once = Registrations::new();
    for piece in data.pieces() {
        if piece.is_empty() || keys.find(piece, endpoint.domain().registrations()).is_some() {
            continue;
        }
        if piece.len() < options.register_min as usize {
            return None;
        }
        // SAFETY: the frame holds its data until the device is done with it, and the registrations go at the same time.
        once.push(unsafe { endpoint.domain().registrations().once(piece) }?);
    }
    Some(once)
}

/// Names `length` bytes of a list from `start` to the device, in at most `pieces_max` pieces; returns how many bytes
/// they cover: 0 where the first piece is not known to the device, fewer where one after it is not.
pub(super) fn name_pieces(
    list: &Sgl,
    start: usize,
    length: usize,
    pieces_max: usize,
    pieces: &mut SmallVec<[LocalPiece; 16]>,
    mut key_of: impl FnMut(&Buffer) -> Option<u32>,
) -> usize {
    let mut skip = start;
    let mut left = length;
    let mut covered = 0;
    for buffer in list.pieces() {
        if left == 0 || pieces.len() == pieces_max {
            break;
        }
        if skip >= buffer.len() {
            skip -= buffer.len();
            continue;
        }
        let Some(key) = key_of(buffer) else { break };
        let part = (buffer.len() - skip).min(left);
        pieces.push(LocalPiece { address: buffer.as_ptr().wrapping_add(skip), length: part, key });
        covered += part;
        left -= part;
        skip = 0;
    }
    covered
}
