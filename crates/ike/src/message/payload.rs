//! The payloads (RFC 7296 §3.3 to §3.16, RFC 7383 §2.5).

use super::{ParseError, TrafficSelector};
use crate::proposal::{Proposal, Protocol};
use crate::wire::{Malformed, Reader, Writer};

/// One payload, without its generic header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// Security Association (33): proposals, in the order of preference.
    Sa(Vec<Proposal>),
    /// Key Exchange (34).
    Ke {
        /// The transform number of the method.
        group: u16,
        /// The public value, or a KEM's key or ciphertext.
        data: Vec<u8>,
    },
    /// Identification of the initiator (35).
    IdI(IdBody),
    /// Identification of the responder (36).
    IdR(IdBody),
    /// Certificate (37).
    Cert {
        /// What `data` is.
        encoding: CertEncoding,
        /// The certificate.
        data: Vec<u8>,
    },
    /// Certificate Request (38): hashes of the public keys of authorities, 20 octets each.
    CertReq {
        /// What is asked for.
        encoding: CertEncoding,
        /// The hashes, one after the other.
        authorities: Vec<u8>,
    },
    /// Authentication (39).
    Auth {
        /// The method (IANA, IKEv2 Authentication Method).
        method: u8,
        /// The authentication data.
        data: Vec<u8>,
    },
    /// Nonce (40): 16 to 256 octets.
    Nonce(Vec<u8>),
    /// Notify (41).
    Notify(Notify),
    /// Delete (42).
    Delete(Delete),
    /// Vendor ID (43).
    Vendor(Vec<u8>),
    /// Traffic Selectors of the initiator (44).
    TsI(Vec<TrafficSelector>),
    /// Traffic Selectors of the responder (45).
    TsR(Vec<TrafficSelector>),
    /// Encrypted and Authenticated (46), or one fragment of it (53), as it came: `first` is the kind of the first
    /// payload inside, `body` starts with the IV or, in a fragment, with its number.
    Protected {
        /// 46 or 53.
        kind: u8,
        /// The kind of the first payload inside.
        first: u8,
        /// What follows the generic header.
        body: Vec<u8>,
    },
    /// Configuration (47).
    Cp(Configuration),
    /// Extensible Authentication (48).
    Eap(Vec<u8>),
}

/// The number of the SK payload.
pub(crate) const SK: u8 = 46;
/// The number of the SKF payload.
pub(crate) const SKF: u8 = 53;

/// The body of an identification payload: what goes into AUTH begins with its type (RFC 7296 §2.15).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdBody {
    /// The type (RFC 7296 §3.5).
    pub kind: u8,
    /// The identification data.
    pub data: Vec<u8>,
}

impl IdBody {
    /// The octets that AUTH covers: type, three reserved octets, data.
    pub fn octets(&self) -> Vec<u8> {
        let mut octets = vec![self.kind, 0, 0, 0];
        octets.extend_from_slice(&self.data);
        octets
    }
}

/// How a certificate is encoded (RFC 7296 §3.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertEncoding {
    /// X.509 certificate for signatures, 4.
    X509Signature,
    /// Raw public key as SubjectPublicKeyInfo, 15 (RFC 7670).
    RawPublicKey,
    /// Any other.
    Other(u8),
}

impl CertEncoding {
    const fn number(self) -> u8 {
        match self {
            Self::X509Signature => 4,
            Self::RawPublicKey => 15,
            Self::Other(number) => number,
        }
    }

    const fn from_number(number: u8) -> Self {
        match number {
            4 => Self::X509Signature,
            15 => Self::RawPublicKey,
            number => Self::Other(number),
        }
    }
}

/// A Notify payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notify {
    /// The protocol of the SA the notification is about; `None` if it is about none.
    pub protocol: Option<Protocol>,
    /// The SPI of that SA, in the length its protocol has.
    pub spi: Vec<u8>,
    /// What is notified.
    pub kind: NotifyKind,
    /// The data that goes with it.
    pub data: Vec<u8>,
}

impl Notify {
    /// A notification about no SA.
    pub const fn new(kind: NotifyKind, data: Vec<u8>) -> Self {
        Self { protocol: None, spi: Vec::new(), kind, data }
    }
}

/// Makes the enum of notify types, their numbers and their names from one list.
macro_rules! notify_kinds {
    ($($(#[doc = $doc:literal])* $name:ident = $number:literal, $text:literal;)*) => {
        /// Notify message types (IANA, IKEv2 Notify Message Types).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum NotifyKind {
            $(#[doc = $text] $name,)*
            /// One we do not know: below 16384 an error, above it a status.
            Other(u16),
        }

        impl NotifyKind {
            /// Its number.
            pub const fn number(self) -> u16 {
                match self {
                    $(Self::$name => $number,)*
                    Self::Other(number) => number,
                }
            }

            /// The type with this number.
            pub const fn from_number(number: u16) -> Self {
                match number {
                    $($number => Self::$name,)*
                    number => Self::Other(number),
                }
            }

            /// As the RFCs write it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                    Self::Other(_) => "unknown notification",
                }
            }
        }
    };
}

