#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| yado_fuzz::check(&["Procfile", "app.json", "runtime.txt"], data));
