//! Statements as records of the Linux dialect.

use super::grammar::{Add, ESP, IPSEC, Range, Selector, TUNNEL};
use core::net::IpAddr;
use pfkey::dialect::linux::Policy;
use pfkey::dialect::linux::number::{ESP_IN_UDP, ext, message};
use pfkey::{Address, Base, Errno, ExtType, FlowDirection, Lifetime, Sa, TooLong, Writer, state};
use zeroize::Zeroizing;

/// A record under construction.
pub(super) struct Record(Writer);

impl Record {
    pub(super) fn new(number: u8, satype: u8) -> Self {
        let base = Base {
            version: 2,
            number,
            errno: Errno(0),
            satype_number: satype,
            words: 2,
            diagnostic: 0,
            seq: 0,
            pid: std::process::id(),
        };
        // With room for keys, so that they are not moved.
        Self(Writer::with_capacity(&base, 1024))
    }

    /// The record, of this sequence number.
    pub(super) fn finish(self, seq: u32) -> Result<Zeroizing<Vec<u8>>, TooLong> {
        let mut octets = Zeroizing::new(self.0.finish()?);
        if let Some(field) = octets.get_mut(8..12) {
            field.copy_from_slice(&seq.to_ne_bytes());
        }
        Ok(octets)
    }

    fn sa2(mut self, mode: u8, reqid: u32) -> Self {
        self.0.numbered(ext::SA2, |octets| {
            octets.extend_from_slice(&[mode, 0, 0, 0, 0, 0, 0, 0]);
            octets.extend_from_slice(&reqid.to_ne_bytes());
        });
        self
    }

    fn address(mut self, kind: ExtType, ip: IpAddr) -> Self {
        let prefix = if ip.is_ipv4() { 32 } else { 128 };
        self.0.address(kind, &Address { prefix, ..Address::host(ip) });
        self
    }

    fn range(mut self, kind: ExtType, range: Range, proto: u8) -> Self {
        self.0.address(kind, &Address { proto, prefix: range.prefix, socket: Some(range.address) });
        self
    }

    fn policy(mut self, policy: &Policy) -> Self {
        policy.write(&mut self.0);
        self
    }
}

/// GET and DELETE.
pub(super) fn named(number: u8, satype: u8, src: IpAddr, dst: IpAddr, spi: u32) -> Record {
    let mut record = Record::new(number, satype);
    record.0.sa(&Sa { spi, ..Sa::default() });
    record.address(ExtType::AddressSrc, src).address(ExtType::AddressDst, dst)
}

/// ADD.
pub(super) fn add(add: &Add) -> Record {
    let mut record = Record::new(3, add.satype);
    let number = |keyed: &Option<(u8, Zeroizing<Vec<u8>>)>| keyed.as_ref().map_or(0, |(number, _)| *number);
    record.0.sa(&Sa {
        spi: add.spi,
        replay: add.replay,
        state: state::MATURE,
        auth: number(&add.auth),
        encrypt: number(&add.encrypt),
        flags: 0,
    });
    for (kind, (addtime, bytes)) in [(ExtType::LifetimeHard, add.hard), (ExtType::LifetimeSoft, add.soft)] {
        if (addtime, bytes) != (0, 0) {
            record.0.lifetime(kind, &Lifetime { bytes, addtime, ..Lifetime::default() });
        }
    }
    record = record.address(ExtType::AddressSrc, add.src.ip()).address(ExtType::AddressDst, add.dst.ip());
    for (kind, keyed) in [(ExtType::KeyAuth, &add.auth), (ExtType::KeyEncrypt, &add.encrypt)] {
        if let Some((_, key)) = keyed.as_ref().filter(|(_, key)| !key.is_empty()) {
            let bits = u16::try_from(key.len().saturating_mul(8)).unwrap_or(u16::MAX);
            record.0.key(kind, bits, 0, key);
        }
    }
    if add.in_udp && add.satype == ESP {
        record.0.numbered(ext::NAT_T_TYPE, |octets| octets.extend_from_slice(&[ESP_IN_UDP, 0, 0, 0]));
        for (number, end) in [(ext::NAT_T_SPORT, add.src), (ext::NAT_T_DPORT, add.dst)] {
            let port = if end.port() == 0 { 4500 } else { end.port() };
            record.0.numbered(number, |octets| {
                octets.extend_from_slice(&port.to_be_bytes());
                octets.extend_from_slice(&[0; 2]);
            });
        }
    }
    record.sa2(add.mode, add.reqid)
}

/// SPDADD and SPDUPDATE.
pub(super) fn spdadd(selector: Selector, policy: &Policy, update: bool) -> Record {
    let number = if update { message::SPDUPDATE } else { message::SPDADD };
    Record::new(number, 0)
        .range(ExtType::AddressSrc, selector.src, selector.proto)
        .range(ExtType::AddressDst, selector.dst, selector.proto)
        .policy(policy)
}

/// SPDDELETE.
pub(super) fn spddelete(selector: Selector, direction: FlowDirection) -> Record {
    let direction = direction.number();
    let policy = Policy { direction, priority: 0, kind: IPSEC, index: 0, requests: Vec::new() };
    Record::new(message::SPDDELETE, 0)
        .range(ExtType::AddressSrc, selector.src, selector.proto)
        .range(ExtType::AddressDst, selector.dst, selector.proto)
        .policy(&policy)
}

/// What RFC 4301 calls inbound is two policies for Linux: for packets to this host, and for those to hosts behind it.
pub(super) fn forwarded(policy: &Policy) -> Option<Policy> {
    // What is in transport mode is for this host, unless it is around a tunnel.
    let leads_on = policy.requests.is_empty() || policy.requests.iter().any(|request| request.mode == TUNNEL);
    (policy.direction == FlowDirection::In.number() && leads_on)
        .then(|| Policy { direction: FlowDirection::Forward.number(), ..policy.clone() })
}
