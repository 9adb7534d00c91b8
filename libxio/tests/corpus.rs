//! The fuzz targets' bodies over their corpus, so that what was found once stays found; and over inputs derived from it
//! and from nothing. See `libxio/fuzz/README.md`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../fuzz/bodies.rs"]
mod bodies;

use libxio::wire::{
    FrameFlags, FrameHead, FrameKind, Goodbye, Refusal, RejectReason, RemoteAddress, Violation,
};
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

type Body = fn(&[u8]);

const TARGETS: [(&str, Body); 4] = [
    ("wire", bodies::wire),
    ("server", bodies::server),
    ("client", bodies::client),
    ("shared", bodies::shared),
];

fn folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
}

fn corpus(target: &str) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = std::fs::read_dir(folder(target)).unwrap().map(|entry| entry.unwrap().path());
    files.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

fn frame(head: FrameHead, header: &[u8], data: &[u8]) -> Vec<u8> {
    let (header_length, data_length) = (header.len() as u32, data.len() as u32);
    let head = FrameHead { header_length, data_length, ..head };
    [&head.encode(header, false)[..], header, data].concat()
}

/// Inputs that mean something, named after what they are.
fn seeds() -> Vec<(&'static str, String, Vec<u8>)> {
    let mut seeds = Vec::new();
    let mut add = |target, name: &str, mode: Option<u8>, bytes: &[u8]| {
        let bytes = [mode.as_slice(), bytes].concat();
        seeds.push((target, name.to_owned(), bytes));
    };
    let (hello, welcome) = (bodies::hello().encode(), bodies::welcome().encode());
    let refusal =
        Refusal::decode(&Refusal { reason: RejectReason::Busy, ..refusal_like() }.encode()).unwrap().encode();
    let goodbye = Goodbye::because_of(&Violation::BadMagic).encode();
    let bodies: [(&str, &[u8]); 4] =
        [("hello", &hello), ("welcome", &welcome), ("refusal", &refusal), ("goodbye", &goodbye)];
    for (name, body) in bodies {
        add("wire", name, None, body);
    }
    add("wire", "uri", None, b"tcp://[::1]:5555/resource?name=value");
    let address = RemoteAddress { region: 0, offset: 8, key: [7; 16] }.encode();
    add("wire", "remote-address", None, &address);
    add("server", "hello", Some(1), &hello);
    add("server", "raw-hello", Some(0), &bodies::framed(FrameKind::Hello, &hello));
    add("server", "future-hello", Some(1), &[&hello[..8], &[7, 0, 9, 0], &hello[12..]].concat());
    add("client", "welcome", Some(1), &welcome);
    add("client", "raw-welcome", Some(0), &bodies::framed(FrameKind::Welcome, &welcome));
    add("client", "raw-refusal", Some(0), &bodies::framed(FrameKind::Refusal, &refusal));
    for (name, steps) in scribbles() {
        add("shared", &format!("{name}-alone"), Some(0), &steps);
        add("shared", &format!("{name}-disturbed"), Some(1), &steps);
    }
    for (name, bytes) in frames(&address) {
        add("wire", &format!("frame-{name}"), None, &bytes);
        for target in ["server", "client"] {
            add(target, &format!("frame-{name}"), Some(2), &bytes);
            add(target, &format!("frame-{name}-in-pieces"), Some(2 | 2 << 2), &bytes.repeat(2));
        }
    }
    seeds
}

/// Steps of a client that scribbles.
fn scribbles() -> Vec<(&'static str, Vec<u8>)> {
    // Slot and kind, then for data and landing: region, length, offset.
    let request = |slot, kind| [3, slot, kind, 0, 200, 0, 0, 0, 0, 200, 3, 4, 10, 0];
    let requests: Vec<u8> = (0..40).flat_map(|number| request(number % 4, number % 4)).collect();
    let some = &requests[..56];
    vec![
        ("words", [some, &[1, 0, 9, 1], &requests, &[1, 3, 9, 2]].concat()),
        ("holes", [some, &[8, 0, 0, 255, 255, 0], &requests].concat()),
        ("ring-holes", [some, &[8, 0, 1, 255, 255, 0], &requests].concat()),
        ("messages", vec![7, 0, 64, 4, 7, 1, 0, 7, 2, 0, 0, 9, 3, 1, 1, 1]),
        ("bytes", vec![0, 0, 16, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8, 6, 3, 9, 9, 9, 2, 0, 1, 0, 2, 5, 5]),
        ("requests", requests),
    ]
}

