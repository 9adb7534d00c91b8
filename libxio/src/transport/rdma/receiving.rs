//! The receiving half of a link: messages become frames, data lands where the sink says: copied from messages, put there
//! by the peer, or fetched from the peer's memory.

use super::fetching::Fetching;
use super::lending::{Landings, Lending, Pieces, length_of};
use super::message::MessageKind;
use crate::transport::{LinkError, Place, Sink};
use crate::wire::{Extension, FRAME_HEAD_BYTES, FrameFlags, FrameHead, FrameKind, FrameLimits, Violation};
use crate::{HeaderBytes, Sgl};

/// Where the frame that is being received stands.
#[derive(Debug, Default)]
enum State {
    /// The next message begins a frame.
    #[default]
    Between,
    /// Head and header have come in part.
    Head(Vec<u8>),
    /// The head is known, its data has no place yet; the first of it has come.
    Stalled { head: FrameHead, header: HeaderBytes, data: Vec<u8>, from: Pieces },
    /// Data is landing; `into` is `None` where it is discarded.
    Data { head: FrameHead, header: HeaderBytes, into: Option<Sgl>, done: usize },
}

/// What has been received of a frame.
#[derive(Debug)]
pub(super) struct Receiving {
    state: State,
    pub limits: FrameLimits,
    pub discarding: bool,
    /// Frames delivered.
    pub frames: usize,
    /// Bytes copied from messages to where data lands.
    pub copied_bytes: u64,
    /// Frames that wait for their data, and those behind them.
    pub fetching: Fetching,
    /// What this side has lent to the peer.
    pub lending: Lending,
    /// What the peer has lent for responses.
    pub landings: Landings,
}

impl Receiving {
    pub(super) fn new() -> Receiving {
        Receiving {
            state: State::Between,
            limits: FrameLimits::handshake(),
            discarding: false,
            frames: 0,
            copied_bytes: 0,
            fetching: Fetching::default(),
            lending: Lending::default(),
            landings: Landings::default(),
        }
    }

    pub(super) fn is_stalled(&self) -> bool {
        matches!(self.state, State::Stalled { .. })
    }

    /// Whether nothing waits for memory or for data.
    pub(super) fn is_idle(&self) -> bool {
        !self.is_stalled() && self.fetching.is_empty()
    }

    /// Takes a message (without its head). Not to be called while stalled.
    pub(super) fn message(
        &mut self,
        kind: MessageKind,
        bytes: &[u8],
        sink: &mut dyn Sink,
    ) -> Result<(), LinkError> {
        match (kind, &mut self.state) {
            (MessageKind::Credit, _) => Ok(()),
            (MessageKind::Frame, State::Between) => self.head(bytes, sink),
            (MessageKind::More, State::Head(collected)) => {
                collected.extend_from_slice(bytes);
                let collected = std::mem::take(collected);
                self.head(&collected, sink)
            }
            (MessageKind::More, State::Data { .. }) => self.land(bytes, sink),
            _ => Err(Violation::BadRdmaMessage("it does not fit the one before").into()),
        }
    }

    /// Asks again for a place for the data of the frame that stalled; false: there still is none.
    pub(super) fn retry(&mut self, sink: &mut dyn Sink) -> Result<bool, LinkError> {
        if !self.is_stalled() {
            return Ok(true);
        }
        match std::mem::take(&mut self.state) {
            State::Stalled { head, header, data, from } if from.is_empty() => {
                self.begin(head, header, &data, false, sink)?;
            }
            State::Stalled { head, header, data: _, from } => self.fetch(head, header, from, false, sink)?,
            other => self.state = other,
        }
        Ok(!self.is_stalled())
    }

