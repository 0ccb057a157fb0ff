//! What tables show: copies of the state of one SA or one socket, taken at one moment.
//!
//! Nothing here holds a key.

use crate::control::SocketId;
use crate::sa::{Encapsulation, Mode, SaState};
use core::net::IpAddr;
use ipsec_core::algorithm::{Auth, Encryption};
use ipsec_core::{SaId, Selector, Spi, Time};

/// Which way an SA's packets go (pf_key(7P): `SADB_X_SAFLAGS_INBOUND`, `SADB_X_SAFLAGS_OUTBOUND`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// To this host.
    Inbound,
    /// From this host.
    Outbound,
    /// Both: a cloned SA (multicast, or an SA of which neither end is this host).
    Both,
}

/// Four limits or four counts; a limit of 0 is none (RFC 2367 §2.3.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lifetime {
    /// Connections; recorded, never counted.
    pub allocations: u32,
    /// Octets.
    pub bytes: u64,
    /// Limits: seconds after the SA was added. Current: when it was added, in seconds since 1970.
    pub addtime: u64,
    /// Limits: seconds after its first use. Current: when it was first used, in seconds since 1970, 0 if never.
    pub usetime: u64,
}

impl Lifetime {
    /// Says whether there is no limit at all.
    pub const fn is_empty(&self) -> bool {
        self.allocations == 0 && self.bytes == 0 && self.addtime == 0 && self.usetime == 0
    }
}

/// One SA.
#[derive(Clone, Debug)]
pub struct SaRow {
    /// Its name.
    pub id: SaId,
    /// The outer source; unspecified if any peer may send on it.
    pub src: IpAddr,
    /// Which way it carries packets.
    pub direction: Direction,
    /// Where it is in its life.
    pub state: SaState,
    /// The flags GET shows (`SADB_X_SAFLAGS_*`).
    pub flags: u32,
    /// Tunnel or transport.
    pub mode: Mode,
    /// The cipher, if it has one.
    pub encryption: Option<Encryption>,
    /// The integrity algorithm, if it has one of its own.
    pub auth: Option<Auth>,
    /// Octets of encryption key with its salt.
    pub encryption_key: usize,
    /// Octets of integrity key.
    pub auth_key: usize,
    /// What inner packets may be, seen from sender to receiver.
    pub selector: Option<Selector>,
    /// UDP encapsulation.
    pub encapsulation: Option<Encapsulation>,
    /// Whether the data plane carries packets on it: what this version cannot carry, and what is not mature, is kept
    /// for its key manager only.
    pub in_use: bool,
    /// Extended sequence numbers.
    pub esn: bool,
    /// Width of the replay window in packets; 0 without replay protection.
    pub window: u32,
    /// The last sequence number sent.
    pub sent: u64,
    /// The highest sequence number received; 0 if none or without replay protection.
    pub received: u64,
    /// Packets carried.
    pub packets: u64,
    /// What it has used of its life so far.
    pub current: Lifetime,
    /// The limits at which its key manager is told.
    pub soft: Lifetime,
    /// The limits at which it ends.
    pub hard: Lifetime,
    /// When it was added.
    pub added: Time,
    /// When it carried its last packet.
    pub last_use: Option<Time>,
    /// The SPI of the SA for the other direction.
    pub pair: Option<Spi>,
    /// Identity of the source, as text; empty if none.
    pub src_identity: Box<str>,
    /// Identity of the destination, as text; empty if none.
    pub dst_identity: Box<str>,
}

/// One PF_KEY socket.
#[derive(Clone, Debug)]
pub struct SocketRow {
    /// Which one.
    pub id: SocketId,
    /// The process that opened it.
    pub pid: u32,
    /// When it was opened.
    pub created: Time,
    /// The errno of the last refusal it was sent; 0 if none.
    pub last_error: u8,
    /// Octets waiting to be read.
    pub queued: usize,
    /// Octets that may wait.
    pub limit: usize,
    /// Messages lost because too many waited.
    pub dropped: u64,
    /// SA types it is registered for (PF_KEY numbers).
    pub registered: Vec<u8>,
    /// Whether that was an extended REGISTER.
    pub extended: bool,
    /// Whether it hears everything.
    pub promiscuous: bool,
    /// Whether it hears anything (`SO_USELOOPBACK`).
    pub loopback: bool,
    /// Whether a DUMP to it is under way.
    pub dumping: bool,
}

/// One algorithm as REGISTER announces it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Supported {
    /// SA type (PF_KEY number).
    pub satype: u8,
    /// `SADB_EXT_SUPPORTED_AUTH` (14) or `SADB_EXT_SUPPORTED_ENCRYPT` (15).
    pub exttype: u16,
    /// PF_KEY number of the algorithm.
    pub id: u8,
    /// Octets of IV in each packet.
    pub ivlen: u8,
    /// Shortest key, in bits, without its salt.
    pub minbits: u16,
    /// Longest key, in bits, without its salt.
    pub maxbits: u16,
    /// Every key length is the shortest plus a multiple of this; 0 if there is one only.
    pub increment: u8,
    /// Bits of salt after the key.
    pub saltbits: u8,
    /// Its canonical name.
    pub name: &'static str,
}

/// `SADB_EXT_SUPPORTED_AUTH`.
const AUTH: u16 = 14;
/// `SADB_EXT_SUPPORTED_ENCRYPT`.
const ENCRYPT: u16 = 15;

/// The algorithms of one SA type (2 AH, 3 ESP), as REGISTER announces them: integrity first, by ascending number.
pub fn supported(satype: u8) -> Vec<Supported> {
    use ipsec_core::algorithm as table;
    // ESP has GMAC as a cipher (RFC 4543 §3).
    let fits = |auth: Auth| satype == 2 || (satype == 3 && auth != Auth::AesGmac);
    let auth = table::AUTH.iter().filter(|row| fits(row.algorithm));
    let mut all: Vec<_> = auth.map(|row| entry(satype, AUTH, row)).collect();
    all.sort_by_key(|s| s.id);
    if satype == 3 {
        let mut ciphers: Vec<_> = table::ENCRYPTION.iter().map(|row| entry(satype, ENCRYPT, row)).collect();
        ciphers.sort_by_key(|s| s.id);
        all.append(&mut ciphers);
    }
    all
}

fn entry<A: Copy>(satype: u8, exttype: u16, row: &ipsec_core::algorithm::Row<A>) -> Supported {
    Supported {
        satype,
        exttype,
        id: row.number,
        // The IV of integrity algorithms is not announced; for ciphers octets, as ever, not bits (reference Q23).
        ivlen: if exttype == ENCRYPT { row.iv } else { 0 },
        minbits: row.min_bits,
        maxbits: row.max_bits,
        increment: u8::try_from(row.step_bits).unwrap_or(0),
        saltbits: u8::try_from(row.salt_bits).unwrap_or(0),
        name: row.name(),
    }
}
