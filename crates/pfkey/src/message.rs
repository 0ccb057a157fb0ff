//! One record as a message: the base header and its extensions, each at most once.
//!
//! The order of the checks is part of the interface (RFC 2367 §2.3; pf_key(7P)): the length, then each extension in
//! turn: its type, its length, whether it was there before, its content. The first fault is the one reported.

use crate::ext::{
    Address, Counters, Flow, FlowAction, FlowDirection, FlowPolicy, Further, Group, Identity, Key, KmCookie,
    Level, Lifetime, PacketLimits, Pair, ReplayValue, Sa, SaParams, SaPolicy, Selectors, Sensitivity,
    SocketOptions, SpiRange, Tfc, Wanted, sensitivity, sockaddr,
};
use crate::{Diagnostic, Errno, ExtType, MessageType, SaType};
use core::net::Ipv6Addr;

/// PF_KEY_V2.
const VERSION: u8 = 2;

/// The base header, `struct sadb_msg`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base {
    /// Always 2 in what we send; never checked in what we get.
    pub version: u8,
    /// The number of the message type; see [`Base::kind`].
    pub number: u8,
    /// Why it failed; 0 for success.
    pub errno: Errno,
    /// The number of the SA type; see [`Base::satype`].
    pub satype_number: u8,
    /// The whole message in words of 64 bits.
    pub words: u16,
    /// The diagnostic that goes with the errno.
    pub diagnostic: u16,
    /// The sender's sequence number, echoed.
    pub seq: u32,
    /// The sender's process, echoed.
    pub pid: u32,
}

impl Base {
    /// Octets on the wire.
    pub const LEN: usize = 16;

    /// The header of a request.
    pub const fn request(kind: MessageType, satype: SaType, seq: u32, pid: u32) -> Self {
        Self {
            version: VERSION,
            number: kind.number(),
            errno: Errno(0),
            satype_number: satype.number(),
            words: 2,
            diagnostic: 0,
            seq,
            pid,
        }
    }

    /// Reads the header.
    pub const fn parse(octets: &[u8; Self::LEN]) -> Self {
        let &[version, number, errno, satype_number, l0, l1, d0, d1, s0, s1, s2, s3, p0, p1, p2, p3] = octets;
        Self {
            version,
            number,
            errno: Errno(errno),
            satype_number,
            words: u16::from_ne_bytes([l0, l1]),
            diagnostic: u16::from_ne_bytes([d0, d1]),
            seq: u32::from_ne_bytes([s0, s1, s2, s3]),
            pid: u32::from_ne_bytes([p0, p1, p2, p3]),
        }
    }

    /// Writes the header.
    pub const fn octets(&self) -> [u8; Self::LEN] {
        let [l0, l1] = self.words.to_ne_bytes();
        let [d0, d1] = self.diagnostic.to_ne_bytes();
        let [s0, s1, s2, s3] = self.seq.to_ne_bytes();
        let [p0, p1, p2, p3] = self.pid.to_ne_bytes();
        let Self { version, number, errno, satype_number, .. } = *self;
        [version, number, errno.0, satype_number, l0, l1, d0, d1, s0, s1, s2, s3, p0, p1, p2, p3]
    }

    /// The message type, if the number is one.
    pub const fn kind(&self) -> Option<MessageType> {
        MessageType::from_number(self.number)
    }

    /// The SA type, if the number is one that has a database (or is 0).
    pub const fn satype(&self) -> Option<SaType> {
        SaType::from_number(self.satype_number)
    }

    /// The answer that says why a message was refused: the header alone, a type that does not exist replaced by 0.
    pub const fn refusal(&self, fault: Fault) -> [u8; Self::LEN] {
        let number = if self.kind().is_some() { self.number } else { 0 };
        Self { number, errno: fault.errno, diagnostic: fault.diagnostic.number(), words: 2, ..*self }.octets()
    }
}

/// Why a message was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The errno value of the answer.
    pub errno: Errno,
    /// The diagnostic of the answer.
    pub diagnostic: Diagnostic,
}

