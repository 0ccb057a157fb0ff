//! A sender's TCP or UDP flow, in packets and in superpackets.

use crate::device::{complete, cut, pseudo_start, sum};
use crate::host::{Setup, Side};
use crate::ip::{self, TCP, UDP};
use crate::{Gso, Vnet};

pub(crate) const FIN: u8 = 0x01;
pub(crate) const PSH: u8 = 0x08;
pub(crate) const ACK: u8 = 0x10;
pub(crate) const ECE: u8 = 0x40;
pub(crate) const CWR: u8 = 0x80;

/// One sender.
pub(crate) struct Flow {
    setup: Setup,
    proto: u8,
    ports: [u16; 2],
    /// TCP options.
    options: &'static [u8],
    dont_fragment: bool,
    pub(crate) tos: u8,
    /// Octets of payload in each packet of a superpacket.
    pub(crate) size: usize,
    seq: u32,
    id: u16,
}

/// What a flow hands to its device, and what that means.
pub(crate) struct Handed {
    pub(crate) vnet: Vnet,
    pub(crate) packet: Vec<u8>,
    /// The packets a network without offloads would see.
    pub(crate) means: Vec<Vec<u8>>,
}

impl Flow {
    /// One of many that differ in protocol, options, DF and TOS; from the left.
    pub(crate) fn number(n: usize, setup: &Setup) -> Self {
        const STAMPS: &[u8] = &[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];
        Self {
            setup: *setup,
            proto: if n % 3 == 2 { UDP } else { TCP },
            ports: [40_000 + n as u16, 443],
            options: if n & 1 == 0 { STAMPS } else { &[] },
            dont_fragment: n % 4 != 1,
            tos: [0, 0x02, 0xb9, 0x28][n % 4],
            size: 1200,
            // The numbers of all flows wrap soon.
            seq: u32::MAX - 20_000,
            id: 0xfff0,
        }
    }

    /// The next `len` octets of payload. `flags` are TCP's; `finished` says that the checksum of a single packet is not
    /// left to the device.
    pub(crate) fn next(&mut self, len: usize, flags: u8, finished: bool) -> Handed {
        let v6 = self.setup.inner6;
        let transport = if v6 { 40 } else { 20 };
        let mut segment: Vec<u8> = self.ports.iter().flat_map(|port| port.to_be_bytes()).collect();
        if self.proto == TCP {
            segment.extend(self.seq.to_be_bytes());
            let offset = ((20 + self.options.len()) as u8 / 4) << 4;
            segment.extend([0, 0, 0, 9, offset, flags, 0x12, 0x34, 0, 0, 0, 0]);
            segment.extend(self.options);
        } else {
            segment.extend([0; 4]);
        }
        let headers = transport + segment.len();
        segment.extend(ip::marked(u64::from(self.ports[0]) << 32 | u64::from(self.seq), len));
        let (src, dst) = (self.setup.inner(Side::Left), self.setup.inner(Side::Right));
        let mut packet = ip::packet(src, dst, self.proto, self.tos, &segment);
        if !v6 {
            packet[4..6].copy_from_slice(&self.id.to_be_bytes());
            packet[6] = if self.dont_fragment { 0x40 } else { 0 };
            complete(&mut packet, transport, self.proto);
        }
        let count = len.div_ceil(self.size).max(1);
        self.seq = self.seq.wrapping_add(len as u32);
        self.id = self.id.wrapping_add(count as u16);
        if count == 1 && finished {
            return Handed { vnet: Vnet::default(), means: vec![packet.clone()], packet };
        }
        // The checksum field of what the device is to finish holds the sum of the pseudo-header.
        let whole = packet.clone();
        let offset = if self.proto == TCP { 16 } else { 6 };
        let partial = sum(&[], pseudo_start(&packet, transport, self.proto));
        packet[transport + offset..transport + offset + 2].copy_from_slice(&partial.to_be_bytes());
        let gso = match (self.proto, v6) {
            _ if count == 1 => Gso::None,
            (TCP, false) => Gso::Tcp4,
            (TCP, true) => Gso::Tcp6,
            _ => Gso::Udp,
        };
        let vnet = Vnet {
            needs_csum: true,
            gso,
            ecn: false,
            hdr_len: headers as u16,
            gso_size: if count == 1 { 0 } else { self.size as u16 },
            csum_start: transport as u16,
            csum_offset: offset as u16,
        };
        let means = if count == 1 { vec![whole] } else { cut(&vnet, &packet) };
        Handed { vnet, packet, means }
    }
}

/// What tells the flow of a packet: protocol and ports.
pub(crate) fn name(packet: &[u8]) -> (u8, [u8; 4]) {
    let (proto, transport) = if packet[0] >> 4 == 4 { (packet[9], 20) } else { (packet[6], 40) };
    (proto, packet[transport..transport + 4].try_into().unwrap())
}
