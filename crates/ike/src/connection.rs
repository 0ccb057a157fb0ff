//! What is configured, as data: the host reads it from its files, the engine acts on it.

use crate::credential::{EapProof, LocalAuth, LocalSignature, RemoteAuth, RemoteEap, RemoteSignature};
use crate::eap::EapSecret;
use crate::identity::{Id, IdPattern};
use crate::message::TrafficSelector;
use crate::ppk::{Ppk, PpkPolicy};
use crate::proposal::Offer;
use crate::x509::path::Trust;
use core::net::IpAddr;
use core::time::Duration;
use ipnet::IpNet;
use ipsec_core::Secret;
use ipsec_core::sign::{PrivateKey, PublicKey};
use std::sync::Arc;

/// One connection: two ends, how they prove who they are, and what may pass between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Its name; unique.
    pub name: String,
    /// Our address; `None` is any that this host has.
    pub local_address: Option<IpAddr>,
    /// The peer's address; `None` is any: we can answer but not begin.
    pub remote_address: Option<IpAddr>,
    /// The peer's port to begin with, 500 or one of its own.
    pub remote_port: u16,
    /// Who we are.
    pub local_id: Id,
    /// Who the peer must be.
    pub remote_id: IdPattern,
    /// How we prove who we are.
    pub local_auth: LocalAuth,
    /// How the peer may.
    pub remote_auth: RemoteAuth,
    /// Whether a post-quantum preshared key is mixed in, and which.
    pub ppk: PpkPolicy,
    /// Algorithms of the IKE SA, in the order of preference.
    pub ike: Vec<Offer>,
    /// What is protected.
    pub child: ChildPolicy,
    /// Times.
    pub times: Times,
    /// ESP in UDP.
    pub encapsulation: Encapsulation,
    /// Messages that are too long for a datagram are cut (RFC 7383).
    pub fragmentation: bool,
    /// How many times a negotiation is begun anew when nobody answers; `None` is for ever.
    pub attempts: Option<u32>,
    /// What happens when the peer is gone.
    pub when_gone: WhenGone,
    /// A new IKE SA of the same peer replaces older ones (RFC 7296 §2.4).
    pub unique: bool,
    /// The IKE SA may go on between other addresses (RFC 4555).
    pub mobike: bool,
    /// The initiator offers to begin without a Child SA where the peer can (RFC 6023): then every child has a key exchange of
    /// its own, if the connection has PFS.
    pub childless: bool,
    /// At the end of its life an IKE SA is not rekeyed: both sides prove anew who they are, and the old one goes when the
    /// new one has its children.
    pub reauthenticate: bool,
    /// What a peer that asks is given; then what is on its side is the addresses it got (RFC 7296 §2.19).
    pub provision: Option<Provision>,
    /// What we ask of the peer; then what is on our side is the addresses we get.
    pub request: Option<Request>,
}

/// What peers are given, each its own address (RFC 7296 §3.15.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Provision {
    /// The first and the last address of each range, of one family.
    pub pools: Vec<(IpAddr, IpAddr)>,
    /// Name servers to ask through the tunnel.
    pub dns: Vec<IpAddr>,
    /// The domains those servers are for (RFC 8598); none is for all names.
    pub domains: Vec<String>,
    /// The networks behind us.
    pub subnets: Vec<IpNet>,
}

impl Provision {
    /// Says whether the address is one of the pools'.
    pub fn holds(&self, address: IpAddr) -> bool {
        self.pools.iter().any(|(first, last)| {
            first.is_ipv4() == address.is_ipv4() && *first <= address && address <= *last
        })
    }
}

/// The families of which we ask for an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// INTERNAL_IP4_ADDRESS.
    pub ipv4: bool,
    /// INTERNAL_IP6_ADDRESS.
    pub ipv6: bool,
}

/// What a peer has given us, read and checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configured {
    /// Our addresses inside.
    pub addresses: Vec<IpAddr>,
    /// Name servers to ask through the tunnel.
    pub dns: Vec<IpAddr>,
    /// The domains those are for; none is for all names.
    pub domains: Vec<String>,
    /// The networks behind the peer.
    pub subnets: Vec<IpNet>,
}