impl Fault {
    /// EINVAL and what is wrong.
    pub const fn invalid(diagnostic: Diagnostic) -> Self {
        Self { errno: Errno::EINVAL, diagnostic }
    }

    /// An errno value that needs no diagnostic.
    pub const fn errno(errno: Errno) -> Self {
        Self { errno, diagnostic: Diagnostic::None }
    }
}

impl core::fmt::Display for Fault {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        if self.diagnostic == Diagnostic::None {
            return f.write_str(self.errno.name());
        }
        write!(f, "{}, {}", self.errno.name(), self.diagnostic.text())
    }
}

impl core::error::Error for Fault {}

/// One extension as it lies in the record. `Debug` does not show what is in it: it may be a key.
#[derive(Clone, Copy)]
pub struct Extension<'m> {
    /// Its type.
    pub kind: ExtType,
    /// All of it, the extension header included.
    pub octets: &'m [u8],
}

impl core::fmt::Debug for Extension<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:?}({} octets)", self.kind, self.octets.len())
    }
}

/// The extensions of a parsed message in their order.
#[derive(Clone)]
pub struct Extensions<'m> {
    rest: &'m [u8],
}

impl core::fmt::Debug for Extensions<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list().entries(self.clone()).finish()
    }
}

impl<'m> Iterator for Extensions<'m> {
    type Item = Extension<'m>;

    fn next(&mut self) -> Option<Extension<'m>> {
        let (extension, rest) = split(self.rest).ok()?;
        self.rest = rest;
        Some(extension)
    }
}

/// Takes the first extension off.
fn split(octets: &[u8]) -> Result<(Extension<'_>, &[u8]), Diagnostic> {
    let &[l0, l1, t0, t1] = octets.first_chunk::<4>().ok_or(Diagnostic::BadExtlen)?;
    let kind = ExtType::from_number(u16::from_ne_bytes([t0, t1])).ok_or(Diagnostic::UnknownExt)?;
    let len = usize::from(u16::from_ne_bytes([l0, l1])).saturating_mul(8);
    let (octets, rest) = octets.split_at_checked(len).filter(|_| len != 0).ok_or(Diagnostic::BadExtlen)?;
    Ok((Extension { kind, octets }, rest))
}

