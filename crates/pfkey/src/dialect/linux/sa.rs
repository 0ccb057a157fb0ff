//! Messages about SAs, both ways.
//!
//! | here | there |
//! |---|---|
//! | `X_SA2` mode tunnel | an inner selector of everything, and the TUNNEL flag |
//! | `X_SA2` mode any or transport | no inner selector |
//! | `X_SA2` reqid | `SaPolicy` |
//! | `ADDRESS_PROXY` | the source of the inner selector |
//! | `X_NAT_T_TYPE`, `_SPORT`, `_DPORT` | `AddressNattLoc` and `AddressNattRem`, by direction |
//! | `X_NAT_T_OA` | nothing: checksums are made right without it |
//! | NOECN, DECAP_DSCP, NOPMTUDISC | nothing: headers are treated as RFC 4301 and RFC 6040 say |
//! | an SPI range in host order | one in network order |
//! | a host with prefix length 32 or 128 | one with prefix length 0 |

use super::number::{self, AUTH, AUTH_NULL, ENCRYPTION, ext, flags, mode};
use super::record::{Layout, Record};
use crate::dialect::parts;
use crate::{
    Address, Algorithm, Base, Comb, Diagnostic as D, Errno, ExtType, Fault, Message, MessageType, Sa,
    SaPolicy, SaType, Writer,
};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Our SA type of theirs.
pub(super) fn our_satype(theirs: u8) -> Result<SaType, Fault> {
    match theirs {
        number::SATYPE_IPCOMP => Ok(SaType::Ipcomp),
        0 | 2 | 3 => SaType::from_number(theirs).ok_or(Fault::invalid(D::UnknownSatype)),
        _ => Err(Fault::invalid(D::UnknownSatype)),
    }
}

/// Their SA type of ours; there is none for IP in IP.
pub(super) const fn their_satype(ours: SaType) -> Option<u8> {
    match ours {
        SaType::Ipcomp => Some(number::SATYPE_IPCOMP),
        SaType::Ipip => None,
        SaType::Unspec | SaType::Ah | SaType::Esp => Some(ours.number()),
    }
}

/// A request about one SA: GETSPI, ADD, UPDATE, DELETE or GET.
pub(super) fn request(record: &Record<'_>, kind: MessageType) -> Result<Vec<u8>, Fault> {
    let satype = our_satype(record.base.satype_number)?;
    let base = Base { satype_number: satype.number(), diagnostic: 0, errno: Errno(0), ..record.base };
    let (src, dst) = record.ends()?;
    let mut w = Writer::with_capacity(&base, 1024);
    if kind != MessageType::GetSpi {
        w.sa(&our_sa(record, kind)?);
    }
    for (kind, address) in [(ExtType::AddressSrc, src), (ExtType::AddressDst, dst)] {
        let address = super::record::host(address.socket);
        w.address(kind, &address.ok_or(Fault::invalid(D::BadSrcAf))?);
    }
    if kind == MessageType::GetSpi {
        parts::ask_spi_range(&mut w, record, u32::from_ne_bytes)?;
    } else if matches!(kind, MessageType::Add | MessageType::Update) {
        complete(&mut w, record, &dst)?;
    } else {
        return finish(w);
    }
    let (mode, reqid) = record.sa2();
    mode::known(mode)?;
    w.sa_policy(&SaPolicy { reqid, by_policy: true });
    finish(w)
}

fn finish(w: Writer) -> Result<Vec<u8>, Fault> {
    w.finish().map_err(|_| Fault::errno(Errno::EMSGSIZE))
}

/// SADB_EXT_SA in our numbers.
fn our_sa(record: &Record<'_>, kind: MessageType) -> Result<Sa, Fault> {
    let sa = record.sa(ExtType::Sa.number())?;
    if !matches!(kind, MessageType::Add | MessageType::Update) {
        return Ok(Sa { spi: sa.spi, ..Sa::default() });
    }
    if sa.flags & !(flags::PFS | flags::HEADERS) != 0 {
        return Err(Fault::invalid(D::BadSaflags));
    }
    let unknown = |diagnostic| Fault { errno: number::errno::ENOSYS, diagnostic };
    let auth = match sa.auth {
        0 | AUTH_NULL => 0,
        auth => number::ours(AUTH, auth).ok_or(unknown(D::BadAalg))?,
    };
    let ipcomp = record.base.satype_number == number::SATYPE_IPCOMP;
    let encrypt = match sa.encrypt {
        0 => 0,
        number::DEFLATE if ipcomp => number::DEFLATE,
        _ if ipcomp => return Err(Fault::invalid(D::BadEalg)),
        encrypt => number::ours(ENCRYPTION, encrypt).ok_or(unknown(D::BadEalg))?,
    };
    let tunnel = if record.sa2().0 == mode::TUNNEL { crate::flags::TUNNEL } else { 0 };
    Ok(Sa { auth, encrypt, flags: tunnel | parts::natt_flags(record)?, ..sa })
}

