//! The model: a list of SAs, a list of sockets, and the page read aloud.

use crate::pfkey_support::*;
use std::collections::BTreeMap;

/// Native: socket options.
pub(crate) const SOCKET: u8 = 134;
const SOCKET_OPTIONS: u16 = 131;
const EALGS: u32 = 0xc00_0000;

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) kind: u8,
    pub(crate) satype: u8,
    pub(crate) seq: u32,
    pub(crate) spi: Option<u32>,
    pub(crate) src: Option<&'static str>,
    pub(crate) dst: Option<&'static str>,
    pub(crate) two_sas: bool,
    pub(crate) state: u8,
    pub(crate) auth: u8,
    pub(crate) encrypt: u8,
    pub(crate) flags: u32,
    /// Octets; 0 for none.
    pub(crate) auth_key: usize,
    pub(crate) encrypt_key: usize,
    pub(crate) fill: u8,
    /// Bytes and addtime.
    pub(crate) hard: (u64, u64),
    pub(crate) soft: (u64, u64),
    pub(crate) current: bool,
    pub(crate) label: bool,
    pub(crate) km: (u32, u64),
    pub(crate) pair: Option<u32>,
}

impl Ask {
    pub(crate) fn bare(kind: u8, satype: u8) -> Self {
        Self {
            kind,
            satype,
            seq: 9,
            spi: None,
            src: None,
            dst: None,
            two_sas: false,
            state: 0,
            auth: 0,
            encrypt: 0,
            flags: 0,
            auth_key: 0,
            encrypt_key: 0,
            fill: 0,
            hard: (0, 0),
            soft: (0, 0),
            current: false,
            label: false,
            km: (0, 0),
            pair: None,
        }
    }

    /// What GETSPI, GET and DELETE say.
    pub(crate) fn address_only(self, kind: u8) -> Self {
        let bare = Self::bare(kind, self.satype);
        Self { seq: self.seq, spi: self.spi, src: self.src, dst: self.dst, two_sas: self.two_sas, ..bare }
    }

    /// As it is sent, with keys or, as it is answered, without.
    fn build(&self, keys: bool, flags: u32) -> Msg {
        let mut m = msg(self.kind, self.satype).seq(self.seq);
        if self.kind == SOCKET {
            return m.ext(SOCKET_OPTIONS, &u32::from(self.satype).to_ne_bytes());
        }
        if self.kind == REGISTER && self.satype == 0 {
            return m.ext(EREG, &[ESP, AH, 0, 0]);
        }
        if let Some(spi) = self.spi {
            let sa = |m: Msg| m.sa_full(spi, 32, self.state, self.auth, self.encrypt, flags);
            m = match self.kind {
                GETSPI if keys => m.range(spi, spi),
                GETSPI => m.sa_full(spi, 0, 0, 0, 0, 0),
                _ => sa(m),
            };
            if self.two_sas {
                m = sa(sa(m));
            }
        }
        for (kind, l) in [(HARD, self.hard), (SOFT, self.soft)] {
            if l != (0, 0) {
                m = m.lifetime(kind, 0, l.0, l.1, 0);
            }
        }
        if self.current {
            m = m.lifetime(CURRENT, 0, 0, 0, 0);
        }
        for (kind, ip) in [(SRC, self.src), (DST, self.dst)] {
            if let Some(ip) = ip {
                m = m.addr(kind, ip);
            }
        }
        if keys && self.auth_key != 0 {
            m = m.key_full(AKEY, self.auth_key as u16 * 8, 0, &vec![self.fill; self.auth_key]);
        }
        if keys && self.encrypt_key != 0 {
            m = m.key_full(EKEY, self.encrypt_key as u16 * 8, 0, &vec![self.fill; self.encrypt_key]);
        }
        if self.label {
            m = m.ext(SENS, &[0; 12]);
        }
        if self.km != (0, 0) {
            m = m.kmc(self.km.0, self.km.1);
        }
        if let Some(pair) = self.pair {
            m = m.pair(pair);
        }
        m
    }

    pub(crate) fn message(&self) -> Msg {
        // For the options the number is in the SA type, which the message itself has no use for.
        self.build(true, self.flags)
    }
}

