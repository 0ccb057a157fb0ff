//! A soak: mixed traffic through two gateways for as long as wanted, rekeyed all the while; nothing may be lost, reordered
//! or altered within a flow, and memory must stay where it was.
//!
//! The gateways are two data planes in two network namespaces of this process. Rates are modest: what a host's own queues
//! drop under overload is not the tunnel's doing and would hide what is.

use crate::report::row;
use ipnet::IpNet;
use ipsec::host::clock;
use ipsec::host::interfaces::{Addresses, Interfaces, Physical, Settings};
use ipsec::host::netlink::{Netlink, Route};
use ipsec::host::netns::{End, Namespace, connect};
use ipsec_core::algorithm::{Encryption, Suite};
use ipsec_core::{Protocol, SaId, Selector, Spi};
use klips::{Action, Blueprint, Discard, Encapsulation, Eroute, Keys, Limits, Mode, Plane, Sa};
use nix::sys::socket::{setsockopt, sockopt};
use rustix::event::{EventfdFlags, eventfd};
use serde_json::json;
use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;
use zeroize::Zeroizing;

/// How long, and how much
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Seconds of traffic
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// Seconds between two rekeys of both directions
    #[arg(long, default_value_t = 2)]
    rekey: u64,
    /// Megabits per second of each of the two TCP streams
    #[arg(long, default_value_t = 400)]
    tcp: u64,
    /// Datagrams per second in each direction, over four flows
    #[arg(long, default_value_t = 4000)]
    udp: u64,
    /// Raw ESP instead of ESP in UDP
    #[arg(long)]
    raw: bool,
    /// Workers for each gateway
    #[arg(long)]
    workers: Option<usize>,
    /// All offloads off
    #[arg(long)]
    no_offload: bool,
}

const FLOWS: u16 = 4;
/// Divisible by every number of workers up to eight, so that a new SPI is steered to the worker of the old one.
const SPI_STEP: u32 = 840;

struct Gateway {
    namespace: Namespace,
    plane: Arc<Plane>,
    _interfaces: Interfaces,
    inner: IpAddr,
}

fn net(text: String) -> IpNet {
    text.parse().expect("a network of ours")
}

fn outer(host: u8) -> IpNet {
    net(format!("192.0.2.{host}/24"))
}

fn inner(host: u8) -> IpNet {
    net(format!("10.0.{host}.1/24"))
}

/// The SA of one direction in its n-th generation.
fn sa(options: &Options, from: u8, to: u8, generation: u32) -> Arc<Sa> {
    let key = (0..20).map(|n: u8| n ^ from ^ generation as u8).collect::<Vec<u8>>();
    Arc::new(Sa::new(Blueprint {
        id: SaId {
            dst: outer(to).addr(),
            protocol: Protocol::Esp,
            spi: Spi(0x1000 + u32::from(from) + generation * SPI_STEP),
        },
        src: outer(from).addr(),
        mode: Mode::Tunnel,
        suite: Suite { encryption: Some(Encryption::AesGcm16), auth: None },
        keys: Keys { encryption: Zeroizing::new(key), ..Keys::default() },
        esn: true,
        window: 1024,
        encapsulation: (!options.raw).then_some(Encapsulation { local: 4500, remote: 4500 }),
        selector: Some(Selector::nets(inner(from).trunc(), inner(to).trunc())),
        limits: Limits::default(),
    }))
}

