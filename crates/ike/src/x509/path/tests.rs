use super::*;
use crate::auth::tests::{Authority, Holder, NOW};
use ipsec_core::sign::{Curve, KeyKind};
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, CustomExtension, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, KeyUsagePurpose, NameConstraints, date_time_ymd,
};

const GATEWAY: (&str, &[&str]) = ("C=CH, O=Example, CN=west", &["@west.example.org"]);

fn gateway(ca: &Authority, change: impl FnOnce(&mut CertificateParams)) -> Holder {
    ca.issue(GATEWAY, KeyKind::Ec(Curve::P256), change)
}

fn trust(roots: &[&Authority]) -> Trust {
    Trust { authorities: roots.iter().map(|root| root.certificate.clone()).collect(), ..Trust::default() }
}

fn sent(authorities: &[&Authority]) -> Vec<Certificate> {
    authorities.iter().map(|one| (*one.certificate).clone()).collect()
}

fn path(trust: &Trust, leaf: &Holder, between: &[&Authority]) -> Result<(), Distrust> {
    trust.path(&leaf.certificate, &sent(between), &[], NOW)
}

#[test]
fn a_way_to_a_root_is_found_through_what_the_peer_sends() {
    let root = Authority::new("C=CH, O=Example, CN=Root");
    let middle = root.below("C=CH, O=Example, CN=Middle", |_| {});
    let low = middle.below("C=CH, O=Example, CN=Low", |_| {});
    let (direct, deep) = (gateway(&root, |_| {}), gateway(&low, |_| {}));
    let trust = trust(&[&root]);
    assert_eq!(path(&trust, &direct, &[]), Ok(()));
    assert_eq!(path(&trust, &deep, &[&low, &middle]), Ok(()));
    // In any order, and with what does not belong there.
    let other = Authority::new("CN=Other");
    assert_eq!(path(&trust, &deep, &[&other, &middle, &root, &low]), Ok(()));
    // What is missing is named.
    let missing = |whose: &str, issuer: &str| {
        let (whose, issuer) = (whose.to_owned(), issuer.to_owned());
        Err(Distrust::NoAuthority { whose, issuer })
    };
    assert_eq!(
        path(&trust, &deep, &[&low]),
        missing("C=CH, O=Example, CN=Low", "C=CH, O=Example, CN=Middle")
    );
    assert_eq!(path(&trust, &deep, &[]), missing("C=CH, O=Example, CN=west", "C=CH, O=Example, CN=Low"));
    assert_eq!(
        path(&Trust::default(), &direct, &[&root]),
        missing("C=CH, O=Example, CN=Root", "C=CH, O=Example, CN=Root")
    );
}

#[test]
fn certificates_and_authorities_have_their_times() {
    let root = Authority::new("CN=Root");
    let spring = |params: &mut CertificateParams| {
        (params.not_before, params.not_after) = (date_time_ymd(2026, 2, 1), date_time_ymd(2026, 4, 1));
    };
    let autumn = |params: &mut CertificateParams| {
        (params.not_before, params.not_after) = (date_time_ymd(2026, 9, 1), date_time_ymd(2026, 11, 1));
    };
    let trust_root = trust(&[&root]);
    let said = path(&trust_root, &gateway(&root, spring), &[]).unwrap_err().to_string();
    assert!(said.contains("CN=west expired at 2026-04-01T00:00:00Z"), "{said}");
    let said = path(&trust_root, &gateway(&root, autumn), &[]).unwrap_err().to_string();
    assert!(said.contains("CN=west is not valid before 2026-09-01T00:00:00Z"), "{said}");
    let valid = gateway(&root, |_| {});
    let (from, to) = valid.certificate.valid();
    for (at, good) in [(from - 1, false), (from, true), (to, true), (to + 1, false)] {
        assert_eq!(trust_root.path(&valid.certificate, &[], &[], at).is_ok(), good, "{at}");
    }
    // An authority between, and the root itself.
    let middle = root.below("CN=Middle", spring);
    let said = path(&trust_root, &gateway(&middle, |_| {}), &[&middle]).unwrap_err().to_string();
    assert!(said.contains("the certificate of CN=Middle expired"), "{said}");
    for (change, what) in [(spring as fn(&mut CertificateParams), "expired"), (autumn, "not valid before")] {
        let old = Authority::with("CN=Old", change);
        let said = path(&trust(&[&old]), &gateway(&old, |_| {}), &[]).unwrap_err().to_string();
        assert!(said.contains("CN=Old") && said.contains(what), "{said}");
    }
}

