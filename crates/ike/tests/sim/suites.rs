//! Every algorithm in every place where it can stand, for the IKE SA and for its children.

use crate::world::{World, site};
use ike::proposal::Offer;
use ipsec_core::algorithm::{Auth, Encryption};
use ipsec_core::kex::GROUPS;
use ipsec_core::prf::Prf;

/// Ciphers with every length of key; beside those that are not combined, a MAC.
fn ciphers() -> Vec<(Encryption, u16, Option<Auth>)> {
    use Encryption::{AesCbc, AesCcm16, AesCtr, AesGcm16, ChaCha20Poly1305, TripleDesCbc};
    let lengths = |cipher, mac| [128, 192, 256].map(|bits| (cipher, bits, mac));
    let mac = Some(Auth::HmacSha256);
    let mut all =
        [lengths(AesGcm16, None), lengths(AesCcm16, None), lengths(AesCbc, mac), lengths(AesCtr, mac)]
            .concat();
    all.extend([(ChaCha20Poly1305, 0, None), (TripleDesCbc, 0, Some(Auth::HmacSha1))]);
    let macs = [Auth::HmacSha1, Auth::HmacSha384, Auth::HmacSha512, Auth::AesXcbc, Auth::AesCmac];
    all.extend(macs.map(|mac| (AesCbc, 256, Some(mac))));
    all
}

/// Up, and rekeyed on both sides, with nothing but this.
fn comes_up(ike: &Offer, child: &Offer) -> World {
    let mut world = World::new();
    for side in 0..2 {
        world.change(side, |c| (c.ike, c.child.offers) = (vec![ike.clone()], vec![child.clone()]));
    }
    world.up(0);
    world.settle();
    world.agree(1);
    for (side, ike) in [(0, false), (1, true), (1, false)] {
        let first = (world.hosts[0].pairs[0].inbound.spi, world.hosts[0].endpoint.rows()[0].ike);
        let now = world.now;
        assert!(world.hosts[side].endpoint.rekey("net", ike, now));
        world.settle();
        world.agree(1);
        let next = (world.hosts[0].pairs[0].inbound.spi, world.hosts[0].endpoint.rows()[0].ike);
        assert_eq!((next.0 == first.0, next.1 == first.1), (ike, !ike), "{}", world.hosts[1].words());
    }
    world
}

#[test]
fn every_cipher_and_every_mac_comes_up_for_ike_and_for_children() {
    let (ike, child) = (site("x").ike[0].clone(), site("x").child.offers[0].clone());
    for (cipher, bits, mac) in ciphers() {
        let with = |offer: &Offer| Offer {
            encryption: vec![(cipher, bits)],
            integrity: mac.into_iter().collect(),
            ..offer.clone()
        };
        let world = comes_up(&with(&ike), &with(&child));
        let pair = &world.hosts[0].pairs[0];
        assert_eq!((pair.suite.encryption, pair.suite.auth), (Some(cipher), mac), "{bits}");
        let row = cipher.row();
        let octets = usize::from(if bits == 0 { row.max_bits } else { bits }) / 8 + row.salt();
        assert_eq!(pair.inbound.encryption.len(), octets, "{cipher:?} {bits}");
        let mac = mac.map_or(0, |mac| usize::from(mac.row().max_bits) / 8);
        assert_eq!(pair.inbound.integrity.len(), mac, "{cipher:?} {bits}");
    }
}

#[test]
fn every_prf_comes_up() {
    let (ike, child) = (site("x").ike[0].clone(), site("x").child.offers[0].clone());
    for prf in Prf::ALL {
        comes_up(&Offer { prf: vec![prf], ..ike.clone() }, &child);
    }
}

/// In the first exchange, when the IKE SA is rekeyed, and for PFS.
#[test]
fn every_key_exchange_comes_up_for_ike_and_for_pfs() {
    let (ike, child) = (site("x").ike[0].clone(), site("x").child.offers[0].clone());
    for group in GROUPS.iter().map(|row| row.group) {
        let with = |offer: &Offer| Offer { groups: vec![group], ..offer.clone() };
        let world = comes_up(&with(&ike), &with(&child));
        let algorithms = world.hosts[0].endpoint.rows()[0].algorithms.clone().unwrap();
        assert!(algorithms.contains(&group.to_string()), "{algorithms}");
    }
}
