//! Properties of the whole layer: what is encoded is decoded, and no bytes make a decoder panic or read what is not
//! there.

use super::*;
use proptest::prelude::*;

fn limits() -> impl Strategy<Value = Limits> {
    let counts = (any::<u16>(), any::<u16>(), any::<u32>(), any::<u32>(), any::<u32>(), any::<u32>());
    (counts, 0..=ONE_WAY_MAX, any::<u32>(), 0..GRANT_AHEAD_MAX - u64::from(u32::MAX)).prop_map(
        |(counts, one_way_max, immediate_bytes_max, beyond)| {
            let (slots, peer_slots, header_bytes_max, data_bytes_max, replay_bytes_max, keepalive_ms) =
                counts;
            let window_bytes = u64::from(data_bytes_max) + beyond;
            Limits {
                slots,
                peer_slots,
                header_bytes_max,
                data_bytes_max,
                window_bytes,
                replay_bytes_max,
                keepalive_ms,
                one_way_max,
                immediate_bytes_max,
            }
        },
    )
}

fn loop_kind() -> impl Strategy<Value = LoopKind> {
    prop_oneof![Just(LoopKind::Own), Just(LoopKind::Caller)]
}

fn bytes(length_max: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..=length_max)
}

fn hello() -> impl Strategy<Value = Hello> {
    let numbers = (1..=VERSION, VERSION..=u16::MAX, any::<u64>(), any::<u32>());
    let keys = (any::<[u8; 16]>(), any::<[u8; 16]>());
    let texts = ("/[^\0]{0,200}", bytes(300));
    (numbers, keys, loop_kind(), limits(), texts).prop_map(|(numbers, keys, loop_kind, limits, texts)| {
        let (version_min, version_max, features, connection) = numbers;
        let ((session, session_key), (resource, private_data)) = (keys, texts);
        Hello {
            version_min,
            version_max,
            features,
            loop_kind,
            session: SessionId(session),
            session_key,
            connection,
            limits,
            resource,
            private_data,
        }
    })
}

fn welcome() -> impl Strategy<Value = Welcome> {
    let numbers = (VERSION_MIN..=VERSION, any::<u64>(), any::<u64>(), any::<u32>());
    let keys = (any::<[u8; 16]>(), any::<[u8; 16]>());
    (numbers, keys, loop_kind(), limits(), bytes(300)).prop_map(
        |(numbers, keys, loop_kind, limits, private_data)| {
            let ((version, features, incarnation, connection), (session, session_key)) = (numbers, keys);
            Welcome {
                version,
                features,
                loop_kind,
                incarnation,
                session: SessionId(session),
                session_key,
                connection,
                limits,
                private_data,
            }
        },
    )
}

fn refusal() -> impl Strategy<Value = Refusal> {
    let reason = prop_oneof![
        (any::<u16>(), any::<u16>()).prop_map(|(min, max)| RejectReason::Version { min, max }),
        Just(RejectReason::NoResource),
        Just(RejectReason::NotPermitted),
        Just(RejectReason::Busy),
        Just(RejectReason::ShuttingDown),
        Just(RejectReason::UnknownSession),
        Just(RejectReason::NotSupported),
        any::<u32>().prop_map(RejectReason::Application),
        Just(RejectReason::Redirected),
        (10..=u32::MAX).prop_map(RejectReason::Other),
    ];
    (reason, "[^\0]{1,50}", bytes(300)).prop_map(|(reason, redirect, private_data)| {
        let redirect = if reason == RejectReason::Redirected { redirect } else { String::new() };
        Refusal { reason, redirect, private_data }
    })
}

fn goodbye() -> impl Strategy<Value = Goodbye> {
    (any::<u32>(), "\\PC{0,64}").prop_map(|(code, text)| Goodbye { code, text })
}

fn frame_limits() -> impl Strategy<Value = FrameLimits> {
    (any::<u32>(), any::<[u32; 2]>(), any::<u16>(), any::<u16>(), any::<bool>()).prop_map(
        |(header_bytes_max, [data_bytes_max, immediate_bytes_max], slots, own_slots, crc)| FrameLimits {
            header_bytes_max,
            data_bytes_max,
            immediate_bytes_max,
            slots,
            own_slots,
            crc,
            extension_bytes_max: 0,
        },
    )
}

/// Bytes of a head that mostly look like one: each field is zero, small or anything.
fn head_bytes() -> impl Strategy<Value = [u8; FRAME_HEAD_BYTES]> {
    let byte = prop_oneof![40 => Just(0u8), 6 => 0..16u8, 1 => any::<u8>()];
    (0..20u8, prop::collection::vec(byte, FRAME_HEAD_BYTES - 1)).prop_map(|(kind, rest)| {
        let mut bytes = [kind; FRAME_HEAD_BYTES];
        bytes[1..].copy_from_slice(&rest);
        bytes
    })
}

/// Changes to a body: bytes in a few places, an end cut off, something appended.
#[derive(Debug, Clone)]
struct Mutation {
    places: Vec<(prop::sample::Index, u8)>,
    cut: Option<prop::sample::Index>,
    appended: Vec<u8>,
}

