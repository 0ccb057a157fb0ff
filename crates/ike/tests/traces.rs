//! Live traces of another implementation, with all its secrets: our key schedule gives the same keys, every protected
//! message opens, every AUTH is the one that was sent.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a test looks at what it is about and passes over the rest"
)]

use ike::keys::{IkeKeys, Seed};
use ike::message::{Exchange, IdBody, IkeSpi, Message, Payload};
use ike::proposal::{Chosen, Offer, Protocol};
use ike::protect::{Opener, Opening};
use ipsec_core::Secret;
use ipsec_core::algorithm::{Auth, Encryption};
use ipsec_core::kex::Group;
use ipsec_core::prf::Prf;
use serde_json::Value;

struct Trace {
    name: String,
    value: Value,
}

impl Trace {
    fn all() -> Vec<Self> {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/traces");
        let paths = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        let all: Vec<Self> = paths
            .map(|path| Self {
                name: path.file_stem().unwrap().to_string_lossy().into_owned(),
                value: serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap(),
            })
            .collect();
        assert_eq!(all.len(), 6);
        all
    }

    fn octets(&self, key: &str) -> Vec<u8> {
        hex::decode(self.value[key].as_str().unwrap_or_else(|| panic!("{}: {key}", self.name))).unwrap()
    }

    fn spi(&self, key: &str) -> IkeSpi {
        IkeSpi(u64::from_be_bytes(self.octets(key).try_into().unwrap()))
    }

    /// What the responder chose.
    fn chosen(&self) -> Chosen {
        let answer = Message::parse(&self.octets("ike_sa_init_rsp")).unwrap();
        let Some(Payload::Sa(proposals)) = answer.payloads.into_iter().find(|p| matches!(p, Payload::Sa(_)))
        else {
            panic!("{}: no SA payload", self.name)
        };
        let any = Offer {
            encryption: [128, 192, 256]
                .into_iter()
                .flat_map(|bits| {
                    [Encryption::AesGcm16, Encryption::AesCbc, Encryption::AesCcm16, Encryption::AesCtr]
                        .map(|e| (e, bits))
                })
                .chain([(Encryption::ChaCha20Poly1305, 0), (Encryption::TripleDesCbc, 0)])
                .collect(),
            integrity: vec![Auth::HmacSha1, Auth::HmacSha256, Auth::HmacSha512],
            prf: Prf::ALL.to_vec(),
            groups: ipsec_core::kex::GROUPS.iter().map(|row| row.group).collect::<Vec<Group>>(),
            ..Offer::default()
        };
        assert_eq!(proposals[0].protocol, Protocol::Ike);
        any.choose(&proposals[0]).unwrap_or_else(|| panic!("{}: {}", self.name, proposals[0]))
    }
}

#[test]
fn keys_auth_and_every_protected_message_are_as_recorded() {
    let mut opened = 0;
    for trace in Trace::all() {
        let prf = match trace.value["prf"].as_str().unwrap() {
            "sha1" => Prf::HmacSha1,
            "sha256" => Prf::HmacSha256,
            "sha384" => Prf::HmacSha384,
            _ => Prf::HmacSha512,
        };
        let chosen = trace.chosen();
        let (ni, nr) = (trace.octets("ni"), trace.octets("nr"));
        let (spi_i, spi_r) = (trace.spi("spii"), trace.spi("spir"));
        let seed = Seed { ni: &ni, nr: &nr, spi_i, spi_r };
        let keys = IkeKeys::initial(&chosen, prf, &Secret::from(trace.octets("dh_secret")), seed);
        for (name, key) in [
            ("sk_d", &keys.d),
            ("sk_ei", &keys.e[0]),
            ("sk_er", &keys.e[1]),
            ("sk_pi", &keys.p[0]),
            ("sk_pr", &keys.p[1]),
        ] {
            assert_eq!(hex::encode(&**key), hex::encode(trace.octets(name)), "{} {name}", trace.name);
        }
        // AUTH of both sides (RFC 7296 §2.15).
        let auth = |init: &str, nonce: &[u8], p: &Secret, id: &str| {
            let id = trace.octets(id);
            let mac = prf.compute(p, &[&id]);
            let shared = prf.compute(&trace.octets("psk"), &[b"Key Pad for IKEv2"]);
            hex::encode(&*prf.compute(&shared, &[&trace.octets(init), nonce, &mac]))
        };
        assert_eq!(auth("ike_sa_init_req", &nr, &keys.p[0], "idi_body"), hex::encode(trace.octets("auth_i")));
        assert_eq!(auth("ike_sa_init_rsp", &ni, &keys.p[1], "idr_body"), hex::encode(trace.octets("auth_r")));
        // Keys of the first child.
        let names: Vec<&str> = ["child_ei", "child_ai", "child_er", "child_ar"]
            .into_iter()
            .filter(|n| trace.value.get(n).is_some())
            .collect();
        let child: Vec<u8> = names.iter().flat_map(|name| trace.octets(name)).collect();
        assert_eq!(
            hex::encode(&*keys.child(&[], &ni, &nr, child.len())),
            hex::encode(child),
            "{}",
            trace.name
        );
        let [i, r] = keys.ciphers(&chosen).unwrap();
        let (mut i, mut r) = (Opener::new(i), Opener::new(r));
        for octets in trace.value["messages"].as_array().unwrap() {
            let octets = hex::decode(octets.as_str().unwrap()).unwrap();
            let message = Message::parse(&octets).unwrap();
            let header = message.header;
            if (header.spi_i, header.spi_r) != (spi_i, spi_r) || header.exchange == Exchange::IkeSaInit {
                continue;
            }
            let opener = if header.flags.initiator { &mut i } else { &mut r };
            match opener.open(&octets, true) {
                Opening::Message(open) => {
                    assert!(ike::message::rules::fits(&open.message), "{}: {:?}", trace.name, open.message);
                    if let Some(id) = open.message.payloads.iter().find_map(|payload| match payload {
                        Payload::IdI(id) => Some((id, "idi_body")),
                        Payload::IdR(id) if header.flags.response => Some((id, "idr_body")),
                        _ => None,
                    }) {
                        let (id, key): (&IdBody, &str) = id;
                        assert_eq!(id.octets(), trace.octets(key));
                    }
                    opened += 1;
                }
                Opening::Fragment => {}
                other => panic!("{}: {header:?}: {other:?}", trace.name),
            }
            // One bit changed, and nothing of it is read.
            let mut forged = octets.clone();
            *forged.last_mut().unwrap() ^= 1;
            assert!(matches!(opener.open(&forged, true), Opening::Forged), "{}", trace.name);
        }
    }
    assert!(opened >= 20, "{opened} messages");
}
