//! A packet that somebody wants to see, as a row: of `ipsec klipsdebug --flow`, and of the log.

use super::eroute::said;
use core::fmt;
use ipsec_core::{Flow, Selector};
use klips::{Action, Fate, Way};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// One packet or superpacket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sighting {
    /// `out` or `in`.
    pub way: String,
    /// What it is; missing where it was refused before that could be known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub packet: Option<Packet>,
    /// Out: the eroute that decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eroute: Option<String>,
    /// In: the SA that it came on, or named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub said: Option<String>,
    /// `protected`, `passed`, `kept`, `delivered` or `refused`.
    pub fate: String,
    /// Why it was refused: the counter's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// How many packets, if one may be several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub packets: Option<u64>,
}

/// What a packet is to policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packet {
    /// Its source.
    pub src: IpAddr,
    /// Its destination.
    pub dst: IpAddr,
    /// Its transport protocol.
    pub proto: u8,
    /// Its source port.
    pub sport: u16,
    /// Its destination port.
    pub dport: u16,
    /// Octets of it; of a superpacket, all of them.
    pub octets: usize,
}

impl From<&klips::Sighting> for Sighting {
    fn from(seen: &klips::Sighting) -> Self {
        let packet = seen.flow.map(|Flow { src, dst, proto, sport, dport }| Packet {
            src,
            dst,
            proto,
            sport,
            dport,
            octets: seen.octets,
        });
        let (fate, why) = match seen.fate {
            Fate::Protected => ("protected", None),
            Fate::Passed => ("passed", None),
            Fate::Kept => ("kept", None),
            Fate::Delivered => ("delivered", None),
            Fate::Refused(why, n) => ("refused", Some((why.name().to_owned(), n))),
        };
        let (why, packets) = why.unzip();
        Self {
            way: match seen.way {
                Way::Out => "out",
                Way::In => "in",
            }
            .into(),
            packet,
            eroute: seen.eroute.map(eroute),
            said: seen.sa.map(|sa| sa.to_string()),
            fate: fate.into(),
            why,
            packets,
        }
    }
}

fn eroute((selector, action): (Selector, Action)) -> String {
    let side =
        |net: ipnet::IpNet, port: u16| if port == 0 { net.to_string() } else { format!("{net}:{port}") };
    let proto = if selector.proto == 0 { String::new() } else { format!(" proto {}", selector.proto) };
    let (src, dst) = (side(selector.src, selector.sport), side(selector.dst, selector.dport));
    format!("{src} -> {dst}{proto} => {}", said(action))
}

impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { src, dst, proto, sport, dport, octets } = self;
        match (sport, dport) {
            (0, 0) => write!(f, "{src} -> {dst} proto {proto}, {octets} octets"),
            _ => write!(f, "{src} port {sport} -> {dst} port {dport} proto {proto}, {octets} octets"),
        }
    }
}

impl fmt::Display for Sighting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.way)?;
        match &self.packet {
            Some(packet) => write!(f, ": {packet}")?,
            None => f.write_str(": a packet that shows nothing of itself")?,
        }
        if self.way == "out" && self.packet.is_some() {
            write!(f, "; {}", self.eroute.as_deref().unwrap_or("no eroute"))?;
        }
        if let Some(said) = &self.said {
            write!(f, "; on {said}")?;
        }
        write!(f, "; {}", self.fate)?;
        match (&self.why, self.packets) {
            (Some(why), Some(n)) if n > 1 => write!(f, ": {why}, {n} packets"),
            (Some(why), _) => write!(f, ": {why}"),
            (None, _) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipsec_core::Time;
    use klips::Discard;

    #[test]
    fn a_sighting_says_where_a_packet_went_in_a_line_and_in_json() {
        let flow = Flow {
            src: "10.1.0.9".parse().unwrap(),
            dst: "10.2.0.9".parse().unwrap(),
            proto: 17,
            sport: 999,
            dport: 53,
        };
        let selector = Selector::nets("10.1.0.0/16".parse().unwrap(), "10.2.0.0/16".parse().unwrap());
        let seen = klips::Sighting {
            at: Time::ZERO,
            way: Way::Out,
            flow: Some(flow),
            octets: 84,
            eroute: Some((selector, Action::Drop)),
            sa: None,
            fate: Fate::Refused(Discard::Drop, 1),
        };
        let row = Sighting::from(&seen);
        assert_eq!(
            row.to_string(),
            "out: 10.1.0.9 port 999 -> 10.2.0.9 port 53 proto 17, 84 octets; 10.1.0.0/16 -> 10.2.0.0/16 => %drop; refused: drop"
        );
        assert_eq!(serde_json::from_value::<Sighting>(serde_json::json!(row)).unwrap(), row);
        let sa = Some("esp0x1001@192.0.2.1".parse().unwrap());
        let inward = klips::Sighting {
            way: Way::In,
            flow: None,
            eroute: None,
            sa,
            fate: Fate::Refused(Discard::Replayed, 3),
            ..seen
        };
        assert_eq!(
            Sighting::from(&inward).to_string(),
            "in: a packet that shows nothing of itself; on esp0x1001@192.0.2.1; refused: replayed, 3 packets"
        );
        let none = klips::Sighting { eroute: None, fate: Fate::Refused(Discard::NoEroute, 1), ..seen };
        assert!(Sighting::from(&none).to_string().ends_with("; no eroute; refused: no_eroute"));
    }
}
