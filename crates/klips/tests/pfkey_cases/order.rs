//! Of several faults the first in the documented order is told: each case has one fault and all that come after it.

use super::*;

/// A message about an SA in its parts.
#[derive(Clone)]
struct Parts {
    kind: u8,
    satype: u8,
    src: Option<&'static str>,
    dst: Option<&'static str>,
    sa: bool,
    spi: u32,
    state: u8,
    auth: u8,
    encrypt: u8,
    flags: u32,
    auth_key: usize,
    encrypt_key: usize,
    soft: (u32, u64, u64, u64),
    current: bool,
    label: bool,
    km: (u32, u64),
    proposal: bool,
    supported: bool,
    natt_loc: Option<&'static str>,
    natt_rem: Option<&'static str>,
    inner: Option<(&'static str, &'static str)>,
    half_inner: bool,
    outer_proto: u8,
    pair: Option<u32>,
    replay: Option<(u32, u64)>,
}

impl Parts {
    fn good(kind: u8, satype: u8) -> Self {
        let esp = satype == ESP;
        Self {
            kind,
            satype,
            src: Some(PEER),
            dst: Some(LOCAL),
            sa: true,
            spi: 0xeeee,
            state: MATURE,
            auth: SHA256,
            encrypt: if esp { AES_CBC } else { 0 },
            flags: 0,
            auth_key: 32,
            encrypt_key: if esp { 16 } else { 0 },
            soft: (0, 0, 0, 0),
            current: false,
            label: false,
            km: (0, 0),
            proposal: false,
            supported: false,
            natt_loc: None,
            natt_rem: None,
            inner: None,
            half_inner: false,
            outer_proto: 0,
            pair: None,
            replay: None,
        }
    }

    fn message(&self) -> Msg {
        let mut m = msg(self.kind, self.satype);
        if self.sa {
            m = m.sa_full(self.spi, 0, self.state, self.auth, self.encrypt, self.flags);
        }
        for (kind, ip) in
            [(SRC, self.src), (DST, self.dst), (NATT_LOC, self.natt_loc), (NATT_REM, self.natt_rem)]
        {
            m = match ip {
                Some("odd") => m.odd_addr(kind),
                Some(ip) => {
                    m.addr_full(kind, ip, 0, if [SRC, DST].contains(&kind) { self.outer_proto } else { 0 }, 0)
                }
                None => m,
            };
        }
        if let Some((src, dst)) = self.inner {
            m = m.inner(src, dst);
        } else if self.half_inner {
            m = m.addr(INNER_SRC, "10.0.0.1");
        }
        let l = self.soft;
        if l != (0, 0, 0, 0) {
            m = m.lifetime(SOFT, l.0, l.1, l.2, l.3).lifetime(HARD, 1, 1, 1, 1);
        }
        for (kind, octets) in [(AKEY, self.auth_key), (EKEY, self.encrypt_key)] {
            if octets != 0 {
                m = m.key(kind, octets);
            }
        }
        for (is, kind, octets) in [
            (self.current, CURRENT, 28),
            (self.label, SENS, 12),
            (self.proposal, PROPOSAL, 4),
            (self.supported, SUPPORTED_AUTH, 4),
        ] {
            if is {
                m = m.ext(kind, &vec![0; octets]);
            }
        }
        if self.km != (0, 0) {
            m = m.kmc(self.km.0, self.km.1);
        }
        if let Some((low, high)) = self.replay {
            m = m.replay(low, high);
        }
        match self.pair {
            Some(spi) => m.pair(spi),
            None => m,
        }
    }
}

