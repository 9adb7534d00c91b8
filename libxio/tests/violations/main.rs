//! A peer that breaks the protocol: a test for each rule of docs/PROTOCOL.md, by its number. The context closes the
//! connection, tells both sides why, and leaves nothing behind.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod peer;

use libxio::wire::{
    FEATURE_CRC, FrameFlags, FrameHead, FrameKind as Kind, GRANT_AHEAD_MAX, Goodbye, Hello, Limits, Refusal,
    RejectReason, Welcome,
};
use libxio::{
    Buffer, Error, Event, Landing, OutgoingOneWay, OutgoingRequest, OutgoingResponse, SendOptions, Sgl,
};
use peer::{Scene, flagged, frame, hello, limits, numbered, welcome};

// ---- the frame ----

#[test]
fn rule_1_unknown_kind() {
    let mut scene = Scene::client();
    scene.say_changed(frame(Kind::Ping), b"", 0, &[200]);
    scene.expect(1);
}

#[test]
fn rule_2_unexpected_kind() {
    let mut scene = Scene::client();
    scene.say(frame(Kind::Hello), &hello().encode(), b"");
    scene.expect(2);
    let mut scene = Scene::silent(|_| {});
    scene.say(frame(Kind::Welcome), &welcome().encode(), b"");
    scene.expect_refused(2);
}

#[test]
fn rule_3_unknown_flags() {
    let mut scene = Scene::client();
    scene.say_changed(frame(Kind::Ping), b"", 1, &[128]);
    scene.expect(3);
}

#[test]
fn rule_4_flags_not_allowed() {
    let mut scene = Scene::client();
    scene.say(flagged(frame(Kind::Ping), FrameFlags::IDEMPOTENT), b"", b"");
    scene.expect(4);
}

#[test]
fn rule_5_field_not_zero() {
    let mut scene = Scene::client();
    scene.say(numbered(Kind::Ping, 1, 0), b"", b"");
    scene.expect(5);
}

#[test]
fn rule_6_reserved_not_zero() {
    for at in [18, 44] {
        let mut scene = Scene::client();
        scene.say_changed(frame(Kind::Ping), b"", at, &[1]);
        scene.expect(6);
    }
    let mut body = hello().encode();
    body[15] = 1;
    let mut scene = Scene::silent(|_| {});
    scene.say(frame(Kind::Hello), &body, b"");
    scene.expect_refused(6);
}

#[test]
fn rule_7_slot_out_of_range() {
    let mut scene = Scene::client_with(&hello(), |options| options.limits.peer_slots = 3);
    scene.say(numbered(Kind::Request, 3, 1), b"", b"");
    scene.expect(7);
    let mut scene = Scene::client_with(&hello(), |options| options.limits.slots = 2);
    scene.say(numbered(Kind::Response, 2, 1), b"", b"");
    scene.expect(7);
}

#[test]
fn rule_8_zero_sequence() {
    for kind in [Kind::Request, Kind::Response, Kind::OneWay, Kind::Cancel, Kind::Ready, Kind::Data] {
        let mut scene = Scene::client();
        scene.say(numbered(kind, 0, 0), b"", b"");
        scene.expect(8);
    }
}

#[test]
fn rule_9_header_too_long() {
    let mut scene = Scene::client_with(&hello(), |options| options.limits.header_bytes_max = 10);
    scene.say(numbered(Kind::Request, 0, 1), &[0; 11], b"");
    scene.expect(9);
}

#[test]
fn rule_10_data_too_long() {
    let mut scene = Scene::client_with(&hello(), |options| options.limits.data_bytes_max = 10);
    scene.say(numbered(Kind::Request, 0, 1), b"", &[0; 11]);
    scene.expect(10);
}

#[test]
fn rule_11_padding_too_long() {
    let mut scene = Scene::client();
    scene.say(FrameHead { data_padding: 4096, ..numbered(Kind::Request, 0, 1) }, b"", &[0; 5000]);
    scene.expect(11);
}

