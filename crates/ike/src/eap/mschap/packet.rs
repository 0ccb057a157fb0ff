//! What MSCHAPv2 says inside EAP (draft-kamath-pppext-eap-mschapv2 §2).

use crate::wire::{Reader, Writer};

/// What MSCHAPv2 says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::eap) enum Mschap {
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
    pub(in crate::eap) fn parse(data: &[u8]) -> Option<Self> {
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

    pub(in crate::eap) fn emit(&self) -> Vec<u8> {
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
    fn what_is_said_is_written_read_and_refused_when_cut() {
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
        }
        // A name with a control character is none.
        let sly = Mschap::Response { id: 1, challenge: [0; 16], response: [0; 24], name: "a\0b".to_owned() };
        assert_eq!(Mschap::parse(&sly.emit()), None);
    }
}
