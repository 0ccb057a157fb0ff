//! IKE: what a responder pays for a handshake, for an IKE SA that is up, for a rekeying and for a flood.
//!
//! Both ends are engines in this process; only the responder's processor time counts. Beside each handshake stands what its key
//! exchange alone costs, the least any implementation with this library can do. Then the same with daemons on a cable, ours
//! beside strongSwan's, and how long a packet waits for which a tunnel has to be negotiated first.

mod daemons;
mod ends;
mod pki;

use crate::measure::{Options, cpu_nanos, median};
use crate::report::{figure, row};
use ends::{NOW, Side, Suite, US, address, connection, endpoint, handshake, talk};
use ike::message::{Exchange, Flags, Header, IkeSpi, Message, Payload};
use ike::proposal::Protocol;
use ipsec_core::kex::Group;
use pki::Pki;
use serde_json::json;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;

/// What the issue aims at.
const AIM_MILLIS: f64 = 0.5;
const AIM_OCTETS: f64 = 6.0 * 1024.0;

/// The rows of the first table.
fn suites() -> Vec<Suite> {
    vec![
        plain(),
        Suite::psk("x25519+ML-KEM-768+PSK", Group::X25519, Some(Group::MlKem768)),
        Suite::psk("MODP-2048+PSK", Group::Modp2048, None),
        Suite::signed("P-256+ECDSA", Group::Ecp256, Pki::ecdsa()),
        Suite::signed("MODP-2048+RSA", Group::Modp2048, Pki::rsa()),
    ]
}

const fn plain() -> Suite {
    Suite::psk("x25519+PSK", Group::X25519, None)
}

/// What the key exchange of a handshake alone costs its responder.
fn limit(suite: &Suite) -> f64 {
    let groups: Vec<Group> = [Some(suite.group), suite.more].into_iter().flatten().collect();
    let samples = (0..101).map(|_| {
        let offers: Vec<_> = groups.iter().map(|group| group.offer().expect("an offer").1).collect();
        cpu_nanos(|| {
            for (group, offer) in groups.iter().zip(&offers) {
                drop(std::hint::black_box(group.accept(offer).expect("accepted")));
            }
        })
    });
    median(samples.collect())
}

fn resident() -> f64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: f64 = pages.split_whitespace().nth(1).and_then(|word| word.parse().ok()).unwrap_or(0.0);
    pages * rustix::param::page_size() as f64
}

pub(crate) fn run(options: &Options) -> io::Result<()> {
    // Namespaces are made before the first thread.
    if options.wants("daemons") {
        daemons::run(options.quick)?;
    }
    for suite in suites().iter().filter(|suite| options.wants(suite.name)) {
        handshakes(suite, options.quick);
    }
    if options.wants("memory") {
        // Each in a process of its own: memory that an earlier part gave back would be used again, and not be seen.
        let sizes: &[u32] = if options.quick { &[1_000] } else { &[1_000, 50_000] };
        for size in sizes {
            let mut command = Command::new(std::env::current_exe()?);
            if !command.args(["ike-memory", &size.to_string()]).status()?.success() {
                return Err(io::Error::other("the memory of IKE SAs could not be measured"));
            }
        }
    }
    if options.wants("rekey") {
        rekeys(options.quick);
    }
    if options.wants("flood") {
        flood(if options.quick { 20_000 } else { 200_000 });
    }
    Ok(())
}

fn handshakes(suite: &Suite, quick: bool) {
    let mut responder = Side::new(endpoint(suite, connection(suite, None), 1));
    let many = if quick { 100 } else { 1000 };
    let samples: Vec<f64> = (0..many).map(|n| handshake(n, suite, &mut responder).1).collect();
    let (spent, limit) = (median(samples), limit(suite));
    row(&[
        ("handshake", json!(suite.name)),
        ("per_second", figure(1e9 / spent)),
        ("cpu_us", figure(spent / 1e3)),
        ("key_exchange_us", figure(limit / 1e3)),
        ("times_key_exchange", figure(spent / limit)),
        ("aim_us", json!(AIM_MILLIS * 1e3)),
    ]);
}

