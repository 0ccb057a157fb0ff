//! What tables show: copies of the state of one SA or one socket, taken at one moment.
//!
//! Nothing here holds a key.

use super::{Control, flag};
use crate::discard::Discard;
use crate::keysock::{Socket, SocketId};
use crate::path_mtu::Learned;
use crate::sa::{Encapsulation, Mode, SaState};
use crate::sadb::{Identity, Record};
use core::net::IpAddr;
use ipsec_core::algorithm::{Auth, Encryption};
use ipsec_core::{SaId, Selector, Spi, Time};
use pfkey::{Base, Lifetime, PacketLimits, Tfc};
use std::sync::Arc;

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
    /// What inner packets may be, seen from sender to receiver; `None` in transport mode.
    pub selector: Option<Selector>,
    /// What else they may be.
    pub more_selectors: Option<Arc<[Selector]>>,
    /// UDP encapsulation.
    pub encapsulation: Option<Encapsulation>,
    /// Whether the data plane carries packets on it: what this version cannot carry, and what is not mature, is kept
    /// for its key manager only.
    pub in_use: bool,
    /// The longest packet that the way to the peer carries, by what a router said, and when that is forgotten.
    pub path_mtu: Option<(u16, Time)>,
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
    /// Packets that came for it and were refused, by reason; reasons that never applied are left out.
    pub refused: Vec<(Discard, u64)>,
    /// What it has used of its life so far.
    pub current: Lifetime,
    /// The limits at which its key manager is told.
    pub soft: Lifetime,
    /// The limits at which it ends.
    pub hard: Lifetime,
    /// Packets at which its key manager is told, and at which it ends; 0 is none.
    pub packet_limits: PacketLimits,
    /// What hides its packets; without padding, nothing does.
    pub tfc: Tfc,
    /// Octets of padding sent, and dummy packets.
    pub hidden: (u64, u64),
    /// When it was added.
    pub added: Time,
    /// When it carried its last packet.
    pub last_use: Option<Time>,
    /// The SPI of the SA for the other direction.
    pub pair: Option<Spi>,
    /// The SAs it is applied together with, itself among them, from the inside to the outside; `None` if it stands alone.
    pub group: Option<Arc<[SaId]>>,
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
pub(super) const ALGORITHM_AUTH: u16 = 14;
/// `SADB_EXT_SUPPORTED_ENCRYPT`.
pub(super) const ALGORITHM_ENCRYPT: u16 = 15;

/// The algorithms of one SA type (2 AH, 3 ESP), as REGISTER announces them: integrity first, by ascending number.
pub fn supported(satype: u8) -> Vec<Supported> {
    use ipsec_core::algorithm as table;
    // ESP has GMAC as a cipher (RFC 4543 §3).
    let fits = |auth: Auth| satype == 2 || (satype == 3 && auth != Auth::AesGmac);
    let auth = table::AUTH.iter().filter(|row| fits(row.algorithm));
    let mut all: Vec<_> = auth.map(|row| entry(satype, ALGORITHM_AUTH, row)).collect();
    all.sort_by_key(|s| s.id);
    if satype == 3 {
        let mut ciphers: Vec<_> =
            table::ENCRYPTION.iter().map(|row| entry(satype, ALGORITHM_ENCRYPT, row)).collect();
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
        ivlen: if exttype == ALGORITHM_ENCRYPT { row.iv } else { 0 },
        minbits: row.min_bits,
        maxbits: row.max_bits,
        increment: u8::try_from(row.step_bits).unwrap_or(0),
        saltbits: u8::try_from(row.salt_bits).unwrap_or(0),
        name: row.name(),
    }
}

impl Control {
    pub(super) fn row(&self, record: &Record) -> SaRow {
        let sa = record.sa.as_deref();
        let text = |pick: fn(&crate::sadb::Extras) -> &Option<Identity>| {
            let identity = record.extras().and_then(|extras| pick(extras).as_ref());
            identity.map_or(Box::default(), |i| String::from_utf8_lossy(&i.text).into())
        };
        SaRow {
            id: record.id,
            src: record.src,
            direction: match record.flags & flag::BOTH {
                flag::BOTH => Direction::Both,
                flag::OUTBOUND => Direction::Outbound,
                // A larval SA is one that a peer will send on.
                _ => Direction::Inbound,
            },
            state: record.state(),
            flags: record.flags,
            mode: sa.map_or(Mode::Transport, |sa| sa.mode),
            encryption: sa.and_then(|sa| sa.suite.encryption),
            auth: sa.and_then(|sa| sa.suite.auth),
            encryption_key: sa.map_or(0, |sa| sa.keys().encryption.len()),
            auth_key: sa.map_or(0, |sa| sa.keys().auth.len()),
            selector: sa.and_then(|sa| sa.inner()),
            more_selectors: sa.and_then(|sa| sa.more().cloned()),
            encapsulation: sa.and_then(|sa| sa.encapsulation()),
            in_use: record.in_use,
            path_mtu: sa.and_then(|sa| sa.path_mtu().learned()).map(|Learned { mtu, until }| (mtu, until)),
            esn: sa.is_some_and(|sa| sa.esn),
            window: record.window,
            sent: sa.map_or(0, |sa| sa.sent()),
            received: sa.map_or(0, |sa| sa.received()),
            packets: sa.map_or(0, |sa| sa.packets()),
            refused: sa.map_or(Vec::new(), |sa| sa.refused()),
            current: self.current(record),
            soft: record.soft,
            hard: record.hard,
            packet_limits: record.packet_limits(),
            tfc: sa.map_or(Tfc::default(), |sa| sa.hiding().asked()),
            hidden: sa.map_or((0, 0), |sa| sa.hiding().sent()),
            added: record.added,
            last_use: sa.and_then(|sa| sa.last_use()),
            pair: (record.flags & flag::PAIRED != 0).then_some(Spi(record.pair)),
            group: record.extras().and_then(|extras| extras.group.clone()),
            src_identity: text(|extras| &extras.src_identity),
            dst_identity: text(|extras| &extras.dst_identity),
        }
    }
}

pub(super) fn socket_row(id: SocketId, socket: &Socket<Base>, limit: usize) -> SocketRow {
    SocketRow {
        id,
        pid: socket.pid,
        created: socket.created,
        last_error: socket.last_error,
        queued: socket.queued(),
        limit,
        dropped: socket.dropped,
        registered: socket.satypes().collect(),
        extended: socket.extended,
        promiscuous: socket.promiscuous,
        loopback: socket.loopback,
        dumping: socket.dump.is_some(),
    }
}
