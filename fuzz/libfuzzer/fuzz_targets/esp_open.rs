#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::esp_open::run(data));
