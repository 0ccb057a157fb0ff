//! What `sadb_x_msg_diagnostic` says beside EINVAL and ESRCH (pf_key(7P) DIAGNOSTICS).

macro_rules! diagnostics {
    ($($variant:ident = $value:literal, $symbol:literal, $text:literal;)+) => {
        /// Why a message was refused, in more detail than an errno value.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Diagnostic {
            $(#[doc = concat!("SADB_X_DIAGNOSTIC_", $symbol, ": ", $text, ".")] $variant,)+
        }

        impl Diagnostic {
            /// Every one, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The number in the base header.
            pub const fn number(self) -> u16 {
                match self {
                    $(Self::$variant => $value,)+
                }
            }

            /// The one with this number.
            pub const fn from_number(number: u16) -> Option<Self> {
                match number {
                    $($value => Some(Self::$variant),)+
                    _ => None,
                }
            }

            /// The symbol without its `SADB_X_DIAGNOSTIC_`.
            pub const fn symbol(self) -> &'static str {
                match self {
                    $(Self::$variant => $symbol,)+
                }
            }

            /// What it means, for a person.
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }
        }
    };
}

diagnostics! {
    None = 0, "NONE", "no more is known";
    UnknownMsg = 1, "UNKNOWN_MSG", "unknown message type";
    UnknownExt = 2, "UNKNOWN_EXT", "unknown extension type";
    BadExtlen = 3, "BAD_EXTLEN", "bad extension length";
    UnknownSatype = 4, "UNKNOWN_SATYPE", "no database for this SA type";
    SatypeNeeded = 5, "SATYPE_NEEDED", "an SA type is needed";
    NoSadbs = 6, "NO_SADBS", "no database at all";
    NoExt = 7, "NO_EXT", "no extensions allowed here";
    BadSrcAf = 8, "BAD_SRC_AF", "bad source address family";
    BadDstAf = 9, "BAD_DST_AF", "bad destination address family";
    BadInnerSrcAf = 10, "BAD_INNER_SRC_AF", "bad inner source address family";
    AfMismatch = 11, "AF_MISMATCH", "source and destination address families differ";
    BadSrc = 12, "BAD_SRC", "bad source address";
    BadDst = 13, "BAD_DST", "bad destination address";
    AllocHserr = 14, "ALLOC_HSERR", "soft allocations limit above the hard one";
    BytesHserr = 15, "BYTES_HSERR", "soft bytes limit above the hard one";
    AddtimeHserr = 16, "ADDTIME_HSERR", "soft addtime limit above the hard one";
    UsetimeHserr = 17, "USETIME_HSERR", "soft usetime limit above the hard one";
    MissingSrc = 18, "MISSING_SRC", "source address missing";
    MissingDst = 19, "MISSING_DST", "destination address missing";
    MissingSa = 20, "MISSING_SA", "SA extension missing";
    MissingEkey = 21, "MISSING_EKEY", "encryption key missing";
    MissingAkey = 22, "MISSING_AKEY", "authentication key missing";
    MissingRange = 23, "MISSING_RANGE", "SPI range missing";
    DuplicateSrc = 24, "DUPLICATE_SRC", "two source addresses";
    DuplicateDst = 25, "DUPLICATE_DST", "two destination addresses";
    DuplicateSa = 26, "DUPLICATE_SA", "two SA extensions";
    DuplicateEkey = 27, "DUPLICATE_EKEY", "two encryption keys";
    DuplicateAkey = 28, "DUPLICATE_AKEY", "two authentication keys";
    DuplicateRange = 29, "DUPLICATE_RANGE", "two SPI ranges";
    MalformedSrc = 30, "MALFORMED_SRC", "malformed source address";
    MalformedDst = 31, "MALFORMED_DST", "malformed destination address";
    MalformedSa = 32, "MALFORMED_SA", "malformed SA extension";
    MalformedEkey = 33, "MALFORMED_EKEY", "malformed encryption key";
    MalformedAkey = 34, "MALFORMED_AKEY", "malformed authentication key";
    MalformedRange = 35, "MALFORMED_RANGE", "malformed SPI range";
    AkeyPresent = 36, "AKEY_PRESENT", "authentication key where none may be";
    EkeyPresent = 37, "EKEY_PRESENT", "encryption key where none may be";
    PropPresent = 38, "PROP_PRESENT", "proposal where none may be";
    SuppPresent = 39, "SUPP_PRESENT", "supported algorithms where none may be";
    BadAalg = 40, "BAD_AALG", "unknown authentication algorithm";
    BadEalg = 41, "BAD_EALG", "unknown encryption algorithm";
    BadSaflags = 42, "BAD_SAFLAGS", "SA flags not allowed";
    BadSastate = 43, "BAD_SASTATE", "SA state not allowed";
    BadAkeybits = 44, "BAD_AKEYBITS", "bad authentication key size";
    BadEkeybits = 45, "BAD_EKEYBITS", "bad encryption key size";
    EncrNotsupp = 46, "ENCR_NOTSUPP", "encryption not supported by this SA type";
    WeakEkey = 47, "WEAK_EKEY", "weak encryption key";
    WeakAkey = 48, "WEAK_AKEY", "weak authentication key";
    DuplicateKmp = 49, "DUPLICATE_KMP", "key management protocol is set already";
    DuplicateKmc = 50, "DUPLICATE_KMC", "key management cookie is set already";
    MissingNattLoc = 51, "MISSING_NATT_LOC", "NAT-T local address missing";
    MissingNattRem = 52, "MISSING_NATT_REM", "NAT-T remote address missing";
    DuplicateNattLoc = 53, "DUPLICATE_NATT_LOC", "two NAT-T local addresses";
    DuplicateNattRem = 54, "DUPLICATE_NATT_REM", "two NAT-T remote addresses";
    MalformedNattLoc = 55, "MALFORMED_NATT_LOC", "malformed NAT-T local address";
    MalformedNattRem = 56, "MALFORMED_NATT_REM", "malformed NAT-T remote address";
    DuplicateNattPorts = 57, "DUPLICATE_NATT_PORTS", "two sets of NAT-T ports";
    MissingInnerSrc = 58, "MISSING_INNER_SRC", "inner source address missing";
    MissingInnerDst = 59, "MISSING_INNER_DST", "inner destination address missing";
    DuplicateInnerSrc = 60, "DUPLICATE_INNER_SRC", "two inner source addresses";
    DuplicateInnerDst = 61, "DUPLICATE_INNER_DST", "two inner destination addresses";
    MalformedInnerSrc = 62, "MALFORMED_INNER_SRC", "malformed inner source address";
    MalformedInnerDst = 63, "MALFORMED_INNER_DST", "malformed inner destination address";
    PrefixInnerSrc = 64, "PREFIX_INNER_SRC", "bad prefix length of the inner source";
    PrefixInnerDst = 65, "PREFIX_INNER_DST", "bad prefix length of the inner destination";
    BadInnerDstAf = 66, "BAD_INNER_DST_AF", "bad inner destination address family";
    InnerAfMismatch = 67, "INNER_AF_MISMATCH", "inner address families differ";
    BadNattRemAf = 68, "BAD_NATT_REM_AF", "bad NAT-T remote address family";
    BadNattLocAf = 69, "BAD_NATT_LOC_AF", "bad NAT-T local address family";
    ProtoMismatch = 70, "PROTO_MISMATCH", "protocols of source and destination differ";
    InnerProtoMismatch = 71, "INNER_PROTO_MISMATCH", "protocols of inner source and destination differ";
    DualPortSets = 72, "DUAL_PORT_SETS", "ports in both inner and outer addresses";
    PairInappropriate = 73, "PAIR_INAPPROPRIATE", "not a possible pair";
    PairAddMismatch = 74, "PAIR_ADD_MISMATCH", "the pair does not match";
    PairAlready = 75, "PAIR_ALREADY", "the partner has a pair already";
    PairSaNotfound = 76, "PAIR_SA_NOTFOUND", "the SA has no pair";
    BadSaDirection = 77, "BAD_SA_DIRECTION", "bad SA direction";
    SaNotfound = 78, "SA_NOTFOUND", "no such SA";
    SaExpired = 79, "SA_EXPIRED", "the SA has expired";
    BadCtx = 80, "BAD_CTX", "the keys cannot be used with these algorithms";
    InvalidReplay = 81, "INVALID_REPLAY", "unusable replay value";
    MissingLifetime = 82, "MISSING_LIFETIME", "current lifetime where none may be";
    BadLabel = 83, "BAD_LABEL", "labels are not supported";
    MissingAstr = 84, "MISSING_ASTR", "authentication string missing";
    DuplicateAstr = 85, "DUPLICATE_ASTR", "two authentication strings";
    MalformedAstr = 86, "MALFORMED_ASTR", "malformed authentication string";
    BadMode = 128, "BAD_MODE", "a mode or encapsulation that this version does not have";
    BadPolicy = 129, "BAD_POLICY", "a policy that this version cannot keep";
}
