//! `socket(PF_KEY, SOCK_RAW, PF_KEY_V2)` of unmodified programs under `ipsec run`, against a real data plane in a network
//! namespace. Needs root, or `unshare -Ur`, and a C compiler; says what it skips.

mod calls;
mod conformance;
mod dialect;
#[expect(dead_code, reason = "the tests of the daemon need more of it")]
#[path = "../daemon/host.rs"]
mod host;
mod page;
#[path = "../../../klips/tests/pfkey_cases/mod.rs"]
mod pfkey_cases;
#[path = "../../../klips/tests/pfkey_support/mod.rs"]
mod pfkey_support;
mod restart;
mod setting;
#[path = "../support/seven.rs"]
mod seven;
#[path = "../support/skipped.rs"]
mod skipped;
mod strangers;
