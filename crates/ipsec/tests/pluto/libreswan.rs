//! With libreswan, as Debian has it, in the place of east; ESP by the kernel of Linux (`support/guest.rs`).

use super::certificates::{EAST, P256, SECRETS, WEST, certificates, equip, lasting, pem, root, write};
use super::{Gateway, SECRET, scene, wait};
use base64ct::{Base64, Encoding};
use ipsec::host::netns::Namespace;
use ipsec_core::sign::KeyKind;
use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

#[path = "../support/guest.rs"]
mod guest;
use guest::Guest;

const WHACK: &str = "/usr/libexec/ipsec/whack --ctlsocket /run/pluto/pluto.ctl";

/// Both load this file, and each finds by its addresses which side it is.
const CONN: &str = "\
conn west-east
\tikev2=insist
\tleft=192.0.2.1
\tleftid=@west
\tleftsubnet=10.1.0.0/24
\tright=198.51.100.7
\trightid=@east
\trightsubnet=10.2.0.0/24
\tauthby=secret
\tauto=add
";

/// Starts their pluto with what is in the shared directory.
const START: &str = "
set -e
ip addr add 198.51.100.7/24 dev eth0
ip route add default via 198.51.100.254
ip addr add 10.2.0.1/32 dev lo
ip route add 10.1.0.0/24 via 198.51.100.254 src 10.2.0.1
mkdir -p /run/pluto /var/lib/ipsec/nss
certutil -N -d sql:/var/lib/ipsec/nss --empty-password
# What else there is.
cp /share/ipsec.conf /etc/ipsec.conf
install -m 600 /share/ipsec.secrets /etc/ipsec.secrets
/usr/libexec/ipsec/addconn --config /etc/ipsec.conf --checkconfig
setsid /usr/libexec/ipsec/pluto --config /etc/ipsec.conf --nssdir /var/lib/ipsec/nss --rundir /run/pluto \\
  --nofork --stderrlog </dev/null >/share/pluto.log 2>&1 &
for i in $(seq 300); do
  /usr/libexec/ipsec/whack --ctlsocket /run/pluto/pluto.ctl --status >/dev/null 2>&1 && break
  sleep 0.1
done
/usr/libexec/ipsec/addconn --config /etc/ipsec.conf --ctlsocket /run/pluto/pluto.ctl --addall
/usr/libexec/ipsec/whack --ctlsocket /run/pluto/pluto.ctl --listen
";

struct Libreswan(Guest);

impl Libreswan {
    fn whack(&self, words: &str) -> String {
        self.0.done(&format!("{WHACK} {words}"))
    }

    /// The SPIs of the SAs that its kernel has.
    fn spis(&self) -> Vec<String> {
        let states = self.0.done("ip xfrm state");
        let words = states.lines().filter_map(|line| line.trim().strip_prefix("proto esp spi "));
        words.filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
    }
}

impl Drop for Libreswan {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.0.read("pluto.log");
            let end = log.lines().rev().take(60).collect::<Vec<_>>();
            eprintln!("---- libreswan, the last line first\n{}", end.join("\n"));
        }
    }
}

/// Ours in the west, libreswan in the east; `None` where there is no libreswan.
fn pair(conn: &str) -> Option<(Gateway, Libreswan, Namespace)> {
    pair_with([conn, conn], SECRET, |_, _| String::new())
}

/// The same with a file for each. What else both have, `equip` gives them: it says what there is to do in the guest before its
/// pluto starts.
fn pair_with(
    conns: [&str; 2],
    secrets: &str,
    equip: impl Fn(&Gateway, &Libreswan) -> String,
) -> Option<(Gateway, Libreswan, Namespace)> {
    if !guest::is_there() {
        return None;
    }
    let root = guest::libreswan()?;
    let [left, router, right] = scene()?;
    let mut west = Gateway::new(left, "10.1.0.1", conns[0], secrets);
    let east = Libreswan(Guest::boot(right, Some(&root)));
    east.0.write("ipsec.conf", conns[1]);
    east.0.write("ipsec.secrets", SECRET);
    let more = equip(&west, &east);
    west.start_klips();
    west.start_pluto();
    east.0.done(&START.replace("# What else there is.", &more));
    Some((west, east, router))
}

/// What is to be pinged through a tunnel, as words for `ping`; and what between the hosts themselves.
const TUNNEL: &str = "-I 10.1.0.1 10.2.0.1";
const HOST: &str = "198.51.100.7";

/// Echo requests and their answers, from either side through the tunnel.
fn both_ways(west: &Gateway, east: &Libreswan) {
    pings(west, TUNNEL);
    east.0.done("ping -c 3 -i 0.2 -W 20 -I 10.2.0.1 10.1.0.1");
}

