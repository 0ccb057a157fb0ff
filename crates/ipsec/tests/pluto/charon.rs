//! With strongSwan, as Debian has it, in the place of east; ESP by its own user-space implementation.

use super::{Gateway, Inside, SECRET, passes, scene, wait};
use ipsec::host::netns::Namespace;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

const CHARON: &str = "/usr/lib/ipsec/charon";

/// The root of another Debian, whose newer charon takes the place of this machine's.
fn root() -> Option<String> {
    std::env::var("TULIPS_STRONGSWAN_ROOT")
        .ok()
        .filter(|root| !root.is_empty() && std::path::Path::new(&format!("{root}{CHARON}")).exists())
}

pub(crate) struct Charon {
    pub(crate) namespace: Namespace,
    dir: tempfile::TempDir,
    process: Child,
}

/// What charon's child is for, and whole sections beside the connection.
pub(crate) struct Children {
    pub(crate) local_ts: &'static str,
    pub(crate) remote_ts: &'static str,
    pub(crate) more: &'static str,
}

impl Children {
    /// The networks behind the two gateways.
    pub(crate) const NETS: Self = Self { local_ts: "10.2.0.0/24", remote_ts: "10.1.0.0/24", more: "" };
}

/// Whether there is a charon to try with.
pub(crate) fn is_there() -> bool {
    let there = root().is_some() || std::path::Path::new(CHARON).exists();
    if !there {
        eprintln!(
            "skipped: no strongSwan (apt-get install strongswan-charon strongswan-swanctl libcharon-extra-plugins)"
        );
    }
    there
}

