//! What a peer can do wrong, a variant per rule of docs/PROTOCOL.md.

use super::FrameKind;

/// A broken rule of the protocol. The connection is closed, and both sides log this sentence.
///
/// 1 to 31 are rules of the frame, 32 to 63 of the bodies of a handshake, from 64 of the dialogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    // ---- the frame ----
    /// A frame kind that this version does not know.
    #[error("frame kind {0} is not known")]
    UnknownKind(u8),
    /// A frame that has no place in the present state.
    #[error("frame kind {0} is not expected now")]
    UnexpectedKind(u8),
    /// Flag bits that this version does not know.
    #[error("flags {flags:#04x} have bits that are not known")]
    UnknownFlags {
        /// All flags of the frame.
        flags: u8,
    },
    /// Flag bits that this kind of frame does not carry.
    #[error("flags {flags:#04x} are not allowed in a {kind:?} frame")]
    FlagsNotAllowed {
        /// The frame's kind.
        kind: FrameKind,
        /// The bits that are too many.
        flags: u8,
    },
    /// A field that this kind of frame does not use.
    #[error("{field} of a {kind:?} frame is {value}, expected 0")]
    FieldNotZero {
        /// The frame's kind.
        kind: FrameKind,
        /// The field.
        field: &'static str,
        /// Its value.
        value: u64,
    },
    /// A field that is kept for later versions.
    #[error("the reserved field {field} is {value}, expected 0")]
    ReservedNotZero {
        /// The field.
        field: &'static str,
        /// Its value.
        value: u32,
    },
    /// A slot above what was granted.
    #[error("slot {slot} is used, only slots below {slots} were granted")]
    SlotOutOfRange {
        /// The slot.
        slot: u16,
        /// How many there are.
        slots: u16,
    },
    /// Sequence number 0, which is never used.
    #[error("sequence number 0 (slot {slot}), they count from 1")]
    ZeroSequence {
        /// The slot.
        slot: u16,
    },
    /// A message header above what was granted.
    #[error("a header of {length} bytes, at most {limit} were granted")]
    HeaderTooLong {
        /// Length in bytes.
        length: u32,
        /// The limit in bytes.
        limit: u32,
    },
    /// Data above what was granted.
    #[error("data of {length} bytes, at most {limit} were granted")]
    DataTooLong {
        /// Length in bytes.
        length: u32,
        /// The limit in bytes.
        limit: u32,
    },
    /// Padding above [`super::PADDING_BYTES_MAX`].
    #[error("padding of {padding} bytes, at most 4095 are allowed")]
    PaddingTooLong {
        /// Length in bytes.
        padding: u16,
    },
    /// Padding with nothing behind it.
    #[error("padding of {padding} bytes before no data, expected 0")]
    PaddingWithoutData {
        /// Length in bytes.
        padding: u16,
    },
    /// A checksum where none is in force, or one of no data.
    #[error("{field} is {value:#010x} where no checksum is in force, expected 0")]
    UnexpectedChecksum {
        /// The field.
        field: &'static str,
        /// Its value.
        value: u32,
    },
    /// The checksum of head and header differs.
    #[error("the checksum of the frame head and header is wrong: the bytes were changed on the way")]
    HeaderChecksum,
    /// The checksum of the data differs.
    #[error("the checksum of the data is wrong: the bytes were changed on the way")]
    DataChecksum,
    /// An extension above what the features in force need.
    #[error("an extension of {length} bytes, at most {limit} are allowed")]
    ExtensionTooLong {
        /// Length in bytes.
        length: u16,
        /// The limit in bytes.
        limit: u16,
    },
    /// A placement that can't be right.
    #[error("the placement of data is wrong: {0}")]
    BadPlacement(&'static str),
    /// Positions in a shared ring that can't be right.
    #[error("the positions in the shared ring are wrong: {filled} of {capacity} bytes are said to be filled")]
    RingPosition {
        /// Bytes between the two positions.
        filled: u64,
        /// What the ring holds.
        capacity: u64,
    },
    /// Memory that was shared is not there any more.
    #[error("memory that was shared has vanished: a hole without a page to fill it")]
    MemoryVanished,
    /// A message beside the shared ring that can't be right.
    #[error("a message on the shared ring's socket is wrong: {0}")]
    BadSideMessage(&'static str),
    /// The link ended inside a frame.
    #[error("the link ended inside a frame, expected the rest of it")]
    Truncated,
    /// A result that this version does not know.
    #[error("the result {value} is not known in a {kind:?} frame")]
    UnknownValue {
        /// The frame's kind.
        kind: FrameKind,
        /// The value of `room`.
        value: u32,
    },
    /// A remote read or write whose header is no address.
    #[error("the address of a remote read or write has {length} bytes, expected 32")]
    RemoteAddressLength {
        /// Length in bytes.
        length: u32,
    },
    /// An announcement of no data.
    #[error("data is announced, but there is none")]
    AnnouncedNothing,
    /// More data in a message than comes without an announcement.
    #[error("data of {length} bytes came unannounced, at most {limit} may")]
    NotAnnounced {
        /// Length in bytes.
        length: u32,
        /// The limit in bytes.
        limit: u32,
    },
    /// An RDMA message is not as described in PROTOCOL.md.
    #[error("a broken RDMA message: {0}")]
    BadRdmaMessage(&'static str),
    /// More RDMA messages than there are credits for.
    #[error("more RDMA messages than credits were given for")]
    RdmaCreditExceeded,

    // ---- the bodies of a handshake ----
    /// The first bytes of a hello are others.
    #[error("this is no hello of libxio: its first eight bytes are wrong")]
    BadMagic,
    /// The ranges of versions have nothing in common.
    #[error("there is no version of the protocol that both sides speak")]
    NoCommonVersion,
    /// A range of versions that is none.
    #[error("versions {min} to {max} are no range, expected 1 <= min <= max")]
    BadVersionRange {
        /// Its lower end.
        min: u16,
        /// Its upper end.
        max: u16,
    },
    /// A body that ends before its parts do.
    #[error("a body of {length} bytes, expected at least {expected}")]
    BodyTooShort {
        /// Bytes that there are.
        length: u32,
        /// Bytes that the body's own lengths ask for.
        expected: u32,
    },
    /// A fixed part shorter than that of the oldest version.
    #[error("the fixed part of a body has {length} bytes, expected at least {expected}")]
    FixedPartTooShort {
        /// The length that the body gives.
        length: u16,
        /// That of version 1.
        expected: u16,
    },
    /// A resource, private data or text above its limit.
    #[error("{field} has {length} bytes, at most {limit} are allowed")]
    PartTooLong {
        /// The part.
        field: &'static str,
        /// Its length in bytes.
        length: u32,
        /// Its limit in bytes.
        limit: u32,
    },
    /// A resource that does not begin with a slash, or has a NUL.
    #[error("the resource is not well formed, expected a leading slash and no NUL")]
    BadResource,
    /// Text with control characters, which could forge lines of a log.
    #[error("the text of a goodbye has control characters, expected one line of plain text")]
    BadText,
    /// Text that is not UTF-8.
    #[error("{field} is not UTF-8")]
    NotUtf8 {
        /// The part.
        field: &'static str,
    },
    /// A number that is none of the loop kinds.
    #[error("loop kind {0} is not known, expected 0 (own) or 1 (caller)")]
    UnknownLoopKind(u8),
    /// A field above what makes sense.
    #[error("{field} is {value}, at most {limit} is allowed")]
    FieldTooLarge {
        /// The field.
        field: &'static str,
        /// Its value.
        value: u64,
        /// Its limit.
        limit: u64,
    },
    /// A window that the greatest message never fits.
    #[error("a window of {window} bytes never fits a message of {data_bytes_max} bytes of data")]
    WindowTooSmall {
        /// The window in bytes.
        window: u64,
        /// The greatest data of a message in bytes.
        data_bytes_max: u32,
    },
    /// A welcome with a version outside the range that the hello offered.
    #[error("the welcome says version {version}, which was not offered")]
    VersionNotOffered {
        /// The version.
        version: u16,
    },
    /// A welcome with features that the hello did not offer.
    #[error("the welcome puts features {features:#x} in force, which were not offered")]
    FeaturesNotOffered {
        /// The bits that are too many.
        features: u64,
    },
    /// A refusal that sends the client nowhere, or somewhere without being a redirect.
    #[error("a refusal's redirect is no uri, or has no place in it")]
    BadRedirect,

    // ---- the dialogue ----
    /// A request's data is above the byte grant.
    #[error("{received} bytes of request data in all, only {granted} were granted")]
    GrantExceeded {
        /// Bytes in all, with this request.
        received: u64,
        /// Bytes granted in all.
        granted: u64,
    },
    /// A byte grant beyond reason.
    #[error("a grant of {granted} bytes in all, expected at most {limit}")]
    GrantTooLarge {
        /// The cumulative grant.
        granted: u64,
        /// The greatest that makes sense now.
        limit: u64,
    },
    /// A request's sequence number is neither the slot's last nor the next.
    #[error("slot {slot} is used with sequence number {sequence} after {last}, expected that or the next")]
    SequenceOutOfOrder {
        /// The slot.
        slot: u16,
        /// The request's number.
        sequence: u32,
        /// The slot's last number.
        last: u32,
    },
    /// A new request in a slot whose last one has no answer yet.
    #[error("a new request (sequence number {sequence}) in slot {slot}, whose last one is not answered yet")]
    SlotBusy {
        /// The slot.
        slot: u16,
        /// The new request's number.
        sequence: u32,
    },
    /// A request sent again that says something else about being idempotent.
    #[error("request {sequence} in slot {slot} was sent again with another idempotent flag")]
    ResendDiffers {
        /// The slot.
        slot: u16,
        /// The request's number.
        sequence: u32,
    },
    /// A response to a request that was never made.
    #[error("a response to request {sequence} in slot {slot}, which was never made")]
    ResponseWithoutRequest {
        /// The slot.
        slot: u16,
        /// The response's number.
        sequence: u32,
    },
    /// A response to a request that is still being sent.
    #[error("a response in slot {slot} before its request was sent")]
    ResponseBeforeSent {
        /// The slot.
        slot: u16,
    },
    /// More data in a response than the request gave room for.
    #[error("a response with {length} bytes of data, the request gave room for {room}")]
    ResponseTooLong {
        /// Length in bytes.
        length: u32,
        /// The room in bytes.
        room: u32,
    },
    /// A one-way message's sequence number is not the next.
    #[error("one-way message {sequence}, expected {expected}")]
    OneWayOutOfOrder {
        /// The message's number.
        sequence: u32,
        /// The number that is due.
        expected: u32,
    },
    /// More one-way messages unacknowledged than were granted.
    #[error("one-way message {sequence}: {limit} are unacknowledged already, more were not granted")]
    OneWayExceeded {
        /// The message's number.
        sequence: u32,
        /// The limit.
        limit: u32,
    },
    /// An acknowledgement of one-way messages that were not sent.
    #[error("one-way message {sequence} is acknowledged, which was not sent")]
    AcknowledgedTooMuch {
        /// The number acknowledged.
        sequence: u32,
    },
    /// A receipt that nobody waits for.
    #[error("a receipt for message {sequence} (slot {slot}), for which none is due")]
    ReceiptNotExpected {
        /// The slot of a request, 0 for a one-way message.
        slot: u16,
        /// The message's number.
        sequence: u32,
    },
    /// A one-way message was acknowledged without the receipt that its sender wants.
    #[error("one-way message {sequence} is acknowledged without the receipt that was asked for")]
    ReceiptMissing {
        /// The message's number.
        sequence: u32,
    },
    /// The result of a cancel that was not sent.
    #[error("the result of a cancel of request {sequence} in slot {slot}, which was not cancelled")]
    CancelResultNotExpected {
        /// The slot.
        slot: u16,
        /// The request's number.
        sequence: u32,
    },
    /// A Ready for data that was not announced, or a second one.
    #[error("ready for the data of message {sequence} (slot {slot}), which does not wait to be sent")]
    ReadyNotExpected {
        /// The slot of a request, 0 for a one-way message.
        slot: u16,
        /// The message's number.
        sequence: u32,
    },
    /// The data of a message that this side is not ready for.
    #[error("the data of message {sequence} (slot {slot}), which was not asked for")]
    DataNotExpected {
        /// The slot of a request, 0 for a one-way message.
        slot: u16,
        /// The message's number.
        sequence: u32,
    },
    /// Data of another length than was announced.
    #[error("{length} bytes of data, {announced} were announced")]
    DataLengthDiffers {
        /// Length in bytes.
        length: u32,
        /// Bytes that were announced.
        announced: u32,
    },
    /// Many probes and cancels from a peer that does not read the answers.
    #[error("{limit} answers to probes and cancels are waiting to be read, more are not kept")]
    AnswersNotRead {
        /// How many are kept.
        limit: u32,
    },
}

impl Violation {
    /// The rule's number, which travels in a [`super::Goodbye`]. Numbers are never given twice; 0 is an orderly close.
    #[must_use]
    pub fn code(&self) -> u32 {
        match self {
            Violation::UnknownKind(_) => 1,
            Violation::UnexpectedKind(_) => 2,
            Violation::UnknownFlags { .. } => 3,
            Violation::FlagsNotAllowed { .. } => 4,
            Violation::FieldNotZero { .. } => 5,
            Violation::ReservedNotZero { .. } => 6,
            Violation::SlotOutOfRange { .. } => 7,
            Violation::ZeroSequence { .. } => 8,
            Violation::HeaderTooLong { .. } => 9,
            Violation::DataTooLong { .. } => 10,
            Violation::PaddingTooLong { .. } => 11,
            Violation::PaddingWithoutData { .. } => 12,
            Violation::UnexpectedChecksum { .. } => 13,
            Violation::HeaderChecksum => 14,
            Violation::DataChecksum => 15,
            Violation::Truncated => 16,
            Violation::UnknownValue { .. } => 17,
            Violation::RemoteAddressLength { .. } => 18,
            Violation::AnnouncedNothing => 19,
            Violation::NotAnnounced { .. } => 20,
            Violation::ExtensionTooLong { .. } => 24,
            Violation::BadPlacement(_) => 25,
            Violation::RingPosition { .. } => 26,
            Violation::MemoryVanished => 27,
            Violation::BadSideMessage(_) => 28,
            Violation::BadRdmaMessage(_) => 30,
            Violation::RdmaCreditExceeded => 31,

            Violation::BadMagic => 32,
            Violation::NoCommonVersion => 33,
            Violation::BadVersionRange { .. } => 34,
            Violation::BodyTooShort { .. } => 35,
            Violation::FixedPartTooShort { .. } => 36,
            Violation::PartTooLong { .. } => 37,
            Violation::BadResource => 38,
            Violation::BadText => 39,
            Violation::NotUtf8 { .. } => 40,
            Violation::UnknownLoopKind(_) => 41,
            Violation::FieldTooLarge { .. } => 42,
            Violation::WindowTooSmall { .. } => 43,
            Violation::VersionNotOffered { .. } => 44,
            Violation::FeaturesNotOffered { .. } => 45,
            Violation::BadRedirect => 46,

            Violation::GrantExceeded { .. } => 64,
            Violation::GrantTooLarge { .. } => 65,
            Violation::SequenceOutOfOrder { .. } => 66,
            Violation::SlotBusy { .. } => 67,
            Violation::ResendDiffers { .. } => 68,
            Violation::ResponseWithoutRequest { .. } => 69,
            Violation::ResponseBeforeSent { .. } => 70,
            Violation::ResponseTooLong { .. } => 71,
            Violation::OneWayOutOfOrder { .. } => 72,
            Violation::OneWayExceeded { .. } => 73,
            Violation::AcknowledgedTooMuch { .. } => 74,
            Violation::ReceiptNotExpected { .. } => 75,
            Violation::ReceiptMissing { .. } => 76,
            Violation::CancelResultNotExpected { .. } => 77,
            Violation::ReadyNotExpected { .. } => 78,
            Violation::DataNotExpected { .. } => 79,
            Violation::DataLengthDiffers { .. } => 80,
            Violation::AnswersNotRead { .. } => 81,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const PROTOCOL: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/PROTOCOL.md"));

    /// One of each, in the order of their numbers.
    const EACH: [Violation; 60] = [
        Violation::UnknownKind(200),
        Violation::UnexpectedKind(3),
        Violation::UnknownFlags { flags: 128 },
        Violation::FlagsNotAllowed { kind: FrameKind::Ping, flags: 1 },
        Violation::FieldNotZero { kind: FrameKind::Ping, field: "slot", value: 1 },
        Violation::ReservedNotZero { field: "reserved", value: 1 },
        Violation::SlotOutOfRange { slot: 2, slots: 1 },
        Violation::ZeroSequence { slot: 2 },
        Violation::HeaderTooLong { length: 2, limit: 1 },
        Violation::DataTooLong { length: 2, limit: 1 },
        Violation::PaddingTooLong { padding: 4096 },
        Violation::PaddingWithoutData { padding: 1 },
        Violation::UnexpectedChecksum { field: "head_crc", value: 1 },
        Violation::HeaderChecksum,
        Violation::DataChecksum,
        Violation::Truncated,
        Violation::UnknownValue { kind: FrameKind::Receipt, value: 9 },
        Violation::RemoteAddressLength { length: 3 },
        Violation::AnnouncedNothing,
        Violation::NotAnnounced { length: 2, limit: 1 },
        Violation::ExtensionTooLong { length: 2, limit: 1 },
        Violation::BadPlacement("a region that is not known"),
        Violation::RingPosition { filled: 2, capacity: 1 },
        Violation::MemoryVanished,
        Violation::BadSideMessage("no memory came with it"),
        Violation::BadRdmaMessage("it is too short"),
        Violation::RdmaCreditExceeded,
        Violation::BadMagic,
        Violation::NoCommonVersion,
        Violation::BadVersionRange { min: 2, max: 1 },
        Violation::BodyTooShort { length: 1, expected: 2 },
        Violation::FixedPartTooShort { length: 1, expected: 2 },
        Violation::PartTooLong { field: "the resource", length: 2, limit: 1 },
        Violation::BadResource,
        Violation::BadText,
        Violation::NotUtf8 { field: "the resource" },
        Violation::UnknownLoopKind(2),
        Violation::FieldTooLarge { field: "window_bytes", value: 2, limit: 1 },
        Violation::WindowTooSmall { window: 1, data_bytes_max: 2 },
        Violation::VersionNotOffered { version: 2 },
        Violation::FeaturesNotOffered { features: 2 },
        Violation::BadRedirect,
        Violation::GrantExceeded { received: 2, granted: 1 },
        Violation::GrantTooLarge { granted: 2, limit: 1 },
        Violation::SequenceOutOfOrder { slot: 1, sequence: 3, last: 1 },
        Violation::SlotBusy { slot: 1, sequence: 2 },
        Violation::ResendDiffers { slot: 1, sequence: 2 },
        Violation::ResponseWithoutRequest { slot: 1, sequence: 2 },
        Violation::ResponseBeforeSent { slot: 1 },
        Violation::ResponseTooLong { length: 2, room: 1 },
        Violation::OneWayOutOfOrder { sequence: 2, expected: 1 },
        Violation::OneWayExceeded { sequence: 2, limit: 1 },
        Violation::AcknowledgedTooMuch { sequence: 2 },
        Violation::ReceiptNotExpected { slot: 0, sequence: 2 },
        Violation::ReceiptMissing { sequence: 2 },
        Violation::CancelResultNotExpected { slot: 1, sequence: 2 },
        Violation::ReadyNotExpected { slot: 1, sequence: 2 },
        Violation::DataNotExpected { slot: 1, sequence: 2 },
        Violation::DataLengthDiffers { length: 1, announced: 2 },
        Violation::AnswersNotRead { limit: 64 },
    ];

    fn name(violation: &Violation) -> String {
        format!("{violation:?}").chars().take_while(|character| character.is_alphanumeric()).collect()
    }

    #[test]
    fn numbers_are_never_given_twice_and_sentences_fit_a_goodbye() {
        let numbers: Vec<u32> = EACH.iter().map(Violation::code).collect();
        assert!(numbers.is_sorted_by(|one, other| one < other), "{numbers:?}");
        assert!(numbers[0] > 0);
        for violation in EACH {
            let sentence = violation.to_string();
            assert!(sentence.len() <= super::super::GOODBYE_TEXT_BYTES_MAX);
            assert!(sentence.contains(' ') && !sentence.contains('{'), "{sentence}");
        }
    }

    #[test]
    fn the_table_in_the_protocol_is_this_list() {
        let table = PROTOCOL.split("\n## ").find(|part| part.starts_with("Violations\n")).unwrap();
        let rows: Vec<String> = table
            .lines()
            .filter(|line| line.contains("| `"))
            .map(|line| line.split('|').take(3).map(str::trim).collect::<Vec<_>>().join(" "))
            .collect();
        let expected: Vec<String> =
            EACH.iter().map(|violation| format!(" {} `{}`", violation.code(), name(violation))).collect();
        assert_eq!(rows, expected);
    }

    #[test]
    fn the_protocol_gives_a_rule_its_own_number_and_mentions_each() {
        let numbers: BTreeMap<String, u32> = EACH.iter().map(|one| (name(one), one.code())).collect();
        let mut mentioned = BTreeMap::new();
        // "`Name` (number)": with the text split at back-quotes, a name is followed by " (number)".
        let parts: Vec<&str> = PROTOCOL.split('`').collect();
        for pair in parts.windows(2) {
            let number = pair[1].strip_prefix(" (").and_then(|rest| rest.split(')').next()?.parse().ok());
            if let Some(number) = number {
                assert_eq!(numbers.get(pair[0]), Some(&number), "`{}` ({number})", pair[0]);
                mentioned.insert(pair[0].to_owned(), number);
            }
        }
        assert_eq!(mentioned, numbers);
    }
}
