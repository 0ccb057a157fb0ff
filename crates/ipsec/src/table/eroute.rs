//! The eroute table: ipsec_eroute(5), written and read.
//!
//! Ports and protocols of IPv6 are written so that they can be told from the address: `[2001:db8::/64]:25` and
//! `esp0x101@[2001:db8::1]:6`. The kernel's own IPv6 lines were garbled.

use super::{Form, word};
use core::fmt;
use core::net::IpAddr;
use core::str::FromStr;
use ipnet::{IpNet, Ipv6Net};
use ipsec_core::{Said, Selector, text};
use klips::{Action, Eroute};

/// What stands for an action in a table.
pub const fn said(action: Action) -> Said {
    match action {
        Action::Protect(id) => Said::Sa(id),
        Action::Pass => Said::Pass,
        Action::Drop => Said::Drop,
        Action::Reject => Said::Reject,
        Action::Trap => Said::Trap,
        Action::TrapSubnet => Said::TrapSubnet,
        Action::Hold => Said::Hold,
    }
}

/// One row of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Packets matched so far; 0 where the line has no count (before 2001).
    pub packets: u64,
    /// What it matches.
    pub selector: Selector,
    /// What it does.
    pub said: Said,
    /// Identity of the source, as written; empty if none.
    pub src_identity: String,
    /// Identity of the destination, as written; empty if none.
    pub dst_identity: String,
}

impl From<&Eroute> for Line {
    fn from(row: &Eroute) -> Self {
        Self {
            packets: row.packets(),
            selector: row.selector,
            said: said(row.action),
            src_identity: row.src_identity().to_owned(),
            dst_identity: row.dst_identity().to_owned(),
        }
    }
}

pub(super) fn line(row: &Eroute, form: Form) -> String {
    Line::from(row).write(form)
}

impl Line {
    /// The row as text with its line end, or as a JSON object.
    pub fn write(&self, form: Form) -> String {
        let Selector { src, dst, proto, sport, dport } = self.selector;
        match form {
            Form::Man => format!(
                "{:<10} {:<18} -> {:<18} => {}\t({})\t({})\n",
                self.packets,
                net(src, sport, true),
                net(dst, dport, true),
                target(&self.said, proto, true),
                word(&self.src_identity),
                word(&self.dst_identity),
            ),
            Form::Klips => format!(
                "{:<10} {:<18} -> {:<18} => {}\n",
                self.packets,
                net(src, sport, false),
                net(dst, dport, false),
                target(&self.said, proto, false),
            ),
            Form::Json => serde_json::json!({
                "packets": self.packets,
                "src": src.to_string(),
                "dst": dst.to_string(),
                "proto": proto,
                "sport": sport,
                "dport": dport,
                "said": self.said.to_string(),
                "src_identity": self.src_identity,
                "dst_identity": self.dst_identity,
            })
            .to_string(),
        }
    }
}

/// A prefix and a port. The page writes `:0` for all ports, with IPv4 only; the kernel left it out.
fn net(net: IpNet, port: u16, man: bool) -> String {
    match net {
        IpNet::V4(net) if man || port != 0 => format!("{net}:{port}"),
        IpNet::V6(net) if port != 0 => format!("[{net}]:{port}"),
        IpNet::V4(_) | IpNet::V6(_) => net.to_string(),
    }
}

/// A SAID and a protocol. The page writes `:0` for all protocols, with IPv4 SAs only.
fn target(said: &Said, proto: u8, man: bool) -> String {
    let suffix = if proto == 0 { String::new() } else { format!(":{proto}") };
    let Said::Sa(id) = said else {
        return format!("{said}{suffix}");
    };
    if id.dst.is_ipv4() {
        return if man { format!("{id}:{proto}") } else { format!("{id}{suffix}") };
    }
    let text = if man { format!("{id:#}") } else { id.to_string() };
    match text.split_once('@') {
        Some((head, address)) if proto != 0 => format!("{head}@[{address}]{suffix}"),
        _ => text,
    }
}

