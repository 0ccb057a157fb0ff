//! What comes from the wire and goes to it, with sockets of this host.

use super::*;
use crate::host::mmsg::Slots;
use crate::host::netns::{End, Namespace, available, connect};

const LEFT: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
const RIGHT: [&str; 2] = ["192.0.2.2", "2001:db8::2"];

/// Two namespaces joined by `eth0`, or a reason to skip.
fn cable() -> Option<(Namespace, Namespace)> {
    if let Err(why) = available() {
        eprintln!("skipped: {why}");
        return None;
    }
    let (left, right) = (Namespace::new().unwrap(), Namespace::new().unwrap());
    let nets = |addresses: [&str; 2]| {
        [format!("{}/24", addresses[0]), format!("{}/64", addresses[1])].map(|net| net.parse().unwrap())
    };
    connect(
        End { namespace: &left, name: "eth0", addresses: &nets(LEFT) },
        End { namespace: &right, name: "eth0", addresses: &nets(RIGHT) },
    )
    .unwrap();
    Some((left, right))
}

fn plan(workers: usize) -> Plan<'static> {
    Plan { device: "eth0", port: 4500, workers, gro: true, gso: true, steer: true, beside: false }
}

fn open(namespace: &Namespace, plan: &Plan<'_>) -> Vec<Wire> {
    namespace.run(|| Wire::open(plan)).unwrap().unwrap()
}

fn path(family: usize, udp: bool) -> Path {
    Path {
        src: LEFT[family].parse().unwrap(),
        dst: RIGHT[family].parse().unwrap(),
        encapsulation: udp.then_some(Encapsulation { local: 4500, remote: 4500 }),
        tos: 0x2a,
        dont_fragment: false,
    }
}

fn run(path: Path, octets: &[u8], stride: usize) -> Run<'_> {
    Run { route: Route::Esp(path), octets, stride }
}

/// Everything that comes in, as single packets, with whether any came merged. Gives up after ten seconds of silence:
/// on a busy machine the first address resolution may need to be asked again.
fn receive(wire: &Wire, source: Source, packets: usize) -> (Vec<Vec<u8>>, bool) {
    let socket = wire.socket(source).unwrap();
    let (mut slots, mut buffer) = (Slots::default(), vec![0; 70_000 * MAX]);
    let (mut got, mut merged) = (Vec::new(), false);
    while got.len() < packets {
        let wait = Timespec { tv_sec: 10, tv_nsec: 0 };
        if poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&wait)).unwrap() == 0 {
            break;
        }
        for index in 0..slots.receive(socket, &mut buffer, 70_000, MAX).unwrap() {
            let message = slots.message(index).unwrap();
            let raw4 = source == Source::Esp4;
            let tos = if raw4 { buffer[message.start + 1] } else { message.tos };
            assert_eq!(tos, 0x2a);
            let header = if raw4 { 20 } else { 0 };
            let octets = &buffer[message.start + header..][..message.len - header];
            merged |= message.segment.is_some_and(|segment| segment < octets.len());
            let packets = octets.chunks(message.segment.unwrap_or(octets.len()));
            got.extend(packets.map(<[u8]>::to_vec));
        }
    }
    (got, merged)
}

fn octets(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n * 31 % 251) as u8 | 1).collect()
}

#[test]
fn a_run_arrives_packet_by_packet_over_every_carrier() {
    let Some((left, right)) = cable() else { return };
    let (ours, theirs) = (open(&left, &plan(1)), open(&right, &plan(1)));
    let octets = octets(44 * 1450 + 600);
    for (family, udp, source) in
        [(0, true, Source::Udp4), (1, true, Source::Udp6), (0, false, Source::Esp4), (1, false, Source::Esp6)]
    {
        let lost = ours[0].send(&run(path(family, udp), &octets, 1450), &mut Scratch::default());
        assert_eq!(lost, 0);
        let (got, merged) = receive(&theirs[0], source, 45);
        assert_eq!(got.len(), 45, "{source:?}");
        assert!(got.iter().map(Vec::as_slice).eq(octets.chunks(1450)), "{source:?}");
        assert_eq!(merged, udp, "{source:?}");
    }
    assert!(ours[0].segments());
    assert_eq!(ours[0].unsegmented.load(Relaxed), 0);
}

