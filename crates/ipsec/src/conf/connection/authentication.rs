//! How both sides prove who they are: `authby=`, `leftauth=`, `leftcert=`, `leftrsasigkey=`, `leftca=`, `leftsendcert=`,
//! `eap_identity=`.

use super::{Here, IdPattern, Plan, Side};
use crate::conf::{Problem, Setting, files};
use base64ct::{Base64, Encoding};
use ike::credential::{
    EapProof, Known, LocalAuth, LocalEap, LocalSignature, RemoteAuth, RemoteEap, RemoteSignature, Schemes,
    SendCert,
};
use ike::dn::Dn;
use ike::identity::Id;
use ike::x509::{Certificate, date};
use ipsec_core::sign::{KeyKind, PublicKey, SignatureHash};
use std::sync::Arc;

/// What one side has to show.
#[derive(Default)]
pub(super) struct Credentials {
    /// Its certificate and those above it.
    certificates: Vec<Arc<Certificate>>,
    /// Its public key, where that is all there is.
    key: Option<PublicKey>,
}

impl Credentials {
    /// The identity a certificate gives its holder where nothing else is said: its subject.
    pub(super) fn id(&self) -> Option<Id> {
        let certificate = self.certificates.first()?;
        certificate.names().iter().find(|name| matches!(name, Id::Name(_))).cloned()
    }

    fn public(&self) -> Option<&PublicKey> {
        self.certificates.first().map(|certificate| certificate.key()).or(self.key.as_ref())
    }
}

/// The ways that words name.
#[derive(Clone, Default)]
struct Ways {
    secret: bool,
    signature: Option<Schemes>,
    /// In EAP.
    eap: Option<Eap>,
}

/// The methods of EAP.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Eap {
    Mschapv2,
    Tls,
}

impl Eap {
    const fn word(self) -> &'static str {
        match self {
            Self::Mschapv2 => "eap-mschapv2",
            Self::Tls => "eap-tls",
        }
    }
}

impl<'c> Plan<'c> {
    /// The certificate or key of a side.
    pub(super) fn credentials(&mut self, side: &Side<'c>, here: &dyn Here) -> Credentials {
        let mut found = Credentials::default();
        if let Some(setting) = side.setting("cert") {
            match files::certificates(&here.confs(), &setting.value) {
                Ok(certificates) => found.certificates = certificates,
                Err(why) => self.refuse(setting, &why),
            }
        }
        for key in ["rsasigkey", "pubkey"] {
            let Some(setting) = side.setting(key) else { continue };
            match public_key(&setting.value, key == "rsasigkey") {
                Ok(key) => found.key = found.key.or(key),
                Err(why) => self.refuse(setting, &why),
            }
        }
        found
    }

