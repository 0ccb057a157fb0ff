//! The same through devices and sockets: a flood of UDP from one namespace into the tunnels, and what comes out in another.
//!
//! One way, one worker at each end. Nobody listens behind the tunnels: what the receiving device has delivered is counted
//! there, and the kernel drops it for want of an address.

use super::{TUNNELS, host, ipnet, turn};
use crate::measure::{Options, median};
use crate::report::{figure, row};
use ipnet::IpNet;
use ipsec::host::clock;
use ipsec::host::interfaces::{Addresses, Interfaces, Physical, Settings};
use ipsec::host::mmsg::{Destination, Scratch};
use ipsec::host::netlink::{Netlink, Route};
use ipsec::host::netns::{End, Namespace, connect};
use ipsec_core::algorithm::{Encryption, Suite};
use ipsec_core::{Protocol, SaId, Selector, Spi};
use klips::{Action, Blueprint, Encapsulation, Eroute, Keys, Limits, Mode, Plane, Sa};
use rustix::event::{EventfdFlags, eventfd};
use serde_json::json;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;
use zeroize::Zeroizing;

const OUTER: [&str; 2] = ["192.0.2.1/24", "192.0.2.2/24"];
const INNER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

fn net(text: &str) -> IpNet {
    text.parse().expect("a network of ours")
}

fn id(tunnel: u32) -> SaId {
    SaId { dst: net(OUTER[1]).addr(), protocol: Protocol::Esp, spi: Spi(0x1000 + tunnel) }
}

fn selector(tunnel: u32) -> Selector {
    Selector::nets(ipnet(INNER), ipnet(host(11, tunnel)))
}

fn sa(tunnel: u32) -> Arc<Sa> {
    Arc::new(Sa::new(Blueprint {
        id: id(tunnel),
        src: net(OUTER[0]).addr(),
        mode: Mode::Tunnel,
        suite: Suite { encryption: Some(Encryption::AesGcm16), auth: None },
        keys: Keys { encryption: Zeroizing::new((0..20).collect()), ..Keys::default() },
        esn: true,
        window: 1024,
        encapsulation: Some(Encapsulation { local: 4500, remote: 4500 }),
        selector: Some(selector(tunnel)),
        limits: Limits::default(),
    }))
}

/// Two gateways with tunnels from the first to the second.
struct Pair {
    from: Namespace,
    to: Namespace,
    _interfaces: [Interfaces; 2],
    tunnels: u32,
    turn: u32,
}

fn gateway(
    namespace: &Namespace,
    plane: &Arc<Plane>,
    own: IpNet,
    route: Option<&str>,
) -> io::Result<Interfaces> {
    let settings = Settings { workers: Some(1), ..Settings::default() };
    namespace.run(|| {
        let wake = Arc::new(eventfd(0, EventfdFlags::NONBLOCK)?);
        let mut interfaces =
            Interfaces::new(Arc::clone(plane), wake, Arc::new(|_: &_, _: &_| false), settings)?;
        let physical = Physical::Name("eth0".into());
        interfaces
            .attach("ipsec0", &physical, &Addresses::Given(vec![own]))
            .map_err(|why| io::Error::other(why.to_string()))?;
        if let Some(dst) = route.map(net) {
            let mut netlink = Netlink::open()?;
            let link = netlink.link("ipsec0")?.map(|link| link.index);
            netlink.add_route(&Route { dst, via: None, link, src: Some(own.addr()), metric: 0 })?;
        }
        Ok(interfaces)
    })?
}

impl Pair {
    fn new(tunnels: u32) -> io::Result<Self> {
        let (from, to) = (Namespace::new()?, Namespace::new()?);
        let addresses = OUTER.map(net);
        connect(
            End { namespace: &from, name: "eth0", addresses: &addresses[..1] },
            End { namespace: &to, name: "eth0", addresses: &addresses[1..] },
        )?;
        let planes = [Arc::new(Plane::default()), Arc::new(Plane::default())];
        for tunnel in 0..tunnels {
            for plane in &planes {
                plane.publish(sa(tunnel));
            }
        }
        let [sender, receiver] = &planes;
        sender.change_eroutes(|eroutes| {
            for tunnel in 0..tunnels {
                eroutes.replace(Eroute::new(selector(tunnel), Action::Protect(id(tunnel))));
            }
        });
        let interfaces = [
            gateway(&from, sender, ipnet(INNER), Some("11.0.0.0/8"))?,
            gateway(&to, receiver, ipnet(Ipv4Addr::new(10, 77, 0, 2)), None)?,
        ];
        Ok(Self { from, to, _interfaces: interfaces, tunnels, turn: 0 })
    }

