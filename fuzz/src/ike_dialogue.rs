//! Two IKE endpoints, and somebody between them who holds their keys: the octets say which messages are lost, repeated,
//! or changed inside the SK payload, and what their hosts do meanwhile.
//!
//! Whoever holds the keys may do to the IKE SA what a peer may do; nothing may make an endpoint panic, speak without
//! end, or keep more than its limits.

use ike::connection::{ChildPolicy, Connection, Encapsulation, Mode, Psk, Secrets, Times, WhenGone};
use ike::event::{Event, Transmit};
use ike::identity::{Id, IdPattern};
use ike::job::{Answer, Job};
use ike::message::{Header, Payload, TrafficSelector};
use ike::proposal::Offer;
use ike::protect::{Opened, Opener, Opening, plain};
use ike::tape::{Entry, Keys, Tape};
use ike::{Endpoint, Random};
use ipsec_core::algorithm::Encryption;
use ipsec_core::kex::{self, Group};
use ipsec_core::prf::Prf;
use ipsec_core::transform::SkCipher;
use ipsec_core::{Secret, Time};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

/// Datagrams one run may carry: far more than two well-behaved endpoints need.
const MOST: usize = 400;

struct Dice(u64);

impl Random for Dice {
    fn fill(&mut self, octets: &mut [u8]) {
        for octet in octets {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *octet = (self.0 >> 56) as u8;
        }
    }
}

/// One key exchange, made once: what it computes is not what is tried here, and it would be most of the time.
struct Exchanged {
    offer: Arc<kex::Offer>,
    share_i: Vec<u8>,
    share_r: Vec<u8>,
    secret: Secret,
}

/// That of each method which is tried here.
fn exchanged(group: Group) -> Option<&'static Exchanged> {
    static CURVE: OnceLock<Exchanged> = OnceLock::new();
    static KEM: OnceLock<Exchanged> = OnceLock::new();
    let once = if group == Group::X25519 {
        &CURVE
    } else if group == Group::MlKem512 {
        &KEM
    } else {
        return None;
    };
    Some(once.get_or_init(|| {
        let (offer, share_i) = group.offer().expect("randomness");
        let (share_r, secret) = group.accept(&share_i).expect("a good share");
        Exchanged { offer: Arc::new(offer), share_i, share_r, secret }
    }))
}

fn answer(job: Job, spi: &mut u32) -> Answer {
    let known = match &job {
        Job::Offer(group) | Job::Accept(group, _) => exchanged(*group),
        Job::Finish(offer, _) => exchanged(offer.group()),
        Job::Spi { .. } | Job::Sign(..) | Job::Verify(_) | Job::Tls(_) => None,
    };
    match (job, known) {
        (Job::Offer(_), Some(known)) => Answer::Offered(Ok((known.offer.clone(), known.share_i.clone()))),
        (Job::Accept(_, share), Some(known)) if share == known.share_i => {
            Answer::Accepted(Ok((known.share_r.clone(), known.secret.clone())))
        }
        (Job::Finish(_, share), Some(known)) if share == known.share_r => {
            Answer::Finished(Ok(known.secret.clone()))
        }
        (Job::Spi { .. }, _) => {
            *spi += 1;
            Answer::Spi(Some(*spi))
        }
        (other, _) => other.run().unwrap_or(Answer::Spi(None)),
    }
}

fn offer() -> Offer {
    Offer {
        encryption: vec![(Encryption::AesGcm16, 256)],
        prf: vec![Prf::HmacSha256],
        groups: vec![Group::X25519],
        ..Offer::default()
    }
}

fn connection(side: usize) -> Connection {
    let ends: [IpAddr; 2] = [[192, 0, 2, 1].into(), [192, 0, 2, 2].into()];
    let ids = ["@west", "@east"].map(|id| Id::parse(id).expect("an identity"));
    let nets = ["10.1.0.0/16", "10.2.0.0/16"]
        .map(|net| vec![TrafficSelector::of(net.parse().expect("a net"), 0, 0)]);
    let child = Offer {
        encryption: vec![(Encryption::AesGcm16, 256)],
        groups: vec![Group::X25519],
        esn: vec![false],
        ..Offer::default()
    };
    Connection {
        name: "net".to_owned(),
        local_address: Some(ends[side]),
        remote_address: Some(ends[1 - side]),
        remote_port: 500,
        local_id: ids[side].clone(),
        remote_id: IdPattern::Exactly(ids[1 - side].clone()),
        local_auth: Default::default(),
        remote_auth: Default::default(),
        ppk: Default::default(),
        ike: vec![offer()],
        child: ChildPolicy {
            offers: vec![child],
            mode: Mode::Tunnel,
            local: nets[side].clone(),
            remote: nets[1 - side].clone(),
            upper: Default::default(),
            replay_window: 64,
            pad: None,
        },
        times: Times::default(),
        encapsulation: Encapsulation::Auto,
        fragmentation: true,
        attempts: None,
        when_gone: WhenGone::Clear,
        unique: true,
        mobike: false,
        childless: false,
        reauthenticate: false,
        provision: None,
        request: None,
    }
}

