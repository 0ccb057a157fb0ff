//! Where the files of one instance are: the configuration and the run directory.
//!
//! Two instances with different directories never meet. Everything of an instance is named here and nowhere else.

use pfkey::dialect::Dialect;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::env;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The directory with `ipsec.conf`: `IPSEC_CONFS`, else `/etc`.
pub fn confs() -> PathBuf {
    env::var_os("IPSEC_CONFS").filter(|dir| !dir.is_empty()).map_or_else(|| "/etc".into(), PathBuf::from)
}

/// Where the host's name servers stand.
pub const RESOLV_CONF: &str = "/etc/resolv.conf";

/// The file that a peer's name servers are written to: `IPSEC_RESOLV_CONF`, else that of the host. A network namespace may
/// have its own.
pub fn resolv_conf() -> PathBuf {
    let file = env::var_os("IPSEC_RESOLV_CONF").filter(|file| !file.is_empty());
    file.map_or_else(|| RESOLV_CONF.into(), PathBuf::from)
}

/// The run directory of one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rundir(PathBuf);

impl Rundir {
    /// `IPSEC_RUNDIR`, else `/var/run/pluto` as in ipsec_setup(8).
    pub fn from_env() -> Self {
        let dir = env::var_os("IPSEC_RUNDIR").filter(|dir| !dir.is_empty());
        let dir = dir.map_or_else(|| "/var/run/pluto".into(), PathBuf::from);
        // A daemon leaves the directory it was started in.
        Self(std::path::absolute(&dir).unwrap_or(dir))
    }

