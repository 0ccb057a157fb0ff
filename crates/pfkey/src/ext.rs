//! The extensions, as values.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// SADB_EXT_SA.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sa {
    /// The SPI, host order here, network order on the wire.
    pub spi: u32,
    /// Replay window in packets.
    pub replay: u8,
    /// See [`crate::state`].
    pub state: u8,
    /// Authentication algorithm.
    pub auth: u8,
    /// Encryption algorithm.
    pub encrypt: u8,
    /// See [`crate::flags`].
    pub flags: u32,
}

/// SADB_EXT_LIFETIME_*: limits, or what has been used. 0 is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lifetime {
    /// Flows; recorded, never enforced.
    pub allocations: u32,
    /// Bytes protected.
    pub bytes: u64,
    /// Seconds since it was added; the moment itself (seconds since 1970) in a current lifetime.
    pub addtime: u64,
    /// Seconds since its first use; the moment itself in a current lifetime.
    pub usetime: u64,
}

impl Lifetime {
    /// Whether nothing is limited.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// SADB_EXT_ADDRESS_*.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// IP protocol, 0 for any.
    pub proto: u8,
    /// Prefix length, for inner addresses.
    pub prefix: u8,
    /// Address and port; `None` when the family is neither AF_INET nor AF_INET6.
    pub socket: Option<SocketAddr>,
}

impl Address {
    /// A whole address without port or protocol.
    pub const fn host(ip: IpAddr) -> Self {
        Self { proto: 0, prefix: 0, socket: Some(SocketAddr::new(ip, 0)) }
    }

    /// An address with its prefix length.
    pub const fn net(ip: IpAddr, prefix: u8) -> Self {
        Self { proto: 0, prefix, socket: Some(SocketAddr::new(ip, 0)) }
    }

    /// The address alone.
    pub fn ip(&self) -> Option<IpAddr> {
        self.socket.map(|socket| socket.ip())
    }

    /// The port, host order; 0 for none.
    pub fn port(&self) -> u16 {
        self.socket.map_or(0, |socket| socket.port())
    }

    /// The address if it is IPv4.
    pub fn v4(&self) -> Option<Ipv4Addr> {
        match self.ip()? {
            IpAddr::V4(ip) => Some(ip),
            IpAddr::V6(_) => None,
        }
    }
}

/// AF_INET, the same on every system.
pub(crate) const AF_INET: u16 = 2;
/// AF_INET6 of the host, Linux.
pub(crate) const AF_INET6: u16 = 10;

/// Reads a sockaddr. `Err` when it is cut short, `Ok(None)` when its family is unknown.
pub(crate) fn sockaddr(octets: &[u8]) -> Result<Option<SocketAddr>, ()> {
    let (&[f0, f1, p0, p1], rest) = octets.split_first_chunk::<4>().ok_or(())?;
    let port = u16::from_be_bytes([p0, p1]);
    match u16::from_ne_bytes([f0, f1]) {
        AF_INET => {
            // 16 octets in all: the address and 8 of padding follow.
            let &[a, b, c, d, ..] = rest.first_chunk::<12>().ok_or(())?;
            Ok(Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(a, b, c, d)), port)))
        }
        AF_INET6 => {
            // 28 in all: flow information, the address, the scope.
            let whole = rest.first_chunk::<24>().ok_or(())?;
            let (_, after) = whole.split_first_chunk::<4>().ok_or(())?;
            let address = after.first_chunk::<16>().ok_or(())?;
            Ok(Some(SocketAddr::new(IpAddr::V6(Ipv6Addr::from(*address)), port)))
        }
        _ => Ok(None),
    }
}

/// SADB_EXT_SENSITIVITY and SADB_X_EXT_OUTER_SENS: the label of a multilevel network (RFC 2367 §2.3.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sensitivity<'m> {
    /// Protection domain: who says what the rest means.
    pub domain: u32,
    /// Sensitivity level.
    pub level: u8,
    /// Integrity level.
    pub integrity_level: u8,
    /// Flags (later than the page).
    pub flags: u32,
    /// Sensitivity bitmap: whole 8-octet words.
    pub bitmap: &'m [u8],
    /// Integrity bitmap: whole 8-octet words.
    pub integrity_bitmap: &'m [u8],
}