/// A parsed message. Every extension is there at most once and has the shape of its type (labels: see there).
#[derive(Clone, Debug)]
pub struct Message<'m> {
    /// The base header.
    pub base: Base,
    extensions: Extensions<'m>,
    /// SADB_EXT_SA.
    pub sa: Option<Sa>,
    /// SADB_EXT_LIFETIME_CURRENT.
    pub current: Option<Lifetime>,
    /// SADB_EXT_LIFETIME_HARD.
    pub hard: Option<Lifetime>,
    /// SADB_EXT_LIFETIME_SOFT.
    pub soft: Option<Lifetime>,
    /// SADB_X_EXT_LIFETIME_IDLE.
    pub idle: Option<Lifetime>,
    /// SADB_EXT_ADDRESS_SRC.
    pub src: Option<Address>,
    /// SADB_EXT_ADDRESS_DST.
    pub dst: Option<Address>,
    /// SADB_X_EXT_ADDRESS_INNER_SRC.
    pub inner_src: Option<Address>,
    /// SADB_X_EXT_ADDRESS_INNER_DST.
    pub inner_dst: Option<Address>,
    /// SADB_X_EXT_ADDRESS_NATT_LOC.
    pub natt_loc: Option<Address>,
    /// SADB_X_EXT_ADDRESS_NATT_REM.
    pub natt_rem: Option<Address>,
    /// SADB_EXT_KEY_AUTH.
    pub auth_key: Option<Key<'m>>,
    /// SADB_EXT_KEY_ENCRYPT.
    pub encrypt_key: Option<Key<'m>>,
    /// SADB_EXT_IDENTITY_SRC.
    pub src_identity: Option<Identity<'m>>,
    /// SADB_EXT_IDENTITY_DST.
    pub dst_identity: Option<Identity<'m>>,
    /// SADB_EXT_SPIRANGE.
    pub spi_range: Option<SpiRange>,
    /// SADB_X_EXT_KM_COOKIE.
    pub km_cookie: Option<KmCookie>,
    /// SADB_X_EXT_PAIR.
    pub pair: Option<Pair>,
    /// SADB_X_EXT_REPLAY_VALUE.
    pub replay_value: Option<ReplayValue>,
    /// SADB_X_EXT_EDUMP: the time-out in seconds.
    pub edump: Option<u64>,
    /// SADB_X_EXT_EREG: the SA types, up to the first 0.
    pub ereg: Option<&'m [u8]>,
    /// SADB_EXT_SENSITIVITY, if its lengths fit it.
    pub sensitivity: Option<Sensitivity<'m>>,
    /// SADB_X_EXT_OUTER_SENS, likewise.
    pub outer_sensitivity: Option<Sensitivity<'m>>,
    /// Native: SAs that are applied together.
    pub group: Option<Group<'m>>,
    /// Native: what an eroute does.
    pub flow: Option<Flow>,
    /// Native: wide window and ESN.
    pub sa_params: Option<SaParams>,
    /// Native: limits of packets.
    pub packet_limits: Option<PacketLimits>,
    /// Native: what else an SA may carry.
    pub selectors: Option<Selectors<'m>>,
    /// Native: TFC padding and dummy packets.
    pub tfc: Option<Tfc>,
    /// Native: socket options.
    pub socket: Option<SocketOptions>,
    /// Native: counters of an SA.
    pub counters: Option<Counters>,
    /// Native: the source from now on, or where a packet came from.
    pub new_src: Option<Address>,
    /// Native: the destination from now on.
    pub new_dst: Option<Address>,
    /// Native: how policy finds the SA.
    pub sa_policy: Option<SaPolicy>,
    /// Native: what an eroute of another dialect is besides.
    pub flow_policy: Option<FlowPolicy>,
    seen: u64,
}

impl<'m> Message<'m> {
    /// Reads one record as a request.
    pub fn parse(octets: &'m [u8]) -> Result<Self, Fault> {
        Self::read(octets, false)
    }

    /// Reads one record as an answer or notice: as [`Message::parse`], but keys may have their salt beside the key
    /// bits, which is how GET and DUMP show them.
    pub fn parse_answer(octets: &'m [u8]) -> Result<Self, Fault> {
        Self::read(octets, true)
    }

    fn read(octets: &'m [u8], answer: bool) -> Result<Self, Fault> {
        let (head, mut rest) =
            octets.split_first_chunk::<{ Base::LEN }>().ok_or(Fault::errno(Errno::EMSGSIZE))?;
        let base = Base::parse(head);
        if usize::from(base.words).saturating_mul(8) != octets.len() {
            return Err(Fault::errno(Errno::EMSGSIZE));
        }
        let mut message = Self::empty(base, rest);
        while !rest.is_empty() {
            let (extension, after) = split(rest).map_err(Fault::invalid)?;
            rest = after;
            let bit = bit(extension.kind);
            if message.seen & bit != 0 {
                return Err(Fault::invalid(duplicate(extension.kind)));
            }
            message.seen |= bit;
            message.take(extension, answer).map_err(Fault::invalid)?;
        }
        Ok(message)
    }

    const fn empty(base: Base, octets: &'m [u8]) -> Self {
        Self {
            base,
            extensions: Extensions { rest: octets },
            sa: None,
            current: None,
            hard: None,
            soft: None,
            idle: None,
            src: None,
            dst: None,
            inner_src: None,
            inner_dst: None,
            natt_loc: None,
            natt_rem: None,
            auth_key: None,
            encrypt_key: None,
            src_identity: None,
            dst_identity: None,
            spi_range: None,
            km_cookie: None,
            pair: None,
            replay_value: None,
            edump: None,
            ereg: None,
            sensitivity: None,
            outer_sensitivity: None,
            group: None,
            flow: None,
            sa_params: None,
            packet_limits: None,
            selectors: None,
            tfc: None,
            socket: None,
            counters: None,
            new_src: None,
            new_dst: None,
            sa_policy: None,
            flow_policy: None,
            seen: 0,
        }
    }

