//! Messages about one SA, both ways.
//!
//! | here | there |
//! |---|---|
//! | SA types AH, ESP, X_IPIP, X_COMP | the same; `tun` is an SA of its own, which a group puts inside of another |
//! | `NAT_T_TYPE`, `_SPORT`, `_DPORT` | `AddressNattLoc` and `AddressNattRem`, by direction |
//! | `NAT_T_OA`, `SAREF` | nothing: checksums are made right without the one, the other is of tables that are not here |
//! | a limit of packets, behind a lifetime | `PacketLimits` |
//! | `sadb_sa` of 24 octets | one of 16, the rest 0 |

use super::number::{AUTH, COMPRESSION, ENCRYPTION, WIDEST_WINDOW, errno, ext, flags};
use super::record::{Layout, Record};
use crate::dialect::parts;
use crate::{
    Address, Algorithm, Base, Comb, Diagnostic as D, Errno, ExtType, Fault, Lifetime, Message, MessageType,
    PacketLimits, Sa, SaPolicy, SaType, Writer,
};
use core::net::SocketAddr;

/// The SA type of a message about an SA.
pub(super) const fn satype(number: u8) -> Result<SaType, Fault> {
    match SaType::from_number(number) {
        Some(SaType::Unspec) => Err(Fault::invalid(D::SatypeNeeded)),
        Some(satype) => Ok(satype),
        None => Err(Fault::invalid(D::UnknownSatype)),
    }
}

/// A request about one SA: GETSPI, ADD, UPDATE or GET.
pub(super) fn request(record: &Record<'_>, kind: MessageType) -> Result<Vec<u8>, Fault> {
    satype(record.base.satype_number)?;
    let base = Base { diagnostic: 0, errno: Errno(0), ..record.base };
    let mut w = Writer::with_capacity(&base, 1024);
    if kind != MessageType::GetSpi {
        w.sa(&our_sa(record, kind)?);
    }
    let src = record.address(5, D::MissingSrc, D::MalformedSrc)?;
    let dst = record.address(6, D::MissingDst, D::MalformedDst)?;
    for (kind, address) in [(ExtType::AddressSrc, src), (ExtType::AddressDst, dst)] {
        w.address(kind, &host(&address));
    }
    if kind == MessageType::GetSpi {
        // In network order, as all SPIs.
        parts::ask_spi_range(&mut w, record, u32::from_be_bytes)?;
    }
    if matches!(kind, MessageType::Add | MessageType::Update) {
        complete(&mut w, record)?;
    }
    finish(w)
}

pub(super) fn finish(w: Writer) -> Result<Vec<u8>, Fault> {
    w.finish().map_err(|_| Fault::errno(Errno::EMSGSIZE))
}

/// An address without what only selectors have.
pub(super) fn host(address: &Address) -> Address {
    let socket = address.socket.map(|socket| SocketAddr::new(socket.ip(), 0));
    Address { proto: 0, prefix: 0, socket }
}

/// SADB_EXT_SA as it is on our side.
fn our_sa(record: &Record<'_>, kind: MessageType) -> Result<Sa, Fault> {
    let sa = record.sa(1)?;
    if !matches!(kind, MessageType::Add | MessageType::Update) {
        return Ok(Sa { spi: sa.spi, ..Sa::default() });
    }
    if sa.flags & !flags::PFS != 0 {
        return Err(Fault::invalid(D::BadSaflags));
    }
    if sa.replay > WIDEST_WINDOW {
        return Err(Fault::invalid(D::InvalidReplay));
    }
    let unknown = |diagnostic| Fault { errno: errno::ESOCKTNOSUPPORT, diagnostic };
    let known = |number: u8, list: &[u8]| number == 0 || list.contains(&number);
    let encryption =
        if record.base.satype_number == SaType::Ipcomp.number() { COMPRESSION } else { ENCRYPTION };
    if !known(sa.auth, AUTH) {
        return Err(unknown(D::BadAalg));
    }
    if !known(sa.encrypt, encryption) {
        return Err(unknown(D::BadEalg));
    }
    Ok(Sa { flags: parts::natt_flags(record)?, ..sa })
}

/// What an ADD and an UPDATE have besides the SA's name.
fn complete(w: &mut Writer, record: &Record<'_>) -> Result<(), Fault> {
    for kind in [ExtType::LifetimeHard, ExtType::LifetimeSoft] {
        if let Some(lifetime) = record.lifetime(kind) {
            w.lifetime(kind, &lifetime);
        }
    }
    let (soft, hard) = (record.packets(ExtType::LifetimeSoft), record.packets(ExtType::LifetimeHard));
    if soft != 0 || hard != 0 {
        w.packet_limits(&PacketLimits { soft, hard });
    }
    if parts::ask_ports(w, record) {
        // The ports are those of its packets, the sender's first.
        w.sa_policy(&SaPolicy { reqid: 0, by_policy: true });
    }
    parts::ask_keys(w, record)
}

/// SADB_EXT_SA or SADB_X_EXT_SA2 with the 8 octets that this dialect has behind it.
pub(super) fn put_sa(w: &mut Writer, number: u16, sa: &Sa) {
    w.numbered(number, |octets| {
        octets.extend_from_slice(&sa.spi.to_be_bytes());
        octets.extend_from_slice(&[sa.replay, sa.state, sa.auth, sa.encrypt]);
        octets.extend_from_slice(&sa.flags.to_ne_bytes());
        octets.extend_from_slice(&[0; 8]);
    });
}

