use super::*;
use crate::proposal::{Kind, Offer, Proposal, Protocol, Transform};
use ipsec_core::algorithm::Encryption;
use ipsec_core::kex::Group;
use ipsec_core::prf::Prf;

fn offer() -> Proposal {
    let offer = Offer {
        encryption: vec![(Encryption::AesGcm16, 256), (Encryption::ChaCha20Poly1305, 0)],
        prf: vec![Prf::HmacSha256],
        groups: vec![Group::X25519, Group::Ecp256],
        additional: vec![vec![Some(Group::MlKem768), None]],
        ..Offer::default()
    };
    offer.proposal(1, Protocol::Ike, vec![1, 2, 3, 4, 5, 6, 7, 8])
}

/// One of each payload, each with something in it.
fn everything() -> Message {
    let selectors = vec![
        TrafficSelector::of("10.1.0.0/16".parse().unwrap(), 6, 443),
        TrafficSelector::of("2001:db8::/32".parse().unwrap(), 0, 0),
    ];
    let header = Header {
        spi_i: IkeSpi(0x0102_0304_0506_0708),
        spi_r: IkeSpi(9),
        exchange: Exchange::IkeAuth,
        flags: Flags { initiator: true, response: false },
        id: 1,
    };
    let payloads = vec![
        Payload::Sa(vec![offer(), Proposal { number: 2, ..offer() }]),
        Payload::Ke { group: 31, data: vec![7; 32] },
        Payload::IdI(IdBody { kind: 2, data: b"west.example.org".to_vec() }),
        Payload::IdR(IdBody { kind: 1, data: vec![192, 0, 2, 1] }),
        Payload::Cert { encoding: CertEncoding::X509Signature, data: vec![0x30; 40] },
        Payload::CertReq { encoding: CertEncoding::X509Signature, authorities: vec![1; 20] },
        Payload::Auth { method: 2, data: vec![3; 32] },
        Payload::Nonce(vec![4; 32]),
        Payload::Notify(Notify {
            protocol: Some(Protocol::Esp),
            spi: vec![1, 2, 3, 4],
            kind: NotifyKind::RekeySa,
            data: vec![],
        }),
        Payload::Delete(Delete::Child(Protocol::Esp, vec![5, 6])),
        Payload::Delete(Delete::IkeSa),
        Payload::Vendor(b"tulips".to_vec()),
        Payload::TsI(selectors.clone()),
        Payload::TsR(selectors),
        Payload::Cp(Configuration {
            kind: Configuration::REQUEST,
            attributes: vec![Attribute { kind: Attribute::IP4_ADDRESS, value: vec![] }],
        }),
        Payload::Eap(vec![1, 2, 0, 4]),
        Payload::Protected { kind: 46, first: 35, body: vec![8; 40] },
    ];
    Message { header, payloads }
}

#[test]
fn what_is_written_is_read_again() {
    let message = everything();
    let octets = message.emit();
    assert_eq!(Message::parse(&octets), Ok(message));
}

#[test]
fn every_truncation_is_refused() {
    let octets = everything().emit();
    for end in 0..octets.len() {
        let mut cut = octets[..end].to_vec();
        assert!(Message::parse(&cut).is_err(), "{end}");
        // Also when the header says that this is all.
        Header::set_length(&mut cut);
        assert!(Message::parse(&cut).is_err(), "{end}");
    }
}

#[test]
fn a_flipped_bit_gives_an_error_or_another_message_and_what_is_read_is_written_the_same() {
    let message = everything();
    let octets = message.emit();
    for bit in 0..octets.len() * 8 {
        let mut flipped = octets.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        if let Ok(read) = Message::parse(&flipped) {
            assert_eq!(Message::parse(&read.emit()), Ok(read), "bit {bit}");
        }
    }
}

#[test]
fn an_unknown_payload_is_passed_over_unless_it_is_critical() {
    let mut octets = everything().emit();
    // Behind the header, one payload of a kind there is not.
    let first = octets[16];
    octets[16] = 200;
    octets.splice(28..28, [first, 0, 0, 5, 1]);
    Header::set_length(&mut octets);
    assert_eq!(Message::parse(&octets), Ok(everything()));
    octets[29] = 0x80;
    assert_eq!(Message::parse(&octets), Err(ParseError::UnknownCritical(200)));
    // The bit means nothing on what we know (RFC 7296 §2.5).
    let mut octets = everything().emit();
    octets[29] = 0x80;
    assert_eq!(Message::parse(&octets), Ok(everything()));
}

