use super::*;
use ipsec_core::algorithm::{Auth, Encryption};
use klips::Encapsulation;

fn row() -> SaRow {
    SaRow {
        id: "esp0x12345678@192.1.2.45".parse().unwrap(),
        src: "192.1.2.23".parse().unwrap(),
        direction: Direction::Inbound,
        state: SaState::Mature,
        flags: 0x4000,
        mode: Mode::Tunnel,
        encryption: Some(Encryption::AesCbc),
        auth: Some(Auth::HmacSha1),
        encryption_key: 16,
        auth_key: 20,
        selector: None,
        encapsulation: None,
        in_use: true,
        esn: false,
        window: 64,
        sent: 0,
        received: 8,
        packets: 8,
        path_mtu: None,
        more_selectors: None,
        packet_limits: Default::default(),
        tfc: Default::default(),
        hidden: (0, 0),
        refused: Vec::new(),
        current: Lifetime { allocations: 1, bytes: 992, addtime: 1_000_000, usetime: 1_000_002 },
        soft: Lifetime::default(),
        hard: Lifetime { addtime: 86400, ..Lifetime::default() },
        added: Time::from_secs(100),
        last_use: Some(Time::from_secs(108)),
        pair: None,
        group: None,
        src_identity: "".into(),
        dst_identity: "".into(),
    }
}

#[test]
fn an_inbound_sa_reads_as_klips_wrote_it() {
    assert_eq!(
        line(&row(), Time::from_secs(110), Form::Klips),
        "esp0x12345678@192.1.2.45 ESP_AES_HMAC_SHA1: dir=in  src=192.1.2.23 iv_bits=128bits ooowin=64 seq=8 \
         alen=160 aklen=160 eklen=128 life(c,s,h)=bytes(992,0,0)addtime(10,0,86400)usetime(8,0,0)packets(8,0,0) \
         idle=2 natencap=none natsport=0 natdport=0 refcount=1 ref=0\n"
    );
}

#[test]
fn an_unused_outbound_sa_shows_no_zeros() {
    let mut sa = row();
    sa.direction = Direction::Outbound;
    sa.encryption = Some(Encryption::AesGcm16);
    sa.auth = None;
    (sa.encryption_key, sa.auth_key) = (20, 0);
    sa.flags = 0x8000 | 0x2_0000;
    sa.window = 0;
    sa.packets = 0;
    sa.current = Lifetime { allocations: 1, addtime: 1_000_000, ..Lifetime::default() };
    sa.hard = Lifetime::default();
    sa.last_use = None;
    sa.selector =
        Some(ipsec_core::Selector::nets("10.1.0.0/16".parse().unwrap(), "10.2.0.0/16".parse().unwrap()));
    sa.encapsulation = Some(Encapsulation { local: 4500, remote: 4501 });
    let name = transform(&sa);
    assert_eq!(
        line(&sa, Time::from_secs(100), Form::Man),
        format!(
            "esp0x12345678@192.1.2.45 {name}: dir=out src=192.1.2.23 policy=10.1.0.0/16->10.2.0.0/16 iv_bits=64bits \
             flags=0x20000<> eklen=128 life(c,s,h)= natencap=nonesp natsport=4500 natdport=4501 refcount=1 ref=0\n"
        )
    );
}

#[test]
fn a_dying_sa_says_so_and_a_group_line_ends_in_a_blank() {
    let mut sa = row();
    sa.state = SaState::Dying;
    assert!(line(&sa, Time::from_secs(100), Form::Klips).ends_with(" state=dying\n"));
    assert_eq!(group(&sa.id, None, Form::Klips).unwrap(), "esp0x12345678@192.1.2.45 \n");
    let ids: Vec<SaId> = ["tun0x1000", "comp0x1001", "esp0x1002"]
        .map(|name| format!("{name}@192.1.2.45").parse().unwrap())
        .into();
    let lines = |form| ids.iter().filter_map(|id| group(id, Some(&ids), form)).collect::<Vec<_>>();
    let whole = "tun0x1000@192.1.2.45 comp0x1001@192.1.2.45 esp0x1002@192.1.2.45 \n";
    assert_eq!(lines(Form::Man), [whole]);
    // The kernel had a line for each SA: itself and what is outside of it.
    assert_eq!(
        lines(Form::Klips),
        [whole, "comp0x1001@192.1.2.45 esp0x1002@192.1.2.45 \n", "esp0x1002@192.1.2.45 \n"]
    );
    assert_eq!(lines(Form::Json).len(), 1);
}

#[test]
fn json_has_the_same_facts_in_numbers() {
    let object: Value = serde_json::from_str(&line(&row(), Time::from_secs(110), Form::Json)).unwrap();
    assert_eq!(object["spi"], 0x1234_5678);
    assert_eq!(object["current"]["usetime"], 8);
    assert_eq!(object["hard"]["addtime"], 86400);
    assert_eq!(object["encryption"], "aes-cbc");
    assert!(object["path_mtu"].is_null());
}

#[test]
fn a_path_mtu_is_shown_until_it_is_forgotten() {
    let sa = SaRow { path_mtu: Some((1400, Time::from_secs(110))), ..row() };
    for (now, shown) in [(109, json!(1400)), (110, json!(null))] {
        let object: Value = serde_json::from_str(&line(&sa, Time::from_secs(now), Form::Json)).unwrap();
        assert_eq!(object["path_mtu"], shown);
    }
}

#[test]
fn what_was_refused_has_the_names_klips_gave_it_and_all_of_it_is_in_json() {
    let mut sa = row();
    sa.refused = vec![
        (Discard::Short, 6),
        (Discard::ReplayOld, 2),
        (Discard::Replayed, 3),
        (Discard::Forged, 4),
        (Discard::BadPadding, 5),
        (Discard::PolicyMismatch, 7),
    ];
    let text = line(&sa, Time::from_secs(110), Form::Klips);
    assert!(text.contains(" ooowin=64 ooo_errs=2 ooo_dups=3 seq=8 "), "{text}");
    assert!(
        text.contains(" aklen=160 auth_errs=4 eklen=128 encr_size_errs=6 encr_pad_errs=5 life(c,s,h)="),
        "{text}"
    );
    let object: Value = serde_json::from_str(&line(&sa, Time::from_secs(110), Form::Json)).unwrap();
    assert_eq!(object["refused"]["forged"], 4);
    assert_eq!(object["refused"]["policy_mismatch"], 7);
    assert_eq!(object["refused"].as_object().unwrap().len(), 6);
}
