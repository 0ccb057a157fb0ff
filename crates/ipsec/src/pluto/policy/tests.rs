//! Which routes there are, and what the data plane is asked for when one of several pairs of the same flow goes.

use super::*;
use crate::pluto::kernel::{Load, Notice};
use ike::connection::{ChildPolicy, Connection, Encapsulation, Times, WhenGone};
use ike::event::Keyed;
use ike::identity::{Id, IdPattern};
use ike::message::{IkeSpi, TrafficSelector};
use ike::proposal::Protocol;
use ipsec_core::Secret;
use ipsec_core::algorithm::{Encryption, Suite};

/// Writes down where each flow is led, and which pairs there are; and from some request on refuses.
struct Led {
    led: Vec<(Selector, u32)>,
    /// Where each flow leads in the end; nothing where it is no longer ours.
    policy: BTreeMap<Selector, u32>,
    pairs: BTreeSet<u32>,
    /// Requests that it grants, and how many it refuses then.
    granted: usize,
    refused: usize,
    /// What each pair carries.
    carried: BTreeMap<u32, Carried>,
}

impl Default for Led {
    fn default() -> Self {
        let (led, policy, pairs, carried) = Default::default();
        Self { led, policy, pairs, carried, granted: usize::MAX, refused: 0 }
    }
}

/// Dropped, and asked for.
const DROP: u32 = 0;
const TRAP: u32 = 1;

impl Led {
    fn request(&mut self) -> Result<(), KernelError> {
        if self.granted > 0 {
            self.granted -= 1;
        } else if self.refused > 0 {
            self.refused -= 1;
            return Err(KernelError::Refused("ENOBUFS".to_owned()));
        }
        Ok(())
    }

    fn lead(&mut self, flow: &Selector, to: u32) -> Result<(), KernelError> {
        self.request()?;
        self.led.push((*flow, to));
        self.policy.insert(*flow, to);
        Ok(())
    }
}

impl Kernel for Led {
    fn spi(&mut self, _: IpAddr, _: IpAddr) -> Result<u32, KernelError> {
        Err(KernelError::Gone)
    }
    fn install(&mut self, child: &ChildUp) -> Result<Installed, KernelError> {
        self.request()?;
        let flows = pairs(&child.local_selectors, &child.remote_selectors).unwrap();
        let pair = pair(child.inbound.spi, &flows);
        self.pairs.insert(pair.spi_in);
        Ok(pair)
    }
    fn send_through(&mut self, pair: &Installed) -> Result<(), KernelError> {
        pair.flows.iter().try_for_each(|flow| self.lead(flow, pair.spi_out))
    }
    fn shut(&mut self, flows: &[Selector], trap: bool) -> Result<(), KernelError> {
        flows.iter().try_for_each(|flow| self.lead(flow, if trap { TRAP } else { DROP }))
    }
    fn open(&mut self, flows: &[Selector]) -> Result<(), KernelError> {
        self.request()?;
        flows.iter().for_each(|flow| _ = self.policy.remove(flow));
        Ok(())
    }
    fn relocate(&mut self, _: &Installed, _: (SocketAddr, SocketAddr), _: bool) -> Result<(), KernelError> {
        Ok(())
    }
    fn remove(&mut self, pair: &Installed) -> Result<Option<Carried>, KernelError> {
        self.pairs.remove(&pair.spi_in);
        Ok(self.carried.remove(&pair.spi_in))
    }
    fn notices(&mut self) -> Result<Vec<Notice>, KernelError> {
        Ok(Vec::new())
    }
}

fn flow(net: u8) -> Selector {
    Selector::nets("10.1.0.0/16".parse().unwrap(), format!("10.2.{net}.0/24").parse().unwrap())
}

fn pair(spi_in: u32, flows: &[Selector]) -> Installed {
    Installed {
        connection: "net".to_owned(),
        spi_in,
        spi_out: spi_in + 0x100,
        local: [192, 0, 2, 1].into(),
        remote: [192, 0, 2, 2].into(),
        flows: flows.to_vec(),
    }
}

