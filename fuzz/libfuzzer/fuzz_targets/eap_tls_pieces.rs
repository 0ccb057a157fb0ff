#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::eap_tls_pieces::run(data));
