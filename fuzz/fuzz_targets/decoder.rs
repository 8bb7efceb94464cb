#![no_main]

libfuzzer_sys::fuzz_target!(
    // libFuzzer's own hook ends the process at every panic, also where `codec::guard` makes an error of it. One that nobody catches ends
    // it all the same.
    init: std::panic::set_hook(Box::new(|_| ())),
    |data: &[u8]| archive_core::fuzz::decoder(data)
);
