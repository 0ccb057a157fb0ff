//! Eroutes: the ordered policy (RFC 4301 §4.4.1).
//!
//! Among the eroutes that match a packet the one decides that has the longest source prefix; among those the longest
//! destination prefix; then one with a protocol, a source port, a destination port before one without.
//! Eroutes of dialects that rank their policies come in the order of their priorities, and of their age (`Rank`).
//!
//! How they are searched is in [`family`].

mod cut;
mod family;
mod space;

use crate::bundle::Bundle;
use crate::sa::{Mode, Sa};
use core::cmp::Reverse;
use core::net::IpAddr;
use core::sync::atomic::{AtomicU64, Ordering};
use family::Family;
use ipsec_core::{Flow, SaId, Selector, Time};
use pfkey::{FlowPolicy, Further, Wanted};
use space::{Place, key, tuple};
use std::sync::Arc;

/// What becomes of a packet that an eroute matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Protect with the SA of this name (PROTECT).
    Protect(SaId),
    /// `%pass`: let through unprotected (BYPASS).
    Pass,
    /// `%drop`: discard.
    Drop,
    /// `%reject`: discard and say so.
    Reject,
    /// `%trap`: ask the key manager for an SA, once for each two hosts.
    Trap,
    /// `%trapsubnet`: ask the key manager for an SA, once for all of the eroute's hosts.
    TrapSubnet,
    /// `%hold`: asked, waiting.
    Hold,
}

impl Action {
    /// Whether packets need an SA that is not there.
    pub const fn waits(self) -> bool {
        matches!(self, Self::Trap | Self::TrapSubnet | Self::Hold)
    }
}

/// One entry of the policy.
#[derive(Debug)]
pub struct Eroute {
    /// What it matches.
    pub selector: Selector,
    /// What it does.
    pub action: Action,
    /// Local and remote identity; most have neither.
    identities: Option<Box<[Box<str>; 2]>>,
    /// What it is besides, if it comes from a dialect that has more to say.
    pub policy: Option<Box<Policy>>,
    /// What is done to packets, if policy wants several SAs: these, whatever else each of them is used for.
    bundle: Option<Bundle>,
    packets: AtomicU64,
    last_use: AtomicU64,
}

impl Eroute {
    /// A fresh eroute that has matched nothing yet.
    pub fn new(selector: Selector, action: Action) -> Self {
        let (packets, last_use) = Default::default();
        Self { selector, action, identities: None, policy: None, bundle: None, packets, last_use }
    }

    /// Of those that match, the smallest decides.
    fn rank(&self) -> Rank {
        self.policy
            .as_ref()
            .map_or((FlowPolicy::MIDDLE, u64::MAX), |policy| (policy.flow.priority, policy.age))
    }

    /// The same with names for its two ends.
    #[must_use]
    pub fn between(self, src_identity: Box<str>, dst_identity: Box<str>) -> Self {
        let named = !src_identity.is_empty() || !dst_identity.is_empty();
        Self { identities: named.then(|| Box::new([src_identity, dst_identity])), ..self }
    }

    /// The local identity, as printed in tables; empty if none.
    pub fn src_identity(&self) -> &str {
        self.identities.as_deref().map_or("", |[src, _]| src)
    }

    /// The remote identity, as printed in tables; empty if none.
    pub fn dst_identity(&self) -> &str {
        self.identities.as_deref().map_or("", |[_, dst]| dst)
    }

    /// The SAs that it has packets go through, where its policy wants several; the action names the first.
    pub(crate) const fn bundle(&self) -> Option<&Bundle> {
        self.bundle.as_ref()
    }

    /// The same that has packets go through these.
    #[must_use]
    pub(crate) fn through(self, bundle: Option<Bundle>) -> Self {
        Self { bundle, ..self }
    }

    /// The same entry with another action; it goes on counting.
    pub(crate) fn redirected(&self, action: Action) -> Self {
        Self {
            selector: self.selector,
            action,
            identities: self.identities.clone(),
            policy: self.policy.clone(),
            bundle: self.bundle.clone(),
            packets: AtomicU64::new(self.packets.load(Ordering::Relaxed)),
            last_use: AtomicU64::new(self.last_use.load(Ordering::Relaxed)),
        }
    }

