#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| libxio_fuzz::client(input));
