//! The policy: what a change costs, and how long packets may have to wait for one; what a lookup costs that the flow cache
//! has the answer to, and one that it has not; how long a table takes to fill, to list and to empty; octets for each eroute.
//!
//! Prefixes of many lengths on both sides, spread at random, IPv4 and IPv6. The limit beside the lookups is one probe of a
//! plain hash table of as many eroutes, and a look at the eroute that was found.

use crate::measure::{Options, cpu_nanos, median, nanos};
use crate::report::{figure, row};
use ipsec_core::{Flow, IpNet, Selector};
use klips::{Action, Eroute, Eroutes, FlowCache, Plane};
use serde_json::json;
use std::collections::HashMap;
use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;

/// Lookups timed together.
const PROBES: usize = 100_000;
/// Flows that all fit the flow cache.
const CACHED: usize = 64;

/// A generator whose sequence is the same on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 ^ self.0 >> 29
    }

    /// A number below `n`.
    fn below(&mut self, n: usize) -> usize {
        (self.next() >> 20) as usize % n
    }

    /// An address below 128.0.0.0, or below 8000::, where the eroutes are; or above, where there are none.
    fn address(&mut self, v6: bool, covered: bool) -> IpAddr {
        let bits = u128::from(self.next()) << 64 | u128::from(self.next().rotate_left(32));
        let bits = bits & !(1 << 127) | u128::from(!covered) << 127;
        if v6 { IpAddr::from(bits.to_be_bytes()) } else { IpAddr::from(((bits >> 96) as u32).to_be_bytes()) }
    }
}

/// Lengths of the prefixes on one side.
fn lengths(v6: bool, few: bool) -> Vec<u8> {
    match (v6, few) {
        (false, true) => vec![16, 20, 24, 32],
        (false, false) => (16..=32).collect(),
        (true, true) => vec![32, 48, 64, 128],
        (true, false) => (32..=128).step_by(6).collect(),
    }
}

/// `n` different selectors.
fn selectors(n: usize, v6: bool) -> Vec<Selector> {
    let mut random = Random(1);
    let (sources, destinations) = (lengths(v6, true), lengths(v6, false));
    let mut known = std::collections::HashSet::with_capacity(n);
    while known.len() < n {
        let mut net = |lengths: &[u8]| {
            let len = lengths[random.below(lengths.len())];
            IpNet::new(random.address(v6, true), len).expect("a prefix length").trunc()
        };
        known.insert(Selector::nets(net(&sources), net(&destinations)));
    }
    known.into_iter().collect()
}

fn flow(src: IpAddr, dst: IpAddr) -> Flow {
    Flow { src, dst, proto: 6, sport: 1, dport: 2 }
}

/// Resident memory of this process, octets.
fn resident() -> f64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    pages.split_whitespace().nth(1).and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0) * 4096.0
}

fn eroute(selector: Selector) -> Eroute {
    Eroute::new(selector, Action::Pass)
}

/// Nanoseconds a lookup of each flow takes, and whether that is a hit.
fn lookups(options: &Options, table: &Eroutes, flows: &[Flow], hit: bool) -> f64 {
    let pass = || flows.iter().for_each(|flow| assert_eq!(black_box(table.lookup(flow)).is_some(), hit));
    let sample = || cpu_nanos(pass) / flows.len() as f64;
    median((0..options.samples()).map(|_| sample()).collect())
}

/// Nanoseconds a lookup takes that the flow cache knows.
fn cached(options: &Options, plane: &Plane, flows: &[Flow]) -> f64 {
    let mut cache = FlowCache::default();
    flows.iter().for_each(|flow| _ = cache.decides(plane, flow));
    let rounds = PROBES / flows.len();
    let mut pass = || {
        for _ in 0..rounds {
            flows.iter().for_each(|flow| assert!(black_box(cache.decides(plane, flow))));
        }
    };
    let samples = (0..options.samples()).map(|_| cpu_nanos(&mut pass) / (rounds * flows.len()) as f64);
    median(samples.collect())
}

