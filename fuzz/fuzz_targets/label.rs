#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| archive_core::fuzz::label(data));