/// A lifetime, if there is one; with the limit of packets behind it, if there is one of those.
fn put_lifetime(w: &mut Writer, kind: ExtType, lifetime: Option<Lifetime>, packets: u64) {
    match (lifetime, u32::try_from(packets).unwrap_or(u32::MAX)) {
        (None, 0) => {}
        (Some(lifetime), 0) => drop(w.lifetime(kind, &lifetime)),
        (lifetime, packets) => {
            let Lifetime { allocations, bytes, addtime, usetime } = lifetime.unwrap_or_default();
            w.numbered(kind.number(), |octets| {
                octets.extend_from_slice(&allocations.to_ne_bytes());
                [bytes, addtime, usetime].iter().for_each(|n| octets.extend_from_slice(&n.to_ne_bytes()));
                octets.extend_from_slice(&packets.to_ne_bytes());
                octets.extend_from_slice(&[0; 4]);
            });
        }
    }
}

/// A message about an SA, in words of the dialect.
pub(super) fn tell(message: &Message<'_>, base: Base) -> Option<Vec<u8>> {
    let mut w = Writer::with_capacity(&base, 1024);
    let sa = message.sa?;
    // An algorithm without a number here is 0: the program sees the SA and its life, if not all of it.
    let known = |number: u8, list: &[u8]| if list.contains(&number) { number } else { 0 };
    let comp = base.satype_number == SaType::Ipcomp.number();
    let encrypt = known(sa.encrypt, if comp { COMPRESSION } else { ENCRYPTION });
    put_sa(&mut w, 1, &Sa { auth: known(sa.auth, AUTH), encrypt, flags: 0, ..sa });
    let packets = message.packet_limits.unwrap_or_default();
    for (kind, lifetime, packets) in [
        (ExtType::LifetimeCurrent, message.current, 0),
        (ExtType::LifetimeHard, message.hard, packets.hard),
        (ExtType::LifetimeSoft, message.soft, packets.soft),
    ] {
        put_lifetime(&mut w, kind, lifetime, packets);
    }
    for (kind, address) in [(ExtType::AddressSrc, message.src), (ExtType::AddressDst, message.dst)] {
        if let Some(address) = address {
            w.address(kind, &host(&address));
        }
    }
    parts::tell_keys(&mut w, message);
    parts::tell_identities(&mut w, message);
    parts::tell_ports::<Layout>(&mut w, message, sa.flags);
    w.finish().ok()
}

/// NAT_T_NEW_MAPPING: where the peer was, and where it is now.
pub(super) fn tell_mapping(message: &Message<'_>, base: Base) -> Option<Vec<u8>> {
    let (was, now) = (message.src?, message.new_src?);
    let mut w = Writer::new(&base);
    let sa = message.sa?;
    put_sa(&mut w, 1, &Sa { spi: sa.spi, state: sa.state, ..Sa::default() });
    w.address(ExtType::AddressSrc, &host(&was));
    w.address(ExtType::AddressDst, &host(&now));
    parts::port(&mut w, ext::NAT_T_SPORT, message.natt_rem.map_or(0, |address| address.port()));
    parts::port(&mut w, ext::NAT_T_DPORT, now.port());
    w.finish().ok()
}

/// REGISTER's answer.
pub(super) fn tell_supported(message: &Message<'_>, base: Base) -> Option<Vec<u8>> {
    let mut w = Writer::new(&base);
    let comp = base.satype_number == SaType::Ipcomp.number();
    let encryption = if comp { COMPRESSION } else { ENCRYPTION };
    for (kind, known) in [(ExtType::SupportedAuth, AUTH), (ExtType::SupportedEncrypt, encryption)] {
        let rows = message.raw(kind).map(Algorithm::list).into_iter().flatten();
        let list: Vec<Algorithm> = rows
            .filter(|row| known.contains(&row.id))
            .map(|row| Algorithm { increment: 0, salt_bits: 0, ..row })
            .collect();
        if !list.is_empty() {
            w.supported(kind, &list);
        }
    }
    w.finish().ok()
}

/// ACQUIRE: whose packet, by whom its eroute says, and what with.
pub(super) fn tell_acquire(message: &Message<'_>, base: Base) -> Option<Vec<u8>> {
    let mut w = Writer::new(&base);
    for (kind, address) in [(ExtType::AddressSrc, message.src), (ExtType::AddressDst, message.dst)] {
        if let Some(address) = address {
            w.address(kind, &address);
        }
    }
    parts::tell_identities(&mut w, message);
    if let Some(octets) = message.raw(ExtType::Proposal) {
        let comp = base.satype_number == SaType::Ipcomp.number();
        let encryption = if comp { COMPRESSION } else { ENCRYPTION };
        let known = |number: u8, list: &[u8]| number == 0 || list.contains(&number);
        let combs: Vec<Comb> = Comb::list(octets)
            .filter(|comb| known(comb.auth, AUTH) && known(comb.encrypt, encryption))
            .map(|comb| Comb { salt_bits: 0, ..comb })
            .collect();
        w.proposal(octets.get(4).copied().unwrap_or(0), &combs);
    }
    w.finish().ok()
}