    /// Octets and writes the receiving device has delivered.
    fn delivered(&self) -> io::Result<[u64; 2]> {
        // The interfaces of this thread's namespace, whatever /sys may show.
        let text = self.to.run(|| fs::read_to_string("/proc/thread-self/net/dev"))??;
        let line = text.lines().find_map(|line| line.trim_start().strip_prefix("ipsec0:"));
        let mut numbers = line.unwrap_or_default().split_whitespace().filter_map(|word| word.parse().ok());
        Ok([numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)])
    }

    /// Floods the tunnels in turn, so many datagrams of `size` octets into each: thousands that come out per second.
    fn flood(&mut self, size: usize, burst: usize, length: Duration) -> io::Result<f64> {
        let socket = self.from.run(|| UdpSocket::bind((INNER, 0)))??;
        let (octets, mut scratch) = (vec![0x5a; size * burst], Scratch::default());
        let segment = u16::try_from(size).ok().filter(|_| burst > 1);
        let stop = AtomicBool::new(false);
        let (tunnels, mut at, mut flow) = (self.tunnels, self.turn, 0);
        let figures = thread::scope(|scope| {
            let sender = scope.spawn(|| {
                while !stop.load(Relaxed) {
                    // A new flow each time: else one tunnel would have one flow, whose packets merge, and many have many.
                    flow = flow % 4096 + 1;
                    let to = SocketAddr::from((host(11, turn(&mut at, tunnels)), 9000 + flow));
                    let destination = Destination { to, from: None, tos: None };
                    // What the sender's own host has no room for was never sent.
                    let _ = scratch.send(&socket, &octets, &destination, segment);
                }
            });
            // Every tunnel's keys have been scheduled by then, or it counts.
            thread::sleep(Duration::from_millis(500));
            let (start, before) = (clock::now(), self.delivered());
            thread::sleep(length);
            let (after, seconds) = (self.delivered(), clock::now().since(start).as_secs_f64());
            stop.store(true, Relaxed);
            let _ = sender.join();
            let (before, after) = (before?, after?);
            let [octets, writes] = [0, 1].map(|index| (after[index] - before[index]) as f64);
            // One write has one pair of headers, 28 octets, however many datagrams it merges.
            Ok::<_, io::Error>((octets - 28.0 * writes) / size as f64 / seconds / 1e3)
        })?;
        self.turn = at;
        Ok(figures)
    }
}

/// Measures; nothing to do where namespaces may not be made.
pub(super) fn run(options: &Options) -> io::Result<()> {
    if let Err(why) = ipsec::host::netns::available() {
        eprintln!("scale end to end: left out: {why}");
        return Ok(());
    }
    let mut pairs = TUNNELS.iter().map(|tunnels| Pair::new(*tunnels)).collect::<io::Result<Vec<_>>>()?;
    let (rounds, length) = if options.quick { (3, 500) } else { (7, 1500) };
    for (name, size, burst) in [("uso-1300", 1300, 44), ("single-64", 64, 1)] {
        let mut samples = vec![(Vec::new(), Vec::new()); pairs.len()];
        for _ in 0..rounds {
            let mut one = None;
            for (pair, (rates, of_one)) in pairs.iter_mut().zip(&mut samples) {
                let rate = pair.flood(size, burst, Duration::from_millis(length))?;
                of_one.push(rate / *one.get_or_insert(rate));
                rates.push(rate);
            }
        }
        for (pair, (rates, of_one)) in pairs.iter().zip(samples) {
            let rate = median(rates);
            row(&[
                ("bench", json!(format!("scale end to end {name}"))),
                ("tunnels", json!(pair.tunnels)),
                ("kpps", figure(rate)),
                ("gbit", figure(rate * size as f64 * 8.0 / 1e6)),
                ("of_one", figure(median(of_one))),
            ]);
        }
    }
    Ok(())
}
