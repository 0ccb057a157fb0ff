//! What the other side of TLS says when it gives up (RFC 8446 §6.2), and what mends it.

/// The name of an alert, and what to do about it.
pub(crate) const fn alert(number: u8) -> (&'static str, &'static str) {
    match number {
        10 => ("unexpected_message", "its TLS and ours do not fit; see its log"),
        40 => (
            "handshake_failure",
            "no algorithms are common: compare the kinds of keys and the authby= of both sides",
        ),
        42 => (
            "bad_certificate",
            "our certificate is not for who we say we are, or cannot be read: compare leftid= and eap_identity= with its subjectAltName",
        ),
        43 => ("unsupported_certificate", "our certificate is not for this use (keyUsage, extendedKeyUsage)"),
        44 => ("certificate_revoked", "our certificate was revoked: we need another"),
        45 => (
            "certificate_expired",
            "our certificate is not valid at the peer's time: renew it, or set the clock that is wrong",
        ),
        46 => ("certificate_unknown", "the peer does not believe our certificate; see its log"),
        48 => (
            "unknown_ca",
            "the peer does not know the authority of our certificate (leftcert=): it must be given that authority's certificate",
        ),
        49 => (
            "access_denied",
            "our certificate is good and the peer's connection is not for us: compare eap_identity= here with rightid= there",
        ),
        51 => (
            "decrypt_error",
            "the peer finds our signature wrong: does our private key belong to our certificate?",
        ),
        70 => ("protocol_version", "it has neither TLS 1.2 nor TLS 1.3"),
        71 => ("insufficient_security", "it demands stronger algorithms"),
        80 => ("internal_error", "see its log"),
        116 => ("certificate_required", "it has had no certificate of ours"),
        _ => ("of that number", "see its log"),
    }
}
