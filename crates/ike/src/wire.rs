//! Reading and writing octets in network order, without a panic anywhere.

/// Octets without the shape their RFC requires; names the field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

impl core::fmt::Display for Malformed {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "malformed {}", self.0)
    }
}

/// A cursor over octets from outside.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) const fn new(octets: &'a [u8]) -> Self {
        Self(octets)
    }

    pub(crate) fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], Malformed> {
        let (array, rest) = self.0.split_first_chunk().ok_or(Malformed(field))?;
        self.0 = rest;
        Ok(*array)
    }

    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8, Malformed> {
        self.array(field).map(|[octet]| octet)
    }

    pub(crate) fn u16(&mut self, field: &'static str) -> Result<u16, Malformed> {
        self.array(field).map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32, Malformed> {
        self.array(field).map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self, field: &'static str) -> Result<u64, Malformed> {
        self.array(field).map(u64::from_be_bytes)
    }

    pub(crate) fn take(&mut self, octets: usize, field: &'static str) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(octets).ok_or(Malformed(field))?;
        self.0 = rest;
        Ok(taken)
    }

    /// All that is left.
    pub(crate) const fn rest(&mut self) -> &'a [u8] {
        let rest = self.0;
        self.0 = &[];
        rest
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Octets on their way out.
#[derive(Debug, Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn with_capacity(octets: usize) -> Self {
        Self(Vec::with_capacity(octets))
    }

    pub(crate) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(crate) fn u16(&mut self, value: u16) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    pub(crate) fn put(&mut self, octets: &[u8]) {
        self.0.extend_from_slice(octets);
    }

    pub(crate) const fn len(&self) -> usize {
        self.0.len()
    }

    /// Writes what `body` writes behind two octets that count it, and the octets before them that belong to the same
    /// structure: `before` of them, the count itself included.
    ///
    /// Until the length is known the field holds all ones, so that a half-built message is refused and not misread.
    pub(crate) fn counted(&mut self, before: usize, body: impl FnOnce(&mut Self)) {
        let at = self.0.len();
        self.u16(u16::MAX);
        body(self);
        let octets = self.0.len().saturating_sub(at).saturating_sub(2).saturating_add(before);
        let octets = u16::try_from(octets).unwrap_or(u16::MAX);
        if let Some(field) = self.0.get_mut(at..).and_then(|rest| rest.first_chunk_mut()) {
            *field = octets.to_be_bytes();
        }
    }

    pub(crate) fn into_octets(self) -> Vec<u8> {
        self.0
    }
}
