//! What only a peer that breaks the rules would send, for which two honest engines are no test.

use super::*;
use crate::connection::{ChildPolicy, Connection, Encapsulation, Mode, Times, WhenGone};
use crate::identity::{Id, IdPattern};
use crate::job::Answer;
use crate::keys::{IkeKeys, Seed};
use crate::message::{Flags, Header, IkeSpi, TrafficSelector};
use crate::outbox::{Config, Outbox, Random};
use crate::proposal::{Offer, Protocol};
use crate::sa::{Handshake, Stage};
use ipsec_core::algorithm::Encryption;
use ipsec_core::kex::Group;
use ipsec_core::prf::Prf;
use ipsec_core::{Secret, Time};

struct Count(u8);

impl Random for Count {
    fn fill(&mut self, octets: &mut [u8]) {
        for octet in octets {
            self.0 = self.0.wrapping_add(1);
            *octet = self.0;
        }
    }
}

fn net(text: &str) -> TrafficSelector {
    TrafficSelector::of(text.parse().unwrap(), 0, 0)
}

pub(crate) fn connection() -> Connection {
    let gcm = vec![(Encryption::AesGcm16, 128)];
    Connection {
        name: "net".to_owned(),
        local_address: None,
        remote_address: None,
        remote_port: 500,
        local_id: Id::parse("@us").unwrap(),
        remote_id: IdPattern::Any,
        local_auth: Default::default(),
        remote_auth: Default::default(),
        ppk: Default::default(),
        ike: vec![Offer {
            encryption: gcm.clone(),
            prf: vec![Prf::HmacSha256],
            groups: vec![Group::X25519],
            additional: vec![vec![Some(Group::MlKem768)]],
            ..Offer::default()
        }],
        child: ChildPolicy {
            offers: vec![Offer { encryption: gcm, esn: vec![false], ..Offer::default() }],
            mode: Mode::Tunnel,
            local: vec![net("10.1.0.0/16")],
            remote: vec![net("10.2.0.0/16")],
            upper: Default::default(),
            replay_window: 64,
            pad: None,
        },
        times: Times::default(),
        encapsulation: Encapsulation::Auto,
        fragmentation: true,
        attempts: None,
        when_gone: WhenGone::Clear,
        unique: true,
        mobike: false,
        childless: false,
        reauthenticate: false,
        provision: None,
        request: None,
    }
}

fn ike_sa(stage: Stage) -> IkeSa {
    let ends = ("192.0.2.1:500".parse().unwrap(), "192.0.2.2:500".parse().unwrap());
    IkeSa::new(IkeSpi(1), false, ends, stage, Time::ZERO)
}

fn message(exchange: Exchange, payloads: Vec<Payload>) -> Message {
    let flags = Flags { initiator: true, response: false };
    Message { header: Header { spi_i: IkeSpi(2), spi_r: IkeSpi(1), exchange, flags, id: 1 }, payloads }
}

#[test]
fn a_responder_that_widens_what_was_asked_is_not_believed() {
    let (sa, connection) = (ike_sa(Stage::Closed), connection());
    let grant = |ts_i: &str, ts_r: &str| {
        let proposal = connection.child.offers[0].proposal(1, Protocol::Esp, vec![0, 0, 0x10, 0]);
        let payloads =
            vec![Payload::Sa(vec![proposal]), Payload::TsI(vec![net(ts_i)]), Payload::TsR(vec![net(ts_r)])];
        child::confirm(&sa, &message(Exchange::IkeAuth, payloads), &connection, false).is_ok()
    };
    assert!(grant("10.1.0.0/16", "10.2.0.0/16"));
    assert!(grant("10.1.7.0/24", "10.2.0.1/32"));
    assert!(!grant("10.1.0.0/16", "0.0.0.0/0"));
    assert!(!grant("10.0.0.0/8", "10.2.0.0/16"));
    assert!(!grant("10.2.0.0/16", "10.1.0.0/16"));
}

#[test]
fn a_responder_that_narrows_to_ports_that_cannot_be_kept_to_is_refused_by_name() {
    let (sa, connection) = (ike_sa(Stage::Closed), connection());
    let grant = |ports: (u16, u16)| {
        let proposal = connection.child.offers[0].proposal(1, Protocol::Esp, vec![0, 0, 0x10, 0]);
        let ts = TrafficSelector { protocol: 6, ports, ..net("10.2.0.0/16") };
        let payloads =
            vec![Payload::Sa(vec![proposal]), Payload::TsI(vec![net("10.1.0.0/16")]), Payload::TsR(vec![ts])];
        child::confirm(&sa, &message(Exchange::IkeAuth, payloads), &connection, false)
    };
    assert!(grant((8000, 8063)).is_ok());
    let why = grant((1024, u16::MAX)).err().map(|why| why.to_string()).unwrap_or_default();
    assert!(why.contains("ports 1024 to 65535"), "{why}");
}

