//! Once the buffers have their size, no packet costs an allocation: counted by the allocator itself.
#![expect(unsafe_code, reason = "an allocator that counts is an implementation of an unsafe trait")]

use ipsec_core::algorithm::{Auth, Encryption, Suite};
use ipsec_core::{Protocol, SaId, Selector, Spi, Time};
use klips::{
    Action, Arrival, Blueprint, Carrier, Encapsulation, Eroute, Gso, Inbound, Keys, Limits, Link, Mode,
    Opened, Outbound, Plane, Route, Sa, Sealed, Verdict, Vnet,
};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use zeroize::Zeroizing;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

fn count() {
    // The thread may be past its end, where nothing is measured.
    let _ = ALLOCATIONS.try_with(|n| n.set(n.get() + 1));
}

// SAFETY: every call is handed to the system's allocator as it came; counting touches no memory of the heap.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: `ptr` came from `System.alloc` with this layout.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as for `dealloc`.
        unsafe { System.realloc(ptr, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const LEFT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const RIGHT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));
const SAS: u8 = 3;
const MSS: usize = 1360;

/// A plane with three SAs and an eroute for each: 10.1.n.0/24 → 10.2.n.0/24. The fast way is ESP in tunnel mode; the general
/// one, IP in IP and ESP in transport mode around it.
fn plane(suite: Suite, key: usize, general: bool) -> Arc<Plane> {
    let plane = Arc::new(Plane::default());
    for n in 0..SAS {
        let id = SaId { dst: RIGHT, protocol: Protocol::Esp, spi: Spi(0x1000 + u32::from(n)) };
        let net = |side: u8| format!("10.{side}.{n}.0/24").parse().unwrap();
        let selector = Selector::nets(net(1), net(2));
        let octets = |len: usize| Zeroizing::new((0..len).map(|i| i as u8 ^ n).collect::<Vec<_>>());
        let auth = suite.auth.map_or(0, |auth| usize::from(auth.row().min_bits / 8));
        let mut esp = Blueprint {
            id,
            src: LEFT,
            mode: Mode::Tunnel,
            suite,
            keys: Keys { encryption: octets(key), auth: octets(auth), iv: Zeroizing::new([n; 16]) },
            esn: true,
            window: 4096,
            encapsulation: Some(Encapsulation { local: 4500, remote: 4500 }),
            selector: Some(selector),
            limits: Limits::default(),
        };
        if general {
            let tunnel = Blueprint {
                id: SaId { protocol: Protocol::Ipip, ..id },
                suite: Suite { encryption: None, auth: None },
                keys: Keys::default(),
                esn: false,
                window: 0,
                encapsulation: None,
                ..esp
            };
            (esp.mode, esp.selector) = (Mode::Transport, None);
            plane.publish_group([tunnel, esp].map(|sa| Arc::new(Sa::new(sa)))).unwrap();
        } else {
            plane.publish(Arc::new(Sa::new(esp)));
        }
        let id = if general { SaId { protocol: Protocol::Ipip, ..id } } else { id };
        plane.change_eroutes(|eroutes| eroutes.add(Eroute::new(selector, Action::Protect(id)))).unwrap();
    }
    plane
}

/// A TCP superpacket of `segments`, its checksum left to the device; nobody here looks at it.
fn superpacket(n: u8, segments: usize) -> (Vnet, Vec<u8>) {
    let len = 40 + segments * MSS;
    let mut packet = vec![0; len];
    packet[..20].copy_from_slice(&[0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 1, n, 9, 10, 2, n, 9]);
    packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
    let sum = packet[..20].chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum::<u32>();
    let sum = !(((sum & 0xffff) + (sum >> 16)) as u16);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet[20..40]
        .copy_from_slice(&[0x9c, 0x40, 1, 0xbb, 0, 0, 0, 9, 0, 0, 0, 1, 0x50, 0x10, 1, 1, 0, 0, 0, 0]);
    let pseudo: u32 = packet[12..20].chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
    let pseudo = pseudo + 6 + (len as u32 - 20);
    let pseudo = ((pseudo & 0xffff) + (pseudo >> 16)) as u16;
    packet[36..38].copy_from_slice(&pseudo.to_be_bytes());
    let vnet = Vnet {
        needs_csum: true,
        gso: if segments > 1 { Gso::Tcp4 } else { Gso::None },
        ecn: false,
        hdr_len: 40,
        gso_size: if segments > 1 { MSS as u16 } else { 0 },
        csum_start: 20,
        csum_offset: 16,
    };
    (vnet, packet)
}