/// Octets that an IKE SA with one child keeps, and what an event costs among so many.
pub(crate) fn memory(size: u32) {
    const BEFORE: u32 = 50;
    let suite = &plain();
    let mut responder = Side::new(endpoint(suite, connection(suite, None), 1));
    // What the first ones leave behind in the allocator is nobody's.
    (0..BEFORE).for_each(|n| drop(handshake(n, suite, &mut responder)));
    let before = resident();
    let spent: Vec<f64> = (BEFORE..size + BEFORE).map(|n| handshake(n, suite, &mut responder).1).collect();
    let last = spent.get(spent.len().saturating_sub(200)..).unwrap_or_default().to_vec();
    let kept = resident() - before - (spent.capacity() * size_of::<f64>()) as f64;
    let idle = median((0..101).map(|_| cpu_nanos(|| responder.engine.timeout(NOW))).collect());
    row(&[
        ("ike_sas", json!(size)),
        ("octets_each", figure(kept / f64::from(size))),
        ("aim_octets", json!(AIM_OCTETS)),
        ("handshake_us", figure(median(last) / 1e3)),
        ("idle_wakeup_us", figure(idle / 1e3)),
    ]);
}

fn rekeys(quick: bool) {
    for (name, pfs) in [("without PFS", None), ("with x25519", Some(Group::X25519))] {
        let suite = &plain();
        let with = |peer| {
            let mut connection = connection(suite, peer);
            connection.child.offers[0].groups.extend(pfs);
            connection
        };
        let mut responder = Side::new(endpoint(suite, with(None), 1));
        let mut client = Side::new(endpoint(suite, with(Some(1)), 2));
        client.engine.up("net", address(1), NOW).expect("begun");
        talk(&mut client, &mut responder);
        let many = if quick { 100 } else { 2000 };
        let samples = (0..many).map(|n| {
            assert!(client.engine.rekey("net", false, NOW));
            let spent = talk(&mut client, &mut responder);
            assert_eq!(client.children, n + 2);
            spent
        });
        let spent = median(samples.collect());
        let bare = pfs.map_or(0.0, |_| limit(suite));
        row(&[
            ("child rekey", json!(name)),
            ("per_second", figure(1e9 / spent)),
            ("cpu_us", figure(spent / 1e3)),
            ("key_exchange_us", figure(bare / 1e3)),
        ]);
    }
}

/// First messages from everywhere while a hundred peers rekey.
fn flood(messages: u32) {
    const PEERS: u32 = 100;
    let suite = &plain();
    let mut responder = Side::new(endpoint(suite, connection(suite, None), 1));
    let mut peers: Vec<Side> = (0..PEERS).map(|n| handshake(n, suite, &mut responder).0).collect();
    let offer = connection(suite, None).ike[0].clone();
    let (_, share) = Group::X25519.offer().expect("an offer");
    let first = |n: u32| {
        let payloads = vec![
            Payload::Sa(vec![offer.proposal(1, Protocol::Ike, vec![])]),
            Payload::Ke { group: Group::X25519.number(), data: share.clone() },
            Payload::Nonce(vec![7; 32]),
        ];
        let flags = Flags { initiator: true, response: false };
        let spi_i = IkeSpi(0xbad0_0000_0000 + u64::from(n));
        let header = Header { spi_i, spi_r: IkeSpi(0), exchange: Exchange::IkeSaInit, flags, id: 0 };
        Message { header, payloads }.emit()
    };
    let before = resident();
    let (mut spent, mut rekeyed) = (0.0, 0_usize);
    for n in 0..messages {
        let octets = first(n);
        let from = SocketAddr::new(Ipv4Addr::from_bits(0xc600_0000 + n).into(), 500);
        spent += cpu_nanos(|| {
            responder.engine.datagram(SocketAddr::new(US, 500), from, &octets, NOW);
            // Its answers go to nobody; key exchanges that passed are computed as for anybody.
            drop(responder.drain());
        });
        if n % (messages / PEERS) == 0 {
            let at = (n / (messages / PEERS)) as usize;
            if let Some(peer) = peers.get_mut(at) {
                assert!(peer.engine.rekey("net", false, NOW));
                talk(peer, &mut responder);
                rekeyed += usize::from(peer.children == 2);
            }
        }
    }
    let counters = responder.engine.counters();
    row(&[
        ("flood", json!(format!("{messages} first messages"))),
        ("per_second", figure(f64::from(messages) * 1e9 / spent)),
        ("us_each", figure(spent / f64::from(messages) / 1e3)),
        ("cookies", json!(counters.cookies)),
        ("octets_kept", figure(resident() - before)),
        ("peers_rekeyed", json!(rekeyed)),
        ("of", json!(PEERS)),
    ]);
    assert_eq!(rekeyed, PEERS as usize, "a real peer was lost in the flood");
}
