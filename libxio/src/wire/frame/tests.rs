//! Golden bytes of the head, made by another program, and each of its rules broken once.

use super::*;

const LIMITS: FrameLimits = FrameLimits {
    header_bytes_max: 8448,
    data_bytes_max: 1 << 20,
    immediate_bytes_max: 1 << 20,
    slots: 0x0103,
    own_slots: 4,
    crc: false,
    extension_bytes_max: 0,
};
const CHECKED: FrameLimits = FrameLimits { crc: true, ..LIMITS };

#[rustfmt::skip]
const REQUEST_BYTES: [u8; FRAME_HEAD_BYTES] = [
    0x08, 0x03, 0x02, 0x01, 0x06, 0x05, 0x04, 0x03, 0x06, 0x00, 0x00, 0x00, 0x00, 0x10, 0x00, 0x00,
    0x0a, 0x00, 0x00, 0x00, 0x00, 0x20, 0x00, 0x00, 0x08, 0x07, 0x06, 0x05, 0x04, 0x03, 0x02, 0x01,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
];
#[rustfmt::skip]
const REQUEST_BYTES_CHECKED: [u8; FRAME_HEAD_BYTES] = [
    0x08, 0x03, 0x02, 0x01, 0x06, 0x05, 0x04, 0x03, 0x06, 0x00, 0x00, 0x00, 0x00, 0x10, 0x00, 0x00,
    0x0a, 0x00, 0x00, 0x00, 0x00, 0x20, 0x00, 0x00, 0x08, 0x07, 0x06, 0x05, 0x04, 0x03, 0x02, 0x01,
    0x00, 0x00, 0x00, 0x00, 0x9f, 0x56, 0x96, 0x99, 0x09, 0xcf, 0xd9, 0x25, 0x00, 0x00, 0x00, 0x00,
];

fn request() -> FrameHead {
    FrameHead {
        flags: FrameFlags::IDEMPOTENT.with(FrameFlags::MORE),
        slot: 0x0102,
        sequence: 0x0304_0506,
        header_length: 6,
        data_length: 0x1000,
        data_padding: 10,
        room: 0x2000,
        bytes_granted: 0x0102_0304_0506_0708,
        ..FrameHead::new(FrameKind::Request)
    }
}

fn response() -> FrameHead {
    FrameHead {
        slot: 3,
        sequence: 9,
        header_length: 12,
        data_length: 100,
        ..FrameHead::new(FrameKind::Response)
    }
}

/// A well-formed head of each kind.
fn plain(kind: FrameKind) -> FrameHead {
    let head = FrameHead::new(kind);
    let number = FrameHead { sequence: 7, ..head };
    let address = FrameHead { header_length: 32, ..number };
    match kind {
        FrameKind::Request => request(),
        FrameKind::Response => FrameHead { header_length: 0, data_length: 0, ..response() },
        FrameKind::OneWay => FrameHead { header_length: 5, data_length: 100, ..number },
        FrameKind::Receipt => FrameHead { room: RECEIPT_REJECTED, ..number },
        FrameKind::CancelResult => FrameHead { room: CANCEL_TOO_LATE, ..number },
        FrameKind::Cancel | FrameKind::Ready => number,
        FrameKind::Data => FrameHead { data_length: 100, ..number },
        FrameKind::RemoteRead => FrameHead { room: 100, ..address },
        FrameKind::RemoteWrite => FrameHead { data_length: 100, ..address },
        _ => head,
    }
}

fn refused(head: FrameHead) -> Violation {
    FrameHead::decode(&head.encode(&[], false), &LIMITS).unwrap_err()
}

fn accepted(head: FrameHead) {
    assert_eq!(FrameHead::decode(&head.encode(&[], false), &LIMITS), Ok(head));
}

#[test]
fn golden_bytes_without_checksums() {
    assert_eq!(request().encode(&[], false), REQUEST_BYTES);
    assert_eq!(FrameHead::decode(&REQUEST_BYTES, &LIMITS), Ok(request()));
}

