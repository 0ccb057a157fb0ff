//! What the engine tells its host.

use crate::connection::{Configured, Connection, Mode, Pad};
use crate::identity::Id;
use crate::message::pairs::Unfit;
use crate::message::{IkeSpi, NotifyKind, TrafficSelector};
use crate::proposal::{Kind, Protocol};
use crate::x509::Unreadable;
use crate::x509::path::Distrust;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use ipsec_core::Secret;
use ipsec_core::algorithm::Suite;
use ipsec_core::sign::Scheme;
use std::sync::Arc;

/// A datagram to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// From where. On port 4500 the datagram goes behind four zero octets (RFC 3948 §2.2), which the host puts there.
    pub local: SocketAddr,
    /// To where.
    pub remote: SocketAddr,
    /// The message.
    pub octets: Vec<u8>,
}

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// An IKE SA is up: the peer has proved who it is.
    IkeUp {
        /// Our name for it.
        ike: IkeSpi,
        /// The connection.
        connection: Arc<Connection>,
        /// Who the peer is, in words.
        peer: String,
        /// Where the peer is.
        remote: SocketAddr,
    },
    /// An IKE SA took the place of another, its children with it.
    IkeRekeyed {
        /// The old name.
        from: IkeSpi,
        /// The new one.
        to: IkeSpi,
    },
    /// An IKE SA is gone, its children before it.
    IkeDown {
        /// Our name for it.
        ike: IkeSpi,
        /// The connection, if it was known.
        connection: Option<Arc<Connection>>,
        /// Why.
        why: Why,
    },
    /// A pair of SAs is to be installed: the inbound one first, then the outbound one, then the policy.
    ChildUp(Box<ChildUp>),
    /// A pair that was installed to receive only is to send as well: what is sent on the one it replaces might no longer
    /// be received.
    ChildInUse {
        /// Its inbound SPI.
        spi_in: u32,
    },
    /// A pair of SAs is to be removed.
    ChildDown {
        /// The connection.
        connection: Arc<Connection>,
        /// Our inbound SPI, the name of the pair.
        spi_in: u32,
        /// The outbound SPI.
        spi_out: u32,
        /// The addresses it was installed with.
        local: SocketAddr,
        /// The peer's.
        remote: SocketAddr,
        /// Another pair has its place: the policy stays.
        replaced: bool,
    },
    /// The peer, or we, have moved: the pair goes on at other addresses or ports.
    ChildMoved {
        /// Our inbound SPI.
        spi_in: u32,
        /// The outbound SPI.
        spi_out: u32,
        /// Old addresses, ours and the peer's.
        from: (SocketAddr, SocketAddr),
        /// New addresses, ours and the peer's.
        to: (SocketAddr, SocketAddr),
        /// ESP goes in UDP from now on, between the ports of `to`.
        encapsulate: bool,
    },
    /// A peer was given an address it did not have before. Who notes it and tells [`crate::Endpoint::restore_lease`] when
    /// it starts again gives peers the addresses they had.
    Leased {
        /// The address.
        address: IpAddr,
        /// Who has it now, as octets to be kept.
        holder: Vec<u8>,
    },
    /// What a peer had begun came to nothing. It has proved nothing, and may be anybody.
    PeerFailed {
        /// Where the peer is.
        remote: SocketAddr,
        /// Why.
        why: Why,
    },
    /// A step of a negotiation, for whoever watches it.
    Progress {
        /// The connection, if it is known already.
        connection: Option<Arc<Connection>>,
        /// What happens.
        text: String,
    },
    /// A connection that is to be up is to be begun anew now, from an address the host chooses.
    Again {
        /// Its name.
        name: String,
        /// The connection, if it is still there.
        connection: Option<Arc<Connection>>,
    },
    /// A negotiation for a connection came to nothing and will not be tried again by itself.
    Failed {
        /// The connection.
        connection: Arc<Connection>,
        /// Why.
        why: Why,
    },
}

