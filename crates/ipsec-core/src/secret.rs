//! Octets that nobody may see and that are wiped when they go.

use zeroize::Zeroizing;

/// Secret octets: wiped when dropped, and shown by `Debug` as their length only.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// So many zero octets.
    pub fn zeros(octets: usize) -> Self {
        Self(Zeroizing::new(vec![0; octets]))
    }

    /// A part of it; as much as there is, if there is less.
    #[must_use]
    pub fn part(&self, from: usize, octets: usize) -> Self {
        let rest = self.0.get(from..).unwrap_or_default();
        Self::from(rest.get(..octets).unwrap_or(rest))
    }

    /// Says whether these octets are the same, in constant time.
    pub fn is_same(&self, octets: &[u8]) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(&self.0, octets).is_ok()
    }

    /// How many octets.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Says whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl core::ops::Deref for Secret {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl core::ops::DerefMut for Secret {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl From<&[u8]> for Secret {
    fn from(octets: &[u8]) -> Self {
        Self(Zeroizing::new(octets.to_vec()))
    }
}

impl From<Vec<u8>> for Secret {
    fn from(octets: Vec<u8>) -> Self {
        Self(Zeroizing::new(octets))
    }
}

impl core::fmt::Debug for Secret {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Secret({} octets)", self.0.len())
    }
}