#[test]
fn segments_too_long_for_the_link_are_fragmented_and_arrive_whole() {
    let Some((left, right)) = cable() else { return };
    let (ours, theirs) = (open(&left, &plan(1)), open(&right, &plan(1)));
    let octets = octets(3 * 2000);
    for (family, udp, source) in
        [(0, true, Source::Udp4), (1, true, Source::Udp6), (0, false, Source::Esp4), (1, false, Source::Esp6)]
    {
        assert_eq!(ours[0].send(&run(path(family, udp), &octets, 2000), &mut Scratch::default()), 0);
        let (got, _) = receive(&theirs[0], source, 3);
        assert_eq!(got.concat(), octets, "{source:?}");
    }
    assert_eq!(ours[0].unsegmented.load(Relaxed), 2);
    assert!(ours[0].segments(), "a long packet must not turn segmentation off for the others");
}

#[test]
fn packets_that_may_not_be_fragmented_and_do_not_fit_are_reported_lost() {
    let Some((left, right)) = cable() else { return };
    let (ours, theirs) = (open(&left, &plan(1)), open(&right, &plan(1)));
    for udp in [true, false] {
        let whole = Path { dont_fragment: true, ..path(0, udp) };
        assert_eq!(ours[0].send(&run(whole, &octets(4000), 2000), &mut Scratch::default()), 2);
        // And the next one may be fragmented again.
        assert_eq!(ours[0].send(&run(path(0, udp), &octets(2000), 2000), &mut Scratch::default()), 0);
        let source = if udp { Source::Udp4 } else { Source::Esp4 };
        assert_eq!(receive(&theirs[0], source, 1).0.len(), 1);
    }
}

#[test]
fn without_offloads_the_same_packets_arrive_one_by_one() {
    let Some((left, right)) = cable() else { return };
    let simple = Plan { gro: false, gso: false, ..plan(1) };
    let (ours, theirs) = (open(&left, &simple), open(&right, &simple));
    let octets = octets(150 * 100);
    assert_eq!(ours[0].send(&run(path(0, true), &octets, 100), &mut Scratch::default()), 0);
    let (got, merged) = receive(&theirs[0], Source::Udp4, 150);
    assert_eq!((got.concat(), got.len(), merged), (octets, 150, false));
}

#[test]
fn each_worker_receives_the_spis_that_name_it() {
    let Some((left, right)) = cable() else { return };
    let (ours, theirs) = (open(&left, &plan(1)), open(&right, &plan(3)));
    for (family, udp, source) in
        [(0, true, Source::Udp4), (1, true, Source::Udp6), (0, false, Source::Esp4), (1, false, Source::Esp6)]
    {
        for spi in 300..330_u32 {
            let packet = [&spi.to_be_bytes()[..], &[7; 60]].concat();
            assert_eq!(ours[0].send(&run(path(family, udp), &packet, 64), &mut Scratch::default()), 0);
        }
        for (index, wire) in theirs.iter().enumerate() {
            let (got, _) = receive(wire, source, 10);
            let spis: Vec<u32> =
                got.iter().map(|packet| u32::from_be_bytes(packet[..4].try_into().unwrap())).collect();
            let mine: Vec<u32> = (300..330).filter(|spi| *spi as usize % 3 == index).collect();
            assert_eq!(spis, mine, "{source:?}");
        }
    }
}

#[test]
fn without_steering_each_packet_still_arrives_once() {
    let Some((left, right)) = cable() else { return };
    let (ours, theirs) = (open(&left, &plan(1)), open(&right, &Plan { steer: false, ..plan(3) }));
    assert!(theirs.iter().all(|wire| wire.steering() == [Steering::Flow, Steering::First]));
    for (family, udp) in [(0, true), (1, true), (0, false), (1, false)] {
        for spi in 300..332_u32 {
            let packet = [&spi.to_be_bytes()[..], &[7; 60]].concat();
            assert_eq!(ours[0].send(&run(path(family, udp), &packet, 64), &mut Scratch::default()), 0);
        }
    }
    let mut got = [0; Source::ALL.len()];
    let mut left = 4 * 32;
    while left > 0 {
        let open: Vec<_> = theirs
            .iter()
            .flat_map(|wire| Source::ALL.map(|source| (wire, source)))
            .filter(|(wire, source)| wire.socket(*source).is_some())
            .collect();
        let mut ready: Vec<_> = open
            .iter()
            .map(|(wire, source)| PollFd::new(wire.socket(*source).unwrap(), PollFlags::IN))
            .collect();
        if poll(&mut ready, Some(&Timespec { tv_sec: 10, tv_nsec: 0 })).unwrap() == 0 {
            break;
        }
        let now: Vec<bool> = ready.iter().map(|fd| fd.revents().contains(PollFlags::IN)).collect();
        for ((wire, source), _) in open.iter().zip(now).filter(|(_, now)| *now) {
            let n = receive(wire, *source, 1).0.len();
            got[*source as usize] += n;
            left -= n.min(left);
        }
    }
    assert_eq!(got, [32, 32, 32, 32, 0, 0, 0, 0]);
    // And no second copy.
    for wire in &theirs {
        for source in Source::ALL {
            let Some(socket) = wire.socket(source) else { continue };
            assert_eq!(
                poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&Timespec::default())).unwrap(),
                0
            );
        }
    }
}