#[test]
fn where_the_pair_that_sends_goes_its_flows_move_at_once_to_another_that_carries_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut policy = Policy::new(Rundir::new(dir.path()));
    let mut kernel = Led::default();
    let [both, one] = [vec![flow(1), flow(2)], vec![flow(1)]];
    for pair in [pair(1, &both), pair(2, &one), pair(3, &one), pair(4, &both)] {
        policy.pairs.insert(pair, false);
    }
    let mut down = |spi_in, replaced| {
        kernel.led.clear();
        policy.down(&mut kernel, spi_in, replaced, Time::ZERO);
        kernel.led.clone()
    };
    // The newest goes, not by rekeying: two IKE SAs with one peer, and one of them is over.
    assert_eq!(down(4, false), [(flow(1), 0x103), (flow(2), 0x101)]);
    // One that does not send goes, and nothing moves.
    assert_eq!(down(2, false), []);
    // One that was replaced without its successor's being taken into use leaves nothing behind, either.
    assert_eq!(down(3, true), [(flow(1), 0x101)]);
    // The last one: what it protected is held.
    assert_eq!(down(1, false), [(flow(1), 0), (flow(2), 0)]);
}

fn carried(packets: u64) -> Carried {
    let load = Load { bytes: packets * 100, packets };
    Carried { out: load, r#in: load }
}

#[test]
fn what_a_pair_carried_is_counted_once_and_when_it_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let mut policy = Policy::new(Rundir::new(dir.path()));
    let known = (1..=4).map(|n| (n, carried(10_u64.pow(n - 1)))).collect();
    let mut kernel = Led { carried: known, ..Led::default() };
    for n in 1..=4 {
        policy.pairs.insert(pair(n, &[flow(1)]), false);
    }
    // Replaced: it is there for a while, and still counts by itself.
    policy.down(&mut kernel, 1, true, Time::ZERO);
    assert_eq!((policy.gone("net"), policy.lingering().count()), (carried(0), 1));
    // At its hard limit: its place is empty in a moment, and it is in the sum at once and once only.
    policy.dead(&mut kernel, 2);
    assert_eq!((policy.gone("net"), policy.counts(&pair(2, &[]))), (carried(10), false));
    policy.dead(&mut kernel, 2);
    policy.down(&mut kernel, 2, false, Time::ZERO);
    policy.expire(&mut kernel, Some(Time::ZERO.after(LINGER)));
    assert_eq!((policy.gone("net"), policy.lingering().count()), (carried(11), 0));
    assert!(policy.counts(&pair(2, &[])), "the name is free again");
    policy.down(&mut kernel, 3, true, Time::ZERO);
    policy.down(&mut kernel, 4, false, Time::ZERO);
    policy.expire(&mut kernel, None);
    assert_eq!(policy.gone("net"), carried(1111));
}

/// A value that is smaller than one before is taken for a counter that began anew, and counted whole.
#[test]
fn where_a_sum_is_lost_nothing_that_was_counted_before_is_in_the_next_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut policy = Policy::new(Rundir::new(dir.path()));
    let known = [(1, carried(1)), (3, carried(100)), (4, carried(1000))].into();
    let mut kernel = Led { carried: known, ..Led::default() };
    for n in 1..=4 {
        policy.pairs.insert(pair(n, &[flow(1)]), false);
    }
    policy.down(&mut kernel, 1, true, Time::ZERO);
    policy.expire(&mut kernel, None);
    assert_eq!(policy.gone("net"), carried(1));
    // Somebody else has deleted the second one; both others had been counted.
    policy.down(&mut kernel, 4, true, Time::ZERO);
    policy.down(&mut kernel, 2, true, Time::ZERO);
    policy.expire(&mut kernel, None);
    assert_eq!((policy.gone("net"), policy.counts(&pair(3, &[]))), (carried(0), false));
    policy.pairs.insert(pair(5, &[flow(1)]), false);
    kernel.carried.insert(5, carried(7));
    for n in [3, 5] {
        policy.down(&mut kernel, n, false, Time::ZERO);
    }
    policy.expire(&mut kernel, None);
    assert_eq!(policy.gone("net"), carried(7));
    // The data plane goes, and all it knew: as soon as that is seen, and not only when another is there.
    policy.pairs.insert(pair(6, &[flow(1)]), false);
    policy.lost();
    assert_eq!((policy.gone("net"), policy.counts(&pair(6, &[]))), (carried(0), false));
    policy.found(&mut kernel);
    assert!(policy.counts(&pair(6, &[])));
}

