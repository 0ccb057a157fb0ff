use super::*;

fn gcm() -> Offer {
    Offer {
        encryption: vec![(Encryption::AesGcm16, 256), (Encryption::AesGcm16, 128)],
        prf: vec![Prf::HmacSha384, Prf::HmacSha256],
        groups: vec![Group::X25519, Group::Ecp256],
        ..Offer::default()
    }
}

fn cbc() -> Offer {
    Offer {
        encryption: vec![(Encryption::AesCbc, 256)],
        integrity: vec![Auth::HmacSha256],
        prf: vec![Prf::HmacSha256],
        groups: vec![Group::Modp2048],
        ..Offer::default()
    }
}

#[test]
fn our_preference_decides_among_what_the_peer_offers() {
    let mut theirs = gcm();
    theirs.encryption.reverse();
    theirs.groups.reverse();
    let theirs = theirs.proposal(3, Protocol::Ike, vec![]);
    let chosen = gcm().choose(&theirs).unwrap();
    assert_eq!(chosen.encryption, Some((Encryption::AesGcm16, 256)));
    assert_eq!(chosen.group, Some(Group::X25519));
    assert_eq!((chosen.number, chosen.integrity), (3, None));
    assert_eq!(chosen.encryption_octets(), 36);
    let answer = chosen.proposal(Protocol::Ike, vec![]);
    assert_eq!(gcm().confirm(3, &answer).unwrap(), chosen);
    assert_eq!(gcm().confirm(2, &answer), None, "another number than the one we offered");
    assert_eq!(gcm().confirm(3, &theirs), None, "more than one of a kind is no choice");
}

#[test]
fn where_nothing_is_common_the_kinds_are_named() {
    let theirs = [cbc().proposal(1, Protocol::Ike, vec![])];
    assert_eq!(choose(&[cbc()], &theirs, Protocol::Ike).unwrap().0, 0);
    assert_eq!(choose(&[gcm(), cbc()], &theirs, Protocol::Ike).unwrap().0, 1);
    let only_group = Offer { groups: vec![Group::Ecp384], ..cbc() };
    assert_eq!(choose(&[only_group], &theirs, Protocol::Ike).err(), Some(vec![Kind::KeyExchange]));
    assert_eq!(choose(&[cbc()], &theirs, Protocol::Esp).err(), Some(vec![]));
}

#[test]
fn integrity_none_beside_a_combined_mode_is_as_good_as_none_at_all() {
    let mut theirs = gcm().proposal(1, Protocol::Ike, vec![]);
    theirs.transforms.push(Transform { kind: Kind::Integrity, number: 0, key_bits: None });
    assert!(gcm().choose(&theirs).is_some());
    theirs.transforms.retain(|t| t.number != 0);
    theirs.transforms.push(Transform { kind: Kind::Integrity, number: 12, key_bits: None });
    assert_eq!(gcm().meet(&theirs).err(), Some(vec![Kind::Integrity]));
}

#[test]
fn a_child_without_pfs_is_not_chosen_where_pfs_is_asked_and_the_other_way_round() {
    let plain =
        Offer { encryption: vec![(Encryption::AesGcm16, 128)], esn: vec![true, false], ..Offer::default() };
    let pfs = Offer { groups: vec![Group::X25519], ..plain.clone() };
    let propose = |offer: &Offer| offer.proposal(1, Protocol::Esp, vec![0, 0, 1, 0]);
    assert!(plain.choose(&propose(&plain)).unwrap().esn);
    assert_eq!(plain.meet(&propose(&pfs)).err(), Some(vec![Kind::KeyExchange]));
    assert_eq!(pfs.meet(&propose(&plain)).err(), Some(vec![Kind::KeyExchange]));
    // No word of ESN is no ESN.
    let mut silent = propose(&plain);
    silent.transforms.retain(|t| t.kind != Kind::Esn);
    assert!(!plain.choose(&silent).unwrap().esn);
    let esn_only = Offer { esn: vec![true], ..plain };
    assert_eq!(esn_only.meet(&silent).err(), Some(vec![Kind::Esn]));
}

#[test]
fn additional_key_exchanges_are_chosen_in_their_places_and_cannot_be_left_out_where_they_must_be() {
    let hybrid = Offer { additional: vec![vec![Some(Group::MlKem768)]], ..gcm() };
    let lenient = Offer { additional: vec![vec![Some(Group::MlKem768), None]], ..gcm() };
    let propose = |offer: &Offer| offer.proposal(1, Protocol::Ike, vec![]);
    assert_eq!(hybrid.choose(&propose(&lenient)).unwrap().additional, [Group::MlKem768]);
    assert_eq!(hybrid.meet(&propose(&gcm())).err(), Some(vec![Kind::Additional(1)]));
    assert!(lenient.choose(&propose(&gcm())).unwrap().additional.is_empty());
    assert_eq!(gcm().meet(&propose(&hybrid)).err(), Some(vec![Kind::Additional(1)]));
    assert!(gcm().choose(&propose(&lenient)).is_some());
}

#[test]
fn a_proposal_reads_as_people_write_it() {
    let text = gcm().proposal(1, Protocol::Ike, vec![]).to_string();
    assert_eq!(text, "aes-gcm16_256+aes-gcm16_128-prfsha384+prfsha256-x25519+ecp256");
}
