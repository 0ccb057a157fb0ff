//! Services by name, from services(5).

use std::fs;

/// The port of a service under a protocol.
pub(crate) fn port(name: &str, proto: u8) -> Option<u16> {
    let wanted = ipsec_core::text::protocol_name(proto)?;
    find(&fs::read_to_string("/etc/services").ok()?, name, wanted)
}

fn find(services: &str, name: &str, wanted: &str) -> Option<u16> {
    services.lines().find_map(|line| {
        let mut words = line.split('#').next()?.split_whitespace();
        let official = words.next()?;
        let (port, proto) = words.next()?.split_once('/')?;
        if proto != wanted || (official != name && !words.any(|alias| alias == name)) {
            return None;
        }
        port.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_aliases_are_found_under_their_protocol() {
        let file =
            "# comment\nsmtp\t25/tcp\t\tmail\t# smtp\ndomain 53/tcp\ndomain 53/udp\n\nodd\nbad x/tcp\n";
        assert_eq!(find(file, "smtp", "tcp"), Some(25));
        assert_eq!(find(file, "mail", "tcp"), Some(25));
        assert_eq!(find(file, "domain", "udp"), Some(53));
        assert_eq!(find(file, "smtp", "udp"), None);
        assert_eq!(find(file, "bad", "tcp"), None);
        assert_eq!(find(file, "comment", "tcp"), None);
    }
}
