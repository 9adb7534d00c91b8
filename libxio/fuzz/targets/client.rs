//! A client that a server answers with arbitrary bytes.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| libxio_fuzz::client(input));