#[test]
fn nobody_signs_certificates_who_is_no_authority() {
    let root = Authority::new("CN=Root");
    let trust_root = trust(&[&root]);
    // A gateway that plays authority (basicConstraints).
    let gateway_ca = root.below("CN=Sly", |params| params.is_ca = IsCa::ExplicitNoCa);
    assert!(path(&trust_root, &gateway(&gateway_ca, |_| {}), &[&gateway_ca]).is_err());
    let silent_ca = root.below("CN=Sly", |params| params.is_ca = IsCa::NoCa);
    assert!(path(&trust_root, &gateway(&silent_ca, |_| {}), &[&silent_ca]).is_err());
    // An authority whose key is not for certificates (keyUsage).
    let no_sign = root.below("CN=Sly", |params| params.key_usages = vec![KeyUsagePurpose::DigitalSignature]);
    let said = path(&trust_root, &gateway(&no_sign, |_| {}), &[&no_sign]).unwrap_err().to_string();
    assert!(said.contains("no authority"), "{said}");
    // An authority that may have none below it (pathLenConstraint).
    let last = root.below("CN=Last", |params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)));
    assert_eq!(path(&trust_root, &gateway(&last, |_| {}), &[&last]), Ok(()));
    let beyond = last.below("CN=Beyond", |_| {});
    assert!(path(&trust_root, &gateway(&beyond, |_| {}), &[&beyond, &last]).is_err());
    // What was put among the authorities and is none.
    let stray = Authority::with("CN=Stray", |params| params.is_ca = IsCa::NoCa);
    let said = path(&trust(&[&stray]), &gateway(&stray, |_| {}), &[]).unwrap_err().to_string();
    assert!(said.contains("CN=Stray") && said.contains("no authority's"), "{said}");
    // An authority's own certificate is no gateway's.
    let said = trust_root.path(
        &root.below("CN=Middle", |params| params.key_usages.clear()).certificate,
        &[],
        &[],
        NOW,
    );
    assert!(matches!(said, Err(Distrust::Usage { .. })), "{said:?}");
}

#[test]
fn purposes_are_taken_as_peers_have_them_and_others_refused() {
    let root = Authority::new("CN=Root");
    let trust_root = trust(&[&root]);
    let for_purposes = |purposes: &[ExtendedKeyUsagePurpose]| {
        let holder = gateway(&root, |params| params.extended_key_usages = purposes.to_vec());
        path(&trust_root, &holder, &[])
    };
    let ipsec_ike = ExtendedKeyUsagePurpose::Other(vec![1, 3, 6, 1, 5, 5, 7, 3, 17]);
    for purpose in [
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
        ExtendedKeyUsagePurpose::Any,
        ipsec_ike.clone(),
    ] {
        assert_eq!(for_purposes(&[purpose]), Ok(()));
    }
    assert_eq!(for_purposes(&[]), Ok(()));
    assert_eq!(for_purposes(&[ExtendedKeyUsagePurpose::EmailProtection, ipsec_ike]), Ok(()));
    let said = for_purposes(&[ExtendedKeyUsagePurpose::EmailProtection]).unwrap_err().to_string();
    assert!(said.contains("not for IKE"), "{said}");
    // A key for certificates is none for AUTH.
    let signs = |usage: KeyUsagePurpose| {
        path(&trust_root, &gateway(&root, |params| params.key_usages = vec![usage]), &[])
    };
    assert_eq!(signs(KeyUsagePurpose::DigitalSignature), Ok(()));
    assert_eq!(signs(KeyUsagePurpose::ContentCommitment), Ok(()));
    assert!(matches!(signs(KeyUsagePurpose::KeyEncipherment), Err(Distrust::Usage { .. })));
    // What is critical and unknown ends it (RFC 5280 §4.2).
    let critical = gateway(&root, |params| {
        let mut extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99999, 1], vec![5, 0]);
        extension.set_criticality(true);
        params.custom_extensions = vec![extension];
    });
    assert!(path(&trust_root, &critical, &[]).is_err());
}

#[test]
fn an_authority_vouches_for_no_name_outside_its_constraints() {
    let within = |permitted: Vec<GeneralSubtree>, excluded: Vec<GeneralSubtree>| {
        move |params: &mut CertificateParams| {
            let constraints = NameConstraints { permitted_subtrees: permitted, excluded_subtrees: excluded };
            params.name_constraints = Some(constraints);
        }
    };
    let root = Authority::new("CN=Root");
    let dns = |name: &str| GeneralSubtree::DnsName(name.to_owned());
    let net = GeneralSubtree::IpAddress(CidrSubnet::from_v4_prefix([192, 0, 2, 0], 24));
    let own = root.below("CN=Own", within(vec![dns("example.org"), net], vec![dns("secret.example.org")]));
    let trust_root = trust(&[&root]);
    for (names, good) in [
        (&["@west.example.org"][..], true),
        (&["192.0.2.7"], true),
        (&["@west.example.org", "192.0.2.7"], true),
        (&["@west.example.com"], false),
        (&["@example.org.evil.com"], false),
        (&["@a.secret.example.org"], false),
        (&["198.51.100.7"], false),
        (&["@west.example.org", "198.51.100.7"], false),
    ] {
        let holder = own.gateway("CN=west", names);
        let found = path(&trust_root, &holder, &[&own]);
        assert_eq!(found.is_ok(), good, "{names:?}: {found:?}");
    }
    // The root's own constraints hold as well.
    let bound = Authority::with("CN=Bound", within(vec![dns("example.org")], vec![]));
    assert!(path(&trust(&[&bound]), &bound.gateway("CN=x", &["@x.example.com"]), &[]).is_err());
    assert!(path(&trust(&[&bound]), &bound.gateway("CN=x", &["@x.example.org"]), &[]).is_ok());
    // Constraints of kinds that are not computed refuse all that has such a name, never let it pass.
    let mail = GeneralSubtree::Rfc822Name("example.org".to_owned());
    let of_mail = root.below("CN=Mail", within(vec![mail], vec![]));
    assert!(path(&trust_root, &of_mail.gateway("CN=x", &["a@example.com"]), &[&of_mail]).is_err());
    let mut subtree = rcgen::DistinguishedName::new();
    subtree.push(rcgen::DnType::OrganizationName, "Example");
    let of_names = root.below("CN=Names", within(vec![GeneralSubtree::DirectoryName(subtree)], vec![]));
    assert!(
        path(&trust_root, &of_names.gateway("O=Other, CN=x", &["@x.example.org"]), &[&of_names]).is_err()
    );
}