#[test]
fn golden_bytes_with_checksums() {
    let head = FrameHead { data_crc: Checksum::of(&[b'd'; 0x1000]), ..request() };
    assert_eq!(head.encode(b"header", true), REQUEST_BYTES_CHECKED);
    assert_eq!(FrameHead::decode(&REQUEST_BYTES_CHECKED, &CHECKED), Ok(head));
    assert_eq!(FrameHead::verify(&REQUEST_BYTES_CHECKED, b"header"), Ok(()));
}

#[test]
fn every_changed_bit_of_head_or_header_is_noticed() {
    for bit in 0..FRAME_HEAD_BYTES * 8 {
        let mut bytes = REQUEST_BYTES_CHECKED;
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(FrameHead::verify(&bytes, b"header"), Err(Violation::HeaderChecksum), "bit {bit}");
    }
    for header in [&b"headex"[..], b"heade", b"headerr", b""] {
        assert_eq!(FrameHead::verify(&REQUEST_BYTES_CHECKED, header), Err(Violation::HeaderChecksum));
    }
}

#[test]
fn handshake_frames_carry_checksums_always() {
    for kind in [FrameKind::Hello, FrameKind::Welcome, FrameKind::Refusal] {
        let head = FrameHead { header_length: 4, ..FrameHead::new(kind) };
        let bytes = head.encode(b"body", false);
        assert_ne!(bytes[40..44], [0; 4]);
        assert_eq!(FrameHead::verify(&bytes, b"body"), Ok(()));
        assert_eq!(FrameHead::decode(&bytes, &LIMITS), Ok(head));
        assert_eq!(FrameHead::decode(&bytes, &FrameLimits::handshake()), Ok(head));
    }
}

#[test]
fn nothing_but_a_handshake_is_taken_before_it() {
    let limits = FrameLimits::handshake();
    for head in [request(), response()] {
        let bytes = head.encode(&[], false);
        assert!(matches!(
            FrameHead::decode(&bytes, &limits),
            Err(Violation::SlotOutOfRange { slots: 0, .. })
        ));
    }
    let body = HELLO_BODY_BYTES_MAX as u32;
    let head = FrameHead { header_length: body, ..FrameHead::new(FrameKind::Hello) };
    let zeros = [0; HELLO_BODY_BYTES_MAX + 1];
    assert!(FrameHead::decode(&head.encode(&zeros[1..], true), &limits).is_ok());
    let head = FrameHead { header_length: body + 1, ..head };
    assert_eq!(
        FrameHead::decode(&head.encode(&zeros, true), &limits),
        Err(Violation::HeaderTooLong { length: body + 1, limit: body })
    );
}

#[test]
fn kinds_and_flags_that_are_not_known_or_not_allowed_are_refused() {
    for kind in (0..=u8::MAX).filter(|kind| !(1..=17).contains(kind)) {
        let mut bytes = REQUEST_BYTES;
        bytes[0] = kind;
        assert_eq!(FrameHead::decode(&bytes, &LIMITS), Err(Violation::UnknownKind(kind)));
    }
    assert_eq!(
        refused(FrameHead { flags: FrameFlags(128 + 1), ..request() }),
        Violation::UnknownFlags { flags: 129 }
    );
    let allowed = [
        (1, 0),
        (2, 0),
        (3, 0),
        (4, 0),
        (5, 2),
        (6, 2),
        (7, 2),
        (8, 1 + 2 + 8 + 32),
        (9, 2 + 4 + 16),
        (10, 2 + 8 + 32),
        (11, 2 + 64),
        (12, 2),
        (13, 2),
        (14, 2 + 64),
        (15, 2 + 64),
        (16, 2),
        (17, 2),
    ];
    for (number, flags) in allowed {
        let kind = FrameKind::from_byte(number).unwrap();
        assert_eq!(kind as u8, number);
        for bit in [1, 2, 4, 8, 16, 32, 64] {
            let mut head = FrameHead { flags: FrameFlags(bit), ..plain(kind) };
            if bit == 32 {
                head.data_padding = 0;
            }
            if flags & bit != 0 {
                accepted(head);
            } else {
                assert_eq!(refused(head), Violation::FlagsNotAllowed { kind, flags: bit });
            }
        }
    }
}

