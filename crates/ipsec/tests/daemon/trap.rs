//! A packet that needs an SA, and a key manager that finds it one: device, worker, control thread, PF_KEY socket and back.

use crate::host::Host;
use crate::keysock::connect;
use ipsec::host::netlink::{Netlink, Route};
use ipsec::host::netns::Namespace;
use pfkey::client::{Client, Heard, Request};
use pfkey::{Address, ExtType, Message, MessageType, Sa, SaType, flags, state};
use rustix::net::{self, RecvFlags, SendFlags};
use serde_json::Value;
use socket2::{Domain, Protocol, Socket, Type};
use std::io::Read;
use std::net::UdpSocket;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

struct Manager {
    socket: OwnedFd,
    client: Client,
}

impl Manager {
    fn receive(&self) -> Vec<u8> {
        let mut buffer = vec![0; 1 << 16];
        let (length, _) =
            net::recv(&self.socket, buffer.as_mut_slice(), RecvFlags::empty()).expect("receive");
        buffer.truncate(length);
        buffer
    }

    /// Whether an ACQUIRE is among what has come.
    fn hears_acquire(&self) -> bool {
        let mut buffer = vec![0; 1 << 16];
        while let Ok((length, _)) = net::recv(&self.socket, buffer.as_mut_slice(), RecvFlags::DONTWAIT) {
            let base = Message::parse_answer(&buffer[..length]).expect("a record").base;
            if base.kind() == Some(MessageType::Acquire) {
                return true;
            }
        }
        false
    }

    fn ask(&mut self, request: Request) {
        let (ticket, record) = self.client.finish(request).expect("a short message");
        net::send(&self.socket, &record, SendFlags::NOSIGNAL).expect("send");
        loop {
            let record = self.receive();
            match self.client.hear(&record).expect("a record") {
                Heard::Answer { to, .. } if to == ticket => return,
                Heard::Refused { fault, .. } => panic!("{fault}"),
                Heard::Answer { .. } | Heard::Notice(_) => {}
            }
        }
    }
}

fn host_address(text: &str) -> Address {
    Address::host(text.parse().expect("an address"))
}

/// A packet leaves the host for 10.2.0.9.
fn say(host: &Host, words: &[u8]) {
    let said = host.namespace.run(|| UdpSocket::bind("10.1.0.1:0")?.send_to(words, "10.2.0.9:7777"));
    assert_eq!(said.expect("namespace").expect("sent"), words.len());
}

/// The other end of the cable, a host of its own: what arrives there has been on the wire.
struct Peer {
    socket: Socket,
    _namespace: Namespace,
}

impl Peer {
    fn new(host: &Host) -> Self {
        let namespace = Namespace::new().expect("namespace");
        let moved = host.namespace.run(|| {
            let mut netlink = Netlink::open()?;
            let cable = netlink.link("cable")?.expect("the host has made it").index;
            netlink.move_link(cable, namespace.as_fd())
        });
        moved.expect("namespace").expect("move");
        let socket = namespace.run(|| {
            let mut netlink = Netlink::open()?;
            let cable = netlink.link("cable")?.expect("just moved").index;
            netlink.set_up(cable, true)?;
            netlink.add_address_and_route(cable, "192.0.2.9/24".parse().expect("net"))?;
            Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(50)))
        });
        let socket = socket.expect("namespace").expect("ESP socket");
        socket.set_read_timeout(Some(Duration::from_secs(20))).expect("timeout");
        Self { socket, _namespace: namespace }
    }

    /// SPI and sequence number of the next ESP packet.
    fn hear(&self) -> (u32, u32) {
        let mut buffer = [0; 2048];
        let length = (&self.socket).read(&mut buffer).expect("an ESP packet in time");
        let esp = &buffer[20..length];
        let word = |at: usize| u32::from_be_bytes(esp[at..at + 4].try_into().expect("four"));
        (word(0), word(4))
    }
}

