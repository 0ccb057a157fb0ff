use super::*;
use crate::connection::Psk;
use crate::credential::{Known, RemoteAuth, RemoteEap, RemoteSignature, Schemes};
use crate::exchange::init::nobody;
use crate::identity::IdPattern;
use crate::x509::Certificate;
use crate::x509::path::Distrust;
use ipsec_core::sign::{Curve, KeyKind, PrivateKey, Scheme, SignatureHash};
use signature::encode;

#[path = "../../tests/sim/pki.rs"]
pub(crate) mod pki;
pub(crate) use pki::{Authority, Holder, NOW};

pub(crate) fn id(text: &str) -> Id {
    Id::parse(text).unwrap()
}

/// What is matched against what: the identity claimed, the pattern of the connection, the secret configured, and the secret
/// AUTH was made with. Only the first row makes an `Authenticated`.
#[test]
fn only_the_right_identity_with_the_right_secret_over_this_handshake_is_believed() {
    let exactly = |text: &str| IdPattern::Exactly(id(text));
    let secrets = Secrets {
        psks: vec![
            Psk { ids: vec![exactly("@us"), exactly("@peer")], key: Secret::from(&b"right"[..]) },
            Psk { ids: vec![exactly("@us"), exactly("@other")], key: Secret::from(&b"other"[..]) },
        ],
        ..Secrets::default()
    };
    let with =
        |allowed: &IdPattern| Connection { local_id: id("@us"), remote_id: allowed.clone(), ..nobody() };
    let sk_p = Secret::from(&[7; 32][..]);
    let signed = Signed { init: b"message", nonce: b"nonce", sk_p: &sk_p, int_auth: b"" };
    let elsewhere = Signed { init: b"another message", ..signed };
    let try_it = |claimed: &str, allowed: &IdPattern, secret: &[u8], over: Signed<'_>, method: u8| {
        let body = id(claimed).body();
        let data = over.shared_key(Prf::HmacSha256, &Secret::from(secret), &body);
        let claim = Claim { id: &body, method, data: &data };
        shared_key(Prf::HmacSha256, &secrets, &with(allowed), claim, signed)
    };
    assert_eq!(try_it("@peer", &exactly("@peer"), b"right", signed, 2).unwrap().id(), &id("@peer"));
    assert!(try_it("@peer", &IdPattern::Any, b"right", signed, 2).is_ok());
    // Its own secret, somebody else's name, and the other way round.
    assert!(matches!(try_it("@peer", &exactly("@peer"), b"other", signed, 2), Err(Why::BadAuth(_))));
    assert!(matches!(try_it("@other", &exactly("@peer"), b"other", signed, 2), Err(Why::WrongId { .. })));
    assert!(matches!(try_it("@nobody", &IdPattern::Any, b"right", signed, 2), Err(Why::NoSecret(..))));
    // No secret at all is not the empty secret.
    assert!(matches!(try_it("@nobody", &IdPattern::Any, b"", signed, 2), Err(Why::NoSecret(..))));
    assert!(matches!(try_it("@peer", &exactly("@peer"), b"", signed, 2), Err(Why::BadAuth(_))));
    // From another handshake, or by a method that proves nothing (NULL, RFC 7619).
    assert!(matches!(try_it("@peer", &exactly("@peer"), b"right", elsewhere, 2), Err(Why::BadAuth(_))));
    assert!(matches!(try_it("@peer", &exactly("@peer"), b"right", signed, 13), Err(Why::BadMethod(13))));
    // The type of an identity counts.
    assert!(matches!(
        try_it("192.0.2.1", &exactly("@192.0.2.1"), b"right", signed, 2),
        Err(Why::WrongId { .. })
    ));
    // Too short is wrong, and so is nothing.
    let body = id("@peer").body();
    let whole = signed.shared_key(Prf::HmacSha256, &Secret::from(&b"right"[..]), &body);
    for end in 0..whole.len() {
        let claim = Claim { id: &body, method: 2, data: &whole[..end] };
        assert!(shared_key(Prf::HmacSha256, &secrets, &with(&IdPattern::Any), claim, signed).is_err());
    }
    // The right secret, where the connection asks for a certificate.
    let claim = Claim { id: &body, method: 2, data: &whole };
    let mut strict = with(&IdPattern::Any);
    strict.remote_auth =
        RemoteAuth { shared_key: false, signature: Some(RemoteSignature::default()), eap: None };
    let refused = shared_key(Prf::HmacSha256, &secrets, &strict, claim, signed);
    assert!(matches!(refused, Err(Why::BadMethod(2))), "{refused:?}");
}

