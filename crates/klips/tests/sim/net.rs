//! The wire: what it does to datagrams, and who listens.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;

/// One ESP packet on the wire, raw or in UDP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Datagram {
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    /// Source and destination port, in UDP.
    pub(crate) ports: Option<[u16; 2]>,
    pub(crate) tos: u8,
    /// Over IPv4: routers must not fragment it.
    pub(crate) dont_fragment: bool,
    pub(crate) octets: Vec<u8>,
}

/// A generator whose sequence is the same on every machine.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(2).wrapping_add(1))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    /// True `per_mille` times out of a thousand.
    pub(crate) fn chance(&mut self, per_mille: u64) -> bool {
        self.next() % 1000 < per_mille
    }
}

/// What a wire does; a row of `networks.json`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Weather {
    pub(crate) name: String,
    pub(crate) seed: u64,
    /// Per mille of datagrams.
    pub(crate) loss: u64,
    pub(crate) duplication: u64,
    pub(crate) reordering: u64,
    pub(crate) damage: u64,
    /// How many datagrams later a delayed one arrives, at most.
    pub(crate) delay: u64,
    /// Longest datagram that gets through, ESP header to ICV.
    pub(crate) mtu: usize,
}

/// All the wires the scenarios run over.
pub(crate) fn weathers() -> Vec<Weather> {
    let all: serde_json::Value = serde_json::from_str(include_str!("networks.json")).unwrap();
    let number = |row: &serde_json::Value, key: &str| row[key].as_u64().unwrap_or_else(|| panic!("{key}"));
    let rows = all.as_array().unwrap().iter();
    rows.map(|row| Weather {
        name: row["name"].as_str().unwrap().to_owned(),
        seed: number(row, "seed"),
        loss: number(row, "loss"),
        duplication: number(row, "duplication"),
        reordering: number(row, "reordering"),
        damage: number(row, "damage"),
        delay: number(row, "delay"),
        mtu: number(row, "mtu") as usize,
    })
    .collect()
}

/// A wire that does nothing.
pub(crate) fn clear_sky() -> Weather {
    weathers().remove(0)
}

/// What became of the datagrams handed to a [`Net`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fate {
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    pub(crate) damaged: u64,
}

/// A one-way wire. Time on it is counted in datagrams.
pub(crate) struct Net {
    weather: Weather,
    random: Random,
    now: u64,
    order: u64,
    /// By time of arrival, then by time of sending.
    under_way: BTreeMap<(u64, u64), Datagram>,
    pub(crate) eavesdropper: Eavesdropper,
    pub(crate) fate: Fate,
}

impl Net {
    pub(crate) fn new(weather: &Weather) -> Self {
        Self {
            random: Random::new(weather.seed),
            weather: weather.clone(),
            now: 0,
            order: 0,
            under_way: BTreeMap::new(),
            eavesdropper: Eavesdropper::default(),
            fate: Fate::default(),
        }
    }

    /// Takes what was sent; hands out what arrives meanwhile.
    pub(crate) fn carry(&mut self, sent: Vec<Datagram>) -> Vec<Datagram> {
        for datagram in sent {
            self.eavesdropper.see(&datagram);
            self.now += 1;
            let fits = datagram.octets.len() <= self.weather.mtu;
            if !fits || self.random.chance(self.weather.loss) {
                self.fate.lost += 1;
                continue;
            }
            if self.random.chance(self.weather.duplication) {
                self.fate.doubled += 1;
                self.put(datagram.clone());
            }
            self.put(datagram);
        }
        let later = self.under_way.split_off(&(self.now + 1, 0));
        core::mem::replace(&mut self.under_way, later).into_values().collect()
    }

    /// Lets everything arrive that is still under way.
    pub(crate) fn settle(&mut self) -> Vec<Datagram> {
        core::mem::take(&mut self.under_way).into_values().collect()
    }