    /// How we prove who we are, and how the peer may.
    pub(super) fn proofs(
        &mut self,
        (us, ours, local_id): (&Side<'c>, &Credentials, &mut Id),
        (them, theirs, remote_id): (&Side<'c>, &Credentials, &IdPattern),
    ) -> (LocalAuth, RemoteAuth) {
        let (own, mut other) = (self.ways(us), self.ways(them));
        // In EAP nobody is told anything who has not proved who it is by a certificate, in IKE or, where both have one to show
        // there, in EAP-TLS alone (RFC 5998).
        let alone = (own.eap, other.eap) == (Some(Eap::Tls), Some(Eap::Tls));
        let said = ["auth", "authby"].iter().any(|key| them.setting(key).is_some());
        if own.eap.is_some()
            && !said
            && !matches!(self.first(&["authby"]), Some(setting) if setting.value != "secret")
        {
            other = Ways { signature: Some(Schemes::default()), ..Ways::default() };
        }
        if let Some(eap) = own.eap
            && (other.secret || (other.signature.is_none() && !alone))
        {
            let more = match eap {
                Eap::Mschapv2 => "; without, a stranger could try passwords by what this host answers",
                Eap::Tls => ", or by one in EAP alone: eap-tls on both sides",
            };
            self.error(&format!(
                "beside {}auth={} the peer proves who it is by a certificate: {}auth=pubkey{more}",
                us.name,
                eap.word(),
                them.name
            ));
        }
        if let Some(eap) = other.eap.filter(|_| !alone) {
            let word = eap.word();
            if own.signature.is_none() {
                self.error(&format!("beside {}auth={word} this host proves who it is by a certificate: {}auth=pubkey and {1}cert=", them.name, us.name));
            } else if eap == Eap::Tls && ours.certificates.is_empty() {
                self.error(&format!(
                    "{}auth={word} needs a certificate of this host: {}cert=",
                    them.name, us.name
                ));
            }
            if let Some(setting) = self.conn.setting("eap_identity")
                && !matches!(setting.value.as_str(), "%any" | "%identity")
            {
                self.refuse(setting, &format!("this side asks for the name, so value must be %any; whose names are let in, {}id= says", them.name));
            }
        }
        let local = self.local(us, ours, local_id, &own);
        let remote = self.remote((us, ours), (them, theirs, remote_id), &other);
        (local, remote)
    }

    /// The ways of a side: its own word before that of both, and what its keys suggest where there is none.
    fn ways(&mut self, side: &Side<'c>) -> Ways {
        let own = side.setting("auth").or_else(|| side.setting("authby"));
        let both = || self.first(&["authby"]).or_else(|| self.first(&["auth"]).filter(|s| s.value != "esp"));
        if let Some(setting) = own.or_else(both) {
            return self.words(setting);
        }
        let conn = self.conn;
        let keys = ["cert", "rsasigkey", "pubkey", "ca"];
        let any = keys
            .iter()
            .any(|key| ["left", "right"].iter().any(|side| conn.setting(&format!("{side}{key}")).is_some()));
        if any {
            Ways { signature: Some(Schemes::default()), ..Ways::default() }
        } else {
            Ways { secret: true, ..Ways::default() }
        }
    }

    fn words(&mut self, setting: &Setting) -> Ways {
        let mut ways = Ways::default();
        let mut hashes = Vec::new();
        for word in setting.value.to_ascii_lowercase().split([',', ' ', '+']).filter(|word| !word.is_empty())
        {
            let (name, hash) = match word
                .split_once("-sha2")
                .map(|(name, rest)| (name, rest.trim_start_matches(['_', '-'])))
            {
                None => (word, None),
                Some((name, "")) => (name, None),
                Some((name, "256")) => (name, Some(SignatureHash::Sha256)),
                Some((name, "384")) => (name, Some(SignatureHash::Sha384)),
                Some((name, "512")) => (name, Some(SignatureHash::Sha512)),
                Some(_) => ("", None),
            };
            hashes.extend(hash);
            if matches!(name, "secret" | "psk") {
                ways.secret = true;
                continue;
            }
            let eap = match name {
                "eap" | "eap-mschapv2" => Some(Eap::Mschapv2),
                "eap-tls" => Some(Eap::Tls),
                _ => None,
            };
            if eap.is_some() {
                if ways.eap.is_some_and(|other| Some(other) != eap) {
                    self.refuse(setting, "one connection has one method of EAP: eap-mschapv2 or eap-tls");
                }
                ways.eap = eap;
                continue;
            }
            let schemes = ways.signature.get_or_insert_with(Schemes::none);
            match name {
                "rsasig" | "rsa" => (schemes.rsa_pss, schemes.rsa_pkcs1) = (true, true),
                "rsa-pss" => schemes.rsa_pss = true,
                "rsa-pkcs1" | "rsa-v1_5" => schemes.rsa_pkcs1 = true,
                "rsa-sha1" => schemes.rsa_sha1 = true,
                "ecdsa" => schemes.ecdsa = true,
                "ed25519" | "eddsa" => schemes.ed25519 = true,
                "pubkey" | "cert" => *schemes = Schemes { rsa_sha1: schemes.rsa_sha1, ..Schemes::default() },
                "never" | "null" | "none" => self.refuse(
                    setting,
                    "who proves nothing is not let in: authby=secret, rsasig, ecdsa or ed25519",
                ),
                _ if name.starts_with("eap") => self.refuse(
                    setting,
                    "of EAP there are two methods: eap-mschapv2, by passwords, and eap-tls, by certificates",
                ),
                _ => self.refuse(
                    setting,
                    "value must be secret, rsasig, ecdsa, ed25519, pubkey, or several of them",
                ),
            }
        }
        if let Some(schemes) = ways.signature.as_mut().filter(|_| !hashes.is_empty()) {
            schemes.hashes = hashes;
        }
        if ways.signature.as_ref().is_some_and(|schemes| schemes.rsa_sha1) {
            let what = format!(
                "SHA-1 is weak: it is verified where a peer has nothing better, and never signed with [{}]",
                setting.key
            );
            self.warnings.push(Problem::new(&setting.at, what));
        }
        ways
    }

    fn local(&mut self, us: &Side<'c>, ours: &Credentials, local_id: &mut Id, ways: &Ways) -> LocalAuth {
        match ways.eap {
            Some(Eap::Mschapv2) => {
                let name = self.eap_name(us, local_id);
                return LocalAuth::Eap(Box::new(LocalEap { name, proof: EapProof::Password }));
            }
            Some(Eap::Tls) => {
                let schemes = ways.signature.clone().unwrap_or_default();
                let name = self.eap_name(us, local_id);
                if ours.certificates.is_empty() {
                    self.error(&format!(
                        "{0}auth=eap-tls needs a certificate of this host: {0}cert=",
                        us.name
                    ));
                    return LocalAuth::SharedKey;
                }
                let Some(signature) = self.signature(us, ours, local_id, &schemes) else {
                    return LocalAuth::SharedKey;
                };
                let id = Id::parse(&name).unwrap_or_else(|_| local_id.clone());
                if let Some(certificate) = ours.certificates.first() {
                    self.look_at(us, certificate, &id);
                }
                return LocalAuth::Eap(Box::new(LocalEap { name, proof: EapProof::Tls(signature) }));
            }
            None => {}
        }
        let Some(schemes) = &ways.signature else { return LocalAuth::SharedKey };
        let Some(signature) = self.signature(us, ours, local_id, schemes) else {
            if !ways.secret {
                self.error(&format!("this host has nothing to sign with: set its certificate ({}cert=) or its key ({0}rsasigkey=)", us.name));
            }
            return LocalAuth::SharedKey;
        };
        if let Some(certificate) = ours.certificates.first() {
            self.look_at(us, certificate, local_id);
        }
        LocalAuth::Signature(Box::new(signature))
    }

    /// The name we give in EAP: our identity, if nothing else is said.
    fn eap_name(&self, us: &Side<'c>, local_id: &Id) -> String {
        let said = self.conn.get("eap_identity").filter(|name| !name.starts_with('%'));
        said.or_else(|| us.get("username")).map_or_else(
            || match local_id {
                Id::Fqdn(name) | Id::Mail(name) => name.clone(),
                other @ (Id::Address(_) | Id::Name(_) | Id::Key(_)) => other.to_string(),
            },
            str::to_owned,
        )
    }

    /// What we sign with, if there is anything.
    fn signature(
        &mut self,
        us: &Side<'c>,
        ours: &Credentials,
        local_id: &mut Id,
        schemes: &Schemes,
    ) -> Option<LocalSignature> {
        let public = ours.public()?;
        let (kind, fits) = match public.kind() {
            KeyKind::Rsa => ("RSA", schemes.rsa_pss || schemes.rsa_pkcs1),
            KeyKind::Ec(curve) => ("ECDSA", schemes.ecdsa && schemes.hashes.contains(&curve.hash())),
            KeyKind::Ed25519 => ("Ed25519", schemes.ed25519),
        };
        if !fits {
            self.error(&format!(
                "authby= does not allow what this host's {kind} key can sign: add {}",
                kind.to_ascii_lowercase()
            ));
        }
        // The same name may be spelled in several ways, and peers compare octets.
        if let Some(certificate) = ours.certificates.first()
            && let Id::Name(name) = &local_id
            && name.is(certificate.subject())
        {
            *local_id = Id::Name(certificate.subject().clone());
        }
        let send = self.sendcert(us);
        let (public, chain, schemes) = (public.clone(), ours.certificates.clone(), schemes.clone());
        Some(LocalSignature { public, chain, send, schemes })
    }

    /// Says what peers will not like about our certificate, before they do.
    fn look_at(&mut self, us: &Side<'c>, certificate: &Certificate, id: &Id) {
        let Some(setting) = us.setting("cert") else { return };
        let now = crate::host::clock::wall();
        let (from, to) = certificate.valid();
        let mut warn = |what: String| {
            self.warnings
                .push(Problem::new(&setting.at, format!("{what} [{}={}]", setting.key, setting.value)))
        };
        if now > to {
            warn(format!("this certificate expired at {}: no peer will believe it", date(to)));
        } else if now < from {
            warn(format!(
                "this certificate is not valid before {}: no peer will believe it until then",
                date(from)
            ));
        }
        if !certificate.vouches_for(id) {
            let names = certificate.names().iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            warn(format!(
                "this certificate is not for {id} but for {names}: set {}id= to one of these",
                us.name
            ));
        }
    }

    fn sendcert(&mut self, us: &Side<'c>) -> SendCert {
        let Some(setting) = us.setting("sendcert") else { return SendCert::Always };
        match setting.value.to_ascii_lowercase().as_str() {
            "always" | "yes" | "forced" | "sendifasked-always" => SendCert::Always,
            "ifasked" | "sendifasked" => SendCert::IfAsked,
            "never" | "no" => SendCert::Never,
            _ => {
                self.refuse(setting, "value must be always, ifasked or never");
                SendCert::Always
            }
        }
    }

    fn remote(
        &mut self,
        (us, ours): (&Side<'c>, &Credentials),
        (them, theirs, remote_id): (&Side<'c>, &Credentials, &IdPattern),
        ways: &Ways,
    ) -> RemoteAuth {
        let schemes = match (&ways.signature, ways.eap) {
            (Some(schemes), _) => schemes.clone(),
            (None, Some(Eap::Tls)) => Schemes::default(),
            (None, eap) => {
                let eap = eap.map(|_| RemoteEap::Password);
                return RemoteAuth { shared_key: ways.secret, signature: None, eap };
            }
        };
        let mut known: Vec<Known> =
            theirs.certificates.first().cloned().map(Known::Certificate).into_iter().collect();
        known.extend(theirs.key.clone().map(Known::Key));
        if matches!(known.first(), Some(Known::Key(_))) && !matches!(remote_id, IdPattern::Exactly(_)) {
            self.error(&format!(
                "a key alone vouches for no name: set {}id= to the one the peer has",
                them.name
            ));
        }
        let mut authorities = Vec::new();
        if let Some(setting) = them.setting("ca") {
            for word in setting.value.split(';').map(str::trim).filter(|word| !word.is_empty()) {
                match word {
                    "%any" => {}
                    "%same" => match ours.certificates.first() {
                        Some(certificate) => authorities.push(certificate.issuer().clone()),
                        None => self.refuse(
                            setting,
                            &format!("%same is the authority of {}cert=, which is missing", us.name),
                        ),
                    },
                    name => match Dn::parse(name) {
                        Ok(name) => authorities.push(name),
                        Err(why) => self.refuse(setting, &why),
                    },
                }
            }
        }
        let policy = RemoteSignature { schemes, known, authorities };
        let eap = ways.eap.map(|eap| match eap {
            Eap::Mschapv2 => RemoteEap::Password,
            Eap::Tls => RemoteEap::Tls(policy.clone()),
        });
        let signature = ways.signature.as_ref().map(|_| policy);
        RemoteAuth { shared_key: ways.secret, signature, eap }
    }
}

/// A public key as text: RFC 3110 (RSA) or a SubjectPublicKeyInfo, after `0s` in base64 or after `0x` in hexadecimal. `None`
/// for the words that say that there is none.
fn public_key(text: &str, rsa: bool) -> Result<Option<PublicKey>, String> {
    if matches!(text, "%cert" | "%fromcert" | "%none") {
        return Ok(None);
    }
    if text.starts_with("%dns") {
        return Err("keys are not looked up in DNS: write the key itself".to_owned());
    }
    let octets = if let Some(hex) = text.strip_prefix("0x") {
        hex::decode(hex.replace('_', "")).map_err(|_| "the key after 0x is not hexadecimal".to_owned())?
    } else {
        let coded: String = text.strip_prefix("0s").unwrap_or(text).split_whitespace().collect();
        Base64::decode_vec(&coded).map_err(|_| "the key is not base64, after 0s".to_owned())?
    };
    let spki = PublicKey::from_spki(&octets);
    let key = if rsa { spki.or_else(|_| PublicKey::from_rfc3110(&octets)) } else { spki };
    key.map(Some).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;
