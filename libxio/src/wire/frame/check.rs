//! The rules that a received head keeps, but for its checksum.

use super::{
    CANCEL_DONE, CANCEL_NOT_FOUND, FrameFlags, FrameHead, FrameKind, FrameLimits, HeadBytes,
    PADDING_BYTES_MAX, READY_NOT_WANTED, RECEIPT_ACCEPTED, RECEIPT_REJECTED,
};
use crate::wire::{HELLO_BODY_BYTES_MAX, REMOTE_ADDRESS_BYTES, Violation};

impl FrameHead {
    /// Whether it is a request or a response without anything special about it, and keeps all rules, as nearly all frames
    /// do: found out by few comparisons. Of others [`FrameHead::check`] says whether they are right.
    #[inline]
    pub(super) fn is_plain(&self, raw: &HeadBytes, limits: &FrameLimits) -> bool {
        let (slots, flags, room) = match self.kind {
            FrameKind::Request => (limits.slots, FrameFlags::MORE.with(FrameFlags::IDEMPOTENT), 0),
            FrameKind::Response => (limits.own_slots, FrameFlags::MORE, self.room),
            _ => return false,
        };
        let has_to_be_zero = u32::from(self.flags.without(flags).0)
            | u32::from(self.data_padding)
            | room
            | self.data_crc
            | raw.head_crc.get()
            | raw.reserved.get();
        has_to_be_zero == 0
            && self.sequence != 0
            && self.slot < slots
            && self.header_length <= limits.header_bytes_max
            && self.data_length <= limits.data_bytes_max.min(limits.immediate_bytes_max)
            && self.extension_length <= limits.extension_bytes_max
            && !limits.crc
    }

    /// The rules for a head whose kind is known.
    pub(super) fn check(&self, raw: &HeadBytes, limits: &FrameLimits) -> Result<(), Violation> {
        if raw.reserved.get() != 0 {
            return Err(Violation::ReservedNotZero { field: "reserved", value: raw.reserved.get() });
        }
        self.check_extension(limits)?;
        self.check_flags()?;
        self.check_fields_of_kind(limits)?;
        self.check_lengths(limits)?;
        self.check_checksums(raw.head_crc.get(), limits)
    }

    /// Requests, one-sided operations and responses have one, where a feature that uses it is in force.
    fn check_extension(&self, limits: &FrameLimits) -> Result<(), Violation> {
        let (length, limit) = (self.extension_length, limits.extension_bytes_max);
        if length == 0 {
            return Ok(());
        }
        if limit == 0 {
            return Err(Violation::ReservedNotZero { field: "extension_length", value: length.into() });
        }
        let failed = self.flags.contains(FrameFlags::FAILED);
        let has_one = matches!(
            self.kind,
            FrameKind::Request | FrameKind::RemoteRead | FrameKind::RemoteWrite | FrameKind::Response
        );
        if !has_one || failed {
            let (kind, field) = (self.kind, "extension_length");
            return Err(Violation::FieldNotZero { kind, field, value: length.into() });
        }
        if length > limit { Err(Violation::ExtensionTooLong { length, limit }) } else { Ok(()) }
    }

    fn check_flags(&self) -> Result<(), Violation> {
        if self.flags.without(FrameFlags::KNOWN) != FrameFlags::default() {
            return Err(Violation::UnknownFlags { flags: self.flags.0 });
        }
        let too_many = self.flags.without(self.kind.flags_allowed());
        if too_many != FrameFlags::default() {
            return Err(Violation::FlagsNotAllowed { kind: self.kind, flags: too_many.0 });
        }
        Ok(())
    }