#[test]
fn only_a_kernel_that_never_segments_turns_segmentation_off() {
    let why = |errno| Unsegmented::why(&io::Error::from_raw_os_error(errno));
    assert_eq!(why(libc::EIO), Some(Unsegmented::Never));
    assert_eq!(why(libc::ENOTSUP), Some(Unsegmented::Never));
    assert_eq!(why(libc::EINVAL), Some(Unsegmented::ThisTime));
    assert_eq!(why(libc::EMSGSIZE), Some(Unsegmented::ThisTime));
    assert_eq!(why(libc::ENETUNREACH), None);
}

#[test]
fn a_port_in_use_is_named_however_many_workers_there_are() {
    let Some((left, _right)) = cable() else { return };
    let _held = open(&left, &plan(2));
    for workers in [1, 2] {
        let refused = left.run(|| Wire::open(&plan(workers))).unwrap().unwrap_err();
        assert_eq!(refused, WireError::PortInUse(4500));
    }
    let nowhere = Plan { device: "eth7", ..plan(1) };
    assert_eq!(left.run(|| Wire::open(&nowhere)).unwrap().unwrap_err(), WireError::NoDevice);
}

#[test]
fn a_clear_packet_leaves_as_it_is() {
    let Some((left, right)) = cable() else { return };
    let ours = open(&left, &plan(1));
    let listener = right.run(|| std::net::UdpSocket::bind("192.0.2.2:7777")).unwrap().unwrap();
    listener.set_read_timeout(Some(std::time::Duration::from_secs(2))).unwrap();
    // 20 octets of IP header, 8 of UDP header without a checksum, 4 of payload.
    let mut packet = vec![0x45, 0, 0, 32, 0, 0, 0x40, 0, 9, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2];
    packet.extend([0x13, 0x88, 0x1e, 0x61, 0, 12, 0, 0, 1, 2, 3, 4]);
    let run =
        Run { route: Route::Clear("192.0.2.2".parse().unwrap()), octets: &packet, stride: packet.len() };
    assert_eq!(ours[0].send(&run, &mut Scratch::default()), 0);
    let mut got = [0; 64];
    let (n, from) = listener.recv_from(&mut got).unwrap();
    assert_eq!((&got[..n], from), (&[1, 2, 3, 4][..], "192.0.2.1:5000".parse().unwrap()));
}