    /// Says whether an extension of this type is there.
    pub fn has(&self, kind: ExtType) -> bool {
        self.seen & bit(kind) != 0
    }

    /// Whether it is the base header alone.
    pub const fn is_bare(&self) -> bool {
        self.seen == 0
    }

    /// The extensions in their order.
    pub fn extensions(&self) -> Extensions<'m> {
        self.extensions.clone()
    }

    /// The octets of an extension, header included.
    pub fn raw(&self, kind: ExtType) -> Option<&'m [u8]> {
        self.extensions().find(|extension| extension.kind == kind).map(|extension| extension.octets)
    }

    /// Reads the content of one extension.
    fn take(&mut self, extension: Extension<'m>, answer: bool) -> Result<(), Diagnostic> {
        use Diagnostic as D;
        let octets = extension.octets;
        match extension.kind {
            ExtType::Sa => self.sa = Some(sa(octets).ok_or(D::MalformedSa)?),
            ExtType::LifetimeCurrent => self.current = Some(lifetime(octets).ok_or(D::None)?),
            ExtType::LifetimeHard => self.hard = Some(lifetime(octets).ok_or(D::None)?),
            ExtType::LifetimeSoft => self.soft = Some(lifetime(octets).ok_or(D::None)?),
            ExtType::LifetimeIdle => self.idle = Some(lifetime(octets).ok_or(D::None)?),
            ExtType::AddressSrc => self.src = Some(address(octets).ok_or(D::MalformedSrc)?),
            ExtType::AddressDst => self.dst = Some(address(octets).ok_or(D::MalformedDst)?),
            ExtType::AddressInnerSrc => self.inner_src = Some(address(octets).ok_or(D::MalformedInnerSrc)?),
            ExtType::AddressInnerDst => self.inner_dst = Some(address(octets).ok_or(D::MalformedInnerDst)?),
            ExtType::AddressNattLoc => self.natt_loc = Some(address(octets).ok_or(D::MalformedNattLoc)?),
            ExtType::AddressNattRem => self.natt_rem = Some(address(octets).ok_or(D::MalformedNattRem)?),
            ExtType::KeyAuth => self.auth_key = Some(key(octets, answer).ok_or(D::MalformedAkey)?),
            ExtType::KeyEncrypt => self.encrypt_key = Some(key(octets, answer).ok_or(D::MalformedEkey)?),
            ExtType::IdentitySrc => self.src_identity = Some(identity(octets).ok_or(D::BadExtlen)?),
            ExtType::IdentityDst => self.dst_identity = Some(identity(octets).ok_or(D::BadExtlen)?),
            ExtType::SpiRange => {
                let range = spi_range(octets).ok_or(D::BadExtlen)?;
                if range.min > range.max {
                    return Err(D::MalformedRange);
                }
                self.spi_range = Some(range);
            }
            ExtType::KmCookie => self.km_cookie = Some(km_cookie(octets).ok_or(D::BadExtlen)?),
            ExtType::Pair => self.pair = Some(pair(octets).ok_or(D::BadExtlen)?),
            ExtType::ReplayValue => self.replay_value = Some(replay_value(octets).ok_or(D::BadExtlen)?),
            ExtType::Edump => self.edump = Some(edump(octets).ok_or(D::BadExtlen)?),
            ExtType::Ereg => self.ereg = Some(ereg(octets).ok_or(D::BadExtlen)?),
            // A label is refused as such, later, whatever is in it; only who reads one needs it whole.
            ExtType::Sensitivity => self.sensitivity = sensitivity(octets),
            ExtType::OuterSensitivity => self.outer_sensitivity = sensitivity(octets),
            ExtType::Proposal | ExtType::Eprop | ExtType::SupportedAuth | ExtType::SupportedEncrypt => {
                whole::<8>(octets).ok_or(D::BadExtlen)?
            }
            ExtType::Group => self.group = Some(Group::read(octets).ok_or(D::BadExtlen)?),
            ExtType::Flow => self.flow = Some(flow(octets).ok_or(D::BadExtlen)?),
            ExtType::SaParams => self.sa_params = Some(sa_params(octets).ok_or(D::BadExtlen)?),
            ExtType::PacketLimits => self.packet_limits = Some(packet_limits(octets).ok_or(D::BadExtlen)?),
            ExtType::Selectors => self.selectors = Some(Selectors::read(octets).ok_or(D::BadExtlen)?),
            ExtType::Tfc => self.tfc = Some(tfc(octets).ok_or(D::BadExtlen)?),
            ExtType::SocketOptions => self.socket = Some(socket(octets).ok_or(D::BadExtlen)?),
            ExtType::Counters => self.counters = Some(counters(octets).ok_or(D::BadExtlen)?),
            ExtType::NewSrc => self.new_src = Some(address(octets).ok_or(D::MalformedSrc)?),
            ExtType::NewDst => self.new_dst = Some(address(octets).ok_or(D::MalformedDst)?),
            ExtType::FlowPolicy => self.flow_policy = Some(flow_policy(octets).ok_or(D::BadExtlen)?),
            ExtType::SaPolicy => self.sa_policy = Some(sa_policy(octets).ok_or(D::BadExtlen)?),
        }
        Ok(())
    }
}