#[test]
fn no_packet_costs_an_allocation() {
    nothing_is_allocated(false);
}

#[test]
fn nor_does_one_that_goes_the_general_way() {
    nothing_is_allocated(true);
}

fn nothing_is_allocated(general: bool) {
    for (encryption, auth, key) in [
        (Encryption::AesGcm16, None, 20),
        (Encryption::ChaCha20Poly1305, None, 36),
        (Encryption::AesCbc, Some(Auth::HmacSha256), 16),
        (Encryption::Null, Some(Auth::HmacSha1), 0),
    ] {
        let suite = Suite { encryption: Some(encryption), auth };
        let (sender, receiver) = (plane(suite, key, general), plane(suite, key, general));
        let link = Link {
            mtu: 1500,
            icmp_source4: None,
            icmp_source6: None,
            hide_tos: true,
            frag_icmp: true,
            copy_df: false,
        };
        let mut outbound = Outbound::new(Arc::clone(&sender), sender.new_counters(), link);
        let mut inbound = Inbound::new(Arc::clone(&receiver), receiver.new_counters());
        let mut sealed = Sealed::new(512 * 1024);
        let mut opened = Opened::new(256);
        let mut rx = vec![0; 512 * 1024];
        let packets: Vec<(Vnet, Vec<u8>)> = [(0, 40), (1, 1), (2, 17), (0, 1), (0, 1), (1, 30)]
            .map(|(n, segments)| superpacket(n, segments))
            .into();
        let arrival = Arrival {
            src: LEFT,
            dst: RIGHT,
            carrier: Carrier::Udp { local: 4500, remote: 4500 },
            tos: 0,
            header: 0,
        };
        let mut scratch = vec![0; 65_535];

        for round in 0..40 {
            // The first rounds build key schedules and bring the lists to their size.
            if round == 5 {
                ALLOCATIONS.set(0);
            }
            let now = Time::from_secs(round);
            for (vnet, packet) in &packets {
                let scratch = &mut scratch[..packet.len()];
                scratch.copy_from_slice(packet);
                assert_eq!(outbound.packet(vnet, scratch, now, &mut sealed), Verdict::Send);
            }
            outbound.finish(now, &mut sealed);
            let mut at = 0;
            for run in sealed.runs() {
                assert!(matches!(run.route, Route::Esp(_)));
                let range = at..at + run.octets.len();
                rx[range.clone()].copy_from_slice(run.octets);
                at = range.end;
                inbound.datagrams(&arrival, &mut rx, range, run.stride, now, &mut opened);
            }
            // What the peer sent twice, and what it never sent, cost nothing either.
            let copy = 0..200;
            inbound.datagrams(&arrival, &mut rx, copy, 100, now, &mut opened);
            assert_eq!(opened.packets(), 90);
            opened.merge(&mut rx, true, true);
            let pieces: usize = opened.writes().map(|write| write.pieces()).sum();
            assert_eq!(pieces, 90);
            assert!(opened.writes().any(|write| write.vnet.gso == Gso::Tcp4));
            opened.clear();
            sealed.clear();
        }
        assert_eq!(ALLOCATIONS.get(), 0, "{encryption:?}");
    }
}

/// The counter counts.
#[test]
fn an_allocation_is_counted() {
    ALLOCATIONS.set(0);
    drop(std::hint::black_box(Box::new(7)));
    assert_eq!(ALLOCATIONS.get(), 1);
}
