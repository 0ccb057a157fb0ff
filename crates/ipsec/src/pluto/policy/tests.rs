//! Which routes there are, and what the data plane is asked for when one of several pairs of the same flow goes.

use super::*;
use crate::pluto::kernel::Notice;
use ike::connection::{ChildPolicy, Connection, Encapsulation, Times, WhenGone};
use ike::identity::{Id, IdPattern};

/// Writes down which pair each flow is led to.
#[derive(Default)]
struct Led(Vec<(Selector, u32)>);

impl Kernel for Led {
    fn spi(&mut self, _: IpAddr, _: IpAddr) -> Result<u32, KernelError> {
        Err(KernelError::Gone)
    }
    fn install(&mut self, _: &ChildUp) -> Result<Installed, KernelError> {
        Err(KernelError::Gone)
    }
    fn send_through(&mut self, pair: &Installed) -> Result<(), KernelError> {
        self.0.extend(pair.flows.iter().map(|flow| (*flow, pair.spi_out)));
        Ok(())
    }
    /// Leads nowhere: 0.
    fn shut(&mut self, flows: &[Selector], _: bool) -> Result<(), KernelError> {
        self.0.extend(flows.iter().map(|flow| (*flow, 0)));
        Ok(())
    }
    fn open(&mut self, _: &[Selector]) -> Result<(), KernelError> {
        Ok(())
    }
    fn relocate(&mut self, _: &Installed, _: (SocketAddr, SocketAddr), _: bool) -> Result<(), KernelError> {
        Ok(())
    }
    fn remove(&mut self, _: &Installed) -> Result<(), KernelError> {
        Ok(())
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
        kernel.0.clear();
        policy.down(&mut kernel, spi_in, replaced, Time::ZERO);
        kernel.0.clone()
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
