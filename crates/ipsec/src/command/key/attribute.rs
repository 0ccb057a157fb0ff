//! What can be said about an SA: the keywords and the values they take.

use super::grammar::Wrong;
use super::words::Word;
use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use ipsec_core::algorithm::{Auth, Encryption};
use ipsec_core::text;
use pfkey::{InnerPair, Lifetime, MessageType, identity, state};
use zeroize::Zeroizing;

/// One keyword, whichever way it is spelt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keyword {
    /// The SPI.
    Spi,
    /// The SPI of the SA that goes the other way.
    PairSpi,
    /// Replay window.
    Replay,
    /// Extended sequence numbers, ours.
    Esn,
    /// State.
    State,
    /// Authentication algorithm.
    Auth,
    /// Encryption algorithm.
    Encrypt,
    /// A field of a lifetime.
    Life(Term, Field),
    /// Source, and whether IPv6 is meant.
    Src(bool),
    /// Destination.
    Dst(bool),
    /// Inner source.
    InnerSrc(bool),
    /// Inner destination.
    InnerDst(bool),
    /// `also`: another pair of nets that inner packets may be between.
    Also,
    /// Ports.
    Port(End),
    /// Protocol of the outer addresses.
    Proto,
    /// Protocol of the inner addresses.
    InnerProto,
    /// UDP encapsulation.
    Encap,
    /// NAT-T addresses.
    NatLoc,
    /// The same, of the other end.
    NatRem,
    /// Keys.
    AuthKey,
    /// The same.
    EncryptKey,
    /// Bits of the encryption key that are something else.
    ReservedBits,
    /// Identities.
    SrcIdentity,
    /// The same.
    DstIdentity,
    /// Sequence number.
    ReplayValue,
    /// Directions.
    Inbound,
    /// The same.
    Outbound,
    /// Known, but not for anybody to say; with what to do.
    Refused(&'static str),
}

/// Which lifetime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Term {
    /// The SA ends.
    Hard,
    /// Key managers are told.
    Soft,
    /// Nothing was carried for so long.
    Idle,
}

/// Which number of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    /// Flows.
    Allocations,
    /// Octets.
    Bytes,
    /// Seconds since it was added.
    Addtime,
    /// Seconds since its first use.
    Usetime,
}

/// Which port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Of the source.
    Src,
    /// Of the destination.
    Dst,
    /// Of the inner source.
    InnerSrc,
    /// Of the inner destination.
    InnerDst,
    /// Of UDP, here.
    NatLoc,
    /// Of UDP, there.
    NatRem,
}

const CURRENT: &str = "klips counts that itself; leave it out";
const FLAGS: &str =
    "flags follow from the other words (inbound, outbound, encap, isrc, pair-spi); leave it out";
const LABELS: &str = "klips has no security labels; leave it out";

