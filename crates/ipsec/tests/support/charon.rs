//! strongSwan's charon, as Debian has it, in a namespace; ESP by its own user-space implementation.

#![allow(dead_code, reason = "each test binary uses its own part of this")]

use crate::skipped::skipped;
use crate::wait;
use ipsec::host::netns::Namespace;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

const CHARON: &str = "/usr/lib/ipsec/charon";

/// The root of another Debian, whose newer charon takes the place of this machine's.
pub(crate) fn root() -> Option<String> {
    std::env::var("TULIPS_STRONGSWAN_ROOT")
        .ok()
        .filter(|root| !root.is_empty() && std::path::Path::new(&format!("{root}{CHARON}")).exists())
}

pub(crate) struct Charon {
    pub(crate) namespace: Namespace,
    dir: tempfile::TempDir,
    /// What starts it.
    script: String,
    process: Child,
}

/// What charon's child is for, and whole sections beside the connection.
pub(crate) struct Children {
    pub(crate) local_ts: &'static str,
    pub(crate) remote_ts: &'static str,
    pub(crate) more: &'static str,
    /// The newest version of TLS that it speaks in EAP.
    pub(crate) tls: &'static str,
    /// Settings of the daemon (strongswan.conf).
    pub(crate) daemon: &'static str,
}

impl Children {
    /// The networks behind the two gateways.
    pub(crate) const NETS: Self =
        Self { local_ts: "10.2.0.0/24", remote_ts: "10.1.0.0/24", more: "", tls: "1.2", daemon: "" };
}

/// Whether there is a charon to try with.
pub(crate) fn is_there() -> bool {
    let there = root().is_some() || std::path::Path::new(CHARON).exists();
    if !there {
        skipped(
            "no strongSwan (apt-get install strongswan-charon strongswan-swanctl libcharon-extra-plugins libcharon-extauth-plugins)",
        );
    }
    there
}

impl Charon {
    pub(crate) fn start(namespace: Namespace, ike: &str, esp: &str, more: &str) -> Self {
        Self::start_with(namespace, ike, esp, more, &Children::NETS)
    }

    pub(crate) fn start_with(
        namespace: Namespace,
        ike: &str,
        esp: &str,
        more: &str,
        children: &Children,
    ) -> Self {
        let dir = tempfile::tempdir().expect("directory");
        let by_secret = |id: &str| format!("auth = psk\n    id = {id}");
        Self::start_as(namespace, dir, (ike, esp, more), (&by_secret("east"), &by_secret("west")), children)
    }

    /// Starts it with what `dir` has of keys and certificates, and with what it says of itself and of us.
    pub(crate) fn start_as(
        namespace: Namespace,
        dir: tempfile::TempDir,
        (ike, esp, more): (&str, &str, &str),
        (local, remote): (&str, &str),
        children: &Children,
    ) -> Self {
        let Children { local_ts, remote_ts, more: sections, tls, daemon } = children;
        let at = dir.path().display();
        let log = dir.path().join("charon.log");
        let older = "aes gcm ccm ctr chapoly sha1 sha2 hmac cmac xcbc curve25519 gmp md4 md5 des";
        let older = if root().is_some() { "" } else { older };
        fs::write(
            dir.path().join("strongswan.conf"),
            format!(
                "charon {{
  load = random nonce openssl {older} eap-identity eap-mschapv2 eap-tls kdf pem pkcs1 pkcs8 x509 constraints pubkey revocation kernel-libipsec kernel-netlink socket-default updown vici counters
  threads = 16
  {daemon}
  tls {{ version_max = {tls} }}
  filelog {{ log {{ path = {}
    flush_line = yes
    default = 1
    ike = 2
    cfg = 2
    knl = 1 }} }}
  plugins {{ vici {{ socket = unix://{at}/vici }}
    kernel-libipsec {{ allow_peer_ts = yes }} }}
}}
",
                log.display()
            ),
        )
        .expect("strongswan.conf");
        fs::write(
            dir.path().join("swanctl.conf"),
            format!(
                "connections {{ peer {{
  version = 2
  local_addrs = 198.51.100.7
  remote_addrs = 192.0.2.1
  proposals = {ike}
  mobike = no
  {more}
  local {{ {local} }}
  remote {{ {remote} }}
  children {{ net {{
    local_ts = {local_ts}
    remote_ts = {remote_ts}
    esp_proposals = {esp}
    start_action = none }} }}
}} }}
secrets {{ ike-1 {{ secret = \"the quick brown fox\" }} }}
{sections}
"
            ),
        )
        .expect("swanctl.conf");
        // It writes below /run, where another may be running.
        let script = match root() {
            None => format!("mount -t tmpfs tmpfs /run && mkdir -p /run/lock && exec {CHARON}"),
            Some(root) => format!(
                "mkdir -p {root}{at} && mount --bind {at} {root}{at} && mount --rbind /dev {root}/dev && \
                 mount -t proc proc {root}/proc && mount -t tmpfs tmpfs {root}/run && mkdir -p {root}/run/lock && \
                 exec chroot {root} {CHARON}"
            ),
        };
        let process = Self::spawn(&namespace, &dir, &script);
        let charon = Self { namespace, dir, script, process };
        charon.load();
        charon
    }

    fn spawn(namespace: &Namespace, dir: &tempfile::TempDir, script: &str) -> Child {
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", script]).env("STRONGSWAN_CONF", dir.path().join("strongswan.conf"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        namespace.spawn(&mut command).expect("charon")
    }

    fn load(&self) {
        wait("charon", || self.vici().exists());
        let file = self.dir.path().join("swanctl.conf");
        let loaded = self.swanctl(&["--load-all", "--file", &file.display().to_string()]);
        assert!(loaded.status.success(), "{}", String::from_utf8_lossy(&loaded.stderr));
    }

    /// Ends it as a crash would: it says nothing to anybody.
    pub(crate) fn kill(&mut self) {
        self.process.kill().expect("kill");
        self.process.wait().expect("end");
    }

    /// Starts it anew after [`Charon::kill`].
    pub(crate) fn restart(&mut self) {
        let _ = fs::remove_file(self.vici());
        self.process = Self::spawn(&self.namespace, &self.dir, &self.script);
        self.load();
    }

    fn vici(&self) -> PathBuf {
        self.dir.path().join("vici")
    }

    pub(crate) fn swanctl(&self, args: &[&str]) -> Output {
        let mut command = Command::new("swanctl");
        command.args(args).arg("--uri").arg(format!("unix://{}", self.vici().display()));
        command
            .env("STRONGSWAN_CONF", self.dir.path().join("strongswan.conf"))
            .env("SWANCTL_DIR", self.dir.path());
        self.namespace.run(|| command.output()).expect("namespace").expect("swanctl")
    }

    pub(crate) fn done(&self, args: &[&str]) -> String {
        let output = self.swanctl(args);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{args:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
        text
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("charon.log")).unwrap_or_default()
    }
}

impl Drop for Charon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(60).collect();
            eprintln!("---- charon");
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
