use super::*;
use crate::host::netns::{Namespace, available};

fn wanted() -> Wanted {
    let selector =
        |src: &str, dst: &str| Selector::nets(src.parse().expect("net"), dst.parse().expect("net"));
    let ports = Selector { proto: 6, sport: 25, dport: 80, ..selector("10.1.0.0/16", "10.2.0.0/16") };
    Wanted {
        devices: vec!["ipsec0".into(), "ipsec17".into()],
        closed: ["10.2.0.0/16", "10.2.3.0/24", "192.168.0.0/16", "224.0.0.0/3", "fd00::/8"]
            .map(|net| net.parse().expect("net"))
            .into(),
        policy: vec![
            (selector("10.1.0.0/24", "10.2.0.0/24"), true),
            (ports, false),
            (selector("10.1.0.0/16", "0.0.0.0/0"), true),
            (Selector { proto: 17, dport: 53, ..selector("fd00:1::/32", "fd00:2::/32") }, true),
        ],
        ports: vec![500, 4500],
    }
}

#[test]
fn the_kernel_takes_every_kind_of_rule_counts_on_and_tells_who_meddles() {
    if let Err(why) = available() {
        return eprintln!("skipped: {why}");
    }
    let namespace = Namespace::new().expect("namespace");
    let done = namespace.run(|| -> Result<(), GuardError> {
        let mut guard = Guard::open("tulips_test".into())?;
        guard.install(wanted())?;
        assert_eq!(guard.refused(), 0);
        assert!(!guard.disturbed()?, "by ourselves");
        guard.install(Wanted { devices: vec!["ipsec3".into()], ..wanted() })?;
        assert!(!guard.disturbed()?, "by ourselves");
        // Another's table, then ours.
        remove("tulips_other")?;
        assert!(!guard.disturbed()?, "that is not ours");
        remove("tulips_test")?;
        assert!(guard.disturbed()?, "somebody has removed it");
        assert!(guard.nft.counter("tulips_test", ruleset::COUNTER).is_some(), "and it is there again");
        guard.install(Wanted::default())?;
        assert_eq!(guard.nft.counter("tulips_test", ruleset::COUNTER), None);
        remove("tulips_test")?;
        let _ = guard.disturbed()?;
        // A table of more than one message a set, and of more messages than answers fit in a buffer.
        let host = |n: u32| IpNet::from(std::net::IpAddr::from(n.to_be_bytes()));
        let many = (0..3000).map(|n| (Selector::nets(host(n), host(n + 1)), n % 2 == 0)).collect();
        guard.install(Wanted { policy: many, ..wanted() })?;
        // The counter is the same object from one set of rules to the next.
        guard.install(wanted())?;
        guard.install(Wanted { closed: Vec::new(), policy: Vec::new(), ..wanted() })?;
        assert!(guard.nft.counter("tulips_test", ruleset::COUNTER).is_some());
        assert!(!guard.disturbed()?, "by ourselves");
        Ok(())
    });
    done.expect("namespace").expect("nf_tables");
}

#[test]
fn what_is_missing_is_named_with_its_remedy() {
    let said = |errno| GuardError::from(io::Error::from_raw_os_error(errno)).to_string();
    assert!(said(libc::EPROTONOSUPPORT).contains("modprobe nf_tables"));
    assert!(said(libc::ENOENT).contains("modprobe nft_fib_inet"));
    assert!(said(libc::EPERM).contains("nf_tables: "));
}
