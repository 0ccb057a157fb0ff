//! Algorithms and combinations of them: what REGISTER answers and what ACQUIRE asks for.

/// `struct sadb_alg`: one supported algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Algorithm {
    /// Its number.
    pub id: u8,
    /// Octets of IV (illumos writes octets where its page says bits; clients print it as it is).
    pub iv: u8,
    /// The shortest key, bits.
    pub min_bits: u16,
    /// The longest key, bits.
    pub max_bits: u16,
    /// Key lengths go up in steps of this many bits; 0 when there is only one.
    pub increment: u8,
    /// Bits of salt beside the key.
    pub salt_bits: u8,
}

impl Algorithm {
    /// As on the wire.
    pub const fn octets(&self) -> [u8; 8] {
        let [l0, l1] = self.min_bits.to_ne_bytes();
        let [h0, h1] = self.max_bits.to_ne_bytes();
        [self.id, self.iv, l0, l1, h0, h1, self.increment, self.salt_bits]
    }

    /// The algorithms in a SUPPORTED extension's octets.
    pub fn list(extension: &[u8]) -> impl Iterator<Item = Self> + '_ {
        let (rows, _) = extension.get(8..).unwrap_or_default().as_chunks::<8>();
        rows.iter().map(|&[id, iv, l0, l1, h0, h1, increment, salt_bits]| Self {
            id,
            iv,
            min_bits: u16::from_ne_bytes([l0, l1]),
            max_bits: u16::from_ne_bytes([h0, h1]),
            increment,
            salt_bits,
        })
    }
}

/// Lifetimes proposed for an SA; 0 is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Soft and hard allocations.
    pub allocations: (u32, u32),
    /// Soft and hard bytes.
    pub bytes: (u64, u64),
    /// Soft and hard seconds since it was added.
    pub addtime: (u64, u64),
    /// Soft and hard seconds since its first use.
    pub usetime: (u64, u64),
}

impl Limits {
    /// Octets on the wire.
    const LEN: usize = 56;

    fn write(&self, octets: &mut Vec<u8>) {
        octets.extend_from_slice(&self.allocations.0.to_ne_bytes());
        octets.extend_from_slice(&self.allocations.1.to_ne_bytes());
        for (soft, hard) in [self.bytes, self.addtime, self.usetime] {
            octets.extend_from_slice(&soft.to_ne_bytes());
            octets.extend_from_slice(&hard.to_ne_bytes());
        }
    }

    fn read(octets: &[u8; Self::LEN]) -> Self {
        let (counts, words) = octets.split_at(8);
        let mut counts =
            counts.as_chunks::<4>().0.iter().map(|octets| u32::from_ne_bytes(*octets)).chain([0; 2]);
        let mut words =
            words.as_chunks::<8>().0.iter().map(|octets| u64::from_ne_bytes(*octets)).chain([0; 6]);
        let mut count = || counts.next().unwrap_or(0);
        let allocations = (count(), count());
        let mut word = || words.next().unwrap_or(0);
        let mut pair = || (word(), word());
        Self { allocations, bytes: pair(), addtime: pair(), usetime: pair() }
    }
}

/// `struct sadb_comb`: one combination of a plain proposal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Comb {
    /// Authentication algorithm, 0 for none.
    pub auth: u8,
    /// Encryption algorithm, 0 for none.
    pub encrypt: u8,
    /// Least and most bits of its key.
    pub auth_bits: (u16, u16),
    /// Least and most bits of its key.
    pub encrypt_bits: (u16, u16),
    /// Bits of salt.
    pub salt_bits: u8,
    /// Lifetimes.
    pub limits: Limits,
}

impl Comb {
    /// Octets on the wire.
    pub const LEN: usize = 72;

    pub(crate) fn write(&self, octets: &mut Vec<u8>) {
        octets.extend_from_slice(&[self.auth, self.encrypt, 0, 0]);
        for bits in [self.auth_bits.0, self.auth_bits.1, self.encrypt_bits.0, self.encrypt_bits.1] {
            octets.extend_from_slice(&bits.to_ne_bytes());
        }
        octets.extend_from_slice(&[self.salt_bits, 0, 0, 0]);
        self.limits.write(octets);
    }

