//! What two lists of traffic selectors are together: the pairs of prefixes that a data plane sends, and lets in, by.

use super::TrafficSelector;
use ipsec_core::{MAX_SELECTORS, Selector};

/// Why two lists are no pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// There are more than [`MAX_SELECTORS`].
    Many,
    /// A range of ports that is neither all of them nor few enough to be kept to one by one.
    Ports(u16, u16),
    /// More than one, where an SA in transport mode has one.
    Several,
    /// No packet is from one side to the other: their families or protocols differ.
    Nothing,
}

impl core::fmt::Display for Unfit {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Many => write!(
                f,
                "the subnets and ports of the two sides are more than {MAX_SELECTORS} pairs, and one pair of SAs carries no more: write leftsubnets={{...}} for SAs of each pair, or wider subnets"
            ),
            Self::Ports(first, last) => write!(
                f,
                "ports {first} to {last}: an SA carries all ports, or up to {MAX_SELECTORS} from 1 on (protoport=PROTOCOL/FIRST-LAST)"
            ),
            Self::Several => f.write_str(
                "the selectors are several, and an SA in transport mode has one address, protocol and port on each side: negotiate one, or type=tunnel",
            ),
            Self::Nothing => f.write_str(
                "no packet can be between the subnets of the two sides: their families or protocols differ",
            ),
        }
    }
}

/// More selectors than can come in one payload, each with each of a policy, are not looked at.
const MOST_ASKED: usize = 256;

const fn is_icmp(protocol: u8) -> bool {
    matches!(protocol, 1 | 58)
}

/// The ports one by one, or 0 for all of them. A data plane holds one port or none, so that a range is as many entries as it has ports;
/// port 0 by itself it cannot hold.
fn ports(ts: &TrafficSelector) -> Result<core::ops::RangeInclusive<u16>, Unfit> {
    match ts.ports {
        (0, u16::MAX) => Ok(0..=0),
        (first, last) if first != 0 && first <= last && usize::from(last.abs_diff(first)) < MAX_SELECTORS => {
            Ok(first..=last)
        }
        (first, last) => Err(Unfit::Ports(first, last)),
    }
}

/// What of the selectors that a peer asks for and policy allows can be carried at all, in the order asked. Where the whole cannot, what can
/// is granted, and the peer sees from the answer what it has; a specific selector before a wide one stays (RFC 7296 §2.9).
pub fn fitting(asked: &[TrafficSelector], allowed: &[TrafficSelector]) -> Vec<TrafficSelector> {
    let each = asked.iter().flat_map(|one| TrafficSelector::narrow(core::slice::from_ref(one), allowed));
    let fit: Vec<TrafficSelector> = each.filter(|ts| ports(ts).is_ok()).take(MOST_ASKED).collect();
    TrafficSelector::narrow(&fit, allowed)
}