/// The keys of the IKE SAs that a host has made, as its record has them.
#[derive(Clone, Default)]
struct KeysOf(Arc<Mutex<Vec<Keys>>>);

impl Tape for KeysOf {
    fn take(&mut self, entry: &Entry) {
        if let Entry::Keys(keys) = entry
            && let Ok(mut all) = self.0.lock()
        {
            all.push((**keys).clone());
        }
    }
}

/// Whoever is between holds the keys of both.
struct Between {
    known: KeysOf,
    iv: u64,
}

impl Between {
    /// What protects this datagram: of keys for the same SPIs, those before IKE_INTERMEDIATE, too.
    fn cipher(&self, header: &Header, octets: &[u8]) -> Option<(SkCipher, Opened)> {
        let all = self.known.0.lock().ok()?;
        let role = usize::from(!header.flags.initiator);
        let of = |keys: &Keys| {
            let mac = keys.mac.zip(keys.integrity.get(role)).map(|(mac, key)| (mac, &**key));
            SkCipher::new(keys.cipher?.0, keys.encryption.get(role)?, mac).ok()
        };
        all.iter().rev().filter(|keys| keys.spis == (header.spi_i, header.spi_r)).find_map(|keys| {
            let Opening::Message(opened) = Opener::new(of(keys)?).open(octets, true) else { return None };
            Some((of(keys)?, opened))
        })
    }

    /// The message with its payloads changed by `edit`, sealed as the sender would.
    fn edit(&mut self, octets: &[u8], edit: impl FnOnce(&mut Vec<u8>)) -> Option<Vec<u8>> {
        let (header, ..) = Header::parse(octets).ok()?;
        let (cipher, opened) = self.cipher(&header, octets)?;
        let mut inner = plain(&opened.message.payloads).to_vec();
        edit(&mut inner);
        let first = opened.message.payloads.first().map_or(0, Payload::kind);
        self.iv = self.iv.wrapping_add(1);
        let mut sealed = octets.get(..28)?.to_vec();
        sealed[16] = 46;
        let length = u16::try_from(4 + cipher.iv_len() + inner.len() + 1 + cipher.icv_len()).ok()?;
        sealed.extend([first, 0]);
        sealed.extend(length.to_be_bytes());
        // Far from the numbers the endpoints use.
        sealed.extend((self.iv | 1 << 63).to_be_bytes());
        sealed.extend(&inner);
        sealed.push(0);
        sealed.extend(std::iter::repeat_n(0, cipher.icv_len()));
        let whole = u32::try_from(sealed.len()).ok()?;
        sealed[24..28].copy_from_slice(&whole.to_be_bytes());
        cipher.seal(&mut sealed, 32)?;
        Some(sealed)
    }
}

/// Takes the octets as what happens, one decision after the other.
pub fn run(data: &[u8]) {
    play(data, |_, _, _| {});
}