/// Every spelling.
#[rustfmt::skip]
pub(super) const KEYWORDS: &[(&str, Keyword)] = {
    use Field::{Addtime, Allocations, Bytes, Usetime};
    use Keyword as K;
    use Term::{Hard, Idle, Soft};
    &[
        ("spi", K::Spi), ("pair-spi", K::PairSpi), ("replay", K::Replay), ("esn", K::Esn), ("state", K::State),
        ("auth_alg", K::Auth), ("authalg", K::Auth), ("encr_alg", K::Encrypt), ("encralg", K::Encrypt),
        ("soft_alloc", K::Life(Soft, Allocations)), ("hard_alloc", K::Life(Hard, Allocations)),
        ("soft_bytes", K::Life(Soft, Bytes)), ("hard_bytes", K::Life(Hard, Bytes)),
        ("soft_addtime", K::Life(Soft, Addtime)), ("hard_addtime", K::Life(Hard, Addtime)),
        ("soft_usetime", K::Life(Soft, Usetime)), ("hard_usetime", K::Life(Hard, Usetime)),
        ("idle_addtime", K::Life(Idle, Addtime)), ("idle_usetime", K::Life(Idle, Usetime)),
        ("src", K::Src(false)), ("srcaddr", K::Src(false)), ("saddr", K::Src(false)),
        ("src6", K::Src(true)), ("srcaddr6", K::Src(true)), ("saddr6", K::Src(true)),
        ("dst", K::Dst(false)), ("dstaddr", K::Dst(false)), ("daddr", K::Dst(false)),
        ("dst6", K::Dst(true)), ("dstaddr6", K::Dst(true)), ("daddr6", K::Dst(true)),
        ("isrc", K::InnerSrc(false)), ("innersrc", K::InnerSrc(false)),
        ("proxy", K::InnerSrc(false)), ("proxyaddr", K::InnerSrc(false)),
        ("isrc6", K::InnerSrc(true)), ("innersrc6", K::InnerSrc(true)),
        ("proxy6", K::InnerSrc(true)), ("proxyaddr6", K::InnerSrc(true)),
        ("idst", K::InnerDst(false)), ("innerdst", K::InnerDst(false)),
        ("idst6", K::InnerDst(true)), ("innerdst6", K::InnerDst(true)),
        ("also", K::Also),
        ("sport", K::Port(End::Src)), ("dport", K::Port(End::Dst)),
        ("isport", K::Port(End::InnerSrc)), ("innersport", K::Port(End::InnerSrc)),
        ("idport", K::Port(End::InnerDst)), ("innerdport", K::Port(End::InnerDst)),
        ("proto", K::Proto), ("ulp", K::Proto), ("iproto", K::InnerProto), ("iulp", K::InnerProto),
        ("encap", K::Encap), ("nat_loc", K::NatLoc), ("nat_rem", K::NatRem),
        ("nat_lport", K::Port(End::NatLoc)), ("nat_rport", K::Port(End::NatRem)),
        ("authkey", K::AuthKey), ("encrkey", K::EncryptKey), ("reserved_bits", K::ReservedBits),
        ("srcidtype", K::SrcIdentity), ("dstidtype", K::DstIdentity),
        ("replay_value", K::ReplayValue), ("inbound", K::Inbound), ("outbound", K::Outbound),
        ("flags", K::Refused(FLAGS)), ("dpd", K::Refused(LABELS)),
        ("current_alloc", K::Refused(CURRENT)), ("current_bytes", K::Refused(CURRENT)),
        ("current_addtime", K::Refused(CURRENT)), ("current_usetime", K::Refused(CURRENT)),
        ("sens_level", K::Refused(LABELS)), ("sens_map", K::Refused(LABELS)),
        ("integ_level", K::Refused(LABELS)), ("integ_map", K::Refused(LABELS)),
        ("label", K::Refused(LABELS)), ("outer-label", K::Refused(LABELS)),
        ("implicit-label", K::Refused(LABELS)),
    ]
};

/// A host by address or by a name that is looked up when the message is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Host {
    /// An address.
    Ip(IpAddr),
    /// A name, and whether only IPv6 will do.
    Name(String, bool),
}

/// A key. `Debug` shows its size only.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct KeyBits {
    /// Whole octets.
    pub(super) octets: Zeroizing<Vec<u8>>,
    /// How many of their bits count, salt included.
    pub(super) bits: u16,
}

impl core::fmt::Debug for KeyBits {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "KeyBits({} bits)", self.bits)
    }
}

/// Everything a line said about an SA.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Attributes {
    pub(super) spi: Option<u32>,
    pub(super) pair_spi: Option<u32>,
    pub(super) replay: Option<u16>,
    pub(super) esn: bool,
    pub(super) state: Option<u8>,
    pub(super) auth: Option<u8>,
    pub(super) encrypt: Option<u8>,
    pub(super) hard: Lifetime,
    pub(super) soft: Lifetime,
    pub(super) idle: Lifetime,
    pub(super) src: Option<Host>,
    pub(super) dst: Option<Host>,
    pub(super) inner_src: Option<(Host, Option<u8>)>,
    pub(super) inner_dst: Option<(Host, Option<u8>)>,
    pub(super) also: Vec<InnerPair>,
    pub(super) sport: u16,
    pub(super) dport: u16,
    pub(super) inner_sport: u16,
    pub(super) inner_dport: u16,
    pub(super) proto: u8,
    pub(super) inner_proto: u8,
    pub(super) encap: bool,
    pub(super) nat_loc: Option<Ipv4Addr>,
    pub(super) nat_rem: Option<Ipv4Addr>,
    pub(super) nat_lport: Option<u16>,
    pub(super) nat_rport: Option<u16>,
    pub(super) auth_key: Option<KeyBits>,
    pub(super) encrypt_key: Option<KeyBits>,
    pub(super) reserved_bits: u16,
    pub(super) src_identity: Option<(u16, String)>,
    pub(super) dst_identity: Option<(u16, String)>,
    pub(super) replay_value: Option<u64>,
    pub(super) inbound: bool,
    pub(super) outbound: bool,
}

/// The keyword of a word, in either case.
pub(super) fn keyword(text: &str) -> Option<Keyword> {
    KEYWORDS.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|&(_, keyword)| keyword)
}

