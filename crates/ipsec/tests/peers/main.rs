//! Our daemon and implementations of ESP and AH that share nothing with it, joined by a cable: every algorithm, outer family, carrier
//! and kind of sequence number, through the commands a person types.

mod linux;
mod scapy;
#[path = "../support/skipped.rs"]
mod skipped;

use ipsec::ctl::{Client, Request};
use ipsec::host::netlink::{Link, Netlink, Route};
use ipsec::host::netns::Namespace;
use ipsec::process::Process;
use ipsec::rundir::Rundir;
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::time::Duration;

/// As `ipsec spi --esp` calls it, as the oracle calls cipher and integrity, and the octets of their keys.
const ALGORITHMS: &[(&str, &str, usize, &str, usize)] = &[
    ("aes-gcm16", "aes-gcm-16", 20, "none", 0),
    ("aes-gcm16-192", "aes-gcm-16", 28, "none", 0),
    ("aes-gcm16-256", "aes-gcm-16", 36, "none", 0),
    ("aes-gcm8", "aes-gcm-8", 20, "none", 0),
    ("aes-gcm12", "aes-gcm-12", 36, "none", 0),
    ("chacha20-poly1305", "chacha20-poly1305", 36, "none", 0),
    ("aes-ccm8", "aes-ccm-8", 19, "none", 0),
    ("aes-ccm12", "aes-ccm-12", 27, "none", 0),
    ("aes-ccm16", "aes-ccm-16", 35, "none", 0),
    ("null-aes-gmac", "aes-gmac", 20, "none", 0),
    ("aes-cbc-128+hmac-sha1", "aes-cbc", 16, "hmac-sha1-96", 20),
    ("aes-cbc-256+hmac-sha256", "aes-cbc", 32, "hmac-sha256-128", 32),
    ("aes-cbc-192+hmac-sha384", "aes-cbc", 24, "hmac-sha384-192", 48),
    ("aes-cbc-256+hmac-sha512", "aes-cbc", 32, "hmac-sha512-256", 64),
    ("aes-cbc-128+aes-xcbc", "aes-cbc", 16, "aes-xcbc-96", 16),
    ("aes-cbc-128+aes-cmac", "aes-cbc", 16, "aes-cmac-96", 16),
    ("3des-cbc+hmac-md5", "3des-cbc", 24, "hmac-md5-96", 16),
    ("null+hmac-sha1", "null", 0, "hmac-sha1-96", 20),
    ("null+hmac-sha256", "null", 0, "hmac-sha256-128", 32),
    ("null+hmac-sha384", "null", 0, "hmac-sha384-192", 48),
    ("null+hmac-sha512", "null", 0, "hmac-sha512-256", 64),
];

/// As `ipsec spi --ah` calls it, as the oracle calls it, and the octets of its key.
const AH: &[(&str, &str, usize)] = &[
    ("hmac-md5", "hmac-md5-96", 16),
    ("hmac-sha1", "hmac-sha1-96", 20),
    ("hmac-sha256", "hmac-sha256-128", 32),
    ("hmac-sha384", "hmac-sha384-192", 48),
    ("hmac-sha512", "hmac-sha512-256", 64),
    ("aes-xcbc", "aes-xcbc-96", 16),
    ("aes-cmac", "aes-cmac-96", 16),
];