/// Packets that an SA has carried.
fn carried(host: &Host) -> u64 {
    let rows: Vec<Value> = serde_json::from_str(&host.ipsec(&["spi", "--json"]).out).expect("rows");
    rows.iter().filter_map(|row| row["packets"].as_u64()).sum()
}

#[test]
fn a_packet_waits_for_the_sa_that_a_key_manager_adds() {
    let Some(host) = Host::new("ipsec0=eth7") else { return };
    let peer = Peer::new(&host);
    assert_eq!(host.ipsec(&["setup", "start"]).code, 0);
    let routed = host.namespace.run(|| {
        let mut netlink = Netlink::open()?;
        let device = netlink.link("ipsec0")?.expect("attached").index;
        netlink.add_address(device, "10.1.0.1/32".parse().expect("net"))?;
        let src = "10.1.0.1".parse().ok();
        let dst = "10.2.0.0/16".parse().expect("net");
        netlink.add_route(&Route { dst, via: None, link: Some(device), src, metric: 0 })
    });
    routed.expect("namespace").expect("route");
    let words = ["eroute", "--add", "--src", "10.1.0.0/16", "--dst", "10.2.0.0/16", "--said", "%trap"];
    assert_eq!(host.ipsec(&words).code, 0);

    let pid = std::process::id();
    let mut manager = Manager { socket: connect(&host), client: Client::starting_at(pid, 0x5000) };
    let register = manager.client.request(MessageType::Register, SaType::Esp);
    manager.ask(register);
    say(&host, b"first");
    say(&host, b"second");
    let record = manager.receive();
    let message = Message::parse_answer(&record).expect("a record");
    assert_eq!(message.base.kind(), Some(MessageType::Acquire));
    assert_eq!(message.dst.and_then(|dst| dst.ip()), "10.2.0.9".parse().ok());
    let seq = message.base.seq;

    let mut add = Client::starting_at(pid, seq).request(MessageType::Add, SaType::Esp);
    let sa = Sa { spi: 0x2002, replay: 32, state: state::MATURE, encrypt: 20, auth: 0, flags: flags::TUNNEL };
    add.sa(&sa);
    add.address(ExtType::AddressSrc, &host_address("192.0.2.7"));
    add.address(ExtType::AddressDst, &host_address("192.0.2.9"));
    add.address(ExtType::AddressInnerSrc, &Address::net([10, 1, 0, 0].into(), 16));
    add.address(ExtType::AddressInnerDst, &Address::net([10, 2, 0, 0].into(), 16));
    add.key(ExtType::KeyEncrypt, 160, 0, &[0x11; 20]);
    manager.client = Client::starting_at(pid, seq);
    manager.ask(add);
    // Both go without another packet to push them, and arrive.
    let mut both = [peer.hear(), peer.hear()];
    // Each through the worker it met, so in any order.
    both.sort_unstable();
    assert_eq!(both, [(0x2002, 1), (0x2002, 2)]);

    // The trap is still there, but its need is met: what comes later, on whichever worker, asks nobody and is not lost.
    say(&host, b"third");
    assert_eq!(peer.hear(), (0x2002, 3));
    let said = "esp.2002@192.0.2.9";
    let words = ["eroute", "--replace", "--src", "10.1.0.0/16", "--dst", "10.2.0.0/16", "--said", said];
    let replaced = host.ipsec(&words);
    assert_eq!(replaced.code, 0, "{}", replaced.err);
    say(&host, b"fourth");
    assert_eq!(peer.hear(), (0x2002, 4));
    assert_eq!(carried(&host), 4);

    let mut ctl = ipsec::ctl::Client::connect(&host.rundir).expect("klips.ctl");
    assert!(!manager.hears_acquire(), "one need, one ACQUIRE");
    let status = ctl.call(ipsec::ctl::Request::Status).expect("status");
    // Only what has happened is listed.
    assert_eq!(status["discards"]["hold"], Value::Null, "{status}");
    assert_eq!(host.ipsec(&["setup", "stop"]).code, 0);
}