/// Every pair of a prefix of `local` and one of `remote` that packets can be between, `local` as the source, in the order of
/// the lists and each once.
///
/// # Errors
/// If a data plane could not keep to them: a pair that is left out would be lost, and one that is widened would let in what
/// was not agreed on.
pub fn pairs(local: &[TrafficSelector], remote: &[TrafficSelector]) -> Result<Vec<Selector>, Unfit> {
    let mut all: Vec<Selector> = Vec::new();
    // What is counted is what is looked at, so that a peer's lists cost no more than that.
    let mut count = 0_usize;
    for ours in local {
        for theirs in remote {
            let proto = match (ours.protocol, theirs.protocol) {
                (0, proto) | (proto, 0) => proto,
                (one, other) if one == other => one,
                _ => continue,
            };
            if ours.is_ipv4() != theirs.is_ipv4() {
                continue;
            }
            let (sports, dports) = (ports(ours)?, ports(theirs)?);
            let both: Vec<(u16, u16)> =
                sports.flat_map(|sport| dports.clone().map(move |dport| (sport, dport))).collect();
            let dsts = theirs.prefixes();
            for src in ours.prefixes() {
                for (dst, (sport, dport)) in dsts.iter().flat_map(|dst| both.iter().map(move |p| (dst, *p))) {
                    count = count.saturating_add(1);
                    if count > MAX_SELECTORS {
                        return Err(Unfit::Many);
                    }
                    // ICMP has type and code in the place of both (RFC 7296 §3.13.1): no packet has two.
                    if is_icmp(proto) && sport != dport && sport != 0 && dport != 0 {
                        continue;
                    }
                    let pair = Selector { src, dst: *dst, proto, sport, dport };
                    if !all.contains(&pair) {
                        all.push(pair);
                    }
                }
            }
        }
    }
    if all.is_empty() { Err(Unfit::Nothing) } else { Ok(all) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ts(net: &str, protocol: u8, port: u16) -> TrafficSelector {
        TrafficSelector::of(net.parse().unwrap(), protocol, port)
    }

    fn text(local: &[TrafficSelector], remote: &[TrafficSelector]) -> Vec<String> {
        let one = |s: &Selector| format!("{} {} {} {} {}", s.src, s.dst, s.proto, s.sport, s.dport);
        pairs(local, remote).unwrap().iter().map(one).collect()
    }

    #[test]
    fn each_with_each_of_its_family_and_protocol() {
        let ours = [ts("10.1.0.0/24", 0, 0), ts("10.1.1.0/24", 6, 0), ts("fd00:1::/64", 0, 0)];
        let theirs = [ts("10.2.0.0/24", 6, 22), ts("10.2.1.0/24", 17, 0), ts("fd00:2::/64", 0, 0)];
        assert_eq!(
            text(&ours, &theirs),
            [
                "10.1.0.0/24 10.2.0.0/24 6 0 22",
                "10.1.0.0/24 10.2.1.0/24 17 0 0",
                "10.1.1.0/24 10.2.0.0/24 6 0 22",
                "fd00:1::/64 fd00:2::/64 0 0 0",
            ]
        );
    }

    #[test]
    fn a_range_of_addresses_is_the_prefixes_it_is_made_of() {
        let odd = TrafficSelector {
            addresses: ("10.1.0.1".parse().unwrap(), "10.1.0.3".parse().unwrap()),
            ..ts("10.1.0.0/24", 0, 0)
        };
        let pairs = text(&[odd], &[ts("10.2.0.0/24", 0, 0)]);
        assert_eq!(pairs, ["10.1.0.1/32 10.2.0.0/24 0 0 0", "10.1.0.2/31 10.2.0.0/24 0 0 0"]);
    }

    #[test]
    fn a_range_of_ports_is_each_of_its_ports_where_they_are_few() {
        let (ours, theirs) = (ts("10.1.0.1/32", 6, 0), ts("10.2.0.1/32", 6, 0));
        let some = |first, last| TrafficSelector { ports: (first, last), ..theirs };
        assert_eq!(
            text(&[ours], &[some(8000, 8002)]),
            [8000, 8001, 8002].map(|port| format!("10.1.0.1/32 10.2.0.1/32 6 0 {port}"))
        );
        assert_eq!(text(&[ours], &[some(u16::MAX - 63, u16::MAX)]).len(), 64);
        assert_eq!(pairs(&[ours], &[some(1, 40), some(41, 80)]), Err(Unfit::Many));
        let from = TrafficSelector { ports: (1, 8), ..ours };
        assert_eq!(text(&[from], &[some(1, 8)]).len(), 64);
        assert_eq!(pairs(&[from], &[some(1, 9)]), Err(Unfit::Many));
        // Echo requests with either of two codes: what is in both places is one.
        let icmp = |net: &str| TrafficSelector { ports: (0x800, 0x801), ..ts(net, 1, 0) };
        assert_eq!(
            text(&[icmp("10.1.0.1/32")], &[icmp("10.2.0.1/32")]),
            [0x800, 0x801].map(|both| format!("10.1.0.1/32 10.2.0.1/32 1 {both} {both}"))
        );
    }

    #[test]
    fn of_what_a_peer_asks_for_the_part_that_can_be_carried_is_granted() {
        let allowed = [ts("10.1.0.0/24", 0, 0)];
        let wide = TrafficSelector { ports: (1024, u16::MAX), ..ts("10.1.0.0/24", 6, 0) };
        let packet = ts("10.1.0.7/32", 6, 2000);
        let dns = ts("10.1.0.0/24", 17, 53);
        // The packet's own selector lies in the wide one, and would have gone with it.
        assert_eq!(TrafficSelector::narrow(&[packet, wide, dns], &allowed), [wide, dns]);
        assert_eq!(fitting(&[packet, wide, dns], &allowed), [packet, dns]);
        assert_eq!(fitting(&[packet, dns], &allowed), [packet, dns]);
        assert_eq!(fitting(&[wide], &allowed), []);
        assert_eq!(fitting(&[ts("0.0.0.0/0", 0, 0)], &allowed), allowed);
    }

    #[test]
    fn what_no_data_plane_could_keep_to_is_refused_and_costs_little() {
        let (ours, theirs) = (ts("10.1.0.0/24", 0, 0), ts("10.2.0.0/24", 0, 0));
        let ports = |ports| TrafficSelector { ports, ..theirs };
        assert_eq!(pairs(&[ours], &[theirs, ports((1, 1023))]), Err(Unfit::Ports(1, 1023)));
        assert_eq!(pairs(&[ours], &[ports((1, 65))]), Err(Unfit::Ports(1, 65)));
        assert_eq!(pairs(&[ours], &[ports((0, 10))]), Err(Unfit::Ports(0, 10)), "0 would be all");
        assert_eq!(pairs(&[ours], &[ports((u16::MAX, 0))]), Err(Unfit::Ports(u16::MAX, 0)), "OPAQUE");
        assert_eq!(pairs(&[ours], &[ports((0, 0))]), Err(Unfit::Ports(0, 0)), "not all of them");
        assert_eq!(pairs(&[ours], &[]), Err(Unfit::Nothing));
        assert_eq!(pairs(&[ours], &[ts("fd00::/64", 0, 0)]), Err(Unfit::Nothing));
        assert_eq!(pairs(&[ts("10.1.0.0/24", 6, 0)], &[ts("10.2.0.0/24", 17, 0)]), Err(Unfit::Nothing));
        let many: Vec<TrafficSelector> = (0..8).map(|n| ts(&format!("10.3.{n}.0/24"), 0, 0)).collect();
        assert_eq!(pairs(&many, &many).map(|all| all.len()), Ok(MAX_SELECTORS));
        let one_more: Vec<TrafficSelector> = many.iter().copied().chain([ours]).collect();
        assert_eq!(pairs(&many, &one_more), Err(Unfit::Many));
        let widest = TrafficSelector {
            addresses: ("::1".parse().unwrap(), "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe".parse().unwrap()),
            ..TrafficSelector::everything(true)
        };
        assert_eq!(pairs(&[widest; 64], &[widest; 64]), Err(Unfit::Many));
    }
}
