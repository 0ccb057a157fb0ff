//! SAs as commands that make them again.
//!
//! What is not in the file: pairs and key management cookies (as ever), groups, and what an SA has used of its life.

use super::attribute::IDENTITIES;
use super::print::{Hex, auth_name, encryption_name};
use core::fmt::{self, Write};
use core::net::IpAddr;
use pfkey::{Address, Identity, InnerPair, Key, Lifetime, Message, Sa, SaType, flags, state};
use zeroize::Zeroizing;

/// The first lines of a file.
pub(super) const HEAD: &str =
    "# Security associations, as `ipsec key -s' wrote them; `ipsec key -f' reads them.\n\n";

/// One SA; `None` if it cannot be made by an ADD.
pub(super) fn entry(message: &Message<'_>, octets: usize, paranoid: bool) -> Option<Zeroizing<String>> {
    let sa = message.sa?;
    // Large enough for all of it, so that no copy of a key is left behind where it grew.
    let mut out = Zeroizing::new(String::with_capacity(octets.saturating_mul(8).saturating_add(4096)));
    // Writing to a String does not fail.
    let _ = write(&mut out, message, &sa, paranoid);
    Some(out)
}

const NEXT: &str = " \\\n    ";

fn write(out: &mut String, message: &Message<'_>, sa: &Sa, paranoid: bool) -> fmt::Result {
    let dst = message.dst.and_then(|dst| dst.ip());
    let word = match message.base.satype() {
        Some(SaType::Ah) => "ah",
        Some(SaType::Esp) => "esp",
        Some(SaType::Ipip) => "tun",
        Some(SaType::Ipcomp) => "comp",
        Some(SaType::Unspec) | None => "all",
    };
    write!(out, "# begin {word} 0x{:x}", sa.spi)?;
    if let Some(dst) = dst {
        write!(out, " to {dst}")?;
    }
    writeln!(out)?;
    if sa.state == state::LARVAL {
        writeln!(
            out,
            "# It is larval: reserved by a key manager, without keys, and not to be made by hand."
        )?;
        return writeln!(out, "# end\n");
    }
    if sa.state != state::MATURE {
        writeln!(out, "# It was near its end or past it; it begins a new life when it is read.")?;
    }
    for identity in [message.src_identity, message.dst_identity].into_iter().flatten() {
        if quotable(&identity).is_none() {
            writeln!(out, "# An identity cannot be written as text here and is left out.")?;
        }
    }
    if message.tfc.is_some() {
        writeln!(out, "# Its padding and dummy packets cannot be written here and are left out.")?;
    }
    write!(out, "add {word}{NEXT}spi 0x{:x}", sa.spi)?;
    if sa.encrypt != 0 {
        write!(out, " encr_alg {}", encryption_name(sa.encrypt))?;
    }
    if sa.auth != 0 {
        write!(out, " auth_alg {}", auth_name(sa.auth))?;
    }
    let window = message.sa_params.map_or(u32::from(sa.replay), |params| params.window);
    if window != 0 || sa.flags & flags::NOREPLAY != 0 {
        write!(out, " replay {window}")?;
    }
    let natt = sa.flags & (flags::NATT_LOC | flags::NATT_REM) != 0;
    for (yes, word) in [
        (message.sa_params.is_some_and(|params| params.esn), "esn"),
        (sa.flags & flags::INBOUND != 0, "inbound"),
        (sa.flags & flags::OUTBOUND != 0, "outbound"),
        (natt, "encap udp"),
    ] {
        if yes {
            write!(out, " {word}")?;
        }
    }
    for (name, limit) in [("hard", message.hard), ("soft", message.soft), ("idle", message.idle)] {
        lifetime(out, name, limit)?;
    }
    outer(out, message)?;
    for (address, port, found) in
        [("nat_loc", "nat_lport", message.natt_loc), ("nat_rem", "nat_rport", message.natt_rem)]
    {
        let Some(found) = found else { continue };
        write!(out, "{NEXT}{port} {}", found.port())?;
        match found.ip().map(|ip| ip.to_canonical()) {
            Some(IpAddr::V4(ip)) if !ip.is_unspecified() => write!(out, " {address} {ip}")?,
            _ => {}
        }
    }
    inner(out, message)?;
    for (name, key) in [("authkey", message.auth_key), ("encrkey", message.encrypt_key)] {
        if let Some(Key { bits, reserved, octets }) = key {
            write!(out, "{NEXT}{name} ")?;
            if paranoid {
                octets.iter().try_for_each(|_| out.write_str("XX"))?;
            } else {
                write!(out, "{}", Hex(octets))?;
            }
            // The salt is the end of the key.
            write!(out, "/{}", u32::from(bits) + u32::from(reserved))?;
        }
    }
    for (name, one) in [("srcidtype", message.src_identity), ("dstidtype", message.dst_identity)] {
        let Some(one) = one else { continue };
        if let Some(text) = quotable(&one) {
            let kind = IDENTITIES.iter().find(|(_, number)| *number == one.kind);
            let kind = kind.map_or_else(|| one.kind.to_string(), |(name, _)| (*name).to_owned());
            write!(out, "{NEXT}{name} {kind} \"{text}\"")?;
        }
    }
    if let Some(value) = message.replay_value {
        write!(out, "{NEXT}replay_value {}", value.high.max(u64::from(value.low)))?;
    }
    writeln!(out, "\n\n# end\n")
}