    /// Slot and sequence where the kind has them, zero in every field that it does not use.
    fn check_fields_of_kind(&self, limits: &FrameLimits) -> Result<(), Violation> {
        let kind = self.kind;
        let zero = |field, value: u64| {
            if value == 0 { Ok(()) } else { Err(Violation::FieldNotZero { kind, field, value }) }
        };
        let without_parts = || {
            zero("header_length", self.header_length.into())?;
            zero("data_length", self.data_length.into())
        };
        match kind {
            FrameKind::Request => {
                self.check_slot(limits.slots)?;
                self.check_announced()
            }
            FrameKind::OneWay => {
                zero("slot", self.slot.into())?;
                self.check_sequence()?;
                zero("room", self.room.into())?;
                self.check_announced()
            }
            FrameKind::Receipt => {
                self.check_number(limits.own_slots)?;
                without_parts()?;
                self.check_value(RECEIPT_ACCEPTED, RECEIPT_REJECTED)
            }
            FrameKind::Cancel => {
                self.check_slot(limits.slots)?;
                without_parts()?;
                zero("room", self.room.into())
            }
            FrameKind::CancelResult => {
                self.check_slot(limits.own_slots)?;
                without_parts()?;
                self.check_value(CANCEL_DONE, CANCEL_NOT_FOUND)
            }
            FrameKind::Ready => {
                self.check_number(limits.own_slots)?;
                without_parts()?;
                let one_way = self.flags.contains(FrameFlags::ONE_WAY);
                self.check_value(0, if one_way { READY_NOT_WANTED } else { 0 })
            }
            FrameKind::Data => {
                self.check_number(limits.slots)?;
                zero("header_length", self.header_length.into())?;
                zero("room", self.room.into())
            }
            FrameKind::RemoteRead | FrameKind::RemoteWrite => {
                self.check_slot(limits.slots)?;
                if self.header_length < REMOTE_ADDRESS_BYTES as u32 {
                    return Err(Violation::RemoteAddressLength { length: self.header_length });
                }
                if kind == FrameKind::RemoteRead {
                    zero("data_length", self.data_length.into())
                } else {
                    zero("room", self.room.into())
                }
            }
            FrameKind::Response => {
                self.check_slot(limits.own_slots)?;
                if self.flags.contains(FrameFlags::FAILED) {
                    zero("header_length (failed)", self.header_length.into())?;
                    zero("data_length (failed)", self.data_length.into())
                } else {
                    zero("room", self.room.into())
                }
            }
            _ => {
                zero("slot", self.slot.into())?;
                zero("sequence", self.sequence.into())?;
                zero("data_length", self.data_length.into())?;
                zero("room", self.room.into())?;
                if matches!(kind, FrameKind::Ping | FrameKind::Pong | FrameKind::Credit) {
                    zero("header_length", self.header_length.into())?;
                }
                if kind.is_handshake() {
                    zero("bytes_granted", self.bytes_granted)?;
                    zero("acknowledged", self.acknowledged.into())?;
                }
                Ok(())
            }
        }
    }

    /// The number of a request, or, with its flag, of a one-way message.
    fn check_number(&self, slots: u16) -> Result<(), Violation> {
        if !self.flags.contains(FrameFlags::ONE_WAY) {
            return self.check_slot(slots);
        }
        if self.slot != 0 {
            let value = self.slot.into();
            return Err(Violation::FieldNotZero { kind: self.kind, field: "slot", value });
        }
        self.check_sequence()
    }

    fn check_announced(&self) -> Result<(), Violation> {
        if self.flags.contains(FrameFlags::ANNOUNCED) && self.data_length == 0 {
            return Err(Violation::AnnouncedNothing);
        }
        Ok(())
    }

    fn check_value(&self, first: u32, last: u32) -> Result<(), Violation> {
        if (first..=last).contains(&self.room) {
            return Ok(());
        }
        Err(Violation::UnknownValue { kind: self.kind, value: self.room })
    }

    fn check_slot(&self, slots: u16) -> Result<(), Violation> {
        if self.slot >= slots {
            return Err(Violation::SlotOutOfRange { slot: self.slot, slots });
        }
        self.check_sequence()
    }

    fn check_sequence(&self) -> Result<(), Violation> {
        if self.sequence == 0 {
            return Err(Violation::ZeroSequence { slot: self.slot });
        }
        Ok(())
    }

    fn check_lengths(&self, limits: &FrameLimits) -> Result<(), Violation> {
        let header_limit = match self.kind {
            FrameKind::Request | FrameKind::Response | FrameKind::OneWay => limits.header_bytes_max,
            FrameKind::RemoteRead | FrameKind::RemoteWrite => REMOTE_ADDRESS_BYTES as u32,
            _ => HELLO_BODY_BYTES_MAX as u32,
        };
        if self.header_length > header_limit {
            return Err(Violation::HeaderTooLong { length: self.header_length, limit: header_limit });
        }
        if self.data_length > limits.data_bytes_max {
            return Err(Violation::DataTooLong { length: self.data_length, limit: limits.data_bytes_max });
        }
        if matches!(self.kind, FrameKind::Request | FrameKind::OneWay)
            && self.data_in_frame() > limits.immediate_bytes_max
            // Who decodes the extension looks whether the data is in place.
            && self.extension_length == 0
        {
            let limit = limits.immediate_bytes_max;
            return Err(Violation::NotAnnounced { length: self.data_length, limit });
        }
        if self.data_padding > PADDING_BYTES_MAX {
            return Err(Violation::PaddingTooLong { padding: self.data_padding });
        }
        if self.data_padding > 0 && self.data_in_frame() == 0 {
            return Err(Violation::PaddingWithoutData { padding: self.data_padding });
        }
        Ok(())
    }

    /// Checksums are zero where none is in force; the checksum of no data is zero anyway.
    fn check_checksums(&self, head_crc: u32, limits: &FrameLimits) -> Result<(), Violation> {
        let in_force = limits.crc || self.kind.is_handshake();
        if !in_force && head_crc != 0 {
            return Err(Violation::UnexpectedChecksum { field: "head_crc", value: head_crc });
        }
        if (!in_force || self.data_in_frame() == 0) && self.data_crc != 0 {
            return Err(Violation::UnexpectedChecksum { field: "data_crc", value: self.data_crc });
        }
        Ok(())
    }
}