/// A bit for each extension type: the native ones, from 128, follow those of the page.
const fn bit(kind: ExtType) -> u64 {
    let number = kind.number();
    let place = if number < 128 { number } else { number.saturating_sub(128).saturating_add(32) };
    match 1_u64.checked_shl(place as u32) {
        Some(bit) => bit,
        None => 0,
    }
}

/// What pf_key(7P) says when an extension is there twice; it has no word for most of them.
const fn duplicate(kind: ExtType) -> Diagnostic {
    use Diagnostic as D;
    match kind {
        ExtType::AddressSrc => D::DuplicateSrc,
        ExtType::AddressDst => D::DuplicateDst,
        ExtType::Sa => D::DuplicateSa,
        ExtType::KeyEncrypt => D::DuplicateEkey,
        ExtType::KeyAuth => D::DuplicateAkey,
        ExtType::SpiRange => D::DuplicateRange,
        ExtType::AddressInnerSrc => D::DuplicateInnerSrc,
        ExtType::AddressInnerDst => D::DuplicateInnerDst,
        ExtType::LifetimeCurrent
        | ExtType::LifetimeHard
        | ExtType::LifetimeSoft
        | ExtType::LifetimeIdle
        // The page has words for these two, but what it describes never says them.
        | ExtType::AddressNattLoc
        | ExtType::AddressNattRem
        | ExtType::IdentitySrc
        | ExtType::IdentityDst
        | ExtType::Sensitivity
        | ExtType::OuterSensitivity
        | ExtType::Proposal
        | ExtType::SupportedAuth
        | ExtType::SupportedEncrypt
        | ExtType::Ereg
        | ExtType::Eprop
        | ExtType::KmCookie
        | ExtType::Pair
        | ExtType::ReplayValue
        | ExtType::Edump
        | ExtType::Flow
        | ExtType::SaParams
        | ExtType::Group
        | ExtType::SocketOptions
        | ExtType::Counters
        | ExtType::NewSrc
        | ExtType::NewDst
        | ExtType::SaPolicy
        | ExtType::FlowPolicy
        | ExtType::PacketLimits
        | ExtType::Selectors
        | ExtType::Tfc => D::None,
    }
}

/// Exactly `N` octets.
fn exactly<const N: usize>(octets: &[u8]) -> Option<&[u8; N]> {
    octets.try_into().ok()
}

/// At least `N` octets.
fn whole<const N: usize>(octets: &[u8]) -> Option<()> {
    (octets.len() >= N).then_some(())
}

