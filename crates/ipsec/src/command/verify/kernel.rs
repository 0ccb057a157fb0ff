//! Settings of the kernel that decide what becomes of packets before and after us.

use super::Check;
use super::host::Configured;
use crate::host::netlink::Netlink;
use netlink_sys::{Socket, SocketAddr};
use std::fs;
use std::io;
use std::path::Path;

fn setting(path: &Path) -> Option<u32> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Whether packets of the hosts behind us are forwarded.
pub(super) fn forwarding(net: &Path, conf: &Configured) -> Vec<Check> {
    let (four, six) = conf.forwards;
    let mut all = Vec::new();
    if four {
        all.push(match setting(&net.join("ipv4/ip_forward")) {
            Some(0) if conf.forwardcontrol => Check::good(
                "ip_forward",
                "IPv4 packets will be forwarded while IPsec runs (forwardcontrol=yes)",
            ),
            Some(0) => Check::fail(
                "ip_forward",
                "IPv4 packets are not forwarded: the hosts behind this one will not be reached",
                "sysctl -w net.ipv4.ip_forward=1 (and /etc/sysctl.d), or forwardcontrol=yes in ipsec.conf",
            ),
            Some(_) => Check::good("ip_forward", "IPv4 packets are forwarded"),
            None => Check::unknown("ip_forward", "net.ipv4.ip_forward cannot be read", "mount /proc"),
        });
    }
    if six {
        all.push(match setting(&net.join("ipv6/conf/all/forwarding")) {
            Some(0) => Check::fail(
                "ip6_forward",
                "IPv6 packets are not forwarded: the hosts behind this one will not be reached",
                "sysctl -w net.ipv6.conf.all.forwarding=1 (and accept_ra=2 on an interface that lives by router advertisements)",
            ),
            Some(_) => Check::good("ip6_forward", "IPv6 packets are forwarded"),
            None => Check::unknown("ip6_forward", "net.ipv6.conf.all.forwarding cannot be read", "mount /proc"),
        });
    }
    all
}

/// Whether the reverse path filter drops what leaves a tunnel: strict, and the way back is not through `ipsecN`.
pub(super) fn reverse_path(conf: &Path, configured: &Configured) -> Vec<Check> {
    let Some(all) = setting(&conf.join("all/rp_filter")) else {
        return vec![Check::unknown(
            "rp_filter",
            "net.ipv4.conf.all.rp_filter cannot be read",
            "mount /proc",
        )];
    };
    // The greater of both holds (Linux' ip-sysctl).
    let strict = |name: &str| setting(&conf.join(name).join("rp_filter")).unwrap_or(0).max(all) == 1;
    let names = fs::read_dir(conf).into_iter().flatten().flatten();
    let ours = names.filter_map(|entry| entry.file_name().into_string().ok());
    let mut strict: Vec<String> = ours
        .filter(|name| name.starts_with("ipsec") || configured.devices.contains(name))
        .chain(["default".to_owned()])
        .filter(|name| strict(name))
        .collect();
    strict.sort();
    if strict.is_empty() {
        return vec![Check::good("rp_filter", "the reverse path filter is off or loose")];
    }
    vec![Check::warn(
        "rp_filter",
        format!(
            "the reverse path filter is strict on {}: packets from a tunnel whose way back is another are dropped",
            strict.join(", ")
        ),
        "sysctl -w net.ipv4.conf.all.rp_filter=2 (loose), if packets are missed: `nstat -az TcpExtIPReversePathFilter' counts them",
    )]
}

/// A gateway that forwards into a tunnel on the interface it came from would tell hosts a way around it.
pub(super) fn redirects(conf: &Path) -> Vec<Check> {
    let on = |leaf: &str| setting(&conf.join("all").join(leaf)).is_some_and(|value| value != 0);
    let mut all = Vec::new();
    if on("send_redirects") {
        all.push(Check::warn(
            "send_redirects",
            "ICMP redirects are sent: hosts behind this one may be told a way around the tunnel",
            "sysctl -w net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.default.send_redirects=0",
        ));
    }
    if on("accept_redirects") {
        all.push(Check::warn(
            "accept_redirects",
            "ICMP redirects are believed: a neighbour can lead packets elsewhere",
            "sysctl -w net.ipv4.conf.all.accept_redirects=0 net.ipv4.conf.default.accept_redirects=0",
        ));
    }
    if all.is_empty() {
        all.push(Check::good("redirects", "ICMP redirects are neither sent nor believed"));
    }
    all
}

