//! The numbers of pf_key(7P): message types, extension types, SA types, SA states, flags, errno values.

macro_rules! numbers {
    ($(#[$meta:meta])* $name:ident: $int:ty { $($(#[doc = $doc:literal])+ $variant:ident = $value:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl $name {
            /// Every one, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The number on the wire.
            pub const fn number(self) -> $int {
                match self {
                    $(Self::$variant => $value,)+
                }
            }

            /// The one with this number.
            pub const fn from_number(number: $int) -> Option<Self> {
                match number {
                    $($value => Some(Self::$variant),)+
                    _ => None,
                }
            }
        }
    };
}

numbers! {
    /// `sadb_msg_type`. The native messages (our policy and socket control) begin at 128.
    MessageType: u8 {
        /// SADB_GETSPI: reserve an SPI.
        GetSpi = 1,
        /// SADB_UPDATE: make a larval SA mature, or change a mature one's lifetimes.
        Update = 2,
        /// SADB_ADD: add a complete SA.
        Add = 3,
        /// SADB_DELETE: delete an SA, or all that match.
        Delete = 4,
        /// SADB_GET: show an SA, keys included.
        Get = 5,
        /// SADB_ACQUIRE: an SA is needed; from the key manager, that it failed.
        Acquire = 6,
        /// SADB_REGISTER: listen for ACQUIRE.
        Register = 7,
        /// SADB_EXPIRE: a limit of an SA was reached.
        Expire = 8,
        /// SADB_FLUSH: delete all SAs.
        Flush = 9,
        /// SADB_DUMP: show all SAs, keys included.
        Dump = 10,
        /// SADB_X_PROMISC: hear everything.
        Promisc = 11,
        /// SADB_X_INVERSE_ACQUIRE: ask what policy would want.
        InverseAcquire = 12,
        /// SADB_X_UPDATEPAIR: UPDATE of an SA and its pair.
        UpdatePair = 13,
        /// SADB_X_DELPAIR: DELETE of an SA and its pair.
        DelPair = 14,
        /// Native: add an eroute; EEXIST if one with this selector is there.
        AddFlow = 128,
        /// Native: put an eroute in the place of the one with this selector, if any.
        ReplaceFlow = 129,
        /// Native: delete the eroute with exactly this selector; ENOENT if there is none.
        DelFlow = 130,
        /// Native: delete all eroutes.
        FlushFlows = 131,
        /// Native: show all eroutes.
        DumpFlows = 132,
        /// Native: apply SAs one after the other (`ipsec spigrp`).
        GroupSa = 133,
        /// Native: socket options a Unix socket does not have (SO_USELOOPBACK).
        Socket = 134,
        /// Native: an SA, and its pair, goes on between other addresses or ports; keys, numbers and counters stay.
        MoveSa = 135,
        /// Native: the service says that a peer's newest authentic packet came from another address or port.
        NewMapping = 136,
        /// Native: show the policy of a number; ENOENT if there is none.
        GetFlow = 137,
    }
}

