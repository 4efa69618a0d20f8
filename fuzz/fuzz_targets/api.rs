#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| yado_fuzz::api::check(data));