/// The MTU of the default route's device: what IPsec adds has to fit, and IPv6 inside needs 1280.
pub(super) fn mtu() -> Option<Check> {
    let mut netlink = Netlink::open().ok()?;
    let links = netlink.links().ok()?;
    let index = netlink.default_routes().ok()?.first()?.link?;
    let link = links.iter().find(|link| link.index == index)?;
    // IPv6, UDP, ESP with the longest IV, padding and ICV: what a packet grows by at most.
    const GROWTH: u32 = 40 + 8 + 8 + 16 + 17 + 32;
    let (name, mtu) = (&link.name, link.mtu);
    Some(if mtu < 1280 + GROWTH {
        Check::warn(
            "mtu",
            format!(
                "{name} has MTU {mtu}: IPv6 packets of 1280 octets do not fit through a tunnel on it without fragments"
            ),
            format!("raise it to {} or more where the network allows it", 1280 + GROWTH),
        )
    } else {
        Check::good("mtu", format!("{name} has MTU {mtu}"))
    })
}

/// A policy of the kernel's own IPsec would take packets before they come to us.
pub(super) fn xfrm() -> Check {
    match policies() {
        Ok(0) => Check::good("xfrm", "the kernel's own IPsec has no policy"),
        Ok(n) => Check::fail(
            "xfrm",
            format!("the kernel's own IPsec has {n} policies: it takes packets that are meant for us"),
            "`ip xfrm policy' shows them; stop the daemon that made them, then `ip xfrm policy flush'",
        ),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EPROTONOSUPPORT | libc::ECONNREFUSED)) => {
            Check::good("xfrm", "the kernel has no IPsec of its own")
        }
        Err(error) => {
            Check::unknown("xfrm", format!("the kernel's policies cannot be read: {error}"), "be root")
        }
    }
}