pub(crate) fn sensitivity(extension: &[u8]) -> Option<Sensitivity<'_>> {
    let (head, maps) = extension.split_first_chunk::<16>()?;
    let &[_, _, _, _, d0, d1, d2, d3, level, words, integrity_level, integrity_words, f0, f1, f2, f3] = head;
    let (bitmap, rest) = maps.split_at_checked(usize::from(words).saturating_mul(8))?;
    let (integrity_bitmap, rest) = rest.split_at_checked(usize::from(integrity_words).saturating_mul(8))?;
    rest.is_empty().then_some(Sensitivity {
        domain: u32::from_ne_bytes([d0, d1, d2, d3]),
        level,
        integrity_level,
        flags: u32::from_ne_bytes([f0, f1, f2, f3]),
        bitmap,
        integrity_bitmap,
    })
}

/// Native: one SA of a group; all of a group have the destination that the message names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its SA type, as a number.
    pub satype: u8,
    /// Its SPI, host order.
    pub spi: u32,
}

/// Native: SAs that are applied together, from the inside to the outside.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Group<'m> {
    rows: &'m [[u8; 8]],
}

impl<'m> Group<'m> {
    pub(crate) fn read(extension: &'m [u8]) -> Option<Self> {
        let (rows, rest) = extension.get(8..)?.as_chunks::<8>();
        (!rows.is_empty() && rest.is_empty()).then_some(Self { rows })
    }

    /// The SAs, the innermost first.
    pub fn members(self) -> impl Iterator<Item = Member> + 'm {
        self.rows.iter().map(|&[satype, _, _, _, s0, s1, s2, s3]| Member {
            satype,
            spi: u32::from_be_bytes([s0, s1, s2, s3]),
        })
    }
}

impl fmt::Debug for Group<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.members()).finish()
    }
}

/// Native: a source and a destination of inner packets, from sender to receiver, of one family.
///
/// 40 octets: family (4 or 6), protocol, prefix lengths of source and destination, their ports, their addresses in 16 octets
/// each, of which IPv4 takes the first four. Ports are in network order; a protocol or port of 0 is any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InnerPair {
    /// IP protocol, 0 for any.
    pub proto: u8,
    /// Source address and port.
    pub src: SocketAddr,
    /// Length of the source prefix.
    pub src_prefix: u8,
    /// Destination address and port.
    pub dst: SocketAddr,
    /// Length of the destination prefix.
    pub dst_prefix: u8,
}

impl InnerPair {
    fn read(row: &[u8; 40]) -> Option<Self> {
        let &[family, proto, src_prefix, dst_prefix, s0, s1, d0, d1, ref addresses @ ..] = row;
        let (src, dst) = addresses.split_first_chunk::<16>()?;
        let dst: &[u8; 16] = dst.try_into().ok()?;
        let longest = if family == 4 { 32 } else { 128 };
        let ip = |octets: &[u8; 16]| match (family, octets) {
            (4, &[a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]) => Some(IpAddr::from([a, b, c, d])),
            (6, octets) => Some(IpAddr::from(*octets)),
            _ => None,
        };
        (src_prefix <= longest && dst_prefix <= longest).then_some(())?;
        Some(Self {
            proto,
            src: SocketAddr::new(ip(src)?, u16::from_be_bytes([s0, s1])),
            src_prefix,
            dst: SocketAddr::new(ip(dst)?, u16::from_be_bytes([d0, d1])),
            dst_prefix,
        })
    }

    /// `None` if the two are of different families, which no packet is.
    pub(crate) fn row(&self) -> Option<[u8; 40]> {
        let family = match (self.src.ip(), self.dst.ip()) {
            (IpAddr::V4(_), IpAddr::V4(_)) => 4,
            (IpAddr::V6(_), IpAddr::V6(_)) => 6,
            _ => return None,
        };
        let mut row = [0; 40];
        let fields: [&[u8]; 3] = [
            &[family, self.proto, self.src_prefix, self.dst_prefix],
            &self.src.port().to_be_bytes(),
            &self.dst.port().to_be_bytes(),
        ];
        let addresses = [self.src.ip(), self.dst.ip()].map(|ip| match ip {
            IpAddr::V4(ip) => {
                let [a, b, c, d] = ip.octets();
                [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
            }
            IpAddr::V6(ip) => ip.octets(),
        });
        let octets = fields.into_iter().flatten().chain(addresses.iter().flatten());
        row.iter_mut().zip(octets).for_each(|(to, from)| *to = *from);
        Some(row)
    }
}

/// Native: the pairs that an SA may carry beside the one that its inner addresses are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Selectors<'m> {
    rows: &'m [[u8; 40]],
}

