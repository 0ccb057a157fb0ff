//! What a device delivers: a virtio-net header and a packet that anybody on this host wrote, taken through the outbound path.
//!
//! Layout: one octet of options, the virtio-net header, the packet.

use crate::packets::{A4, plain, tcp4};
use ipsec_core::algorithm::{Encryption, Suite};
use ipsec_core::{Protocol, SaId, Selector, Spi, Time};
use klips::{
    Action, Blueprint, Counters, Discard, Encapsulation, Eroute, Gso, Keys, Limits, Link, Mode, Outbound,
    Plane, Route, Sa, Sealed, Verdict, Vnet,
};
use std::sync::Arc;
use zeroize::Zeroizing;

const OVER: Spi = Spi(0x1001);

fn engine(options: u8) -> (Arc<Plane>, Arc<Counters>, Outbound) {
    let plane = Arc::new(Plane::default());
    let four = options & 1 == 0;
    let (src, dst) = if four {
        ([192, 0, 2, 1].into(), [192, 0, 2, 2].into())
    } else {
        ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into(), [0x2001, 0xdb8, 0, 0, 0, 0, 0, 2].into())
    };
    let id = SaId { dst, protocol: Protocol::Esp, spi: OVER };
    plane.publish(Arc::new(Sa::new(Blueprint {
        id,
        src,
        mode: Mode::Tunnel,
        suite: Suite { encryption: Some(Encryption::AesGcm16), auth: None },
        keys: Keys { encryption: Zeroizing::new(vec![7; 20]), ..Keys::default() },
        esn: options & 2 != 0,
        window: 64,
        encapsulation: (options & 4 != 0).then_some(Encapsulation { local: 4500, remote: 4500 }),
        selector: None,
        limits: Limits::default(),
    })));
    let action = match options >> 3 & 3 {
        0 | 1 => Action::Protect(id),
        2 => Action::Reject,
        _ => Action::Pass,
    };
    plane.change_eroutes(|eroutes| {
        for any in ["0.0.0.0/0", "::/0"] {
            let any = any.parse().expect("a prefix");
            eroutes.replace(Eroute::new(Selector::nets(any, any), action));
        }
    });
    let counters = plane.new_counters();
    let link = Link {
        mtu: 1500,
        icmp_source4: Some(A4),
        icmp_source6: None,
        hide_tos: true,
        frag_icmp: true,
        copy_df: true,
    };
    let outbound = Outbound::new(Arc::clone(&plane), Arc::clone(&counters), link);
    (plane, counters, outbound)
}

/// Takes the octets through the outbound path.
pub fn run(data: &[u8]) {
    let Some((&options, rest)) = data.split_first() else { return };
    let Some((vnet, packet)) = rest.split_first_chunk() else { return };
    let Ok(vnet) = Vnet::parse(vnet) else { return };
    if packet.len() > 65_535 {
        return;
    }
    let (_plane, counters, mut outbound) = engine(options);
    let mut scratch = packet.to_vec();
    let mut out = Sealed::new(0);
    let verdict = outbound.packet(&vnet, &mut scratch, Time::from_nanos(1), &mut out);
    outbound.finish(Time::from_nanos(1), &mut out);
    assert_eq!(counters.count(Discard::Internal), 0, "an invariant did not hold");
    let mut sent = 0;
    for run in out.runs() {
        assert!(run.stride > 0 && !run.octets.is_empty());
        for octets in run.octets.chunks(run.stride) {
            sent += 1;
            match run.route {
                Route::Esp(_) => {
                    assert_eq!(
                        octets.get(..4),
                        Some(&OVER.0.to_be_bytes()[..]),
                        "something without our SPI left as ESP"
                    );
                }
                // What goes out or back as a whole packet has a length that is its own.
                Route::Whole(_) | Route::Clear(_) | Route::Back => assert!(octets.len() >= 20),
            }
        }
    }
    match verdict {
        Verdict::Send | Verdict::Answer(_) => assert!(sent > 0, "{verdict:?}, and nothing to send"),
        Verdict::Keep => assert_eq!(sent, 0, "kept and sent"),
        Verdict::Discard(why) => {
            assert_eq!(sent, 0, "discarded and sent");
            assert!(counters.count(why) > 0, "{} was not counted", why.name());
        }
    }
}

/// Plain packets, and superpackets with the headers the kernel gives them.
pub fn seeds() -> Vec<(String, Vec<u8>)> {
    let with = |options: u8, vnet: Vnet, packet: &[u8]| [&[options][..], &vnet.octets()[..], packet].concat();
    let mut all = Vec::new();
    for (name, packet) in plain() {
        all.push((name.to_owned(), with(0, Vnet::default(), &packet)));
        all.push((format!("{name}-over-v6-udp"), with(5, Vnet::default(), &packet)));
    }
    let reject = plain().swap_remove(1).1;
    all.push(("reject".to_owned(), with(16, Vnet::default(), &reject)));
    all.push(("pass".to_owned(), with(24, Vnet::default(), &reject)));
    all.push(("too-big".to_owned(), with(0, Vnet::default(), &tcp4(1, &[b'x'; 1600]))));
    let gso = Vnet {
        needs_csum: true,
        gso: Gso::Tcp4,
        ecn: false,
        hdr_len: 40,
        gso_size: 1360,
        csum_start: 20,
        csum_offset: 16,
    };
    all.push(("tcp4-superpacket".to_owned(), with(4, gso, &tcp4(1, &[b'y'; 3000]))));
    all
}