impl Mutation {
    fn apply(&self, mut body: Vec<u8>) -> Vec<u8> {
        for (place, byte) in &self.places {
            let at = place.index(body.len());
            body[at] = *byte;
        }
        if let Some(cut) = self.cut {
            body.truncate(cut.index(body.len() + 1));
        }
        body.extend(&self.appended);
        body
    }
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let places = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    (places, any::<Option<prop::sample::Index>>(), bytes(8)).prop_map(|(places, cut, appended)| Mutation {
        places,
        cut,
        appended,
    })
}

proptest! {
    #[test]
    fn bodies_come_back(hello in hello(), welcome in welcome(), refusal in refusal(), goodbye in goodbye()) {
        prop_assert!(hello.encode().len() <= HELLO_BODY_BYTES_MAX);
        prop_assert_eq!(Hello::decode(&hello.encode()), Ok(hello));
        prop_assert_eq!(Welcome::decode(&welcome.encode()), Ok(welcome));
        prop_assert_eq!(Refusal::decode(&refusal.encode()), Ok(refusal));
        prop_assert_eq!(Goodbye::decode(&goodbye.encode()), Ok(goodbye));
    }

    #[test]
    fn bytes_left_over_belong_to_later_versions(
        hello in hello(), welcome in welcome(), refusal in refusal(), goodbye in goodbye(), more in bytes(20),
    ) {
        let longer = |mut body: Vec<u8>| { body.extend(&more); body };
        prop_assert_eq!(Hello::decode(&longer(hello.encode())), Ok(hello));
        prop_assert_eq!(Welcome::decode(&longer(welcome.encode())), Ok(welcome));
        prop_assert_eq!(Refusal::decode(&longer(refusal.encode())), Ok(refusal));
        prop_assert_eq!(Goodbye::decode(&longer(goodbye.encode())), Ok(goodbye));
    }

    /// Whatever is accepted can be sent on and means the same.
    #[test]
    fn changed_bodies_are_refused_or_mean_something(
        hello in hello(), welcome in welcome(), refusal in refusal(), goodbye in goodbye(), change in mutation(),
    ) {
        if let Ok(found) = Hello::decode(&change.apply(hello.encode())) {
            prop_assert_eq!(found.validate(), Ok(()));
            prop_assert_eq!(Hello::decode(&found.encode()), Ok(found));
        }
        if let Ok(found) = Welcome::decode(&change.apply(welcome.encode())) {
            prop_assert_eq!(found.validate(), Ok(()));
            prop_assert_eq!(Welcome::decode(&found.encode()), Ok(found));
        }
        if let Ok(found) = Refusal::decode(&change.apply(refusal.encode())) {
            prop_assert_eq!(found.validate(), Ok(()));
            prop_assert_eq!(Refusal::decode(&found.encode()), Ok(found));
        }
        if let Ok(found) = Goodbye::decode(&change.apply(goodbye.encode())) {
            prop_assert_eq!(Goodbye::decode(&found.encode()), Ok(found));
        }
    }

    #[test]
    fn any_bytes_are_taken_by_every_decoder(body in bytes(300)) {
        let _ = (Hello::decode(&body), Welcome::decode(&body));
        let _ = (Refusal::decode(&body), Goodbye::decode(&body));
        let with_magic = [&HELLO_MAGIC, &[1, 0, 1, 0][..], &body].concat();
        let _ = Hello::decode(&with_magic);
    }

    /// What is accepted is within the limits, and comes back byte for byte (but for the checksum).
    #[test]
    fn heads_are_refused_or_within_limits(mut bytes in head_bytes(), limits in frame_limits()) {
        let Ok(head) = FrameHead::decode(&bytes, &limits) else { return Ok(()); };
        prop_assert!(head.data_length <= limits.data_bytes_max);
        prop_assert!(head.header_length <= limits.header_bytes_max.max(HELLO_BODY_BYTES_MAX as u32));
        prop_assert!(head.data_padding <= PADDING_BYTES_MAX);
        match head.kind {
            FrameKind::Request | FrameKind::Cancel | FrameKind::RemoteRead | FrameKind::RemoteWrite => {
                prop_assert!(head.slot < limits.slots && head.sequence > 0);
            }
            FrameKind::Response | FrameKind::CancelResult => {
                prop_assert!(head.slot < limits.own_slots && head.sequence > 0);
            }
            FrameKind::Data | FrameKind::Receipt | FrameKind::Ready => {
                prop_assert!(head.sequence > 0);
                prop_assert!(head.flags.contains(FrameFlags::ONE_WAY) || head.slot < limits.slots.max(limits.own_slots));
            }
            FrameKind::OneWay => prop_assert!(head.slot == 0 && head.sequence > 0),
            _ => prop_assert_eq!((head.slot, head.sequence, head.data_length), (0, 0, 0)),
        }
        if !matches!(head.kind, FrameKind::Hello | FrameKind::Welcome | FrameKind::Refusal) {
            bytes[40..44].fill(0);
            prop_assert_eq!(head.encode(&[], false), bytes);
        }
    }
}