impl<'m> Selectors<'m> {
    pub(crate) fn read(extension: &'m [u8]) -> Option<Self> {
        let (rows, rest) = extension.get(8..)?.as_chunks::<40>();
        let whole =
            !rows.is_empty() && rest.is_empty() && rows.iter().all(|row| InnerPair::read(row).is_some());
        whole.then_some(Self { rows })
    }

    /// How many there are.
    pub const fn count(self) -> usize {
        self.rows.len()
    }

    /// The pairs, in their order.
    pub fn pairs(self) -> impl Iterator<Item = InnerPair> + 'm {
        self.rows.iter().filter_map(InnerPair::read)
    }
}

impl fmt::Debug for Selectors<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.pairs()).finish()
    }
}

/// SADB_EXT_KEY_*. `Debug` shows its size only.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Key<'m> {
    /// Bits of key, salt included in a request.
    pub bits: u16,
    /// In a request: how many of the bits are an initial IV. In an answer: bits of salt after the key.
    pub reserved: u16,
    /// The key, whole octets.
    pub octets: &'m [u8],
}

impl fmt::Debug for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({} bits)", self.bits)
    }
}

/// SADB_EXT_IDENTITY_*.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity<'m> {
    /// See [`crate::identity`]; any number is stored.
    pub kind: u16,
    /// A number that goes with it.
    pub id: u64,
    /// The text, without its NUL.
    pub text: &'m [u8],
}

/// SADB_EXT_SPIRANGE, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpiRange {
    /// The lowest, host order here, network order on the wire.
    pub min: u32,
    /// The highest.
    pub max: u32,
}

/// SADB_X_EXT_KM_COOKIE.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KmCookie {
    /// See [`crate::km`].
    pub proto: u32,
    /// The key manager's own; on the page 32 bits and a reserved word, later 64 bits.
    pub cookie: u64,
}

/// SADB_X_EXT_PAIR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The partner's SPI, host order here, network order on the wire.
    pub spi: u32,
}

/// SADB_X_EXT_REPLAY_VALUE.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplayValue {
    /// The 32-bit counter.
    pub low: u32,
    /// The 64-bit counter.
    pub high: u64,
}

/// What an eroute does with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FlowAction {
    /// Protect it with the SA that the message names.
    Protect,
    /// `%pass`.
    Pass,
    /// `%drop`.
    Drop,
    /// `%reject`.
    Reject,
    /// `%trap`.
    Trap,
    /// `%hold`.
    Hold,
    /// `%trapsubnet`.
    TrapSubnet,
}

impl FlowAction {
    /// The number on the wire.
    pub const fn number(self) -> u8 {
        match self {
            Self::Protect => 0,
            Self::Pass => 1,
            Self::Drop => 2,
            Self::Reject => 3,
            Self::Trap => 4,
            Self::Hold => 5,
            Self::TrapSubnet => 6,
        }
    }

    /// The one with this number.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Protect),
            1 => Some(Self::Pass),
            2 => Some(Self::Drop),
            3 => Some(Self::Reject),
            4 => Some(Self::Trap),
            5 => Some(Self::Hold),
            6 => Some(Self::TrapSubnet),
            _ => None,
        }
    }
}

/// Native: what an eroute does, and what it has done. 24 octets: at 4 the action, at 8 packets, at 16 last use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// What it does.
    pub action: FlowAction,
    /// Packets matched; in answers.
    pub packets: u64,
    /// When it last matched, seconds since 1970, 0 for never; in answers.
    pub last_use: u64,
}

/// Native: what `sadb_sa` has no room for. 16 octets: at 4 the window, at 8 flags (bit 0: ESN).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SaParams {
    /// Replay window in packets, up to 4096; 0 leaves it to `sadb_sa_replay`.
    pub window: u32,
    /// Extended sequence numbers (RFC 4303 §2.2.1).
    pub esn: bool,
}

/// Native: packets after which an SA is dying, and those it does not carry any more. 24 octets: at 8 soft, at 16 hard; 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PacketLimits {
    /// Packets after which its key manager is told, once.
    pub soft: u64,
    /// The packet that would be this many, and those after it, are refused.
    pub hard: u64,
}

/// Native: traffic flow confidentiality (RFC 4303 §2.7, §2.6). 16 octets: at 4 the padding, at 8 the time between dummies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tfc {
    /// Octets that an inner packet is padded to; 0 is no padding, [`Tfc::MTU`] as much as the path carries in one packet.
    pub pad: u32,
    /// Milliseconds from one dummy packet to the next; 0 is none. They are as long as padded packets are.
    pub dummies: u32,
}