    /// Counts `n` packets matched at once.
    pub(crate) fn count(&self, n: u64, now: Time) {
        self.packets.fetch_add(n, Ordering::Relaxed);
        self.last_use.store(now.as_nanos(), Ordering::Relaxed);
    }

    /// Packets matched so far.
    pub fn packets(&self) -> u64 {
        self.packets.load(Ordering::Relaxed)
    }

    /// When it last matched.
    pub fn last_use(&self) -> Option<Time> {
        Some(self.last_use.load(Ordering::Relaxed)).filter(|at| *at != 0).map(Time::from_nanos)
    }
}

/// What an eroute of another dialect is besides its selector and what it does just now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Its number, its priority, the SAs that it wants.
    pub flow: FlowPolicy,
    /// The ends of the SA that it wants, the innermost of several; an unspecified one may be any.
    pub ends: (IpAddr, IpAddr),
    /// Policies of one priority come in this order.
    pub age: u64,
}

impl Policy {
    /// The SAs that it wants, from the inside to the outside.
    pub(crate) fn wanted(&self) -> impl Iterator<Item = Further> {
        let (src, dst) = self.ends;
        let innermost = self.flow.wanted.map(|wanted| Further { wanted, src, dst });
        innermost.into_iter().chain(self.flow.further.iter().copied())
    }

    /// Whether it wants more than one.
    pub(crate) const fn wants_several(&self) -> bool {
        !self.flow.further.is_empty()
    }
}

/// What a policy looks at in an SA, or in what stands for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Passed {
    protocol: u8,
    tunnel: bool,
    src: IpAddr,
    dst: IpAddr,
    /// `None` for any.
    reqid: Option<u32>,
}

impl Passed {
    pub(crate) fn of(sa: &Sa) -> Self {
        Self {
            protocol: sa.id.protocol.number(),
            tunnel: sa.mode == Mode::Tunnel,
            src: sa.src,
            dst: sa.id.dst,
            reqid: Some(sa.reqid().unwrap_or(0)),
        }
    }

    /// IPComp in tunnel mode that was not worth it: a packet in a packet between these.
    pub(crate) const fn uncompressed(src: IpAddr, dst: IpAddr) -> Self {
        Self { protocol: IPCOMP, tunnel: true, src, dst, reqid: None }
    }

    /// Whether it is the one that is wanted, but for its number.
    pub(crate) fn is(&self, Further { wanted, src, dst }: &Further) -> bool {
        let end = |wanted: &IpAddr, is: IpAddr| wanted.is_unspecified() || *wanted == is;
        wanted.protocol == self.protocol
            && self.tunnel == (wanted.mode == TUNNEL)
            && end(src, self.src)
            && end(dst, self.dst)
    }

    /// Whether it has the number that is wanted, if one is.
    pub(crate) fn has_number(&self, wanted: &Wanted) -> bool {
        wanted.reqid == 0 || self.reqid.is_none_or(|reqid| reqid == wanted.reqid)
    }
}

/// IPComp, as an IP protocol.
pub(crate) const IPCOMP: u8 = 108;

/// `IPSEC_MODE_TUNNEL`.
const TUNNEL: u8 = 2;

/// Priority, then age. What has none comes after those of the middle, and among its own the better shape is first.
type Rank = (u32, u64);

/// What a change of policy may have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// What is said of any flow.
    All,
    /// What is said of flows this matches, and of no other.
    Only(Selector),
}

impl Change {
    /// Whether what is said of `flow` may be another now.
    pub(crate) fn touches(&self, flow: &Flow) -> bool {
        match self {
            Self::All => true,
            Self::Only(selector) => selector.matches(flow),
        }
    }
}

/// An eroute with this selector exists, or does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErouteError {
    /// Add: one with exactly this selector is there already.
    Exists,
    /// Delete: none has exactly this selector.
    Missing,
}