/// The SAs of a connection and what goes through them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildPolicy {
    /// Algorithms. The key exchange methods among them are those of PFS; the first child of an IKE SA goes without.
    pub offers: Vec<Offer>,
    /// Whole packets between gateways, or payloads between the two hosts themselves: then the addresses of the selectors below
    /// are those the IKE SA runs between, whichever the lists have.
    pub mode: Mode,
    /// What is on our side. Empty is our own address.
    pub local: Vec<TrafficSelector>,
    /// What is on the peer's side. Empty is the peer's own address.
    pub remote: Vec<TrafficSelector>,
    /// What of it, where a list is empty.
    pub upper: Upper,
    /// Packets in the replay window.
    pub replay_window: u32,
    /// What packets are padded to, where the peer takes that (RFC 4303 §2.7).
    pub pad: Option<Pad>,
}

/// How long packets in a tunnel are made, so that their lengths say less (RFC 4303 §2.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pad {
    /// So many octets; longer ones go as they are.
    To(u16),
    /// As long as the path carries in one packet.
    Path,
}

/// The protocol and the ports of what is protected of hosts whose addresses are not known beforehand, as in a
/// [`TrafficSelector`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upper {
    /// The transport protocol; 0 is any.
    pub protocol: u8,
    /// The first and the last port on our side.
    pub local: (u16, u16),
    /// The first and the last port on the peer's.
    pub remote: (u16, u16),
}

impl Default for Upper {
    fn default() -> Self {
        Self { protocol: 0, local: TrafficSelector::ALL_PORTS, remote: TrafficSelector::ALL_PORTS }
    }
}

/// Tunnel or transport mode (RFC 4301 §4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Whole packets inside.
    Tunnel,
    /// Payloads inside.
    Transport,
}

/// When ESP goes in UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encapsulation {
    /// Behind a NAT, and between two of our own gateways, where it is the fast way.
    Auto,
    /// Always: we say that we are behind a NAT.
    Yes,
    /// Never: a NAT on the way is an error.
    No,
}

/// What happens when the peer is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenGone {
    /// The SAs go; packets are dropped or, where that is configured, ask for a new negotiation.
    Clear,
    /// A new negotiation begins at once.
    Restart,
}

/// Times of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// Life of an IKE SA.
    pub ike_life: Duration,
    /// Life of a Child SA.
    pub child_life: Duration,
    /// How long before the end a successor is negotiated.
    pub margin: Duration,
    /// By how many hundredths the margin may grow, at random, so that both sides seldom begin together.
    pub fuzz: u32,
    /// After so long without a word from the peer it is asked whether it is there.
    pub liveness: Option<Duration>,
    /// The first repetition of a request comes after this; each later one takes longer.
    pub retransmit: Duration,
    /// When a request has not been answered for so long, the peer is gone.
    pub give_up: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            ike_life: Duration::from_secs(4 * 3600),
            child_life: Duration::from_secs(3600),
            margin: Duration::from_secs(540),
            fuzz: 100,
            liveness: Some(Duration::from_secs(30)),
            retransmit: Duration::from_millis(500),
            give_up: Duration::from_secs(60),
        }
    }
}

impl Connection {
    /// What is shown in EAP, and what is believed there, where both sides prove in EAP alone who they are: then the responder
    /// may leave AUTH out of its first answer, if it is told that it may (RFC 5998).
    ///
    /// That is for methods by which both sides prove themselves, which make a key, and from which a stranger learns nothing to
    /// try passwords by (RFC 5998 §4). EAP-TLS is one; MSCHAPv2 is none, for the answer to a stranger's challenge lets it
    /// try every password by itself.
    pub(crate) fn eap_alone(&self) -> Option<(&LocalSignature, &RemoteSignature)> {
        match (&self.local_auth, &self.remote_auth.eap) {
            (LocalAuth::Eap(local), Some(RemoteEap::Tls(policy))) => match &local.proof {
                EapProof::Tls(signature) => Some((signature, policy)),
                EapProof::Password => None,
            },
            _ => None,
        }
    }

    /// What we sign AUTH with as responder, if we do.
    pub(crate) fn signs(&self) -> Option<&LocalSignature> {
        match &self.local_auth {
            LocalAuth::Signature(local) => Some(local),
            // Who has not said that AUTH may be left out gets one.
            LocalAuth::Eap(_) => self.eap_alone().map(|(local, _)| local),
            LocalAuth::SharedKey => None,
        }
    }

    /// Says whether two ends of these addresses may be this connection's; 0 is how far from exact that is.
    pub fn fit(&self, local: IpAddr, remote: IpAddr) -> Option<u8> {
        let ours = match self.local_address {
            Some(address) if address == local => 0,
            Some(_) => return None,
            None => 1,
        };
        let theirs = match self.remote_address {
            Some(address) if address == remote => 0,
            Some(_) => return None,
            None => 2,
        };
        Some(ours | theirs)
    }
}

