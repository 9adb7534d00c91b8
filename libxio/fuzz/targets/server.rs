//! A server that a client sends arbitrary bytes.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| libxio_fuzz::server(input));
