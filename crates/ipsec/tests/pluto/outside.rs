//! What pluto needs from outside and does not get: name servers that do not answer, a disk that is full. Nothing else waits for it.

use super::{CONN, Gateway, SECRET, crosses, scene, wait};
use ipsec::host::netlink::Netlink;
use ipsec::process::Process;
use rustix::process::Signal;
use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};

/// The name servers that processes of this host ask, ourselves in their place in a namespace.
struct NameServer(Vec<UdpSocket>);

impl NameServer {
    fn new(host: &Gateway) -> Self {
        let file = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let mut all: Vec<IpAddr> =
            file.lines().filter_map(|line| line.strip_prefix("nameserver")?.trim().parse().ok()).collect();
        all.sort_unstable();
        all.dedup();
        if all.is_empty() {
            // resolv.conf(5).
            all.push([127, 0, 0, 1].into());
        }
        let bound = host.namespace.run(|| {
            let mut netlink = Netlink::open()?;
            let lo = netlink.link("lo")?.expect("lo").index;
            let bind = |address: IpAddr| {
                if !address.is_loopback() {
                    netlink.add_address(lo, address.into())?;
                }
                let socket = UdpSocket::bind(SocketAddr::new(address, 53))?;
                socket.set_nonblocking(true)?;
                Ok(socket)
            };
            all.into_iter().map(bind).collect::<std::io::Result<Vec<_>>>()
        });
        Self(bound.expect("namespace").expect("name servers"))
    }

    /// The questions that have come: where, and from whom.
    fn asked(&self) -> Vec<(&UdpSocket, Vec<u8>, SocketAddr)> {
        let mut all = Vec::new();
        for socket in &self.0 {
            let mut buffer = [0; 512];
            while let Ok((len, from)) = socket.recv_from(&mut buffer) {
                all.push((socket, buffer[..len].to_vec(), from));
            }
        }
        all
    }

