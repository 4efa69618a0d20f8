#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| yado_fuzz::check(&["compose.yaml", ".env", "compose.override.yaml", "app.env"], data));
