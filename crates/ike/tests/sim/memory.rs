//! What strangers can have kept for them, counted by the allocator itself.
#![expect(unsafe_code, reason = "an allocator that counts is an implementation of an unsafe trait")]

use crate::outsider::Outsider;
use crate::world::World;
use ike::identity::Id;
use ike::message::{CertEncoding, Exchange, Message, Payload};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddr};

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
}

struct Counting;

fn count(octets: usize, sign: isize) {
    // The thread may be past its end, where nothing is measured.
    let _ = HELD.try_with(|held| held.set(held.get() + sign * octets as isize));
}

// SAFETY: every call is handed to the system's allocator as it came; counting touches no memory of the heap.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 1);
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        count(layout.size(), -1);
        // SAFETY: `ptr` came from `System.alloc` with this layout.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(layout.size(), -1);
        count(size, 1);
        // SAFETY: as for `dealloc`.
        unsafe { System.realloc(ptr, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn held() -> isize {
    HELD.with(Cell::get)
}

fn from(n: u32) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::from_bits(0x0b00_0000 + n).into(), 500)
}

/// The EAP packet in an answer.
fn asked(answers: &[Message]) -> &[u8] {
    let packet = answers.iter().flat_map(|message| &message.payloads).find_map(|payload| match payload {
        Payload::Eap(packet) => Some(packet.as_slice()),
        _ => None,
    });
    packet.expect("an EAP packet")
}

fn eap(id: u8, kind: u8, data: &[u8]) -> Vec<Payload> {
    let length = u16::try_from(data.len() + 5).unwrap().to_be_bytes();
    vec![Payload::Eap([&[2, id, length[0], length[1], kind], data].concat())]
}

/// A stranger that has as much kept for it as it can, in EAP-TLS.
fn greedy(world: &mut World, n: u32) -> Option<()> {
    let mut outsider = Outsider::begin(world, from(n), u64::from(n) + 1)?;
    let id = Id::parse("alice@example.org").unwrap().body();
    let mut payloads = vec![Payload::IdI(id)];
    // Certificates and requests for such that are none.
    payloads
        .extend((0..3).map(|_| Payload::Cert { encoding: CertEncoding::Other(9), data: vec![1; 14_000] }));
    payloads.push(Payload::CertReq { encoding: CertEncoding::X509Signature, authorities: vec![1; 12_000] });
    payloads.extend(outsider.wants(world));
    let answers = outsider.say(world, Exchange::IkeAuth, payloads);
    let id = asked(&answers)[1];
    let answers = outsider.say(world, Exchange::IkeAuth, eap(id, 1, b"alice@example.org"));
    let mut id = asked(&answers)[1];
    // A message of TLS of 64 KiB, but for its last piece.
    for _ in 0..4 {
        let piece = [&[0xc0, 0, 1, 0, 0][..], &[0x16; 15_000]].concat();
        let answers = outsider.say(world, Exchange::IkeAuth, eap(id, 13, &piece));
        id = asked(&answers)[1];
    }
    // And a message of IKE, but for its last fragment.
    let vendor = (0..4).map(|_| Payload::Vendor(vec![1; 15_000])).collect();
    let mut fragments = outsider.request(Exchange::IkeAuth, vendor);
    fragments.pop();
    outsider.send(world, &fragments);
    Some(())
}

#[test]
fn what_a_stranger_in_eap_tls_can_have_kept_is_counted_and_has_an_end() {
    const EACH: u32 = 8;
    let (mut world, _) = crate::eap_tls::world_and_secrets();
    greedy(&mut world, 0).expect("an answer");
    world.hosts[1].events.clear();
    let before = held();
    for n in 1..=EACH {
        greedy(&mut world, n).expect("an answer");
    }
    world.hosts[1].events.clear();
    let each = (held() - before) / EACH as isize;
    println!("{each} octets for each stranger in EAP-TLS");
    // As much again as what it has sent that is of use: 60 KB of TLS and 60 KB of fragments.
    assert!(each < 200 * 1024, "{each}");
}

#[test]
fn an_honest_peer_in_the_middle_of_eap_tls_costs_little() {
    let (mut world, _) = crate::eap_tls::world_and_secrets();
    world.by_hand();
    world.up(0);
    let (mut kept, mut most) = (0, 0);
    while world.hosts[1].endpoint.rows().iter().all(|row| row.peer.is_none()) {
        while !world.oldest(1).is_empty() {
            world.deliver(1, false);
        }
        let before = held();
        world.deliver(0, false);
        kept += held() - before;
        most = most.max(kept);
    }
    println!("{most} octets for a peer in EAP-TLS, {kept} when it is known");
    assert!(most < 96 * 1024 && kept < 32 * 1024, "{most} {kept}");
}

#[test]
fn strangers_together_keep_less_than_there_is_room_for_and_a_peer_gets_through() {
    let (mut world, _) = crate::eap_tls::world_and_secrets();
    let before = held();
    let mut begun = 0;
    for n in 0..900 {
        begun += u32::from(greedy(&mut world, n).is_some());
        if n == 600 {
            world.up(0);
            world.settle();
            world.agree(1);
        }
        world.hosts[1].events.clear();
    }
    assert_eq!(begun, 900);
    let all = held() - before;
    println!("{all} octets for {begun} strangers");
    assert!(all < 100 << 20, "{all}");
    world.agree(1);
}
