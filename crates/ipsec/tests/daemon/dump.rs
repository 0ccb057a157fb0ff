//! A DUMP of many SAs to somebody who reads slowly: all of it arrives, the daemon keeps none of it, and nobody waits.

use crate::host::Host;
use crate::keysock::connect;
use pfkey::client::{Client, Heard, Request};
use pfkey::{Address, ExtType, MessageType, Sa, SaType, flags, state};
use rustix::net::{self, RecvFlags, SendFlags};
use std::os::fd::OwnedFd;

/// Many more than the sockets between can hold.
const SAS: u32 = 200_000;
/// Requests on their way at once while the database is filled.
const WINDOW: u32 = 64;
/// What the slow reader takes at a time.
const SIP: u32 = 200;
/// What the daemon may grow by meanwhile, octets: a tenth of what the messages of the DUMP take.
const GROWTH: u64 = 4 << 20;
const FIRST_SPI: u32 = 0x1000;

/// A socket and the client that understands it.
struct Manager {
    socket: OwnedFd,
    client: Client,
    buffer: Vec<u8>,
}

impl Manager {
    fn new(host: &Host, first_seq: u32) -> Self {
        let client = Client::starting_at(std::process::id(), first_seq);
        Self { socket: connect(host), client, buffer: vec![0; 1 << 16] }
    }

    fn send(&mut self, request: Request) {
        let (_, record) = self.client.finish(request).expect("a short message");
        net::send(&self.socket, &record, SendFlags::NOSIGNAL).expect("send");
    }

    /// The SPI in the next answer, whether more answers follow, and how many notices came before it.
    fn answer(&mut self) -> (Option<u32>, bool, usize) {
        for notices in 0.. {
            let length = loop {
                // A machine that is frozen and thawed interrupts receiving with a time limit.
                match net::recv(&self.socket, &mut self.buffer[..], RecvFlags::empty()) {
                    Err(rustix::io::Errno::INTR) => {}
                    received => break received.expect("an answer").0,
                }
            };
            match self.client.hear(&self.buffer[..length]).expect("a record") {
                Heard::Answer { message, more, .. } => return (message.sa.map(|sa| sa.spi), more, notices),
                Heard::Refused { fault, .. } => panic!("{fault}"),
                Heard::Notice(_) => {}
            }
        }
        unreachable!("the receive times out before")
    }

    /// A request about one SA.
    fn about(&self, kind: MessageType, spi: u32) -> Request {
        let mut request = self.client.request(kind, SaType::Esp);
        let sa = Sa { spi, state: state::MATURE, ..Sa::default() };
        let adds = kind == MessageType::Add;
        request.sa(&if adds { Sa { replay: 32, encrypt: 20, flags: flags::TUNNEL, ..sa } } else { sa });
        request.address(ExtType::AddressSrc, &Address::host([198, 18, 0, 1].into()));
        request.address(ExtType::AddressDst, &Address::host([192, 0, 2, 7].into()));
        if adds {
            request.address(ExtType::AddressInnerSrc, &Address::net([10, 2, 0, 0].into(), 16));
            request.address(ExtType::AddressInnerDst, &Address::net([10, 1, 0, 0].into(), 16));
            request.key(ExtType::KeyEncrypt, 160, 0, &[0x5a; 20]);
        }
        request
    }

    fn ask(&mut self, kind: MessageType, spi: u32) {
        let request = self.about(kind, spi);
        self.send(request);
        assert_eq!(self.answer(), (Some(spi), false, 0), "{kind:?}: the answer, and nothing before it");
    }
}

/// Resident memory of the daemon, octets.
fn resident(host: &Host) -> u64 {
    let pages = std::fs::read_to_string(format!("/proc/{}/statm", host.daemon().pid)).expect("statm");
    let pages: u64 = pages.split_whitespace().nth(1).and_then(|word| word.parse().ok()).expect("pages");
    pages * rustix::param::page_size() as u64
}

#[test]
fn a_slow_reader_gets_a_whole_dump_and_keeps_nobody_waiting() {
    let Some(host) = Host::new("%none") else { return };
    assert_eq!(host.ipsec(&["setup", "start"]).code, 0);
    let mut busy = Manager::new(&host, 1);
    for start in (0..SAS).step_by(WINDOW as usize) {
        let spis = FIRST_SPI + start..FIRST_SPI + SAS.min(start + WINDOW);
        for spi in spis.clone() {
            let request = busy.about(MessageType::Add, spi);
            busy.send(request);
        }
        for spi in spis {
            assert_eq!(busy.answer(), (Some(spi), false, 0));
        }
    }

    let mut slow = Manager::new(&host, 0x8000_0000);
    let before = resident(&host);
    let request = slow.client.request(MessageType::Dump, SaType::Unspec);
    slow.send(request);
    let mut seen = vec![0_u8; SAS as usize];
    let (mut rounds, mut extra, mut grown, mut notices) = (0_u32, 0_u32, 0, 0);
    'dump: loop {
        // Between two sips others are served: each of these is answered before the reader takes anything more.
        busy.ask(MessageType::Get, FIRST_SPI + ((rounds * 7919 % SAS) | 1));
        rounds += 1;
        if rounds.is_multiple_of(20) {
            // SAs come, and go behind where the DUMP is and ahead of it; those have even numbers.
            busy.ask(MessageType::Delete, FIRST_SPI + SAS - rounds);
            busy.ask(MessageType::Delete, FIRST_SPI + rounds);
            busy.ask(MessageType::Add, FIRST_SPI + SAS + rounds);
            grown = grown.max(resident(&host).saturating_sub(before));
        }
        for _ in 0..SIP {
            let (spi, more, passed) = slow.answer();
            notices += passed;
            let Some(spi) = spi else {
                assert!(!more, "the end of a DUMP is its last message");
                break 'dump;
            };
            match seen.get_mut((spi - FIRST_SPI) as usize) {
                Some(times) => *times += 1,
                None => extra += 1,
            }
        }
    }
    assert_eq!(host.ipsec(&["setup", "stop"]).code, 0);

    assert!(rounds >= 950, "{rounds} GETs were answered while the DUMP was under way");
    for (n, times) in (0..).zip(&seen) {
        let deleted = SAS - n <= rounds && (SAS - n).is_multiple_of(20);
        assert!(*times == 1 || (deleted && *times == 0), "SA {n} came {times} times");
    }
    assert!(extra <= rounds / 20, "{extra} SAs more");
    assert!(notices > 0, "what others did was heard between the messages of the DUMP");
    assert!(grown < GROWTH, "the daemon grew by {grown} octets");
    eprintln!(
        "{SAS} SAs: {rounds} GETs meanwhile, {notices} notices, the daemon grew by {} KiB",
        grown >> 10
    );
}