/// What the host knows and others do not, and whom it believes.
#[derive(Clone, Debug, Default)]
pub struct Secrets {
    /// Users and passwords, of EAP.
    pub eap: Vec<EapSecret>,
    /// Our private keys.
    pub keys: Vec<Arc<PrivateKey>>,
    /// Authorities and what they have revoked.
    pub trust: Arc<Trust>,
    /// Preshared keys with the identities and addresses they are for; none is for everybody.
    pub psks: Vec<Psk>,
    /// Post-quantum preshared keys by name.
    pub ppks: Vec<Ppk>,
}

/// One preshared key.
#[derive(Clone, Debug)]
pub struct Psk {
    /// Whom it is for: both ends must be among these, and an empty list is for all.
    pub ids: Vec<IdPattern>,
    /// The key.
    pub key: Secret,
}

impl Secrets {
    /// The password of a user.
    pub(crate) fn user(&self, name: &str) -> Option<&EapSecret> {
        self.eap.iter().rfind(|secret| secret.user == name)
    }

    /// The private half of a key of ours.
    pub fn key(&self, public: &PublicKey) -> Option<&Arc<PrivateKey>> {
        self.keys.iter().find(|key| key.public().spki() == public.spki())
    }

    /// The preshared key of two identities: the one that names both, else the one that names one of them and lets the
    /// other be anybody, else the one for everybody. The last of several equal ones wins, as it does in the file.
    pub fn psk(&self, local: &Id, remote: &Id) -> Option<&Secret> {
        nearest(self.psks.iter().map(|psk| (&*psk.ids, psk)), local, remote).map(|psk| &psk.key)
    }

    /// The post-quantum preshared key of two identities, chosen like [`Self::psk`] among those of this name, or among all.
    pub(crate) fn ppk(&self, id: Option<&[u8]>, local: &Id, remote: &Id) -> Option<&Ppk> {
        let named = self.ppks.iter().filter(|ppk| id.is_none_or(|id| ppk.id == id));
        nearest(named.map(|ppk| (&*ppk.ends, ppk)), local, remote)
    }
}

/// Among secrets with the lists of whom they are for, the one for these two that says most about them.
fn nearest<'a, T>(
    all: impl Iterator<Item = (&'a [IdPattern], &'a T)>,
    local: &Id,
    remote: &Id,
) -> Option<&'a T> {
    let mut best: Option<(u8, &T)> = None;
    for (ids, secret) in all {
        let names =
            |id: &Id| ids.iter().any(|pattern| matches!(pattern, IdPattern::Exactly(known) if known.is(id)));
        let anybody = ids.contains(&IdPattern::Any);
        let score = match (names(local), names(remote)) {
            (true, true) => 3,
            // A list with one name is for that name with anybody (ipsec.secrets(5)).
            (true, false) | (false, true) if anybody || ids.len() == 1 => 2,
            (false, false) if ids.iter().all(|id| *id == IdPattern::Any) => 1,
            _ => continue,
        };
        if best.is_none_or(|(known, _)| score >= known) {
            best = Some((score, secret));
        }
    }
    best.map(|(_, secret)| secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_that_names_both_ends_is_taken_before_one_that_names_one() {
        let id = |text: &str| Id::parse(text).unwrap();
        let psk = |ids: &[&str], key: &str| Psk {
            ids: ids
                .iter()
                .map(|i| if *i == "%any" { IdPattern::Any } else { IdPattern::Exactly(id(i)) })
                .collect(),
            key: Secret::from(key.as_bytes()),
        };
        let secrets = Secrets {
            psks: vec![
                psk(&["@a", "@b"], "both"),
                psk(&["@a"], "one"),
                psk(&["@c", "%any"], "c and anybody"),
                psk(&[], "everybody"),
                psk(&["@d", "@e"], "others"),
            ],
            ..Secrets::default()
        };
        let key =
            |a: &str, b: &str| String::from_utf8(secrets.psk(&id(a), &id(b)).unwrap().to_vec()).unwrap();
        assert_eq!(key("@a", "@b"), "both");
        assert_eq!(key("@b", "@a"), "both");
        assert_eq!(key("@a", "@x"), "one");
        assert_eq!(key("@x", "@c"), "c and anybody");
        assert_eq!(key("@x", "@y"), "everybody");
        // A key of two names is not for one of them and a third.
        assert_eq!(key("@d", "@x"), "everybody");
        assert!(Secrets::default().psk(&id("@a"), &id("@b")).is_none());
    }
}
