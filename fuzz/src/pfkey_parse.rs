//! What a PF_KEY client writes: one record, read by the codec, judged by the rules, and handed to the service.

use ipsec_core::Time;
use klips::{Config, Control, Plane};
use pfkey::{
    Address, Base, ExtType, Extension, Flow, FlowAction, FlowPolicy, Further, Identity, InnerPair, Level,
    Lifetime, Message, MessageType, Sa, SaParams, SaType, SocketOptions, SpiRange, Wanted, Writer, flags,
    identity, rules, state,
};
use std::sync::Arc;

const SECRET: [u8; 8] = *b"SecretK!";

fn contains_secret(octets: &[u8]) -> bool {
    octets.windows(SECRET.len()).any(|window| window == SECRET)
}

/// Takes the octets as one record.
pub fn run(data: &[u8]) {
    if let Ok(message) = Message::parse(data) {
        understood(data, &message);
    }
    served(data);
}

/// What was understood can be written again, and means the same.
fn understood(data: &[u8], message: &Message<'_>) {
    let mut copy = Writer::new(&message.base);
    message.extensions().for_each(|extension| {
        copy.echo(&extension);
    });
    assert_eq!(copy.finish().as_deref(), Ok(data), "echoed, and different");

    let mut typed = Writer::new(&message.base);
    for Extension { kind, .. } in message.extensions() {
        assert!(message.has(kind));
        write(&mut typed, message, kind);
    }
    let typed = typed.finish().expect("no longer than what was read");
    let again = Message::parse(&typed).expect("what we write, we read");
    assert_eq!(
        (again.sa, again.current, again.hard, again.soft, again.idle),
        (message.sa, message.current, message.hard, message.soft, message.idle)
    );
    assert_eq!((again.spi_range, again.pair, again.edump), (message.spi_range, message.pair, message.edump));
    assert_eq!(again.dst.and_then(|a| a.socket), message.dst.and_then(|a| a.socket));
    assert_eq!((again.selectors, &again.flow_policy), (message.selectors, &message.flow_policy));

    for &kind in MessageType::ALL {
        if let Some(rule) = rules::rule(kind) {
            let _ = (rule.complete(message), rule.takes(message.base.satype_number));
        }
    }
    if let Some(satype) = message.base.satype() {
        let _ = rules::possible(message, satype);
    }
}

/// Writes an extension anew from what was understood of it.
fn write(to: &mut Writer, m: &Message<'_>, kind: ExtType) {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the rest have no typed field of this kind")]
    let lifetime = match kind {
        ExtType::LifetimeCurrent => m.current,
        ExtType::LifetimeHard => m.hard,
        ExtType::LifetimeSoft => m.soft,
        ExtType::LifetimeIdle => m.idle,
        _ => None,
    };
    if let Some(lifetime) = lifetime {
        to.lifetime(kind, &lifetime);
    } else if let (ExtType::Sa, Some(sa)) = (kind, m.sa) {
        to.sa(&sa);
    } else if let (ExtType::AddressDst, Some(dst)) = (kind, m.dst.filter(|dst| dst.socket.is_some())) {
        to.address(kind, &dst);
    } else if let (ExtType::SpiRange, Some(range)) = (kind, m.spi_range) {
        to.spi_range(&range);
    } else if let (ExtType::Pair, Some(pair)) = (kind, m.pair) {
        to.pair(&pair);
    } else if let (ExtType::Edump, Some(seconds)) = (kind, m.edump) {
        to.edump(seconds);
    } else if let (ExtType::Selectors, Some(selectors)) = (kind, m.selectors) {
        to.selectors(&selectors.pairs().collect::<Vec<_>>());
    } else if let (ExtType::FlowPolicy, Some(policy)) = (kind, &m.flow_policy) {
        to.flow_policy(policy);
    }
}