/// Why a line is not a row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineError {
    /// Not 5, 6 or 8 words.
    Fields,
    /// `->` or `=>` is missing or elsewhere.
    Arrows,
    /// The count is not a number.
    Count,
    /// The source is not a subnet with an optional port.
    Src,
    /// The destination is not, or is of another family than the source.
    Dst,
    /// The SAID or the protocol after it.
    Said,
    /// An identity is not in parentheses.
    Identity,
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fields => "has wrong number of fields",
            Self::Arrows => "is missing -> or =>",
            Self::Count => "packet count is malformed",
            Self::Src => "source subnet field is malformed",
            Self::Dst => "destination subnet field is malformed",
            Self::Said => "SA ID field is malformed",
            Self::Identity => "identity field is malformed",
        })
    }
}

impl core::error::Error for LineError {}

impl FromStr for Line {
    type Err = LineError;

    /// Reads what any of them wrote: with or without a count, ports, a protocol and identities.
    fn from_str(text: &str) -> Result<Self, LineError> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let (count, src, arrow, dst, to, said, identities) = match words.as_slice() {
            [src, arrow, dst, to, said] => ("0", src, arrow, dst, to, said, None),
            [count, src, arrow, dst, to, said] => (*count, src, arrow, dst, to, said, None),
            [count, src, arrow, dst, to, said, a, b] => (*count, src, arrow, dst, to, said, Some((*a, *b))),
            _ => return Err(LineError::Fields),
        };
        if (*arrow, *to) != ("->", "=>") {
            return Err(LineError::Arrows);
        }
        let packets = count.parse().map_err(|_| LineError::Count)?;
        let (src, sport) = read_net(src).ok_or(LineError::Src)?;
        let (dst, dport) = read_net(dst).ok_or(LineError::Dst)?;
        if src.addr().is_ipv4() != dst.addr().is_ipv4() {
            return Err(LineError::Dst);
        }
        let (said, proto) = read_target(said).ok_or(LineError::Said)?;
        let identity = |word: &str| {
            word.strip_prefix('(')
                .and_then(|word| word.strip_suffix(')'))
                .map(str::to_owned)
                .ok_or(LineError::Identity)
        };
        let (src_identity, dst_identity) = match identities {
            Some((a, b)) => (identity(a)?, identity(b)?),
            None => Default::default(),
        };
        Ok(Self {
            packets,
            selector: Selector { src, dst, proto, sport, dport },
            said,
            src_identity,
            dst_identity,
        })
    }
}

fn read_net(word: &str) -> Option<(IpNet, u16)> {
    if let Some(rest) = word.strip_prefix('[') {
        let (net, port) = rest.split_once("]:")?;
        return Some((text::subnet(net, None).ok()?.0, port.parse().ok()?));
    }
    // The page's way to write everything of IPv6, which its own parser refused.
    if word == "0:0/0" {
        return Some((IpNet::V6(Ipv6Net::default()), 0));
    }
    let (net, port) = text::subnet(word, None).ok()?;
    Some((net, port.unwrap_or(0)))
}

fn read_target(word: &str) -> Option<(Said, u8)> {
    if let Some((said, proto)) = word.split_once("]:") {
        return Some((said.replace('[', "").parse().ok()?, proto.parse().ok()?));
    }
    let end = word.rfind(':').filter(|_| {
        let address = word.split_once('@').map_or("", |(_, address)| address);
        word.starts_with('%') || address.split(':').next().is_some_and(|a| a.parse::<IpAddr>().is_ok())
    });
    match end.and_then(|end| Some((word.get(..end)?, word.get(end.checked_add(1)?..)?))) {
        Some((said, proto)) => Some((said.parse().ok()?, proto.parse().ok()?)),
        None => Some((word.parse().ok()?, 0)),
    }
}

#[cfg(test)]
mod tests;