notify_kinds! {
    UnsupportedCriticalPayload = 1, "UNSUPPORTED_CRITICAL_PAYLOAD";
    InvalidIkeSpi = 4, "INVALID_IKE_SPI";
    InvalidMajorVersion = 5, "INVALID_MAJOR_VERSION";
    InvalidSyntax = 7, "INVALID_SYNTAX";
    InvalidMessageId = 9, "INVALID_MESSAGE_ID";
    InvalidSpi = 11, "INVALID_SPI";
    NoProposalChosen = 14, "NO_PROPOSAL_CHOSEN";
    InvalidKePayload = 17, "INVALID_KE_PAYLOAD";
    AuthenticationFailed = 24, "AUTHENTICATION_FAILED";
    SinglePairRequired = 34, "SINGLE_PAIR_REQUIRED";
    NoAdditionalSas = 35, "NO_ADDITIONAL_SAS";
    InternalAddressFailure = 36, "INTERNAL_ADDRESS_FAILURE";
    FailedCpRequired = 37, "FAILED_CP_REQUIRED";
    TsUnacceptable = 38, "TS_UNACCEPTABLE";
    InvalidSelectors = 39, "INVALID_SELECTORS";
    UnacceptableAddresses = 40, "UNACCEPTABLE_ADDRESSES";
    UnexpectedNatDetected = 41, "UNEXPECTED_NAT_DETECTED";
    TemporaryFailure = 43, "TEMPORARY_FAILURE";
    ChildSaNotFound = 44, "CHILD_SA_NOT_FOUND";
    StateNotFound = 47, "STATE_NOT_FOUND";
    InitialContact = 16384, "INITIAL_CONTACT";
    SetWindowSize = 16385, "SET_WINDOW_SIZE";
    AdditionalTsPossible = 16386, "ADDITIONAL_TS_POSSIBLE";
    IpcompSupported = 16387, "IPCOMP_SUPPORTED";
    NatDetectionSourceIp = 16388, "NAT_DETECTION_SOURCE_IP";
    NatDetectionDestinationIp = 16389, "NAT_DETECTION_DESTINATION_IP";
    Cookie = 16390, "COOKIE";
    UseTransportMode = 16391, "USE_TRANSPORT_MODE";
    HttpCertLookupSupported = 16392, "HTTP_CERT_LOOKUP_SUPPORTED";
    RekeySa = 16393, "REKEY_SA";
    EspTfcPaddingNotSupported = 16394, "ESP_TFC_PADDING_NOT_SUPPORTED";
    NonFirstFragmentsAlso = 16395, "NON_FIRST_FRAGMENTS_ALSO";
    MobikeSupported = 16396, "MOBIKE_SUPPORTED";
    AdditionalIp4Address = 16397, "ADDITIONAL_IP4_ADDRESS";
    AdditionalIp6Address = 16398, "ADDITIONAL_IP6_ADDRESS";
    NoAdditionalAddresses = 16399, "NO_ADDITIONAL_ADDRESSES";
    UpdateSaAddresses = 16400, "UPDATE_SA_ADDRESSES";
    Cookie2 = 16401, "COOKIE2";
    NoNatsAllowed = 16402, "NO_NATS_ALLOWED";
    EapOnlyAuthentication = 16417, "EAP_ONLY_AUTHENTICATION";
    ChildlessIkev2Supported = 16418, "CHILDLESS_IKEV2_SUPPORTED";
    Ikev2FragmentationSupported = 16430, "IKEV2_FRAGMENTATION_SUPPORTED";
    SignatureHashAlgorithms = 16431, "SIGNATURE_HASH_ALGORITHMS";
    UsePpk = 16435, "USE_PPK";
    PpkIdentity = 16436, "PPK_IDENTITY";
    NoPpkAuth = 16437, "NO_PPK_AUTH";
    IntermediateExchangeSupported = 16438, "INTERMEDIATE_EXCHANGE_SUPPORTED";
    AdditionalKeyExchange = 16441, "ADDITIONAL_KEY_EXCHANGE";
    SupportedAuthMethods = 16443, "SUPPORTED_AUTH_METHODS";
}

impl NotifyKind {
    /// Says whether it is an error, which ends what it answers (RFC 7296 §3.10.1).
    pub const fn is_error(self) -> bool {
        self.number() < 16384
    }
}

