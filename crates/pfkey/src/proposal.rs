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
    /// Soft and hard bytes.
    pub bytes: (u64, u64),
    /// Soft and hard seconds since it was added.
    pub addtime: (u64, u64),
    /// Soft and hard seconds since its first use.
    pub usetime: (u64, u64),
}

impl Limits {
    /// Allocations (always 0), then the rest: 56 octets.
    fn write(&self, octets: &mut Vec<u8>) {
        octets.extend_from_slice(&[0; 8]);
        for (soft, hard) in [self.bytes, self.addtime, self.usetime] {
            octets.extend_from_slice(&soft.to_ne_bytes());
            octets.extend_from_slice(&hard.to_ne_bytes());
        }
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
}