    /// The combinations in a PROPOSAL extension's octets, the best first.
    pub fn list(extension: &[u8]) -> impl Iterator<Item = Self> + '_ {
        let (rows, _) = extension.get(8..).unwrap_or_default().as_chunks::<{ Self::LEN }>();
        rows.iter().filter_map(|row| {
            let (head, limits) = row.split_first_chunk::<16>()?;
            let &[auth, encrypt, _, _, a0, a1, a2, a3, e0, e1, e2, e3, salt_bits, ..] = head;
            Some(Self {
                auth,
                encrypt,
                auth_bits: (u16::from_ne_bytes([a0, a1]), u16::from_ne_bytes([a2, a3])),
                encrypt_bits: (u16::from_ne_bytes([e0, e1]), u16::from_ne_bytes([e2, e3])),
                salt_bits,
                limits: Limits::read(limits.first_chunk()?),
            })
        })
    }
}

/// What kind of algorithm a [`Descriptor`] names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum AlgorithmKind {
    /// SADB_X_ALGTYPE_AUTH.
    Auth = 1,
    /// SADB_X_ALGTYPE_CRYPT.
    Crypt = 2,
}

/// `struct sadb_x_algdesc`: one algorithm of an extended combination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// The SA type it belongs to.
    pub satype: u8,
    /// What it is.
    pub kind: AlgorithmKind,
    /// Its number.
    pub id: u8,
    /// Bits of salt.
    pub salt_bits: u8,
    /// Least and most bits of its key.
    pub bits: (u16, u16),
}

/// `struct sadb_x_ecomb`: one combination of an extended proposal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ecomb {
    /// Its algorithms: AH authentication, ESP authentication, ESP encryption.
    pub algorithms: Vec<Descriptor>,
    /// Lifetimes.
    pub limits: Limits,
}

impl Ecomb {
    pub(crate) fn write(&self, octets: &mut Vec<u8>) {
        octets.extend_from_slice(&[
            u8::try_from(self.algorithms.len()).unwrap_or(u8::MAX),
            0,
            0,
            0,
            0,
            0,
            0,
            0,
        ]);
        self.limits.write(octets);
        for d in &self.algorithms {
            let [l0, l1] = d.bits.0.to_ne_bytes();
            let [h0, h1] = d.bits.1.to_ne_bytes();
            octets.extend_from_slice(&[d.satype, d.kind as u8, d.id, d.salt_bits, l0, l1, h0, h1]);
        }
    }

    /// The combinations in an EPROP extension's octets, the best first. They end where the octets do, whatever the counts
    /// in them say; algorithms of a kind that nobody knows are left out.
    pub fn list(extension: &[u8]) -> impl Iterator<Item = Self> + '_ {
        let mut rest = extension.get(8..).unwrap_or_default();
        core::iter::from_fn(move || {
            let (head, after) = rest.split_first_chunk::<8>()?;
            let (limits, after) = after.split_first_chunk::<{ Limits::LEN }>()?;
            let (rows, _) = after.as_chunks::<8>();
            let rows = rows.get(..usize::from(head[0]))?;
            rest = after.get(rows.len().checked_mul(8)?..)?;
            let algorithms = rows.iter().filter_map(Descriptor::read).collect();
            Some(Self { algorithms, limits: Limits::read(limits) })
        })
    }
}

impl Descriptor {
    fn read(&[satype, kind, id, salt_bits, l0, l1, h0, h1]: &[u8; 8]) -> Option<Self> {
        let kind = match kind {
            1 => AlgorithmKind::Auth,
            2 => AlgorithmKind::Crypt,
            _ => return None,
        };
        let bits = (u16::from_ne_bytes([l0, l1]), u16::from_ne_bytes([h0, h1]));
        Some(Self { satype, kind, id, salt_bits, bits })
    }
}