/// All eroutes, searchable in match order.
#[derive(Default)]
pub struct Eroutes {
    v4: Family<u32>,
    v6: Family<u128>,
}

impl Eroutes {
    /// Adds an eroute whose selector is not there yet.
    pub fn add(&mut self, eroute: Eroute) -> Result<(), ErouteError> {
        match key(&eroute.selector) {
            Some(Place::V4(shape, key)) => self.v4.add(shape, key, eroute),
            Some(Place::V6(shape, key)) => self.v6.add(shape, key, eroute),
            // Selectors of two families match nothing; whoever builds one refuses it before.
            None => Err(ErouteError::Exists),
        }
    }

    /// Puts an eroute in the place of the one with the same selector, if any: an upsert, without a gap in between.
    /// The new one counts from 0; the other is returned, to be dropped when packets flow again.
    pub fn replace(&mut self, eroute: Eroute) -> Option<Arc<Eroute>> {
        match key(&eroute.selector)? {
            Place::V4(shape, key) => self.v4.replace(shape, key, eroute),
            Place::V6(shape, key) => self.v6.replace(shape, key, eroute),
        }
    }

    /// Removes the eroute with exactly this selector.
    pub fn delete(&mut self, selector: &Selector) -> Result<Arc<Eroute>, ErouteError> {
        match key(selector) {
            Some(Place::V4(shape, key)) => self.v4.delete(shape, &key),
            Some(Place::V6(shape, key)) => self.v6.delete(shape, &key),
            None => None,
        }
        .ok_or(ErouteError::Missing)
    }

    /// Removes all. Dropping them takes long where they are many: that is the caller's to do, and when.
    #[must_use]
    pub fn clear(&mut self) -> impl Sized + use<> {
        core::mem::take(self)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.v4.len().saturating_add(self.v6.len())
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.v4.len() == 0 && self.v6.len() == 0
    }

    /// The eroute with exactly this selector.
    pub fn exact(&self, selector: &Selector) -> Option<&Arc<Eroute>> {
        match key(selector)? {
            Place::V4(shape, key) => self.v4.exact(shape, &key),
            Place::V6(shape, key) => self.v6.exact(shape, &key),
        }
    }

    /// The eroute that decides about `flow`.
    pub fn lookup(&self, flow: &Flow) -> Option<&Arc<Eroute>> {
        match (flow.src, flow.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => self.v4.lookup(&tuple(src.to_bits(), dst.to_bits(), flow)),
            (IpAddr::V6(src), IpAddr::V6(dst)) => self.v6.lookup(&tuple(src.to_bits(), dst.to_bits(), flow)),
            _ => None,
        }
    }

    /// Every eroute that matches `flow`, the one that decides first (`ipsec eroute --explain`).
    pub fn explain(&self, flow: &Flow) -> Vec<Arc<Eroute>> {
        let mut all: Vec<Arc<Eroute>> = match (flow.src, flow.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                self.v4.matches(&tuple(src.to_bits(), dst.to_bits(), flow)).into_iter().cloned().collect()
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                self.v6.matches(&tuple(src.to_bits(), dst.to_bits(), flow)).into_iter().cloned().collect()
            }
            _ => Vec::new(),
        };
        all.sort_by_key(|eroute| eroute.rank());
        all
    }

    /// What decides about passing in clear, in match order within each family: every eroute down to the last shape that has a
    /// `%pass`, and whether it is one. Empty where there is none, and that is known without a search.
    pub fn bypasses(&self) -> Vec<(Selector, bool)> {
        let all = self.v4.down_to_passes().into_iter().chain(self.v6.down_to_passes());
        all.map(|eroute| (eroute.selector, eroute.action == Action::Pass)).collect()
    }

    /// All of them in no order.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Eroute>> {
        self.v4.all().chain(self.v6.all())
    }

    /// All of them in table order: family, source, destination, protocol, ports; the longer prefix first where the
    /// addresses are the same.
    pub fn list(&self) -> Vec<Arc<Eroute>> {
        let mut all: Vec<Arc<Eroute>> = self.v4.all().chain(self.v6.all()).map(Arc::clone).collect();
        all.sort_unstable_by_key(|eroute| listed(&eroute.selector));
        all
    }
}

