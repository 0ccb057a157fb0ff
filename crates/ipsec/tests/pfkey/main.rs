//! Every documented fault and behaviour of pf_key(7P), asked of a real daemon over its socket, in a network namespace.
//! Needs root, or `unshare -Ur`; says what it skips. With `--nocapture` the whole table is printed.

#[expect(dead_code, reason = "the tests of the daemon need more of it")]
#[path = "../daemon/host.rs"]
mod host;
#[path = "../../../klips/tests/pfkey_cases/mod.rs"]
mod pfkey_cases;
#[path = "../../../klips/tests/pfkey_support/mod.rs"]
mod pfkey_support;
mod scenes;
#[path = "../support/seven.rs"]
mod seven;
#[path = "../support/skipped.rs"]
mod skipped;
mod wire;

use wire::Daemon;

#[test]
fn the_daemon_answers_as_documented() {
    let Some(mut daemon) = Daemon::start() else { return };
    pfkey_cases::run(&mut daemon);
    daemon.stop();
}
