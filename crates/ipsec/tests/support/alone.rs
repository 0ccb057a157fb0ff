//! Tests that measure what is lost run one at a time, whoever runs them: another beside them takes the processors from the
//! daemons, and the kernel drops what a sleeping process does not fetch. nextest is told so; `cargo test` runs tests as threads.

use std::cell::OnceCell;
use std::fs::File;

thread_local! {
    static TURN: OnceCell<File> = const { OnceCell::new() };
}

/// Waits until no other such test runs; this one is alone from then on, to the end of its thread.
pub(crate) fn wait() {
    TURN.with(|turn| {
        turn.get_or_init(|| {
            let file =
                File::create(concat!(env!("CARGO_TARGET_TMPDIR"), "/alone.lock")).expect("a lock file");
            file.lock().expect("a lock");
            file
        });
    });
}