/// After EAP the key that it made counts, and no other, and who has proved what it is there.
#[test]
fn auth_after_eap_is_by_the_key_of_that_eap_and_by_no_other() {
    let sk_p = Secret::from(&[7; 32][..]);
    let signed = Signed { init: b"message", nonce: b"nonce", sk_p: &sk_p, int_auth: b"" };
    let msk = Secret::from(&[9; 64][..]);
    let try_it = |who: &str, made: &Secret, by: &[u8], eap: Option<RemoteEap>, method: u8| {
        let connection = Connection {
            remote_id: IdPattern::Exactly(id("@alice")),
            remote_auth: RemoteAuth { shared_key: true, signature: None, eap },
            ..nobody()
        };
        // In IKE it says it is somebody else, which counts for nothing.
        let body = id("@root").body();
        let data = signed.shared_key(Prf::HmacSha256, &Secret::from(by), &body);
        let won = Won { id: id(who), msk: made.clone() };
        after_eap(Prf::HmacSha256, &won, &connection, Claim { id: &body, method, data: &data }, signed)
    };
    for eap in [RemoteEap::Password, RemoteEap::Tls(RemoteSignature::default())] {
        let eap = Some(eap);
        assert_eq!(try_it("@alice", &msk, &msk, eap.clone(), 2).unwrap().id(), &id("@alice"));
        let refused = try_it("@alice", &msk, &[8; 64], eap.clone(), 2);
        assert!(matches!(refused, Err(Why::NotOfEap(_))), "{refused:?}");
        // A method that makes no key has proved nothing that AUTH could rest on.
        assert!(try_it("@alice", &Secret::default(), b"", eap.clone(), 2).is_err());
        assert!(matches!(try_it("@bob", &msk, &msk, eap.clone(), 2), Err(Why::WrongId { .. })));
        assert!(matches!(try_it("@alice", &msk, &msk, eap, 13), Err(Why::BadMethod(13))));
    }
    assert!(matches!(try_it("@alice", &msk, &msk, None, 2), Err(Why::BadMethod(2))));
}

/// A peer that signs, and what this side has been told about it.
struct Case {
    trust: Trust,
    connection: Connection,
    claimed: Id,
    certificates: Vec<Vec<u8>>,
    method_and_data: (u8, Vec<u8>),
}

const OVER: &[u8] = b"this very handshake";

impl Case {
    /// One for which all holds.
    fn good(ca: &Authority, peer: &Holder, scheme: Scheme) -> Self {
        let policy = RemoteSignature::default();
        Self {
            trust: Trust { authorities: vec![ca.certificate.clone()], ..Trust::default() },
            connection: Connection {
                remote_id: IdPattern::Exactly(id("@peer.example.org")),
                remote_auth: RemoteAuth { shared_key: false, signature: Some(policy), eap: None },
                ..nobody()
            },
            claimed: id("@peer.example.org"),
            certificates: vec![peer.certificate.der().to_vec()],
            method_and_data: sign(&peer.key, scheme, OVER),
        }
    }

    fn policy(&mut self) -> &mut RemoteSignature {
        self.connection.remote_auth.signature.as_mut().unwrap()
    }

    fn outcome(&self) -> Result<Verified, Why> {
        let (method, data) = &self.method_and_data;
        let body = self.claimed.body();
        let claim = Claim { id: &body, method: *method, data };
        let candidates = vec![Arc::new(self.connection.clone())];
        let trust = (Arc::new(self.trust.clone()), NOW);
        Verification::new(candidates, claim, OVER.to_vec(), self.certificates.clone(), trust)?.run()
    }

    #[track_caller]
    fn refused(&self) -> Why {
        self.outcome().expect_err("it was believed")
    }
}

fn sign(key: &PrivateKey, scheme: Scheme, over: &[u8]) -> (u8, Vec<u8>) {
    encode(scheme, &key.sign(scheme, over).unwrap()).unwrap()
}

const P256: KeyKind = KeyKind::Ec(Curve::P256);
const ECDSA: Scheme = Scheme::Ecdsa(SignatureHash::Sha256);
const SUBJECT: &str = "C=CH, O=Example, CN=peer";

fn peer(ca: &Authority, kind: KeyKind) -> Holder {
    ca.issue((SUBJECT, &["@peer.example.org"]), kind, |_| {})
}