/// Echo requests of ours, of which none may be lost.
fn pings(west: &Gateway, whom: &str) {
    let mut command = Command::new("ping");
    command.args(["-c", "3", "-i", "0.2", "-W", "20"]).args(whom.split(' '));
    let output = west.namespace.run(|| command.output()).expect("namespace").expect("ping");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains(" 3 received"), "{text}; refused: {:?}", west.discards());
}

/// A `ping` that goes on until it is dropped.
struct Stream(Child);

impl Drop for Stream {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Echo requests while `change` is made, and on what comes of it, of which none may be lost.
fn unbroken_pings(west: &Gateway, whom: &str, change: impl FnOnce()) {
    // The last ones may still be on their way.
    const LATE: u32 = 20;
    let mut command = Command::new("ping");
    command.args(["-i", "0.05"]).args(whom.split(' ')).stdout(Stdio::piped());
    let came = Mutex::new(BTreeSet::new());
    let last = || came.lock().expect("numbers").last().copied().unwrap_or(0);
    let more = |count: u32| {
        let before = last();
        wait("more answers", || last() >= before + count);
    };
    std::thread::scope(|scope| {
        let mut stream = Stream(west.namespace.spawn(&mut command).expect("ping"));
        let lines = BufReader::new(stream.0.stdout.take().expect("piped")).lines();
        scope.spawn(|| {
            for line in lines.map_while(Result::ok) {
                let answer = line.split_once(" bytes from ").map_or("", |(_, answer)| answer);
                let number = answer.split_once(" icmp_seq=").and_then(|(_, rest)| rest.split(' ').next());
                came.lock().expect("numbers").extend(number.and_then(|text| text.parse::<u32>().ok()));
            }
        });
        more(LATE);
        change();
        more(2 * LATE);
    });
    let lost: Vec<u32> = (1..=last() - LATE).filter(|n| !came.lock().expect("numbers").contains(n)).collect();
    assert!(lost.is_empty(), "of {} were lost: {lost:?}; refused: {:?}", last(), west.discards());
}

/// Who rekeys, we or libreswan, and whether the IKE SA or the child; the last shows what the last IKE SA is good for.
const REKEYINGS: [(bool, bool); 5] =
    [(true, false), (false, false), (true, true), (false, true), (true, false)];

/// All of them, under pings of which none may be lost. `holds` is asked after each.
fn rekeyed(west: &Gateway, east: &Libreswan, whom: &str, holds: impl Fn()) {
    let all = || west.status()["ike_sas"].as_array().cloned().unwrap_or_default();
    let names = || all().iter().map(|sa| sa["ike"].clone()).collect::<Vec<_>>();
    for (ours, ike) in REKEYINGS {
        let (before, before_ike) = (west.spis(), names());
        // Some answers libreswan sends on a new pair as it answers us, before we have the keys.
        unbroken_pings(west, whom, || {
            match (ours, ike) {
                (true, false) => drop(west.done(&["auto", "--rekey", "west-east"])),
                (true, true) => drop(west.done(&["auto", "--rekey", "--ike", "west-east"])),
                (false, false) => drop(east.whack("--name west-east --rekey-ipsec")),
                (false, true) => drop(east.whack("--name west-east --rekey-ike")),
            }
            if ike {
                wait("another IKE SA", || names().len() == 1 && names() != before_ike);
                assert_eq!(west.spis(), before, "the child goes on, and is another IKE SA's");
            } else {
                wait("new SAs", || west.spis().len() == 1 && west.spis() != before);
                assert_eq!(names(), before_ike);
            }
        });
        holds();
    }
}

#[test]
fn libreswan_loads_our_file_answers_us_and_both_rekey_under_traffic() {
    let Some((west, east, _router)) = pair(CONN) else { return };
    let said = west.done(&["auto", "--up", "west-east"]);
    assert!(said.contains("IPsec SA established"), "{said}");
    both_ways(&west, &east);
    assert_eq!(east.spis().len(), 2, "{:?}", east.spis());

    rekeyed(&west, &east, TUNNEL, || both_ways(&west, &east));
    wait("the old SAs' end", || east.spis().len() == 2);

    west.done(&["auto", "--down", "west-east"]);
    wait("libreswan to take its SAs away", || east.spis().is_empty());

    // It begins, and it ends it.
    east.whack("--name west-east --initiate");
    wait("up", || west.state() == "up");
    both_ways(&west, &east);
    east.whack("--name west-east --terminate");
    wait("down", || west.spis().is_empty());
}

/// The same between the two hosts themselves, in transport mode.
const HOSTS: &str = "\
conn west-east
\tikev2=insist
\ttype=transport
\tleft=192.0.2.1
\tleftid=@west
\tleftprotoport=icmp
\tright=198.51.100.7
\trightid=@east
\trightprotoport=icmp
\tauthby=secret
\tauto=add
";

#[test]
fn libreswan_and_we_agree_on_transport_mode_whoever_begins_and_rekey_it() {
    let Some((west, east, _router)) = pair(HOSTS) else { return };
    let both_ways = || {
        pings(&west, HOST);
        east.0.done("ping -c 3 -i 0.2 -W 20 192.0.2.1");
        let states = east.0.done("ip -s xfrm state");
        assert!(states.contains("mode transport") && !states.contains("mode tunnel"), "{states}");
    };
    for we_begin in [true, false] {
        if we_begin {
            west.done(&["auto", "--up", "west-east"]);
        } else {
            east.whack("--name west-east --initiate");
            wait("up", || west.state() == "up");
        }
        both_ways();
        rekeyed(&west, &east, HOST, both_ways);
        // Who began it would begin it again.
        if we_begin {
            west.done(&["auto", "--down", "west-east"]);
            wait("libreswan to take its SAs away", || east.spis().is_empty());
        } else {
            east.whack("--name west-east --terminate");
            wait("down", || west.spis().is_empty());
        }
    }
}

/// Both prove by certificates of one authority who they are; in libreswan they are in a database of NSS. A rekeyed IKE SA is
/// that of the peer that was proved, and its child goes on.
#[test]
fn libreswan_and_we_know_each_other_by_certificates_whoever_begins_and_rekey_everything() {
    for (kind, authby) in [(KeyKind::Rsa, "rsasig"), (P256, "ecdsa")] {
        let root = root();
        let west_holder = root.issue((WEST, &["@west.example.org"]), kind, lasting);
        let east_holder = root.issue((EAST, &["@east.example.org"]), kind, lasting);
        let common = "\tikev2=insist\n\tleft=192.0.2.1\n\tleftid=@west.example.org\n\tleftsubnet=10.1.0.0/24\n\
                      \tright=198.51.100.7\n\trightid=@east.example.org\n\trightsubnet=10.2.0.0/24\n\tauto=add\n";
        let ours =
            format!("conn west-east\n\tauthby={authby}\n\tleftcert=own.pem\n\trightca=%same\n{common}");
        let theirs = format!("conn west-east\n\tauthby={authby}\n\trightcert=east\n\tleftca=%same\n{common}");
        let equipped = pair_with([&ours, &theirs], SECRETS, |west, east| {
            equip(west.dir.path(), &west_holder, &[], &root);
            let office = tempfile::tempdir().expect("directory");
            let file = |name: &str, text: &str| write(&office.path().join(name), text);
            file("east.pem", &certificates(&[&east_holder.certificate]));
            file("root.pem", &certificates(&[&root.certificate]));
            file("east.key", &pem("PRIVATE KEY", &east_holder.pkcs8));
            let mut command = Command::new("openssl");
            let words =
                "pkcs12 -export -inkey east.key -in east.pem -name east -passout pass:tulip -out east.p12";
            let done = command.args(words.split(' ')).current_dir(office.path()).output().expect("openssl");
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
            let octets = std::fs::read(office.path().join("east.p12")).expect("east.p12");
            east.0.write("east.p12.base64", &Base64::encode_string(&octets));
            east.0.write("root.pem", &certificates(&[&root.certificate]));
            "base64 -d /share/east.p12.base64 > /tmp/east.p12
pk12util -i /tmp/east.p12 -d sql:/var/lib/ipsec/nss -W tulip
certutil -A -d sql:/var/lib/ipsec/nss -n root -t CT,, -i /share/root.pem"
                .to_owned()
        });
        let Some((west, east, _router)) = equipped else { return };
        for we_begin in [true, false] {
            if we_begin {
                let said = west.done(&["auto", "--up", "west-east"]);
                assert!(said.contains("IKE SA established with @east.example.org"), "{said}");
            } else {
                east.whack("--name west-east --initiate");
                wait("up", || west.state() == "up");
                assert!(west.said().contains("IKE SA established with @east.example.org"), "{}", west.said());
            }
            both_ways(&west, &east);
            rekeyed(&west, &east, TUNNEL, || both_ways(&west, &east));
            if we_begin {
                west.done(&["auto", "--down", "west-east"]);
                wait("libreswan to take its SAs away", || east.spis().is_empty());
            }
        }
    }
}