#[test]
fn rule_12_padding_without_data() {
    let mut scene = Scene::client();
    scene.say(FrameHead { data_padding: 1, ..numbered(Kind::Request, 0, 1) }, b"", b"");
    scene.expect(12);
}

#[test]
fn rule_13_unexpected_checksum() {
    let mut scene = Scene::client();
    scene.say_changed(frame(Kind::Ping), b"", 40, &[1]);
    scene.expect(13);
    let mut scene = Scene::client();
    scene.say(FrameHead { data_crc: 1, ..numbered(Kind::OneWay, 0, 1) }, b"", b"data");
    scene.expect(13);
}

/// A client with checksums in force.
fn checked() -> Scene {
    let scene = Scene::client_with(&Hello { features: FEATURE_CRC, ..hello() }, |options| options.crc = true);
    assert!(scene.crc);
    scene
}

#[test]
fn rule_14_header_checksum() {
    let mut scene = checked();
    let mut bytes = scene.bytes_of(numbered(Kind::OneWay, 0, 1), b"header", b"");
    bytes[50] ^= 1;
    scene.say_bytes(&bytes);
    scene.expect(14);
    // In force for a hello in any case.
    let mut scene = Scene::silent(|_| {});
    scene.say_changed(frame(Kind::Hello), &hello().encode(), 40, &[0; 4]);
    scene.expect_refused(14);
}

#[test]
fn rule_15_data_checksum() {
    let mut scene = checked();
    scene.say(FrameHead { data_crc: 7, ..numbered(Kind::OneWay, 0, 1) }, b"", b"data");
    scene.expect(15);
}

/// A link that ends inside a frame: nobody is left to be told, so it counts as lost.
#[test]
fn rule_16_truncated() {
    let mut scene = Scene::client();
    let bytes = scene.bytes_of(numbered(Kind::Request, 0, 1), b"header", &[0; 1000]);
    scene.say_bytes(&bytes[..500]);
    scene.socket.shutdown(std::net::Shutdown::Both).unwrap();
    assert!(matches!(scene.event(), Event::Closed { reason: Error::ConnectionLost { .. }, .. }));
    assert_eq!(scene.context.pool().bytes_in_use(), 0);
}

#[test]
fn rule_17_unknown_value() {
    for (kind, value) in [(Kind::Receipt, 3), (Kind::CancelResult, 4), (Kind::Ready, 1), (Kind::Receipt, 0)] {
        let mut scene = Scene::client();
        scene.say(FrameHead { room: value, ..numbered(kind, 0, 1) }, b"", b"");
        scene.expect(17);
    }
}

#[test]
fn rule_18_remote_address_length() {
    for kind in [Kind::RemoteRead, Kind::RemoteWrite] {
        let mut scene = Scene::client();
        scene.say(numbered(kind, 0, 1), &[0; 31], b"");
        scene.expect(18);
    }
}

#[test]
fn rule_19_announced_nothing() {
    let mut scene = Scene::client();
    scene.say(flagged(numbered(Kind::OneWay, 0, 1), FrameFlags::ANNOUNCED), b"", b"");
    scene.expect(19);
}

#[test]
fn rule_20_not_announced() {
    for kind in [Kind::Request, Kind::OneWay] {
        let mut scene = Scene::client_with(&hello(), |options| options.limits.immediate_bytes_max = 1000);
        scene.say(numbered(kind, 0, 1), b"", &[0; 1001]);
        scene.expect(20);
    }
}

// ---- the handshake ----

/// A hello with bytes changed is refused with this number.
#[track_caller]
fn hello_is_refused(at: usize, to: &[u8], code: u32) {
    let mut body = hello().encode();
    body[at..at + to.len()].copy_from_slice(to);
    let mut scene = Scene::silent(|_| {});
    scene.say(frame(Kind::Hello), &body, b"");
    scene.expect_refused(code);
}

#[test]
fn rule_32_bad_magic() {
    hello_is_refused(0, b"HTTP", 32);
}

