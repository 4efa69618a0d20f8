#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| yado_fuzz::check(&["web.service", "web-2.service"], data));
