//! UDP 500 and 4500: whether somebody else has them.

use super::Check;
use crate::rundir::Rundir;
use std::fs;
use std::path::Path;

/// A bound UDP socket, as /proc/net/udp has it.
#[derive(Debug, PartialEq, Eq)]
struct Bound {
    port: u16,
    inode: u64,
}

/// The bound sockets of one table of /proc/net/udp, from the columns that proc(5) names.
fn bound(table: &str) -> Vec<Bound> {
    let one = |line: &str| {
        let mut fields = line.split_whitespace();
        let local = fields.nth(1)?;
        let port = u16::from_str_radix(local.rsplit(':').next()?, 16).ok()?;
        Some(Bound { port, inode: fields.nth(7)?.parse().ok()? })
    };
    table.lines().skip(1).filter_map(one).collect()
}

/// Who has a socket open, by what it has open; only root sees those of others.
fn owner(inode: u64) -> Option<(u32, String)> {
    let all = fs::read_dir("/proc").ok()?;
    let mut pids = all.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let name =
        |pid: u32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned();
    let has = |pid: &u32| {
        let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        // By name: a file on a disk may have the same number.
        let socket = format!("socket:[{inode}]");
        open.into_iter().any(|fd| fs::read_link(fd.path()).is_ok_and(|to| to.as_os_str() == &*socket))
    };
    pids.find(has).map(|pid| (pid, name(pid)))
}

/// One check for each port.
pub(super) fn taken(rundir: &Rundir) -> Vec<Check> {
    let mut all = Vec::new();
    for path in ["/proc/net/udp", "/proc/net/udp6"] {
        all.extend(bound(&fs::read_to_string(path).unwrap_or_default()));
    }
    let ours = |pid: u32| {
        [(rundir.pluto_pid(), rundir.pluto_lock()), (rundir.klips_pid(), rundir.klips_lock())].iter().any(
            |(file, lock): &(_, _)| {
                let named = crate::process::Process::read(file);
                named.is_some_and(|named| named.pid == pid && named.holds(Path::new(lock)))
            },
        )
    };
    let port = |port: u16| {
        let id = if port == 500 { "port500" } else { "port4500" };
        let sockets: Vec<&Bound> = all.iter().filter(|bound| bound.port == port).collect();
        let owners: Vec<Option<(u32, String)>> = sockets.iter().map(|bound| owner(bound.inode)).collect();
        if let Some((pid, name)) = owners.iter().flatten().find(|(pid, _)| !ours(*pid)) {
            return Check::fail(
                id,
                format!("UDP port {port} is taken by {name} (pid {pid})"),
                "stop that daemon: one IKE daemon to a host",
            );
        }
        if owners.iter().any(Option::is_none) {
            return Check::unknown(
                id,
                format!("UDP port {port} is taken, and by whom only root can see"),
                "be root",
            );
        }
        let whose = if sockets.is_empty() { "free" } else { "ours" };
        Check::good(id, format!("UDP port {port} is {whose}"))
    };
    vec![port(500), port(4500)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn a_bound_socket_is_found_with_its_owner() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let all = bound(&fs::read_to_string("/proc/net/udp").unwrap());
        let inode = all.iter().find(|bound| bound.port == port).unwrap().inode;
        assert_eq!(owner(inode).unwrap().0, std::process::id());
    }

    #[test]
    fn lines_that_are_not_understood_are_no_sockets() {
        let table =
            "  sl  local_address\n x\n  1: 00000000:01F4 00000000:0000 07 0:0 00:0 0 0 0 4711 2 0 0\n";
        assert_eq!(bound(table), [Bound { port: 500, inode: 4711 }]);
    }
}