numbers! {
    /// `sadb_ext_type`. The native extensions begin at 128.
    ExtType: u16 {
        /// SADB_EXT_SA.
        Sa = 1,
        /// SADB_EXT_LIFETIME_CURRENT.
        LifetimeCurrent = 2,
        /// SADB_EXT_LIFETIME_HARD.
        LifetimeHard = 3,
        /// SADB_EXT_LIFETIME_SOFT.
        LifetimeSoft = 4,
        /// SADB_EXT_ADDRESS_SRC.
        AddressSrc = 5,
        /// SADB_EXT_ADDRESS_DST.
        AddressDst = 6,
        /// SADB_X_EXT_ADDRESS_INNER_SRC, once SADB_EXT_ADDRESS_PROXY.
        AddressInnerSrc = 7,
        /// SADB_EXT_KEY_AUTH.
        KeyAuth = 8,
        /// SADB_EXT_KEY_ENCRYPT.
        KeyEncrypt = 9,
        /// SADB_EXT_IDENTITY_SRC.
        IdentitySrc = 10,
        /// SADB_EXT_IDENTITY_DST.
        IdentityDst = 11,
        /// SADB_EXT_SENSITIVITY.
        Sensitivity = 12,
        /// SADB_EXT_PROPOSAL.
        Proposal = 13,
        /// SADB_EXT_SUPPORTED_AUTH.
        SupportedAuth = 14,
        /// SADB_EXT_SUPPORTED_ENCRYPT.
        SupportedEncrypt = 15,
        /// SADB_EXT_SPIRANGE.
        SpiRange = 16,
        /// SADB_X_EXT_EREG.
        Ereg = 17,
        /// SADB_X_EXT_EPROP.
        Eprop = 18,
        /// SADB_X_EXT_KM_COOKIE.
        KmCookie = 19,
        /// SADB_X_EXT_ADDRESS_NATT_LOC.
        AddressNattLoc = 20,
        /// SADB_X_EXT_ADDRESS_NATT_REM.
        AddressNattRem = 21,
        /// SADB_X_EXT_ADDRESS_INNER_DST.
        AddressInnerDst = 22,
        /// SADB_X_EXT_PAIR.
        Pair = 23,
        /// SADB_X_EXT_REPLAY_VALUE (later than the page).
        ReplayValue = 24,
        /// SADB_X_EXT_EDUMP (later than the page).
        Edump = 25,
        /// SADB_X_EXT_LIFETIME_IDLE (later than the page).
        LifetimeIdle = 26,
        /// SADB_X_EXT_OUTER_SENS (later than the page).
        OuterSensitivity = 27,
        /// Native: what an eroute does, and what it has done.
        Flow = 128,
        /// Native: what `sadb_sa` has no room for: a wide replay window, extended sequence numbers.
        SaParams = 129,
        /// Native: SAs from the inside to the outside.
        Group = 130,
        /// Native: socket options.
        SocketOptions = 131,
        /// Native: packets, failures and sequence number of an SA.
        Counters = 132,
        /// Native: the source from now on, or where a packet came from; an address extension with its port.
        NewSrc = 133,
        /// Native: the destination from now on.
        NewDst = 134,
        /// Native: the number by which policy finds the SA, and who judges what comes on it.
        SaPolicy = 135,
        /// Native: what an eroute of another dialect is besides: its direction, its rank, the SA that it wants.
        FlowPolicy = 136,
        /// Native: limits of packets, which `sadb_lifetime` has no room for.
        PacketLimits = 137,
        /// Native: what else than its inner addresses say an SA may carry.
        Selectors = 138,
        /// Native: what hides the lengths of packets, and when there are any (RFC 4303 §2.7, §2.6).
        Tfc = 139,
    }
}

numbers! {
    /// `sadb_msg_satype`: the security service. The page's types with a database are AH and ESP.
    SaType: u8 {
        /// None in particular.
        Unspec = 0,
        /// AH.
        Ah = 2,
        /// ESP.
        Esp = 3,
        /// IP in IP (`tun`), as KLIPS has it.
        Ipip = 9,
        /// IPComp, as KLIPS has it.
        Ipcomp = 10,
    }
}

/// `sadb_sa_state`.
pub mod state {
    /// Reserved by GETSPI.
    pub const LARVAL: u8 = 0;
    /// In use.
    pub const MATURE: u8 = 1;
    /// In use, past a soft limit.
    pub const DYING: u8 = 2;
    /// Past a hard limit.
    pub const DEAD: u8 = 3;
}

/// `sadb_sa_flags`.
pub mod flags {
    /// SADB_SAFLAGS_PFS.
    pub const PFS: u32 = 0x1;
    /// SADB_SAFLAGS_NOREPLAY.
    pub const NOREPLAY: u32 = 0x2;
    /// SADB_X_SAFLAGS_NATTED (later than the page): this node is behind a NAT.
    pub const NATTED: u32 = 0x1000;
    /// SADB_X_SAFLAGS_INBOUND.
    pub const INBOUND: u32 = 0x4000;
    /// SADB_X_SAFLAGS_OUTBOUND.
    pub const OUTBOUND: u32 = 0x8000;
    /// SADB_X_SAFLAGS_PAIRED.
    pub const PAIRED: u32 = 0x1_0000;
    /// SADB_X_SAFLAGS_TUNNEL.
    pub const TUNNEL: u32 = 0x2_0000;
    /// SADB_X_SAFLAGS_KRES2.
    pub const KRES2: u32 = 0x4_0000;
    /// SADB_X_SAFLAGS_NATT_REM.
    pub const NATT_REM: u32 = 0x8_0000;
    /// SADB_X_SAFLAGS_NATT_LOC.
    pub const NATT_LOC: u32 = 0x10_0000;
    /// SADB_X_SAFLAGS_KRES1.
    pub const KRES1: u32 = 0x20_0000;
    /// SADB_X_SAFLAGS_KM4.
    pub const KM4: u32 = 0x40_0000;
    /// SADB_X_SAFLAGS_KM3.
    pub const KM3: u32 = 0x80_0000;
    /// SADB_X_SAFLAGS_KM2.
    pub const KM2: u32 = 0x100_0000;
    /// SADB_X_SAFLAGS_KM1.
    pub const KM1: u32 = 0x200_0000;
    /// SADB_X_SAFLAGS_EALG2.
    pub const EALG2: u32 = 0x400_0000;
    /// SADB_X_SAFLAGS_EALG1.
    pub const EALG1: u32 = 0x800_0000;
    /// SADB_X_SAFLAGS_AALG2.
    pub const AALG2: u32 = 0x1000_0000;
    /// SADB_X_SAFLAGS_AALG1.
    pub const AALG1: u32 = 0x2000_0000;
    /// SADB_X_SAFLAGS_UNIQUE.
    pub const UNIQUE: u32 = 0x4000_0000;
    /// SADB_X_SAFLAGS_USED.
    pub const USED: u32 = 0x8000_0000;