    fn put(&mut self, mut datagram: Datagram) {
        if self.random.chance(self.weather.damage) {
            self.fate.damaged += 1;
            // Anywhere but in the SPI, where it would be another SA's packet.
            let bit = 32 + self.random.next() as usize % (datagram.octets.len() * 8 - 32);
            datagram.octets[bit / 8] ^= 1 << (bit % 8);
        }
        let late = self.random.chance(self.weather.reordering);
        let delay = if late { 1 + self.random.next() % self.weather.delay } else { 0 };
        self.order += 1;
        self.under_way.insert((self.now + delay, self.order), datagram);
    }
}

/// Sees every datagram that is sent, and asserts that there is nothing to see.
#[derive(Default)]
pub(crate) struct Eavesdropper {
    /// Octets of IV by SPI, for the SAs whose cipher needs one that never repeats.
    pub(crate) iv_len: HashMap<u32, usize>,
    numbers: HashSet<(u32, u32)>,
    ivs: HashSet<(u32, Vec<u8>)>,
    pub(crate) seen: u64,
}

impl Eavesdropper {
    fn see(&mut self, datagram: &Datagram) {
        self.seen += 1;
        let word = |at: usize| u32::from_be_bytes(datagram.octets[at..at + 4].try_into().unwrap());
        let (spi, number) = (word(0), word(4));
        assert!(
            self.numbers.insert((spi, number)),
            "sequence number {number} of SPI {spi:#x} was sent twice"
        );
        // SAs without encryption hide nothing, and have no IV.
        let Some(len) = self.iv_len.get(&spi) else { return };
        let iv = datagram.octets[8..8 + len].to_vec();
        assert!(self.ivs.insert((spi, iv)), "an IV of SPI {spi:#x} was used twice");
        assert!(!shows_mark(&datagram.octets), "clear text on the wire");
    }
}

/// Whether eight octets of the mark stand anywhere.
pub(crate) fn shows_mark(octets: &[u8]) -> bool {
    let mark = crate::ip::MARK;
    // Any eight octets of the mark contain two neighbours at an even place of it; look closer only there.
    let mut pairs = [false; 65_536];
    for pair in mark.chunks_exact(2) {
        pairs[usize::from(pair[0]) << 8 | usize::from(pair[1])] = true;
    }
    octets.windows(2).enumerate().any(|(at, pair)| {
        pairs[usize::from(pair[0]) << 8 | usize::from(pair[1])]
            && (at.saturating_sub(6)..=at)
                .filter_map(|begin| octets.get(begin..begin + 8))
                .any(|eight| mark.windows(8).any(|piece| piece == eight))
    })
}

#[test]
fn the_eavesdropper_knows_the_mark_when_it_sees_it() {
    let hidden: Vec<u8> = (0..300_u16).map(|n| (n.wrapping_mul(2_477) >> 5) as u8).collect();
    assert!(!shows_mark(&hidden));
    for begin in 0..crate::ip::MARK.len() - 8 {
        let shown = [&hidden[..100], &crate::ip::MARK[begin..begin + 8], &hidden[100..]].concat();
        assert!(shows_mark(&shown), "from {begin}");
        let seven = [&hidden[..100], &crate::ip::MARK[begin..begin + 7], &hidden[100..]].concat();
        assert!(!shows_mark(&seven), "from {begin}");
    }
}

#[test]
#[should_panic = "was sent twice"]
fn the_eavesdropper_notices_a_repeated_number() {
    let address = IpAddr::from([192, 0, 2, 1]);
    let datagram = Datagram {
        src: address,
        dst: address,
        ports: None,
        tos: 0,
        dont_fragment: false,
        octets: vec![1; 40],
    };
    Net::new(&Weather { mtu: 1500, ..Weather::default() }).carry(vec![datagram.clone(), datagram]);
}

#[test]
#[should_panic = "an IV of SPI"]
fn the_eavesdropper_notices_a_repeated_iv() {
    let address = IpAddr::from([192, 0, 2, 1]);
    let first = Datagram {
        src: address,
        dst: address,
        ports: None,
        tos: 0,
        dont_fragment: false,
        octets: vec![1; 40],
    };
    let mut second = first.clone();
    second.octets[7] = 2;
    let mut net = Net::new(&Weather { mtu: 1500, ..Weather::default() });
    net.eavesdropper.iv_len.insert(0x0101_0101, 8);
    net.carry(vec![first, second]);
}