/// A pair of SAs, ready to be installed.
#[derive(Clone, Debug)]
pub struct ChildUp {
    /// The IKE SA it belongs to.
    pub ike: IkeSpi,
    /// Who the peer has proved to be.
    pub peer: Id,
    /// Its connection.
    pub connection: Arc<Connection>,
    /// ESP or AH.
    pub protocol: Protocol,
    /// Tunnel or transport mode.
    pub mode: Mode,
    /// What is sent is padded so.
    pub pad: Option<Pad>,
    /// The algorithms.
    pub suite: Suite,
    /// Extended sequence numbers.
    pub esn: bool,
    /// The SPI and keys of what comes in: encryption (salt last), integrity.
    pub inbound: Keyed,
    /// The SPI and keys of what goes out.
    pub outbound: Keyed,
    /// What is on our side.
    pub local_selectors: Vec<TrafficSelector>,
    /// What is on the peer's side.
    pub remote_selectors: Vec<TrafficSelector>,
    /// Our address and port.
    pub local: SocketAddr,
    /// The peer's.
    pub remote: SocketAddr,
    /// ESP goes in UDP.
    pub encapsulate: bool,
    /// The inbound SPI of the pair whose place it takes.
    pub replaces: Option<u32>,
    /// It is to receive, and not to send before [`Event::ChildInUse`]: the peer may not have its keys yet (RFC 7296
    /// §2.8), or will soon be told to delete it. What no other pair carries goes through it all the same.
    pub standby: bool,
    /// After so long nothing may use it, whatever became of IKE.
    pub life: Duration,
    /// What the peer has given us.
    pub configured: Option<Arc<Configured>>,
}

/// One SA of a pair.
#[derive(Clone, Debug)]
pub struct Keyed {
    /// Its SPI.
    pub spi: u32,
    /// The cipher's key, salt last.
    pub encryption: Secret,
    /// The key for integrity; empty beside combined-mode ciphers.
    pub integrity: Secret,
}