/// What an ADD and an UPDATE have besides the SA's name.
fn complete(w: &mut Writer, record: &Record<'_>, dst: &Address) -> Result<(), Fault> {
    for kind in [ExtType::LifetimeHard, ExtType::LifetimeSoft] {
        if let Some(lifetime) = record.lifetime(kind) {
            w.lifetime(kind, &lifetime);
        }
    }
    let proxy = record.address_if(ExtType::AddressInnerSrc.number(), D::MalformedInnerSrc)?;
    let tunnel = record.sa2().0 == mode::TUNNEL;
    if tunnel {
        let anything: IpAddr = match proxy.or(Some(*dst)).and_then(|address| address.ip()) {
            Some(IpAddr::V6(_)) => Ipv6Addr::UNSPECIFIED.into(),
            Some(IpAddr::V4(_)) | None => Ipv4Addr::UNSPECIFIED.into(),
        };
        let inner_src = proxy.map_or(Address::net(anything, 0), |proxy| Address { proto: 0, ..proxy });
        w.address(ExtType::AddressInnerSrc, &inner_src);
        w.address(ExtType::AddressInnerDst, &Address::net(anything, 0));
    }
    parts::ask_ports(w, record);
    parts::ask_keys(w, record)
}

/// An SA as the service tells of it, in an answer or a notice. `None` for what has no words here.
pub(super) fn tell(message: &Message<'_>, base: Base) -> Option<Vec<u8>> {
    let tunnel =
        message.inner_src.is_some() || message.sa.is_some_and(|sa| sa.flags & crate::flags::TUNNEL != 0);
    describe(message, base, tunnel)
}

fn describe(message: &Message<'_>, base: Base, tunnel: bool) -> Option<Vec<u8>> {
    let satype_number = their_satype(message.base.satype()?)?;
    let mut w = Writer::with_capacity(&Base { satype_number, ..base }, 1024);
    let sa = message.sa?;
    let ipcomp = satype_number == number::SATYPE_IPCOMP;
    // An algorithm without a number here is 0: the program sees the SA and its life, if not all of it.
    let encrypt = if ipcomp { sa.encrypt } else { number::theirs(ENCRYPTION, sa.encrypt).unwrap_or(0) };
    w.sa(&Sa { auth: number::theirs(AUTH, sa.auth).unwrap_or(0), encrypt, flags: 0, ..sa });
    for (kind, lifetime) in [
        (ExtType::LifetimeHard, message.hard),
        (ExtType::LifetimeSoft, message.soft),
        (ExtType::LifetimeCurrent, message.current),
    ] {
        if let Some(lifetime) = lifetime {
            w.lifetime(kind, &lifetime);
        }
    }
    for (kind, address) in [(ExtType::AddressSrc, message.src), (ExtType::AddressDst, message.dst)] {
        if let Some(ip) = address.and_then(|address| address.ip()) {
            w.address(kind, &whole(ip));
        }
    }
    if let Some(inner) = message.inner_src.filter(|inner| inner.prefix != 0) {
        w.address(ExtType::AddressInnerSrc, &inner);
    }
    parts::tell_keys(&mut w, message);
    sa2(&mut w, message, tunnel);
    parts::tell_ports::<Layout>(&mut w, message, sa.flags);
    w.finish().ok()
}

/// A whole address, as this dialect writes one.
pub(super) const fn whole(ip: IpAddr) -> Address {
    Address { prefix: if ip.is_ipv4() { 32 } else { 128 }, ..Address::host(ip) }
}

/// A reserved SPI, for which the program has named a mode.
pub(super) fn tell_reserved(message: &Message<'_>, base: Base, mode: u8) -> Option<Vec<u8>> {
    describe(message, base, mode == mode::TUNNEL)
}

fn sa2(w: &mut Writer, message: &Message<'_>, tunnel: bool) {
    let mode = if tunnel { mode::TUNNEL } else { mode::TRANSPORT };
    let reqid = message.sa_policy.unwrap_or_default().reqid;
    w.numbered(ext::SA2, |octets| {
        octets.extend_from_slice(&[mode, 0, 0, 0, 0, 0, 0, 0]);
        octets.extend_from_slice(&reqid.to_ne_bytes());
    });
}

/// REGISTER's answer.
pub(super) fn tell_supported(message: &Message<'_>, base: Base) -> Option<Vec<u8>> {
    let mut w = Writer::new(&Base { satype_number: their_satype(message.base.satype()?)?, ..base });
    for (kind, table) in [(ExtType::SupportedAuth, AUTH), (ExtType::SupportedEncrypt, ENCRYPTION)] {
        let list: Vec<Algorithm> = message
            .raw(kind)
            .map(Algorithm::list)
            .into_iter()
            .flatten()
            .filter_map(|row| {
                let id = number::theirs(table, row.id)?;
                Some(Algorithm { id, increment: 0, salt_bits: 0, ..row })
            })
            .collect();
        if !list.is_empty() {
            w.supported(kind, &list);
        }
    }
    w.finish().ok()
}

/// The proposal of an ACQUIRE: what this dialect has numbers for.
pub(super) fn tell_proposal(w: &mut Writer, message: &Message<'_>) {
    let Some(octets) = message.raw(ExtType::Proposal) else { return };
    let ipcomp = message.base.satype() == Some(SaType::Ipcomp);
    let combs: Vec<Comb> = Comb::list(octets)
        .filter_map(|comb| {
            let auth = if comb.auth == 0 { 0 } else { number::theirs(AUTH, comb.auth)? };
            let encrypt = match comb.encrypt {
                0 => 0,
                number::DEFLATE if ipcomp => number::DEFLATE,
                encrypt => number::theirs(ENCRYPTION, encrypt)?,
            };
            Some(Comb { auth, encrypt, salt_bits: 0, ..comb })
        })
        .collect();
    let replay = octets.get(4).copied().unwrap_or(0);
    w.proposal(replay, &combs);
}