#[test]
fn a_peer_is_believed_by_every_kind_of_signature() {
    let ca = Authority::new("C=CH, O=Example, CN=Root");
    for (kind, schemes) in [
        (
            KeyKind::Rsa,
            &[
                Scheme::RsaPss(SignatureHash::Sha256),
                Scheme::RsaPss(SignatureHash::Sha512),
                Scheme::RsaPkcs1(SignatureHash::Sha256),
                Scheme::RsaPkcs1(SignatureHash::Sha384),
            ][..],
        ),
        (P256, &[ECDSA, Scheme::EcdsaRaw(Curve::P256)]),
        (KeyKind::Ec(Curve::P384), &[Scheme::Ecdsa(SignatureHash::Sha384), Scheme::EcdsaRaw(Curve::P384)]),
        (KeyKind::Ec(Curve::P521), &[Scheme::Ecdsa(SignatureHash::Sha512), Scheme::EcdsaRaw(Curve::P521)]),
        (KeyKind::Ed25519, &[Scheme::Ed25519]),
    ] {
        let peer = peer(&ca, kind);
        for scheme in schemes {
            let mut case = Case::good(&ca, &peer, *scheme);
            let verified = case.outcome().unwrap_or_else(|why| panic!("{scheme}: {why}"));
            let (proved, _) = accept(&verified, &[Arc::new(case.connection.clone())]).unwrap();
            assert_eq!(proved.id(), &case.claimed);
            // The same, known beforehand, by its certificate and by its key alone; then nobody has to vouch for it.
            case.trust = Trust::default();
            case.certificates.clear();
            for known in
                [Known::Certificate(peer.certificate.clone()), Known::Key(peer.certificate.key().clone())]
            {
                case.policy().known = vec![known];
                case.outcome().unwrap_or_else(|why| panic!("{scheme}: {why}"));
            }
            case.policy().schemes = Schemes::none();
            assert!(matches!(case.refused(), Why::Scheme(refused) if refused == *scheme));
        }
    }
}

/// Each is what some implementation believed, or what it would take to be believed without the key.
#[test]
fn a_signature_is_believed_for_one_key_one_identity_and_one_handshake() {
    let ca = Authority::new("C=CH, O=Example, CN=Root");
    let rogue = Authority::new("C=CH, O=Example, CN=Root");
    let (honest, other) = (peer(&ca, P256), ca.gateway("C=CH, O=Example, CN=other", &["@other.example.org"]));
    let good = || Case::good(&ca, &honest, ECDSA);
    assert!(good().outcome().is_ok());

    // Another handshake's signature.
    let mut case = good();
    case.method_and_data = sign(&honest.key, ECDSA, b"another handshake");
    assert!(matches!(case.refused(), Why::BadSignature(_)));
    // The honest certificate, another's key (CVE-2020-16088), and the other way round.
    let mut case = good();
    case.method_and_data = sign(&other.key, ECDSA, OVER);
    assert!(matches!(case.refused(), Why::BadSignature(_)));
    case.certificates = vec![other.certificate.der().to_vec()];
    assert!(matches!(case.refused(), Why::NotVouched { .. }));
    // Both certificates: the first is the one that counts (RFC 7296 §3.6), whichever the signature fits.
    case.certificates = vec![honest.certificate.der().to_vec(), other.certificate.der().to_vec()];
    assert!(matches!(case.refused(), Why::BadSignature(_)));
    case.certificates.reverse();
    assert!(matches!(case.refused(), Why::NotVouched { .. }));
    // Under its own name, which the connection is not for.
    case.claimed = id("@other.example.org");
    assert!(matches!(case.refused(), Why::WrongId { .. }));
    // A certificate with the right names, by an authority with the right name, that is not ours.
    let forged = peer(&rogue, P256);
    let mut case = Case::good(&ca, &forged, ECDSA);
    assert!(matches!(case.refused(), Why::Distrust(_)));
    // The authority it sends along is not trusted for that.
    case.certificates.push(rogue.certificate.der().to_vec());
    assert!(matches!(case.refused(), Why::Distrust(_)));
    // One with the same name that it knows beforehand is not another's.
    let mut case = Case::good(&ca, &forged, ECDSA);
    case.policy().known = vec![Known::Certificate(honest.certificate.clone())];
    assert!(matches!(case.refused(), Why::BadSignature(_)));
    // Known keys are all there is: a certificate of the authority does not help another key.
    let mut case = good();
    case.policy().known = vec![Known::Key(other.certificate.key().clone())];
    assert!(matches!(case.refused(), Why::BadSignature(_)));
    // A known key says nothing about names.
    let mut case = good();
    case.policy().known = vec![Known::Key(honest.certificate.key().clone())];
    case.connection.remote_id = IdPattern::Any;
    assert!(matches!(case.refused(), Why::Nameless(_)));

    // No certificate, none at all, too few octets of one, and what is none.
    let mut case = good();
    case.certificates.clear();
    assert!(matches!(case.refused(), Why::NoCertificate(_)));
    let der = honest.certificate.der();
    for octets in [&b""[..], b"\x30\x00", &der[..der.len() - 1], &[der, &[0]].concat()] {
        case.certificates = vec![octets.to_vec()];
        assert!(matches!(case.refused(), Why::Certificate(_)));
    }
    // A connection for a shared secret alone takes no certificate, however good.
    let mut case = good();
    case.connection.remote_auth = RemoteAuth::default();
    assert!(matches!(case.refused(), Why::BadMethod(14)));
}

