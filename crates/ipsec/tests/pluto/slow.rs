//! A data plane that takes its time. What pluto tells the peer rests on what it has had installed: where the answer to an
//! UPDATE is late, the peer must hear later of the SA, too, and not send into the void meanwhile.

use super::{CONN, Gateway, SECRET, crosses, scene, unbroken, wait};
use ipsec::keyclient::LONGEST;
use ipsec::rundir::Rundir;
use pfkey::MessageType;
use rustix::net::{
    self, AddressFamily, RecvFlags, SendFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType,
};
use std::fs;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// How long an UPDATE is held back: some hundred datagrams of the test's.
const HELD: Duration = Duration::from_millis(100);

/// Stands between everybody who speaks PF_KEY and the klips of a run directory, and holds UPDATEs back.
struct Relay {
    listener: Arc<OwnedFd>,
    held: Arc<AtomicUsize>,
}

impl Relay {
    fn new(rundir: &Rundir) -> Self {
        let path = rundir.pf_key_sock();
        let behind = path.with_extension("behind");
        fs::rename(&path, &behind).expect("klips' socket, moved");
        let socket = || {
            net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .expect("a socket")
        };
        let listener = Arc::new(socket());
        net::bind(&*listener, &SocketAddrUnix::new(&path).expect("a path")).expect("its old name");
        net::listen(&*listener, 16).expect("a listener");
        let held = Arc::new(AtomicUsize::new(0));
        let (accepting, counted) = (Arc::clone(&listener), Arc::clone(&held));
        std::thread::spawn(move || {
            while let Ok(front) = net::accept(&*accepting) {
                let (front, back) = (Arc::new(front), Arc::new(socket()));
                if net::connect(&*back, &SocketAddrUnix::new(&behind).expect("a path")).is_err() {
                    continue;
                }
                let held = Arc::clone(&counted);
                let (asked, asker) = (Arc::clone(&back), Arc::clone(&front));
                std::thread::spawn(move || {
                    pass_on(&asker, &asked, |record| {
                        // The second octet of a message is its type.
                        if record.get(1) == Some(&MessageType::Update.number()) {
                            std::thread::sleep(HELD);
                            held.fetch_add(1, Ordering::Relaxed);
                        }
                    });
                });
                std::thread::spawn(move || pass_on(&back, &front, |_| {}));
            }
        });
        Self { listener, held }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = net::shutdown(&*self.listener, Shutdown::Both);
    }
}

/// Takes records from one to the other until either is gone.
fn pass_on(from: &OwnedFd, to: &OwnedFd, before: impl Fn(&[u8])) {
    let mut buffer = vec![0; LONGEST];
    while let Ok((len, _)) = net::recv(from, &mut buffer[..], RecvFlags::empty())
        && len > 0
    {
        before(&buffer[..len]);
        if net::send(to, &buffer[..len], SendFlags::NOSIGNAL).is_err() {
            break;
        }
    }
    for side in [from, to] {
        let _ = net::shutdown(side, Shutdown::Both);
    }
}

#[test]
fn where_sas_are_installed_late_the_peer_sends_on_them_late_whoever_began_the_rekeying() {
    let Some([left, _router, right]) = scene() else { return };
    let conn = format!("{CONN}\tauto=add\n");
    let mut west = Gateway::new(left, "10.1.0.1", &conn, SECRET);
    let mut east = Gateway::new(right, "10.2.0.1", &conn, SECRET);
    west.start_klips();
    east.start_klips();
    let relay = Relay::new(&east.rundir);
    west.start_pluto();
    east.start_pluto();
    west.done(&["auto", "--up", "west-east"]);
    crosses(&west, &east);
    // East is asked for the new pair, and then asks for it itself.
    for side in [&west, &east] {
        let before = east.spis();
        unbroken(&west, &east, || {
            side.done(&["auto", "--rekey", "west-east"]);
            wait("new SAs", || east.spis().len() == 1 && east.spis() != before);
        });
    }
    assert_eq!(relay.held.load(Ordering::Relaxed), 3, "each inbound SA of east's was late");
}
