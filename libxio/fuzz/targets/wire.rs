//! The decoders of frames, handshake bodies and uris.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| libxio_fuzz::wire(input));