#[test]
fn no_trick_with_the_method_or_the_signature_makes_it_right() {
    let ca = Authority::new("C=CH, O=Example, CN=Root");
    let (honest, rsa) = (peer(&ca, P256), peer(&ca, KeyKind::Rsa));
    let good = Case::good(&ca, &honest, ECDSA);
    let (_, data) = good.method_and_data.clone();
    let with = |method: u8, data: &[u8]| {
        let mut case = Case::good(&ca, &honest, ECDSA);
        case.method_and_data = (method, data.to_vec());
        case.refused()
    };
    // Every truncation, every flipped bit, and anything behind.
    for end in 0..data.len() {
        with(14, &data[..end]);
    }
    for bit in 0..data.len() * 8 {
        let mut flipped = data.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        with(14, &flipped);
    }
    with(14, &[&data[..], &[0]].concat());
    // The same octets by another method; a signature of zeros, which old libraries took (CVE-2022-21449).
    for method in [0, 1, 2, 3, 9, 10, 11, 12, 13, 15, 255] {
        with(method, &data);
    }
    with(9, &[0; 64]);
    with(14, &encode(ECDSA, &[0x30, 6, 2, 1, 0, 2, 1, 0]).unwrap().1);
    with(14, &encode(ECDSA, &[]).unwrap().1);
    // The key of one kind, the scheme of another.
    for scheme in
        [Scheme::Ed25519, Scheme::RsaPkcs1(SignatureHash::Sha256), Scheme::RsaPss(SignatureHash::Sha256)]
    {
        let signature = honest.key.sign(ECDSA, OVER).unwrap();
        assert!(matches!(with(14, &encode(scheme, &signature).unwrap().1), Why::BadSignature(_)));
    }
    // SHA-1 is no scheme unless somebody named it, by either way to say so.
    let mut case = Case::good(&ca, &rsa, Scheme::RsaPkcs1(SignatureHash::Sha256));
    let signature = rsa.key.sign(Scheme::RsaPkcs1(SignatureHash::Sha256), OVER).unwrap();
    let sha1 = Scheme::RsaPkcs1(SignatureHash::Sha1);
    for said in [(1, signature.clone()), encode(sha1, &signature).unwrap()] {
        case.method_and_data = said;
        assert!(matches!(case.refused(), Why::Scheme(scheme) if scheme == sha1));
    }
    // And where somebody did, it is still verified.
    case.policy().schemes.rsa_sha1 = true;
    assert!(matches!(case.refused(), Why::BadSignature(_)));
}

#[test]
fn a_verification_counts_for_the_connection_it_was_made_for() {
    let ca = Authority::new("C=CH, O=Example, CN=Root");
    let case = Case::good(&ca, &peer(&ca, P256), ECDSA);
    let verified = case.outcome().unwrap();
    let same = Arc::new(case.connection.clone());
    assert!(accept(&verified, &[Arc::new(nobody()), same.clone()]).is_ok());
    // Meanwhile somebody has changed the connection: it is not for everybody any more.
    let mut changed = case.connection.clone();
    changed.remote_auth.signature.as_mut().unwrap().authorities = vec![ca.certificate.subject().clone()];
    assert!(matches!(accept(&verified, &[Arc::new(changed)]), Err(Why::NoConnection(_))));
    assert!(matches!(accept(&verified, &[]), Err(Why::NoConnection(_))));
}