/// The same, where the two sides have another configuration than a shared secret.
pub(crate) fn play(data: &[u8], configure: impl Fn(usize, &mut Connection, &mut Secrets)) {
    let mut script = data.iter().copied();
    let mut now = Time::from_secs(1000);
    let known = KeysOf::default();
    let mut hosts = [0, 1].map(|side| {
        let random = Box::new(Dice(side as u64 + 1));
        let mut endpoint = match side {
            0 => Endpoint::recorded(random, now, Box::new(known.clone())),
            _ => Endpoint::new(random, now),
        };
        let ids = ["@west", "@east"].map(|id| IdPattern::Exactly(Id::parse(id).expect("an identity")));
        let psks = vec![Psk { ids: ids.to_vec(), key: Secret::from(&b"secret"[..]) }];
        let (mut connection, mut secrets) = (connection(side), Secrets { psks, ..Secrets::default() });
        configure(side, &mut connection, &mut secrets);
        endpoint.add(connection);
        endpoint.set_secrets(secrets);
        // Without a clock nobody is believed by a key.
        endpoint.set_epoch(Duration::from_secs(1_780_000_000));
        endpoint
    });
    let mut spis = [0x1000, 0x2000];
    let mut between = Between { known, iv: 0 };
    let mut wire: Vec<(usize, Transmit)> = Vec::new();
    let mut ups = [0, 0];
    let mut untouched = true;
    hosts[0].up("net", [192, 0, 2, 1].into(), now).expect("a connection that can be begun");
    for _ in 0..MOST {
        for side in 0..2 {
            let host = &mut hosts[side];
            loop {
                if let Some((id, job)) = host.job() {
                    let answer = answer(job, &mut spis[side]);
                    host.answer(id, answer, now);
                } else if let Some(event) = host.event() {
                    ups[side] += usize::from(matches!(event, Event::ChildUp(_)));
                } else if let Some(transmit) = host.transmit() {
                    wire.push((1 - side, transmit));
                } else {
                    break;
                }
            }
            assert!(host.rows().len() <= 64, "one peer, and more IKE SAs than it can have made");
        }
        assert!(wire.len() <= MOST, "a few messages, and no end of answers");
        if wire.is_empty() {
            match script.next() {
                // The script is over, or nothing is to be said: time passes to the next deadline, a few times.
                None => break,
                Some(what) => {
                    untouched &= what & 7 > 4;
                    let host = &mut hosts[usize::from(what >> 7)];
                    match what & 7 {
                        0 => drop(host.rekey("net", false, now)),
                        1 => drop(host.rekey("net", true, now)),
                        2 => host.down("net", now),
                        3 => host.shutdown(now),
                        4 => host.child_expired(0x1001 + u32::from(what >> 3 & 3), what & 32 != 0, now),
                        _ => {
                            now = now.after(Duration::from_secs(u64::from(what)));
                            hosts.iter_mut().for_each(|host| host.timeout(now));
                        }
                    }
                }
            }
            continue;
        }
        let (to, transmit) = wire.remove(0);
        let what = script.next().unwrap_or(0);
        let mut deliver = |octets: &[u8]| hosts[to].datagram(transmit.remote, transmit.local, octets, now);
        untouched &= what & 7 == 0;
        match what & 7 {
            0 => deliver(&transmit.octets),
            1 => {}
            2 => {
                deliver(&transmit.octets);
                deliver(&transmit.octets);
            }
            3 => {
                // Without the keys: whatever bit it is, it changes nothing that is protected.
                let mut octets = transmit.octets.clone();
                let at = usize::from(script.next().unwrap_or(0)) % octets.len();
                octets[at] ^= 1 << (what >> 5);
                deliver(&octets);
            }
            kind => {
                // With them: the plain text is cut, grows, or changes in up to eight places.
                let edits: Vec<(u8, u8)> = (0..(what >> 3 & 7) + 1)
                    .map(|_| (script.next().unwrap_or(0), script.next().unwrap_or(0)))
                    .collect();
                let edited = between.edit(&transmit.octets, |inner| {
                    for (at, value) in &edits {
                        let at = usize::from(*at) % (inner.len() + 1);
                        match (kind, inner.get_mut(at)) {
                            (4 | 5, Some(octet)) => *octet = *value,
                            (6, _) => inner.truncate(at),
                            _ => inner.insert(at, *value),
                        }
                    }
                });
                deliver(edited.as_deref().unwrap_or(&transmit.octets));
            }
        }
    }
    assert!(!untouched || ups.iter().all(|ups| *ups > 0), "nobody disturbed them, and there is no tunnel");
    // However it went, time ends it: everything that was half done is forgotten.
    for host in &mut hosts {
        for _ in 0..64 {
            let due = host.deadline();
            if due == Time::FOREVER {
                break;
            }
            now = now.max(due);
            host.timeout(now);
            while host.event().is_some() || host.transmit().is_some() {}
        }
    }
}

/// A dialogue nobody disturbs, and one of each kind of disturbance.
pub fn seeds() -> Vec<(String, Vec<u8>)> {
    let after = |tail: &[u8]| [&[0, 0, 0, 0][..], tail].concat();
    [
        ("quiet", vec![0; 16]),
        ("lost", vec![1, 255, 0, 0, 1, 255, 0, 0]),
        ("repeated", vec![2; 24]),
        ("flipped", vec![0, 0, 0x23, 40, 255, 0x63, 60, 255, 0, 0]),
        ("rekey-child", after(&[0, 0, 0, 0, 0, 0, 0])),
        ("rekey-ike", after(&[1, 0, 0, 0, 0, 0, 0, 0, 0])),
        ("rekey-both", after(&[0, 2, 0, 0, 0, 0x81, 0, 0, 0, 0, 0])),
        ("down", after(&[2, 0, 0, 0, 0])),
        ("edited-auth", vec![0, 0, 0x0c, 4, 9, 30, 1]),
        ("edited-answer", vec![0, 0, 0, 0x0c, 8, 2, 60, 255]),
        ("edited-rekey", after(&[0, 0x14, 4, 1, 9, 7, 33, 2, 0, 0, 0])),
        ("cut-rekey", after(&[1, 0x06, 40, 0, 0x06, 20, 0])),
        ("grown", vec![0, 0, 0x3f, 9, 9, 9, 9, 8, 8, 7, 7, 6, 6, 5, 5, 4, 4, 3, 3]),
        ("expired", after(&[0x24, 0, 0, 0, 0, 4, 0, 0, 0, 0])),
    ]
    .map(|(name, data)| (name.to_owned(), data))
    .into()
}
