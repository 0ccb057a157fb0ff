use super::*;
use pfkey::Writer;

fn sample() -> Vec<u8> {
    let mut writer = Writer::new(&Base::request(MessageType::Dump, SaType::Esp, 1, 4242));
    writer.sa(&Sa {
        spi: 0x1f2e_3d4c,
        state: 1,
        auth: 3,
        encrypt: 20,
        flags: flags::OUTBOUND,
        ..Sa::default()
    });
    let now = Lifetime { bytes: 1536, addtime: 1_000_000_000, ..Lifetime::default() };
    writer.lifetime(ExtType::LifetimeCurrent, &now);
    let hard = Lifetime { bytes: 4096, addtime: 100, ..Lifetime::default() };
    writer.lifetime(ExtType::LifetimeHard, &hard);
    writer.address(ExtType::AddressSrc, &Address::host("192.0.2.1".parse().unwrap()));
    writer.address(
        ExtType::AddressDst,
        &Address { proto: 6, ..Address::host("198.51.100.2".parse().unwrap()) },
    );
    writer.address(ExtType::AddressInnerSrc, &Address::net("10.0.0.0".parse().unwrap(), 8));
    writer.key(ExtType::KeyAuth, 32, 0, &[0xa1, 0xb2, 0xc3, 0xd4]);
    writer.key(ExtType::KeyEncrypt, 16, 32, &[0xe1, 0xe2, 0x51, 0x52, 0x53, 0x54]);
    writer.identity(ExtType::IdentitySrc, &Identity { kind: 2, id: 0, text: b"a\x1b[2Jb" });
    writer.finish().unwrap()
}

fn shown(record: &[u8], paranoid: bool, numeric: bool) -> String {
    let mut names = |ip: IpAddr| (ip.to_string() == "198.51.100.2").then(|| "peer.example".to_owned());
    let names: &mut dyn FnMut(IpAddr) -> Option<String> = &mut names;
    let names = if numeric { None } else { Some(names) };
    let mut look = Look { paranoid, verbose: false, names, now: 1_000_000_040, zone: TimeZone::UTC };
    text(record, &mut look).to_string()
}

#[test]
fn blocks_come_in_order_and_lifetimes_last() {
    assert_eq!(
        shown(&sample(), false, false),
        "PF_KEY version 2, type DUMP, SA type ESP.\n\
         Length 224 bytes, seq=1, pid=4242.\n\
         SA: SADB_ASSOC spi=0x1f2e3d4c, replay window size=0, state=MATURE\n\
         SA: authentication by hmac-sha1\n\
         SA: encryption by aes-gcm16\n\
         SA: flags=0x8000 < X_OUTBOUND >\n\
         SRC: Source address (proto=0/<unspecified>)\n\
         SRC: AF_INET: port 0, 192.0.2.1 <unknown>.\n\
         DST: Destination address (proto=6/tcp)\n\
         DST: AF_INET: port 0, 198.51.100.2 (peer.example).\n\
         INS: Inner source address (proto=0/<unspecified>)\n\
         INS: AF_INET: port 0, 10.0.0.0/8 <unknown>.\n\
         AKY: Authentication key.\n\
         AKY: a1b2c3d4/32\n\
         EKY: Encryption key.\n\
         EKY: e1e2[51525354]/16+32\n\
         SID: Source identity, type=fqdn, a\\u001b[2Jb\n \
         LT: Lifetimes\n\
         CLT: 1536 bytes protected (1.5 KiB), 0 allocations\n\
         CLT: added at Sun Sep  9 01:46:40 2001 UTC\n\
         CLT: now Sun Sep  9 01:47:20 2001 UTC\n\
         HLT: Hard limit: 4096 bytes (4.0 KiB), 0 allocations\n\
         HLT: 100 seconds since added (1 min 40 s), 0 seconds since first use\n\
         HLT: 2560 bytes (2.5 KiB) more can be protected\n\
         HLT: 60 seconds more, counted since it was added; expires at Sun Sep  9 01:48:20 2001 UTC\n"
    );
}

#[test]
fn numeric_is_without_names_and_paranoid_without_keys() {
    let said = shown(&sample(), true, true);
    assert!(said.contains("(proto=6)\n") && said.contains("198.51.100.2.\n"), "{said}");
    assert!(said.contains("AKY: XXXXXXXX/32\n") && said.contains("EKY: XXXX[XXXXXXXX]/16+32\n"), "{said}");
    let json = String::from_utf8(crate::command::key::json::line(&sample(), true).to_vec()).unwrap();
    for part in ["a1b2", "e1e2", "5152"] {
        assert!(!said.contains(part) && !json.contains(part), "{said}{json}");
    }
    let json = crate::command::key::json::line(&sample(), false);
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(
        (&json["encrkey"]["hex"], &json["encrkey"]["salt_bits"]),
        (&"e1e251525354".into(), &32.into())
    );
    assert_eq!((&json["type"], &json["sa"]["spi"]), (&"DUMP".into(), &"0x1f2e3d4c".into()));
}

#[test]
fn a_refusal_says_what_and_why() {
    let base = Base {
        errno: Errno::EINVAL,
        diagnostic: Diagnostic::BadEkeybits.number(),
        ..Base::request(MessageType::Add, SaType::Esp, 1, 1)
    };
    let said = shown(&Writer::new(&base).finish().unwrap(), false, true);
    assert!(
        said.contains("Error EINVAL (") && said.contains("Diagnostic 45: bad encryption key size.\n"),
        "{said}"
    );
}

#[test]
fn half_a_message_is_shown_as_far_as_it_goes() {
    let whole = sample();
    for len in 0..whole.len() {
        let said = shown(&whole[..len], false, true);
        assert!(said.contains("UNK: "), "{len}: {said}");
        let _ = crate::command::key::json::line(&whole[..len], false);
    }
}
