//! Eroute lookups: what a flow-cache miss costs, and how long a table takes to fill and to list.

use crate::measure::{Options, median, nanos};
use crate::report::{figure, row};
use ipsec_core::{Flow, Selector};
use klips::{Action, Eroute, Eroutes};
use serde_json::json;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};

const PROBES: usize = 100_000;

fn address(i: u32) -> IpAddr {
    // Spread over 10.0.0.0/8 so that neighbours in the table are not neighbours in memory.
    IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 | i.wrapping_mul(2_654_435_761) >> 8))
}

/// `n` eroutes of one source network to a host each, in `shapes` different shapes.
fn table(n: u32, shapes: u32) -> Eroutes {
    let mut table = Eroutes::default();
    for i in 0..n {
        let len = 32 - (i % shapes) as u8;
        let dst = ipnet_of(address(i), len);
        table.replace(Eroute::new(
            Selector::nets(ipnet_of("172.16.0.0".parse().expect("an address"), 16), dst),
            Action::Pass,
        ));
    }
    table
}

fn ipnet_of(ip: IpAddr, len: u8) -> ipsec_core::IpNet {
    ipsec_core::IpNet::new(ip, len).expect("a prefix length").trunc()
}

pub(crate) fn run(options: &Options) {
    for (n, shapes) in [(1, 1), (1_000, 1), (1_000, 16), (1_000_000, 1), (1_000_000, 16)] {
        let name = format!("eroute lookup, {shapes} shapes");
        if !options.wants(&name) {
            continue;
        }
        let mut built = None;
        let fill = nanos(|| built = Some(table(n, shapes)));
        let table = built.expect("the table was built");
        let flows: Vec<Flow> = (0..PROBES as u32)
            .map(|i| Flow {
                src: "172.16.1.1".parse().expect("an address"),
                dst: address(i.wrapping_mul(7919) % n),
                proto: 6,
                sport: 1,
                dport: 2,
            })
            .collect();
        let sample =
            || nanos(|| flows.iter().for_each(|flow| assert!(black_box(table.lookup(flow)).is_some())));
        let lookup = median((0..options.samples()).map(|_| sample() / PROBES as f64).collect());
        let list = nanos(|| drop(black_box(table.list())));
        row(&[
            ("bench", json!(name)),
            ("eroutes", json!(n)),
            ("lookup_ns", figure(lookup)),
            ("fill_ms", figure(fill / 1e6)),
            ("list_ms", figure(list / 1e6)),
        ]);
    }
}