#[test]
fn esp_in_udp_is_taken_and_sent_beside_a_key_manager_that_has_the_port() {
    let Some((left, right)) = cable() else { return };
    let theirs = open(&left, &plan(1));
    for workers in [1, 3] {
        let ours = open(&right, &Plan { beside: true, ..plan(workers) });
        for family in [0, 1] {
            let any = ["0.0.0.0:4500", "[::]:4500"][family];
            let daemon = right.run(|| std::net::UdpSocket::bind(any)).unwrap().unwrap();
            daemon.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
            let source = [Source::Udp4, Source::Udp6][family];
            let to: SocketAddr = SocketAddr::new(RIGHT[family].parse().unwrap(), 4500);
            // IKE, a keepalive and what is too short are the daemon's alone; ESP comes to both.
            theirs[0].send_udp(None, to, &[0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]).unwrap();
            theirs[0].send_udp(None, to, &[0xff]).unwrap();
            theirs[0].send_udp(None, to, &[0, 0, 1, 0, 5, 6, 7]).unwrap();
            let packet = [&300_u32.to_be_bytes()[..], &octets(61)].concat();
            assert_eq!(theirs[0].send(&run(path(family, true), &packet, 65), &mut Scratch::default()), 0);
            let mut got = [0; 100];
            for len in [12, 1, 7, 65] {
                assert_eq!(daemon.recv_from(&mut got).unwrap().0, len);
            }
            let socket = ours[0].socket(source).unwrap();
            let (mut slots, mut buffer) = (Slots::default(), vec![0; 70_000 * MAX]);
            let wait = Timespec { tv_sec: 10, tv_nsec: 0 };
            assert!(poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&wait)).unwrap() > 0);
            assert_eq!(slots.receive(socket, &mut buffer, 70_000, MAX).unwrap(), 1, "nothing else");
            let message = slots.message(0).unwrap();
            let header = if family == 0 { 20 } else { 0 };
            let datagram = &buffer[message.start + header..message.start + message.len];
            assert_eq!(beside::split(datagram), Some((4500, &packet[..])));
            assert_eq!(beside::split(&datagram[..datagram.len() - 1]), None);
            for other in ours.iter().skip(1) {
                let socket = other.socket(source).unwrap();
                assert_eq!(
                    poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&Timespec::default())).unwrap(),
                    0
                );
            }
            // A superpacket of a neighbour on this machine comes as it was sent: nothing has cut it, for there was no wire.
            let sealed = |n: u32, len: usize| {
                [&300_u32.to_be_bytes()[..], &n.to_be_bytes(), &octets(len - 8)].concat()
            };
            let three = [sealed(7, 96), sealed(8, 96), sealed(9, 40)].concat();
            assert_eq!(theirs[0].send(&run(path(family, true), &three, 96), &mut Scratch::default()), 0);
            for len in [96, 96, 40] {
                assert_eq!(daemon.recv_from(&mut got).unwrap().0, len);
            }
            assert!(poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&wait)).unwrap() > 0);
            assert_eq!(slots.receive(socket, &mut buffer, 70_000, MAX).unwrap(), 1);
            let message = slots.message(0).unwrap();
            let (port, packets) =
                beside::split(&buffer[message.start + header..][..message.len - header]).expect("a datagram");
            assert_eq!((port, packets, beside::stride(packets)), (4500, &three[..], 96));
            // And back, in several packets, with a keepalive: from that port, whole, and with a checksum over IPv6.
            let back = Path {
                src: RIGHT[family].parse().unwrap(),
                dst: LEFT[family].parse().unwrap(),
                ..path(family, true)
            };
            let octets = octets(3 * 1001 - 5);
            assert_eq!(ours[0].send(&run(back, &octets, 1001), &mut Scratch::default()), 0);
            let (packets, _) = receive(&theirs[0], source, 3);
            assert_eq!(packets.iter().map(Vec::len).collect::<Vec<_>>(), [1001, 1001, 996]);
            assert_eq!(packets.concat(), octets);
            ours[0].send_udp(Some(to.ip()), SocketAddr::new(back.dst, 4500), &[0xff]).unwrap();
            let socket = theirs[0].socket(source).unwrap();
            assert!(poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&wait)).unwrap() > 0);
            assert_eq!(slots.receive(socket, &mut buffer, 70_000, MAX).unwrap(), 1);
            let message = slots.message(0).unwrap();
            assert_eq!((&buffer[message.start..][..message.len], message.from), (&[0xff][..], to));
        }
    }
}

#[test]
fn a_peers_esp_is_not_answered_with_protocol_unreachable() {
    let Some((left, right)) = cable() else { return };
    let icmp = left.run(|| Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))).unwrap().unwrap();
    let sender = left.run(|| raw(Domain::IPV4, "eth0", ESP)).unwrap().unwrap();
    let ready = |socket: &Socket, milliseconds: i64| {
        let wait = Timespec { tv_sec: milliseconds / 1000, tv_nsec: milliseconds % 1000 * 1_000_000 };
        poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&wait)).unwrap() > 0
    };
    let send = |packet: &[u8]| {
        let to = Destination { to: "192.0.2.2:0".parse().unwrap(), from: None, tos: None };
        Scratch::default().send(&sender.socket, packet, &to, None).unwrap();
    };
    let theirs = open(&right, &plan(2));
    send(&[0, 0, 1, 0, 0, 0, 0, 1]);
    assert!(ready(theirs[0].socket(Source::Esp4).unwrap(), 10_000), "the packet did not arrive");
    assert!(!ready(&icmp, 300));
    drop(theirs);
    send(&[0, 0, 1, 0, 0, 0, 0, 2]);
    assert!(ready(&icmp, 10_000), "this test cannot tell: the kernel never answers");
}