#[test]
fn of_several_connections_it_is_the_first_that_all_of_it_fits() {
    let (ca, other) = (Authority::new("CN=One"), Authority::new("CN=Other"));
    let case = Case::good(&ca, &peer(&ca, P256), ECDSA);
    let mut elsewhere = case.connection.clone();
    elsewhere.name = "elsewhere".to_owned();
    elsewhere.remote_auth.signature.as_mut().unwrap().authorities = vec![other.certificate.subject().clone()];
    let candidates = vec![Arc::new(elsewhere), Arc::new(case.connection.clone())];
    let body = case.claimed.body();
    let (method, data) = &case.method_and_data;
    let claim = Claim { id: &body, method: *method, data };
    let authorities = vec![ca.certificate.clone(), other.certificate.clone()];
    let trust = (Arc::new(Trust { authorities, ..Trust::default() }), NOW);
    let run = |candidates: &[Arc<Connection>]| {
        let certificates = case.certificates.clone();
        Verification::new(candidates.to_vec(), claim, OVER.to_vec(), certificates, trust.clone())
            .unwrap()
            .run()
    };
    assert_eq!(run(&candidates).unwrap().connection.name, case.connection.name);
    let only = run(&candidates[..1]).unwrap_err();
    assert!(matches!(only, Why::Distrust(Distrust::OtherAuthority { .. })), "{only}");
}

/// Another implementation's AUTH, in the traces that `tests/traces.rs` opens: ours is the same, is believed, and is believed
/// of nobody else, with no other secret and over no other handshake.
#[test]
fn the_auth_of_every_recorded_peer_is_believed_and_no_other() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/traces");
    let mut traces = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let trace: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let octets = |key: &str| hex::decode(trace[key].as_str().unwrap()).unwrap();
        let prf = match trace["prf"].as_str().unwrap() {
            "sha1" => Prf::HmacSha1,
            "sha256" => Prf::HmacSha256,
            "sha384" => Prf::HmacSha384,
            "sha512" => Prf::HmacSha512,
            other => panic!("{other}"),
        };
        let body = |key: &str| {
            let octets = octets(key);
            IdBody { kind: octets[0], data: octets[4..].to_vec() }
        };
        let secrets = |key: Vec<u8>| Secrets {
            psks: vec![Psk { ids: Vec::new(), key: Secret::from(key) }],
            ..Secrets::default()
        };
        for (side, [init, nonce, sk_p, own, other, auth, all]) in [
            ["ike_sa_init_req", "nr", "sk_pi", "idi_body", "idr_body", "auth_i", "octets_i"],
            ["ike_sa_init_rsp", "ni", "sk_pr", "idr_body", "idi_body", "auth_r", "octets_r"],
        ]
        .into_iter()
        .enumerate()
        {
            let (init, nonce, sk_p) = (octets(init), octets(nonce), Secret::from(octets(sk_p)));
            let signed = Signed { init: &init, nonce: &nonce, sk_p: &sk_p, int_auth: b"" };
            let (id, data) = (body(own), octets(auth));
            let what = format!("{}, side {side}", path.display());
            assert_eq!(hex::encode(signed.octets(prf, &id)), hex::encode(octets(all)), "{what}");
            let psk = Secret::from(octets("psk"));
            assert_eq!(hex::encode(&*signed.shared_key(prf, &psk, &id)), hex::encode(&data), "{what}");
            let local_id = Id::from_body(&body(other)).unwrap();
            let remote_id = IdPattern::Exactly(Id::from_body(&id).unwrap());
            let connection = Connection { local_id, remote_id, ..nobody() };
            let claim = Claim { id: &id, method: SHARED_KEY, data: &data };
            let try_it = |psk: Vec<u8>, claim: Claim<'_>, signed: Signed<'_>| {
                shared_key(prf, &secrets(psk), &connection, claim, signed)
            };
            let peer = try_it(octets("psk"), claim, signed).unwrap_or_else(|why| panic!("{what}: {why}"));
            assert_eq!(Some(peer.id()), Id::from_body(&id).as_ref());
            let mut wrong = data.clone();
            wrong[0] ^= 1;
            let somebody = body(other);
            assert!(try_it(octets("psk"), Claim { data: &wrong, ..claim }, signed).is_err(), "{what}");
            assert!(try_it(octets("psk"), Claim { id: &somebody, ..claim }, signed).is_err(), "{what}");
            assert!(try_it(octets("ni"), claim, signed).is_err(), "{what}");
            assert!(try_it(octets("psk"), claim, Signed { nonce: b"another", ..signed }).is_err(), "{what}");
            traces += 1;
        }
    }
    assert_eq!(traces, 12);
}
