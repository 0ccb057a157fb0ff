//! Messages about one SA, both ways.
//!
//! | here | there |
//! |---|---|
//! | SA types AH, ESP, X_IPIP, X_COMP | the same; `tun` is an SA of its own, which a group puts inside of another |
//! | `NAT_T_TYPE`, `_SPORT`, `_DPORT` | `AddressNattLoc` and `AddressNattRem`, by direction |
//! | `NAT_T_OA`, `SAREF` | nothing: checksums are made right without the one, the other is of tables that are not here |
//! | a limit of packets | refused: EOPNOTSUPP |
//! | `sadb_sa` of 24 octets | one of 16, the rest 0 |

use super::number::{AUTH, COMPRESSION, ENCRYPTION, ESP_IN_UDP, WIDEST_WINDOW, errno, ext, flags};
use super::record::Record;
use crate::{
    Address, Algorithm, Base, Comb, Diagnostic as D, Errno, ExtType, Fault, Message, MessageType, Sa,
    SaPolicy, SaType, SpiRange, Writer,
};
use core::net::{Ipv4Addr, SocketAddr};

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
        let (min, max) = record.spi_range().ok_or(Fault::invalid(D::MissingRange))?;
        if min > max {
            return Err(Fault::invalid(D::MalformedRange));
        }
        w.spi_range(&SpiRange { min, max });
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
    let natt = match record.nat_t() {
        None | Some((0, ..)) => 0,
        Some((ESP_IN_UDP, ..)) => crate::flags::NATT_LOC | crate::flags::NATT_REM,
        // What came before RFC 3948.
        Some(_) => return Err(Fault { errno: Errno::EOPNOTSUPP, diagnostic: D::BadMode }),
    };
    Ok(Sa { flags: natt, ..sa })
}

/// What an ADD and an UPDATE have besides the SA's name.
fn complete(w: &mut Writer, record: &Record<'_>) -> Result<(), Fault> {
    for kind in [ExtType::LifetimeHard, ExtType::LifetimeSoft] {
        if let Some(lifetime) = record.lifetime(kind)? {
            w.lifetime(kind, &lifetime);
        }
    }
    if let Some((ESP_IN_UDP, sport, dport)) = record.nat_t() {
        for (kind, port) in [(ExtType::AddressNattLoc, sport), (ExtType::AddressNattRem, dport)] {
            // Only the ports are known; whose they are the service sees by the direction.
            let socket = Some(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port));
            w.address(kind, &Address { proto: 17, prefix: 0, socket });
        }
        // The ports are those of its packets, the sender's first.
        w.sa_policy(&SaPolicy { reqid: 0, by_policy: true });
    }
    for (kind, malformed) in [(ExtType::KeyAuth, D::MalformedAkey), (ExtType::KeyEncrypt, D::MalformedEkey)] {
        if let Some(key) = record.key(kind, malformed)? {
            w.key(kind, key.bits, 0, key.octets);
        }
    }
    for kind in [ExtType::IdentitySrc, ExtType::IdentityDst] {
        if let Some(identity) = record.identity(kind) {
            w.identity(kind, &identity);
        }
    }
    Ok(())
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

/// A message about an SA, in words of the dialect.
pub(super) fn tell(message: &Message<'_>, base: Base) -> Option<Vec<u8>> {
    let mut w = Writer::with_capacity(&base, 1024);
    let sa = message.sa?;
    // An algorithm without a number here is 0: the program sees the SA and its life, if not all of it.
    let known = |number: u8, list: &[u8]| if list.contains(&number) { number } else { 0 };
    let comp = base.satype_number == SaType::Ipcomp.number();
    let encrypt = known(sa.encrypt, if comp { COMPRESSION } else { ENCRYPTION });
    put_sa(&mut w, 1, &Sa { auth: known(sa.auth, AUTH), encrypt, flags: 0, ..sa });
    for (kind, lifetime) in [
        (ExtType::LifetimeCurrent, message.current),
        (ExtType::LifetimeHard, message.hard),
        (ExtType::LifetimeSoft, message.soft),
    ] {
        if let Some(lifetime) = lifetime {
            w.lifetime(kind, &lifetime);
        }
    }
    for (kind, address) in [(ExtType::AddressSrc, message.src), (ExtType::AddressDst, message.dst)] {
        if let Some(address) = address {
            w.address(kind, &host(&address));
        }
    }
    for (kind, key) in [(ExtType::KeyAuth, message.auth_key), (ExtType::KeyEncrypt, message.encrypt_key)] {
        if let Some(key) = key {
            // Salt is part of the key here.
            w.key(kind, key.bits.saturating_add(key.reserved), 0, key.octets);
        }
    }
    for (kind, identity) in
        [(ExtType::IdentitySrc, message.src_identity), (ExtType::IdentityDst, message.dst_identity)]
    {
        if let Some(identity) = identity {
            w.identity(kind, &identity);
        }
    }
    nat_t(&mut w, message, sa.flags);
    w.finish().ok()
}

/// The ports of a packet: the sender's is ours or the peer's, as the SA's direction says.
fn nat_t(w: &mut Writer, message: &Message<'_>, flags: u32) {
    let (Some(local), Some(remote)) = (message.natt_loc, message.natt_rem) else { return };
    let inbound = flags & (crate::flags::INBOUND | crate::flags::OUTBOUND) == crate::flags::INBOUND;
    let (sport, dport) = if inbound { (remote, local) } else { (local, remote) };
    w.numbered(ext::NAT_T_TYPE, |octets| octets.extend_from_slice(&[ESP_IN_UDP, 0, 0, 0]));
    port(w, ext::NAT_T_SPORT, sport.port());
    port(w, ext::NAT_T_DPORT, dport.port());
}

fn port(w: &mut Writer, number: u16, port: u16) {
    w.numbered(number, |octets| {
        octets.extend_from_slice(&port.to_be_bytes());
        octets.extend_from_slice(&[0; 2]);
    });
}

/// NAT_T_NEW_MAPPING: where the peer was, and where it is now.
pub(super) fn tell_mapping(message: &Message<'_>, base: Base) -> Option<Vec<u8>> {
    let (was, now) = (message.src?, message.new_src?);
    let mut w = Writer::new(&base);
    let sa = message.sa?;
    put_sa(&mut w, 1, &Sa { spi: sa.spi, state: sa.state, ..Sa::default() });
    w.address(ExtType::AddressSrc, &host(&was));
    w.address(ExtType::AddressDst, &host(&now));
    port(&mut w, ext::NAT_T_SPORT, message.natt_rem.map_or(0, |address| address.port()));
    port(&mut w, ext::NAT_T_DPORT, now.port());
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
    for (kind, identity) in
        [(ExtType::IdentitySrc, message.src_identity), (ExtType::IdentityDst, message.dst_identity)]
    {
        if let Some(identity) = identity {
            w.identity(kind, &identity);
        }
    }
    if let Some(octets) = message.raw(ExtType::Proposal) {
        let known = |number: u8, list: &[u8]| number == 0 || list.contains(&number);
        let combs: Vec<Comb> = Comb::list(octets)
            .filter(|comb| known(comb.auth, AUTH) && known(comb.encrypt, ENCRYPTION))
            .map(|comb| Comb { salt_bits: 0, ..comb })
            .collect();
        w.proposal(octets.get(4).copied().unwrap_or(0), &combs);
    }
    w.finish().ok()
}
