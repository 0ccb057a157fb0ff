//! Records of the dialect: what Linux has in them besides what all have.

use super::number::ext;
use crate::dialect::record;
use crate::{Address, Base, Diagnostic as D, Errno, ExtType, Fault};
use core::net::SocketAddr;

/// A record that has been looked over.
pub type Record<'m> = record::Record<'m, Layout>;

/// The extensions of `linux/pfkeyv2.h`.
#[derive(Debug)]
pub struct Layout;

impl record::Layout for Layout {
    const MAX: u16 = ext::MAX;
    const NAT_T: [u16; 3] = [ext::NAT_T_TYPE, ext::NAT_T_SPORT, ext::NAT_T_DPORT];

    fn fits(number: u16, len: usize) -> bool {
        const SOCKADDR_IN: usize = 16;
        match number {
            1 | 16 | ext::SA2 => len == 16,
            2..=4 => len == 32,
            5..=7 | ext::NAT_T_OA => len >= 8 + SOCKADDR_IN,
            10 | 11 | 12 | ext::POLICY => len >= 16,
            ext::NAT_T_TYPE | ext::NAT_T_SPORT | ext::NAT_T_DPORT => len == 8,
            _ => len >= 8,
        }
    }
}

impl<'m> Record<'m> {
    /// Reads a record. Each message takes all extensions, as it does on Linux.
    pub fn parse(octets: &'m [u8]) -> Result<Self, Fault> {
        let (head, rest) = octets.split_first_chunk().ok_or(Fault::errno(Errno::EMSGSIZE))?;
        let base = Base::parse(head);
        let words = octets.len() / 8;
        if usize::from(base.words) != words {
            return Err(Fault::errno(Errno::EMSGSIZE));
        }
        if base.version != 2 || !octets.len().is_multiple_of(8) {
            return Err(Fault::errno(Errno::EINVAL));
        }
        Self::read(base, rest, |_| true)
    }

    /// Source and destination, of one family.
    pub fn ends(&self) -> Result<(Address, Address), Fault> {
        let src = self.address(ExtType::AddressSrc.number(), D::MissingSrc, D::MalformedSrc)?;
        let dst = self.address(ExtType::AddressDst.number(), D::MissingDst, D::MalformedDst)?;
        let four = |address: &Address| address.socket.is_some_and(|socket| socket.is_ipv4());
        if four(&src) != four(&dst) {
            return Err(Fault::invalid(D::AfMismatch));
        }
        let most = if four(&src) { 32 } else { 128 };
        if src.prefix > most || dst.prefix > most {
            return Err(Fault::errno(Errno::EINVAL));
        }
        Ok((src, dst))
    }

    /// SADB_X_EXT_SA2: mode and reqid; 0 and 0 without it.
    pub fn sa2(&self) -> (u8, u32) {
        let fields = self.raw(ext::SA2).and_then(|octets| octets.first_chunk::<16>());
        let Some(&[_, _, _, _, mode, _, _, _, _, _, _, _, r0, r1, r2, r3]) = fields else { return (0, 0) };
        (mode, u32::from_ne_bytes([r0, r1, r2, r3]))
    }
}

/// An address without what only selectors have.
pub(super) const fn host(socket: Option<SocketAddr>) -> Option<Address> {
    match socket {
        Some(socket) => Some(Address::host(socket.ip())),
        None => None,
    }
}