fn gateway(options: &Options, namespace: Namespace, host: u8, peer: u8) -> io::Result<Gateway> {
    let plane = Arc::new(Plane::default());
    let own = IpNet::from(inner(host).addr());
    let settings = Settings { workers: options.workers, ..Settings::default() };
    let settings = if options.no_offload { settings.without_offloads() } else { settings };
    let interfaces = namespace.run(|| {
        let wake = Arc::new(eventfd(0, EventfdFlags::NONBLOCK)?);
        let ike = Arc::new(|_: &_, _: &_| false);
        let mut interfaces = Interfaces::new(Arc::clone(&plane), wake, ike, settings)?;
        let eth0 = Physical::Name("eth0".into());
        let addresses = Addresses::Given(vec![own]);
        interfaces.attach("ipsec0", &eth0, &addresses).map_err(|why| io::Error::other(why.to_string()))?;
        let mut netlink = Netlink::open()?;
        let link = netlink.link("ipsec0")?.map(|link| link.index);
        let dst = inner(peer).trunc();
        netlink.add_route(&Route { dst, via: None, link, src: Some(own.addr()), metric: 0 })?;
        Ok::<_, io::Error>(interfaces)
    })??;
    Ok(Gateway { namespace, plane, _interfaces: interfaces, inner: own.addr() })
}

/// Installs a generation: the receiver first, so that nothing arrives that it does not know; then the sender's eroute, at
/// once. The generation before the last goes; the last may still be on its way.
fn rekey(options: &Options, ends: &[Gateway; 2], generation: u32) {
    for (from, to) in [(0, 1), (1, 0)] {
        let (a, b) = (from as u8 + 1, to as u8 + 1);
        let (sender, receiver) = (&ends[from], &ends[to]);
        receiver.plane.publish(sa(options, a, b, generation));
        let out = sa(options, a, b, generation);
        let id = out.id;
        sender.plane.publish(out);
        let eroute = Eroute::new(Selector::nets(inner(a).trunc(), inner(b).trunc()), Action::Protect(id));
        sender.plane.change_eroutes(|eroutes| eroutes.replace(eroute));
        if let Some(old) = generation.checked_sub(2) {
            let id = sa(options, a, b, old).id;
            sender.plane.withdraw(&id);
            receiver.plane.withdraw(&id);
        }
    }
}

/// What became of the datagrams of one direction.
#[derive(Default)]
struct Ledger {
    sent: [AtomicU64; FLOWS as usize],
    received: AtomicU64,
    lost: AtomicU64,
    reordered: AtomicU64,
    repeated: AtomicU64,
    altered: AtomicU64,
}

fn datagram(flow: u16, number: u64) -> Vec<u8> {
    // Sizes from 16 octets to more than one packet has room for, in an order of no pattern.
    let len = 16 + (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as usize % 1700;
    let mut octets: Vec<u8> = (0..len).map(|at| (at as u64 ^ number) as u8).collect();
    octets[..8].copy_from_slice(&number.to_be_bytes());
    octets[8..10].copy_from_slice(&flow.to_be_bytes());
    octets
}

fn socket(end: &Gateway, port: u16) -> io::Result<UdpSocket> {
    let socket = end.namespace.run(|| UdpSocket::bind((end.inner, port)))??;
    setsockopt(&socket, sockopt::RcvBufForce, &(16 << 20))?;
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    Ok(socket)
}

fn send_datagrams(
    options: &Options,
    from: &Gateway,
    to: &Gateway,
    ledger: &Ledger,
    stop: &AtomicBool,
) -> io::Result<()> {
    let sockets = (0..FLOWS).map(|flow| socket(from, 6000 + flow)).collect::<io::Result<Vec<_>>>()?;
    // A burst each millisecond, to every flow in turn.
    let burst = options.udp.div_ceil(1000);
    let start = clock::now();
    let (mut tick, mut turn) = (0_u64, 0_usize);
    while !stop.load(Relaxed) {
        for _ in 0..burst {
            let flow = turn % usize::from(FLOWS);
            turn += 1;
            let number = ledger.sent[flow].fetch_add(1, Relaxed);
            let octets = datagram(flow as u16, number);
            sockets[flow].send_to(&octets, (to.inner, 7000 + flow as u16))?;
        }
        tick += 1;
        let due = start.after(Duration::from_millis(tick));
        thread::sleep(due.since(clock::now()));
    }
    Ok(())
}

fn receive_datagrams(socket: &UdpSocket, flow: u16, ledger: &Ledger, stopped: &AtomicBool) -> io::Result<()> {
    let mut buffer = vec![0; 4096];
    let (mut next, mut missing) = (0_u64, BTreeSet::new());
    loop {
        let len = match socket.recv(&mut buffer) {
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                // Silent for long, and nobody speaks any more: what has not come will not.
                if stopped.load(Relaxed) {
                    break;
                }
                continue;
            }
            Err(error) => return Err(error),
        };
        let number = buffer.first_chunk().map_or(u64::MAX, |octets| u64::from_be_bytes(*octets));
        ledger.received.fetch_add(1, Relaxed);
        if buffer[..len] != datagram(flow, number)[..] {
            ledger.altered.fetch_add(1, Relaxed);
        } else if number >= next {
            ledger.lost.fetch_add(number - next, Relaxed);
            missing.extend(next..number);
            next = number + 1;
        } else if missing.remove(&number) {
            ledger.lost.fetch_sub(1, Relaxed);
            ledger.reordered.fetch_add(1, Relaxed);
        } else {
            ledger.repeated.fetch_add(1, Relaxed);
        }
    }
    ledger.lost.fetch_add(ledger.sent[usize::from(flow)].load(Relaxed) - next, Relaxed);
    Ok(())
}