    /// `bytes` begin with a frame's head.
    fn head(&mut self, bytes: &[u8], sink: &mut dyn Sink) -> Result<(), LinkError> {
        let Some((head_bytes, rest)) = bytes.split_first_chunk::<FRAME_HEAD_BYTES>() else {
            self.state = State::Head(bytes.to_vec());
            return Ok(());
        };
        let head = FrameHead::decode(head_bytes, &self.limits)?;
        if head.data_padding != 0 {
            return Err(Violation::PaddingTooLong { padding: head.data_padding }.into());
        }
        // Checked by `decode` against limits far below usize.
        let extension_length = usize::from(head.extension_length);
        let header_length = extension_length + head.header_length as usize;
        if rest.len() < header_length {
            self.state = State::Head(bytes.to_vec());
            return Ok(());
        }
        let (header, data) = rest.split_at(header_length);
        if self.limits.crc || super::has_checksum_always(head.kind) {
            FrameHead::verify(head_bytes, header)?;
        }
        let (extension, header) = header.split_at(extension_length);
        let mut in_place = false;
        let mut from = Pieces::new();
        match head.kind {
            FrameKind::Request | FrameKind::RemoteRead => from = self.request(&head, extension)?,
            FrameKind::Response => in_place = self.response(&head, extension)?,
            // Remote writes carry their data: it lands in exposed memory, which may be taken back meanwhile.
            kind if extension_length > 0 => {
                let (field, value) = ("extension_length", extension_length as u64);
                return Err(Violation::FieldNotZero { kind, field, value }.into());
            }
            _ => {}
        }
        self.state = State::Between;
        if in_place || !from.is_empty() || head.data_in_frame() == 0 {
            if !data.is_empty() {
                return Err(Violation::BadRdmaMessage("it is longer than its frame").into());
            }
            return if in_place {
                self.placed(head, header, sink)
            } else if from.is_empty() {
                self.deliver(head, header, Sgl::new(), sink)
            } else {
                self.fetch(head, HeaderBytes::from_slice(header), from, true, sink)
            };
        }
        if data.len() == head.data_length as usize {
            return self.whole(head, header, data, sink);
        }
        self.begin(head, HeaderBytes::from_slice(header), data, true, sink)
    }

    /// A frame that has come with all its data in one message.
    fn whole(
        &mut self,
        head: FrameHead,
        header: &[u8],
        data: &[u8],
        sink: &mut dyn Sink,
    ) -> Result<(), LinkError> {
        let place = if self.discarding { Place::Discard } else { sink.place(&head, header, true)? };
        match place {
            Place::Into(mut list) => {
                debug_assert_eq!(list.len(), data.len());
                list.scatter(0, data);
                self.copied_bytes += data.len() as u64;
                if self.limits.crc && list.crc32c() != head.data_crc {
                    return Err(Violation::DataChecksum.into());
                }
                self.deliver(head, header, list, sink)
            }
            Place::Discard => self.deliver(head, header, Sgl::new(), sink),
            Place::Later => {
                let (header, data) = (HeaderBytes::from_slice(header), data.to_vec());
                self.state = State::Stalled { head, header, data, from: Pieces::new() };
                Ok(())
            }
        }
    }

    /// Notes where a request's response is wanted; returns where its data lies, if it is not in the frame.
    fn request(&mut self, head: &FrameHead, extension: &[u8]) -> Result<Pieces, LinkError> {
        if extension.is_empty() {
            self.landings.put(head.slot, Pieces::new());
            return Ok(Pieces::new());
        }
        let wrong = |why| Err(LinkError::Violation(Violation::BadPlacement(why)));
        let extension = Extension::decode(head.kind, extension)?;
        if head.flags.contains(FrameFlags::ANNOUNCED) {
            return wrong("data that is only announced has no place, nor has its answer");
        }
        let landing: Pieces = extension.landing().collect();
        if !landing.is_empty() && length_of(&landing) != u64::from(head.room) {
            return wrong("the landing is not as long as the room");
        }
        let from: Pieces = extension.data().collect();
        let limit = self.limits.immediate_bytes_max;
        if from.is_empty() && head.data_length > limit {
            return Err(Violation::NotAnnounced { length: head.data_length, limit }.into());
        }
        if !from.is_empty() && (head.data_length == 0 || length_of(&from) != u64::from(head.data_length)) {
            return wrong("the pieces are not as long as the data");
        }
        self.landings.put(head.slot, landing);
        Ok(from)
    }

    /// Takes back what was lent for the request that is answered; true if the data is in its place.
    fn response(&mut self, head: &FrameHead, extension: &[u8]) -> Result<bool, LinkError> {
        let in_place = !extension.is_empty() && Extension::decode(head.kind, extension)?.has_data(head.kind);
        if in_place && head.data_length == 0 {
            return Err(Violation::BadPlacement("data in place has a length").into());
        }
        self.lending.end(head.slot, head.sequence, in_place.then_some(head.data_length))?;
        Ok(in_place)
    }

    /// A response whose data the peer has put where it was wanted.
    fn placed(&mut self, head: FrameHead, header: &[u8], sink: &mut dyn Sink) -> Result<(), LinkError> {
        if self.discarding {
            self.frames += 1;
            return Ok(());
        }
        let data = match sink.place(&head, header, true)? {
            Place::Into(list) => list,
            Place::Discard => Sgl::new(),
            Place::Later => {
                return Err(Violation::BadPlacement("there was no landing for this response").into());
            }
        };
        if self.limits.crc && !data.is_empty() && data.crc32c() != head.data_crc {
            return Err(Violation::DataChecksum.into());
        }
        self.deliver(head, header, data, sink)
    }

