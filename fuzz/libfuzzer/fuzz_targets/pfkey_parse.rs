#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::pfkey_parse::run(data));
