//! Many tunnels: one SA and one eroute each, and traffic over all of them in an order that no cache likes.
//!
//! First the engine alone, as in `engine`, then through devices and sockets. Samples of the sizes alternate, and every ratio
//! is to one tunnel in the same turn.

mod wire;

use crate::engine::{Case, NOW, Pair, cases, packet, superpacket};
use crate::measure::{Options, cpu_nanos, median};
use crate::report::{figure, row};
use ipsec_core::Selector;
use klips::{Verdict, Vnet};
use serde_json::json;
use std::io;
use std::net::Ipv4Addr;

const TUNNELS: [u32; 3] = [1, 1_000, 100_000];
/// Packets or superpackets in a batch.
const BATCH: usize = 32;

/// The inner address of a tunnel's end on one side.
fn host(net: u8, tunnel: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(net) << 24 | tunnel)
}

/// The next tunnel: all take turns, and neighbours in time are far from each other in memory.
fn turn(at: &mut u32, tunnels: u32) -> u32 {
    *at = at.wrapping_add(1) % tunnels;
    // The step is coprime to every number of tunnels here, so that each turn visits all.
    (u64::from(*at) * 7_919 % u64::from(tunnels)) as u32
}

/// What one read of the device delivers.
struct Shape {
    name: &'static str,
    vnet: Vnet,
    template: Vec<u8>,
    packets: usize,
    /// In one batch
    reads: usize,
}

struct Fleet {
    tunnels: u32,
    pair: Pair,
    turn: u32,
    seal: Vec<f64>,
    open: Vec<f64>,
}

impl Fleet {
    fn new(case: &Case, tunnels: u32) -> Self {
        let selector = |tunnel| Selector::nets(ipnet(host(10, tunnel)), ipnet(host(11, tunnel)));
        let pair = Pair::with(case, (0..tunnels).map(selector));
        Self { tunnels, pair, turn: 0, seal: Vec::new(), open: Vec::new() }
    }

    /// Nanoseconds per packet to seal and to open, over so many batches.
    fn sample(&mut self, shape: &Shape, batches: usize) -> (f64, f64) {
        let mut reads = vec![shape.template.clone(); shape.reads];
        let (mut seal, mut open) = (0.0, 0.0);
        for _ in 0..batches {
            for read in &mut reads {
                read.copy_from_slice(&shape.template);
                let tunnel = turn(&mut self.turn, self.tunnels);
                read[12..16].copy_from_slice(&host(10, tunnel).octets());
                read[16..20].copy_from_slice(&host(11, tunnel).octets());
            }
            let pair = &mut self.pair;
            seal += cpu_nanos(|| {
                for read in &mut reads {
                    assert_eq!(pair.outbound.packet(&shape.vnet, read, NOW, &mut pair.sealed), Verdict::Send);
                }
                pair.outbound.finish(NOW, &mut pair.sealed);
            });
            open += pair.cross();
        }
        let packets = (batches * shape.reads * shape.packets) as f64;
        (seal / packets, open / packets)
    }
}

fn ipnet(address: Ipv4Addr) -> ipnet::IpNet {
    std::net::IpAddr::V4(address).into()
}

fn shapes() -> Vec<Shape> {
    let single = |name, len| {
        let (vnet, template) = (Vnet::default(), packet(len));
        Shape { name, vnet, template, packets: 1, reads: BATCH }
    };
    let (vnet, template) = superpacket(44);
    // As many as the buffers of a worker take at once.
    let bulk = Shape { name: "tso44", vnet, template, packets: 44, reads: 8 };
    vec![single("single-64", 64), single("single-1400", 1400), bulk]
}

/// Measures AES-128-GCM, or what the filter names.
pub(crate) fn run(options: &Options) -> io::Result<()> {
    let cases = cases();
    let chosen = |case: &&Case| match options.filter {
        Some(_) => options.wants(case.name),
        None => case.name == "aes-128-gcm16",
    };
    for case in cases.iter().filter(chosen) {
        let mut fleets = TUNNELS.map(|tunnels| Fleet::new(case, tunnels));
        for shape in shapes() {
            measure(case, &shape, &mut fleets, options);
        }
        for fleet in &fleets {
            fleet.pair.clean();
        }
    }
    wire::run(options)
}

fn measure(case: &Case, shape: &Shape, fleets: &mut [Fleet], options: &Options) {
    for fleet in &mut *fleets {
        (fleet.seal, fleet.open) = (Vec::new(), Vec::new());
        // Key schedules are built on first use; that is paid once.
        let first = (fleet.tunnels as usize).div_ceil(shape.reads);
        fleet.sample(shape, if shape.packets == 1 { first } else { 1 });
    }
    let batches = if options.quick { 4_000 } else { 20_000 } / (shape.reads * shape.packets);
    for _ in 0..options.samples() {
        for fleet in &mut *fleets {
            let (seal, open) = fleet.sample(shape, batches.max(1));
            fleet.seal.push(seal);
            fleet.open.push(open);
        }
    }
    let Some((one, _)) = fleets.split_first() else { return };
    let ratio =
        |one: &[f64], many: &[f64]| median(one.iter().zip(many).map(|(one, many)| one / many).collect());
    let both = |fleet: &Fleet| -> Vec<f64> {
        fleet.seal.iter().zip(&fleet.open).map(|(seal, open)| seal + open).collect()
    };
    for fleet in &*fleets {
        row(&[
            ("bench", json!(format!("scale {} {}", case.name, shape.name))),
            ("tunnels", json!(fleet.tunnels)),
            ("seal_ns", figure(median(fleet.seal.clone()))),
            ("open_ns", figure(median(fleet.open.clone()))),
            ("seal_of_one", figure(ratio(&one.seal, &fleet.seal))),
            ("open_of_one", figure(ratio(&one.open, &fleet.open))),
            ("of_one", figure(ratio(&both(one), &both(fleet)))),
        ]);
    }
}