    /// A request whose data lies in the peer's memory.
    fn fetch(
        &mut self,
        head: FrameHead,
        header: HeaderBytes,
        from: Pieces,
        first: bool,
        sink: &mut dyn Sink,
    ) -> Result<(), LinkError> {
        let place = if self.discarding { Place::Discard } else { sink.place(&head, &header, first)? };
        match place {
            Place::Into(list) => {
                debug_assert_eq!(list.len(), head.data_length as usize);
                self.fetching.fetch(head, header, list, from);
                Ok(())
            }
            Place::Discard => self.deliver(head, &header, Sgl::new(), sink),
            Place::Later => {
                self.state = State::Stalled { head, header, data: Vec::new(), from };
                Ok(())
            }
        }
    }

    /// Delivers frames whose data has been fetched, and those behind them.
    pub(super) fn deliver_fetched(&mut self, sink: &mut dyn Sink) -> Result<(), LinkError> {
        while let Some(whole) = self.fetching.next_whole() {
            if self.limits.crc && !whole.data.is_empty() && whole.data.crc32c() != whole.head.data_crc {
                return Err(Violation::DataChecksum.into());
            }
            self.deliver_now(&whole.head, &whole.header, whole.data, sink)?;
        }
        Ok(())
    }

    /// Asks where the data of a frame lands, of which the first bytes are here.
    fn begin(
        &mut self,
        head: FrameHead,
        header: HeaderBytes,
        data: &[u8],
        first: bool,
        sink: &mut dyn Sink,
    ) -> Result<(), LinkError> {
        let place = if self.discarding { Place::Discard } else { sink.place(&head, &header, first)? };
        let into = match place {
            Place::Into(list) => {
                debug_assert_eq!(list.len(), head.data_length as usize);
                Some(list)
            }
            Place::Discard => None,
            Place::Later => {
                self.state = State::Stalled { head, header, data: data.to_vec(), from: Pieces::new() };
                return Ok(());
            }
        };
        self.state = State::Data { head, header, into, done: 0 };
        self.land(data, sink)
    }

    /// Data of the frame has come.
    fn land(&mut self, bytes: &[u8], sink: &mut dyn Sink) -> Result<(), LinkError> {
        let State::Data { head, into, done, .. } = &mut self.state else { return Ok(()) };
        if bytes.len() > head.data_length as usize - *done {
            return Err(Violation::BadRdmaMessage("it is longer than its frame").into());
        }
        if let Some(list) = into {
            list.scatter(*done, bytes);
            self.copied_bytes += bytes.len() as u64;
        }
        *done += bytes.len();
        if *done < head.data_length as usize {
            return Ok(());
        }
        let State::Data { head, header, into, .. } = std::mem::take(&mut self.state) else { return Ok(()) };
        if self.limits.crc && into.as_ref().is_some_and(|list| list.crc32c() != head.data_crc) {
            return Err(Violation::DataChecksum.into());
        }
        self.deliver(head, &header, into.unwrap_or_default(), sink)
    }

    /// A whole frame: to the sink, or behind those that wait.
    fn deliver(
        &mut self,
        head: FrameHead,
        header: &[u8],
        data: Sgl,
        sink: &mut dyn Sink,
    ) -> Result<(), LinkError> {
        if self.fetching.is_empty() {
            return self.deliver_now(&head, header, data, sink);
        }
        self.fetching.push(head, HeaderBytes::from_slice(header), data);
        Ok(())
    }

    fn deliver_now(
        &mut self,
        head: &FrameHead,
        header: &[u8],
        data: Sgl,
        sink: &mut dyn Sink,
    ) -> Result<(), LinkError> {
        self.frames += 1;
        if self.discarding {
            return Ok(());
        }
        if let Some(limits) = sink.deliver(head, header, data, Sgl::new())? {
            self.limits = limits;
        }
        Ok(())
    }

    /// The rest of the data that is landing now is discarded.
    pub(super) fn discard_landing(&mut self) {
        if let State::Data { into, .. } = &mut self.state {
            *into = None;
        }
    }

    /// From now on everything is discarded, and no landing memory is touched any more.
    pub(super) fn discard(&mut self) {
        self.discarding = true;
        self.discard_landing();
    }
}