/// An identity as it can stand between quotes.
fn quotable<'m>(identity: &Identity<'m>) -> Option<&'m str> {
    let text = core::str::from_utf8(identity.text).ok()?;
    (!text.contains('"') && !text.contains(char::is_control)).then_some(text)
}

fn lifetime(out: &mut String, name: &str, limit: Option<Lifetime>) -> fmt::Result {
    let Some(Lifetime { allocations, bytes, addtime, usetime }) = limit else { return Ok(()) };
    let fields =
        [("alloc", u64::from(allocations)), ("bytes", bytes), ("addtime", addtime), ("usetime", usetime)];
    let mut before = NEXT;
    for (field, value) in fields {
        if value != 0 {
            write!(out, "{before}{name}_{field} {value}")?;
            before = " ";
        }
    }
    Ok(())
}

fn outer(out: &mut String, message: &Message<'_>) -> fmt::Result {
    let (src, dst) = (message.src, message.dst);
    let proto = dst.map_or(0, |dst| dst.proto);
    if proto != 0 {
        write!(out, "{NEXT}proto {proto}")?;
    }
    for (name, port, found) in [("src", "sport", src), ("dst", "dport", dst)] {
        if let Some((found, ip)) = found.and_then(|found| Some((found, found.ip()?))) {
            write!(out, "{NEXT}{name} {ip}")?;
            if found.port() != 0 {
                write!(out, " {port} {}", found.port())?;
            }
        }
    }
    Ok(())
}

fn inner(out: &mut String, message: &Message<'_>) -> fmt::Result {
    // Inner addresses would make it a tunnel.
    let tunnel = message.sa.is_some_and(|sa| sa.flags & flags::TUNNEL != 0);
    let [src, dst] = [message.inner_src, message.inner_dst].map(|address| address.filter(|_| tunnel));
    let proto = dst.map_or(0, |dst| dst.proto);
    if proto != 0 {
        write!(out, "{NEXT}iproto {proto}")?;
    }
    for (name, port, found) in [("isrc", "isport", src), ("idst", "idport", dst)] {
        let Some((found, ip)) = found.and_then(|found: Address| Some((found, found.ip()?))) else { continue };
        let whole = if ip.is_ipv4() { 32 } else { 128 };
        write!(out, "{NEXT}{name} {ip}")?;
        if found.prefix != whole {
            write!(out, "/{}", found.prefix)?;
        }
        if found.port() != 0 {
            write!(out, " {port} {}", found.port())?;
        }
    }
    let more = message.selectors.filter(|_| tunnel);
    more.into_iter().flat_map(|all| all.pairs()).try_for_each(|one| write!(out, "{NEXT}also {}", pair(&one)))
}

/// A pair as the word `also` has it.
pub(super) fn pair(one: &InnerPair) -> String {
    let InnerPair { proto, src, src_prefix, dst, dst_prefix } = one;
    let nets = format!("{}/{src_prefix},{}/{dst_prefix}", src.ip(), dst.ip());
    match (proto, src.port(), dst.port()) {
        (0, 0, 0) => nets,
        (proto, sport, dport) => format!("{nets},{proto},{sport},{dport}"),
    }
}

#[cfg(test)]
mod tests;