#[test]
fn reserved_fields_are_zero() {
    for (at, field) in
        [(18, "extension_length"), (19, "extension_length"), (44, "reserved"), (47, "reserved")]
    {
        let mut bytes = REQUEST_BYTES;
        bytes[at] = 1;
        assert!(matches!(
            FrameHead::decode(&bytes, &LIMITS),
            Err(Violation::ReservedNotZero { field: found, .. }) if found == field
        ));
    }
}

#[test]
fn slots_and_sequences_are_checked_on_their_own_side() {
    accepted(FrameHead { slot: 0x0102, ..request() });
    assert_eq!(
        refused(FrameHead { slot: 0x0103, ..request() }),
        Violation::SlotOutOfRange { slot: 0x0103, slots: 0x0103 }
    );
    assert_eq!(refused(FrameHead { slot: 4, ..response() }), Violation::SlotOutOfRange { slot: 4, slots: 4 });
    assert_eq!(refused(FrameHead { sequence: 0, ..request() }), Violation::ZeroSequence { slot: 0x0102 });
    assert_eq!(refused(FrameHead { sequence: 0, ..response() }), Violation::ZeroSequence { slot: 3 });
}

#[test]
fn lengths_are_checked_against_the_limits() {
    for head in [request(), response()] {
        let head = FrameHead { header_length: 8448, data_length: 1 << 20, data_padding: 4095, ..head };
        accepted(head);
        assert_eq!(
            refused(FrameHead { header_length: 8449, ..head }),
            Violation::HeaderTooLong { length: 8449, limit: 8448 }
        );
        assert_eq!(
            refused(FrameHead { data_length: u32::MAX, ..head }),
            Violation::DataTooLong { length: u32::MAX, limit: 1 << 20 }
        );
        assert_eq!(
            refused(FrameHead { data_padding: 4096, ..head }),
            Violation::PaddingTooLong { padding: 4096 }
        );
        assert_eq!(
            refused(FrameHead { data_length: 0, ..head }),
            Violation::PaddingWithoutData { padding: 4095 }
        );
    }
}

#[test]
fn fields_that_a_kind_does_not_use_are_zero() {
    let not_zero = |kind, field, value| Violation::FieldNotZero { kind, field, value };
    for number in 1..=7 {
        let kind = FrameKind::from_byte(number).unwrap();
        let head = FrameHead::new(kind);
        accepted(head);
        assert_eq!(refused(FrameHead { slot: 1, ..head }), not_zero(kind, "slot", 1));
        assert_eq!(refused(FrameHead { sequence: 1, ..head }), not_zero(kind, "sequence", 1));
        assert_eq!(refused(FrameHead { data_length: 1, ..head }), not_zero(kind, "data_length", 1));
        assert_eq!(refused(FrameHead { room: 1, ..head }), not_zero(kind, "room", 1));
        assert_eq!(
            refused(FrameHead { data_padding: 1, ..head }),
            Violation::PaddingWithoutData { padding: 1 }
        );
    }
    for kind in [FrameKind::Ping, FrameKind::Pong, FrameKind::Credit] {
        let head = FrameHead { header_length: 1, ..FrameHead::new(kind) };
        assert_eq!(refused(head), not_zero(kind, "header_length", 1));
        accepted(FrameHead { bytes_granted: 1, ..FrameHead::new(kind) });
    }
    for kind in [FrameKind::Hello, FrameKind::Welcome, FrameKind::Refusal] {
        let head = FrameHead { bytes_granted: 1, ..FrameHead::new(kind) };
        assert_eq!(refused(head), not_zero(kind, "bytes_granted", 1));
        let head = FrameHead { acknowledged: 1, ..FrameHead::new(kind) };
        assert_eq!(refused(head), not_zero(kind, "acknowledged", 1));
    }
}