/// Reads `keyword value …` until the words end.
pub(super) fn read(words: &[Word], kind: MessageType) -> Result<Attributes, Wrong> {
    let mut attributes = Attributes::default();
    let mut seen = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let keyword = keyword(&word.text).ok_or_else(|| unknown(word))?;
        if let Keyword::Refused(why) = keyword {
            return Err(Wrong::at(word, why));
        }
        if !takes(kind, keyword) {
            return Err(Wrong::at(
                word,
                "this command takes spi, src, dst, sport, dport, proto, inbound and outbound only",
            ));
        }
        if keyword != Keyword::Also && seen.contains(&same(keyword)) {
            return Err(Wrong::at(word, "is there twice; leave one out"));
        }
        seen.push(same(keyword));
        let mut next = || words.next().ok_or_else(|| Wrong::at(word, "a value must follow"));
        attributes.take(keyword, word, &mut next)?;
    }
    Ok(attributes)
}

/// `src` and `src6` say the same thing.
const fn same(keyword: Keyword) -> Keyword {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the others are said in one way")]
    match keyword {
        Keyword::Src(_) => Keyword::Src(false),
        Keyword::Dst(_) => Keyword::Dst(false),
        Keyword::InnerSrc(_) => Keyword::InnerSrc(false),
        Keyword::InnerDst(_) => Keyword::InnerDst(false),
        other => other,
    }
}

/// GET and DELETE only name an SA.
fn takes(kind: MessageType, keyword: Keyword) -> bool {
    use Keyword as K;
    let naming = matches!(
        keyword,
        K::Spi | K::Src(_) | K::Dst(_) | K::Port(End::Src | End::Dst) | K::Proto | K::Inbound | K::Outbound
    );
    naming || matches!(kind, MessageType::Add | MessageType::Update | MessageType::UpdatePair)
}

fn unknown(word: &Word) -> Wrong {
    // The word may be a key whose keyword was forgotten.
    let hex = word.text.trim_start_matches("0x");
    if hex.len() > 8 && hex.bytes().all(|c| c.is_ascii_hexdigit() || c == b'/') {
        return Wrong::here(word.line, "a value without a keyword: write authkey or encrkey before a key");
    }
    let near: Vec<&str> = KEYWORDS
        .iter()
        .filter(|(name, keyword)| {
            !matches!(keyword, Keyword::Refused(_))
                && word.text.get(..3).is_some_and(|start| name.starts_with(&start.to_ascii_lowercase()))
        })
        .map(|(name, _)| *name)
        .collect();
    match &near[..] {
        [] => Wrong::at(word, "no such keyword; `help add' lists them"),
        near => Wrong::at(word, format_args!("no such keyword; did you mean {}?", near.join(", "))),
    }
}

impl Attributes {
    fn take<'w>(
        &mut self,
        keyword: Keyword,
        word: &Word,
        next: &mut dyn FnMut() -> Result<&'w Word, Wrong>,
    ) -> Result<(), Wrong> {
        use Keyword as K;
        match keyword {
            K::Spi => self.spi = Some(number(next()?)?),
            K::PairSpi => self.pair_spi = Some(number(next()?)?),
            K::Replay => {
                let value = next()?;
                let width = number(value)?;
                if width > 4096_u16 {
                    return Err(Wrong::at(value, "a replay window is at most 4096 packets wide"));
                }
                self.replay = Some(width);
            }
            K::Esn => self.esn = true,
            K::State => self.state = Some(state_of(next()?)?),
            K::Auth => {
                let by_name = |name: &str| Auth::from_name(name).map(|auth| auth.row().number);
                self.auth = Some(algorithm(next()?, by_name, "hmac-sha256")?);
            }
            K::Encrypt => {
                let by_name = |name: &str| Encryption::from_name(name).map(|cipher| cipher.row().number);
                self.encrypt = Some(algorithm(next()?, by_name, "aes-gcm16")?);
            }
            K::Life(term, field) => self.limit(term, field, next()?)?,
            K::Src(v6) => self.src = Some(host(next()?, v6)?),
            K::Dst(v6) => self.dst = Some(host(next()?, v6)?),
            K::InnerSrc(v6) => self.inner_src = Some(net(next()?, v6)?),
            K::InnerDst(v6) => self.inner_dst = Some(net(next()?, v6)?),
            K::Also => self.also.push(pair(next()?)?),
            K::Port(End::Src) => self.sport = number(next()?)?,
            K::Port(End::Dst) => self.dport = number(next()?)?,
            K::Port(End::InnerSrc) => self.inner_sport = number(next()?)?,
            K::Port(End::InnerDst) => self.inner_dport = number(next()?)?,
            K::Port(End::NatLoc) => self.nat_lport = Some(number(next()?)?),
            K::Port(End::NatRem) => self.nat_rport = Some(number(next()?)?),
            K::Proto => self.proto = protocol(next()?)?,
            K::InnerProto => self.inner_proto = protocol(next()?)?,
            K::Encap => {
                let value = next()?;
                if !value.text.eq_ignore_ascii_case("udp") {
                    return Err(Wrong::at(value, "only `encap udp' is known"));
                }
                self.encap = true;
            }
            K::NatLoc => self.nat_loc = Some(v4(next()?)?),
            K::NatRem => self.nat_rem = Some(v4(next()?)?),
            K::AuthKey => self.auth_key = Some(key(word, next()?)?),
            K::EncryptKey => self.encrypt_key = Some(key(word, next()?)?),
            K::ReservedBits => {
                if self.encrypt_key.is_some() {
                    return Err(Wrong::at(word, "must stand before encrkey"));
                }
                self.reserved_bits = number(next()?)?;
            }
            K::SrcIdentity => self.src_identity = Some(identity_of(next()?, next()?)?),
            K::DstIdentity => self.dst_identity = Some(identity_of(next()?, next()?)?),
            K::ReplayValue => self.replay_value = Some(number(next()?)?),
            K::Inbound => self.inbound = true,
            K::Outbound => self.outbound = true,
            K::Refused(why) => return Err(Wrong::at(word, why)),
        }
        Ok(())
    }

    fn limit(&mut self, term: Term, field: Field, value: &Word) -> Result<(), Wrong> {
        let life = match term {
            Term::Hard => &mut self.hard,
            Term::Soft => &mut self.soft,
            Term::Idle => &mut self.idle,
        };
        match field {
            Field::Allocations => life.allocations = number(value)?,
            Field::Bytes => life.bytes = number(value)?,
            Field::Addtime => life.addtime = number(value)?,
            Field::Usetime => life.usetime = number(value)?,
        }
        Ok(())
    }
}

