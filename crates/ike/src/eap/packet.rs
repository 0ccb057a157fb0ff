//! EAP packets (RFC 3748 §4).

use crate::wire::{Reader, Writer};

/// EAP codes.
pub(super) const REQUEST: u8 = 1;
pub(super) const RESPONSE: u8 = 2;
pub(super) const SUCCESS: u8 = 3;
pub(super) const FAILURE: u8 = 4;

/// EAP types.
pub(super) const IDENTITY: u8 = 1;
pub(super) const NOTIFICATION: u8 = 2;
pub(super) const NAK: u8 = 3;
pub(super) const TLS: u8 = 13;
pub(super) const MSCHAPV2: u8 = 26;

/// What people call a method.
pub(crate) fn name(kind: u8) -> String {
    match kind {
        4 => "EAP-MD5".to_owned(),
        6 => "EAP-GTC".to_owned(),
        TLS => "EAP-TLS".to_owned(),
        21 => "EAP-TTLS".to_owned(),
        25 => "PEAP".to_owned(),
        MSCHAPV2 => "EAP-MSCHAPv2".to_owned(),
        other => format!("EAP method {other}"),
    }
}

/// One EAP packet; a success and a failure have neither type nor data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Packet {
    pub(super) code: u8,
    pub(super) id: u8,
    pub(super) kind: u8,
    pub(super) data: Vec<u8>,
}

impl Packet {
    pub(super) fn parse(octets: &[u8]) -> Option<Self> {
        let mut r = Reader::new(octets);
        let (code, id, length) = (r.u8("").ok()?, r.u8("").ok()?, r.u16("").ok()?);
        if usize::from(length) != octets.len() {
            return None;
        }
        let (kind, data) = match code {
            REQUEST | RESPONSE => (r.u8("").ok()?, r.rest().to_vec()),
            SUCCESS | FAILURE if r.is_empty() => (0, Vec::new()),
            _ => return None,
        };
        Some(Self { code, id, kind, data })
    }

    pub(super) fn emit(&self) -> Vec<u8> {
        let mut w = Writer::default();
        w.put(&[self.code, self.id]);
        let typed = matches!(self.code, REQUEST | RESPONSE);
        let length = self.data.len().saturating_add(if typed { 5 } else { 4 });
        w.u16(u16::try_from(length).unwrap_or(u16::MAX));
        if typed {
            w.u8(self.kind);
            w.put(&self.data);
        }
        w.into_octets()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_written_read_and_refused_when_cut() {
        let packet = Packet { code: REQUEST, id: 9, kind: MSCHAPV2, data: vec![1, 2, 3] };
        let octets = packet.emit();
        assert_eq!(Packet::parse(&octets), Some(packet));
        for end in 0..octets.len() {
            assert_eq!(Packet::parse(&octets[..end]), None);
        }
        assert_eq!(Packet::parse(&[3, 1, 0, 4]).map(|p| p.code), Some(SUCCESS));
        for bad in [&[][..], &[3, 1, 0, 5, 0], &[5, 1, 0, 4], &[1, 1, 0, 4], &[3, 1, 0, 3]] {
            assert_eq!(Packet::parse(bad), None, "{bad:?}");
        }
    }
}