/// Why something ended or came to nothing, as data; [`core::fmt::Display`] says it, and what would mend it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// Nobody answered.
    Silence(SocketAddr),
    /// What was kept for strangers had to make room for others.
    Crowded,
    /// The peer has so many pairs of SAs of the connection, and may have no more.
    ManyChildren(usize),
    /// The peer refused with a notification.
    Refused(&'static str, NotifyKind),
    /// The peer answered the first message, from this address of ours, with NO_PROPOSAL_CHOSEN. That may be about
    /// algorithms; who has no connection for us says the same.
    Unwanted(IpAddr),
    /// The two sides' algorithms do not meet.
    NoProposal {
        /// What for: "IKE SA" or "Child SA".
        what: &'static str,
        /// Where they do not meet, in the nearest pair.
        kinds: Vec<Kind>,
        /// What the peer offered.
        theirs: String,
        /// What we have.
        ours: String,
    },
    /// No secret is configured for the two identities.
    NoSecret(String, String),
    /// The peer's AUTH is not what its secret would make.
    BadAuth(String),
    /// The connection insists on a post-quantum preshared key, and the peer uses none.
    NoPpk,
    /// The peer uses one of this name, which is not here or not for it, and cannot do without.
    UnknownPpk(String),
    /// The connection insists on one, and there is none for these two.
    NoPpkSecret(String, String),
    /// The peer authenticates in a way we do not take.
    BadMethod(u8),
    /// The peer is somebody else than the connection says.
    WrongId {
        /// Who it says it is.
        is: String,
        /// Who it should be.
        wanted: String,
    },
    /// The peer's signature is not one of its key over this handshake.
    BadSignature(String),
    /// The peer signs by a scheme the connection does not allow.
    Scheme(Scheme),
    /// The peer takes no shared secret.
    SecretNotTaken,
    /// Nothing that the peer can verify is a scheme of our key.
    NoScheme(&'static str),
    /// The private half of our key is not there.
    NoPrivateKey(String),
    /// A user's answer in EAP is not one of the password.
    BadPassword(String),
    /// The peer does not take the user's password.
    PasswordRefused(String),
    /// No password of this user is configured.
    NoPassword(String),
    /// One side wants another method of EAP than the other.
    EapMethod {
        /// Ours.
        ours: String,
        /// What the peer would have.
        theirs: String,
        /// The keyword that chooses ours.
        setting: &'static str,
    },
    /// EAP has succeeded, and AUTH is not made with its key.
    NotOfEap(String),
    /// The peer does not take our certificate in EAP, and does not say why.
    CertificateRefused(String),
    /// The peer has ended TLS by an alert of this number (IANA, TLS Alerts).
    TlsAlert(u8),
    /// TLS has come to nothing.
    Tls(String),
    /// The peer sent no certificate, and none is known.
    NoCertificate(String),
    /// The peer's certificate cannot be read.
    Certificate(Unreadable),
    /// The peer's certificate is not believed.
    Distrust(Distrust),
    /// The peer's certificate is somebody else's.
    NotVouched {
        /// Who it says it is.
        claimed: String,
        /// Whom the certificate vouches for.
        names: String,
    },
    /// The peer is known by its key alone, and the connection does not say whose that is.
    Nameless(String),
    /// No connection is configured for such a peer.
    NoConnection(String),
    /// The selectors do not meet.
    Selectors {
        /// What the peer asked for, its side first.
        theirs: String,
        /// What we allow.
        ours: String,
    },
    /// They meet, and are more or others than a pair of SAs can keep to.
    Pairs(Unfit),
    /// One side wants tunnel mode and the other transport mode; this is what the peer asks for or grants.
    Mode(Mode),
    /// A peer asks for an address, and none of its families is left.
    NoAddress {
        /// The pools.
        pools: String,
    },
    /// The peer was asked for an address of a family and gave none.
    NotGiven,
    /// The peer sent something that is not allowed there.
    Protocol(&'static str),
    /// The data plane gave no SPI, or a key exchange failed.
    Internal(&'static str),
    /// A NAT was met and `encapsulation=no` forbids to go through it.
    Nat,
    /// It was asked for on this side.
    Asked,
    /// The peer deleted it.
    Deleted,
    /// Its successor took over.
    Rekeyed,
    /// Its time was over.
    Expired,
    /// The same peer began anew.
    Superseded,
}

impl core::fmt::Display for Why {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Crowded => f.write_str(
                "strangers have more kept for them than there is room for, and this negotiation was the oldest of the large ones",
            ),
            Self::ManyChildren(has) => write!(
                f,
                "the peer has {has} pairs of SAs of this connection, and may have no more: a connection of its own for some of them, or wider subnets"
            ),
            Self::Silence(remote) => {
                write!(
                    f,
                    "no answer from {remote}: is the peer running, and do UDP 500 and 4500 pass the firewalls between?"
                )
            }
            Self::Refused(what, kind) => {
                write!(f, "the peer refused {what}: {kind}{}", hint(*kind))
            }
            Self::Unwanted(ours) => write!(
                f,
                "the peer refused IKE_SA_INIT: {}, it has no connection for {ours} (its left= and right=), or none of our algorithms is one of its: compare ike= and esp= of both sides",
                NotifyKind::NoProposalChosen
            ),
            Self::NoProposal { what, kinds, theirs, ours } => {
                let kinds: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
                let kinds = if kinds.is_empty() {
                    "no proposal for the protocol".to_owned()
                } else {
                    kinds.join(", ")
                };
                let key = if *what == "IKE SA" { "ike=" } else { "esp=" };
                write!(
                    f,
                    "no common algorithms for the {what}; nothing common in: {kinds}. The peer offers {theirs}; {key} here is {ours}"
                )
            }
            Self::NoSecret(local, remote) => {
                write!(
                    f,
                    "no secret for {local} and {remote}: add a line `{local} {remote} : PSK \"...\"' to ipsec.secrets"
                )
            }
            Self::BadAuth(peer) => write!(
                f,
                "{peer} could not prove who it is: its secret is not ours. Compare the PSK lines of ipsec.secrets on both sides"
            ),
            Self::NoPpk => f.write_str(
                "the connection insists on a post-quantum preshared key (ppk=insist), and the peer uses none: ppk=, and the same PPK line in ipsec.secrets, are needed on both sides",
            ),
            Self::UnknownPpk(id) => write!(
                f,
                "the peer uses the post-quantum preshared key {id:?}, which is not here or not for this connection: compare the PPK lines of ipsec.secrets, ppk= and ppk-ids= of both sides"
            ),
            Self::NoPpkSecret(local, remote) => write!(
                f,
                "the connection insists on a post-quantum preshared key (ppk=insist), and none is for {local} and {remote}: add a line `{local} {remote} : PPKS \"NAME\" \"...\"' to ipsec.secrets"
            ),
            Self::BadMethod(method) => {
                write!(
                    f,
                    "the peer authenticates by {}, and the connection does not take that: compare authby= of both sides",
                    match method {
                        0 => "EAP",
                        1 | 9..=11 | 14 => "a signature",
                        2 => "a shared secret",
                        _ => "a method that proves nothing here",
                    }
                )
            }
            Self::WrongId { is, wanted } => {
                write!(
                    f,
                    "the peer is {is}, the connection is with {wanted}: set rightid={is}, or the peer's own id"
                )
            }
            Self::BadSignature(peer) => write!(
                f,
                "{peer} could not prove who it is: its signature is not one of the key that is its own. Does its private key belong to its certificate, and is that the one known here?"
            ),
            Self::Scheme(scheme) => write!(
                f,
                "the peer signs by {scheme}, and the connection does not take that: name it in authby="
            ),
            Self::SecretNotTaken => f.write_str(
                "the peer lets nobody prove who it is by a shared secret: give this host a key and a certificate (leftcert=), or mend the peer's authby=",
            ),
            Self::NoScheme(ours) => write!(
                f,
                "the peer can verify no signature that our {ours} key makes: give this host another kind of key, or mend the peer's authby="
            ),
            Self::NoPrivateKey(local) => write!(
                f,
                "the private key of {local} is not here: put it into ipsec.d/private, mode 0600, and a line `: RSA FILE' or `: ECDSA FILE' into ipsec.secrets"
            ),
            Self::BadPassword(user) => write!(
                f,
                "{user} could not prove who it is: there is no such user, or the password is another (lines `NAME : EAP \"...\"' of ipsec.secrets)"
            ),
            Self::PasswordRefused(user) => write!(
                f,
                "the peer does not take the name {user} and its password: compare the line `{user} : EAP \"...\"' of ipsec.secrets with the other side"
            ),
            Self::NoPassword(user) => {
                write!(f, "there is no password of {user}: add a line `{user} : EAP \"...\"' to ipsec.secrets")
            }
            Self::EapMethod { ours, theirs, setting } => write!(
                f,
                "the peer asks for {theirs}, and the connection here is for {ours}: mend {setting}=, or the peer's"
            ),
            Self::NotOfEap(peer) => write!(
                f,
                "{peer} has proved in EAP who it is, and AUTH is not made with the key of that: somebody is between, or the peer derives another key (RFC 7296 §2.16)"
            ),
            Self::CertificateRefused(name) => write!(
                f,
                "the peer does not take {name} and its certificate (leftcert=), and does not say why: see its log"
            ),
            Self::TlsAlert(alert) => {
                let (name, remedy) = crate::eap::alert(*alert);
                write!(f, "the peer ended EAP-TLS with the alert {name} ({alert}): {remedy}")
            }
            Self::Tls(what) => write!(f, "EAP-TLS came to nothing: {what}"),
            Self::NoCertificate(peer) => write!(
                f,
                "{peer} sent no certificate and none is known here: leftsendcert=always at its side, or rightcert= here"
            ),
            Self::Certificate(error) => write!(f, "the peer's certificate is {error}"),
            Self::Distrust(why) => write!(f, "{why}"),
            Self::NotVouched { claimed, names } => write!(
                f,
                "the peer says it is {claimed}, and its certificate is for {}: one of these must be its leftid= and our rightid=, or it needs a certificate with that name (subjectAltName)",
                if names.is_empty() { "nobody" } else { names }
            ),
            Self::Nameless(peer) => write!(
                f,
                "the peer says it is {peer} and is known by its key alone, which vouches for no name: set rightid={peer}"
            ),
            Self::NoConnection(peer) => {
                write!(f, "no connection here is for {peer}: see leftid=, rightid=, right=")
            }
            Self::Selectors { theirs, ours } => write!(
                f,
                "the networks of the two sides do not meet: the peer asks for {theirs}, here it is {ours} (leftsubnet=, rightsubnet=)"
            ),
            Self::Pairs(unfit) => unfit.fmt(f),
            Self::Mode(Mode::Tunnel) => f.write_str(
                "the peer wants tunnel mode, and the connection is type=transport: both sides need the same type=",
            ),
            Self::Mode(Mode::Transport) => f.write_str(
                "the peer grants transport mode, which it was not asked for (type=tunnel): both sides need the same type=",
            ),
            Self::NoAddress { pools } => {
                write!(f, "no address is left to give, or none of the family asked for, in {pools} (addresspool=)")
            }
            Self::NotGiven => f.write_str(
                "the peer gave no address for the networks of the connection: it needs a pool, or remove leftsourceip=%config",
            ),
            Self::Protocol(what) => write!(f, "the peer broke the protocol: {what}"),
            Self::Internal(what) => f.write_str(what),
            Self::Nat => f.write_str("there is a NAT between the two sides, and encapsulation=no"),
            Self::Asked => f.write_str("asked for here"),
            Self::Deleted => f.write_str("the peer deleted it"),
            Self::Rekeyed => f.write_str("its successor took over"),
            Self::Expired => f.write_str("its time was over"),
            Self::Superseded => f.write_str("the same peer began anew"),
        }
    }
}

/// What would mend a refusal, as far as its notification lets one guess.
const fn hint(kind: NotifyKind) -> &'static str {
    match kind {
        NotifyKind::NoProposalChosen => {
            ", none of our algorithms is one of its: compare ike= and esp= of both sides"
        }
        NotifyKind::AuthenticationFailed => {
            ", it does not believe who we are: compare leftid=, and the secret or the certificate, with what the other side expects; its log says more"
        }
        NotifyKind::TsUnacceptable => {
            ", our networks are not those it has: compare leftsubnet= and rightsubnet= of both sides"
        }
        NotifyKind::InternalAddressFailure => {
            ", it has no address left for us, or none of the family asked for (leftsourceip=%config)"
        }
        NotifyKind::FailedCpRequired => {
            ", it serves only peers that ask for an address: leftsourceip=%config"
        }
        NotifyKind::InvalidSyntax => ", it could not read what we sent",
        _ => "",
    }
}