/// One tunnel, or two hosts in transport mode; its number is in its SPIs and in the addresses inside a tunnel.
#[derive(Clone, Copy)]
struct Case {
    number: usize,
    /// `esp` or `ah`.
    protocol: &'static str,
    transport: bool,
    esp: &'static str,
    cipher: (&'static str, usize),
    auth: (&'static str, usize),
    outer6: bool,
    inner6: bool,
    udp: bool,
    esn: bool,
    /// Our packets are padded to this length, with a dummy now and then.
    pad: Option<usize>,
    /// How often its keys have been changed.
    age: usize,
}

impl Case {
    fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for &(esp, cipher, key, auth, auth_key) in ALGORITHMS {
            for bits in 0..8 {
                let (outer6, udp, esn) = (bits & 1 != 0, bits & 2 != 0, bits & 4 != 0);
                // Every algorithm meets all four pairs of families.
                let inner6 = udp != esn;
                let case = Self::ah(all.len(), esp, (auth, auth_key));
                let (protocol, cipher) = ("esp", (cipher, key));
                all.push(Self { protocol, cipher, outer6, inner6, udp, esn, ..case });
            }
        }
        for &(name, auth, key) in AH {
            for bits in 0..4 {
                let (outer6, inner6) = (bits & 1 != 0, bits & 2 != 0);
                all.push(Self { outer6, inner6, ..Self::ah(all.len(), name, (auth, key)) });
            }
        }
        all
    }

    fn ah(number: usize, name: &'static str, auth: (&'static str, usize)) -> Self {
        Self {
            number,
            protocol: "ah",
            transport: false,
            esp: name,
            cipher: ("null", 0),
            auth,
            outer6: false,
            inner6: false,
            udp: false,
            esn: false,
            pad: None,
            age: 0,
        }
    }

    /// Two hosts, over IPv4 and over IPv6: of those there are two.
    fn transport() -> Vec<Vec<Self>> {
        let both = |make: &dyn Fn(usize) -> Self| {
            let cases = [false, true].map(|six| {
                let case = make(usize::from(six));
                Self { transport: true, outer6: six, inner6: six, ..case }
            });
            // PF_KEY has no IPv6 address of a NAT, so transport mode in UDP is IPv4's.
            cases.into_iter().filter(|case| !(case.udp && case.outer6)).collect::<Vec<_>>()
        };
        let esp = |esp, cipher, auth, udp| {
            move |number| Self { protocol: "esp", esp, cipher, udp, ..Self::ah(number, "", auth) }
        };
        let mut all = vec![
            both(&esp("aes-gcm16", ("aes-gcm-16", 20), ("none", 0), false)),
            both(&esp("aes-gcm16", ("aes-gcm-16", 20), ("none", 0), true)),
            both(&esp("aes-cbc-128+hmac-sha1", ("aes-cbc", 16), ("hmac-sha1-96", 20), false)),
            both(&esp("null+hmac-sha256", ("null", 0), ("hmac-sha256-128", 32), false)),
        ];
        all.extend(
            AH.iter().take(3).map(|&(name, auth, key)| both(&|number| Self::ah(number, name, (auth, key)))),
        );
        all
    }

    fn name(&self) -> String {
        let family = |six| if six { "IPv6" } else { "IPv4" };
        format!(
            "{} {} over {}{}, {} inside{}{}",
            self.protocol,
            self.esp,
            family(self.outer6),
            if self.udp { " and UDP" } else { "" },
            family(self.inner6),
            if self.esn { ", ESN" } else { "" },
            if self.transport { ", transport mode" } else { "" }
        )
    }

    /// Outer addresses: ours and the oracle's.
    fn outer(&self) -> [&'static str; 2] {
        if self.outer6 { ["2001:db8::1", "2001:db8::2"] } else { ["192.0.2.1", "192.0.2.2"] }
    }

    /// Inner addresses: ours and the oracle's.
    fn inner(&self) -> [String; 2] {
        let n = self.number;
        if self.transport {
            return self.outer().map(str::to_owned);
        }
        if self.inner6 {
            [format!("2001:db8:1:{n:x}::1"), format!("2001:db8:2:{n:x}::1")]
        } else {
            [format!("10.1.{n}.1"), format!("10.2.{n}.1")]
        }
    }

    fn bits(&self) -> u8 {
        if self.inner6 { 128 } else { 32 }
    }

    /// The same as networks.
    fn networks(&self) -> [String; 2] {
        self.inner().map(|address| format!("{address}/{}", self.bits()))
    }

