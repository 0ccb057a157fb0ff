//! What the peer says it is × what vouches for that × what the configuration says: one function, and a table of cases
//! beside it. Nearly every authentication bypass of the field was one of these three left out.

use crate::event::Why;
use crate::identity::{Id, IdPattern};
use crate::x509::Certificate;

/// What binds the key that was proved to a name.
#[derive(Clone, Copy, Debug)]
pub(super) enum Voucher<'a> {
    /// A secret that is configured for this very identity.
    SharedKey,
    /// EAP: a password of this very user, or a certificate that was believed to be this one's.
    Eap,
    /// A certificate that leads to an authority we trust.
    Authority(&'a Certificate),
    /// The connection itself, which names this certificate.
    Named(&'a Certificate),
    /// The connection itself, which names this key.
    NamedKey,
}

/// Says whether the peer is who it says it is, and one the connection is for.
///
/// # Errors
/// Which of the three does not hold.
pub(super) fn believe(claimed: &Id, voucher: Voucher<'_>, wanted: &IdPattern) -> Result<(), Why> {
    if !wanted.matches(claimed) {
        return Err(Why::WrongId { is: claimed.to_string(), wanted: wanted.to_string() });
    }
    // A connection that names one identity and one key has said that they belong together.
    let named = matches!(wanted, IdPattern::Exactly(_));
    match voucher {
        Voucher::SharedKey | Voucher::Eap => Ok(()),
        Voucher::NamedKey if named => Ok(()),
        Voucher::NamedKey => Err(Why::Nameless(claimed.to_string())),
        Voucher::Named(_) if named => Ok(()),
        Voucher::Authority(certificate) | Voucher::Named(certificate) => {
            if certificate.vouches_for(claimed) {
                return Ok(());
            }
            let names = certificate.names().iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            Err(Why::NotVouched { claimed: claimed.to_string(), names })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::tests::{Authority, id};

    /// A row says whether a peer that claims the first, with such a certificate, is believed where the last is wanted.
    #[test]
    fn what_is_claimed_must_be_vouched_for_and_be_what_the_connection_is_for() {
        let ca = Authority::new("C=CH, O=Example, CN=Root");
        let subject = "C=CH, O=Example, CN=west.example.org";
        let one = ca.gateway(subject, &["@west.example.org", "alice@example.org", "192.0.2.1"]).certificate;
        let bare = ca.gateway(subject, &[]).certificate;
        let web = ca.gateway(subject, &["@*.example.org"]).certificate;
        let (y, n) = (true, false);
        //   claimed              voucher                     wanted                          believed
        let authority = |one| Voucher::Authority(one);
        for (claimed, voucher, wanted, believed) in [
            ("@west.example.org", authority(&one), "@west.example.org", y),
            ("@WEST.example.org", authority(&one), "@west.Example.org", y),
            ("alice@example.org", authority(&one), "alice@example.org", y),
            ("192.0.2.1", authority(&one), "192.0.2.1", y),
            (subject, authority(&one), subject, y),
            (subject, authority(&one), "C=CH, O=Example, CN=*", y),
            ("@west.example.org", authority(&one), "@*.example.org", y),
            ("alice@example.org", authority(&one), "*@example.org", y),
            ("@west.example.org", authority(&one), "%any", y),
            (subject, authority(&one), "%any", y),
            // It has a certificate, and says it is somebody else (CVE-2020-16088 and its like).
            ("@east.example.org", authority(&one), "@east.example.org", n),
            ("@east.example.org", authority(&one), "%any", n),
            ("bob@example.org", authority(&one), "*@example.org", n),
            ("192.0.2.2", authority(&one), "192.0.2.2", n),
            ("C=CH, O=Example, CN=east.example.org", authority(&one), "C=CH, O=Example, CN=*", n),
            // It is who it says, and not whom the connection is for.
            ("@west.example.org", authority(&one), "@east.example.org", n),
            ("@west.example.org", authority(&one), "@*.example.com", n),
            ("@west.example.org", authority(&one), "@*.west.example.org", n),
            ("alice@example.org", authority(&one), "*@example.com", n),
            (subject, authority(&one), "C=CH, O=Other, CN=*", n),
            // The type counts: the same letters as another type are another identity.
            ("@192.0.2.1", authority(&one), "%any", n),
            ("@alice", authority(&one), "%any", n),
            ("@#c0000201", authority(&one), "%any", n),
            // The commonName is no host's name, and a star in a certificate is nobody's.
            ("@west.example.org", authority(&bare), "@west.example.org", n),
            ("@west.example.org", authority(&web), "@west.example.org", n),
            ("@a.example.org", authority(&web), "@*.example.org", n),
            (subject, authority(&bare), "%any", y),
            // The subject is a whole name, not the beginning of one.
            ("C=CH, O=Example", authority(&one), "%any", n),
            // A certificate the connection names: for the one identity it names, and else for those in it.
            ("@anything", Voucher::Named(&one), "@anything", y),
            ("@anything", Voucher::Named(&one), "@other", n),
            ("@anything", Voucher::Named(&one), "%any", n),
            ("@west.example.org", Voucher::Named(&one), "%any", y),
            // A key says nothing about names: only the connection does.
            ("@anything", Voucher::NamedKey, "@anything", y),
            ("@#0a1b", Voucher::NamedKey, "@#0a1b", y),
            ("@anything", Voucher::NamedKey, "@other", n),
            ("@anything", Voucher::NamedKey, "%any", n),
            ("@a.example.org", Voucher::NamedKey, "@*.example.org", n),
            ("@anything", Voucher::SharedKey, "@anything", y),
            ("@anything", Voucher::SharedKey, "@other", n),
            ("@anything", Voucher::SharedKey, "%any", y),
            ("@alice", Voucher::Eap, "%any", y),
            ("alice@example.org", Voucher::Eap, "*@example.org", y),
            ("@bob", Voucher::Eap, "@alice", n),
        ] {
            let wanted = IdPattern::parse(wanted).unwrap();
            assert_eq!(
                believe(&id(claimed), voucher, &wanted).is_ok(),
                believed,
                "{claimed}, {voucher:?}, {wanted}"
            );
        }
    }
}
