//! The fuzz targets: each takes octets and panics if something that must never happen happens.
//!
//! `cargo run -p fuzz` replays the committed corpora and mutates them for a bounded number of steps; `fuzz/libfuzzer`
//! has the same targets for `cargo fuzz`, which sees coverage and explores for as long as it is left alone.

mod dialect;
pub mod eap_tls_pieces;
pub mod esp_open;
pub mod ike_dialogue;
pub mod ike_kinds;
pub mod ike_message;
pub mod ip_walk;
mod packets;
pub mod pfkey_klips;
pub mod pfkey_linux;
pub mod pfkey_parse;

/// One target.
pub struct Target {
    /// Its name, and that of its corpus directory.
    pub name: &'static str,
    /// What it does with octets.
    pub run: fn(&[u8]),
    /// Where its corpus begins: valid inputs, made by the code that makes them in earnest.
    pub seeds: fn() -> Vec<(String, Vec<u8>)>,
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "pfkey_parse", run: pfkey_parse::run, seeds: pfkey_parse::seeds },
    Target { name: "pfkey_klips", run: pfkey_klips::run, seeds: pfkey_klips::seeds },
    Target { name: "pfkey_linux", run: pfkey_linux::run, seeds: pfkey_linux::seeds },
    Target { name: "ip_walk", run: ip_walk::run, seeds: ip_walk::seeds },
    Target { name: "esp_open", run: esp_open::run, seeds: esp_open::seeds },
    Target { name: "eap_tls_pieces", run: eap_tls_pieces::run, seeds: eap_tls_pieces::seeds },
    Target { name: "ike_message", run: ike_message::run, seeds: ike_message::seeds },
    Target { name: "ike_dialogue", run: ike_dialogue::run, seeds: ike_dialogue::seeds },
    Target { name: "ike_kinds", run: ike_kinds::run, seeds: ike_kinds::seeds },
];