/// The service answers with records of its own making, and gives no keys to who only added them.
fn served(data: &[u8]) {
    let random = |octets: &mut [u8]| octets.fill(0x5a);
    let mut control = Control::new(Arc::new(Plane::default()), Config::new(1_700_000_000, Box::new(random)));
    let now = Time::from_nanos(1);
    let (asking, listening) = (control.connect(1, now), control.connect(2, now));
    control.request(asking, data, now);
    let elsewhere = Message::parse(data).is_ok_and(|message| {
        let is_key = |kind| matches!(kind, ExtType::KeyAuth | ExtType::KeyEncrypt);
        message.extensions().any(|extension| !is_key(extension.kind) && contains_secret(extension.octets))
    });
    for socket in [asking, listening] {
        while let Some(notice) = control.notice(socket, now) {
            Message::parse_answer(&notice).expect("what the service says can be read");
            // Nothing was there to GET or DUMP before: whatever key this shows is the one that came (RFC 2367 §3.1.3).
            // The base header is an echo, of whatever number the mutation put into it.
            let extensions = notice.get(Base::LEN..).unwrap_or_default();
            assert!(elsewhere || !contains_secret(extensions), "a key went out");
        }
    }
    if let Some(due) = control.deadline() {
        control.expire(due);
    }
}

