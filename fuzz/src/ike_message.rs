//! What an authenticated peer may send: payloads as they come out of the SK payload.

use ike::message::{Exchange, Message, Notify, NotifyKind, Payload, TrafficSelector, rules};
use ike::proposal::{Offer, Protocol};
use ike::protect::{Opener, Opening, Sealer};
use ipsec_core::algorithm::Encryption;
use ipsec_core::kex::Group;
use ipsec_core::prf::Prf;
use ipsec_core::transform::SkCipher;

/// Takes the octets as one message in plain form.
pub fn run(data: &[u8]) {
    let Ok(message) = Message::parse(data) else { return };
    let _ = rules::fits(&message);
    // Proposals and selectors of kinds we do not know are passed over; where none is left there is nothing to write.
    #[expect(clippy::wildcard_enum_match_arm, reason = "no other payload is a list")]
    let empty = |payload: &Payload| match payload {
        Payload::Sa(proposals) => proposals.is_empty(),
        Payload::TsI(selectors) | Payload::TsR(selectors) => selectors.is_empty(),
        _ => false,
    };
    if message.payloads.iter().any(empty) {
        return;
    }
    // What was understood can be written, and means the same when it is read again.
    let written = message.emit();
    let again = Message::parse(&written).expect("what we write, we read");
    assert_eq!(again, message);
    assert_eq!(again.emit(), written, "written twice, and different");
    if message.payloads.iter().any(|payload| matches!(payload, Payload::Protected { .. })) {
        return;
    }
    // It goes through the SK payload, in one piece and in many, and comes out as it was.
    for limit in [None, Some(576)] {
        let cipher = || SkCipher::new(Encryption::AesGcm16, &[7; 36], None).expect("a key of its length");
        let (mut sealer, mut opener) = (Sealer::new(cipher(), 1), Opener::new(cipher()));
        let Some(datagrams) = sealer.seal(&message, limit, &mut |octets| octets.fill(9)) else { continue };
        let count = datagrams.len();
        // The last first: fragments arrive in any order.
        for (n, datagram) in datagrams.iter().rev().enumerate() {
            match opener.open(datagram, true) {
                Opening::Message(opened) => {
                    assert_eq!(n, count - 1);
                    assert_eq!(opened.message, message);
                }
                Opening::Fragment => assert!(n < count - 1),
                Opening::Again(_) => panic!("it is waited for"),
                Opening::Malformed(_, error) => panic!("ours, and {error:?}"),
                Opening::Forged => panic!("ours, and forged"),
            }
        }
    }
}

/// One message of each exchange.
pub fn seeds() -> Vec<(String, Vec<u8>)> {
    use ike::message::{Delete, Flags, Header, IdBody, IkeSpi};
    let offer = Offer {
        encryption: vec![(Encryption::AesGcm16, 256), (Encryption::ChaCha20Poly1305, 0)],
        prf: vec![Prf::HmacSha256],
        groups: vec![Group::X25519, Group::Ecp256],
        additional: vec![vec![Some(Group::MlKem768), None]],
        ..Offer::default()
    };
    let child =
        Offer { encryption: vec![(Encryption::AesGcm16, 256)], esn: vec![true, false], ..Offer::default() };
    let ts = |net: &str| vec![TrafficSelector::of(net.parse().expect("a net"), 17, 4500)];
    let sa = |spi: &[u8]| Payload::Sa(vec![child.proposal(1, Protocol::Esp, spi.to_vec())]);
    let nonce = Payload::Nonce(vec![3; 32]);
    let ke = Payload::Ke { group: 31, data: vec![5; 32] };
    let status = |kind| Payload::Notify(Notify::new(kind, vec![1; 20]));
    let rekey = Notify {
        protocol: Some(Protocol::Esp),
        spi: vec![0, 0, 16, 1],
        kind: NotifyKind::RekeySa,
        data: vec![],
    };
    let all = [
        (
            "init",
            Exchange::IkeSaInit,
            vec![
                status(NotifyKind::Cookie),
                Payload::Sa(vec![offer.proposal(1, Protocol::Ike, vec![])]),
                ke.clone(),
                nonce.clone(),
                status(NotifyKind::NatDetectionSourceIp),
                Payload::Vendor(b"vendor".to_vec()),
            ],
        ),
        (
            "auth",
            Exchange::IkeAuth,
            vec![
                Payload::IdI(IdBody { kind: 2, data: b"west".to_vec() }),
                Payload::IdR(IdBody { kind: 1, data: vec![192, 0, 2, 1] }),
                Payload::Auth { method: 2, data: vec![8; 32] },
                sa(&[0, 0, 16, 1]),
                Payload::TsI(ts("10.1.0.0/16")),
                Payload::TsR(ts("2001:db8::/32")),
            ],
        ),
        (
            "rekey-child",
            Exchange::CreateChildSa,
            vec![
                Payload::Notify(rekey),
                sa(&[0, 0, 16, 2]),
                nonce.clone(),
                ke.clone(),
                Payload::TsI(ts("10.1.0.0/16")),
                Payload::TsR(ts("10.2.0.0/16")),
            ],
        ),
        (
            "rekey-ike",
            Exchange::CreateChildSa,
            vec![Payload::Sa(vec![offer.proposal(1, Protocol::Ike, vec![6; 8])]), nonce, ke.clone()],
        ),
        (
            "delete-child",
            Exchange::Informational,
            vec![Payload::Delete(Delete::Child(Protocol::Esp, vec![0x1001, 0x1002]))],
        ),
        ("delete-ike", Exchange::Informational, vec![Payload::Delete(Delete::IkeSa)]),
        ("liveness", Exchange::Informational, vec![]),
        ("intermediate", Exchange::IkeIntermediate, vec![ke]),
        // Longer than a datagram: it goes in fragments.
        ("long", Exchange::IkeAuth, vec![Payload::Vendor(vec![4; 1500]), Payload::Eap(vec![1, 2, 0, 5, 1])]),
        ("eap", Exchange::IkeAuth, vec![Payload::Eap(vec![1, 2, 0, 5, 1])]),
    ];
    all.into_iter()
        .map(|(name, exchange, payloads)| {
            let flags = Flags { initiator: true, response: false };
            let header = Header { spi_i: IkeSpi(1), spi_r: IkeSpi(2), exchange, flags, id: 1 };
            (name.to_owned(), Message { header, payloads }.emit())
        })
        .collect()
}