#[test]
fn what_is_sent_is_padded_where_the_peer_takes_it_and_the_mode_has_room_for_it() {
    use crate::connection::Pad;
    use crate::message::NotifyKind::{self, EspTfcPaddingNotSupported, UseTransportMode};
    let (sa, mut connection) = (ike_sa(Stage::Closed), connection());
    connection.child.pad = Some(Pad::To(1200));
    let said = |connection: &Connection, more: &[NotifyKind], ours: bool| {
        let proposal = connection.child.offers[0].proposal(1, Protocol::Esp, vec![0, 0, 0x10, 0]);
        let (here, there) = if connection.child.mode == Mode::Transport {
            (net("192.0.2.1/32"), net("192.0.2.2/32"))
        } else {
            (net("10.1.0.0/16"), net("10.2.0.0/16"))
        };
        let ts = if ours { (here, there) } else { (there, here) };
        let mut payloads =
            vec![Payload::Sa(vec![proposal]), Payload::TsI(vec![ts.0]), Payload::TsR(vec![ts.1])];
        payloads.extend(more.iter().map(|kind| crate::sa::notify(*kind)));
        message(Exchange::IkeAuth, payloads)
    };
    let pads = |connection: &Connection, more: &[NotifyKind]| {
        let granted = child::confirm(&sa, &said(connection, more, true), connection, false).unwrap();
        let asked = child::choose(&sa, &said(connection, more, false), connection, false).unwrap();
        assert_eq!(granted.pad(connection), asked.pad(connection), "the same in both roles");
        granted.pad(connection)
    };
    assert_eq!(pads(&connection, &[]), Some(Pad::To(1200)));
    assert_eq!(pads(&connection, &[EspTfcPaddingNotSupported]), None);
    let tells = |connection: &Connection| {
        let asks = child::offer(&sa, connection, 0x1000, false, None);
        let more: &[NotifyKind] =
            if connection.child.mode == Mode::Transport { &[UseTransportMode] } else { &[] };
        let agreed = child::choose(&sa, &said(connection, more, false), connection, false).unwrap();
        let no = crate::sa::notify(EspTfcPaddingNotSupported);
        let told = [asks, child::grant(&agreed, 0x1000)].map(|payloads| payloads.contains(&no));
        assert_eq!(told[0], told[1]);
        told[0]
    };
    assert!(!tells(&connection), "in a tunnel we take what comes");
    connection.child.mode = Mode::Transport;
    assert_eq!(pads(&connection, &[UseTransportMode]), None);
    assert!(tells(&connection));
}

