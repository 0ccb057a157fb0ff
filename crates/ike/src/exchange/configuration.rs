//! Configuration payloads (RFC 7296 §2.19, §3.15; RFC 8598): what a peer is given, and what we ask for and believe.

use crate::auth::Authenticated;
use crate::connection::{Configured, Connection, Provision};
use crate::event::{Event, Why};
use crate::lease::{Taker, holder};
use crate::message::{Attribute, Configuration, Message, Notify, NotifyKind, Payload};
use crate::outbox::Context;
use crate::sa::IkeSa;
use core::net::IpAddr;
use ipnet::IpNet;
use std::sync::Arc;

/// The most addresses, servers, networks and domains of each kind that are taken from a peer.
const MOST: usize = 16;

/// What we ask for in IKE_AUTH; nothing if the connection has its addresses.
pub(super) fn request(connection: &Connection) -> Option<Payload> {
    let wants = connection.request?;
    let mut kinds = Vec::new();
    if wants.ipv4 {
        kinds.extend([Attribute::IP4_ADDRESS, Attribute::IP4_DNS, Attribute::IP4_SUBNET]);
    }
    if wants.ipv6 {
        kinds.extend([Attribute::IP6_ADDRESS, Attribute::IP6_DNS, Attribute::IP6_SUBNET]);
    }
    // Empty: whichever domains there are (RFC 8598 §3.1).
    kinds.push(Attribute::DNS_DOMAIN);
    let attributes = kinds.into_iter().map(|kind| Attribute { kind, value: Vec::new() }).collect();
    Some(Payload::Cp(Configuration { kind: Configuration::REQUEST, attributes }))
}

fn configuration(message: &Message, kind: u8) -> Option<&Configuration> {
    message.payloads.iter().find_map(|payload| match payload {
        Payload::Cp(configuration) if configuration.kind == kind => Some(configuration),
        _ => None,
    })
}

/// Gives a peer that has proved who it is what it asks for. Called again for the same IKE SA it gives the same.
///
/// # Errors
/// Why it gets no Child SA: it asked for nothing where only given addresses are served, or there are none left.
pub(super) fn provide(
    sa: &mut IkeSa,
    cx: &mut Context<'_>,
    message: &Message,
    connection: &Arc<Connection>,
    peer: &Authenticated,
) -> Result<Option<Payload>, (Notify, Why)> {
    let Some(provision) = &connection.provision else { return Ok(None) };
    let Some(asked) = configuration(message, Configuration::REQUEST) else {
        let notify = Notify::new(NotifyKind::FailedCpRequired, Vec::new());
        return Err((
            notify,
            Why::Protocol("it asks for no address, and the connection gives them (addresspool=)"),
        ));
    };
    let mut attributes = Vec::new();
    let (mut families, holder) = (0_usize, holder(peer.id(), peer.by_secret()));
    for (kind, ipv4) in [(Attribute::IP4_ADDRESS, true), (Attribute::IP6_ADDRESS, false)] {
        let Some(wish) = asked.attributes.iter().find(|attribute| attribute.kind == kind) else { continue };
        families = families.saturating_add(1);
        let ranges: Vec<(IpAddr, IpAddr)> =
            provision.pools.iter().filter(|(first, _)| first.is_ipv4() == ipv4).copied().collect();
        let initial = super::notified(message, NotifyKind::InitialContact).is_some();
        let taker = Taker {
            holder: &holder,
            ike: sa.lessee,
            supersedes: initial || connection.unique,
            wants: address(wish).filter(|address| !address.is_unspecified()),
        };
        let Some((address, new)) = cx.leases.take(&ranges, taker) else { continue };
        if new {
            cx.out.events.push_back(Event::Leased { address, holder: holder.clone() });
        }
        if !sa.given.contains(&address) {
            sa.given.push(address);
        }
        attributes.push(Attribute { kind, value: octets(address) });
    }
    if families == 0 || sa.given.is_empty() {
        let notify = Notify::new(NotifyKind::InternalAddressFailure, Vec::new());
        let why = Why::NoAddress { pools: ranges(&provision.pools) };
        return Err((notify, why));
    }
    attributes.extend(beside(provision, asked));
    Ok(Some(Payload::Cp(Configuration { kind: Configuration::REPLY, attributes })))
}