#[test]
fn what_no_other_pair_carries_goes_through_one_that_is_to_wait() {
    let dir = tempfile::tempdir().unwrap();
    let mut policy = Policy::new(Rundir::new(dir.path()));
    let mut kernel = Led::default();
    let new = pair(2, &[flow(1), flow(2)]);
    policy.pairs.insert(pair(1, &[flow(1)]), false);
    policy.pairs.insert(new.clone(), true);
    policy.send_what_is_left(&mut kernel, &new).unwrap();
    assert_eq!(kernel.led, [(flow(2), 0x102)]);
    // The one before it goes.
    kernel.led.clear();
    policy.down(&mut kernel, 1, false, Time::ZERO);
    assert_eq!(kernel.led, [(flow(1), 0x102)]);
}

#[test]
fn a_tunnel_for_everything_leaves_the_hosts_default_route_alone() {
    let nets = |text: &str| halves(text.parse().unwrap()).iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(nets("0.0.0.0/0"), ["0.0.0.0/1", "128.0.0.0/1"]);
    assert_eq!(nets("::/0"), ["::/1", "8000::/1"]);
    assert_eq!(nets("10.0.0.0/8"), ["10.0.0.0/8"]);
}

#[test]
fn a_peer_that_narrows_in_ever_new_ways_leaves_no_policy_without_end() {
    let at = |n: u32| {
        Selector::nets(
            "10.1.0.0/16".parse().unwrap(),
            IpNet::from(IpAddr::from((0x0a02_0000 + n).to_be_bytes())),
        )
    };
    let mut kept = Kept { flows: (0..MAX_FLOWS as u32 - 1).map(at).collect(), ..Kept::default() };
    let last = at(MAX_FLOWS as u32);
    assert!(kept.has_room_for(&[last]) && !kept.has_room_for(&[last, at(MAX_FLOWS as u32 + 1)]));
    kept.flows.insert(last);
    assert!(!kept.has_room_for(&[at(MAX_FLOWS as u32 + 1)]));
    assert!(kept.has_room_for(&[at(0), last]), "what comes back finds its own");
}

/// A connection for peers like these.
pub(super) fn connection(remote_id: IdPattern) -> Connection {
    let auth = Default::default();
    Connection {
        name: "net".to_owned(),
        local_address: None,
        remote_address: None,
        remote_port: 500,
        local_id: Id::parse("@us").unwrap(),
        remote_id,
        local_auth: auth,
        remote_auth: Default::default(),
        ppk: Default::default(),
        ike: Vec::new(),
        child: ChildPolicy {
            offers: Vec::new(),
            mode: Mode::Tunnel,
            local: Vec::new(),
            remote: Vec::new(),
            upper: Default::default(),
            replay_window: 64,
            pad: None,
        },
        times: Times::default(),
        encapsulation: Encapsulation::Auto,
        fragmentation: true,
        attempts: None,
        when_gone: WhenGone::Clear,
        unique: true,
        mobike: false,
        childless: false,
        reauthenticate: false,
        provision: None,
        request: None,
    }
}

