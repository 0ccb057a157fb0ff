//! Transport mode: payloads between the two hosts themselves (RFC 7296 §1.3.1), whose addresses a NAT may change on the way
//! (§2.23.1).
//!
//! A host behind a NAT speaks of itself by the address it has, and its peer knows it by another. So what comes in selectors is
//! taken for the addresses that the IKE SA runs between as soon as it is read, and everything else (narrowing, SAs, policy, the
//! answer) is about those.

use super::notified;
use crate::connection::{Connection, Mode};
use crate::message::pairs::pairs;
use crate::message::{Message, NotifyKind, Payload, TrafficSelector};
use crate::sa::IkeSa;
use core::net::IpAddr;

/// Selectors of who began the exchange, and of who answers.
type Both = (Vec<TrafficSelector>, Vec<TrafficSelector>);

/// The mode that a message asks for or grants.
pub(super) fn wanted(message: &Message) -> Mode {
    if notified(message, NotifyKind::UseTransportMode).is_some() { Mode::Transport } else { Mode::Tunnel }
}

/// The mode in which a request is granted; `None` if the connection insists on transport mode and the peer does not want it.
/// Who asks for it and meets a tunnel gets that, or takes it away again.
pub(super) fn granted(message: &Message, connection: &Connection) -> Option<Mode> {
    match (connection.child.mode, wanted(message)) {
        (Mode::Tunnel, _) => Some(Mode::Tunnel),
        (Mode::Transport, Mode::Transport) => Some(Mode::Transport),
        (Mode::Transport, Mode::Tunnel) => None,
    }
}

/// What a message says of the mode that its sender wants. Whoever would pad packets in transport mode is told that it must not: nothing
/// in such a packet says where padding begins (RFC 4303 §2.7).
pub(super) fn said(mode: Mode) -> Vec<Payload> {
    match mode {
        Mode::Tunnel => Vec::new(),
        Mode::Transport => [NotifyKind::UseTransportMode, NotifyKind::EspTfcPaddingNotSupported]
            .map(crate::sa::notify)
            .to_vec(),
    }
}

/// Policy of a host, for the address it has now. Each once.
pub(super) fn at(policy: &[TrafficSelector], address: IpAddr) -> Vec<TrafficSelector> {
    let mut all: Vec<TrafficSelector> = Vec::new();
    for one in policy {
        let here = TrafficSelector { addresses: (address, address), ..*one };
        if !all.contains(&here) {
            all.push(here);
        }
    }
    all
}

/// The selectors of a request of the peer, as they are seen from here.
pub(super) fn asked(sa: &IkeSa, (theirs, ours): Both, mode: Mode) -> Both {
    if mode == Mode::Tunnel {
        return (theirs, ours);
    }
    (seen(theirs, sa.nat.there, sa.remote.ip()), seen(ours, sa.nat.here, sa.local.ip()))
}

/// The selectors of an answer to us, as they are seen from here.
pub(super) fn answered(sa: &IkeSa, (ours, theirs): Both, mode: Mode) -> Both {
    if mode == Mode::Tunnel {
        return (ours, theirs);
    }
    (seen(ours, sa.nat.here, sa.local.ip()), seen(theirs, sa.nat.there, sa.remote.ip()))
}

/// Selectors of a host behind a NAT: all of one address, in the place of which stands the one it is known by here. Others are left
/// as they are, and meet nothing.
fn seen(selectors: Vec<TrafficSelector>, behind: bool, address: IpAddr) -> Vec<TrafficSelector> {
    let host = selectors.first().map(|first| first.addresses.0);
    let is_one = |one: &TrafficSelector| Some(one.addresses.0) == host && Some(one.addresses.1) == host;
    let same = host.is_some_and(|host| host.is_ipv4() == address.is_ipv4());
    if behind && same && selectors.iter().all(is_one) { at(&selectors, address) } else { selectors }
}

/// Narrows to the first pair that packets can be between: an SA in transport mode has one.
pub(super) fn first(ts: &mut Both) {
    let fits = |a: &TrafficSelector, b: &TrafficSelector| pairs(&[*a], &[*b]).is_ok_and(|all| all.len() == 1);
    let all = ts.0.iter().flat_map(|a| ts.1.iter().map(move |b| (*a, *b)));
    if let Some((a, b)) = all.into_iter().find(|(a, b)| fits(a, b)) {
        *ts = (vec![a], vec![b]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ts(net: &str, protocol: u8, port: u16) -> TrafficSelector {
        TrafficSelector::of(net.parse().unwrap(), protocol, port)
    }

    #[test]
    fn a_host_behind_a_nat_is_known_by_the_address_it_is_seen_with() {
        let (inside, outside) = ("192.168.7.2/32", "203.0.113.5");
        let is = outside.parse().unwrap();
        let two = vec![ts(inside, 17, 53), ts(inside, 6, 0)];
        let seen_so = vec![ts("203.0.113.5/32", 17, 53), ts("203.0.113.5/32", 6, 0)];
        assert_eq!(seen(two.clone(), true, is), seen_so);
        assert_eq!(seen(two.clone(), false, is), two, "nobody changed it");
        // A network is not a host, and two hosts are not one.
        for others in [vec![ts("192.168.7.0/24", 0, 0)], vec![ts(inside, 0, 0), ts("192.168.7.3/32", 0, 0)]] {
            assert_eq!(seen(others.clone(), true, is), others);
        }
        let six = vec![ts("fd00::2/128", 0, 0)];
        assert_eq!(seen(six.clone(), true, is), six);
        assert_eq!(seen(Vec::new(), true, is), []);
    }

    #[test]
    fn of_several_the_first_that_fit_are_granted() {
        let (ours, theirs) = ("192.0.2.1/32", "192.0.2.2/32");
        let range = TrafficSelector { ports: (1, 1023), ..ts(theirs, 6, 0) };
        let mut both = (vec![range, ts(theirs, 17, 53), ts(theirs, 0, 0)], vec![ts(ours, 0, 0)]);
        first(&mut both);
        assert_eq!(both, (vec![ts(theirs, 17, 53)], vec![ts(ours, 0, 0)]));
        let mut none = (vec![range], vec![ts(ours, 0, 0)]);
        first(&mut none);
        assert_eq!(none, (vec![range], vec![ts(ours, 0, 0)]), "the refusal names it");
    }
}