#[test]
fn rule_33_no_common_version() {
    let mut body = hello().encode();
    body[8..12].copy_from_slice(&[7, 0, 9, 0]);
    let mut scene = Scene::silent(|_| {});
    scene.say(frame(Kind::Hello), &body, b"");
    let (head, body, _) = scene.hear();
    assert_eq!(head.kind, Kind::Refusal);
    assert_eq!(Refusal::decode(&body).unwrap().reason, RejectReason::Version { min: 1, max: 1 });
}

#[test]
fn rule_34_bad_version_range() {
    hello_is_refused(8, &[2, 0, 1, 0], 34);
}

#[test]
fn rule_35_body_too_short() {
    hello_is_refused(98, &[1], 35);
}

#[test]
fn rule_36_fixed_part_too_short() {
    hello_is_refused(12, &[99], 36);
}

#[test]
fn rule_37_part_too_long() {
    hello_is_refused(96, &4097_u16.to_le_bytes(), 37);
}

#[test]
fn rule_38_bad_resource() {
    hello_is_refused(100, b"x", 38);
}

#[test]
fn rule_39_bad_text() {
    let mut scene = Scene::client();
    let mut body = Goodbye { code: 0, text: "bye".to_owned() }.encode();
    let last = body.len() - 1;
    body[last] = b'\n';
    scene.say(frame(Kind::Goodbye), &body, b"");
    scene.expect(39);
}

#[test]
fn rule_40_not_utf8() {
    let mut body = Hello { resource: "/ab".to_owned(), ..hello() }.encode();
    body[101] = 0xFF;
    let mut scene = Scene::silent(|_| {});
    scene.say(frame(Kind::Hello), &body, b"");
    scene.expect_refused(40);
}

#[test]
fn rule_41_unknown_loop_kind() {
    hello_is_refused(14, &[2], 41);
}

#[test]
fn rule_42_field_too_large() {
    hello_is_refused(72, &(GRANT_AHEAD_MAX + 1).to_le_bytes(), 42);
    hello_is_refused(88, &u32::MAX.to_le_bytes(), 42);
    let mut scene = Scene::server();
    let more = Limits { slots: limits().slots + 1, ..limits() };
    scene.say(frame(Kind::Welcome), &Welcome { limits: more, ..welcome() }.encode(), b"");
    scene.expect(42);
}

#[test]
fn rule_43_window_too_small() {
    hello_is_refused(72, &5_u64.to_le_bytes(), 43);
}

#[test]
fn rule_44_version_not_offered() {
    let mut scene = Scene::server();
    scene.say(frame(Kind::Welcome), &Welcome { version: 2, ..welcome() }.encode(), b"");
    scene.expect(44);
}

#[test]
fn rule_45_features_not_offered() {
    let mut scene = Scene::server();
    scene.say(frame(Kind::Welcome), &Welcome { features: FEATURE_CRC, ..welcome() }.encode(), b"");
    scene.expect(45);
}

#[test]
fn rule_46_bad_redirect() {
    for (reason, redirect) in [
        (RejectReason::Redirected, ""),
        (RejectReason::Busy, "tcp://elsewhere:1/"),
        (RejectReason::Redirected, "no uri at all"),
    ] {
        let mut scene = Scene::server();
        let refusal = Refusal { reason, redirect: redirect.to_owned(), private_data: Vec::new() };
        scene.say(frame(Kind::Refusal), &refusal.encode(), b"");
        let Event::Closed { reason: Error::Protocol { violation, .. }, .. } = scene.event() else { panic!() };
        assert_eq!(violation.code(), 46);
    }
}

// ---- the dialogue ----

#[test]
fn rule_64_grant_exceeded() {
    for kind in [Kind::Request, Kind::OneWay] {
        let mut scene = Scene::client_with(&hello(), |options| {
            options.limits.data_bytes_max = 1000;
            options.limits.window_bytes = 1500;
        });
        scene.say(numbered(kind, 0, 1), b"", &[0; 1000]);
        let slot = u16::from(kind == Kind::Request);
        scene.say(numbered(kind, slot, 2 - u32::from(slot)), b"", &[0; 501]);
        scene.expect(64);
    }
}