    /// Answers whatever is asked with one address (RFC 1035 §4), and with none of IPv6.
    fn answer(&self, address: [u8; 4]) {
        for (socket, mut message, from) in self.asked() {
            let end =
                12 + message[12..].iter().position(|octet| *octet == 0).expect("the end of the name") + 5;
            let is_a = message[end - 4..end - 2] == [0, 1];
            message.truncate(end);
            message[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
            if is_a {
                message.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
                message.extend(address);
            }
            let _ = socket.send_to(&message, from);
        }
    }
}

#[test]
fn a_name_server_that_does_not_answer_holds_up_the_connection_that_has_the_name_and_nothing_else() {
    let Some([left, _router, right]) = scene() else { return };
    let named = "conn named\n\tleft=192.0.2.1\n\tright=gate.tulips.example\n\trightsubnet=10.3.0.0/24\n\tauthby=secret\n\tauto=add\n";
    let conn = format!("{named}\n{CONN}\tauto=start\n");
    let mut west = Gateway::new(left, "10.1.0.1", &conn, SECRET);
    let mut east = Gateway::new(right, "10.2.0.1", &format!("{CONN}\tauto=add\n"), SECRET);
    let server = NameServer::new(&west);
    for gateway in [&mut east, &mut west] {
        gateway.start_klips();
        gateway.start_pluto();
    }
    let loaded = |west: &Gateway| {
        let all = west.status()["connections"].as_array().cloned().unwrap_or_default();
        all.iter().any(|one| one["name"] == "named")
    };
    // The question is there, and stays without an answer while the other connection comes up and is rekeyed.
    let mut first = Vec::new();
    wait("a question", || {
        first = server.asked();
        !first.is_empty()
    });
    crosses(&west, &east);
    let before = west.spis();
    west.done(&["auto", "--rekey", "west-east"]);
    wait("new SAs", || west.spis().len() == 1 && west.spis() != before);
    assert!(!loaded(&west));
    assert!(west.said().contains("\"named\": waits until it is known which address gate.tulips.example has"));
    // A command about the name waits, and others do not.
    let mut reload = west.command(super::IPSEC, &["auto", "--reload"]);
    let mut reload = west.namespace.spawn(&mut reload).expect("ipsec");
    wait("another question", || !server.asked().is_empty());
    assert!(west.status()["pid"].is_u64());
    assert!(reload.try_wait().expect("ipsec").is_none());
    // Then it answers.
    wait("the connection", || {
        server.answer([198, 51, 100, 9]);
        loaded(&west)
    });
    wait("the command", || {
        server.answer([198, 51, 100, 9]);
        reload.try_wait().expect("ipsec").is_some()
    });
    assert!(reload.wait().expect("ipsec").success());
    let all = west.status();
    let named = all["connections"].as_array().expect("rows").iter().find(|one| one["name"] == "named");
    assert_eq!(named.expect("loaded")["remote"], "198.51.100.9");
}

#[test]
fn a_full_disk_is_said_and_tunnels_come_up_all_the_same() {
    let Some([left, _router, right]) = scene() else { return };
    let conn = format!("{CONN}\tauto=add\n");
    let mut west = Gateway::new(left, "10.1.0.1", &conn, SECRET);
    let mut east = Gateway::new(right, "10.2.0.1", &conn, SECRET);
    let small = Small::new(west.rundir.path());
    for gateway in [&mut west, &mut east] {
        gateway.start_klips();
        gateway.start_pluto();
    }
    let filler = small.fill();
    west.done(&["auto", "--up", "west-east"]);
    crosses(&west, &east);
    let sas = west.rundir.pluto_sas();
    wait("a word about it", || west.said().contains(&format!("{}: No space left on device", sas.display())));
    assert!(!sas.exists(), "half a file");
    // There is room again: the next change is written down, whole.
    fs::remove_file(filler).expect("room");
    let before = west.spis();
    west.done(&["auto", "--rekey", "west-east"]);
    wait("new SAs", || west.spis().len() == 1 && west.spis() != before);
    wait("the file", || fs::read_to_string(&sas).is_ok_and(|text| text.contains("\"west-east\"")));
    crosses(&west, &east);
}

#[test]
fn a_data_plane_that_stands_still_is_not_waited_for_for_ever() {
    let Some([left, _router, right]) = scene() else { return };
    let mut west = Gateway::new(left, "10.1.0.1", &format!("{CONN}\tauto=start\n"), SECRET);
    let mut east = Gateway::new(right, "10.2.0.1", &format!("{CONN}\tauto=add\n"), SECRET);
    for gateway in [&mut east, &mut west] {
        gateway.start_klips();
        gateway.start_pluto();
    }
    wait("the SAs", || west.said().contains("IPsec SA established"));
    crosses(&west, &east);
    let before = west.spis();
    let klips = Process::read(&west.rundir.klips_pid()).expect("klips.pid");
    assert!(klips.signal(Signal::STOP).expect("stop"));
    west.done(&["auto", "--rekey", "west-east"]);
    wait("pluto to wait no longer", || west.said().contains("klips did not answer within 10 seconds"));
    // Commands are answered meanwhile, and what there was is still there.
    assert_eq!(west.spis(), before);
    assert!(klips.signal(Signal::CONT).expect("go on"));
    wait("new SAs", || west.spis().len() == 1 && west.spis() != before);
    crosses(&west, &east);
}

/// A disk of a few pages.
pub(super) struct Small(std::path::PathBuf);

impl Small {
    pub(super) fn new(at: &std::path::Path) -> Self {
        fs::create_dir_all(at).expect("directory");
        let options = c"size=64k,mode=0755";
        rustix::mount::mount("tulips-test", at, "tmpfs", rustix::mount::MountFlags::empty(), options)
            .expect("a small disk");
        Self(at.to_owned())
    }

    /// Leaves no room.
    pub(super) fn fill(&self) -> std::path::PathBuf {
        let filler = self.0.join("filler");
        let full = fs::write(&filler, vec![0; 1 << 20]).expect_err("full");
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
        filler
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}