/// One of each message a key manager or a command sends.
pub fn seeds() -> Vec<(String, Vec<u8>)> {
    use MessageType as M;
    let request = |kind, satype| Writer::new(&Base::request(kind, satype, 7, 1));
    let outer = |to: &mut Writer| {
        to.address(ExtType::AddressSrc, &Address::host([192, 0, 2, 1].into()));
        to.address(ExtType::AddressDst, &Address::host([192, 0, 2, 2].into()));
    };
    let inner = |to: &mut Writer| {
        to.address(ExtType::AddressInnerSrc, &Address::net([10, 1, 0, 0].into(), 16));
        to.address(ExtType::AddressInnerDst, &Address::net([10, 2, 0, 0].into(), 16));
    };
    let named = |to: &mut Writer| {
        to.sa(&Sa { spi: 0x1001, ..Sa::default() });
        outer(to);
    };
    let lives = |to: &mut Writer| {
        let hard = Lifetime { allocations: 0, bytes: 1 << 30, addtime: 3600, usetime: 600 };
        to.lifetime(ExtType::LifetimeHard, &hard);
        to.lifetime(ExtType::LifetimeSoft, &Lifetime { bytes: 1 << 29, ..hard });
        to.lifetime(ExtType::LifetimeIdle, &Lifetime { addtime: 60, usetime: 60, ..Lifetime::default() });
    };
    let secret = SECRET.repeat(4);
    let mut all = Vec::new();
    let mut keep = |name: &str, writer: Writer| all.push((name.to_owned(), writer.finish().expect("short")));

    let mut add = request(M::Add, SaType::Esp);
    let flags = flags::TUNNEL | flags::OUTBOUND;
    add.sa(&Sa { spi: 0x1001, replay: 32, state: state::MATURE, auth: 0, encrypt: 20, flags });
    lives(&mut add);
    outer(&mut add);
    inner(&mut add);
    add.key(ExtType::KeyEncrypt, 160, 0, &secret[..20]);
    add.sa_params(&SaParams { window: 256, esn: true });
    keep("add-gcm", add);

    let mut add = request(M::Add, SaType::Esp);
    add.sa(&Sa { spi: 0x1003, replay: 32, state: state::MATURE, auth: 0, encrypt: 20, flags });
    outer(&mut add);
    inner(&mut add);
    add.key(ExtType::KeyEncrypt, 160, 0, &secret[..20]);
    let pair = |src: &str, dst: &str, src_prefix, dst_prefix| InnerPair {
        proto: 6,
        src: src.parse().expect("an address"),
        src_prefix,
        dst: dst.parse().expect("an address"),
        dst_prefix,
    };
    add.selectors(&[
        pair("10.3.0.0:0", "10.4.0.0:22", 24, 16),
        pair("[2001:db8:1::]:0", "[2001:db8:2::]:0", 48, 64),
    ]);
    keep("add-selectors", add);

    let mut add = request(M::Add, SaType::Esp);
    let natted = flags::TUNNEL | flags::INBOUND | flags::NATT_LOC | flags::NATT_REM;
    add.sa(&Sa { spi: 0x1002, replay: 32, state: state::MATURE, auth: 5, encrypt: 12, flags: natted });
    outer(&mut add);
    inner(&mut add);
    let at =
        |last| Address { socket: Some(([192, 0, 2, last], 4500).into()), ..Address::host([0; 4].into()) };
    add.address(ExtType::AddressNattLoc, &at(1));
    add.address(ExtType::AddressNattRem, &at(2));
    add.key(ExtType::KeyAuth, 256, 0, &secret[..32]);
    add.key(ExtType::KeyEncrypt, 128, 0, &secret[..16]);
    add.identity(ExtType::IdentitySrc, &Identity { kind: identity::FQDN, id: 0, text: b"gw.example" });
    keep("add-cbc-natt", add);

    for (name, kind) in
        [("get", M::Get), ("delete", M::Delete), ("delpair", M::DelPair), ("updatepair", M::UpdatePair)]
    {
        let mut message = request(kind, SaType::Esp);
        named(&mut message);
        keep(name, message);
    }
    let mut update = request(M::Update, SaType::Esp);
    named(&mut update);
    lives(&mut update);
    keep("update", update);
    let wanted = Wanted { protocol: 108, mode: 1, level: Level::Use, reqid: 0 };
    let around = |protocol, reqid| Further {
        wanted: Wanted { protocol, mode: 1, level: Level::Unique, reqid },
        src: [192, 0, 2, 1].into(),
        dst: [192, 0, 2, 2].into(),
    };
    let further = vec![around(50, 7), around(51, 0)];
    let mut policy = request(M::AddFlow, SaType::Esp);
    inner(&mut policy);
    policy.flow(&Flow { action: FlowAction::Protect, packets: 0, last_use: 0 });
    outer(&mut policy);
    policy.flow_policy(&FlowPolicy {
        priority: 1 << 31,
        wanted: Some(wanted),
        further,
        ..FlowPolicy::default()
    });
    keep("add-flow-policy", policy);
    let mut getspi = request(M::GetSpi, SaType::Esp);
    outer(&mut getspi);
    getspi.spi_range(&SpiRange { min: 0x100, max: 0xffff });
    keep("getspi", getspi);
    for (name, kind, satype) in [
        ("register", M::Register, SaType::Esp),
        ("flush", M::Flush, SaType::Unspec),
        ("dump", M::Dump, SaType::Unspec),
        ("promisc", M::Promisc, SaType::Unspec),
        ("flush-flows", M::FlushFlows, SaType::Unspec),
        ("dump-flows", M::DumpFlows, SaType::Unspec),
    ] {
        keep(name, request(kind, satype));
    }
    let mut ereg = request(M::Register, SaType::Unspec);
    ereg.ereg(&[2, 3]);
    keep("register-extended", ereg);
    for (name, kind, action) in [
        ("add-flow", M::AddFlow, FlowAction::Protect),
        ("replace-flow-reject", M::ReplaceFlow, FlowAction::Reject),
    ] {
        let mut flow = request(kind, SaType::Esp);
        flow.flow(&Flow { action, packets: 0, last_use: 0 });
        inner(&mut flow);
        if action == FlowAction::Protect {
            named(&mut flow);
        }
        keep(name, flow);
    }
    let mut acquire = request(M::InverseAcquire, SaType::Unspec);
    outer(&mut acquire);
    keep("inverse-acquire", acquire);
    let mut options = request(M::Socket, SaType::Unspec);
    options.socket_options(&SocketOptions { loopback: false, quiet: false });
    keep("socket", options);
    all
}