/// What of a message is compared: everything but moments and lists of algorithms.
pub(crate) fn comparable(heard: &Heard) -> Vec<u8> {
    let mut octets = heard.octets[..16].to_vec();
    octets[4..6].fill(0);
    for (kind, body) in heard.exts() {
        if ![CURRENT, SUPPORTED_AUTH, SUPPORTED_ENCRYPT].contains(&kind) {
            octets.extend(kind.to_ne_bytes());
            octets.extend(body);
        }
    }
    octets
}

fn written(message: Msg) -> Vec<u8> {
    comparable(&Heard::new(message.done()))
}

/// SA type, destination, SPI.
pub(crate) type Name = (u8, &'static str, u32);

#[derive(Clone, Debug)]
struct ModelSa {
    src: &'static str,
    state: u8,
    flags: u32,
    auth: u8,
    encrypt: u8,
    fill: u8,
    hard: (u64, u64),
    soft: (u64, u64),
    km: (u32, u64),
    pair: Option<u32>,
    added: u64,
    died: u64,
}

impl ModelSa {
    fn partner(&self, satype: u8) -> Option<Name> {
        self.pair.map(|spi| (satype, self.src, spi))
    }

    /// It is in both tables of the page.
    fn cloned(&self, dst: &str) -> bool {
        self.flags & (F_IN | F_OUT) == F_IN | F_OUT || (dst == LOCAL && self.src == LOCAL)
    }

    fn describe(&self, kind: u8, name: Name, seq: u32, state: u8, keys: bool) -> Msg {
        let larval = self.state == LARVAL;
        let m = msg(kind, name.0).seq(seq);
        let flags = self.flags | if self.pair.is_some() { F_PAIRED } else { 0 };
        let mut m = m.sa_full(name.2, if larval { 0 } else { 32 }, state, self.auth, self.encrypt, flags);
        for (kind, l) in [(HARD, self.hard), (SOFT, self.soft)] {
            if l != (0, 0) {
                m = m.lifetime(kind, 0, l.0, l.1, 0);
            }
        }
        m = m.addr(SRC, self.src).addr(DST, name.1);
        if self.km != (0, 0) {
            m = m.kmc(self.km.0, self.km.1);
        }
        if keys && !larval && name.0 == AH {
            m = m.key_full(AKEY, 256, 0, &[self.fill; 32]);
        }
        if keys && !larval && name.0 == ESP {
            m = m.key_full(EKEY, 128, 32, &[self.fill; 20]);
        }
        match self.pair {
            Some(spi) => m.pair(spi),
            None => m,
        }
    }

    fn expire(&self, name: Name, state: u8) -> Vec<u8> {
        let mut m = msg(EXPIRE, name.0).seq(0);
        m.octets[12..16].fill(0);
        let flags = self.flags | if self.pair.is_some() { F_PAIRED } else { 0 };
        let m = m.sa_full(name.2, 32, state, self.auth, self.encrypt, flags);
        let (kind, l) = if state == DYING { (SOFT, self.soft) } else { (HARD, self.hard) };
        let m = m.lifetime(kind, 0, l.0, l.1, 0).addr(SRC, self.src).addr(DST, name.1);
        written(m.kmc(self.km.0, self.km.1))
    }
}

#[derive(Clone, Debug, Default)]
struct ModelSocket {
    plain: Vec<u8>,
    extended: bool,
    promiscuous: bool,
    deaf: bool,
    heard: Vec<Vec<u8>>,
}

/// Who is to hear it, besides promiscuous sockets.
#[derive(Clone, Copy)]
enum To {
    All,
    Sender(usize),
    SenderAndPlain(usize, u8),
}

type Refusal = (u8, u16);
const fn no(diagnostic: u16) -> Result<(), Refusal> {
    Err((EINVAL, diagnostic))
}

#[derive(Debug)]
pub(crate) struct Model {
    sas: BTreeMap<Name, ModelSa>,
    sockets: Vec<ModelSocket>,
    now: u64,
}

impl Model {
    pub(crate) fn new(sockets: usize) -> Self {
        Self { sas: BTreeMap::new(), sockets: vec![ModelSocket::default(); sockets], now: 0 }
    }

    /// SA type, source, destination, SPI of all there are.
    pub(crate) fn names(&self) -> Vec<(u8, &'static str, &'static str, u32)> {
        self.sas.iter().map(|(name, sa)| (name.0, sa.src, name.1, name.2)).collect()
    }

    pub(crate) fn is_larval(&self, name: Name) -> bool {
        self.sas.get(&name).is_some_and(|sa| sa.state == LARVAL)
    }

    pub(crate) fn heard(&mut self, who: usize) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.sockets[who].heard)
    }

    fn tell(&mut self, to: To, message: &[u8]) {
        for (n, socket) in self.sockets.iter_mut().enumerate() {
            let wanted = match to {
                To::All => true,
                To::Sender(who) => who == n,
                To::SenderAndPlain(who, satype) => {
                    who == n || (socket.plain.contains(&satype) && !socket.extended)
                }
            };
            if !socket.deaf && (wanted || socket.promiscuous) {
                socket.heard.push(message.to_vec());
            }
        }
    }

    pub(crate) fn say(&mut self, who: usize, ask: &Ask) {
        if let Err((errno, diagnostic)) = self.answer(who, ask) {
            let mut base = msg(ask.kind, ask.satype).seq(ask.seq).errno(errno);
            base.octets[6..8].copy_from_slice(&diagnostic.to_ne_bytes());
            let to = match ask.kind {
                GET | DUMP | REGISTER | PROMISC | SOCKET => To::Sender(who),
                _ => To::All,
            };
            self.tell(to, &written(base));
        }
    }

    fn answer(&mut self, who: usize, ask: &Ask) -> Result<(), Refusal> {
        let echo = || written(ask.build(false, ask.flags));
        match ask.kind {
            PROMISC => {
                self.sockets[who].promiscuous = ask.satype != 0;
                self.tell(To::Sender(who), &echo());
            }
            SOCKET => {
                // It hears the answer as long as it hears at all.
                self.sockets[who].deaf &= ask.satype == 0;
                self.tell(To::Sender(who), &echo());
                self.sockets[who].deaf = ask.satype == 0;
            }
            REGISTER => return self.register(who, ask),
            FLUSH => {
                self.sas.retain(|name, _| ask.satype != 0 && name.0 != ask.satype);
                self.tell(To::All, &echo());
            }
            DUMP => {
                let all: Vec<Vec<u8>> = self
                    .sas
                    .iter()
                    .filter(|(name, _)| ask.satype == 0 || name.0 == ask.satype)
                    .map(|(name, sa)| written(sa.describe(DUMP, *name, ask.seq, sa.state, true)))
                    .collect();
                // Whoever is deaf starts none.
                if !self.sockets[who].deaf {
                    all.iter().for_each(|message| self.tell(To::Sender(who), message));
                    self.tell(To::Sender(who), &written(msg(DUMP, ask.satype).seq(0)));
                }
            }
            _ => return self.about_sa(who, ask),
        }
        Ok(())
    }

    fn register(&mut self, who: usize, ask: &Ask) -> Result<(), Refusal> {
        let socket = &mut self.sockets[who];
        if socket.extended || (ask.satype == 0 && !socket.plain.is_empty()) {
            return Err((EBUSY, 0));
        }
        let types = if ask.satype == 0 { vec![ESP, AH] } else { vec![ask.satype] };
        socket.extended = ask.satype == 0;
        for satype in types {
            self.sockets[who].plain.push(satype);
            self.tell(To::SenderAndPlain(who, satype), &written(msg(REGISTER, satype).seq(ask.seq)));
        }
        Ok(())
    }

    fn about_sa(&mut self, who: usize, ask: &Ask) -> Result<(), Refusal> {
        // Stage 1, then stage 2.
        if ask.two_sas && ask.spi.is_some() {
            return no(26);
        }
        if ask.src.is_some_and(|src| src.starts_with("224.")) {
            return no(12);
        }
        if ask.satype == AH && ask.encrypt_key != 0 {
            return no(37);
        }
        match ask.kind {
            GETSPI => {
                let (src, dst) = (ask.src.ok_or((EINVAL, 18))?, ask.dst.ok_or((EINVAL, 19))?);
                let name = (ask.satype, dst, ask.spi.ok_or((EINVAL, 23))?);
                if self.sas.contains_key(&name) {
                    return Err((EEXIST, 0));
                }
                let larva = ModelSa {
                    src,
                    state: LARVAL,
                    flags: 0,
                    auth: 0,
                    encrypt: 0,
                    fill: 0,
                    hard: (0, 0),
                    soft: (0, 0),
                    km: (0, 0),
                    pair: None,
                    added: self.now,
                    died: 0,
                };
                self.sas.insert(name, larva);
                self.tell(To::All, &written(ask.build(false, 0)));
            }
            ADD => {
                let name = self.add(ask, None)?;
                self.echo_final(ask, name);
            }
            UPDATE | UPDATEPAIR => self.update(ask)?,
            GET => {
                let name = self.find(ask)?;
                let sa = &self.sas[&name];
                let message = written(sa.describe(GET, name, ask.seq, sa.state, true));
                self.tell(To::Sender(who), &message);
            }
            _ if ask.spi.is_none() => {
                if ask.src.is_none() && ask.dst.is_none() {
                    return no(20);
                }
                let fits = |name: &Name, sa: &ModelSa| {
                    name.0 == ask.satype
                        && sa.state != LARVAL
                        && ask.src.is_none_or(|src| src == sa.src)
                        && ask.dst.is_none_or(|dst| dst == name.1)
                };
                let names: Vec<Name> =
                    self.sas.iter().filter(|(name, sa)| fits(name, sa)).map(|(name, _)| *name).collect();
                names.into_iter().for_each(|name| self.remove(name));
                self.tell(To::All, &written(ask.build(false, 0)));
            }
            kind => {
                let name = self.find(ask)?;
                let gone = self.sas[&name].clone();
                self.remove(name);
                if kind == DELPAIR {
                    let partner = gone.partner(ask.satype).ok_or((ESRCH, 76))?;
                    self.remove(partner);
                }
                self.tell(To::All, &written(gone.describe(kind, name, ask.seq, DEAD, false)));
            }
        }
        Ok(())
    }

    fn find(&self, ask: &Ask) -> Result<Name, Refusal> {
        let name = (ask.satype, ask.dst.ok_or((EINVAL, 19))?, ask.spi.ok_or((EINVAL, 20))?);
        let sa = self.sas.get(&name).ok_or((ESRCH, 78))?;
        if ask.src.is_none_or(|src| src == sa.src) { Ok(name) } else { Err((ESRCH, 78)) }
    }

    /// Whoever goes is nobody's partner any more.
    fn remove(&mut self, name: Name) {
        let partner = self.sas.remove(&name).and_then(|sa| sa.partner(name.0));
        if let Some(other) = partner.and_then(|partner| self.sas.get_mut(&partner)) {
            other.pair = None;
        }
    }

    fn echo_final(&mut self, ask: &Ask, name: Name) {
        let sa = &self.sas[&name];
        let flags = sa.flags | if sa.pair.is_some() { F_PAIRED } else { 0 };
        self.tell(To::All, &written(ask.build(false, flags)));
    }

    fn check_lifetimes(ask: &Ask) -> Result<(), Refusal> {
        let above = |soft, hard| soft != 0 && hard != 0 && soft > hard;
        if above(ask.soft.0, ask.hard.0) {
            return no(15);
        }
        if above(ask.soft.1, ask.hard.1) { no(16) } else { Ok(()) }
    }

    /// ADD, and UPDATE of the larval SA of that name.
    fn add(&mut self, ask: &Ask, larva: Option<Name>) -> Result<Name, Refusal> {
        let esp = ask.satype == ESP;
        let (src, dst) = (ask.src.ok_or((EINVAL, 18))?, ask.dst.ok_or((EINVAL, 19))?);
        let name = (ask.satype, dst, ask.spi.ok_or((EINVAL, 20))?);
        let faults = [
            (esp && ask.encrypt_key == 0 && ask.encrypt != NULL, (EINVAL, 21)),
            (!esp && ask.auth_key == 0, (EINVAL, 22)),
            (ask.state != MATURE, (EINVAL, 43)),
            (!esp && ask.encrypt != 0, (EINVAL, 46)),
            (esp && ask.encrypt == 0, (EINVAL, 41)),
            (ask.flags & F_PFS != 0, (EINVAL, 42)),
        ];
        if let Some((_, refusal)) = faults.into_iter().find(|(is, _)| *is) {
            return Err(refusal);
        }
        Self::check_lifetimes(ask)?;
        let direction = match (src == LOCAL, dst == LOCAL) {
            (_, true) => F_IN,
            (true, false) => F_OUT,
            (false, false) => F_IN | F_OUT,
        };
        let both = direction == F_IN | F_OUT;
        let faults = [
            (ask.current, (EOPNOTSUPP, 0)),
            (ask.label, if esp { (EINVAL, 83) } else { (EOPNOTSUPP, 0) }),
            (esp && ask.auth_key != 0, (EINVAL, 40)),
            (!esp && ask.auth_key != 32, (EINVAL, 44)),
            (esp && ask.encrypt_key != 20, (EINVAL, 45)),
        ];
        if let Some((_, refusal)) = faults.into_iter().find(|(is, _)| *is) {
            return Err(refusal);
        }
        // From here on a larval SA does not survive a refusal.
        let old = larva.map(|larva| self.sas[&larva].clone());
        if both && ask.pair.is_some() {
            larva.into_iter().for_each(|larva| self.remove(larva));
            return Err((EINVAL, 73));
        }
        if old.is_none() && self.sas.contains_key(&name) {
            return Err((EEXIST, 0));
        }
        let sa = ModelSa {
            src,
            state: MATURE,
            flags: ask.flags | direction | if esp { EALGS } else { 0 },
            auth: ask.auth,
            encrypt: ask.encrypt,
            fill: ask.fill,
            hard: ask.hard,
            soft: ask.soft,
            km: ask.km,
            pair: old.and_then(|old| old.pair),
            added: self.now,
            died: 0,
        };
        self.sas.insert(name, sa);
        if let Some(spi) = ask.pair
            && let Err(refusal) = self.pair(name, spi)
        {
            self.remove(name);
            return Err(refusal);
        }
        Ok(name)
    }

    fn update(&mut self, ask: &Ask) -> Result<(), Refusal> {
        let pair = ask.kind == UPDATEPAIR;
        let _ = (ask.dst.ok_or((EINVAL, 19))?, ask.src.ok_or((EINVAL, 18))?, ask.spi.ok_or((EINVAL, 20))?);
        let name = self.find(ask)?;
        let sa = self.sas[&name].clone();
        if sa.state == LARVAL {
            self.add(ask, Some(name).filter(|_| !pair))?;
            self.echo_final(ask, name);
            return Ok(());
        }
        let early = [
            (ask.state != MATURE, (EINVAL, 43)),
            (ask.flags & F_PFS != 0, (EINVAL, 42)),
            (ask.current, (EOPNOTSUPP, 0)),
        ];
        if let Some((_, refusal)) = early.into_iter().find(|(is, _)| *is) {
            return Err(refusal);
        }
        Self::check_lifetimes(ask)?;
        let other = |new: u64, old: u64| new != 0 && old != 0 && new != old;
        let late = [
            (ask.label, (EINVAL, 83)),
            (ask.auth_key != 0, (EINVAL, 36)),
            (ask.encrypt_key != 0, (EINVAL, 37)),
            (sa.state == DEAD, (ESRCH, 79)),
            (other(ask.km.0.into(), sa.km.0.into()), (EINVAL, 49)),
            (ask.km.0 != 3 && other(ask.km.1, sa.km.1), (EINVAL, 50)),
        ];
        if let Some((_, refusal)) = late.into_iter().find(|(is, _)| *is) {
            return Err(refusal);
        }
        self.change(name, ask);
        if pair {
            let partner = sa.partner(ask.satype).ok_or((ESRCH, 76))?;
            self.change(partner, ask);
        }
        if let Some(spi) = ask.pair {
            self.pair(name, spi)?;
        }
        self.tell(To::All, &written(ask.build(false, ask.flags)));
        Ok(())
    }

    fn change(&mut self, name: Name, ask: &Ask) {
        let Some(sa) = self.sas.get_mut(&name) else { return };
        let merge = |new: u64, old: u64| if new == 0 { old } else { new };
        sa.hard = (merge(ask.hard.0, sa.hard.0), merge(ask.hard.1, sa.hard.1));
        let clamp = |new: u64, hard: u64| if hard == 0 { new } else { new.min(hard) };
        sa.soft =
            (merge(clamp(ask.soft.0, sa.hard.0), sa.soft.0), merge(clamp(ask.soft.1, sa.hard.1), sa.soft.1));
        sa.km = (merge(ask.km.0.into(), sa.km.0.into()) as u32, merge(ask.km.1, sa.km.1));
    }

    fn pair(&mut self, name: Name, spi: u32) -> Result<(), Refusal> {
        let one = self.sas[&name].clone();
        let partner = (name.0, one.src, spi);
        let Some(other) = self.sas.get(&partner).filter(|_| spi != 0 && spi != name.2) else { return no(73) };
        // A larval SA is for packets to this host.
        let flags = if other.state == LARVAL { F_IN } else { other.flags };
        let opposite = (one.flags ^ flags) & (F_IN | F_OUT) == F_IN | F_OUT;
        let cloned = one.cloned(name.1) || (other.state != LARVAL && other.cloned(partner.1));
        if other.src != name.1 || !opposite || cloned || ![LARVAL, MATURE].contains(&other.state) {
            return no(73);
        }
        if other.pair.is_some_and(|pair| pair != name.2) {
            return no(75);
        }
        if let Some(old) = one.partner(name.0).and_then(|old| self.sas.get_mut(&old)) {
            old.pair = None;
        }
        for (name, spi) in [(name, spi), (partner, name.2)] {
            if let Some(sa) = self.sas.get_mut(&name) {
                sa.pair = Some(spi);
            }
        }
        Ok(())
    }

    /// When something happens to an SA by itself.
    fn due(sa: &ModelSa) -> Option<u64> {
        let after = |limit: u64| (limit != 0).then(|| sa.added + limit);
        match sa.state {
            LARVAL => Some(sa.added + 90),
            DEAD => Some(sa.died + 1),
            MATURE => [after(sa.hard.1), after(sa.soft.1)].into_iter().flatten().min(),
            _ => after(sa.hard.1),
        }
    }

    pub(crate) fn wait(&mut self, secs: u64) {
        let end = self.now + secs;
        while let Some((at, name)) = self
            .sas
            .iter()
            .filter_map(|(name, sa)| Some((Self::due(sa)?, *name)))
            .min()
            .filter(|(at, _)| *at <= end)
        {
            self.now = self.now.max(at);
            let sa = self.sas[&name].clone();
            let hard = sa.hard.1 != 0 && sa.added + sa.hard.1 <= self.now;
            match sa.state {
                LARVAL | DEAD => self.remove(name),
                _ if hard => self.hard(name),
                _ => {
                    let told = sa.expire(name, DYING);
                    self.tell(To::All, &told);
                    self.sas.entry(name).and_modify(|sa| sa.state = DYING);
                }
            }
        }
        self.now = end;
    }

    /// A hard limit: dead, and its partner with it; an inbound partner of an outbound SA without a word.
    fn hard(&mut self, name: Name) {
        let partner = self.sas[&name].partner(name.0);
        self.die(name, true);
        let Some(partner) = partner else { return };
        match self.sas.get(&partner).map(|sa| (sa.state, sa.flags & F_OUT != 0)) {
            Some((LARVAL, _)) => {
                self.sas.entry(partner).and_modify(|sa| sa.pair = None);
            }
            Some((_, outbound)) => self.die(partner, outbound),
            None => {}
        }
    }

    fn die(&mut self, name: Name, aloud: bool) {
        let now = self.now;
        if let Some(sa) = self.sas.get_mut(&name) {
            (sa.state, sa.died, sa.pair) = (DEAD, now, None);
            let told = sa.expire(name, DEAD);
            if aloud {
                self.tell(To::All, &told);
            }
        }
    }
}
