//! One conversation of TLS, behind the jobs that are its turns.

use super::credentials::{Judge, Ours, Theirs};
use crate::connection::{Connection, Secrets};
use crate::credential::{LocalSignature, RemoteEap};
use crate::dn::Dn;
use crate::eap::client::Peer;
use crate::eap::server::Around;
use crate::eap::{MAX_NAME, Won};
use crate::event::Why;
use crate::identity::Id;
use core::net::{IpAddr, Ipv4Addr};
use ipsec_core::Secret;
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::time_provider::TimeProvider;
use rustls::{
    ALL_VERSIONS, ClientConfig, ClientConnection, Connection as Tls, Error, ProtocolVersion, ServerConfig,
    ServerConnection, SupportedProtocolVersion,
};
use std::io::{Read, Write};
use std::sync::{Arc, Mutex, PoisonError};

/// What the MSK is exported by from TLS 1.3, under the number of EAP-TLS (RFC 9190 §2.3).
const LABEL: &[u8] = b"EXPORTER_EAP_TLS_Key_Material";
/// And from TLS 1.2, under nothing (RFC 5216 §2.3).
const OLD_LABEL: &[u8] = b"client EAP encryption";
/// The MSK, and after it the EMSK, which nobody asks for.
const MSK: usize = 64;
/// By this octet the server says in TLS 1.3 that it believes the client (RFC 9190 §2.1.1).
const BELIEVED: [u8; 1] = [0];

/// What one side has, and whom it believes.
#[derive(Debug)]
pub(in crate::eap) struct Setup {
    server: bool,
    ours: Arc<Ours>,
    theirs: Arc<Theirs>,
    at: u64,
    versions: &'static [&'static SupportedProtocolVersion],
}

/// Our certificate with its key, or what is missing.
fn ours(local: &LocalSignature, secrets: &Secrets, name: &Id) -> Result<Arc<Ours>, Why> {
    if local.chain.is_empty() {
        return Err(Why::Tls("this host has no certificate to show in EAP-TLS: set leftcert=".to_owned()));
    }
    let key = secrets.key(&local.public).ok_or_else(|| Why::NoPrivateKey(name.to_string()))?;
    Ok(Arc::new(Ours::new(local, key.clone())))
}

impl Setup {
    /// The side that is asked who it is, by a gateway that says it is `peer`: in TLS it must prove that, also if it has done so
    /// before.
    pub(in crate::eap) fn client(
        local: &LocalSignature,
        connection: &Connection,
        secrets: &Secrets,
        peer: Peer<'_>,
    ) -> Result<Self, Why> {
        let at = peer.at.ok_or(Why::Internal("the time of day is not known"))?;
        let before = || connection.remote_auth.signature.as_ref();
        let policy = if peer.alone { connection.eap_alone().map(|(_, policy)| policy) } else { before() };
        let policy = policy.ok_or(Why::Internal("nothing says whose certificate is believed in EAP-TLS"))?;
        let trust = (secrets.trust.clone(), at);
        let theirs = Arc::new(Theirs::new(policy, &connection.remote_id, vec![peer.id.clone()], trust));
        Ok(Self {
            server: false,
            ours: ours(local, secrets, &connection.local_id)?,
            theirs,
            at,
            versions: ALL_VERSIONS,
        })
    }

    /// The side that asks, of a peer that has said in EAP that it is `name`.
    pub(in crate::eap) fn server(around: Around<'_>, name: &[u8]) -> Result<Self, Why> {
        let Around { connection, secrets, said, at, .. } = around;
        let at = at.ok_or(Why::Internal("the time of day is not known"))?;
        let (Some(RemoteEap::Tls(policy)), Some(local)) = (&connection.remote_auth.eap, connection.signs())
        else {
            return Err(Why::Internal("the connection has no EAP-TLS"));
        };
        // Some say there what realm they are of and nothing more; then what IKE was told counts.
        let claims: Vec<Id> = identity(name).into_iter().chain(Id::from_body(said)).collect();
        let theirs = Theirs::new(policy, &connection.remote_id, claims, (secrets.trust.clone(), at));
        let ours = ours(local, secrets, &connection.local_id)?;
        Ok(Self { server: true, ours, theirs: Arc::new(theirs), at, versions: ALL_VERSIONS })
    }
}