impl core::fmt::Display for NotifyKind {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Other(number) => write!(f, "notification {number}"),
            known => f.pad(known.name()),
        }
    }
}

/// A Delete payload: SAs the sender has removed, by its own inbound SPIs (RFC 7296 §3.11).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delete {
    /// The IKE SA that carries the message.
    IkeSa,
    /// Child SAs.
    Child(Protocol, Vec<u32>),
}

/// A Configuration payload (RFC 7296 §3.15).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configuration {
    /// 1 request, 2 reply, 3 set, 4 acknowledge.
    pub kind: u8,
    /// The attributes.
    pub attributes: Vec<Attribute>,
}

impl Configuration {
    /// CFG_REQUEST.
    pub const REQUEST: u8 = 1;
    /// CFG_REPLY.
    pub const REPLY: u8 = 2;
}

/// One attribute of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    /// The type (IANA, IKEv2 Configuration Payload Attribute Types).
    pub kind: u16,
    /// The value; empty in a request that leaves the choice.
    pub value: Vec<u8>,
}

impl Attribute {
    /// INTERNAL_IP4_ADDRESS.
    pub const IP4_ADDRESS: u16 = 1;
    /// INTERNAL_IP4_DNS.
    pub const IP4_DNS: u16 = 3;
    /// INTERNAL_IP6_ADDRESS: 16 octets and a prefix length.
    pub const IP6_ADDRESS: u16 = 8;
    /// INTERNAL_IP6_DNS.
    pub const IP6_DNS: u16 = 10;
    /// INTERNAL_IP4_SUBNET.
    pub const IP4_SUBNET: u16 = 13;
    /// INTERNAL_IP6_SUBNET: 16 octets and a prefix length.
    pub const IP6_SUBNET: u16 = 15;
    /// INTERNAL_DNS_DOMAIN (RFC 8598 §3).
    pub const DNS_DOMAIN: u16 = 25;
}

/// The longest certificate, key or EAP packet that is read: no honest one comes near it.
const MAX_DATA: usize = 16384;

impl Payload {
    /// Its number.
    pub const fn kind(&self) -> u8 {
        match self {
            Self::Sa(_) => 33,
            Self::Ke { .. } => 34,
            Self::IdI(_) => 35,
            Self::IdR(_) => 36,
            Self::Cert { .. } => 37,
            Self::CertReq { .. } => 38,
            Self::Auth { .. } => 39,
            Self::Nonce(_) => 40,
            Self::Notify(_) => 41,
            Self::Delete(_) => 42,
            Self::Vendor(_) => 43,
            Self::TsI(_) => 44,
            Self::TsR(_) => 45,
            Self::Protected { kind, .. } => *kind,
            Self::Cp(_) => 47,
            Self::Eap(_) => 48,
        }
    }

    /// Reads one payload of kind `kind`; `next` is what its header names. `None` for a kind we do not know.
    pub(super) fn parse(kind: u8, next: u8, body: &[u8]) -> Result<Option<Self>, ParseError> {
        let mut r = Reader::new(body);
        let payload = match kind {
            33 => Self::Sa(Proposal::parse_list(body)?),
            34 => {
                let group = r.u16("key exchange method")?;
                r.u16("key exchange method")?;
                Self::Ke { group, data: data(&mut r, "key exchange data")? }
            }
            35 | 36 => {
                let kind_of_id = r.u8("identification type")?;
                r.array::<3>("identification type")?;
                let id = IdBody { kind: kind_of_id, data: data(&mut r, "identification data")? };
                if kind == 35 { Self::IdI(id) } else { Self::IdR(id) }
            }
            37 => {
                let encoding = CertEncoding::from_number(r.u8("certificate encoding")?);
                Self::Cert { encoding, data: data(&mut r, "certificate")? }
            }
            38 => {
                let encoding = CertEncoding::from_number(r.u8("certificate encoding")?);
                Self::CertReq { encoding, authorities: r.rest().to_vec() }
            }
            39 => {
                let method = r.u8("authentication method")?;
                r.array::<3>("authentication method")?;
                Self::Auth { method, data: data(&mut r, "authentication data")? }
            }
            40 => {
                if !(16..=256).contains(&body.len()) {
                    return Err(Malformed("nonce").into());
                }
                Self::Nonce(body.to_vec())
            }
            41 => Self::Notify(notify(&mut r)?),
            42 => Self::Delete(delete(&mut r)?),
            43 => Self::Vendor(body.to_vec()),
            44 => Self::TsI(TrafficSelector::parse_list(&mut r)?),
            45 => Self::TsR(TrafficSelector::parse_list(&mut r)?),
            SK | SKF => Self::Protected { kind, first: next, body: body.to_vec() },
            47 => Self::Cp(configuration(&mut r)?),
            48 => Self::Eap(data(&mut r, "EAP packet")?),
            _ => return Ok(None),
        };
        Ok(Some(payload))
    }

