//! The end of a worker that nobody has told to end.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::abort;
use std::thread;

/// Does what a worker does.
///
/// One that fails must not leave a device that looks attached and carries nothing: it is said and the daemon ends. Its devices
/// stay closed, and whoever looks after it starts another.
pub(super) fn or_end(run: impl FnOnce() -> io::Result<()>) {
    let why = match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.to_string(),
        Err(_) => "it panicked".into(),
    };
    let thread = thread::current();
    tracing::error!("worker {} has failed, ending: {why}", thread.name().unwrap_or("without a name"));
    abort();
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    /// A process whose worker ends in some way, and what becomes of it: the signal, or the exit code of who outlived it.
    const OUTLIVED: i32 = 7;

    fn process_whose_worker(how: &str) -> (Option<i32>, Option<i32>, String) {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "--nocapture", "host::worker::end::tests::the_process"]);
        let output = command.env("TULIPS_TEST_WORKER", how).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.signal(), output.status.code(), said)
    }

    /// Nothing by itself: the process that the test below starts.
    #[test]
    fn the_process() {
        let Ok(how) = std::env::var("TULIPS_TEST_WORKER") else { return };
        crate::log::init(None);
        let worker = thread::Builder::new().name("ipsec0.0".into()).spawn(move || {
            or_end(|| match how.as_str() {
                "fails" => Err(io::ErrorKind::OutOfMemory.into()),
                "panics" => panic!("a fault"),
                _ => Ok(()),
            });
        });
        let _ = worker.unwrap().join();
        std::process::exit(OUTLIVED);
    }

    #[test]
    fn a_worker_that_fails_says_so_and_takes_the_daemon_with_it() {
        for (how, why) in [("fails", "out of memory"), ("panics", "it panicked")] {
            let (signal, _, said) = process_whose_worker(how);
            assert_eq!(signal, Some(libc::SIGABRT), "{said}");
            assert!(said.contains(&format!("worker ipsec0.0 has failed, ending: {why}")), "{said}");
        }
        let (_, code, said) = process_whose_worker("ends");
        assert_eq!(code, Some(OUTLIVED), "{said}");
        assert!(!said.contains("has failed"), "{said}");
    }
}
