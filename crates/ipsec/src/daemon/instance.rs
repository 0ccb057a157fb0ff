//! One daemon per run directory: the lock, the pid file, and what an earlier daemon left behind.
//!
//! The lock goes when its holder goes, however it goes; it decides. The pid file tells others who the holder is.

use crate::process::Process;
use crate::rundir::{self, Rundir};
use pfkey::dialect::Dialect;
use rustix::mount::{UnmountFlags, unmount};
use std::fs::{self, File};
use std::io;

/// Why the run directory cannot be ours.
#[derive(Debug)]
pub enum ClaimError {
    /// Another daemon lives; its process if it says so.
    Taken(Option<Process>),
    /// The directory or a file in it.
    Io(String),
}

/// The run directory while it is ours. Dropping it removes what we made there.
#[derive(Debug)]
pub struct Instance {
    rundir: Rundir,
    _lock: File,
}

impl Instance {
    /// Makes the run directory ours, and clean.
    pub fn claim(rundir: &Rundir) -> Result<Self, ClaimError> {
        let failed = |what: &str, error: io::Error| {
            ClaimError::Io(format!("{what} {}: {error}", rundir.path().display()))
        };
        rundir.create().map_err(|e| failed("cannot make the run directory", e))?;
        let lock =
            rundir::lock(&rundir.klips_lock()).map_err(|e| failed("cannot lock the run directory", e))?;
        let Some(lock) = lock else {
            return Err(ClaimError::Taken(Process::read(&rundir.klips_pid()).filter(Process::is_alive)));
        };
        let instance = Self { rundir: rundir.clone(), _lock: lock };
        instance.clean();
        Ok(instance)
    }

    /// Says in the pid file who we are: from now on we can be asked.
    pub fn announce(&self) -> io::Result<()> {
        Process::me()?.write(&self.rundir.klips_pid())
    }

    /// Removes what a daemon leaves, dead or leaving.
    fn clean(&self) {
        // A dead FUSE server's mount point answers ENOTCONN to everything but this. Each start after a kill -9 left one.
        while unmount(self.rundir.proc(), UnmountFlags::DETACH).is_ok() {}
        let _ = fs::remove_dir(self.rundir.proc());
        let dialects = Dialect::ALL.iter().map(|dialect| self.rundir.dialect_sock(*dialect));
        let others = [self.rundir.ike_sock(), self.rundir.klips_ctl(), self.rundir.klips_pid()];
        for path in dialects.chain(others) {
            let _ = fs::remove_file(path);
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.clean();
        // While still locked: whoever waits for this name then sees that it is gone and makes a new one.
        let _ = fs::remove_file(self.rundir.klips_lock());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    fn fresh() -> (tempfile::TempDir, Rundir) {
        let dir = tempfile::tempdir().unwrap();
        let rundir = Rundir::new(dir.path().join("run"));
        (dir, rundir)
    }

    #[test]
    fn there_is_one_daemon_per_directory_and_others_are_told_who() {
        let (_dir, rundir) = fresh();
        let first = Instance::claim(&rundir).unwrap();
        assert!(matches!(Instance::claim(&rundir), Err(ClaimError::Taken(None))));
        first.announce().unwrap();
        let Err(ClaimError::Taken(Some(who))) = Instance::claim(&rundir) else { panic!() };
        assert_eq!(who, Process::me().unwrap());
        drop(first);
        assert_eq!(fs::read_dir(rundir.path()).unwrap().count(), 0);
        assert!(Instance::claim(&rundir).is_ok());
    }

    #[test]
    fn what_a_killed_daemon_left_is_removed() {
        let (_dir, rundir) = fresh();
        rundir.create().unwrap();
        // The lock of a killed process is not held; its files are there.
        for path in [rundir.pf_key_sock(), rundir.klips_ctl(), rundir.klips_lock(), rundir.klips_pid()] {
            fs::write(path, "1\nstart=1\n").unwrap();
        }
        fs::create_dir(rundir.proc()).unwrap();
        let instance = Instance::claim(&rundir).unwrap();
        assert!(!rundir.klips_pid().exists() && !rundir.pf_key_sock().exists() && !rundir.proc().exists());
        drop(instance);
        assert_eq!(fs::read_dir(rundir.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_lock_is_for_root_alone() {
        let (_dir, rundir) = fresh();
        let _instance = Instance::claim(&rundir).unwrap();
        assert_eq!(fs::metadata(rundir.klips_lock()).unwrap().mode() & 0o777, 0o600);
    }
}