/// What goes with the addresses, as far as it was asked for.
fn beside(provision: &Provision, asked: &Configuration) -> Vec<Attribute> {
    let wants = |kind: u16| asked.attributes.iter().any(|attribute| attribute.kind == kind);
    let mut attributes = Vec::new();
    for dns in &provision.dns {
        let (kind, value) = match dns {
            IpAddr::V4(address) => (Attribute::IP4_DNS, address.octets().to_vec()),
            IpAddr::V6(address) => (Attribute::IP6_DNS, address.octets().to_vec()),
        };
        if wants(kind) {
            attributes.push(Attribute { kind, value });
        }
    }
    for net in &provision.subnets {
        let (kind, value) = match net {
            IpNet::V4(net) => {
                (Attribute::IP4_SUBNET, [net.network().octets(), net.netmask().octets()].concat())
            }
            IpNet::V6(net) => {
                let mut value = net.network().octets().to_vec();
                value.push(net.prefix_len());
                (Attribute::IP6_SUBNET, value)
            }
        };
        if wants(kind) {
            attributes.push(Attribute { kind, value });
        }
    }
    // Domains without a server to ask mean nothing, and nobody gets them unasked (RFC 8598 §3.2).
    let served =
        attributes.iter().any(|attribute| [Attribute::IP4_DNS, Attribute::IP6_DNS].contains(&attribute.kind));
    if served && wants(Attribute::DNS_DOMAIN) {
        attributes.extend(
            provision
                .domains
                .iter()
                .map(|domain| Attribute { kind: Attribute::DNS_DOMAIN, value: domain.as_bytes().to_vec() }),
        );
    }
    attributes
}

fn ranges(pools: &[(IpAddr, IpAddr)]) -> String {
    pools.iter().map(|(first, last)| format!("{first}-{last}")).collect::<Vec<_>>().join(",")
}

/// An address as its attribute has it: IPv6 ones with a prefix length, which is that of the address alone.
fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => {
            let mut value = address.octets().to_vec();
            value.push(128);
            value
        }
    }
}

fn address(attribute: &Attribute) -> Option<IpAddr> {
    let value = &attribute.value;
    match attribute.kind {
        Attribute::IP4_ADDRESS | Attribute::IP4_DNS => <[u8; 4]>::try_from(&**value).ok().map(IpAddr::from),
        // Some leave the prefix length out.
        Attribute::IP6_ADDRESS | Attribute::IP6_DNS if value.len() <= 17 => {
            value.first_chunk::<16>().copied().map(IpAddr::from)
        }
        _ => None,
    }
}

fn subnet(attribute: &Attribute) -> Option<IpNet> {
    match (attribute.kind, &*attribute.value) {
        (Attribute::IP4_SUBNET, &[a, b, c, d, w, x, y, z]) => {
            IpNet::with_netmask(IpAddr::from([a, b, c, d]), IpAddr::from([w, x, y, z])).ok()
        }
        (Attribute::IP6_SUBNET, value) => {
            let (net, length) = value.split_first_chunk::<16>()?;
            IpNet::new(IpAddr::from(*net), *length.first().filter(|_| length.len() == 1)?).ok()
        }
        _ => None,
    }
    .map(|net| net.trunc())
}

/// A name that can be handed to programs: letters, digits, hyphens, underscores, dots, as names in DNS have them.
fn domain(attribute: &Attribute) -> Option<String> {
    let text = core::str::from_utf8(&attribute.value).ok()?;
    let text = text.strip_suffix('.').unwrap_or(text);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
    };
    (text.len() <= 253 && text.split('.').all(label)).then(|| text.to_ascii_lowercase())
}

