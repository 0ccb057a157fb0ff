//! The numbers of KLIPS that are not those of pf_key(7P). Messages 1 to 9, extensions 1 to 16, SA types and states are common.

/// `sadb_msg_type`.
pub mod message {
    /// SADB_X_GRPSA: an SA is applied outside of another, or leaves its group.
    pub const GRPSA: u8 = 13;
    /// SADB_X_ADDFLOW: adds an eroute, or puts it in the place of the one with its selector.
    pub const ADDFLOW: u8 = 14;
    /// SADB_X_DELFLOW: deletes the eroute with exactly this selector, or all.
    pub const DELFLOW: u8 = 15;
    /// SADB_X_DEBUG: what is logged.
    pub const DEBUG: u8 = 16;
    /// SADB_X_NAT_T_NEW_MAPPING: a peer sends from another address or port.
    pub const NEW_MAPPING: u8 = 17;
    /// SADB_X_PLUMBIF: makes a virtual device.
    pub const PLUMBIF: u8 = 18;
    /// SADB_X_UNPLUMBIF: takes one away.
    pub const UNPLUMBIF: u8 = 19;
}

/// `sadb_ext_type`.
pub mod ext {
    /// SADB_X_EXT_SATYPE2: the SA type of the second SA.
    pub const SATYPE2: u16 = 18;
    /// SADB_X_EXT_SA2: the second SA.
    pub const SA2: u16 = 19;
    /// SADB_X_EXT_ADDRESS_DST2: its destination.
    pub const ADDRESS_DST2: u16 = 20;
    /// SADB_X_EXT_ADDRESS_SRC_FLOW: the source network of an eroute.
    pub const SRC_FLOW: u16 = 21;
    /// SADB_X_EXT_ADDRESS_DST_FLOW: its destination network.
    pub const DST_FLOW: u16 = 22;
    /// SADB_X_EXT_ADDRESS_SRC_MASK: the mask of the source network.
    pub const SRC_MASK: u16 = 23;
    /// SADB_X_EXT_ADDRESS_DST_MASK: the mask of the destination network.
    pub const DST_MASK: u16 = 24;
    /// SADB_X_EXT_DEBUG.
    pub const DEBUG: u16 = 25;
    /// SADB_X_EXT_PROTOCOL: the protocol of an eroute.
    pub const PROTOCOL: u16 = 26;
    /// SADB_X_EXT_NAT_T_TYPE.
    pub const NAT_T_TYPE: u16 = 27;
    /// SADB_X_EXT_NAT_T_SPORT.
    pub const NAT_T_SPORT: u16 = 28;
    /// SADB_X_EXT_NAT_T_DPORT.
    pub const NAT_T_DPORT: u16 = 29;
    /// SADB_X_EXT_NAT_T_OA.
    pub const NAT_T_OA: u16 = 30;
    /// SADB_X_EXT_PLUMBIF.
    pub const PLUMBIF: u16 = 31;
    /// SADB_X_EXT_SAREF: the number of an SA in KLIPS' own tables.
    pub const SAREF: u16 = 32;
    /// The highest.
    pub const MAX: u16 = SAREF;
}

/// `sadb_sa_flags`.
pub mod flags {
    /// SADB_SAFLAGS_PFS: recorded by nobody.
    pub const PFS: u32 = 1;
    /// SADB_X_SAFLAGS_REPLACEFLOW: in the place of the eroute that is there.
    pub const REPLACEFLOW: u32 = 2;
    /// SADB_X_SAFLAGS_CLEARFLOW: all eroutes.
    pub const CLEARFLOW: u32 = 4;
    /// SADB_X_SAFLAGS_INFLOW: what may come on the SA, not what leaves through it.
    pub const INFLOW: u32 = 8;
    /// SADB_X_SAFLAGS_POLICYONLY: the same.
    pub const POLICYONLY: u32 = 16;
}

/// SADB_X_SATYPE_INT: no SA but a word, which its SPI says.
pub const SATYPE_INT: u8 = 11;

/// SPIs of words.
pub mod word {
    /// `%pass`.
    pub const PASS: u32 = 256;
    /// `%drop`.
    pub const DROP: u32 = 257;
    /// `%reject`.
    pub const REJECT: u32 = 258;
    /// `%hold`.
    pub const HOLD: u32 = 259;
    /// `%trap`.
    pub const TRAP: u32 = 260;
    /// `%trapsubnet`.
    pub const TRAPSUBNET: u32 = 261;
}

/// The widest replay window it has.
pub const WIDEST_WINDOW: u8 = 64;

/// Errno values that pf_key(7P) does not use.
pub mod errno {
    use crate::Errno;
    /// A message that KLIPS has a number for and nothing else.
    pub const ENOSYS: Errno = Errno(38);
    /// An algorithm nobody has.
    pub const ESOCKTNOSUPPORT: Errno = Errno(94);
}

/// Authentication algorithms, the same on both sides.
pub const AUTH: &[u8] = &[2, 3, 5, 6, 7];
/// Encryption algorithms, the same on both sides.
pub const ENCRYPTION: &[u8] = &[2, 3, 11, 12];
/// Compression algorithms, the same on both sides.
pub const COMPRESSION: &[u8] = &[2, 3];