fn refusal_like() -> Refusal {
    let mut refusal =
        Refusal::decode(&[20, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).unwrap();
    refusal.private_data = b"later".to_vec();
    refusal
}

/// One frame of each kind and flag, with the numbers that come first.
fn frames(address: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut frames = Vec::new();
    for byte in 0..=u8::MAX {
        let Ok(kind) = FrameKind::from_byte(byte) else { continue };
        for flag in [0, 1, 2, 4, 8, 16, 32, 64, 128] {
            for (slot, sequence, length) in [(0, 0, 0), (0, 1, 0), (1, 1, 100), (2, 1, 5000)] {
                let mut head = FrameHead { slot, sequence, flags: FrameFlags(flag), ..FrameHead::new(kind) };
                if kind == FrameKind::Request {
                    head.room = 100;
                }
                let header: &[u8] = match kind {
                    FrameKind::RemoteRead | FrameKind::RemoteWrite => address,
                    FrameKind::Goodbye => &[8, 0, 0, 0, 0, 0, 0, 0],
                    FrameKind::Request | FrameKind::Response | FrameKind::OneWay => b"\x03header",
                    _ => b"",
                };
                let bytes = frame(head, header, &vec![9; length]);
                let limits = libxio::wire::FrameLimits {
                    header_bytes_max: 512,
                    data_bytes_max: 8192,
                    immediate_bytes_max: 1024,
                    extension_bytes_max: 0,
                    slots: 4,
                    own_slots: 4,
                    crc: false,
                };
                let head = bytes.first_chunk().unwrap();
                if FrameHead::decode(head, &limits).is_ok() {
                    frames.push((format!("{kind:?}-{flag}-{slot}-{length}").to_lowercase(), bytes));
                }
            }
        }
    }
    frames
}

/// `XIO_WRITE_CORPUS=1` writes the seeds into the corpus; otherwise they have to be there.
#[test]
fn every_seed_is_in_the_corpus() {
    let write = std::env::var_os("XIO_WRITE_CORPUS").is_some();
    let seeds = seeds();
    assert!(seeds.len() > 100, "{}", seeds.len());
    for (target, name, bytes) in seeds {
        let path = folder(target).join(name);
        if write {
            std::fs::create_dir_all(folder(target)).unwrap();
            std::fs::write(&path, &bytes).unwrap();
        }
        let found = std::fs::read(&path).unwrap_or_default();
        assert!(found == bytes, "{}: write it with XIO_WRITE_CORPUS=1", path.display());
    }
}

#[test]
fn the_corpus_is_borne() {
    for (target, body) in TARGETS {
        for (path, input) in corpus(target) {
            // Told where it fails.
            println!("{}", path.display());
            body(&input);
        }
    }
}

/// An input of the corpus with some bytes changed, cut and doubled.
fn changed(target: &'static str) -> impl Strategy<Value = Vec<u8>> {
    let inputs: Vec<_> = corpus(target).into_values().collect();
    let one = prop::sample::select(inputs);
    (one.clone(), one, vec((any::<prop::sample::Index>(), any::<u8>()), 0..6), any::<prop::sample::Index>())
        .prop_map(|(first, second, changes, cut)| {
            let mut bytes = first;
            bytes.extend_from_slice(second.get(1..).unwrap_or_default());
            bytes.truncate(cut.index(bytes.len() + 1));
            if !bytes.is_empty() {
                for (place, value) in changes {
                    let place = place.index(bytes.len());
                    bytes[place] = value;
                }
            }
            bytes
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn changed_inputs_are_borne_by_the_decoders(input in changed("wire")) {
        bodies::wire(&input);
    }

    #[test]
    fn changed_inputs_are_borne_by_a_server(input in changed("server")) {
        bodies::server(&input);
    }

    #[test]
    fn changed_inputs_are_borne_by_a_client(input in changed("client")) {
        bodies::client(&input);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn changed_inputs_are_borne_by_a_server_on_shared_memory(input in changed("shared")) {
        bodies::shared(&input);
    }
}