pub(crate) fn sa(octets: &[u8]) -> Option<Sa> {
    let &[_, _, _, _, s0, s1, s2, s3, replay, state, auth, encrypt, f0, f1, f2, f3] = exactly::<16>(octets)?;
    let spi = u32::from_be_bytes([s0, s1, s2, s3]);
    Some(Sa { spi, replay, state, auth, encrypt, flags: u32::from_ne_bytes([f0, f1, f2, f3]) })
}

/// The u32 at octet 4 and the u64s from octet 8 of an extension of exactly `8 + 8 × W` octets.
fn numbers<const W: usize>(octets: &[u8]) -> Option<(u32, [u64; W])> {
    let (head, rest) = octets.split_first_chunk::<8>()?;
    let &[_, _, _, _, n0, n1, n2, n3] = head;
    let (words, tail) = rest.as_chunks::<8>();
    let words: &[[u8; 8]; W] = words.try_into().ok().filter(|_| tail.is_empty())?;
    Some((u32::from_ne_bytes([n0, n1, n2, n3]), words.map(u64::from_ne_bytes)))
}

pub(crate) fn lifetime(octets: &[u8]) -> Option<Lifetime> {
    let (allocations, [bytes, addtime, usetime]) = numbers(octets)?;
    Some(Lifetime { allocations, bytes, addtime, usetime })
}

pub(crate) fn address(octets: &[u8]) -> Option<Address> {
    let (head, rest) = octets.split_first_chunk::<8>()?;
    let &[_, _, _, _, proto, prefix, _, _] = head;
    Some(Address { proto, prefix, socket: sockaddr(rest).ok()? })
}

pub(crate) fn key(octets: &[u8], answer: bool) -> Option<Key<'_>> {
    let (head, data) = octets.split_first_chunk::<8>()?;
    let &[_, _, _, _, b0, b1, r0, r1] = head;
    let (bits, reserved) = (u16::from_ne_bytes([b0, b1]), u16::from_ne_bytes([r0, r1]));
    let salt = if answer { reserved } else { 0 };
    let len = usize::from(bits).saturating_add(usize::from(salt)) / 8;
    let key = data.get(..len)?;
    // An all-zero key is nobody's intention (reference Q1).
    let fits = len.next_multiple_of(8) == data.len() && bits != 0;
    (fits && key.iter().any(|octet| *octet != 0)).then_some(Key { bits, reserved, octets: key })
}

pub(crate) fn identity(octets: &[u8]) -> Option<Identity<'_>> {
    let (head, text) = octets.split_first_chunk::<16>()?;
    let &[_, _, _, _, k0, k1, _, _, ref id @ ..] = head;
    // Without a NUL the last octet makes room for one: the extension keeps its length (pf_key(7P)).
    let text = match text.iter().position(|octet| *octet == 0) {
        Some(end) => text.get(..end),
        None => text.split_last().map(|(_, text)| text),
    };
    let text = text.unwrap_or_default();
    Some(Identity { kind: u16::from_ne_bytes([k0, k1]), id: u64::from_ne_bytes(*id), text })
}

fn spi_range(octets: &[u8]) -> Option<SpiRange> {
    let &[_, _, _, _, a, b, c, d, e, f, g, h, _, _, _, _] = exactly::<16>(octets)?;
    Some(SpiRange { min: u32::from_be_bytes([a, b, c, d]), max: u32::from_be_bytes([e, f, g, h]) })
}

fn km_cookie(octets: &[u8]) -> Option<KmCookie> {
    let (proto, [cookie]) = numbers(octets)?;
    Some(KmCookie { proto, cookie })
}

fn pair(octets: &[u8]) -> Option<Pair> {
    let &[_, _, _, _, ref spi @ ..] = exactly::<8>(octets)?;
    Some(Pair { spi: u32::from_be_bytes(*spi) })
}

fn replay_value(octets: &[u8]) -> Option<ReplayValue> {
    let (low, [high]) = numbers(octets)?;
    Some(ReplayValue { low, high })
}