/// The order of [`Eroutes::list`].
pub(crate) fn listed(s: &Selector) -> impl Ord + use<> {
    let lengths = Reverse((s.src.prefix_len(), s.dst.prefix_len()));
    (s.src.network(), s.dst.network(), s.proto, s.sport, s.dport, lengths)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipnet::IpNet;
    use proptest::prelude::*;

    /// The rule of the first lines of this file, written as plainly as it can be.
    fn naive<'t>(table: &'t [Selector], flow: &Flow) -> Option<&'t Selector> {
        table.iter().filter(|s| s.matches(flow)).max_by_key(|s| {
            (s.src.prefix_len(), s.dst.prefix_len(), s.proto != 0, s.sport != 0, s.dport != 0)
        })
    }

    fn selector(src: &str, dst: &str) -> Selector {
        Selector::nets(src.parse().unwrap(), dst.parse().unwrap())
    }

    fn flow(src: &str, dst: &str, proto: u8, sport: u16, dport: u16) -> Flow {
        Flow { src: src.parse().unwrap(), dst: dst.parse().unwrap(), proto, sport, dport }
    }

    #[test]
    fn every_recommended_answer_of_the_corpus_is_ours() {
        let corpus = include_str!("../tests/data/eroute_match.jsonl");
        let (mut tables, mut queries) = (0, 0);
        for line in corpus.lines() {
            let case: serde_json::Value = serde_json::from_str(line).unwrap();
            let number = |v: &serde_json::Value, name: &str| v[name].as_u64().unwrap() as u16;
            let mut table = Eroutes::default();
            let mut selectors = Vec::new();
            for e in case["eroutes"].as_array().unwrap() {
                let mut s = selector(e["src"].as_str().unwrap(), e["dst"].as_str().unwrap());
                (s.proto, s.sport, s.dport) =
                    (number(e, "proto") as u8, number(e, "sport"), number(e, "dport"));
                let _ = table.add(Eroute::new(s, Action::Pass));
                selectors.push(s);
            }
            for q in case["queries"].as_array().unwrap() {
                let f = flow(
                    q["src"].as_str().unwrap(),
                    q["dst"].as_str().unwrap(),
                    number(q, "proto") as u8,
                    number(q, "sport"),
                    number(q, "dport"),
                );
                let want = q["recommended"].as_u64().map(|i| selectors[i as usize]);
                assert_eq!(table.lookup(&f).map(|e| e.selector), want, "{f:?}");
                queries += 1;
            }
            tables += 1;
        }
        assert_eq!((tables, queries > 2000), (200, true), "{queries}");
    }

    #[test]
    fn add_replace_and_delete_are_exact() {
        let mut table = Eroutes::default();
        let wide = selector("10.0.0.0/8", "0.0.0.0/0");
        let narrow = selector("10.0.0.0/9", "0.0.0.0/0");
        table.add(Eroute::new(wide, Action::Drop)).unwrap();
        assert_eq!(table.add(Eroute::new(wide, Action::Pass)), Err(ErouteError::Exists));
        assert_eq!(table.delete(&narrow).unwrap_err(), ErouteError::Missing);
        let f = flow("10.1.2.3", "192.0.2.1", 6, 1, 2);
        table.lookup(&f).unwrap().count(7, Time::from_secs(3));
        assert_eq!(table.lookup(&f).unwrap().packets(), 7);
        table.replace(Eroute::new(wide, Action::Pass));
        assert_eq!(table.len(), 1);
        assert_eq!(
            (table.lookup(&f).unwrap().packets(), table.lookup(&f).unwrap().action),
            (0, Action::Pass)
        );
        table.replace(Eroute::new(narrow, Action::Reject));
        assert_eq!(table.lookup(&f).unwrap().action, Action::Reject);
        assert_eq!(table.explain(&f).len(), 2);
        table.delete(&narrow).unwrap();
        assert_eq!(table.lookup(&f).unwrap().action, Action::Pass);
        table.delete(&wide).unwrap();
        assert!(table.is_empty() && table.lookup(&f).is_none());
    }

    #[test]
    fn what_passes_in_clear_is_listed_with_all_that_comes_before_it_in_match_order() {
        let mut table = Eroutes::default();
        assert!(table.bypasses().is_empty());
        let nets = ["10.0.0.0/8", "10.1.0.0/16", "10.1.1.0/24"].map(|src| selector(src, "0.0.0.0/0"));
        for (net, action) in nets.iter().zip([Action::Drop, Action::Pass, Action::Drop]) {
            table.add(Eroute::new(*net, action)).unwrap();
        }
        let [wide, middle, narrow] = nets;
        assert_eq!(table.bypasses(), [(narrow, false), (middle, true)]);
        let other = selector("10.2.0.0/16", "0.0.0.0/0");
        table.add(Eroute::new(other, Action::Pass)).unwrap();
        table.delete(&other).unwrap();
        table.replace(Eroute::new(middle, Action::Drop));
        assert!(table.bypasses().is_empty());
        table.replace(Eroute::new(wide, Action::Pass));
        assert_eq!(table.bypasses(), [(narrow, false), (middle, false), (wide, true)]);
    }

    prop_compose! {
        fn any_selector(v6: bool)(src in 0..6_u8, dst in 0..6_u8, sl in 0..=8_u8, dl in 0..=8_u8,
                                  proto in prop::sample::select(vec![0_u8, 6, 17]),
                                  sport in 0..3_u16, dport in 0..3_u16) -> Selector {
            let net = |host: u8, len: u8| -> IpNet {
                // Few addresses, many nested prefixes.
                let host = u128::from(host).wrapping_mul(0x2400_0000_0000_0000_0000_0000_0000_0001);
                if v6 { IpNet::new(IpAddr::V6(host.into()), len.wrapping_mul(16)).unwrap().trunc() }
                else { IpNet::new(IpAddr::V4(((host >> 96) as u32).into()), len.wrapping_mul(4)).unwrap().trunc() }
            };
            Selector { src: net(src, sl), dst: net(dst, dl), proto, sport, dport }
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_rule_as_written(v6: bool, ops in prop::collection::vec((0..5_u8, any_selector(true), any_selector(false)), 1..400),
                                           probes in prop::collection::vec((0..6_u8, 0..6_u8, 0..3_u16, 0..3_u16, any::<bool>()), 1..40)) {
            let mut table = Eroutes::default();
            let mut model: Vec<Selector> = Vec::new();
            for (add, six, four) in ops {
                let s = if v6 { six } else { four };
                let known = model.contains(&s);
                if add != 0 {
                    prop_assert_eq!(table.add(Eroute::new(s, Action::Pass)).is_ok(), !known);
                    if !known { model.push(s); }
                } else {
                    let s = model.first().copied().unwrap_or(s);
                    prop_assert_eq!(table.delete(&s).is_ok(), model.contains(&s));
                    model.retain(|other| *other != s);
                }
                prop_assert_eq!(table.len(), model.len());
            }
            for (src, dst, sport, dport, tcp) in probes {
                let address = |host: u8| {
                    let host = u128::from(host).wrapping_mul(0x2400_0000_0000_0000_0000_0000_0000_0001);
                    if v6 { IpAddr::V6(host.into()) } else { IpAddr::V4(((host >> 96) as u32).into()) }
                };
                let f = Flow { src: address(src), dst: address(dst), proto: if tcp { 6 } else { 17 }, sport, dport };
                prop_assert_eq!(table.lookup(&f).map(|e| e.selector), naive(&model, &f).copied());
                prop_assert_eq!(table.explain(&f).len(), model.iter().filter(|s| s.matches(&f)).count());
            }
            let listed: Vec<Selector> = table.list().iter().map(|e| e.selector).collect();
            let mut want = model.clone();
            want.sort_by_key(super::listed);
            prop_assert_eq!(listed, want);
        }
    }
}