#[test]
fn a_later_major_version_is_told_and_a_later_minor_one_does_not_matter() {
    let mut octets = everything().emit();
    octets[17] = 0x30;
    assert_eq!(Message::parse(&octets), Err(ParseError::MajorVersion(3)));
    octets[17] = 0x2f;
    assert!(Message::parse(&octets).is_ok());
}

#[test]
fn lists_that_claim_too_much_are_refused_before_they_cost_memory() {
    let mut message = everything();
    message.payloads = (0..=MAX_PAYLOADS).map(|_| Payload::Vendor(vec![1])).collect();
    assert!(Message::parse(&message.emit()).is_err());
    let transform = Transform { kind: Kind::Encryption, number: 12, key_bits: Some(128) };
    message.payloads = vec![Payload::Sa(vec![Proposal { transforms: vec![transform; 129], ..offer() }])];
    assert!(Message::parse(&message.emit()).is_err());
    message.payloads = vec![Payload::TsI(vec![TrafficSelector::everything(false); 65])];
    assert!(Message::parse(&message.emit()).is_err());
    for (count, read) in [(128, true), (129, false)] {
        let attributes = vec![Attribute { kind: Attribute::IP4_DNS, value: Vec::new() }; count];
        message.payloads = vec![Payload::Cp(Configuration { kind: Configuration::REQUEST, attributes })];
        assert_eq!(Message::parse(&message.emit()).is_ok(), read, "{count}");
    }
}

#[test]
fn selectors_narrow_to_what_both_hold() {
    let ts = |net: &str, protocol, port| TrafficSelector::of(net.parse().unwrap(), protocol, port);
    let narrow =
        |asked: &[TrafficSelector], allowed: &[TrafficSelector]| TrafficSelector::narrow(asked, allowed);
    let any = TrafficSelector::everything(false);
    assert_eq!(narrow(&[any], &[ts("10.1.0.0/16", 0, 0)]), [ts("10.1.0.0/16", 0, 0)]);
    assert_eq!(narrow(&[ts("10.1.2.0/24", 0, 0)], &[ts("10.1.0.0/16", 6, 80)]), [ts("10.1.2.0/24", 6, 80)]);
    assert_eq!(narrow(&[ts("10.2.0.0/16", 0, 0)], &[ts("10.1.0.0/16", 0, 0)]), []);
    assert_eq!(narrow(&[ts("10.1.0.0/16", 17, 0)], &[ts("10.1.0.0/16", 6, 0)]), []);
    assert_eq!(narrow(&[TrafficSelector::everything(true)], &[any]), []);
    // The packet that set it off comes first and is covered by what follows: one selector is left.
    let asked = [ts("10.1.2.3/32", 1, 0), ts("10.1.0.0/16", 0, 0)];
    assert_eq!(narrow(&asked, &[any]), [ts("10.1.0.0/16", 0, 0)]);
}

#[test]
fn ranges_become_the_fewest_prefixes() {
    let range = TrafficSelector {
        addresses: ("10.0.0.1".parse().unwrap(), "10.0.0.6".parse().unwrap()),
        ..TrafficSelector::everything(false)
    };
    let texts: Vec<String> = range.prefixes().iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["10.0.0.1/32", "10.0.0.2/31", "10.0.0.4/31", "10.0.0.6/32"]);
}

#[test]
fn a_message_with_a_payload_too_many_or_too_few_does_not_fit_its_exchange() {
    let init = |payloads: Vec<Payload>| {
        let header = Header { exchange: Exchange::IkeSaInit, ..everything().header };
        rules::fits(&Message { header, payloads })
    };
    let (sa, ke, nonce) = (
        Payload::Sa(vec![offer()]),
        Payload::Ke { group: 31, data: vec![1; 32] },
        Payload::Nonce(vec![1; 32]),
    );
    assert!(init(vec![sa.clone(), ke.clone(), nonce.clone()]));
    assert!(!init(vec![sa.clone(), ke.clone()]));
    assert!(!init(vec![sa.clone(), sa.clone(), ke.clone(), nonce.clone()]));
    assert!(!init(vec![sa, ke, nonce, Payload::Eap(vec![1, 2, 0, 4])]));
}