#[test]
fn what_is_revoked_is_not_believed_and_strictness_asks_for_a_current_list() {
    let root = Authority::new("CN=Root");
    let middle = root.below("CN=Middle", |_| {});
    let (good, bad) = (gateway(&middle, |_| {}), gateway(&middle, |_| {}));
    let with = |lists: &[&Vec<u8>], strict: bool| {
        let crls = lists.iter().map(|der| Crl::from_der(der).unwrap()).collect();
        Trust { crls, strict, ..trust(&[&root]) }.in_order()
    };
    let current = middle.crl(&[bad.serial], (5, 7));
    let of_root = root.crl(&[], (5, 7));
    let check = |trust: &Trust, holder: &Holder| path(trust, holder, &[&middle]);
    assert_eq!(check(&with(&[&current], false), &good), Ok(()));
    assert!(matches!(check(&with(&[&current], false), &bad), Err(Distrust::Revoked(_))));
    // Out of date: what it revoked stays so.
    let old = middle.crl(&[bad.serial], (2, 3));
    assert_eq!(check(&with(&[&old], false), &good), Ok(()));
    assert!(matches!(check(&with(&[&old], false), &bad), Err(Distrust::Revoked(_))));
    // Strictly: a list for each step, and a current one.
    assert!(matches!(check(&with(&[], true), &good), Err(Distrust::NoRevocationList(_))));
    assert!(matches!(check(&with(&[&current], true), &good), Err(Distrust::NoRevocationList(_))));
    assert!(matches!(check(&with(&[&old, &of_root], true), &good), Err(Distrust::NoRevocationList(_))));
    let both = with(&[&old, &current, &of_root], true);
    assert_eq!(check(&both, &good), Ok(()));
    assert!(matches!(check(&both, &bad), Err(Distrust::Revoked(_))));
    // An authority that was revoked takes all below it along.
    let serial = u64::from_be_bytes({
        let read = x509_cert::Certificate::from_der(middle.certificate.der()).unwrap();
        let octets = read.tbs_certificate().serial_number().as_bytes().to_vec();
        let mut all = [0; 8];
        all[8 - octets.len()..].copy_from_slice(&octets);
        all
    });
    let revoked = with(&[&root.crl(&[serial], (5, 7))], false);
    assert!(matches!(check(&revoked, &good), Err(Distrust::Revoked(_))));
    // A list that another authority of the same name has made says nothing.
    let namesake = Authority::new("CN=Middle");
    let forged = check(&with(&[&namesake.crl(&[good.serial], (5, 7))], false), &good);
    assert!(!matches!(forged, Err(Distrust::Revoked(_))), "{forged:?}");
}

#[test]
fn the_authority_that_is_asked_for_must_be_on_the_way() {
    let (root, other) = (Authority::new("CN=Root"), Authority::new("CN=Other"));
    let middle = root.below("CN=Middle", |_| {});
    let holder = gateway(&middle, |_| {});
    let trust = trust(&[&root, &other]);
    let through = |names: &[&str]| {
        let wanted: Vec<Dn> = names.iter().map(|name| Dn::parse(name).unwrap()).collect();
        trust.path(&holder.certificate, &sent(&[&middle]), &wanted, NOW)
    };
    for good in [&[][..], &["CN=Root"], &["CN=Middle"], &["CN=Other", "CN=root"]] {
        assert_eq!(through(good), Ok(()), "{good:?}");
    }
    assert!(matches!(through(&["CN=Other"]), Err(Distrust::OtherAuthority { .. })));
    // The peer's own certificate is not its authority.
    assert!(matches!(through(&["C=CH, O=Example, CN=west"]), Err(Distrust::OtherAuthority { .. })));
}

#[test]
fn a_chain_that_costs_too_much_ends() {
    // Authorities that vouch for each other in a circle, under one name each, many times over.
    let root = Authority::new("CN=Root");
    let lost = Authority::new("CN=Lost");
    let many: Vec<Authority> = (0..9).map(|_| lost.below("CN=Lost", |_| {})).collect();
    let holder = gateway(&lost, |_| {});
    let between: Vec<&Authority> = many.iter().collect();
    assert!(path(&trust(&[&root]), &holder, &between).is_err());
}
