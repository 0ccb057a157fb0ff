//! The dialogues of [`crate::ike_dialogue`] between two who come up in other ways than by a shared secret alone: the first octet
//! says which.

use crate::ike_dialogue::play;
use ike::connection::{Connection, Secrets};
use ike::credential::{
    EapProof, Known, LocalAuth, LocalEap, LocalSignature, RemoteAuth, RemoteEap, RemoteSignature, Schemes,
    SendCert,
};
use ike::eap::EapSecret;
use ike::identity::IdPattern;
use ike::message::TrafficSelector;
use ipsec_core::kex::Group;
use ipsec_core::mschap::PasswordHash;
use ipsec_core::sign::PrivateKey;
use std::sync::{Arc, OnceLock};

/// Ways of coming up.
const KINDS: u8 = 5;

/// The raw public keys of both.
fn keys() -> &'static [Arc<PrivateKey>; 2] {
    static ONCE: OnceLock<[Arc<PrivateKey>; 2]> = OnceLock::new();
    ONCE.get_or_init(|| {
        [1, 2].map(|octet| {
            // Ed25519 in PKCS#8 (RFC 8410 §7).
            let front = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
            let der = [&front[..], &[octet; 32]].concat();
            Arc::new(PrivateKey::from_der(&der).expect("a key"))
        })
    })
}

fn signs(side: usize) -> LocalAuth {
    let public = keys()[side].public().clone();
    let (chain, schemes) = (Vec::new(), Schemes::default());
    LocalAuth::Signature(Box::new(LocalSignature { public, chain, send: SendCert::Always, schemes }))
}

fn believes(side: usize) -> Option<RemoteSignature> {
    let known = vec![Known::Key(keys()[1 - side].public().clone())];
    Some(RemoteSignature { known, ..RemoteSignature::default() })
}

fn configure(kind: u8, side: usize, connection: &mut Connection, secrets: &mut Secrets) {
    match kind {
        // IKE_INTERMEDIATE, and IKE_FOLLOWUP_KE when something is rekeyed.
        0 => {
            let additional = vec![vec![Some(Group::MlKem512)]];
            connection.ike[0].additional.clone_from(&additional);
            connection.child.offers[0].additional = additional;
        }
        // Signatures.
        1 => {
            secrets.keys = vec![keys()[side].clone()];
            connection.local_auth = signs(side);
            connection.remote_auth = RemoteAuth { shared_key: false, signature: believes(side), eap: None };
        }
        // A password.
        2 => {
            let password = PasswordHash::of("right");
            secrets.eap = vec![EapSecret { user: "alice".to_owned(), password }];
            if side == 0 {
                let local = LocalEap { name: "alice".to_owned(), proof: EapProof::Password };
                connection.local_auth = LocalAuth::Eap(Box::new(local));
                connection.remote_auth = RemoteAuth { shared_key: false, signature: believes(0), eap: None };
            } else {
                secrets.keys = vec![keys()[1].clone()];
                connection.local_auth = signs(1);
                let eap = Some(RemoteEap::Password);
                connection.remote_auth = RemoteAuth { shared_key: false, signature: None, eap };
                connection.remote_id = IdPattern::Any;
            }
        }
        // Selectors that make messages longer than a datagram.
        3 => {
            let many = (0..48)
                .map(|n| TrafficSelector::of(format!("fd00:0:0:{n}::/64").parse().expect("a net"), 0, 0));
            let ours = if side == 0 { &mut connection.child.local } else { &mut connection.child.remote };
            let theirs = vec![TrafficSelector::of("fd01::/64".parse().expect("a net"), 0, 0)];
            *ours = many.collect();
            if side == 0 {
                connection.child.remote = theirs;
            } else {
                connection.child.local = theirs;
            }
        }
        // No child in IKE_AUTH, and addresses that may change.
        _ => (connection.childless, connection.mobike) = (true, true),
    }
}

/// Takes the first octet as how they come up, and the others as what happens.
pub fn run(data: &[u8]) {
    let Some((kind, script)) = data.split_first() else { return };
    play(script, |side, connection, secrets| configure(kind % KINDS, side, connection, secrets));
}

/// Of each kind a dialogue that nobody disturbs, and some that somebody does.
pub fn seeds() -> Vec<(String, Vec<u8>)> {
    let names = ["intermediate", "signatures", "password", "pieces", "childless"];
    let scripts: [(&str, &[u8]); 6] = [
        ("quiet", &[0; 24]),
        ("lost", &[1, 255, 0, 0, 1, 255, 0, 0, 1, 255, 0, 0, 0, 0]),
        ("repeated", &[2; 40]),
        ("edited-second", &[0, 0, 0x0c, 4, 9, 30, 1, 0, 0, 0, 0]),
        ("edited-third", &[0, 0, 0, 0, 0x14, 8, 2, 60, 255, 12, 3, 0, 0, 0]),
        ("rekeyed", &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]),
    ];
    (0..KINDS)
        .zip(names)
        .flat_map(|(kind, name)| {
            scripts.map(|(what, script)| (format!("{name}-{what}"), [&[kind], script].concat()))
        })
        .collect()
}