impl Tfc {
    /// All packets as long as the path carries.
    pub const MTU: u32 = u32::MAX;
}

/// Native: how policy and an SA find each other. 16 octets: at 4 the number, at 8 flags (bit 0: by policy).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SaPolicy {
    /// The number that an SA and the policy that wants it have in common, `sadb_x_sa2_reqid`; 0 for none.
    pub reqid: u32,
    /// The SA comes from a dialect whose SAs have no selectors: which packets may come on it inbound policy says, it
    /// carries either address family, and its NAT-T ports are those of its packets, the sender's in `AddressNattLoc`.
    pub by_policy: bool,
}

/// Which packets a policy is asked about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FlowDirection {
    /// What came in on an SA for this host.
    In,
    /// What goes out: an eroute.
    #[default]
    Out,
    /// What came in on an SA for another host.
    Forward,
}

impl FlowDirection {
    /// The number on the wire, `IPSEC_DIR_*`.
    pub const fn number(self) -> u8 {
        match self {
            Self::In => 1,
            Self::Out => 2,
            Self::Forward => 3,
        }
    }

    /// The one with this number.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::In),
            2 => Some(Self::Out),
            3 => Some(Self::Forward),
            _ => None,
        }
    }
}

/// How much a policy wants the SA that it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Level {
    /// `IPSEC_LEVEL_USE`: without it, packets go as they are.
    Use,
    /// `IPSEC_LEVEL_REQUIRE`: without it, packets wait for it.
    Require,
    /// `IPSEC_LEVEL_UNIQUE`: the same, and no other than the one of its number.
    Unique,
}

impl Level {
    /// The number on the wire, `IPSEC_LEVEL_*`.
    pub const fn number(self) -> u8 {
        match self {
            Self::Use => 1,
            Self::Require => 2,
            Self::Unique => 3,
        }
    }
}

/// The SA that a policy wants, which it does not name: the newest that fits is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Wanted {
    /// The IP protocol of the SA: 50 for ESP, 51 for AH, 108 for IPComp.
    pub protocol: u8,
    /// `IPSEC_MODE_*`: 1 transport, 2 tunnel.
    pub mode: u8,
    /// How much.
    pub level: Level,
    /// The number that the SA must have; 0 for none.
    pub reqid: u32,
}

/// One more SA that a policy wants, around those before it, and its ends. 40 octets: 0, level, mode, protocol; at 4 the reqid;
/// at 8 source and destination, 16 octets each, IPv4 mapped into IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Further {
    /// The SA.
    pub wanted: Wanted,
    /// Where it begins.
    pub src: IpAddr,
    /// Where it ends.
    pub dst: IpAddr,
}

/// Native: what an eroute of another dialect is besides. 24 octets: at 4 direction, level, mode, protocol; at 8 index and
/// priority; at 16 the reqid. Behind them each [`Further`] SA that is wanted, from the inside to the outside.
///
/// Where an SA is wanted the message's `AddressSrc` and `AddressDst` are the ends of the first, the innermost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowPolicy {
    /// Which packets it is about.
    pub direction: FlowDirection,
    /// Its number; the service gives it.
    pub index: u32,
    /// Among policies that match, the one of the smallest decides, of several the oldest. Eroutes without one are of
    /// [`FlowPolicy::MIDDLE`], and come after the others of that.
    pub priority: u32,
    /// The SA, if it wants one.
    pub wanted: Option<Wanted>,
    /// The SAs around that one, at most [`FlowPolicy::MOST_FURTHER`].
    pub further: Vec<Further>,
}

impl FlowPolicy {
    /// A packet goes through four SAs at most.
    pub const MOST_FURTHER: usize = 3;

    /// The priority of eroutes that have none.
    pub const MIDDLE: u32 = 1 << 31;
}

/// Native: socket options. 8 octets: at 4 the flags (bit 0: SO_USELOOPBACK; bit 1: no answer).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketOptions {
    /// SO_USELOOPBACK: off, the socket hears nothing at all.
    pub loopback: bool,
    /// Whoever asks does not want to be told: an answer would lie among what the socket's program is to read.
    pub quiet: bool,
}

/// Native: the counters of an SA. A reserved word, then four u64: 40 octets in all. In GET, DELETE and DELPAIR, as zeros, it asks
/// that the answer has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets carried.
    pub packets: u64,
    /// Packets whose ICV did not verify.
    pub forged: u64,
    /// Packets refused as replays.
    pub replayed: u64,
    /// The last sequence number sent, or the highest received.
    pub sequence: u64,
}