/// Says whether this host can have the address as its own.
fn is_for_a_host(address: IpAddr) -> bool {
    let broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    !address.is_unspecified() && !address.is_loopback() && !address.is_multicast() && !broadcast
}

/// Takes what the peer gave us, as far as it was asked for and makes sense.
pub(super) fn take(sa: &mut IkeSa, message: &Message, connection: &Connection) {
    let Some(wants) = connection.request else { return };
    let Some(reply) = configuration(message, Configuration::REPLY) else { return };
    let asked = |address: &IpAddr| if address.is_ipv4() { wants.ipv4 } else { wants.ipv6 };
    let addresses = |kinds: [u16; 2]| {
        let all = reply.attributes.iter().filter(|attribute| kinds.contains(&attribute.kind));
        all.filter_map(address).filter(asked).filter(|address| is_for_a_host(*address)).take(MOST).collect()
    };
    let dns: Vec<IpAddr> = addresses([Attribute::IP4_DNS, Attribute::IP6_DNS]);
    let all = || reply.attributes.iter();
    let mut domains: Vec<String> =
        all().filter(|a| a.kind == Attribute::DNS_DOMAIN).filter_map(domain).take(MOST).collect();
    if dns.is_empty() {
        domains.clear();
    }
    sa.taken = Some(Arc::new(Configured {
        addresses: addresses([Attribute::IP4_ADDRESS, Attribute::IP6_ADDRESS]),
        dns,
        domains,
        subnets: all().filter_map(subnet).take(MOST).collect(),
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Attribute {
        Attribute { kind, value: value.to_vec() }
    }

    #[test]
    fn what_a_peer_gives_is_read_strictly() {
        let v4 = |value: &[u8]| address(&attribute(Attribute::IP4_ADDRESS, value));
        assert_eq!(v4(&[10, 9, 0, 1]), "10.9.0.1".parse().ok());
        assert_eq!((v4(&[]), v4(&[10, 9, 0]), v4(&[0; 5])), (None, None, None));
        let v6 = |value: &[u8]| address(&attribute(Attribute::IP6_ADDRESS, value));
        assert_eq!(v6(&[&[0x20; 16][..], &[64]].concat()), Some([0x20; 16].into()));
        assert_eq!((v6(&[0x20; 15]), v6(&[0x20; 18])), (None, None));
        let net = |kind, value: &[u8]| subnet(&attribute(kind, value)).map(|net| net.to_string());
        assert_eq!(
            net(Attribute::IP4_SUBNET, &[10, 1, 2, 3, 255, 255, 0, 0]).as_deref(),
            Some("10.1.0.0/16")
        );
        assert_eq!(net(Attribute::IP4_SUBNET, &[10, 1, 2, 3, 255, 0, 255, 0]), None);
        assert_eq!(net(Attribute::IP6_SUBNET, &[0x20; 16]), None);
        assert_eq!(net(Attribute::IP6_SUBNET, &[&[0x20; 16][..], &[129]].concat()), None);
        let name = |text: &str| domain(&attribute(Attribute::DNS_DOMAIN, text.as_bytes()));
        assert_eq!(name("Corp.Example.org.").as_deref(), Some("corp.example.org"));
        assert_eq!(name("_ldap.example").as_deref(), Some("_ldap.example"));
        let long = format!("{}.org", "a".repeat(64));
        for bad in ["", ".", "a..b", "a b", "$(reboot)", "a;b", "-x.org", "a\n", "example.org\0", &long] {
            assert_eq!(name(bad), None, "{bad:?}");
        }
        for no_host in ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "::", "::1", "ff02::1"] {
            assert!(!is_for_a_host(no_host.parse().unwrap()), "{no_host}");
        }
    }
}