/// What the engine says of a pair that carries these nets of the peer's.
fn child(spi: u32, nets: &[u8]) -> ChildUp {
    let end = |last| SocketAddr::new([192, 0, 2, last].into(), 4500);
    let keyed = |spi| Keyed { spi, encryption: Secret::zeros(36), integrity: Secret::default() };
    let net = |text: String| TrafficSelector::of(text.parse().unwrap(), 0, 0);
    ChildUp {
        ike: IkeSpi(1),
        peer: Id::parse("@east").unwrap(),
        connection: Arc::new(connection(IdPattern::Exactly(Id::parse("@east").unwrap()))),
        protocol: Protocol::Esp,
        mode: Mode::Tunnel,
        pad: None,
        suite: Suite { encryption: Some(Encryption::AesGcm16), auth: None },
        esn: false,
        inbound: keyed(spi),
        outbound: keyed(spi + 0x100),
        local_selectors: vec![net("10.1.0.0/16".to_owned())],
        remote_selectors: nets.iter().map(|n| net(format!("10.2.{n}.0/24"))).collect(),
        local: end(1),
        remote: end(2),
        encapsulate: true,
        replaces: None,
        standby: false,
        life: Duration::from_secs(3600),
        configured: None,
    }
}

/// The data plane refuses somewhere on the way: the SAs, or any of the eroutes.
#[test]
fn where_a_pair_cannot_be_installed_whole_nothing_of_it_stays_and_packets_go_where_they_went() {
    let all = [1, 2, 3];
    // What is there before: nothing; what protects while there is no SA; a pair; a pair for some of it, and a trap for the rest.
    for (routed, has) in
        [(None, &[][..]), (Some(false), &[]), (Some(true), &[]), (None, &all), (Some(true), &[2])]
    {
        for granted in 0..=3 {
            let dir = tempfile::tempdir().unwrap();
            let mut policy = Policy::new(Rundir::new(dir.path()));
            let mut kernel = Led::default();
            if let Some(trap) = routed {
                let flows: Vec<Selector> = all.iter().map(|n| flow(*n)).collect();
                kernel.shut(&flows, trap).unwrap();
                let kept = Kept { flows: flows.into_iter().collect(), trap, ..Kept::default() };
                policy.connections.insert("net".to_owned(), kept);
            }
            if !has.is_empty() {
                policy.up(&mut kernel, &child(7, has), None).unwrap();
            }
            let before = (kernel.policy.clone(), kernel.pairs.clone());
            let fits = policy.pairs.get(7).is_some();
            (kernel.granted, kernel.refused) = (granted, 1);
            let why = policy.up(&mut kernel, &child(8, &all), None).unwrap_err();
            assert!(why.contains("ENOBUFS"), "{why}");
            let what = format!("{routed:?} {has:?}, {granted} granted");
            assert_eq!((kernel.policy.clone(), kernel.pairs.clone()), before, "{what}");
            assert!(policy.pairs.get(8).is_none() && policy.pairs.get(7).is_some() == fits, "{what}");
            // The next attempt is as if there had been none before.
            kernel.granted = usize::MAX;
            policy.up(&mut kernel, &child(9, &all), None).unwrap();
            let led: Vec<(Selector, u32)> = all.iter().map(|n| (flow(*n), 0x109)).collect();
            assert_eq!(kernel.policy.clone().into_iter().collect::<Vec<_>>(), led, "{what}");
        }
    }
}

#[test]
fn a_pair_that_is_only_to_receive_leads_nothing_through_it_before_it_is_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let mut policy = Policy::new(Rundir::new(dir.path()));
    let mut kernel = Led::default();
    policy.up(&mut kernel, &child(7, &[1]), None).unwrap();
    policy.up(&mut kernel, &ChildUp { standby: true, ..child(8, &[1]) }, None).unwrap();
    assert_eq!(kernel.policy.get(&flow(1)), Some(&0x107));
    policy.in_use(&mut kernel, 8).unwrap();
    assert_eq!(kernel.policy.get(&flow(1)), Some(&0x108));
}