#[test]
fn whoever_skips_an_additional_key_exchange_that_was_agreed_gets_no_further() {
    let connection = connection();
    let chosen = connection.ike[0].choose(&connection.ike[0].proposal(1, Protocol::Ike, vec![])).unwrap();
    let seed = Seed { ni: &[1; 32], nr: &[2; 32], spi_i: IkeSpi(2), spi_r: IkeSpi(1) };
    let keys = IkeKeys::initial(&chosen, Prf::HmacSha256, &Secret::from(&[3; 32][..]), seed);
    let mut config = Config::default();
    config.connections.insert(connection.into());
    let mut out = Outbox::default();
    let mut leases = crate::lease::Leases::default();
    let random = &mut Count(0);
    let mut cx = Context { now: Time::ZERO, config: &config, leases: &mut leases, out: &mut out, random };
    let outcome = |left: usize, cx: &mut Context<'_>| {
        let handshake = Handshake {
            init_i: vec![1],
            init_r: vec![2],
            ni: vec![1; 32],
            nr: vec![2; 32],
            int_auth: Default::default(),
            additional: std::iter::repeat_n(Group::MlKem768, left).collect(),
            hashes: None,
            methods: None,
            asked: false,
            can_ppk: false,
            named: None,
        };
        let mut sa = ike_sa(Stage::Keyed(Box::new(handshake)));
        sa.channel = init::channel((false, sa.spis()), cx, chosen.clone(), keys.clone());
        let id = Payload::IdI(Id::parse("@peer").unwrap().body());
        let message = message(Exchange::IkeAuth, vec![id, Payload::Auth { method: 2, data: vec![0; 32] }]);
        match auth::answer(&mut sa, cx, &message, &mut Answers::default()) {
            Err(Pause::Refuse(notify, _)) => notify.kind,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(outcome(1, &mut cx), NotifyKind::InvalidSyntax);
    // With nothing left to exchange the same message is judged by its AUTH.
    assert_eq!(outcome(0, &mut cx), NotifyKind::AuthenticationFailed);
}

#[test]
fn only_the_initiator_moves_an_ike_sa_and_only_where_both_agreed() {
    let (config, mut out, mut leases) =
        (Config::default(), Outbox::default(), crate::lease::Leases::default());
    let random = &mut Count(0);
    let mut cx = Context { now: Time::ZERO, config: &config, leases: &mut leases, out: &mut out, random };
    let update = message(Exchange::Informational, vec![crate::sa::notify(NotifyKind::UpdateSaAddresses)]);
    let ends = |last: &str| ("192.0.2.1:4500".parse().unwrap(), last.parse().unwrap());
    for (began, mobike, moves) in [(false, true, true), (true, true, false), (false, false, false)] {
        let mut sa = ike_sa(Stage::Closed);
        (sa.began, sa.mobike) = (began, mobike);
        sa.heard_at = ends("203.0.113.66:4500");
        let before = sa.remote;
        mobike::answer(&mut sa, &mut cx, &update);
        assert_eq!(sa.remote != before, moves, "{began} {mobike}");
    }
    // Who forbids NATs is told of one, and stays where it was (RFC 4555 §3.9).
    let mut sa = ike_sa(Stage::Closed);
    sa.mobike = true;
    sa.heard_at = ends("203.0.113.66:4500");
    let mut claimed = update;
    let data = vec![192, 0, 2, 9, 192, 0, 2, 1, 0x11, 0x94, 0x11, 0x94];
    claimed.payloads.push(Payload::Notify(Notify::new(NotifyKind::NoNatsAllowed, data)));
    let before = sa.remote;
    let answer = mobike::answer(&mut sa, &mut cx, &claimed);
    assert_eq!(answer, [crate::sa::notify(NotifyKind::UnexpectedNatDetected)]);
    assert_eq!(sa.remote, before);
}

#[test]
fn an_additional_key_exchange_that_nobody_agreed_to_finds_no_state() {
    let (config, mut out, mut leases) =
        (Config::default(), Outbox::default(), crate::lease::Leases::default());
    let random = &mut Count(0);
    let mut cx = Context { now: Time::ZERO, config: &config, leases: &mut leases, out: &mut out, random };
    let mut sa = ike_sa(Stage::Closed);
    let ke = Payload::Ke { group: Group::MlKem768.number(), data: vec![0; 1184] };
    let named = |link: &[u8]| {
        let link = Payload::Notify(Notify::new(NotifyKind::AdditionalKeyExchange, link.to_vec()));
        message(Exchange::IkeFollowupKe, vec![ke.clone(), link])
    };
    let outcome = |sa: &mut IkeSa, cx: &mut Context<'_>, link: &[u8], given| {
        let mut answers = Answers::default();
        if given {
            answers.give(Answer::Accepted(Ok((vec![1], Secret::from(&[2; 32][..])))));
        }
        match followup::answer(sa, cx, &named(link), &mut answers) {
            Err(Pause::Refuse(notify, _)) => Some(notify.kind),
            Err(Pause::Need(_)) | Ok(()) => None,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(outcome(&mut sa, &mut cx, &[7; 16], false), Some(NotifyKind::StateNotFound));
    // One that was agreed to is found by its name alone, for a minute, and once.
    let owe = |sa: &mut IkeSa, cx: &mut Context<'_>| {
        let chosen =
            connection().ike[0].choose(&connection().ike[0].proposal(1, Protocol::Ike, vec![])).unwrap();
        let what = followup::TheirWhat::Ike { chosen: chosen.into(), ours: IkeSpi(1), theirs: IkeSpi(2) };
        let left = [Group::MlKem768].into_iter().collect();
        match followup::owe(sa, cx, what, (&[1; 32], &[2; 32]), Secret::from(&[3; 32][..]), left) {
            Payload::Notify(notify) => notify.data,
            other => panic!("{other:?}"),
        }
    };
    let link = owe(&mut sa, &mut cx);
    assert_eq!(outcome(&mut sa, &mut cx, &[7; 16], false), Some(NotifyKind::StateNotFound));
    assert_eq!(outcome(&mut sa, &mut cx, &link, true), None);
    assert_eq!(outcome(&mut sa, &mut cx, &link, true), Some(NotifyKind::StateNotFound));
    let link = owe(&mut sa, &mut cx);
    cx.now = Time::from_secs(61);
    assert_eq!(outcome(&mut sa, &mut cx, &link, true), Some(NotifyKind::StateNotFound));
}
