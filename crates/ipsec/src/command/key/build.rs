//! A command as PF_KEY messages: one for each address its destination has.

use super::attribute::{Attributes, Host};
use super::grammar::{Ask, Wrong};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use ipsec_core::algorithm::Encryption;
use pfkey::{
    Address, Base, ExtType, Identity, Lifetime, MessageType, Pair, ReplayValue, Sa, SaParams, SaType,
    TooLong, Writer, flags, state,
};
use zeroize::Zeroizing;

/// UDP, the protocol of NAT-T addresses.
const UDP: u8 = 17;

/// Finds the addresses of a name.
pub(super) type Resolve<'a> = dyn FnMut(&str) -> std::io::Result<Vec<IpAddr>> + 'a;

/// What is to be sent.
#[derive(Debug, Default)]
pub(super) struct Built {
    /// Whole messages; there may be keys in them.
    pub(super) messages: Vec<Zeroizing<Vec<u8>>>,
    /// What the user should know.
    pub(super) warnings: Vec<String>,
}

/// Makes the messages; `next_seq` numbers them.
pub(super) fn build(
    ask: &Ask,
    resolve: &mut Resolve<'_>,
    next_seq: &mut dyn FnMut() -> u32,
    pid: u32,
) -> Result<Built, Wrong> {
    let mut built = Built::default();
    let too_long = |_| Wrong::here(ask.line, "this does not fit a PF_KEY message; shorten the identities");
    let mut base = || Base::request(ask.kind, ask.satype, next_seq(), pid);
    if ask.kind == MessageType::Flush {
        built.messages.push(request(&base(), |_| {}).map_err(too_long)?);
        return Ok(built);
    }
    let mut resolve = |host: &Host| addresses(host, &mut *resolve, ask.line);
    let sa = &ask.sa;
    let dsts = sa.dst.as_ref().map(&mut resolve).transpose()?.unwrap_or_default();
    let srcs = sa.src.as_ref().map(&mut resolve).transpose()?;
    let inner = match (&sa.inner_src, &sa.inner_dst) {
        (Some(src), Some(dst)) => Some(inner(src, dst, &mut resolve, ask.line)?),
        _ => None,
    };
    for dst in dsts {
        let brings_keys = !matches!(ask.kind, MessageType::Get | MessageType::Delete | MessageType::DelPair);
        let src = match &srcs {
            Some(all) => Some(source(all, dst, &mut built.warnings)),
            None => brings_keys.then(|| unspecified(dst)),
        };
        let message = request(&base(), |writer| {
            let ends = Ends { src, dst, inner };
            if brings_keys { whole(writer, ask, &ends) } else { named(writer, sa, &ends) }
        });
        built.messages.push(message.map_err(too_long)?);
    }
    Ok(built)
}

/// A request as octets; there may be keys in it.
pub(super) fn request(base: &Base, write: impl FnOnce(&mut Writer)) -> Result<Zeroizing<Vec<u8>>, TooLong> {
    let mut writer = Writer::with_capacity(base, Writer::ROOM);
    write(&mut writer);
    writer.finish().map(Zeroizing::new)
}

/// The addresses of one message.
struct Ends {
    src: Option<IpAddr>,
    dst: IpAddr,
    inner: Option<(Address, Address)>,
}

fn addresses(host: &Host, resolve: &mut Resolve<'_>, line: usize) -> Result<Vec<IpAddr>, Wrong> {
    let (name, v6) = match host {
        Host::Ip(ip) => return Ok(vec![*ip]),
        Host::Name(name, v6) => (name, *v6),
    };
    let mut found = resolve(name).map_err(|why| Wrong::here(line, format_args!("{name}: {why}")))?;
    found.retain(|ip| !v6 || ip.is_ipv6());
    found.sort_unstable();
    found.dedup();
    if found.is_empty() {
        let family = if v6 { " of IPv6" } else { "" };
        return Err(Wrong::here(
            line,
            format_args!("{name}: has no address{family}; write the address itself"),
        ));
    }
    Ok(found)
}

/// The source for a destination: the one of its family; of several nobody can say which, so it is any.
fn source(all: &[IpAddr], dst: IpAddr, warnings: &mut Vec<String>) -> IpAddr {
    let mut fitting = all.iter().filter(|ip| ip.is_ipv4() == dst.is_ipv4());
    match (fitting.next(), fitting.next()) {
        (Some(one), None) => *one,
        // `::` for an IPv4 destination.
        (None, _) if all.iter().all(IpAddr::is_unspecified) => unspecified(dst),
        (one, _) => {
            let why = if one.is_some() { "has several addresses" } else { "has no address of the family" };
            warnings.push(format!("src {why} for {dst}: any source will do"));
            unspecified(dst)
        }
    }
}

