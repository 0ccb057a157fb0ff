//! Live traces of another implementation, with all its secrets: our key schedule gives the same keys and every protected
//! message opens. Their AUTH is judged where ours is made (`src/auth/tests.rs`).
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
fn keys_and_every_protected_message_are_as_recorded() {
    for trace in Trace::all() {
        let mut opened = 0;
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
            ("sk_ai", &keys.a[0]),
            ("sk_ar", &keys.a[1]),
            ("sk_ei", &keys.e[0]),
            ("sk_er", &keys.e[1]),
            ("sk_pi", &keys.p[0]),
            ("sk_pr", &keys.p[1]),
        ] {
            // Beside a combined-mode cipher there is no key of integrity.
            let known = if trace.value.get(name).is_some() { trace.octets(name) } else { Vec::new() };
            assert_eq!(hex::encode(&**key), hex::encode(known), "{} {name}", trace.name);
        }
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
                other => panic!("{}: {header:?}: {other:?}", trace.name),
            }
            // One bit changed, and nothing of it is read.
            let mut forged = octets.clone();
            *forged.last_mut().unwrap() ^= 1;
            assert!(matches!(opener.open(&forged, true), Opening::Forged), "{}", trace.name);
        }
        // All but the two that are in clear: IKE_AUTH, two rekeyings and the deletion of what they replace.
        let protected = trace.value["messages"].as_array().unwrap().len() - 2;
        assert!(opened == protected && opened >= 8, "{}: {opened} of {protected}", trace.name);
    }
}