    /// The SPI of what we send and of what we receive.
    fn spis(&self) -> [usize; 2] {
        [0x1000, 0x2000].map(|base| base + 0x4000 * self.age + self.number)
    }

    fn key(&self, length: usize, salt: u8) -> String {
        let octet = |i: usize| (i * 37 + self.number * 11 + self.age * 5 + usize::from(salt)) as u8;
        hex::encode((1..=length).map(octet).collect::<Vec<u8>>())
    }

    /// What we are told.
    fn install(&self, gateway: &Gateway) {
        self.install_sa(gateway, false);
        self.install_sa(gateway, true);
        self.install_eroute(gateway, "--add");
    }

    /// What we call the SA that we send on, or the one that we receive on.
    fn said(&self, sends: bool) -> String {
        let ([us, them], [out, into]) = (self.outer(), self.spis());
        let (to, spi) = if sends { (them, out) } else { (us, into) };
        format!("{}{}{spi:x}@{to}", self.protocol, if self.outer6 { ':' } else { '.' })
    }

    fn install_sa(&self, gateway: &Gateway, sends: bool) {
        let ([us, them], [ours, theirs]) = (self.outer(), self.networks());
        let (from, salt, inner) = if sends { (us, 2, [ours, theirs]) } else { (them, 1, [theirs, ours]) };
        let (said, [inner_src, inner_dst]) = (self.said(sends), inner);
        let make = if self.protocol == "ah" { "--ah" } else { "--esp" };
        let mut words = vec!["spi", "--said", &said, "--src", from, make, self.esp, "--replay-window", "64"];
        if !self.transport {
            words.extend(["--inner-src", &inner_src, "--inner-dst", &inner_dst]);
        }
        let mut keys = String::new();
        for (option, length, salt) in
            [("--enckey", self.cipher.1, salt), ("--authkey", self.auth.1, salt ^ 0x80)]
        {
            if length > 0 {
                words.extend([option, "-"]);
                keys.push_str(&format!("0x{}\n", self.key(length, salt)));
            }
        }
        if self.udp {
            words.extend(["--natt", "nonesp"]);
        }
        if self.esn {
            words.push("--esn");
        }
        let pad = self.pad.unwrap_or_default().to_string();
        if self.pad.is_some() && sends {
            words.extend(["--tfc", &pad, "--dummies", "100"]);
        }
        gateway.ipsec(&words, &keys);
    }

    /// Policy for what we send, made by `--add` or by `--replace`.
    fn install_eroute(&self, gateway: &Gateway, change: &str) {
        let [ours, theirs] = self.networks();
        let words = ["eroute", change, "--src", &ours, "--dst", &theirs, "--said", &self.said(true)];
        gateway.ipsec(&words, "");
    }
}

/// The interface of that name, in the calling thread's namespace.
fn link(name: &str) -> std::io::Result<Link> {
    Netlink::open()?.link(name)?.ok_or_else(|| std::io::ErrorKind::NotFound.into())
}

/// A namespace with our daemon in it; beyond its cable is the peer.
struct Gateway {
    namespace: Namespace,
    rundir: Rundir,
    dir: tempfile::TempDir,
}