/// The octets of a stream, wherever one looks.
const PERIOD: usize = 251 * 1021;

fn pattern() -> Vec<u8> {
    (0..PERIOD).map(|at| ((at % 251) ^ (at / 251)) as u8).collect()
}

fn send_stream(options: &Options, mut stream: TcpStream, stop: &AtomicBool) -> io::Result<u64> {
    let page = pattern();
    let start = clock::now();
    let mut sent = 0_u64;
    while !stop.load(Relaxed) {
        stream.write_all(&page)?;
        sent += page.len() as u64;
        let micros = sent * 8 / options.tcp.max(1);
        thread::sleep(start.after(Duration::from_micros(micros)).since(clock::now()));
    }
    Ok(sent)
}

fn receive_stream(mut stream: TcpStream) -> io::Result<(u64, bool)> {
    let page = pattern();
    let mut buffer = vec![0; PERIOD];
    let (mut octets, mut intact) = (0, true);
    loop {
        // Whole pages but for the last: read_exact would lose count of a stream that breaks off.
        let mut filled = 0;
        while filled < PERIOD {
            match stream.read(&mut buffer[filled..])? {
                0 => break,
                len => filled += len,
            }
        }
        intact &= buffer[..filled] == page[..filled];
        octets += filled as u64;
        if filled < PERIOD {
            return Ok((octets, intact));
        }
    }
}