/// What makes it wrong, and what is said of it.
type Fault = (&'static str, u8, u16, fn(&mut Parts));

/// One case for each fault, which has all later ones, too. The earlier ones are made last: what they take away is gone.
fn ladder(r: &mut Table, name: &str, good: &Parts, before: &[Msg], faults: &[Fault]) {
    for (n, (fault, errno, diagnostic, _)) in faults.iter().enumerate() {
        let mut parts = good.clone();
        faults[n..].iter().rev().for_each(|(_, _, _, make)| make(&mut parts));
        let name = format!("{name}: {fault}, before {}", faults.get(n + 1).map_or("nothing", |next| next.0));
        r.bad(&name, parts.message(), *errno, *diagnostic).after(before.to_vec());
    }
}

/// The second stage, for all messages about SAs.
const ADDRESSES: &[Fault] = &[
    ("source family", EINVAL, 8, |p| p.src = Some("odd")),
    ("source", EINVAL, 12, |p| p.src = Some("224.0.0.1")),
    ("destination family", EINVAL, 9, |p| p.dst = Some("odd")),
    ("destination", EINVAL, 13, |p| p.dst = Some("0.0.0.0")),
    ("NAT-T local family", EINVAL, 69, |p| p.natt_loc = Some("odd")),
    ("NAT-T local", EINVAL, 55, |p| p.natt_loc = Some(LOCAL)),
    ("NAT-T remote family", EINVAL, 68, |p| p.natt_rem = Some("odd")),
    ("NAT-T remote", EINVAL, 56, |p| p.natt_rem = Some("224.0.0.1")),
    ("half an inner pair", EINVAL, 59, |p| (p.inner, p.half_inner) = (None, true)),
];

/// The rest of it, each with what can still be there.
const REALITY: &[Fault] =
    &[("proposal", EINVAL, 38, |p| p.proposal = true), ("supported", EINVAL, 39, |p| p.supported = true)];

const ADD_ESP: &[Fault] = &[
    ("no source", EINVAL, 18, |p| p.src = None),
    ("no destination", EINVAL, 19, |p| p.dst = None),
    ("no SA", EINVAL, 20, |p| p.sa = false),
    ("no encryption key", EINVAL, 21, |p| p.encrypt_key = 0),
    ("state", EINVAL, 43, |p| p.state = DEAD),
    ("cipher 0", EINVAL, 41, |p| p.encrypt = 0),
    ("flags", EINVAL, 42, |p| p.flags |= F_PFS),
    ("allocations", EINVAL, 14, |p| p.soft.0 = 2),
    ("bytes", EINVAL, 15, |p| p.soft.1 = 2),
    ("addtime", EINVAL, 16, |p| p.soft.2 = 2),
    ("usetime", EINVAL, 17, |p| p.soft.3 = 2),
    ("NAT-T local missing", EINVAL, 51, |p| p.flags |= F_NATT_LOC),
    ("NAT-T remote missing", EINVAL, 52, |p| p.flags |= F_NATT_REM),
    ("current lifetime", EOPNOTSUPP, 0, |p| p.current = true),
    ("label", EINVAL, 83, |p| p.label = true),
    ("integrity", EINVAL, 40, |p| p.auth = 99),
    ("integrity key", EINVAL, 44, |p| p.auth_key = 8),
    ("cipher", EINVAL, 41, |p| p.encrypt = 99),
    ("encryption key", EINVAL, 45, |p| p.encrypt_key = 8),
];

/// After the keys: insertion.
const INSERTION: &[Fault] = &[
    ("inner family", EPROTOTYPE, 0, |p| (p.outer_proto, p.inner) = (6, Some(("10.0.0.0/8", "10.0.0.0/8")))),
    ("tunnel without inner addresses", EINVAL, 42, |p| (p.flags, p.inner) = (p.flags | F_TUNNEL, None)),
    ("keys that fit no cipher", EINVAL, 0, |p| p.encrypt_key = 20),
    ("replay value", EOPNOTSUPP, 81, |p| p.replay = Some((0, 9))),
    ("collision", EEXIST, 0, |p| p.spi = IN),
    ("pair", EINVAL, 73, |p| p.pair = Some(0x9999)),
];

const ADD_AH: &[Fault] = &[
    ("encryption key", EINVAL, 37, |p| p.encrypt_key = 16),
    ("no source", EINVAL, 18, |p| p.src = None),
    ("no destination", EINVAL, 19, |p| p.dst = None),
    ("no SA", EINVAL, 20, |p| p.sa = false),
    ("no key", EINVAL, 22, |p| p.auth_key = 0),
    ("state", EINVAL, 43, |p| p.state = LARVAL),
    ("cipher", EINVAL, 46, |p| p.encrypt = AES_CBC),
    ("flags", EINVAL, 42, |p| p.flags |= F_NATT_LOC),
    ("addtime", EINVAL, 16, |p| p.soft.2 = 2),
    ("current lifetime", EOPNOTSUPP, 0, |p| p.current = true),
    ("label", EOPNOTSUPP, 0, |p| p.label = true),
    ("integrity", EINVAL, 40, |p| p.auth = 99),
    ("key", EINVAL, 44, |p| p.auth_key = 8),
];

const UPDATES: &[Fault] = &[
    ("no destination", EINVAL, 19, |p| p.dst = None),
    ("no source", EINVAL, 18, |p| p.src = None),
    ("no SA", EINVAL, 20, |p| p.sa = false),
    ("no such SA", ESRCH, 78, |p| p.spi = 0x9999),
    ("state", EINVAL, 43, |p| p.state = DYING),
    ("flags", EINVAL, 42, |p| p.flags |= F_TUNNEL),
    ("current lifetime", EOPNOTSUPP, 0, |p| p.current = true),
    ("bytes", EINVAL, 15, |p| p.soft.1 = 2),
    ("usetime", EINVAL, 17, |p| p.soft.3 = 2),
    ("label", EINVAL, 83, |p| p.label = true),
    ("integrity key", EINVAL, 36, |p| p.auth_key = 32),
    ("encryption key", EINVAL, 37, |p| p.encrypt_key = 16),
    ("key manager", EINVAL, 49, |p| p.km.0 = 2),
    ("cookie", EINVAL, 50, |p| p.km.1 = 6),
    ("replay value", EINVAL, 43, |p| p.replay = Some((9, 0))),
    ("pair", EINVAL, 73, |p| p.pair = Some(0x9999)),
];

pub(crate) fn orders(r: &mut Table) {
    let stage_two = [ADDRESSES, REALITY, ADD_ESP].concat();
    // Faults of the addresses come before all that ADD itself finds; those it has no address for are made first.
    ladder(r, "ADD ESP", &Parts::good(ADD, ESP), &[], &stage_two);
    ladder(r, "insertion", &Parts::good(ADD, ESP), &[], INSERTION);
    ladder(r, "ADD AH", &Parts::good(ADD, AH), &[], &[&ADD_AH[..1], REALITY, &ADD_AH[1..]].concat());
    let mut update = Parts::good(UPDATE, ESP);
    (update.spi, update.auth_key, update.encrypt_key) = (IN, 0, 0);
    let known = msg(UPDATE, ESP).sa(IN).src(PEER).dst(LOCAL).kmc(1, 5);
    ladder(r, "UPDATE", &update, &[known], UPDATES);
    let mut larval = Parts::good(UPDATE, ESP);
    larval.spi = LARVA;
    ladder(r, "UPDATE of a larval SA", &larval, &[], &ADD_ESP[3..]);
}