impl Charon {
    fn start(namespace: Namespace, ike: &str, esp: &str, more: &str) -> Self {
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
        let Children { local_ts, remote_ts, more: sections } = children;
        let at = dir.path().display();
        let log = dir.path().join("charon.log");
        let older = "aes gcm ccm ctr chapoly sha1 sha2 hmac cmac xcbc curve25519 gmp md4 md5 des";
        let older = if root().is_some() { "" } else { older };
        fs::write(
            dir.path().join("strongswan.conf"),
            format!(
                "charon {{
  load = random nonce openssl {older} eap-identity eap-mschapv2 kdf pem pkcs1 pkcs8 x509 constraints pubkey revocation kernel-libipsec kernel-netlink socket-default updown vici counters
  threads = 16
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
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", &script]).env("STRONGSWAN_CONF", dir.path().join("strongswan.conf"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = namespace.spawn(&mut command).expect("charon");
        let charon = Self { namespace, dir, process };
        wait("charon", || charon.vici().exists());
        let file = charon.dir.path().join("swanctl.conf");
        let loaded = charon.swanctl(&["--load-all", "--file", &file.display().to_string()]);
        assert!(loaded.status.success(), "{}", String::from_utf8_lossy(&loaded.stderr));
        charon
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

    pub(crate) fn inside(&self) -> Inside<'_> {
        (&self.namespace, [10, 2, 0, 1].into())
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

/// Ours in the west, charon in the east; `None` where there is no charon.
fn pair(ike: &str, esp: &str, ours: &str, theirs: &str) -> Option<(Gateway, Charon, Namespace)> {
    if !is_there() {
        return None;
    }
    let [left, router, right] = scene()?;
    let conn = format!("{}\tauto=add\n\tike={ike}\n\tesp={esp}\n{ours}", super::CONN);
    let mut west = Gateway::new(left, "10.1.0.1", &conn, SECRET);
    west.start_klips();
    west.start_pluto();
    Some((west, Charon::start(right, ike, esp, theirs), router))
}

pub(crate) fn both_ways(west: &Gateway, east: &Charon) {
    let ours = (&west.namespace, west.inside);
    passes(ours, east.inside());
    passes(east.inside(), ours);
}

#[test]
fn strongswan_answers_us_and_both_rekey_everything() {
    for (ike, esp) in [
        ("aes256gcm16-prfsha256-x25519", "aes256gcm16-x25519-noesn"),
        ("aes128-sha256-modp2048", "aes128-sha256-modp2048-noesn"),
        ("chacha20poly1305-prfsha512-ecp384", "chacha20poly1305-ecp384-noesn"),
    ] {
        let Some((west, east, _router)) = pair(ike, esp, "", "") else { return };
        let said = west.done(&["auto", "--up", "west-east"]);
        assert!(said.contains("IPsec SA established"), "{ike}: {said}");
        both_ways(&west, &east);
        let before = west.spis();
        west.done(&["auto", "--rekey", "west-east"]);
        wait("our new SAs", || west.spis().len() == 1 && west.spis() != before);
        both_ways(&west, &east);
        let before = west.spis();
        east.done(&["--rekey", "--child", "net"]);
        wait("its new SAs", || west.spis().len() == 1 && west.spis() != before);
        both_ways(&west, &east);
        west.done(&["auto", "--rekey", "--ike", "west-east"]);
        east.done(&["--rekey", "--ike", "peer"]);
        both_ways(&west, &east);
        west.done(&["auto", "--down", "west-east"]);
        wait("charon to forget it", || !east.done(&["--list-sas"]).contains("ESTABLISHED"));
    }
}

#[test]
fn strongswan_begins_and_ends_it() {
    let (ike, esp) = ("aes256gcm16-prfsha384-ecp256", "aes256gcm16-ecp256-noesn");
    let Some((west, east, _router)) = pair(ike, esp, "", "fragmentation = force") else { return };
    east.done(&["--initiate", "--child", "net", "--timeout", "20"]);
    wait("up", || west.state() == "up");
    both_ways(&west, &east);
    east.done(&["--terminate", "--ike", "peer", "--timeout", "20"]);
    wait("down", || west.spis().is_empty());
}

#[test]
fn strongswans_refusals_are_said_in_words_that_help() {
    let ike = "aes256gcm16-prfsha256-x25519";
    let Some((west, _east, _router)) =
        pair(ike, "aes256gcm16-noesn", "\tkeyingtries=1\n\tleftsubnet=10.7.0.0/24\n", "")
    else {
        return;
    };
    let output = west.ipsec(&["auto", "--up", "west-east"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains("leftsubnet="), "{said}");
}

/// With ML-KEM, which needs strongSwan 6: `TULIPS_STRONGSWAN_ROOT=DIR`, a root directory of a Debian that has it.
#[test]
fn strongswan_6_and_we_exchange_keys_with_ml_kem_in_ike_and_child_whoever_begins() {
    if root().is_none() {
        eprintln!("skipped: no strongSwan 6 (TULIPS_STRONGSWAN_ROOT: the root of a Debian that has it)");
        return;
    }
    // Beside a group, several of them, and alone; as strongSwan writes them in its log.
    for (words, theirs) in [
        ("x25519-ke1_mlkem768", "CURVE_25519/KE1_ML_KEM_768"),
        ("ecp384-ke1_mlkem1024", "ECP_384/KE1_ML_KEM_1024"),
        ("x25519-ke1_mlkem512-ke2_mlkem1024", "CURVE_25519/KE1_ML_KEM_512/KE2_ML_KEM_1024"),
        ("mlkem768", "ML_KEM_768"),
    ] {
        let (ike, esp) = (format!("aes256gcm16-prfsha384-{words}"), format!("aes256gcm16-{words}-noesn"));
        for we_begin in [true, false] {
            let Some((west, east, _router)) = pair(&ike, &esp, "", "") else { return };
            if we_begin {
                west.done(&["auto", "--up", "west-east"]);
            } else {
                east.done(&["--initiate", "--child", "net", "--timeout", "20"]);
                wait("up", || west.state() == "up");
            }
            both_ways(&west, &east);
            rekeyed_by_both(&west, &east, words);
            // Once in the beginning and twice anew for the IKE SA; twice for the child, whose first keys are the IKE SA's.
            let chosen = |what: &str| {
                let said = format!("selected proposal: {what}");
                let log = east.log();
                let all = |line: &&str| theirs.split('/').all(|method| line.contains(method));
                log.lines().filter(|line| line.contains(&said)).filter(all).count()
            };
            assert_eq!((chosen("IKE:"), chosen("ESP:")), (3, 2), "{words}");
        }
    }
}

/// The child and the IKE SA are rekeyed at the word of either side, with IKE_FOLLOWUP_KE where that is agreed, and traffic has
/// its way each time.
fn rekeyed_by_both(west: &Gateway, east: &Charon, algorithms: &str) {
    let said = || west.status()["ike_sas"][0]["algorithms"].as_str().unwrap_or_default().to_owned();
    assert!(said().ends_with(algorithms), "{}", said());
    let before = west.spis();
    west.done(&["auto", "--rekey", "west-east"]);
    wait("our new SAs", || west.spis().len() == 1 && west.spis() != before);
    both_ways(west, east);
    let before = west.spis();
    east.done(&["--rekey", "--child", "net"]);
    wait("its new SAs", || west.spis().len() == 1 && west.spis() != before);
    both_ways(west, east);
    let all = || west.status()["ike_sas"].as_array().cloned().unwrap_or_default();
    for we_ask in [true, false] {
        let before = all()[0]["ike"].clone();
        if we_ask {
            west.done(&["auto", "--rekey", "--ike", "west-east"]);
        } else {
            east.done(&["--rekey", "--ike", "peer"]);
        }
        wait("another IKE SA", || all().len() == 1 && all()[0]["ike"] != before);
        assert!(said().ends_with(algorithms), "{}", said());
        both_ways(west, east);
    }
}