    /// Names as `ipseckey` prints them, in its order.
    pub const NAMES: &[(u32, &str)] = &[
        (PFS, "PFS"),
        (NOREPLAY, "NOREPLAY"),
        (USED, "X_USED"),
        (PAIRED, "X_PAIRED"),
        (OUTBOUND, "X_OUTBOUND"),
        (INBOUND, "X_INBOUND"),
        (UNIQUE, "X_UNIQUE"),
        (AALG1, "X_AALG1"),
        (AALG2, "X_AALG2"),
        (EALG1, "X_EALG1"),
        (EALG2, "X_EALG2"),
        (NATT_LOC, "X_NATT_LOC"),
        (NATT_REM, "X_NATT_REM"),
        (TUNNEL, "X_TUNNEL"),
        (NATTED, "X_NATTED"),
    ];
}

/// An errno value as it travels in `sadb_msg_errno`: the numbers of the host, Linux.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Errno(pub u8);

impl Errno {
    /// Not permitted.
    pub const EPERM: Self = Self(1);
    /// No such policy, no such eroute.
    pub const ENOENT: Self = Self(2);
    /// No such SA.
    pub const ESRCH: Self = Self(3);
    /// No memory, or a FLUSH or DUMP is under way.
    pub const ENOMEM: Self = Self(12);
    /// Registered differently already.
    pub const EBUSY: Self = Self(16);
    /// The SA or eroute is there already.
    pub const EEXIST: Self = Self(17);
    /// Something about the message is wrong; the diagnostic says what.
    pub const EINVAL: Self = Self(22);
    /// The length in the header is not that of the record.
    pub const EMSGSIZE: Self = Self(90);
    /// Inner family and outer protocol do not go together.
    pub const EPROTOTYPE: Self = Self(91);
    /// Not something a key manager may ask.
    pub const EOPNOTSUPP: Self = Self(95);

    /// The symbol.
    pub const fn name(self) -> &'static str {
        match self.0 {
            0 => "0",
            1 => "EPERM",
            2 => "ENOENT",
            3 => "ESRCH",
            12 => "ENOMEM",
            16 => "EBUSY",
            17 => "EEXIST",
            22 => "EINVAL",
            90 => "EMSGSIZE",
            91 => "EPROTOTYPE",
            95 => "EOPNOTSUPP",
            _ => "errno",
        }
    }
}

/// `sadb_ident_type`. Any number is stored; these have names.
pub mod identity {
    /// A prefix.
    pub const PREFIX: u16 = 1;
    /// A fully qualified domain name.
    pub const FQDN: u16 = 2;
    /// A mailbox.
    pub const USER_FQDN: u16 = 3;
    /// A distinguished name, DER.
    pub const DN: u16 = 4;
    /// A general name, DER.
    pub const GN: u16 = 5;
    /// An opaque key id.
    pub const KEY_ID: u16 = 6;
    /// A range of addresses.
    pub const ADDR_RANGE: u16 = 7;
}

/// `sadb_x_kmc_proto`: key management protocols.
pub mod km {
    /// By hand.
    pub const MANUAL: u32 = 0;
    /// IKEv1.
    pub const IKE: u32 = 1;
    /// KINK.
    pub const KINK: u32 = 2;
    /// IKEv2.
    pub const IKEV2: u32 = 3;
}
