use super::*;
use crate::daemon::mailbox::mailbox;
use crate::table::Snapshot;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::mount::{UnmountFlags, unmount};
use std::os::unix::fs::MetadataExt;

#[test]
fn every_node_hangs_in_a_directory_before_it() {
    for (number, node) in nodes().skip(1) {
        assert!(node.parent < number, "{}", node.name);
        assert!(TREE[usize::try_from(node.parent).unwrap() - 1].content.is_none(), "{}", node.name);
    }
}

/// A mount that goes when it is dropped.
struct Mounted {
    rundir: Rundir,
    _dir: tempfile::TempDir,
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = unmount(self.rundir.proc(), UnmountFlags::DETACH);
    }
}

/// Serves a counter: each time the table is asked for it has one row more. `None` where nothing can be mounted.
fn mounted() -> Option<Mounted> {
    let dir = tempfile::tempdir().unwrap();
    let rundir = Rundir::new(dir.path());
    let (mailbox, inbox) = mailbox().unwrap();
    if let Err(error) = mount(&rundir, mailbox, SystemTime::UNIX_EPOCH) {
        eprintln!("skipped: no FUSE mount here: {error}");
        return None;
    }
    std::thread::spawn(move || {
        let mut rows = 0;
        while poll(&mut [PollFd::new(&inbox.waker, PollFlags::IN)], None).is_ok() {
            inbox.waker.clear();
            while let Some(mail) = inbox.next() {
                let answer = match mail.ask {
                    Ask::Table(Table::Version) => Snapshot::Version,
                    Ask::Table(_) | Ask::Do(_) => {
                        rows += 20_000;
                        Snapshot::Discards(vec![("malformed", 7); rows])
                    }
                };
                let _ = mail.reply.send(Answer::Table(answer));
            }
        }
    });
    Some(Mounted { rundir, _dir: dir })
}

#[test]
fn cat_works_though_the_size_is_nought_and_a_file_is_one_moment() {
    let Some(at) = mounted() else { return };
    let net = at.rundir.proc().join("net");
    let path = net.join("ipsec_eroute");
    assert_eq!(fs::metadata(&path).unwrap().len(), 0);
    let mut early = fs::File::open(&path).unwrap();
    // Later opens see later tables; what is open does not change.
    assert_eq!(fs::read_to_string(net.join("ipsec/eroute/all")).unwrap().lines().count(), 40_000);
    let text = io::read_to_string(&mut early).unwrap();
    assert_eq!(text, "malformed 7\n".repeat(20_000));
    assert!(fs::read_to_string(net.join("ipsec_version")).unwrap().starts_with("tulips version: "));
}

#[test]
fn names_and_modes_are_the_historical_ones_and_nothing_can_be_written() {
    let Some(at) = mounted() else { return };
    let net = at.rundir.proc().join("net");
    let names = |dir: &Path| {
        let mut names: Vec<String> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names.join(" ")
    };
    assert_eq!(
        names(&net),
        "ipsec ipsec_eroute ipsec_klipsdebug ipsec_spi ipsec_spigrp ipsec_tncfg ipsec_version pf_key \
         pf_key_registered pf_key_supported"
    );
    assert_eq!(
        names(&net.join("ipsec")),
        "eroute klipsdebug natt ocf pf_key spi spigrp stats tncfg version xforms"
    );
    assert_eq!(names(&net.join("ipsec/stats")), "trap_count trap_sendcount");
    let mode = |name: &str| fs::metadata(net.join(name)).unwrap().mode();
    assert_eq!(mode("ipsec_eroute"), 0o100_400);
    assert_eq!(mode("ipsec_version"), 0o100_444);
    assert_eq!(mode("ipsec"), 0o040_555);
    assert!(fs::write(net.join("ipsec_eroute"), "x").is_err());
    assert!(fs::File::create(net.join("new")).is_err());
    assert!(fs::remove_file(net.join("pf_key")).is_err());
}