/// A number of C that fits its field.
fn number<T: TryFrom<u64>>(word: &Word) -> Result<T, Wrong> {
    let bits = size_of::<T>() * 8;
    let value =
        text::number(&word.text).map_err(|_| Wrong::at(word, "not a number; write 10, 0x0a or 012"))?;
    T::try_from(value).map_err(|_| Wrong::at(word, format_args!("does not fit {bits} bits")))
}

/// `SOURCE/PREFIX,DESTINATION/PREFIX`, and behind that `,PROTOCOL,PORT,PORT`.
fn pair(word: &Word) -> Result<InnerPair, Wrong> {
    let wrong = || {
        let form = "write SOURCE/PREFIX,DESTINATION/PREFIX or the same with ,PROTOCOL,PORT,PORT, in one word and one family";
        Wrong::at(word, form)
    };
    let parts: Vec<&str> = word.text.split(',').collect();
    let net = |text: &str| text.parse::<ipnet::IpNet>().map_err(|_| wrong());
    let (src, dst, (proto, sport, dport)) = match parts[..] {
        [src, dst] => (net(src)?, net(dst)?, (0, 0, 0)),
        [src, dst, proto, sport, dport] => {
            let number = |text: &str| text.parse::<u16>().map_err(|_| wrong());
            let proto = text::protocol(proto).map_err(|_| wrong())?;
            (net(src)?, net(dst)?, (proto, number(sport)?, number(dport)?))
        }
        _ => return Err(wrong()),
    };
    if src.addr().is_ipv4() != dst.addr().is_ipv4() {
        return Err(wrong());
    }
    Ok(InnerPair {
        proto,
        src: SocketAddr::new(src.network(), sport),
        src_prefix: src.prefix_len(),
        dst: SocketAddr::new(dst.network(), dport),
        dst_prefix: dst.prefix_len(),
    })
}

fn protocol(word: &Word) -> Result<u8, Wrong> {
    text::protocol(&word.text)
        .map_err(|_| Wrong::at(word, "not a protocol; write a number up to 255, or a name like tcp"))
}

fn algorithm(word: &Word, by_name: impl Fn(&str) -> Option<u8>, example: &str) -> Result<u8, Wrong> {
    match text::number(&word.text) {
        Ok(_) => number(word),
        Err(_) => by_name(&word.text).ok_or_else(|| {
            Wrong::at(
                word,
                format_args!("no such algorithm; try {example}, `ipsec pf_key --supported' lists all"),
            )
        }),
    }
}