/// How many policies the kernel's IPsec has, those of single sockets left out: NETLINK_XFRM's GETPOLICY as a dump.
fn policies() -> io::Result<usize> {
    const NETLINK_XFRM: isize = 6;
    const GETPOLICY: u16 = 0x15;
    const NEWPOLICY: u16 = 0x13;
    const DONE: u16 = 3;
    const ERROR: u16 = 2;
    /// `struct xfrm_userpolicy_id`.
    const ID: usize = 64;
    /// In `struct xfrm_userpolicy_info`: selector, two lifetimes, priority, then the index, whose low three bits are the direction.
    const INDEX: usize = 16 + 56 + 64 + 32 + 4;
    let mut socket = Socket::new(NETLINK_XFRM)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut request = Vec::new();
    request.extend(u32::try_from(16 + ID).unwrap_or(0).to_ne_bytes());
    request.extend(GETPOLICY.to_ne_bytes());
    // REQUEST and DUMP.
    request.extend(0x301_u16.to_ne_bytes());
    request.extend([0; 8]);
    request.extend([0; ID]);
    socket.send(&request, 0)?;
    let mut count: usize = 0;
    loop {
        let (octets, _) = socket.recv_from_full()?;
        let mut rest = octets.as_slice();
        while let Some((length, kind)) = header(rest) {
            let Some(message) = rest.get(..length.max(16)) else { return Ok(count) };
            match kind {
                DONE => return Ok(count),
                ERROR => {
                    let code = message
                        .get(16..20)
                        .and_then(|code| code.try_into().ok())
                        .map_or(0, i32::from_ne_bytes);
                    return if code == 0 {
                        Ok(count)
                    } else {
                        Err(io::Error::from_raw_os_error(code.saturating_neg()))
                    };
                }
                NEWPOLICY => {
                    let index = message.get(INDEX..INDEX + 4).and_then(|index| index.try_into().ok());
                    // in, out, forward are 0 to 2; more is of one socket.
                    if index.map_or(0, u32::from_ne_bytes) & 7 < 3 {
                        count = count.saturating_add(1);
                    }
                }
                _ => {}
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        if octets.is_empty() {
            return Ok(count);
        }
    }
}

/// Length and type of a netlink message.
fn header(octets: &[u8]) -> Option<(usize, u16)> {
    let length = u32::from_ne_bytes(octets.get(..4)?.try_into().ok()?);
    let kind = u16::from_ne_bytes(octets.get(4..6)?.try_into().ok()?);
    usize::try_from(length).ok().filter(|length| *length >= 16).map(|length| (length, kind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::verify::Grade;
    use crate::host::netns::{End, Namespace, available, connect};

    fn sysctl(values: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, value) in values {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("{value}\n")).unwrap();
        }
        dir
    }

    fn configured(text: &str) -> Configured {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("ipsec.conf"), text).unwrap();
        Configured::read(dir.path())
    }

    #[test]
    fn forwarding_is_asked_for_only_where_there_is_something_to_forward() {
        let off = sysctl(&[("ipv4/ip_forward", "0")]);
        let on = sysctl(&[("ipv4/ip_forward", "1")]);
        let mut conf = configured("");
        assert!(forwarding(off.path(), &conf).is_empty());
        conf.forwards.0 = true;
        assert_eq!(forwarding(off.path(), &conf)[0].grade, Grade::Fail);
        assert_eq!(forwarding(on.path(), &conf)[0].grade, Grade::Good);
        conf.forwardcontrol = true;
        assert_eq!(forwarding(off.path(), &conf)[0].grade, Grade::Good);
        assert_eq!(forwarding(Path::new("/nowhere"), &conf)[0].grade, Grade::Unknown);
        conf.forwards.1 = true;
        let six = sysctl(&[("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "0")]);
        assert_eq!(forwarding(six.path(), &conf)[1].grade, Grade::Fail);
    }

    #[test]
    fn a_connection_for_a_network_behind_us_is_what_asks_for_forwarding() {
        if let Err(why) = available() {
            return eprintln!("skipped: {why}");
        }
        let (namespace, other) = (Namespace::new().unwrap(), Namespace::new().unwrap());
        let ours = ["192.0.2.1/24".parse().unwrap()];
        let end = |namespace, addresses| End { namespace, name: "eth0", addresses };
        connect(end(&namespace, &ours), end(&other, &[])).unwrap();
        let asked = |ours: &str, theirs: &str, auto: &str| {
            let conn = format!(
                "conn a\n\tleft=192.0.2.1\n\tleftsubnet={ours}\n\tright=192.0.2.9\n\trightsubnet={theirs}\n\tauthby=secret\n\tauto={auto}\n"
            );
            namespace.run(|| configured(&conn).forwards).unwrap()
        };
        assert_eq!(asked("10.1.0.0/16", "10.2.0.0/16", "add"), (true, false));
        assert_eq!(asked("fd00:1::/32", "fd00:2::/32", "start"), (false, true));
        assert_eq!(asked("10.1.0.1/32", "10.2.0.0/16", "add"), (false, false));
        assert_eq!(asked("10.1.0.0/16", "10.2.0.0/16", "ignore"), (false, false));
    }

    /// A remedy that is typed as it stands mends what it is beside.
    #[test]
    fn a_remedy_names_the_setting_that_is_wrong() {
        let remedy = |checks: Vec<Check>, id: &str| {
            let check = checks.into_iter().find(|check| check.id == id).unwrap_or_else(|| panic!("{id}"));
            check.remedy.unwrap_or_else(|| panic!("{id} has no remedy"))
        };
        let off = sysctl(&[("ipv4/ip_forward", "0"), ("ipv6/conf/all/forwarding", "0")]);
        let mut conf = configured("");
        conf.forwards = (true, true);
        assert!(
            remedy(forwarding(off.path(), &conf), "ip_forward").contains("sysctl -w net.ipv4.ip_forward=1 ")
        );
        let six = remedy(forwarding(off.path(), &conf), "ip6_forward");
        assert!(six.contains("sysctl -w net.ipv6.conf.all.forwarding=1 "), "{six}");
        let strict = sysctl(&[("all/rp_filter", "1")]);
        let strict = remedy(reverse_path(strict.path(), &conf), "rp_filter");
        assert!(strict.contains("sysctl -w net.ipv4.conf.all.rp_filter=2 "), "{strict}");
        let told = sysctl(&[("all/send_redirects", "1"), ("all/accept_redirects", "1")]);
        for id in ["send_redirects", "accept_redirects"] {
            let said = remedy(redirects(told.path()), id);
            assert!(said.contains(&format!("net.ipv4.conf.all.{id}=0")), "{said}");
        }
    }

    #[test]
    fn the_greater_of_two_reverse_path_filters_holds() {
        let conf = configured("config setup\n\tinterfaces=ipsec0=eth7\n");
        for (all, eth, default, grade) in [
            ("0", "0", "0", Grade::Good),
            ("1", "0", "0", Grade::Warn),
            ("2", "1", "1", Grade::Good),
            ("0", "1", "0", Grade::Warn),
            ("0", "0", "1", Grade::Warn),
        ] {
            let dir = sysctl(&[
                ("all/rp_filter", all),
                ("eth7/rp_filter", eth),
                ("default/rp_filter", default),
                ("eth8/rp_filter", "1"),
            ]);
            assert_eq!(reverse_path(dir.path(), &conf)[0].grade, grade, "{all} {eth} {default}");
        }
    }

    #[test]
    fn redirects_are_told_apart() {
        let dir = sysctl(&[("all/send_redirects", "1"), ("all/accept_redirects", "0")]);
        let said = redirects(dir.path());
        assert_eq!((said.len(), said[0].id), (1, "send_redirects"));
        let dir = sysctl(&[("all/send_redirects", "0"), ("all/accept_redirects", "0")]);
        assert_eq!(redirects(dir.path())[0].grade, Grade::Good);
    }

    #[test]
    fn a_netlink_header_that_lies_is_no_header() {
        assert_eq!(header(&[0; 15]), None);
        assert_eq!(header(&[0; 16]), None);
        assert_eq!(header(&[]), None);
    }
}