/// Nanoseconds it takes to find the eroute of one number in a plain hash table of as many, and to read it.
fn probe(options: &Options, all: &[Selector]) -> f64 {
    let mut random = Random(3);
    let entry = |selector: &Selector| (random.next(), Arc::new(eroute(*selector)));
    let table: HashMap<u64, Arc<Eroute>, foldhash::fast::RandomState> = all.iter().map(entry).collect();
    let keys: Vec<u64> = table.keys().copied().collect();
    let asked: Vec<u64> = (0..PROBES).map(|_| keys[random.below(keys.len())]).collect();
    let read = |key: &u64| table.get(key).is_some_and(|eroute| eroute.selector.proto == 0);
    let pass = || asked.iter().for_each(|key| assert!(black_box(read(key))));
    median((0..options.samples()).map(|_| cpu_nanos(pass) / PROBES as f64).collect())
}

pub(crate) fn run(options: &Options) {
    for v6 in [false, true] {
        for n in [1, 1_000, 100_000, 1_000_000] {
            let name = format!("eroute IPv{}", if v6 { 6 } else { 4 });
            if options.wants(&name) {
                measure(options, &name, n, v6);
            }
        }
    }
}

fn measure(options: &Options, name: &str, n: usize, v6: bool) {
    let selectors = selectors(n, v6);
    let plane = Plane::default();
    let before = resident();
    let fill = cpu_nanos(|| {
        for selector in &selectors {
            assert!(plane.change_eroutes(|eroutes| eroutes.add(eroute(*selector))).is_ok());
        }
    });
    let octets = (resident() - before) / n as f64;

    let mut random = Random(2);
    let samples = PROBES.min(n * 100);
    let hits: Vec<Flow> = (0..samples)
        .map(|_| selectors[random.below(n)])
        .map(|s| flow(s.src.network(), s.dst.network()))
        .collect();
    let misses: Vec<Flow> = hits.iter().map(|hit| flow(hit.src, random.address(v6, false))).collect();
    // Both ends are covered, by eroutes that are not of one another: most of these meet none.
    let strangers: Vec<Flow> =
        hits.iter().map(|hit| flow(hit.src, selectors[random.below(n)].dst.network())).collect();
    let strangers: Vec<Flow> =
        strangers.into_iter().filter(|flow| plane.eroutes().lookup(flow).is_none()).collect();
    let (hit, miss, stranger) = {
        let table = plane.eroutes();
        let stranger = if strangers.is_empty() { 0.0 } else { lookups(options, &table, &strangers, false) };
        (lookups(options, &table, &hits, true), lookups(options, &table, &misses, false), stranger)
    };
    let known = cached(options, &plane, &hits[..CACHED.min(hits.len())]);
    let list = nanos(|| drop(black_box(plane.eroutes().list())));

    // Each change by itself: the longest is how long a packet may have to wait.
    let mut longest = 0_f64;
    let mut delete = 0_f64;
    for selector in &selectors {
        // What is taken out is dropped when packets flow again.
        let mut gone = None;
        let spent = cpu_nanos(|| gone = Some(plane.change_eroutes(|e| e.delete(selector))));
        longest = longest.max(spent);
        delete += spent;
    }
    for selector in &selectors {
        let fresh = eroute(*selector);
        let mut old = None;
        longest = longest.max(cpu_nanos(|| old = plane.change_eroutes(|e| e.replace(fresh))));
    }
    let old = plane.change_eroutes(|eroutes| {
        let mut old = None;
        longest = longest.max(cpu_nanos(|| old = Some(eroutes.clear())));
        old
    });
    drop(old);
    row(&[
        ("bench", json!(name)),
        ("eroutes", json!(n)),
        ("cached_ns", figure(known)),
        ("hit_ns", figure(hit)),
        ("miss_ns", figure(miss)),
        ("strangers_ns", figure(stranger)),
        ("probe_ns", figure(probe(options, &selectors))),
        ("insert_ns", figure(fill / n as f64)),
        ("delete_ns", figure(delete / n as f64)),
        ("longest_us", figure(longest / 1e3)),
        ("fill_ms", figure(fill / 1e6)),
        ("list_ms", figure(list / 1e6)),
        ("octets", figure(octets)),
    ]);
}
