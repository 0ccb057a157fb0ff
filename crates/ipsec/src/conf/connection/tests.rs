//! Sections and what they become, or why they become nothing.

use super::*;
use crate::conf::Conf;
use ike::ppk::{PpkNeed, PpkPolicy};

struct At(&'static [&'static str]);

impl Here for At {
    fn has(&self, address: IpAddr) -> bool {
        self.0.iter().any(|ours| ours.parse() == Ok(address))
    }
    fn address_towards(&self, _: Option<IpAddr>) -> Option<IpAddr> {
        self.0.first()?.parse().ok()
    }
}

const WEST: At = At(&["192.0.2.1"]);
const EAST: At = At(&["198.51.100.7"]);

fn planned(body: &str, here: &dyn Here) -> Result<Vec<Planned>, String> {
    let conf = Conf::parse("f", &format!("conn a\n{body}")).unwrap_or_else(|why| panic!("{why:?}"));
    plan(&conf.conns[0], here, &mut Vec::new())
        .map_err(|all| all.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
}

const BASE: &str = "\tleft=192.0.2.1\n\tleftsubnet=10.1.0.0/16\n\tleftid=@west\n\tright=198.51.100.7\n\trightsubnet=10.2.0.0/16\n\trightid=@east\n\tauthby=secret\n";

#[test]
fn one_file_serves_both_ends() {
    let (west, east) = (planned(BASE, &WEST).unwrap().remove(0), planned(BASE, &EAST).unwrap().remove(0));
    assert_eq!(west.ike.local_address, "192.0.2.1".parse().ok());
    assert_eq!(
        (west.ike.local_address, west.ike.remote_address),
        (east.ike.remote_address, east.ike.local_address)
    );
    assert_eq!(
        (&west.ike.child.local, &west.ike.child.remote),
        (&east.ike.child.remote, &east.ike.child.local)
    );
    assert_eq!(west.ike.remote_id, IdPattern::Exactly(east.ike.local_id));
    let nobody = planned(BASE, &At(&["203.0.113.1"])).unwrap_err();
    assert!(nobody.contains("neither 192.0.2.1 nor 198.51.100.7"), "{nobody}");
    let both = planned(BASE, &At(&["192.0.2.1", "198.51.100.7"])).unwrap_err();
    assert!(both.contains("both ends"), "{both}");
}

#[test]
fn each_pair_of_subnets_is_a_connection() {
    let body = BASE.replace("leftsubnet=10.1.0.0/16", "leftsubnets={10.1.0.0/24 10.1.1.0/24}");
    let all = planned(&body, &WEST).unwrap();
    let names: Vec<&str> = all.iter().map(|one| one.ike.name.as_str()).collect();
    assert_eq!(names, ["a/1x1", "a/2x1"]);
    assert!(all.iter().all(|one| one.ike.child.local.len() == 1));
}

#[test]
fn several_subnets_in_one_setting_are_the_selectors_of_one_connection() {
    let body = BASE.replace("leftsubnet=10.1.0.0/16", "leftsubnet=10.1.0.0/24,10.1.1.0/24,fd00:1::/64");
    let body = body.replace("rightsubnet=10.2.0.0/16", "rightsubnet={10.2.0.0/16 fd00:2::/64}");
    let all = planned(&body, &WEST).unwrap();
    let [one] = &all[..] else { panic!("{all:?}") };
    assert_eq!((one.ike.name.as_str(), one.ike.child.local.len(), one.ike.child.remote.len()), ("a", 3, 2));
    // Both ways of writing: each subnet of the one side with all of the other.
    let mixed = body.replace("leftsubnet=", "leftsubnets=").replace(",fd00:1::/64", "");
    let mixed = planned(&mixed.replace(" fd00:2::/64", ""), &WEST).unwrap();
    let shape: Vec<_> = mixed.iter().map(|one| (one.ike.name.as_str(), one.ike.child.local.len())).collect();
    assert_eq!(shape, [("a/1x1", 1), ("a/2x1", 1)]);

    let nets = |third: u8| (0..9).map(|n| format!("10.{third}.{n}.0/24")).collect::<Vec<_>>().join(",");
    let many = BASE.replace("10.1.0.0/16", &nets(1)).replace("10.2.0.0/16", &nets(2));
    let why = planned(&many, &WEST).unwrap_err();
    assert!(why.contains("more than 64 pairs") && why.contains("leftsubnets="), "{why}");
    let why = planned(&body.replace("{10.2.0.0/16 fd00:2::/64}", "10.2.0.0/16"), &WEST).unwrap_err();
    assert!(why.contains("different families"), "{why}");
    let why = planned(&body.replace("10.1.1.0/24", "10.1.0.9/24"), &WEST).unwrap_err();
    assert!(why.contains("twice"), "{why}");
}

#[test]
fn a_host_without_a_subnet_is_itself_and_a_peer_that_roams_is_anybody() {
    let road = planned("\tleft=%defaultroute\n\tleftid=@gw\n\tleftsubnet=10.1.0.0/16\n\tright=%any\n", &WEST);
    let road = road.unwrap().remove(0).ike;
    assert_eq!((road.local_address, road.remote_address), ("192.0.2.1".parse().ok(), None));
    assert_eq!(road.remote_id, IdPattern::Any);
    assert!(road.child.remote.is_empty());
    let host = planned("\tleft=192.0.2.1\n\tright=198.51.100.7\n", &WEST).unwrap().remove(0).ike;
    assert_eq!(host.child.local, [TrafficSelector::of("192.0.2.1/32".parse().unwrap(), 0, 0)]);
    assert_eq!(host.local_id, Id::Address("192.0.2.1".parse().unwrap()));
}

#[test]
fn transport_mode_is_between_the_hosts_of_their_protocol_and_ports() {
    let hosts = |body: &str| {
        planned(&format!("\tleft=192.0.2.1\n\ttype=transport\n{body}"), &WEST)
            .map(|mut all| all.remove(0).ike.child)
    };
    let ts = |net: &str, port| TrafficSelector::of(net.parse().unwrap(), 6, port);
    let known = hosts("\tright=198.51.100.7\n\tleftprotoport=tcp\n\trightprotoport=tcp/443\n").unwrap();
    assert_eq!(known.mode, Mode::Transport);
    assert_eq!((known.local, known.remote), (vec![ts("192.0.2.1/32", 0)], vec![ts("198.51.100.7/32", 443)]));
    let anybody = hosts("\tright=%any\n\tleftprotoport=tcp/443\n\trightprotoport=tcp/99\n").unwrap();
    assert_eq!((anybody.local, anybody.remote), (vec![ts("192.0.2.1/32", 443)], vec![]));
    assert_eq!(anybody.upper, Upper { protocol: 6, local: (443, 443), remote: (99, 99) });
    let some = hosts("\tright=%any\n\trightprotoport=udp/5000-5003\n").unwrap();
    assert_eq!((some.upper.local, some.upper.remote), (TrafficSelector::ALL_PORTS, (5000, 5003)));
    let why = hosts("\tright=198.51.100.7\n\trightprotoport=udp/5000-5003\n").unwrap_err();
    assert!(why.contains("or type=tunnel"), "{why}");
    // The same address once more says nothing new.
    assert!(hosts("\tright=198.51.100.7\n\tleftsubnet=192.0.2.1/32\n").is_ok());
    let why = hosts("\tright=%any\n\trightsubnet=198.51.100.7/32\n").unwrap_err();
    assert!(why.contains("[rightsubnet=198.51.100.7/32]"), "{why}");
    let why = hosts("\tright=%any\n\trightaddresspool=10.9.0.0/24\n").unwrap_err();
    assert!(why.contains("[rightaddresspool=10.9.0.0/24]"), "{why}");
}

#[test]
fn what_is_wrong_is_said_at_its_line_with_the_remedy() {
    for (line, what) in [
        ("leftauth=rsasig", "leftcert="),
        ("leftauth=rsasig,nonsense", "value must be secret"),
        ("leftauth=never", "not let in"),
        ("leftcert=none-such.pem", "there is no file"),
        ("leftrsasigkey=%dns", "DNS"),
        ("leftrsasigkey=0sAQIDBA==", "a key of a kind"),
        ("rightauth=rsasig\n\trightca=%same", "leftcert="),
        ("rightid=a*b", "a * stands for"),
        ("ike=aes512-sha2_256-modp2048", "unknown algorithm"),
        ("esp=aes_gcm256-sha2_256", "takes no other"),
        ("keylife=soon", "must be a time"),
        ("type=transport", "remove it, or type=tunnel [leftsubnet=10.1.0.0/16]"),
        ("type=transport\n\tleftsourceip=%config", "no addresses are given in transport mode"),
        ("tfc=65536", "octets up to 65535, %mtu or no"),
        ("tfc=yes", "octets up to 65535, %mtu or no"),
        (
            "type=transport\n\tleftsubnet=192.0.2.1\n\trightsubnet=198.51.100.7\n\ttfc=1200",
            "only what is in a tunnel",
        ),
        ("type=transparent", "tunnel or transport"),
        (
            "right=198.51.100",
            "write 198.51.100.N, or for the network 198.51.100.0/24 in subnet= [right=198.51.100]",
        ),
        ("right=10", "write 10.N, or for the network 10.0.0.0/8"),
        ("right=198.51.100.256", "numbers from 0 to 255"),
        ("right=198.51.0144.7", "without zeros in front"),
        ("right=0xc6336407", "has four parts"),
        ("right=198.51.100.7.", "has four parts"),
        ("auto=sometimes", "ignore, add, route"),
        ("keyexchange=ikev1", "IKEv1"),
        ("compress=yes", "IPComp"),
        ("rekeymargin=2h", "shorter than"),
        ("leftprotoport=foo/bar", "PROTOCOL/PORT"),
        ("leftprotoport=tcp/8010-8000", "write 8000-8010"),
        ("leftprotoport=tcp/22\n\trightprotoport=udp", "name the same"),
        ("leftprotoport=tcp/1-9\n\trightprotoport=tcp/1-9", "more than 64 pairs"),
        ("pq=perhaps", "no, allow or require"),
        ("replay-window=9999", "4096"),
        ("esn=perhaps", "either"),
    ] {
        let said = planned(&format!("{BASE}\t{line}\n"), &WEST).unwrap_err();
        assert!(said.contains(what) && said.starts_with("f:"), "{line}: {said}");
    }
}

#[test]
fn packets_are_padded_as_is_said() {
    let pad = |word: &str| planned(&format!("{BASE}\ttfc={word}\n"), &WEST).unwrap().remove(0).ike.child.pad;
    assert_eq!(["0", "no", "1", "65535"].map(pad), [None, None, Some(Pad::To(1)), Some(Pad::To(u16::MAX))]);
    assert!(["%mtu", "%pmtu"].into_iter().all(|word| pad(word) == Some(Pad::Path)));
    assert_eq!(planned(BASE, &WEST).unwrap().remove(0).ike.child.pad, None);
}

#[test]
fn a_name_may_have_digits_and_what_ends_in_a_number_is_no_name() {
    let named = |word: &str| {
        let conf = Conf::parse("f", &format!("conn a\n\tleft=%defaultroute\n\tright={word}\n")).unwrap();
        names(&conf.conns[0]).count() == 1
    };
    assert!(
        ["7.example.org", "gate7", "10.0.0.x", "0xgate.example", "10.in-addr.arpa."].into_iter().all(named)
    );
    assert!(!["198.51.100", "198.51.100.", "3325256711", "0xc6.1.0x7", "192.0.2.1"].into_iter().any(named));
}

#[test]
fn what_has_no_effect_is_said() {
    let conf = Conf::parse("f", &format!("conn a\n{BASE}\tnarrowing=yes\n")).unwrap();
    let mut warnings = Vec::new();
    plan(&conf.conns[0], &WEST, &mut warnings).unwrap();
    assert_eq!(
        warnings.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["f:9: parameter has no effect yet [narrowing]"]
    );
    // Of a word that asks for nothing there is nothing to say.
    let said = |words: &str| {
        let conf = Conf::parse("f", &format!("conn a\n{BASE}\t{words}\n")).unwrap();
        let mut warnings = Vec::new();
        let errors = plan(&conf.conns[0], &WEST, &mut warnings).err().unwrap_or_default();
        errors.iter().chain(&warnings).map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    for key in ["overlapip", "nopmtudisc", "leftfirewall", "rightxauthclient"] {
        assert_eq!(said(&format!("{key}=yes")), format!("f:9: parameter has no effect [{key}]"));
        assert_eq!(said(&format!("{key}=no")), "");
    }
    assert_eq!(said("leftnexthop=%defaultroute\n\tphase2=ESP\n\tsha2_truncbug=no"), "");
    assert!(said("phase2=ah").contains("phase2=esp [phase2=ah]"));
    assert!(said("sha2-truncbug=yes").contains("RFC 4868"));
    let ppk = |words: &str| planned(&format!("{BASE}\t{words}\n"), &WEST).map(|all| all[0].ike.ppk.clone());
    let (need, ids) = (PpkNeed::Insist, vec![b"one".to_vec(), b"two".to_vec()]);
    assert_eq!(ppk("ppk=insist\n\tppk-ids=one,two").unwrap(), PpkPolicy { need, ids });
    assert_eq!(ppk("ppk=propose").unwrap().need, PpkNeed::Propose);
    assert_eq!(ppk("ppk=never").unwrap(), PpkPolicy::default());
    assert!(
        ppk("ppk=perhaps").is_err() && ppk("ppk-ids=one").is_err() && ppk("ppk=yes\n\tppk-ids=,").is_err()
    );
}

#[test]
fn what_is_said_is_meant() {
    let body = format!(
        "{BASE}\tike=aes256-sha2_256-modp2048\n\tpfs=no\n\tikelifetime=8h\n\tsalifetime=30m\n\trekeymargin=5m\n\tdpddelay=0\n\t\
         encapsulation=yes\n\tkeyingtries=3\n\tdpdaction=restart\n\treplay-window=64\n\tesn=no\n\tleftsourceip=10.1.0.1\n\tauto=ondemand\n\tmetric=7\n"
    );
    let one = planned(&body, &WEST).unwrap().remove(0);
    assert_eq!((one.auto, one.source, one.metric), (Auto::Route, "10.1.0.1".parse().ok(), 7));
    let ike = one.ike;
    assert_eq!(ike.times.child_life, Duration::from_secs(1800));
    assert_eq!((ike.times.liveness, ike.attempts, ike.when_gone), (None, Some(3), WhenGone::Restart));
    assert_eq!((ike.encapsulation, ike.child.replay_window), (Encapsulation::Yes, 64));
    assert!(ike.child.offers.iter().all(|offer| offer.groups.is_empty() && offer.esn == [false]));
    let pfs = planned(&format!("{BASE}\tike=aes256-sha2_256-modp2048\n"), &WEST).unwrap().remove(0).ike;
    assert!(pfs.child.offers.iter().all(|offer| offer.groups == [Group::Modp2048]));
    // The peer may have agreed to any of them.
    let two =
        format!("{BASE}\tike=aes256-sha2_256-modp2048,aes256-sha2_256-x25519,aes128-sha2_256-modp2048\n");
    let two = planned(&two, &WEST).unwrap().remove(0).ike;
    assert!(two.child.offers.iter().all(|offer| offer.groups == [Group::Modp2048, Group::X25519]));
}

#[test]
fn what_config_setup_says_of_identities_each_connection_may_say_otherwise() {
    for (setup, own, unique) in [
        ("", "", true),
        ("\tuniqueids=no\n", "", false),
        ("\tuniqueids=yes\n", "\tinitial-contact=no\n", false),
        ("\tuniqueids=no\n", "\tinitial_contact=yes\n", true),
    ] {
        let conf = Conf::parse("f", &format!("config setup\n{setup}conn a\n{BASE}{own}")).unwrap();
        let all = plan(&conf.conns[0], &WEST, &mut Vec::new()).unwrap();
        assert_eq!(all[0].ike.unique, unique, "{setup}{own}");
    }
}

#[test]
fn values_that_are_none_are_not_taken_for_the_default() {
    for (line, needs) in [
        ("retransmit-interval=soon", "value must be a time"),
        ("rightikeport=0", "1 to 65535"),
        ("keyexchange=ikev3", "value must be ikev2"),
        ("ikev2=maybe", "value must be ikev2"),
        ("compress=much", "value must be yes or no"),
        ("leftmodecfgclient=perhaps", "value must be yes or no"),
    ] {
        let why = planned(&format!("{BASE}\t{line}\n"), &WEST).unwrap_err();
        assert!(why.contains(needs) && why.contains(line), "{line}: {why}");
    }
}

#[test]
fn addresses_are_asked_for_and_given() {
    let gateway = "\tleft=192.0.2.1\n\tleftsubnet=10.1.0.0/16\n\tleftid=@gw\n\tright=%any\n";
    let pool = "\trightaddresspool=10.9.0.0/24,2001:db8:9::/112\n\tmodecfgdns=\"10.1.0.53 2001:db8::53\"\n\tmodecfgdomains=corp.example.org\n";
    let one = planned(&format!("{gateway}{pool}"), &WEST).unwrap().remove(0).ike;
    let provision = one.provision.expect("a pool");
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    assert_eq!(provision.pools[0], (ip("10.9.0.1"), ip("10.9.0.254")));
    assert_eq!(provision.dns, [ip("10.1.0.53"), ip("2001:db8::53")]);
    assert_eq!(provision.domains, ["corp.example.org"]);
    assert_eq!(provision.subnets, ["10.1.0.0/16".parse().unwrap()]);
    assert!(one.child.remote.is_empty() && one.request.is_none());
    let road =
        "\tleft=%defaultroute\n\tleftsourceip=%config\n\tright=198.51.100.7\n\trightsubnet=0.0.0.0/0\n";
    let one = planned(road, &WEST).unwrap().remove(0);
    let request = one.ike.request.expect("a request");
    assert_eq!((request.ipv4, request.ipv6, one.source), (true, false, None));
    assert!(one.ike.child.local.is_empty());
    let both =
        planned(&road.replace("0.0.0.0/0", "0.0.0.0/0,::/0").replace("rightsubnet", "rightsubnets"), &WEST)
            .unwrap();
    assert!(both.len() == 2 && both.iter().all(|one| one.ike.request.is_some_and(|r| r.ipv4 && r.ipv6)));
    for (body, what) in [
        (format!("{gateway}\trightaddresspool=10.9.0.9-10.9.0.1\n"), "FIRST-LAST"),
        (format!("{gateway}\trightaddresspool=everybody\n"), "FIRST-LAST"),
        (format!("{gateway}{pool}\trightsubnet=10.3.0.0/24\n"), "remove their subnet"),
        (format!("{gateway}\tleftmodecfgserver=yes\n"), "rightaddresspool="),
        (format!("{gateway}{}", pool.replace("corp.example.org", "corp;reboot")), "corp;reboot"),
        (format!("{gateway}{}", pool.replace("10.1.0.53", "dns")), "an address"),
        (format!("{road}\tleftsubnet=10.1.0.0/16\n"), "remove its subnet"),
        (road.replace("%config", "%dhcp"), "%config"),
    ] {
        let said = planned(&body, &WEST).unwrap_err();
        assert!(said.contains(what), "{body}: {said}");
    }
}

#[test]
fn post_quantum_is_offered_or_insisted_on() {
    let of = |word: &str| planned(&format!("{BASE}\tpq={word}\n"), &WEST).unwrap().remove(0).ike.ike;
    let hybrid = |offer: &Offer| offer.additional == [[Some(Group::MlKem768)]];
    assert!(!of("no").iter().any(hybrid));
    assert!(of("require").iter().all(hybrid));
    let both = of("allow");
    assert!(hybrid(&both[0]) && !hybrid(both.last().unwrap()));
}
