//! What two lists of traffic selectors are together: the pairs of prefixes that a data plane sends, and lets in, by.

use super::TrafficSelector;
use ipsec_core::{MAX_SELECTORS, Selector};

/// Why two lists are no pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// There are more than [`MAX_SELECTORS`].
    Many,
    /// A range of ports that is neither one port nor all of them.
    Ports(u16, u16),
    /// No packet is from one side to the other: their families or protocols differ.
    Nothing,
}

impl core::fmt::Display for Unfit {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Many => write!(
                f,
                "the subnets of the two sides are more than {MAX_SELECTORS} pairs, and one pair of SAs carries no more: write leftsubnets={{...}} for SAs of each pair, or wider subnets"
            ),
            Self::Ports(first, last) => write!(
                f,
                "ports {first} to {last}: an SA carries one port or all of them (protoport=PROTOCOL/PORT)"
            ),
            Self::Nothing => f.write_str(
                "no packet can be between the subnets of the two sides: their families or protocols differ",
            ),
        }
    }
}

/// One port, or 0 for all of them.
const fn port(ts: &TrafficSelector) -> Result<u16, Unfit> {
    match ts.ports {
        (0, u16::MAX) => Ok(0),
        (first, last) if first == last && first != 0 => Ok(first),
        (first, last) => Err(Unfit::Ports(first, last)),
    }
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
            let (sport, dport) = (port(ours)?, port(theirs)?);
            let dsts = theirs.prefixes();
            for src in ours.prefixes() {
                for dst in &dsts {
                    count = count.saturating_add(1);
                    if count > MAX_SELECTORS {
                        return Err(Unfit::Many);
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
    fn what_no_data_plane_could_keep_to_is_refused_and_costs_little() {
        let (ours, theirs) = (ts("10.1.0.0/24", 0, 0), ts("10.2.0.0/24", 0, 0));
        let ports = |ports| TrafficSelector { ports, ..theirs };
        assert_eq!(pairs(&[ours], &[theirs, ports((1, 1023))]), Err(Unfit::Ports(1, 1023)));
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
