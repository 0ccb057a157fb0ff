use super::*;
use crate::ip;
use ipsec_core::algorithm::Auth;

/// AH captured from FreeS/WAN gateways, and the key.
fn captured() -> (Mac, Vec<Vec<u8>>) {
    let text = include_str!("../../../ipsec-core/tests/data/wire.json");
    let all: serde_json::Value = serde_json::from_str(text).unwrap();
    let set = all.as_array().unwrap().iter().find(|set| set["name"] == "ah-sha1").unwrap();
    let key = hex::decode(set["keys"]["authkey"].as_str().unwrap()).unwrap();
    let packets = set["ip_packets"].as_array().unwrap().iter();
    let packets = packets.map(|packet| hex::decode(packet.as_str().unwrap()).unwrap()).collect();
    (Mac::new(Auth::HmacSha1, &key).unwrap(), packets)
}

/// HMAC-MD5-96, SPI 0x91234567: the first packet of the gateways' other capture.
const MD5: (&str, &str) = (
    "98765876587658765876587658765876",
    "45000080cd5b0000403328a9c0010217c001022d04040000912345670000000114e1dc8e9e52438db967a2f045000054000040003f01b8\
     a6c0000201c00001010800baf06f000500239bc73bf234010008090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425\
     262728292a2b2c2d2e2f3031323334353637",
);

#[test]
fn every_captured_packet_verifies_and_is_written_again_octet_for_octet() {
    let (sha1, mut packets) = captured();
    assert_eq!(packets.len(), 8);
    let md5 = Mac::new(Auth::HmacMd5, &hex::decode(MD5.0).unwrap()).unwrap();
    let other = hex::decode(MD5.1.replace([' ', '\n'], "")).unwrap();
    let all = packets.drain(..).map(|packet| (&sha1, packet)).chain([(&md5, other)]);
    let mut scratch = Vec::new();
    for (mac, packet) in all {
        let header = Header::read(&packet[20..]).unwrap();
        assert_eq!((header.len, header.next, header.fits(mac, true)), (24, 4, true));
        assert!(verify(mac, &packet, 20, None, &mut scratch));
        let outer = ip::Outer {
            src: [192, 1, 2, 23].into(),
            dst: [192, 1, 2, 45].into(),
            next: 51,
            tos: 0,
            id: u16::from_be_bytes([packet[4], packet[5]]),
            dont_fragment: false,
        };
        let mut again = vec![0; 44];
        again.extend(&packet[44..]);
        outer.write(&mut again).unwrap();
        ip::settle(&mut again).unwrap();
        let fields = Fields { next: 4, spi: Spi(header.spi), seq: header.seq.into(), esn: false };
        sign(mac, &mut again, 20, &fields, &mut scratch).unwrap();
        assert_eq!(hex::encode(&again), hex::encode(&packet));
    }
}

#[test]
fn lengths_are_those_of_the_family() {
    let mac = |auth: Auth, key: usize| Mac::new(auth, &vec![1; key]).unwrap();
    for (auth, key, v4, v6) in [
        (Auth::HmacSha1, 20, 24, 24),
        (Auth::HmacSha256, 32, 28, 32),
        (Auth::HmacSha384, 48, 36, 40),
        (Auth::HmacSha512, 64, 44, 48),
        (Auth::AesGmac, 20, 36, 40),
    ] {
        let mac = mac(auth, key);
        assert_eq!((len(&mac, true), len(&mac, false)), (v4, v6), "{auth}");
        let header = |len| Header { next: 4, len, spi: 0, seq: 0 };
        // Over IPv4 either is taken, over IPv6 one.
        assert!(header(v4).fits(&mac, true) && header(v6).fits(&mac, true) && header(v6).fits(&mac, false));
        assert_eq!(header(v4).fits(&mac, false), v4 == v6);
        assert!(!header(v6 + 8).fits(&mac, true));
    }
}

fn cleared(header: &[u8]) -> Option<Vec<u8>> {
    let mut header = header.to_vec();
    clear_mutable(&mut header).map(|()| header)
}

#[test]
fn mutable_fields_and_options_of_ipv4_are_cleared() {
    let mut header = vec![0x4c, 0xb8, 1, 2, 3, 4, 0x40, 0, 9, 51, 7, 7, 10, 0, 0, 1, 10, 0, 0, 2];
    header.extend([
        148, 4, 1, 2, 7, 7, 4, 9, 9, 9, 9, 1, 131, 11, 4, 1, 1, 1, 1, 2, 2, 2, 2, 1, 0, 0xee, 0xee, 0xee,
    ]);
    let mut want = vec![0x4c, 0, 1, 2, 3, 4, 0, 0, 0, 51, 0, 0, 10, 0, 0, 1, 2, 2, 2, 2];
    // Router alert stays, record route goes; the loose source route goes, and its end is where the packet will be.
    want.extend([148, 4, 1, 2, 0, 0, 0, 0, 0, 0, 0, 1]);
    want.extend([0; 11]);
    want.extend([1, 0, 0xee, 0xee, 0xee]);
    assert_eq!(cleared(&header), Some(want));
    // A route that has been followed to its end leads nowhere else.
    header[34] = 12;
    assert_eq!(cleared(&header).unwrap()[16..20], [10, 0, 0, 2]);
    // Lengths that lead out of the header, or nowhere.
    for bad in [[7, 0, 0, 0], [7, 9, 0, 0], [1, 1, 1, 7]] {
        let mut header = vec![0x46; 20];
        header.extend(bad);
        assert_eq!(cleared(&header), None, "{bad:?}");
    }
}

#[test]
fn mutable_fields_and_options_of_ipv6_are_cleared() {
    let mut header = vec![0x6b, 0xcd, 0xef, 1, 0, 9, 0, 3];
    header.extend([7; 32]);
    // Hop by hop: Pad1, an option that changes on the way, PadN.
    header.extend([43, 0, 0, 0x3e, 1, 0xaa, 1, 0]);
    let routing = [60, 0, 0, 0, 9, 9, 9, 9];
    header.extend(routing);
    header.extend([51, 0, 0x1e, 3, 5, 6, 7, 0]);
    let mut want = vec![0x60, 0, 0, 0, 0, 9, 0, 0];
    want.extend([7; 32]);
    want.extend([43, 0, 0, 0x3e, 1, 0, 1, 0]);
    want.extend(routing);
    want.extend([51, 0, 0x1e, 3, 5, 6, 7, 0]);
    assert_eq!(cleared(&header), Some(want));
    // A routing header with segments left changes the destination on the way.
    header[51] = 1;
    assert_eq!(cleared(&header), None);
    header[51] = 0;
    header[45] = 200;
    header[44] = 4;
    assert_eq!(cleared(&header), None, "an option that is longer than its header");
}
