//! A server on shared memory whose client writes anything into every page that they share.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| libxio_fuzz::shared(input));
