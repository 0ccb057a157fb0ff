//! Numbered datagrams through a tunnel while something about it changes, and which of them did not arrive.

use crate::{Inside, wait};
use ipsec::host::clock;
use std::collections::BTreeSet;
use std::fs;
use std::net::UdpSocket;
use std::sync::OnceLock;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::time::Duration;

const PORT: u16 = 7778;
/// How long the last ones may take.
const LATE: Duration = Duration::from_secs(10);

/// Sends one after the other, a millisecond between them, while `change` is made and a hundred beyond that, so that the last
/// go by what came of it. Says how many were sent, and which of them were lost.
pub(crate) fn during(from: Inside<'_>, to: Inside<'_>, change: impl FnOnce()) -> (u32, Vec<u32>) {
    let bind = |(namespace, address): Inside<'_>, port: u16| {
        namespace.run(|| UdpSocket::bind((address, port))).expect("namespace").expect("socket")
    };
    let (receiver, sender) = (bind(to, PORT), bind(from, 0));
    receiver.set_read_timeout(Some(Duration::from_millis(100))).expect("timeout");
    // What is kept for a thread that does not run for a while is not lost: by itself the kernel keeps some 250 of these.
    let size = 8 << 20;
    ipsec::host::mmsg::set(&receiver, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, size).expect("a larger buffer");
    let (going, counted) = (AtomicBool::new(true), AtomicU32::new(0));
    let sent = OnceLock::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut n = 0_u32;
            while going.load(Relaxed) {
                sender.send_to(&n.to_be_bytes(), (to.1, PORT)).expect("sent");
                n += 1;
                counted.store(n, Relaxed);
                std::thread::sleep(Duration::from_millis(1));
            }
            let _ = sent.set((n, clock::now()));
        });
        let received = scope.spawn(|| {
            let mut seen = BTreeSet::new();
            let mut buffer = [0; 4];
            loop {
                match (receiver.recv_from(&mut buffer), sent.get()) {
                    (Ok(_), _) => drop(seen.insert(u32::from_be_bytes(buffer))),
                    (Err(_), Some((sent, end)))
                        if seen.len() == *sent as usize || clock::now().since(*end) > LATE =>
                    {
                        return seen;
                    }
                    (Err(_), _) => {}
                }
            }
        });
        // It stops sending also where `change` fails, or the scope would never end.
        let stop = Stop(&going);
        change();
        let before = counted.load(Relaxed);
        wait("more datagrams", || counted.load(Relaxed) > before + 100);
        drop(stop);
        let received = received.join().expect("receiver");
        let (sent, _) = *sent.get().expect("the receiver waits for it");
        (sent, (0..sent).filter(|n| !received.contains(n)).collect())
    })
}

/// How many packets the queues of a host have had no room for, those of its UDP sockets and of its devices: on a busy machine the program behind one does
/// not run for a while, and by itself the kernel keeps some 250.
#[allow(dead_code, reason = "each test binary uses its own part of this")]
pub(crate) fn overruns((namespace, _): Inside<'_>) -> u64 {
    let count = || {
        // The files of a process are those of the namespace of its first thread. Both have the count in this column.
        let dropped = |name: &str, head: usize| -> u64 {
            let text = fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap_or_default();
            let column = |line: &str| line.split_whitespace().nth(12)?.parse::<u64>().ok();
            text.lines().skip(head).filter_map(column).sum()
        };
        dropped("udp", 1) + dropped("dev", 2)
    };
    namespace.run(count).expect("namespace")
}

struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(false, Relaxed);
    }
}