impl Gateway {
    /// And the namespace where the peer is.
    fn new(cases: &[Case]) -> (Self, Namespace) {
        let (namespace, beyond) =
            (Namespace::new().expect("namespace"), Namespace::new().expect("namespace"));
        let made: std::io::Result<()> = namespace
            .run(|| {
                let mut netlink = Netlink::open()?;
                netlink.add_veth("eth7", "eth0")?;
                netlink.move_link(link("eth0")?.index, beyond.as_fd())?;
                let (eth7, lo) = (link("eth7")?.index, link("lo")?.index);
                netlink.set_no_link_local(eth7)?;
                netlink.set_up(eth7, true)?;
                for net in ["192.0.2.1/24", "2001:db8::1/64"] {
                    netlink.add_address_and_route(eth7, net.parse().expect("net"))?;
                }
                for case in cases.iter().filter(|case| !case.transport) {
                    let [ours, _] = case.inner();
                    netlink.add_address(lo, format!("{ours}/{}", case.bits()).parse().expect("net"))?;
                }
                Ok(())
            })
            .expect("namespace");
        made.expect("interfaces");
        let made = beyond.run(|| {
            let mut netlink = Netlink::open()?;
            let eth0 = link("eth0")?.index;
            netlink.set_no_link_local(eth0)?;
            netlink.set_up(eth0, true)
        });
        made.expect("namespace").expect("cable");
        let dir = tempfile::tempdir().expect("directory");
        let conf = "config setup\n\tprotostack=klips\n\tpluto=no\n\tinterfaces=\"ipsec0=eth7\"\n";
        fs::write(dir.path().join("ipsec.conf"), conf).expect("ipsec.conf");
        let rundir = Rundir::new(dir.path().join("run"));
        let gateway = Self { namespace, rundir, dir };
        gateway.ipsec(&["setup", "start"], "");
        let hosts = ["192.0.2.2/32", "2001:db8::2/128"];
        gateway.route(if cases[0].transport { hosts } else { ["10.2.0.0/16", "2001:db8:2::/48"] });
        (gateway, beyond)
    }

    /// Leads these into the tunnel.
    fn route(&self, nets: [&str; 2]) {
        let into = |net: &str| {
            let mut netlink = Netlink::open()?;
            let link = Some(link("ipsec0")?.index);
            let dst = net.parse().expect("net");
            netlink.add_route(&Route { dst, via: None, link, src: None, metric: 0 })
        };
        for net in nets {
            self.namespace.run(|| into(net)).expect("namespace").expect("route");
        }
    }

    /// Runs a command that must succeed.
    fn ipsec(&self, words: &[&str], input: &str) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ipsec"));
        command.args(words).env("IPSEC_RUNDIR", self.rundir.path()).env("IPSEC_CONFS", self.dir.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.namespace.spawn(&mut command).expect("ipsec");
        let mut stdin = child.stdin.take().expect("standard input");
        // It need not read what it does not need.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        let out = child.wait_with_output().expect("ipsec");
        assert!(out.status.success(), "{words:?}: {out:?}");
    }

    /// Every counter that is not zero, but for what the kernel of the namespace says on its own.
    fn discards(&self) -> BTreeMap<String, u64> {
        let mut client = Client::connect(&self.rundir).expect("klips.ctl");
        let status = client.call(Request::Status).expect("status");
        let all = status["discards"].as_object().expect("discards").clone();
        all.into_iter()
            .filter(|(name, _)| name != "no_eroute")
            .map(|(name, count)| (name, count.as_u64().expect("count")))
            .collect()
    }

    /// Waits until a counter has moved by one, and says what moved besides.
    fn only_moved(&self, before: &BTreeMap<String, u64>, counter: &str) -> Result<(), String> {
        let mut wanted = before.clone();
        *wanted.entry(counter.to_owned()).or_default() += 1;
        let mut now = before.clone();
        for _ in 0..500 {
            now = self.discards();
            if now != *before {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        if now == wanted { Ok(()) } else { Err(format!("{counter}: {before:?} became {now:?}")) }
    }

    fn ping(&self, case: &Case, octets: usize) -> bool {
        let [ours, theirs] = case.inner();
        let mut command = Command::new("ping");
        command.args(["-n", "-q", "-c", "1", "-W", "5", "-s", &octets.to_string(), "-I", &ours, &theirs]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.namespace
            .spawn(&mut command)
            .and_then(|mut ping| ping.wait())
            .is_ok_and(|status| status.success())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if let Some(daemon) = Process::read(&self.rundir.klips_pid()) {
            let _ = daemon.signal(Signal::TERM);
            let _ = daemon.wait(Duration::from_secs(10));
        }
        let _ = rustix::mount::unmount(self.rundir.proc(), rustix::mount::UnmountFlags::DETACH);
    }
}