fn state_of(word: &Word) -> Result<u8, Wrong> {
    match word.text.to_ascii_lowercase().as_str() {
        "mature" => Ok(state::MATURE),
        "dying" => Ok(state::DYING),
        "dead" => Ok(state::DEAD),
        "larval" => Err(Wrong::at(word, "only GETSPI makes larval SAs; leave it out")),
        _ => Err(Wrong::at(word, "not a state; mature is the only useful one, and need not be said")),
    }
}

fn host(word: &Word, v6: bool) -> Result<Host, Wrong> {
    let name = &word.text;
    if let Ok(ip) = name.parse::<IpAddr>() {
        let ip = ip.to_canonical();
        return if v6 && ip.is_ipv4() {
            Err(Wrong::at(word, "not an IPv6 address; say src or dst without the 6"))
        } else {
            Ok(Host::Ip(ip))
        };
    }
    let like_a_name = name.len() <= 253
        && name.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b'_'))
        && name.bytes().any(|c| c.is_ascii_alphabetic())
        && !name.starts_with(['-', '.'])
        && !name.to_ascii_lowercase().starts_with("0x");
    if like_a_name {
        Ok(Host::Name(name.to_string(), v6))
    } else {
        Err(Wrong::at(word, "neither an address nor the name of a host"))
    }
}

fn v4(word: &Word) -> Result<Ipv4Addr, Wrong> {
    word.text.parse().map_err(|_| Wrong::at(word, "not an IPv4 address; NAT-T addresses are"))
}

fn net(word: &Word, v6: bool) -> Result<(Host, Option<u8>), Wrong> {
    let (address, prefix) = match word.text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (word.text.as_str(), None),
    };
    let part = Word { text: Zeroizing::new(address.to_owned()), line: word.line };
    let host = host(&part, v6)?;
    let Some(prefix) = prefix else { return Ok((host, None)) };
    let longest = if matches!(host, Host::Ip(IpAddr::V4(_))) { 32 } else { 128 };
    match text::number_in(prefix, 10).map(u8::try_from) {
        Ok(Ok(len)) if len <= longest => Ok((host, Some(len))),
        _ => Err(Wrong::at(word, format_args!("the prefix length must be a number up to {longest}"))),
    }
}

/// `hex[/bits]`. What is wrong with it is said about the keyword: a key is not repeated.
fn key(keyword: &Word, word: &Word) -> Result<KeyBits, Wrong> {
    let wrong = |why: &str| Wrong::at(keyword, why);
    let (digits, bits) = match word.text.split_once('/') {
        Some((digits, bits)) => (digits, Some(bits)),
        None => (word.text.as_str(), None),
    };
    let digits = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")).unwrap_or(digits);
    if digits.is_empty() {
        return Err(wrong("no key there; write hexadecimal digits"));
    }
    let mut octets = Zeroizing::new(Vec::with_capacity(digits.len().div_ceil(2)));
    for pair in digits.as_bytes().chunks(2) {
        let digit = |at: usize| match pair.get(at) {
            Some(&c) => char::from(c).to_digit(16),
            // An odd digit is the high half of its octet.
            None => Some(0),
        };
        let (Some(high), Some(low)) = (digit(0), digit(1)) else {
            return Err(wrong("the key must be hexadecimal digits, or those with /bits after them"));
        };
        octets.push((high << 4 | low) as u8);
    }
    let all = octets.len() * 8;
    let bits = match bits {
        None => all,
        Some(bits) => usize::try_from(text::number_in(bits, 10).unwrap_or(0)).unwrap_or(0),
    };
    if bits == 0 || bits > all {
        return Err(wrong("/bits must be a number, 1 to the bits of the digits"));
    }
    octets.truncate(bits.div_ceil(8));
    let bits = u16::try_from(bits).map_err(|_| wrong("the key is longer than any key"))?;
    Ok(KeyBits { octets, bits })
}

/// The identity types by name.
pub(super) const IDENTITIES: &[(&str, u16)] = &[
    ("prefix", identity::PREFIX),
    ("fqdn", identity::FQDN),
    ("domain", identity::FQDN),
    ("domainname", identity::FQDN),
    ("user_fqdn", identity::USER_FQDN),
    ("mailbox", identity::USER_FQDN),
    ("der_dn", identity::DN),
    ("der_gn", identity::GN),
];

fn identity_of(kind: &Word, value: &Word) -> Result<(u16, String), Wrong> {
    let known = IDENTITIES.iter().find(|(name, _)| name.eq_ignore_ascii_case(&kind.text));
    let kind = match known {
        Some(&(_, number)) => number,
        None => number(kind).map_err(|_| {
            Wrong::at(kind, "not an identity type; write prefix, fqdn, user_fqdn, der_dn, der_gn or a number")
        })?,
    };
    Ok((kind, value.text.to_string()))
}