#[test]
fn rule_65_grant_too_large() {
    let mut scene = Scene::client();
    scene.say(FrameHead { bytes_granted: GRANT_AHEAD_MAX + 1, ..frame(Kind::Credit) }, b"", b"");
    scene.expect(65);
}

#[test]
fn rule_66_sequence_out_of_order() {
    let mut scene = Scene::client();
    scene.say(numbered(Kind::Request, 0, 5), b"", b"");
    scene.expect(66);
}

#[test]
fn rule_67_slot_busy() {
    let mut scene = Scene::client();
    scene.say(numbered(Kind::Request, 0, 1), b"", b"");
    scene.say(numbered(Kind::Request, 0, 2), b"", b"");
    scene.expect(67);
}

#[test]
fn rule_68_resend_differs() {
    let mut scene = Scene::client();
    scene.say(flagged(numbered(Kind::Request, 0, 1), FrameFlags::IDEMPOTENT), b"", b"");
    scene.say(numbered(Kind::Request, 0, 1), b"", b"");
    scene.expect(68);
}

/// The context asks, and the peer has read the request: its head.
fn asked(scene: &mut Scene, request: OutgoingRequest<'_>, options: SendOptions) -> FrameHead {
    let connection = scene.connection.unwrap();
    scene.context.request_with(connection, request, options).unwrap();
    let (head, ..) = scene.hear();
    assert_eq!(head.kind, Kind::Request);
    head
}

#[test]
fn rule_69_response_without_request() {
    let mut scene = Scene::client();
    scene.say(numbered(Kind::Response, 0, 1), b"", b"");
    scene.expect(69);
    let mut scene = Scene::client();
    let head = asked(&mut scene, OutgoingRequest::new(b"", 1), SendOptions::default());
    scene.say(numbered(Kind::Response, head.slot, head.sequence + 1), b"", b"");
    scene.expect(69);
}

/// A client that takes at most 1,000 bytes unannounced.
fn announcing() -> Scene {
    let limits = Limits { immediate_bytes_max: 1000, ..limits() };
    Scene::client_with(&Hello { limits, ..hello() }, |_| {})
}

fn large() -> OutgoingRequest<'static> {
    OutgoingRequest { data: vec![0; 2000].into(), ..OutgoingRequest::new(b"", 1) }
}

#[test]
fn rule_70_response_before_sent() {
    let mut scene = announcing();
    let head = asked(&mut scene, large(), SendOptions::default());
    assert!(head.flags.contains(FrameFlags::ANNOUNCED) && head.data_length == 2000);
    // In one piece, so that the data can't be gone in between.
    let ready = scene.bytes_of(numbered(Kind::Ready, head.slot, head.sequence), b"", b"");
    let response = scene.bytes_of(numbered(Kind::Response, head.slot, head.sequence), b"", b"");
    scene.say_bytes(&[ready, response].concat());
    scene.expect(70);
}

#[test]
fn rule_71_response_too_long() {
    let mut scene = Scene::client();
    let request = OutgoingRequest { landing: Landing::Pool(10), ..OutgoingRequest::new(b"", 1) };
    let head = asked(&mut scene, request, SendOptions::default());
    scene.say(numbered(Kind::Response, head.slot, head.sequence), b"", &[0; 11]);
    scene.expect(71);
}

#[test]
fn rule_72_one_way_out_of_order() {
    let mut scene = Scene::client();
    scene.say(numbered(Kind::OneWay, 0, 2), b"", b"");
    scene.expect(72);
}

#[test]
fn rule_73_one_way_exceeded() {
    let mut scene = Scene::client_with(&hello(), |options| options.limits.one_way_max = 2);
    for sequence in 1..=3 {
        scene.say(numbered(Kind::OneWay, 0, sequence), b"", b"");
    }
    scene.expect(73);
}

