//! The numbers of `linux/pfkeyv2.h` that are not those of pf_key(7P). Messages 1 to 11 and extensions 1 to 16 are common.

/// `sadb_msg_type`.
pub mod message {
    /// SADB_X_SPDUPDATE: adds a policy, or puts it in the place of the one with its selector.
    pub const SPDUPDATE: u8 = 13;
    /// SADB_X_SPDADD: adds a policy.
    pub const SPDADD: u8 = 14;
    /// SADB_X_SPDDELETE: deletes the policy with exactly this selector.
    pub const SPDDELETE: u8 = 15;
    /// SADB_X_SPDGET: shows the policy of this number.
    pub const SPDGET: u8 = 16;
    /// SADB_X_SPDDUMP: shows all policies.
    pub const SPDDUMP: u8 = 18;
    /// SADB_X_SPDFLUSH: deletes all policies.
    pub const SPDFLUSH: u8 = 19;
    /// SADB_X_SPDSETIDX: as SPDADD, with a selector alone.
    pub const SPDSETIDX: u8 = 20;
    /// SADB_X_SPDDELETE2: deletes the policy of this number.
    pub const SPDDELETE2: u8 = 22;
    /// SADB_X_NAT_T_NEW_MAPPING: a peer sends from another address or port.
    pub const NEW_MAPPING: u8 = 23;
    /// SADB_X_MIGRATE: policies and SAs move to other addresses.
    pub const MIGRATE: u8 = 24;
}

/// `sadb_ext_type`.
pub mod ext {
    /// SADB_X_EXT_KMPRIVATE.
    pub const KMPRIVATE: u16 = 17;
    /// SADB_X_EXT_POLICY.
    pub const POLICY: u16 = 18;
    /// SADB_X_EXT_SA2.
    pub const SA2: u16 = 19;
    /// SADB_X_EXT_NAT_T_TYPE.
    pub const NAT_T_TYPE: u16 = 20;
    /// SADB_X_EXT_NAT_T_SPORT.
    pub const NAT_T_SPORT: u16 = 21;
    /// SADB_X_EXT_NAT_T_DPORT.
    pub const NAT_T_DPORT: u16 = 22;
    /// SADB_X_EXT_NAT_T_OA.
    pub const NAT_T_OA: u16 = 23;
    /// SADB_X_EXT_SEC_CTX.
    pub const SEC_CTX: u16 = 24;
    /// SADB_X_EXT_KMADDRESS.
    pub const KMADDRESS: u16 = 25;
    /// SADB_X_EXT_FILTER.
    pub const FILTER: u16 = 26;
    /// SADB_EXT_MAX.
    pub const MAX: u16 = FILTER;
}

/// `sadb_msg_satype`: IPComp, which is 10 on our side; 9 is IP in IP there.
pub const SATYPE_IPCOMP: u8 = 9;

/// DEFLATE, the one compression that there is (`SADB_X_CALG_DEFLATE`).
pub const DEFLATE: u8 = 2;

/// `IPSEC_MODE_*`.
pub mod mode {
    use crate::{Diagnostic as D, Errno, Fault};

    /// Whatever; an SA that says so is a transport one.
    pub const ANY: u8 = 0;
    /// Transport.
    pub const TRANSPORT: u8 = 1;
    /// Tunnel.
    pub const TUNNEL: u8 = 2;
    /// BEET, the last that Linux knows in PF_KEY.
    const BEET: u8 = 3;

    /// Refuses a mode that is none, and the one that is not here.
    pub(crate) const fn known(mode: u8) -> Result<(), Fault> {
        match mode {
            ANY | TRANSPORT | TUNNEL => Ok(()),
            BEET => Err(Fault { errno: Errno::EOPNOTSUPP, diagnostic: D::BadMode }),
            _ => Err(Fault { errno: Errno::EINVAL, diagnostic: D::BadMode }),
        }
    }
}

pub use crate::dialect::parts::ESP_IN_UDP;

/// `sadb_sa_flags`.
pub mod flags {
    /// SADB_SAFLAGS_PFS: recorded by nobody.
    pub const PFS: u32 = 1;
    /// SADB_SAFLAGS_NOPMTUDISC, _DECAP_DSCP and _NOECN: how outer and inner headers depend on each other.
    pub const HEADERS: u32 = 0xe000_0000;
}

/// Errno values that pf_key(7P) does not use.
pub mod errno {
    use crate::Errno;
    /// An algorithm nobody has.
    pub const ENOSYS: Errno = Errno(38);
    /// No protocol of that SA type.
    pub const EPROTONOSUPPORT: Errno = Errno(93);
}

/// Authentication algorithms (SADB_AALG_*, SADB_X_AALG_*), theirs and ours.
pub const AUTH: &[(u8, u8)] = &[(2, 2), (3, 3), (5, 5), (6, 6), (7, 7), (9, 128)];
/// SADB_X_AALG_NULL: no integrity, which is 0 on our side.
pub const AUTH_NULL: u8 = 251;

/// Encryption algorithms (SADB_EALG_*, SADB_X_EALG_*), theirs and ours.
pub const ENCRYPTION: &[(u8, u8)] =
    &[(3, 3), (11, 11), (12, 12), (14, 14), (15, 15), (16, 16), (18, 18), (19, 19), (20, 20), (23, 129)];

/// Our number of theirs.
pub fn ours(table: &[(u8, u8)], theirs: u8) -> Option<u8> {
    table.iter().find(|(known, _)| *known == theirs).map(|(_, ours)| *ours)
}

/// Their number of ours.
pub fn theirs(table: &[(u8, u8)], ours: u8) -> Option<u8> {
    table.iter().find(|(_, known)| *known == ours).map(|(theirs, _)| *theirs)
}