#[cfg(test)]
impl Setup {
    /// With these versions of TLS alone.
    pub(super) fn only(self, versions: &'static [&'static SupportedProtocolVersion]) -> Self {
        Self { versions, ..self }
    }
}

/// The identity that a name in EAP is: text as people write it, or a distinguished name in DER.
fn identity(name: &[u8]) -> Option<Id> {
    if name.len() > MAX_NAME.saturating_mul(4) {
        return None;
    }
    if let Some(name) = Dn::from_der(name) {
        return Some(Id::Name(name));
    }
    let text = core::str::from_utf8(name).ok().filter(|text| !text.is_empty())?;
    Id::parse(text).ok()
}

/// The time is what the engine was told it is.
#[derive(Debug)]
struct Clock(u64);

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(core::time::Duration::from_secs(self.0)))
    }
}

impl Setup {
    /// TLS before its first word. No session is resumed: each conversation proves anew who both are.
    fn begin(&self) -> Result<Tls, Error> {
        let (provider, clock) = (Arc::new(aws_lc_rs::default_provider()), Arc::new(Clock(self.at)));
        let judge = Arc::new(Judge(self.theirs.clone()));
        if self.server {
            let config = ServerConfig::builder_with_details(provider, clock);
            let config = config.with_protocol_versions(self.versions)?.with_client_cert_verifier(judge);
            let mut config = config.with_cert_resolver(self.ours.clone());
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
            return ServerConnection::new(Arc::new(config)).map(Tls::Server);
        }
        let config = ClientConfig::builder_with_details(provider, clock);
        let config = config.with_protocol_versions(self.versions)?.dangerous();
        let config = config.with_custom_certificate_verifier(judge);
        let mut config = config.with_client_cert_resolver(self.ours.clone());
        config.resumption = Resumption::disabled();
        config.enable_sni = false;
        // No name of a host is asked for: whose the certificate is to be, `theirs` says.
        let nobody = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::UNSPECIFIED).into());
        ClientConnection::new(Arc::new(config), nobody).map(Tls::Client)
    }
}

/// One conversation; nothing of it is begun before its first turn.
#[derive(Debug)]
pub(super) struct Talk {
    setup: Setup,
    session: Mutex<Session>,
}

#[derive(Default)]
struct Session {
    tls: Option<Tls>,
    /// It has been said, or heard, that the client is believed.
    believed: bool,
}

impl core::fmt::Debug for Session {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Session")
    }
}

impl Talk {
    pub(super) fn new(setup: Setup) -> Self {
        Self { setup, session: Mutex::default() }
    }
}

#[cfg(test)]
impl Talk {
    /// TLS by itself.
    pub(super) fn raw(&self) -> Tls {
        self.setup.begin().unwrap()
    }
}

/// One turn of a conversation in TLS: keys are exchanged, signatures made and verified. A job for the host.
#[derive(Debug)]
pub struct Turn {
    talk: Arc<Talk>,
    octets: Vec<u8>,
}

/// What came of a turn. Only [`Turn::run`] makes one, or a record of what it once was.
#[derive(Clone, Debug)]
pub struct Said {
    /// What is said to the other side.
    pub(crate) octets: Vec<u8>,
    pub(crate) outcome: Outcome,
    /// The conversation it belongs to, which goes on with this one: a handler that is called again may have begun another.
    /// A record has none.
    talk: Option<Arc<Talk>>,
}

impl Said {
    /// What a record says that was said.
    pub(crate) const fn recorded(octets: Vec<u8>, outcome: Outcome) -> Self {
        Self { octets, outcome, talk: None }
    }

    /// What was said, what came of it, and the conversation.
    pub(super) fn parts(self) -> (Vec<u8>, Outcome, Option<Arc<Talk>>) {
        (self.octets, self.outcome, self.talk)
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    /// It is the other side's turn.
    More,
    /// The other side has proved who it is, and believes us.
    Done(Won),
    /// It has come to nothing; what is said is an alert, if there is anything to say.
    Failed(Why),
}

impl Turn {
    pub(super) const fn new(talk: Arc<Talk>, octets: Vec<u8>) -> Self {
        Self { talk, octets }
    }