fn edump(octets: &[u8]) -> Option<u64> {
    let (_, [timeout]) = numbers(octets)?;
    Some(timeout)
}

fn ereg(octets: &[u8]) -> Option<&[u8]> {
    octets.get(4..)?.split(|octet| *octet == 0).next()
}

fn flow(octets: &[u8]) -> Option<Flow> {
    let &[_, _, _, _, action, ..] = octets.first_chunk::<8>()?;
    let (_, [packets, last_use]) = numbers(octets)?;
    Some(Flow { action: FlowAction::from_number(action)?, packets, last_use })
}

fn sa_params(octets: &[u8]) -> Option<SaParams> {
    let (window, [flags]) = numbers(octets)?;
    // A flag nobody knows would be a promise nobody keeps.
    (flags <= 1).then_some(SaParams { window, esn: flags == 1 })
}

fn packet_limits(octets: &[u8]) -> Option<PacketLimits> {
    let (_, [soft, hard]) = numbers(octets)?;
    Some(PacketLimits { soft, hard })
}

fn tfc(octets: &[u8]) -> Option<Tfc> {
    let (pad, [dummies]) = numbers(octets)?;
    Some(Tfc { pad, dummies: u32::try_from(dummies).ok()? })
}

fn flow_policy(octets: &[u8]) -> Option<FlowPolicy> {
    let (first, rest) = octets.split_first_chunk::<24>()?;
    let &[_, _, _, _, direction, level, mode, protocol, i0, i1, i2, i3, p0, p1, p2, p3, r0, r1, r2, r3, ..] =
        first;
    let wanted = match level {
        0 => None,
        _ => Some(wanted(level, mode, protocol, [r0, r1, r2, r3])?),
    };
    let (rest, torn) = rest.as_chunks::<40>();
    if !torn.is_empty() || rest.len() > FlowPolicy::MOST_FURTHER || wanted.is_none() && !rest.is_empty() {
        return None;
    }
    Some(FlowPolicy {
        direction: FlowDirection::from_number(direction)?,
        index: u32::from_ne_bytes([i0, i1, i2, i3]),
        priority: u32::from_ne_bytes([p0, p1, p2, p3]),
        wanted,
        further: rest.iter().map(further).collect::<Option<_>>()?,
    })
}

fn wanted(level: u8, mode: u8, protocol: u8, reqid: [u8; 4]) -> Option<Wanted> {
    let level = match level {
        1 => Level::Use,
        2 => Level::Require,
        3 => Level::Unique,
        _ => return None,
    };
    Some(Wanted { protocol, mode, level, reqid: u32::from_ne_bytes(reqid) })
}

fn further(octets: &[u8; 40]) -> Option<Further> {
    let &[_, level, mode, protocol, r0, r1, r2, r3, ref ends @ ..] = octets;
    let (src, rest) = ends.split_first_chunk::<16>()?;
    let ip = |octets: [u8; 16]| Ipv6Addr::from(octets).to_canonical();
    let (src, dst) = (ip(*src), ip(*rest.first_chunk::<16>()?));
    let wanted = wanted(level, mode, protocol, [r0, r1, r2, r3])?;
    (src.is_ipv4() == dst.is_ipv4()).then_some(Further { wanted, src, dst })
}

fn sa_policy(octets: &[u8]) -> Option<SaPolicy> {
    let (reqid, [flags]) = numbers(octets)?;
    (flags <= 1).then_some(SaPolicy { reqid, by_policy: flags == 1 })
}

fn socket(octets: &[u8]) -> Option<SocketOptions> {
    let (options, []) = numbers(octets)?;
    (options <= 3).then_some(SocketOptions { loopback: options & 1 != 0, quiet: options & 2 != 0 })
}

fn counters(octets: &[u8]) -> Option<Counters> {
    let (_, [packets, forged, replayed, sequence]) = numbers(octets)?;
    Some(Counters { packets, forged, replayed, sequence })
}
