//! EAP packets (RFC 3748 §4) and those of MSCHAPv2 inside.

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
pub(super) const MSCHAPV2: u8 = 26;

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

/// What MSCHAPv2 says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mschap {
    Challenge {
        id: u8,
        challenge: [u8; 16],
        name: String,
    },
    Response {
        id: u8,
        challenge: [u8; 16],
        response: [u8; 24],
        name: String,
    },
    /// From the server; the client's answer to it has neither number nor text.
    Success {
        id: u8,
        text: String,
    },
    Failure {
        id: u8,
        text: String,
    },
    SuccessSeen,
    FailureSeen,
}

impl Mschap {
    pub(super) fn parse(data: &[u8]) -> Option<Self> {
        match data {
            [3] => return Some(Self::SuccessSeen),
            [4] => return Some(Self::FailureSeen),
            _ => {}
        }
        let mut r = Reader::new(data);
        let (code, id, length) = (r.u8("").ok()?, r.u8("").ok()?, r.u16("").ok()?);
        if usize::from(length) != data.len() {
            return None;
        }
        let text = |octets: &[u8]| {
            let text = core::str::from_utf8(octets).ok()?;
            text.chars().all(|c| !c.is_control()).then(|| text.to_owned())
        };
        Some(match code {
            1 => {
                let challenge = (r.u8("").ok()? == 16).then(|| r.array("").ok()).flatten()?;
                Self::Challenge { id, challenge, name: text(r.rest())? }
            }
            2 => {
                if r.u8("").ok()? != 49 {
                    return None;
                }
                let challenge = r.array("").ok()?;
                r.array::<8>("").ok()?;
                let response = r.array("").ok()?;
                r.u8("").ok()?;
                Self::Response { id, challenge, response, name: text(r.rest())? }
            }
            // What is said to people may be anything; nothing of it is believed or printed.
            3 => Self::Success { id, text: String::from_utf8_lossy(r.rest()).into_owned() },
            4 => Self::Failure { id, text: String::from_utf8_lossy(r.rest()).into_owned() },
            _ => return None,
        })
    }

    pub(super) fn emit(&self) -> Vec<u8> {
        let mut w = Writer::default();
        let (code, id) = match self {
            Self::Challenge { id, .. } => (1, *id),
            Self::Response { id, .. } => (2, *id),
            Self::Success { id, .. } => (3, *id),
            Self::Failure { id, .. } => (4, *id),
            Self::SuccessSeen => return vec![3],
            Self::FailureSeen => return vec![4],
        };
        w.put(&[code, id]);
        w.counted(4, |w| match self {
            Self::Challenge { challenge, name, .. } => {
                w.u8(16);
                w.put(challenge);
                w.put(name.as_bytes());
            }
            Self::Response { challenge, response, name, .. } => {
                w.u8(49);
                w.put(challenge);
                w.put(&[0; 8]);
                w.put(response);
                w.u8(0);
                w.put(name.as_bytes());
            }
            Self::Success { text, .. } | Self::Failure { text, .. } => w.put(text.as_bytes()),
            Self::SuccessSeen | Self::FailureSeen => {}
        });
        w.into_octets()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_written_read_and_refused_when_cut() {
        for inner in [
            Mschap::Challenge { id: 7, challenge: [1; 16], name: "gateway".to_owned() },
            Mschap::Response { id: 7, challenge: [2; 16], response: [3; 24], name: "alice".to_owned() },
            Mschap::Success { id: 7, text: "S=00 M=ok".to_owned() },
            Mschap::Failure { id: 7, text: "E=691 R=0".to_owned() },
            Mschap::SuccessSeen,
            Mschap::FailureSeen,
        ] {
            let data = inner.emit();
            assert_eq!(Mschap::parse(&data), Some(inner.clone()));
            for end in 0..data.len() {
                assert!(data.get(..end).and_then(Mschap::parse).is_none_or(|read| read != inner));
            }
            let packet = Packet { code: REQUEST, id: 9, kind: MSCHAPV2, data };
            let octets = packet.emit();
            assert_eq!(Packet::parse(&octets), Some(packet));
            for end in 0..octets.len() {
                assert_eq!(Packet::parse(&octets[..end]), None);
            }
        }
        assert_eq!(Packet::parse(&[3, 1, 0, 4]).map(|p| p.code), Some(SUCCESS));
        for bad in [&[][..], &[3, 1, 0, 5, 0], &[5, 1, 0, 4], &[1, 1, 0, 4], &[3, 1, 0, 3]] {
            assert_eq!(Packet::parse(bad), None, "{bad:?}");
        }
        // A name with a control character is none.
        let sly = Mschap::Response { id: 1, challenge: [0; 16], response: [0; 24], name: "a\0b".to_owned() };
        assert_eq!(Mschap::parse(&sly.emit()), None);
    }
}