const fn unspecified(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

type Net = (Host, Option<u8>);

fn inner(
    src: &Net,
    dst: &Net,
    resolve: &mut dyn FnMut(&Host) -> Result<Vec<IpAddr>, Wrong>,
    line: usize,
) -> Result<(Address, Address), Wrong> {
    let mut net = |(host, prefix): &Net| {
        let found = resolve(host)?;
        let [ip] = found[..] else {
            return Err(Wrong::here(line, "an inner address must be one address; write it as a number"));
        };
        let whole = if ip.is_ipv4() { 32 } else { 128 };
        Ok(Address::net(ip, prefix.unwrap_or(whole)))
    };
    Ok((net(src)?, net(dst)?))
}

fn with(address: Address, proto: u8, port: u16) -> Address {
    let socket = address.socket.map(|socket| SocketAddr::new(socket.ip(), port));
    Address { proto, socket, ..address }
}

/// GET and DELETE: what the SA is called.
fn named(writer: &mut Writer, sa: &Attributes, ends: &Ends) {
    writer.sa(&Sa { spi: sa.spi.unwrap_or(0), flags: direction(sa), ..Sa::default() });
    writer.address(ExtType::AddressDst, &with(Address::host(ends.dst), sa.proto, sa.dport));
    if let Some(src) = ends.src {
        writer.address(ExtType::AddressSrc, &with(Address::host(src), sa.proto, sa.sport));
    }
}

const fn direction(sa: &Attributes) -> u32 {
    let inbound = if sa.inbound { flags::INBOUND } else { 0 };
    inbound | if sa.outbound { flags::OUTBOUND } else { 0 }
}

/// ADD and UPDATE: everything, in the order of the original.
fn whole(writer: &mut Writer, ask: &Ask, ends: &Ends) {
    let sa = &ask.sa;
    let local = natt(sa.nat_loc, sa.nat_lport);
    let remote = natt(sa.nat_rem, sa.nat_rport);
    writer.sa(&wire_sa(ask, local.is_some(), remote.is_some()));
    if let Some(spi) = sa.pair_spi {
        writer.pair(&Pair { spi });
    }
    let limits = [
        (ExtType::LifetimeHard, sa.hard),
        (ExtType::LifetimeSoft, sa.soft),
        (ExtType::LifetimeIdle, sa.idle),
    ];
    for (kind, limit) in limits {
        if limit != Lifetime::default() {
            writer.lifetime(kind, &limit);
        }
    }
    if let Some(key) = &sa.encrypt_key {
        writer.key(ExtType::KeyEncrypt, key.bits, sa.reserved_bits, &key.octets);
    }
    if let Some(key) = &sa.auth_key {
        writer.key(ExtType::KeyAuth, key.bits, 0, &key.octets);
    }
    for (kind, identity) in
        [(ExtType::IdentitySrc, &sa.src_identity), (ExtType::IdentityDst, &sa.dst_identity)]
    {
        if let Some((number, text)) = identity {
            writer.identity(kind, &Identity { kind: *number, id: 0, text: text.as_bytes() });
        }
    }
    writer.address(ExtType::AddressDst, &with(Address::host(ends.dst), sa.proto, sa.dport));
    for (kind, address) in [(ExtType::AddressNattRem, remote), (ExtType::AddressNattLoc, local)] {
        if let Some(address) = address {
            writer.address(kind, &address);
        }
    }
    if let Some(src) = ends.src {
        writer.address(ExtType::AddressSrc, &with(Address::host(src), sa.proto, sa.sport));
    }
    if let Some((src, dst)) = ends.inner {
        writer.address(ExtType::AddressInnerSrc, &with(src, sa.inner_proto, sa.inner_sport));
        writer.address(ExtType::AddressInnerDst, &with(dst, sa.inner_proto, sa.inner_dport));
    }
    if !sa.also.is_empty() {
        writer.selectors(&sa.also);
    }
    if let Some(value) = sa.replay_value {
        let high = if sa.esn { value } else { 0 };
        writer.replay_value(&ReplayValue { low: value as u32, high });
    }
    if sa.esn || sa.replay.is_some_and(|width| width > u16::from(u8::MAX)) {
        writer.sa_params(&SaParams { window: u32::from(sa.replay.unwrap_or(0)), esn: sa.esn });
    }
}

fn wire_sa(ask: &Ask, local: bool, remote: bool) -> Sa {
    let sa = &ask.sa;
    // ESP without a cipher is ESP with the NULL cipher; an UPDATE that names no algorithm at all changes none.
    let null = Encryption::Null.row().number;
    let silent = ask.satype != SaType::Esp || (ask.kind != MessageType::Add && sa.auth.is_none());
    let on = |yes: bool, flag: u32| if yes { flag } else { 0 };
    Sa {
        spi: sa.spi.unwrap_or(0),
        replay: u8::try_from(sa.replay.unwrap_or(0)).unwrap_or(u8::MAX),
        state: sa.state.unwrap_or(state::MATURE),
        auth: sa.auth.unwrap_or(0),
        encrypt: sa.encrypt.unwrap_or(if silent { 0 } else { null }),
        flags: direction(sa)
            | on(sa.replay == Some(0), flags::NOREPLAY)
            | on(sa.pair_spi.is_some(), flags::PAIRED)
            | on(sa.inner_src.is_some() && ask.kind == MessageType::Add, flags::TUNNEL)
            | on(local, flags::NATT_LOC)
            | on(remote, flags::NATT_REM),
    }
}

fn natt(address: Option<Ipv4Addr>, port: Option<u16>) -> Option<Address> {
    if address.is_none() && port.is_none() {
        return None;
    }
    let ip = IpAddr::V4(address.unwrap_or(Ipv4Addr::UNSPECIFIED));
    Some(Address { proto: UDP, prefix: 0, socket: Some(SocketAddr::new(ip, port.unwrap_or(0))) })
}

#[cfg(test)]
mod tests;
