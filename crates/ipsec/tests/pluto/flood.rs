//! First messages of IKE from strangers without end.

use ike::message::{Exchange, Flags, Header, IkeSpi, Message, Payload};
use ike::proposal::Protocol;
use ipsec::host::netns::Namespace;
use ipsec_core::kex::Group;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::Duration;

/// First messages of strangers from everywhere, until this is dropped.
pub(super) struct Flood(Arc<AtomicBool>, Option<JoinHandle<()>>);

impl Flood {
    /// From the router, which has all these addresses, to `victim`.
    pub(super) fn start(router: &Namespace, victim: &str) -> Self {
        let added =
            router.run(|| Command::new("ip").args(["addr", "add", "203.0.113.1/24", "dev", "lo"]).status());
        assert!(added.expect("namespace").expect("ip").success());
        let sockets: Vec<UdpSocket> = router
            .run(|| (1..255).map(|n| UdpSocket::bind((Ipv4Addr::new(203, 0, 113, n), 500))).collect())
            .map(|all: std::io::Result<_>| all.expect("sockets"))
            .expect("namespace");
        let to: SocketAddr = format!("{victim}:500").parse().expect("an address");
        let stop = Arc::new(AtomicBool::new(false));
        let (until, octets) = (Arc::clone(&stop), first_message());
        let thread = std::thread::spawn(move || {
            for (n, socket) in (1_u64..).zip(sockets.iter().cycle()) {
                if until.load(Relaxed) {
                    return;
                }
                // Each is an IKE SA of its own.
                let mut octets = octets.clone();
                octets[..8].copy_from_slice(&(0xbad0_0000_0000 + n).to_be_bytes());
                let _ = socket.send_to(&octets, to);
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        Self(stop, Some(thread))
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
        let _ = self.1.take().map(JoinHandle::join);
    }
}

/// One that is answered with a key exchange, if nothing is done against it.
fn first_message() -> Vec<u8> {
    let suite = ipsec::conf::suite::offers("aes256gcm16-prfsha256-x25519", ipsec::conf::suite::Use::Ike)
        .expect("a suite")
        .0;
    let (_, share) = Group::X25519.offer().expect("a key");
    let payloads = vec![
        Payload::Sa(vec![suite[0].proposal(1, Protocol::Ike, vec![])]),
        Payload::Ke { group: Group::X25519.number(), data: share },
        Payload::Nonce(vec![7; 32]),
    ];
    let flags = Flags { initiator: true, response: false };
    let header = Header { spi_i: IkeSpi(1), spi_r: IkeSpi(0), exchange: Exchange::IkeSaInit, flags, id: 0 };
    Message { header, payloads }.emit()
}