#[test]
fn only_a_failed_response_has_a_reason_and_it_has_nothing_else() {
    let kind = FrameKind::Response;
    assert_eq!(
        refused(FrameHead { room: 5, ..response() }),
        Violation::FieldNotZero { kind, field: "room", value: 5 }
    );
    let failed = FrameHead {
        flags: FrameFlags::FAILED.with(FrameFlags::REPLAYED),
        room: FAILED_NOT_KEPT,
        header_length: 0,
        data_length: 0,
        ..response()
    };
    accepted(failed);
    assert_eq!(
        refused(FrameHead { header_length: 1, ..failed }),
        Violation::FieldNotZero { kind, field: "header_length (failed)", value: 1 }
    );
    assert_eq!(
        refused(FrameHead { data_length: 1, ..failed }),
        Violation::FieldNotZero { kind, field: "data_length (failed)", value: 1 }
    );
}

#[test]
fn checksums_that_are_not_in_force_are_zero() {
    let unexpected = |field, value| Violation::UnexpectedChecksum { field, value };
    assert_eq!(refused(FrameHead { data_crc: 7, ..request() }), unexpected("data_crc", 7));
    let bytes = FrameHead { header_length: 0, ..request() }.encode(&[], true);
    let found = FrameHead::decode(&bytes, &LIMITS);
    assert!(matches!(found, Err(Violation::UnexpectedChecksum { field: "head_crc", .. })));
    let no_data = FrameHead { header_length: 0, data_length: 0, data_padding: 0, data_crc: 7, ..request() };
    assert_eq!(FrameHead::decode(&no_data.encode(&[], true), &CHECKED), Err(unexpected("data_crc", 7)));
}

#[test]
fn each_pattern_has_its_fields_and_no_others() {
    let not_zero = |kind, field, value| Violation::FieldNotZero { kind, field, value };
    let with = |kind, change: fn(&mut FrameHead)| {
        let mut head = plain(kind);
        change(&mut head);
        refused(head)
    };
    for number in 10..=17 {
        let kind = FrameKind::from_byte(number).unwrap();
        accepted(plain(kind));
        accepted(FrameHead { bytes_granted: 9, acknowledged: 8, ..plain(kind) });
        assert!(matches!(with(kind, |head| head.sequence = 0), Violation::ZeroSequence { .. }));
    }
    use FrameKind as K;
    for kind in [K::Receipt, K::CancelResult, K::Ready] {
        let found = with(kind, |head| head.slot = 4);
        assert_eq!(found, Violation::SlotOutOfRange { slot: 4, slots: 4 }, "of our own slots");
    }
    for kind in [K::Cancel, K::Data, K::RemoteRead, K::RemoteWrite] {
        accepted(FrameHead { slot: 4, ..plain(kind) });
        assert!(matches!(with(kind, |head| head.slot = 0x0103), Violation::SlotOutOfRange { .. }));
    }
    for kind in [K::Receipt, K::Cancel, K::CancelResult, K::Ready] {
        assert_eq!(with(kind, |head| head.header_length = 1), not_zero(kind, "header_length", 1));
        assert_eq!(with(kind, |head| head.data_length = 1), not_zero(kind, "data_length", 1));
    }
    for kind in [K::OneWay, K::Cancel, K::Data, K::RemoteWrite] {
        assert_eq!(with(kind, |head| head.room = 1), not_zero(kind, "room", 1));
    }
    for kind in [K::Receipt, K::Ready, K::Data] {
        accepted(FrameHead { flags: FrameFlags::ONE_WAY, ..plain(kind) });
        let found = with(kind, |head| (head.flags, head.slot) = (FrameFlags::ONE_WAY, 1));
        assert_eq!(found, not_zero(kind, "slot", 1));
    }
    assert_eq!(with(K::OneWay, |head| head.slot = 1), not_zero(K::OneWay, "slot", 1));
    assert_eq!(with(K::Data, |head| head.header_length = 1), not_zero(K::Data, "header_length", 1));
    assert_eq!(with(K::RemoteRead, |head| head.data_length = 1), not_zero(K::RemoteRead, "data_length", 1));
}

