//! `leftprotoport=`: the transport protocol and the ports of what is protected.

use super::{Plan, Side};
use crate::command::service_port;
use ike::message::TrafficSelector;
use ipsec_core::{MAX_SELECTORS, text};

/// A protocol, 0 for any, and its first and last port.
pub(super) type ProtoPort = (u8, (u16, u16));

const ANY: ProtoPort = (0, TrafficSelector::ALL_PORTS);

/// What is known to have no ports. Any other number may be of a protocol that has, and ICMP has types and codes in their place.
const PORTLESS: [u8; 15] = [2, 4, 8, 9, 41, 46, 47, 50, 51, 88, 89, 94, 103, 108, 112];

impl<'c> Plan<'c> {
    /// Both sides', which have one protocol between them.
    pub(super) fn protoports(&mut self, us: &Side<'c>, them: &Side<'c>) -> (ProtoPort, ProtoPort) {
        let (ours, theirs) = (self.protoport(us), self.protoport(them));
        if let (Some(one), Some(other)) = (us.setting("protoport"), them.setting("protoport"))
            && ours.0 != 0
            && theirs.0 != 0
            && ours.0 != theirs.0
        {
            self.refuse(
                one,
                &format!(
                    "{}={} is another protocol, and no packet has two: name the same in both",
                    other.key, other.value
                ),
            );
        }
        (ours, theirs)
    }

    fn protoport(&mut self, side: &Side<'c>) -> ProtoPort {
        let Some(setting) = side.setting("protoport") else { return ANY };
        read(&setting.value).unwrap_or_else(|why| {
            self.refuse(setting, &why);
            ANY
        })
    }
}

/// `tcp`, `tcp/22`, `udp/domain`, `tcp/8000-8010`, `17/%any`.
fn read(value: &str) -> Result<ProtoPort, String> {
    let (word, port) = value.split_once('/').unwrap_or((value, "%any"));
    let proto = if word == "%any" {
        0
    } else {
        text::protocol(word)
            .map_err(|_| "write PROTOCOL/PORT, such as tcp/22, tcp/8000-8010 or 17/%any".to_owned())?
    };
    let ports = match port {
        "%any" | "0" | "" | "0-65535" => return Ok((proto, TrafficSelector::ALL_PORTS)),
        port => range(port, proto)?,
    };
    if proto == 0 {
        return Err(format!("{port}: say of which protocol: tcp/{port} or udp/{port}"));
    }
    if PORTLESS.contains(&proto) {
        return Err(format!("{word} has no ports: write {word} alone"));
    }
    Ok((proto, ports))
}

fn range(port: &str, proto: u8) -> Result<(u16, u16), String> {
    // A name may have a hyphen: ftp-data.
    let one = match text::port(port, proto, service_port) {
        Ok(port) => return Ok((port, port)),
        Err(why) => why,
    };
    let number = |text: &str| text.parse::<u16>().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()));
    let Some((first, last)) = port.split_once('-') else { return Err(format!("{port}: {one}")) };
    let (Some(first), Some(last)) = (number(first.trim()), number(last.trim())) else {
        return Err(format!("{port}: {one}, and a range is two numbers, such as 8000-8010"));
    };
    let count = u32::from(last.saturating_sub(first)) + 1;
    match (first, last) {
        (first, last) if first > last => {
            Err(format!("{port}: the last port comes before the first: write {last}-{first}"))
        }
        (0, last) => Err(format!("{port}: a range begins at port 1: write 1-{last}, or %any for all ports")),
        _ if count as usize > MAX_SELECTORS => Err(format!(
            "{port}: {count} ports, and one pair of SAs carries {MAX_SELECTORS}: write fewer in several connections, or %any for all ports"
        )),
        ports => Ok(ports),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_one_or_several_or_all() {
        let all = TrafficSelector::ALL_PORTS;
        for (word, is) in [
            ("tcp", (6, all)),
            ("tcp/", (6, all)),
            ("6/0", (6, all)),
            ("udp/%any", (17, all)),
            ("udp/0-65535", (17, all)),
            ("%any", (0, all)),
            ("gre", (47, all)),
            ("gre/%any", (47, all)),
            ("tcp/22", (6, (22, 22))),
            ("tcp/8000-8010", (6, (8000, 8010))),
            ("tcp/8000-8000", (6, (8000, 8000))),
            ("tcp/1-64", (6, (1, 64))),
            ("132/65472-65535", (132, (65472, 65535))),
            ("icmp/2048", (1, (2048, 2048))),
        ] {
            assert_eq!(read(word), Ok(is), "{word}");
        }
        if service_port("ftp-data", 6).is_some() {
            assert_eq!(read("tcp/ftp-data"), Ok((6, (20, 20))));
        }
    }

    #[test]
    fn what_is_no_range_is_said_with_the_remedy() {
        for (word, what) in [
            ("foo/1", "PROTOCOL/PORT"),
            ("tcp/8010-8000", "write 8000-8010"),
            ("tcp/0-10", "write 1-10"),
            ("tcp/1-65", "65 ports"),
            ("tcp/1-65535", "%any for all ports"),
            ("gre/1-2", "gre has no ports"),
            ("esp/500", "write esp alone"),
            ("%any/80", "tcp/80"),
            ("0/80-90", "tcp/80-90"),
            ("tcp/80,443", "80,443"),
            ("tcp/http-https", "two numbers"),
            ("tcp/+1-2", "two numbers"),
            ("tcp/1-65536", "two numbers"),
            ("tcp/1-", "two numbers"),
        ] {
            let why = read(word).expect_err(word);
            assert!(why.contains(what), "{word}: {why}");
        }
    }
}