    /// This directory.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Makes the directory and those above it, readable by all: what is secret in it protects itself.
    ///
    /// One that is there already must be one that only we can write to: another could have put a symbolic link where we
    /// are going to write, or our socket's name on something else.
    pub fn create(&self) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(&self.0)?;
        let at = fs::metadata(&self.0)?;
        let owned = [0, rustix::process::geteuid().as_raw()].contains(&at.uid());
        let shared = at.mode() & 0o002 != 0
            || at.mode() & 0o020 != 0 && ![0, rustix::process::getegid().as_raw()].contains(&at.gid());
        if owned && !shared {
            return Ok(());
        }
        let dir = self.0.display();
        let why = format!(
            "others can write to {dir}: `chown root` and `chmod 755` it, or let IPSEC_RUNDIR name another"
        );
        Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
    }

    /// Where PF_KEY clients connect.
    pub fn pf_key_sock(&self) -> PathBuf {
        self.dialect_sock(Dialect::Native)
    }

    /// Where PF_KEY clients of a dialect connect.
    pub fn dialect_sock(&self, dialect: Dialect) -> PathBuf {
        self.0.join(dialect.socket())
    }

    /// Where the key daemon takes and sends IKE messages on klips' UDP port.
    pub fn ike_sock(&self) -> PathBuf {
        self.0.join("ike.sock")
    }

    /// Where `ipsec auto` and `ipsec whack` connect to steer the key daemon.
    pub fn pluto_ctl(&self) -> PathBuf {
        self.0.join("pluto.ctl")
    }

    /// Who the key daemon is.
    pub fn pluto_pid(&self) -> PathBuf {
        self.0.join("pluto.pid")
    }

    /// What the key daemon has installed: for its successor, should it be killed.
    pub fn pluto_sas(&self) -> PathBuf {
        self.0.join("pluto.sas")
    }

    /// Which peer was given which address.
    pub fn pluto_leases(&self) -> PathBuf {
        self.0.join("pluto.leases")
    }

    /// Held locked by the key daemon for as long as it lives.
    pub fn pluto_lock(&self) -> PathBuf {
        self.0.join("pluto.lock")
    }

    /// Where `ipsec` connects to steer the daemon.
    pub fn klips_ctl(&self) -> PathBuf {
        self.0.join("klips.ctl")
    }

    /// Who the data-plane daemon is.
    pub fn klips_pid(&self) -> PathBuf {
        self.0.join("klips.pid")
    }

    /// Held locked by the daemon for as long as it lives: one per directory.
    pub fn klips_lock(&self) -> PathBuf {
        self.0.join("klips.lock")
    }

    /// Held locked by `ipsec setup` while it changes something.
    pub fn setup_lock(&self) -> PathBuf {
        self.0.join("ipsec_setup.lock")
    }

    /// The lock file of `ipsec setup`: there while the subsystem runs.
    pub fn setup_pid(&self) -> PathBuf {
        self.0.join("ipsec_setup.pid")
    }

    /// Who starts daemons again that died.
    pub fn supervisor_pid(&self) -> PathBuf {
        self.0.join("supervisor.pid")
    }

    /// Held locked by the supervisor for as long as it lives.
    pub fn supervisor_lock(&self) -> PathBuf {
        self.0.join("supervisor.lock")
    }

    /// What the supervisor has done, for `ipsec setup status`.
    pub fn supervisor_state(&self) -> PathBuf {
        self.0.join("supervisor.json")
    }

    /// How the host forwarded packets before `forwardcontrol=yes` changed it.
    pub fn forwarding(&self) -> PathBuf {
        self.0.join("forwarding")
    }

    /// What /etc/resolv.conf was before a peer's name servers stood in it.
    pub fn resolv_conf(&self) -> PathBuf {
        self.0.join("resolv.conf.before")
    }

    /// What `ipsec setup start` found out, in shell syntax.
    pub fn info(&self) -> PathBuf {
        self.0.join("ipsec.info")
    }

    /// What there can be after an accident besides what klips removes itself: files, and halves of files that were being
    /// written.
    pub fn leavings(&self) -> Vec<PathBuf> {
        let whole = [
            self.info(),
            self.setup_pid(),
            self.pluto_pid(),
            self.pluto_ctl(),
            self.pluto_lock(),
            self.pluto_sas(),
            self.supervisor_pid(),
            self.supervisor_lock(),
            self.supervisor_state(),
        ];
        let half = [
            self.klips_pid().with_extension("pid.new"),
            self.setup_pid().with_extension("pid.new"),
            self.pluto_pid().with_extension("pid.new"),
            self.pluto_sas().with_extension("sas.new"),
            self.supervisor_pid().with_extension("pid.new"),
            self.supervisor_state().with_extension("json.new"),
            self.forwarding().with_extension("new"),
        ];
        whole.into_iter().chain(half).collect()
    }

    /// Where the tables appear as files.
    pub fn proc(&self) -> PathBuf {
        self.0.join("proc")
    }
}

/// Makes and locks a file that is removed while still locked; `None` if another holds it.
pub fn lock(path: &Path) -> io::Result<Option<File>> {
    loop {
        // Readable for nobody else: who can open a file can lock it, and would keep us from starting.
        let file = File::options().write(true).create(true).truncate(false).mode(0o600).open(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        // The holder before us may have removed the name between our open and our lock.
        if fs::metadata(path).is_ok_and(|at| file.metadata().is_ok_and(|our| at.ino() == our.ino())) {
            return Ok(Some(file));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, chown};

    #[test]
    fn a_run_directory_others_can_write_to_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let rundir = Rundir::new(dir.path().join("run"));
        rundir.create().unwrap();
        rundir.create().unwrap();
        let mode = |mode| fs::set_permissions(rundir.path(), fs::Permissions::from_mode(mode)).unwrap();
        for open in [0o777, 0o1777, 0o757] {
            mode(open);
            let why = rundir.create().unwrap_err();
            assert!(why.to_string().contains("others can write to"), "{open:o}: {why}");
        }
        mode(0o700);
        rundir.create().unwrap();
        if rustix::process::geteuid().is_root() {
            chown(rundir.path(), Some(12_345), None).unwrap();
            rundir.create().unwrap_err();
            chown(rundir.path(), Some(0), Some(12_345)).unwrap();
            mode(0o775);
            rundir.create().unwrap_err();
            mode(0o755);
            rundir.create().unwrap();
        }
    }
}