#[test]
fn results_addresses_and_announcements_are_checked() {
    for (kind, values) in
        [(FrameKind::Receipt, 1..=2), (FrameKind::CancelResult, 1..=3), (FrameKind::Ready, 0..=0)]
    {
        for value in 0..5 {
            let head = FrameHead { room: value, ..plain(kind) };
            if values.contains(&value) {
                accepted(head);
            } else {
                assert_eq!(refused(head), Violation::UnknownValue { kind, value });
            }
        }
    }
    let ready = FrameHead { flags: FrameFlags::ONE_WAY, room: READY_NOT_WANTED, ..plain(FrameKind::Ready) };
    accepted(ready);
    for kind in [FrameKind::RemoteRead, FrameKind::RemoteWrite] {
        let head = FrameHead { header_length: 31, ..plain(kind) };
        assert_eq!(refused(head), Violation::RemoteAddressLength { length: 31 });
        let head = FrameHead { header_length: 33, ..head };
        assert_eq!(refused(head), Violation::HeaderTooLong { length: 33, limit: 32 });
    }
    let limits = FrameLimits { immediate_bytes_max: 99, ..LIMITS };
    for kind in [FrameKind::Request, FrameKind::OneWay] {
        let at_once = FrameHead { data_length: 100, data_padding: 0, ..plain(kind) };
        let found = FrameHead::decode(&at_once.encode(&[], false), &limits);
        assert_eq!(found, Err(Violation::NotAnnounced { length: 100, limit: 99 }));
        let announced = FrameHead { flags: FrameFlags::ANNOUNCED, ..at_once };
        assert_eq!((announced.data_in_frame(), at_once.data_in_frame()), (0, 100));
        assert_eq!(FrameHead::decode(&announced.encode(&[], false), &limits), Ok(announced));
        accepted(announced);
        assert_eq!(refused(FrameHead { data_length: 0, ..announced }), Violation::AnnouncedNothing);
        let padded = FrameHead { data_padding: 1, ..announced };
        assert_eq!(refused(padded), Violation::PaddingWithoutData { padding: 1 });
    }
}

#[test]
fn extensions_stand_before_the_header_where_they_are_in_force() {
    let limits = FrameLimits { extension_bytes_max: 40, crc: true, ..LIMITS };
    let head = FrameHead { extension_length: 40, header_length: 6, ..request() };
    let follows = [&[7; 40][..], b"header"].concat();
    let bytes = head.encode(&follows, true);
    assert_eq!(FrameHead::decode(&bytes, &limits), Ok(head));
    assert_eq!(FrameHead::verify(&bytes, &follows), Ok(()));
    assert_eq!(FrameHead::verify(&bytes, &follows[1..]), Err(Violation::HeaderChecksum));
    let refused = |head: FrameHead| {
        FrameHead::decode(&head.encode(&[], false), &FrameLimits { crc: false, ..limits }).unwrap_err()
    };
    assert_eq!(
        refused(FrameHead { extension_length: 41, ..request() }),
        Violation::ExtensionTooLong { length: 41, limit: 40 }
    );
    let (kind, field, value) = (FrameKind::Ping, "extension_length", 8);
    assert_eq!(
        refused(FrameHead { extension_length: 8, ..FrameHead::new(kind) }),
        Violation::FieldNotZero { kind, field, value }
    );
}