    /// Does it.
    pub fn run(self) -> Said {
        let mut session = self.talk.session.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = session.hear(&self.talk.setup, &self.octets);
        let octets = session.says();
        let outcome = outcome.unwrap_or_else(|why| {
            // Nothing more is to be made of it.
            session.tls = None;
            Outcome::Failed(why)
        });
        drop(session);
        Said { octets, outcome, talk: Some(self.talk) }
    }
}

impl Session {
    fn hear(&mut self, setup: &Setup, mut octets: &[u8]) -> Result<Outcome, Why> {
        let why = |error: Error| explain(&setup.theirs, error);
        if self.tls.is_none() {
            self.tls = Some(setup.begin().map_err(why)?);
        }
        let Some(tls) = &mut self.tls else { return Ok(Outcome::More) };
        while !octets.is_empty() {
            let heard = tls.read_tls(&mut octets).unwrap_or(0);
            let state = tls.process_new_packets().map_err(why)?;
            if state.peer_has_closed() {
                return Err(Why::Tls("it closes TLS in the middle".to_owned()));
            }
            if heard == 0 {
                return Err(Why::Tls("it says more than anybody needs to".to_owned()));
            }
            if state.plaintext_bytes_to_read() > 0 {
                self.believed = said_believed(setup, tls, self.believed)?;
            }
        }
        let newest = tls.protocol_version() == Some(ProtocolVersion::TLSv1_3);
        if tls.is_handshaking() || (newest && !setup.server && !self.believed) {
            return Ok(Outcome::More);
        }
        if setup.server && !self.believed {
            if newest {
                let said = tls.writer().write_all(&BELIEVED);
                said.map_err(|_| Why::Internal("TLS could not be written"))?;
            }
            self.believed = true;
        } else if setup.server {
            return Ok(Outcome::More);
        }
        // Whatever TLS believes: without a certificate that was found good there is nobody here.
        let id = setup.theirs.verdict().unwrap_or(Err(Why::Internal("TLS has shown no certificate")))?;
        Ok(Outcome::Done(Won { id, msk: export(tls, newest).map_err(why)? }))
    }

    /// What there is to say.
    fn says(&mut self) -> Vec<u8> {
        let mut octets = Vec::new();
        if let Some(tls) = &mut self.tls {
            while tls.wants_write() {
                if !matches!(tls.write_tls(&mut octets), Ok(written) if written > 0) {
                    break;
                }
            }
        }
        octets
    }
}

/// Reads what was said within TLS: nothing may be, but that the server believes the client.
fn said_believed(setup: &Setup, tls: &mut Tls, already: bool) -> Result<bool, Why> {
    let mut said = [0xff; 2];
    let octets = tls.reader().read(&mut said).unwrap_or(0);
    if setup.server || already || said.get(..octets) != Some(&BELIEVED) {
        return Err(Why::Protocol("it says something in TLS that has no place in EAP-TLS"));
    }
    Ok(true)
}

/// The MSK. All of it is exported, for the length goes into it.
fn export(tls: &Tls, newest: bool) -> Result<Secret, Error> {
    let context: &[u8] = &[crate::eap::packet::TLS];
    let (label, context) = if newest { (LABEL, Some(context)) } else { (OLD_LABEL, None) };
    let mut keys = Secret::zeros(2 * MSK);
    tls.export_keying_material(&mut *keys, label, context)?;
    Ok(keys.part(0, MSK))
}

/// What an error of TLS means to who has to mend it.
fn explain(theirs: &Theirs, error: Error) -> Why {
    if let Some(Err(why)) = theirs.verdict() {
        return why;
    }
    let whose = || theirs.claims.first().map_or_else(|| "the peer".to_owned(), ToString::to_string);
    match error {
        Error::AlertReceived(alert) => Why::TlsAlert(u8::from(alert)),
        Error::NoCertificatesPresented => Why::NoCertificate(whose()),
        Error::InvalidCertificate(rustls::CertificateError::BadSignature) => Why::BadSignature(whose()),
        error => Why::Tls(error.to_string()),
    }
}