    /// Writes the payload behind its generic header, which names `next`.
    pub(super) fn emit(&self, next: u8, writer: &mut Writer) {
        let next = if let Self::Protected { first, .. } = self { *first } else { next };
        writer.u8(next);
        writer.u8(0);
        writer.counted(4, |w| match self {
            Self::Sa(proposals) => Proposal::emit_list(proposals, w),
            Self::Ke { group, data } => {
                w.u16(*group);
                w.u16(0);
                w.put(data);
            }
            Self::IdI(id) | Self::IdR(id) => w.put(&id.octets()),
            Self::Cert { encoding, data } => {
                w.u8(encoding.number());
                w.put(data);
            }
            Self::CertReq { encoding, authorities } => {
                w.u8(encoding.number());
                w.put(authorities);
            }
            Self::Auth { method, data } => {
                w.put(&[*method, 0, 0, 0]);
                w.put(data);
            }
            Self::Nonce(octets) | Self::Vendor(octets) | Self::Eap(octets) => w.put(octets),
            Self::Notify(notify) => {
                w.u8(notify.protocol.map_or(0, Protocol::number));
                w.u8(u8::try_from(notify.spi.len()).unwrap_or(u8::MAX));
                w.u16(notify.kind.number());
                w.put(&notify.spi);
                w.put(&notify.data);
            }
            Self::Delete(Delete::IkeSa) => w.put(&[1, 0, 0, 0]),
            Self::Delete(Delete::Child(protocol, spis)) => {
                w.u8(protocol.number());
                w.u8(4);
                w.u16(u16::try_from(spis.len()).unwrap_or(u16::MAX));
                spis.iter().for_each(|spi| w.u32(*spi));
            }
            Self::TsI(selectors) | Self::TsR(selectors) => TrafficSelector::emit_list(selectors, w),
            Self::Protected { body, .. } => w.put(body),
            Self::Cp(configuration) => {
                w.put(&[configuration.kind, 0, 0, 0]);
                for attribute in &configuration.attributes {
                    w.u16(attribute.kind & 0x7fff);
                    w.counted(0, |w| w.put(&attribute.value));
                }
            }
        });
    }
}

fn data(r: &mut Reader<'_>, field: &'static str) -> Result<Vec<u8>, Malformed> {
    let octets = r.rest();
    if octets.is_empty() || octets.len() > MAX_DATA { Err(Malformed(field)) } else { Ok(octets.to_vec()) }
}

fn notify(r: &mut Reader<'_>) -> Result<Notify, Malformed> {
    let protocol = r.u8("protocol of a notification")?;
    let spi = usize::from(r.u8("SPI size of a notification")?);
    let kind = NotifyKind::from_number(r.u16("notify message type")?);
    let spi = r.take(spi, "SPI of a notification")?.to_vec();
    // A protocol that is none of ours is as good as none: what the notification says does not depend on it.
    Ok(Notify { protocol: Protocol::from_number(protocol), spi, kind, data: r.rest().to_vec() })
}

fn delete(r: &mut Reader<'_>) -> Result<Delete, Malformed> {
    let protocol =
        Protocol::from_number(r.u8("protocol of a deletion")?).ok_or(Malformed("protocol of a deletion"))?;
    let size = r.u8("SPI size of a deletion")?;
    let count = usize::from(r.u16("number of SPIs")?);
    let delete = match (protocol, size) {
        (Protocol::Ike, 0) if count == 0 => Delete::IkeSa,
        (Protocol::Ah | Protocol::Esp, 4) => {
            let mut spis = Vec::new();
            for _ in 0..count {
                spis.push(r.u32("SPI of a deletion")?);
            }
            Delete::Child(protocol, spis)
        }
        _ => return Err(Malformed("SPI size of a deletion")),
    };
    if r.is_empty() { Ok(delete) } else { Err(Malformed("number of SPIs")) }
}

/// The most attributes of a configuration that are read: each costs more memory than it has octets.
const MAX_ATTRIBUTES: usize = 128;

fn configuration(r: &mut Reader<'_>) -> Result<Configuration, Malformed> {
    let kind = r.u8("configuration type")?;
    r.array::<3>("configuration type")?;
    let mut attributes = Vec::new();
    while !r.is_empty() {
        if attributes.len() >= MAX_ATTRIBUTES {
            return Err(Malformed("number of configuration attributes"));
        }
        let kind = r.u16("configuration attribute")? & 0x7fff;
        let length = usize::from(r.u16("length of a configuration attribute")?);
        attributes.push(Attribute { kind, value: r.take(length, "configuration attribute")?.to_vec() });
    }
    Ok(Configuration { kind, attributes })
}
