//! The key schedule (RFC 7296 §2.13 to §2.18, RFC 9370 §2.2.2, RFC 8784 §3).

use crate::message::IkeSpi;
use crate::proposal::Chosen;
use ipsec_core::Secret;
use ipsec_core::prf::Prf;
use ipsec_core::transform::SkCipher;

/// The seven keys of an IKE SA, and the nonces and SPIs they were made from.
#[derive(Clone, Debug)]
pub struct IkeKeys {
    /// The negotiated PRF.
    pub prf: Prf,
    /// SK_d: keys of Child SAs and of the next IKE SA come from it.
    pub d: Secret,
    /// SK_ai, SK_ar: integrity, initiator's and responder's; empty beside combined-mode ciphers.
    pub a: [Secret; 2],
    /// SK_ei, SK_er: encryption, salt last.
    pub e: [Secret; 2],
    /// SK_pi, SK_pr: what AUTH is made with.
    pub p: [Secret; 2],
}

/// Nonces and SPIs of the exchange that makes an IKE SA.
#[derive(Clone, Copy, Debug)]
pub struct Seed<'a> {
    /// The initiator's nonce.
    pub ni: &'a [u8],
    /// The responder's nonce.
    pub nr: &'a [u8],
    /// The initiator's SPI.
    pub spi_i: IkeSpi,
    /// The responder's SPI.
    pub spi_r: IkeSpi,
}

impl IkeKeys {
    /// The keys of a new IKE SA from the shared secret of IKE_SA_INIT.
    pub fn initial(chosen: &Chosen, prf: Prf, shared: &Secret, seed: Seed<'_>) -> Self {
        // A PRF with keys of one length takes half of it from each nonce (RFC 7296 §2.14).
        let part = |nonce: &'_ [u8]| match prf.nonce_part() {
            Some(octets) => nonce.get(..octets).unwrap_or(nonce).to_vec(),
            None => nonce.to_vec(),
        };
        let key = Secret::from([part(seed.ni), part(seed.nr)].concat());
        Self::expand(chosen, prf, &prf.compute(&key, &[shared]), seed)
    }

    /// The keys after one additional key exchange (RFC 9370 §2.2.2): everything is derived anew.
    #[must_use]
    pub fn updated(&self, chosen: &Chosen, shared: &Secret, seed: Seed<'_>) -> Self {
        let skeyseed = self.prf.compute(&self.d, &[shared, seed.ni, seed.nr]);
        Self::expand(chosen, self.prf, &skeyseed, seed)
    }

    /// The keys of the IKE SA that replaces this one (RFC 7296 §2.18, RFC 9370 §2.2.4): SKEYSEED with the old PRF, the
    /// keys with the new one. `shared` is the secrets of all key exchanges; the first stands before the nonces.
    #[must_use]
    pub fn rekeyed(&self, chosen: &Chosen, prf: Prf, shared: &[Secret], seed: Seed<'_>) -> Self {
        let skeyseed = self.prf.compute(&self.d, &around(shared, seed.ni, seed.nr));
        Self::expand(chosen, prf, &skeyseed, seed)
    }

    /// Keys of a Child SA: from initiator to responder, then back (RFC 7296 §2.17). The initiator is who began the
    /// exchange that makes the child; `shared` is empty without PFS.
    pub fn child(&self, shared: &[Secret], ni: &[u8], nr: &[u8], octets: usize) -> Secret {
        self.prf.plus(&self.d, &around(shared, ni, nr), octets)
    }

    /// Mixes a post-quantum preshared key into what Child SAs and AUTH are made with (RFC 8784 §3).
    pub fn mix_ppk(&mut self, ppk: &[u8]) {
        let octets = self.prf.octets();
        let mix = |key: &Secret| self.prf.plus(ppk, &[key], octets);
        let [pi, pr] = &self.p;
        (self.d, self.p) = (mix(&self.d), [mix(pi), mix(pr)]);
    }

    fn expand(chosen: &Chosen, prf: Prf, skeyseed: &Secret, seed: Seed<'_>) -> Self {
        let (d, a, e) = (prf.octets(), chosen.integrity_octets(), chosen.encryption_octets());
        let all = d.saturating_mul(3).saturating_add(a.saturating_add(e).saturating_mul(2));
        let (i, r) = (seed.spi_i.0.to_be_bytes(), seed.spi_r.0.to_be_bytes());
        let stream = prf.plus(skeyseed, &[seed.ni, seed.nr, &i, &r], all);
        let mut at = 0;
        let mut next = |octets: usize| {
            let part = stream.part(at, octets);
            at = at.saturating_add(octets);
            part
        };
        let d = next(d);
        Self {
            prf,
            a: [next(a), next(a)],
            e: [next(e), next(e)],
            p: [next(prf.octets()), next(prf.octets())],
            d,
        }
    }

    /// The ciphers of the two directions: the initiator's, the responder's. `None` if the suite is none of ours.
    pub fn ciphers(&self, chosen: &Chosen) -> Option<[SkCipher; 2]> {
        let cipher = |e: &Secret, a: &Secret| {
            let (encryption, _) = chosen.encryption?;
            SkCipher::new(encryption, e, chosen.integrity.map(|auth| (auth, &**a))).ok()
        };
        let ([ei, er], [ai, ar]) = (&self.e, &self.a);
        Some([cipher(ei, ai)?, cipher(er, ar)?])
    }
}

/// `SK(0) | Ni | Nr | SK(1) | …`, the data of prf and prf+ in CREATE_CHILD_SA (RFC 9370 §2.2.4).
fn around<'a>(shared: &'a [Secret], ni: &'a [u8], nr: &'a [u8]) -> Vec<&'a [u8]> {
    let mut pieces: Vec<&[u8]> = Vec::new();
    pieces.extend(shared.first().map(|first| &**first));
    pieces.extend([ni, nr]);
    pieces.extend(shared.iter().skip(1).map(|more| &**more));
    pieces
}