/// Resident memory of this process in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Soaks, reports, and says whether all was well.
pub(crate) fn run(options: &Options) -> io::Result<bool> {
    let (left, right) = (Namespace::new()?, Namespace::new()?);
    connect(
        End { namespace: &left, name: "eth0", addresses: &[outer(1)] },
        End { namespace: &right, name: "eth0", addresses: &[outer(2)] },
    )?;
    let ends = [gateway(options, left, 1, 2)?, gateway(options, right, 2, 1)?];
    rekey(options, &ends, 0);
    let (stop, stopped, over) = (AtomicBool::new(false), AtomicBool::new(false), AtomicBool::new(false));
    let ledgers = [Ledger::default(), Ledger::default()];
    let (mut rekeys, mut early) = (0_u64, 0_u64);

    let streams = thread::scope(|scope| -> io::Result<[(u64, u64, bool); 2]> {
        let mut senders = Vec::new();
        let mut receivers = Vec::new();
        let mut carriers = Vec::new();
        for (from, to) in [(0, 1), (1, 0)] {
            let (sender, receiver, ledger) = (&ends[from], &ends[to], &ledgers[from]);
            for flow in 0..FLOWS {
                let socket = socket(receiver, 7000 + flow)?;
                let stopped = &stopped;
                receivers.push(scope.spawn(move || receive_datagrams(&socket, flow, ledger, stopped)));
            }
            let address = SocketAddr::new(receiver.inner, 7);
            let listener = receiver.namespace.run(|| TcpListener::bind(address))??;
            let stream = sender.namespace.run(|| TcpStream::connect(address))??;
            let (accepted, _) = listener.accept()?;
            let stop = &stop;
            senders.push(scope.spawn(move || send_datagrams(options, sender, receiver, ledger, stop)));
            carriers.push((
                scope.spawn(move || send_stream(options, stream, stop)),
                scope.spawn(move || receive_stream(accepted)),
            ));
        }
        let ticker = scope.spawn(|| {
            for second in 1..=options.seconds {
                thread::sleep(Duration::from_secs(1));
                if over.load(Relaxed) {
                    break;
                }
                if second % options.rekey.max(1) == 0 {
                    rekeys += 1;
                    rekey(options, &ends, rekeys as u32);
                }
                // Buffers have grown to what they need by now.
                if second == 10.min(options.seconds) {
                    early = resident();
                }
                if second % 10 == 0 {
                    let lost: u64 = ledgers.iter().map(|l| l.lost.load(Relaxed)).sum();
                    let reordered: u64 = ledgers.iter().map(|l| l.reordered.load(Relaxed)).sum();
                    eprintln!("{second} of {} s: {lost} lost, {reordered} reordered", options.seconds);
                }
            }
            stop.store(true, Relaxed);
        });
        let fallen = |_| io::Error::other("a thread of the soak fell over");
        let mut outcome = Ok(());
        for sender in senders {
            outcome = outcome.and(sender.join().map_err(fallen)?);
        }
        // One that failed must not leave the others to soak on.
        if outcome.is_err() {
            over.store(true, Relaxed);
        }
        ticker.join().map_err(fallen)?;
        thread::sleep(Duration::from_millis(500));
        stopped.store(true, Relaxed);
        for receiver in receivers {
            outcome = outcome.and(receiver.join().map_err(fallen)?);
        }
        let mut streams = [(0, 0, false); 2];
        for (slot, (sent, received)) in streams.iter_mut().zip(carriers) {
            let (octets, intact) = received.join().map_err(fallen)??;
            *slot = (sent.join().map_err(fallen)??, octets, intact);
        }
        outcome.map(|()| streams)
    })?;

    let late = resident();
    let sum = |of: fn(&Ledger) -> u64| ledgers.iter().map(of).sum::<u64>();
    let sent = sum(|l| l.sent.iter().map(|n| n.load(Relaxed)).sum());
    let (lost, reordered) = (sum(|l| l.lost.load(Relaxed)), sum(|l| l.reordered.load(Relaxed)));
    let (repeated, altered) = (sum(|l| l.repeated.load(Relaxed)), sum(|l| l.altered.load(Relaxed)));
    let received = sum(|l| l.received.load(Relaxed));
    let intact = streams.iter().all(|(sent, received, intact)| *intact && sent == received);
    let octets: u64 = streams.iter().map(|(_, received, _)| received).sum();
    // The hosts' own chatter (IPv6 neighbours) has no eroute.
    let refused: serde_json::Map<String, serde_json::Value> = Discard::ALL
        .iter()
        .filter(|why| **why != Discard::NoEroute)
        .map(|why| (why.name().to_owned(), ends.iter().map(|end| end.plane.discarded(*why)).sum::<u64>()))
        .filter(|(_, n)| *n > 0)
        .map(|(name, n)| (name, json!(n)))
        .collect();
    let clean = refused.is_empty();
    row(&[
        ("bench", json!("soak")),
        ("seconds", json!(options.seconds)),
        ("rekeys", json!(rekeys)),
        ("datagrams", json!(sent)),
        ("received", json!(received)),
        ("lost", json!(lost)),
        ("reordered", json!(reordered)),
        ("repeated", json!(repeated)),
        ("altered", json!(altered)),
        ("tcp_gigabytes", crate::report::figure(octets as f64 / 1e9)),
        ("tcp_intact", json!(intact)),
        ("refused", json!(refused)),
        ("resident_kib_early", json!(early)),
        ("resident_kib_late", json!(late)),
    ]);
    Ok([lost, reordered, repeated, altered] == [0; 4] && intact && clean && sent == received)
}