#[test]
fn rule_74_acknowledged_too_much() {
    let mut scene = Scene::client();
    scene.say(FrameHead { acknowledged: 1, ..frame(Kind::Ping) }, b"", b"");
    scene.expect(74);
}

#[test]
fn rule_75_receipt_not_expected() {
    let receipt = |slot, sequence| FrameHead { room: 1, ..numbered(Kind::Receipt, slot, sequence) };
    // For a message that was not sent.
    let mut scene = Scene::client();
    scene.say(flagged(receipt(0, 1), FrameFlags::ONE_WAY), b"", b"");
    scene.expect(75);
    // For a request that asked for none.
    let mut scene = Scene::client();
    let head = asked(&mut scene, OutgoingRequest::new(b"", 1), SendOptions::default());
    scene.say(receipt(head.slot, head.sequence), b"", b"");
    scene.expect(75);
    // A second time.
    let mut scene = Scene::client();
    let options = SendOptions { receipt: true, ..SendOptions::default() };
    let head = asked(&mut scene, OutgoingRequest::new(b"", 1), options);
    scene.say(receipt(head.slot, head.sequence), b"", b"");
    scene.say(receipt(head.slot, head.sequence), b"", b"");
    scene.expect(75);
}

#[test]
fn rule_76_receipt_missing() {
    let mut scene = Scene::client();
    let options = SendOptions { receipt: true, ..SendOptions::default() };
    let connection = scene.connection.unwrap();
    scene.context.send(connection, OutgoingOneWay { options, ..OutgoingOneWay::default() }).unwrap();
    assert_eq!(scene.hear().0.kind, Kind::OneWay);
    scene.say(FrameHead { acknowledged: 1, ..frame(Kind::Credit) }, b"", b"");
    scene.expect(76);
}

#[test]
fn rule_77_cancel_result_not_expected() {
    let mut scene = Scene::client();
    let head = asked(&mut scene, OutgoingRequest::new(b"", 1), SendOptions::default());
    scene.say(FrameHead { room: 1, ..numbered(Kind::CancelResult, head.slot, head.sequence) }, b"", b"");
    scene.expect(77);
}

#[test]
fn rule_78_ready_not_expected() {
    // For what was not announced.
    let mut scene = Scene::client();
    let head = asked(&mut scene, OutgoingRequest::new(b"", 1), SendOptions::default());
    scene.say(numbered(Kind::Ready, head.slot, head.sequence), b"", b"");
    scene.expect(78);
    // A second time.
    let mut scene = announcing();
    let head = asked(&mut scene, large(), SendOptions::default());
    scene.say(numbered(Kind::Ready, head.slot, head.sequence), b"", b"");
    scene.say(numbered(Kind::Ready, head.slot, head.sequence), b"", b"");
    scene.expect(78);
    // For a one-way message that was not sent.
    let mut scene = Scene::client();
    scene.say(flagged(numbered(Kind::Ready, 0, 1), FrameFlags::ONE_WAY), b"", b"");
    scene.expect(78);
}

#[test]
fn rule_79_data_not_expected() {
    let mut scene = Scene::client();
    scene.say(numbered(Kind::Data, 0, 1), b"", &[0; 10]);
    scene.expect(79);
    // Announced, but the application has not said where it lands.
    let mut scene = Scene::client();
    let announced = flagged(numbered(Kind::Request, 0, 1), FrameFlags::ANNOUNCED);
    scene.say(FrameHead { data_length: 10, ..announced }, b"", b"");
    scene.say(numbered(Kind::Data, 0, 1), b"", &[0; 10]);
    scene.expect(79);
}

#[test]
fn rule_80_data_length_differs() {
    for length in [9, 11, 0] {
        let mut scene = Scene::client();
        let announced = flagged(numbered(Kind::OneWay, 0, 1), FrameFlags::ANNOUNCED);
        scene.say(FrameHead { data_length: 10, ..announced }, b"", b"");
        let Event::Incoming(incoming) = scene.event() else { panic!() };
        let memory = Sgl::from(vec![0; 10]);
        scene.context.assign(incoming, memory).unwrap();
        assert_eq!(scene.hear().0.kind, Kind::Ready);
        scene.say(flagged(numbered(Kind::Data, 0, 1), FrameFlags::ONE_WAY), b"", &vec![0; length]);
        scene.expect(80);
    }
}

#[test]
fn rule_81_answers_not_read() {
    let limits = Limits { slots: 4, peer_slots: 4, ..limits() };
    let few = |options: &mut libxio::ContextOptions| options.limits = limits;
    let mut scene = Scene::client_with(&Hello { limits, ..hello() }, few);
    let ping = scene.bytes_of(frame(Kind::Ping), b"", b"");
    // One write, which is read in one piece.
    scene.say_bytes(&ping.repeat(1000));
    scene.expect(81);
}

// ---- what is no violation ----

/// A peer that plays by the rules is answered, pattern by pattern.
#[test]
fn a_peer_of_a_few_lines_gets_its_answers() {
    let mut scene = Scene::client();
    scene.say(numbered(Kind::Request, 0, 1), b"question", b"with data");
    let Event::Request(request) = scene.event() else { panic!() };
    assert_eq!((request.header(), &request.data().to_vec()[..]), (&b"question"[..], &b"with data"[..]));
    scene.say(numbered(Kind::Cancel, 0, 1), b"", b"");
    assert!(matches!(scene.event(), Event::Cancel { .. }));
    scene.context.respond(request, OutgoingResponse { header: b"answer", ..Default::default() }).unwrap();
    let (head, ..) = scene.hear();
    assert_eq!((head.kind, head.room), (Kind::CancelResult, 2));
    let (head, header, _) = scene.hear();
    assert_eq!((head.kind, &header[..]), (Kind::Response, &b"answer"[..]));
    // A cancel of what is long over, and of what never was, has an answer too.
    for (sequence, result) in [(1, 2), (9, 3)] {
        scene.say(numbered(Kind::Cancel, 0, sequence), b"", b"");
        let (head, ..) = scene.hear();
        assert_eq!((head.kind, head.room), (Kind::CancelResult, result));
    }
    // Padding aligns data.
    let padded = FrameHead { data_padding: 3, data_length: 4, ..numbered(Kind::OneWay, 0, 1) };
    let mut bytes = scene.bytes_of(padded, b"pad", b"");
    bytes.extend_from_slice(b"\0\0\0data");
    scene.say_bytes(&bytes);
    let Event::OneWay(message) = scene.event() else { panic!() };
    assert_eq!(message.data().pieces().iter().map(Buffer::len).sum::<usize>(), 4);
    assert_eq!(message.data().to_vec(), b"data");
    drop(message);
    let (head, ..) = scene.hear();
    assert_eq!((head.kind, head.acknowledged), (Kind::Credit, 1));
    scene.say(frame(Kind::Ping), b"", b"");
    assert_eq!(scene.hear().0.kind, Kind::Pong);
}

/// Rules of shared memory and of RDMA, which no socket can break: they are tested beside their code, in `transport` and
/// `wire`.
const OF_OTHER_TRANSPORTS: [&str; 7] = ["24", "25", "26", "27", "28", "30", "31"];

/// Each other number of the table in docs/PROTOCOL.md has its test here.
#[test]
fn every_rule_has_a_test() {
    let protocol = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/PROTOCOL.md"));
    let table = protocol.split("\n## ").find(|part| part.starts_with("Violations\n")).unwrap();
    let numbers: Vec<&str> = table
        .lines()
        .filter(|line| line.contains("| `"))
        .filter_map(|line| line.split('|').nth(1).map(str::trim))
        .collect();
    assert!(numbers.len() > 50);
    for number in numbers.into_iter().filter(|number| !OF_OTHER_TRANSPORTS.contains(number)) {
        assert!(include_str!("main.rs").contains(&format!("fn rule_{number}_")), "rule {number} has no test");
    }
}
