/*
 * PF_KEY v2, as pf_key(7P) describes it: RFC 2367 with the extensions of illumos.
 *
 * Everything is in host byte order, except SPIs, ports and addresses, which are in network byte order. All lengths of
 * messages and extensions count words of eight octets. C89 and C++.
 *
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#ifndef _NET_PFKEYV2_H
#define _NET_PFKEYV2_H

#include <stdint.h>
#include <sys/types.h>
#include <sys/socket.h>
#include <netinet/in.h>

#define PF_KEY_V2 2
#define PFKEYV2_REVISION 200109L

/* A Linux system has these under other names, or not at all. */
#ifndef PF_KEY
#define PF_KEY 15
#endif
#ifndef AF_KEY
#define AF_KEY PF_KEY
#endif
#ifndef SO_USELOOPBACK
#define SO_USELOOPBACK 0x40
#endif
/*
 * The page means IP in IP where it says IPPROTO_ENCAP. In Linux's <netinet/in.h>, included above so that it comes
 * before this, the name is an enumerator for protocol 98 (RFC 1241), which no SA can have.
 */
#undef IPPROTO_ENCAP
#define IPPROTO_ENCAP 4

/* sadb_msg_type */
#define SADB_RESERVED          0
#define SADB_GETSPI            1
#define SADB_UPDATE            2
#define SADB_ADD               3
#define SADB_DELETE            4
#define SADB_GET               5
#define SADB_ACQUIRE           6
#define SADB_REGISTER          7
#define SADB_EXPIRE            8
#define SADB_FLUSH             9
#define SADB_DUMP              10
#define SADB_X_PROMISC         11
#define SADB_X_INVERSE_ACQUIRE 12
#define SADB_X_UPDATEPAIR      13
#define SADB_X_DELPAIR         14
#define SADB_MAX               14

struct sadb_msg {
	uint8_t sadb_msg_version;	/* PF_KEY_V2 */
	uint8_t sadb_msg_type;		/* SADB_* */
	uint8_t sadb_msg_errno;		/* why it failed, in answers */
	uint8_t sadb_msg_satype;	/* SADB_SATYPE_* */
	uint16_t sadb_msg_len;		/* of the whole message */
	uint16_t sadb_msg_reserved;
#define sadb_x_msg_diagnostic sadb_msg_reserved	/* SADB_X_DIAGNOSTIC_*, in answers */
	uint32_t sadb_msg_seq;
	uint32_t sadb_msg_pid;
};

/* How every extension begins. */
struct sadb_ext {
	uint16_t sadb_ext_len;		/* of the whole extension */
	uint16_t sadb_ext_type;		/* SADB_EXT_*, SADB_X_EXT_* */
};

struct sadb_sa {
	uint16_t sadb_sa_len;
	uint16_t sadb_sa_exttype;
	uint32_t sadb_sa_spi;		/* network byte order */
	uint8_t sadb_sa_replay;
	uint8_t sadb_sa_state;		/* SADB_SASTATE_* */
	uint8_t sadb_sa_auth;		/* SADB_AALG_* */
	uint8_t sadb_sa_encrypt;	/* SADB_EALG_* */
	uint32_t sadb_sa_flags;		/* SADB_SAFLAGS_*, SADB_X_SAFLAGS_* */
};

struct sadb_lifetime {
	uint16_t sadb_lifetime_len;
	uint16_t sadb_lifetime_exttype;
	uint32_t sadb_lifetime_allocations;
	uint64_t sadb_lifetime_bytes;
	uint64_t sadb_lifetime_addtime;	/* seconds since it was added */
	uint64_t sadb_lifetime_usetime;	/* seconds since its first use */
};

/* A sockaddr follows. */
struct sadb_address {
	uint16_t sadb_address_len;
	uint16_t sadb_address_exttype;
	uint8_t sadb_address_proto;
	uint8_t sadb_address_prefixlen;	/* of inner addresses */
	uint16_t sadb_address_reserved;
};

/* The key follows, padded to a word. */
struct sadb_key {
	uint16_t sadb_key_len;
	uint16_t sadb_key_exttype;
	uint16_t sadb_key_bits;
	uint16_t sadb_key_reserved;
};

/* A string with its NUL follows, padded to a word. */
struct sadb_ident {
	uint16_t sadb_ident_len;
	uint16_t sadb_ident_exttype;
	uint16_t sadb_ident_type;	/* SADB_IDENTTYPE_*, SADB_X_IDENTTYPE_* */
	uint16_t sadb_ident_reserved;
	uint64_t sadb_ident_id;
};

/* Two bitmaps of so many words follow. */
struct sadb_sens {
	uint16_t sadb_sens_len;
	uint16_t sadb_sens_exttype;
	uint32_t sadb_sens_dpd;
	uint8_t sadb_sens_sens_level;
	uint8_t sadb_sens_sens_len;
	uint8_t sadb_sens_integ_level;
	uint8_t sadb_sens_integ_len;
	uint32_t sadb_sens_reserved;
};

/* Combinations follow: struct sadb_comb, or struct sadb_x_ecomb with its algorithms. */
struct sadb_prop {
	uint16_t sadb_prop_len;
	uint16_t sadb_prop_exttype;
	uint8_t sadb_prop_replay;
	uint8_t sadb_X_prop_ereserved;
#define sadb_x_prop_ereserved sadb_X_prop_ereserved
	uint16_t sadb_x_prop_numecombs;
};

struct sadb_comb {
	uint8_t sadb_comb_auth;
	uint8_t sadb_comb_encrypt;
	uint16_t sadb_comb_flags;
	uint16_t sadb_comb_auth_minbits;
	uint16_t sadb_comb_auth_maxbits;
	uint16_t sadb_comb_encrypt_minbits;
	uint16_t sadb_comb_encrypt_maxbits;
	uint32_t sadb_comb_reserved;
	uint32_t sadb_comb_soft_allocations;
	uint32_t sadb_comb_hard_allocations;
	uint64_t sadb_comb_soft_bytes;
	uint64_t sadb_comb_hard_bytes;
	uint64_t sadb_comb_soft_addtime;
	uint64_t sadb_comb_hard_addtime;
	uint64_t sadb_comb_soft_usetime;
	uint64_t sadb_comb_hard_usetime;
};

/* So many struct sadb_x_algdesc follow as sadb_x_ecomb_numalgs says. */
struct sadb_x_ecomb {
	uint8_t sadb_x_ecomb_numalgs;
	uint8_t sadb_x_ecomb_reserved;
	uint16_t sadb_x_ecomb_flags;
	uint32_t sadb_x_ecomb_reserved2;
	uint32_t sadb_x_ecomb_soft_allocations;
	uint32_t sadb_x_ecomb_hard_allocations;
	uint64_t sadb_x_ecomb_soft_bytes;
	uint64_t sadb_x_ecomb_hard_bytes;
	uint64_t sadb_x_ecomb_soft_addtime;
	uint64_t sadb_x_ecomb_hard_addtime;
	uint64_t sadb_x_ecomb_soft_usetime;
	uint64_t sadb_x_ecomb_hard_usetime;
};

struct sadb_x_algdesc {
	uint8_t sadb_x_algdesc_satype;	/* SADB_SATYPE_* */
	uint8_t sadb_x_algdesc_algtype;	/* SADB_X_ALGTYPE_* */
	uint8_t sadb_x_algdesc_alg;
	uint8_t sadb_x_algdesc_reserved;
	uint16_t sadb_x_algdesc_minbits;
	uint16_t sadb_x_algdesc_maxbits;
};

struct sadb_x_ereg {
	uint16_t sadb_x_ereg_len;
	uint16_t sadb_x_ereg_exttype;
	uint8_t sadb_x_ereg_satypes[4];	/* the last is 0 */
};

struct sadb_x_kmc {
	uint16_t sadb_x_kmc_len;
	uint16_t sadb_x_kmc_exttype;
	uint32_t sadb_x_kmc_proto;	/* SADB_X_KMP_* */
	uint32_t sadb_x_kmc_cookie;
	uint32_t sadb_x_kmc_reserved;
};

/* struct sadb_alg follow. */
struct sadb_supported {
	uint16_t sadb_supported_len;
	uint16_t sadb_supported_exttype;
	uint32_t sadb_supported_reserved;
};

struct sadb_alg {
	uint8_t sadb_alg_id;
	uint8_t sadb_alg_ivlen;
	uint16_t sadb_alg_minbits;
	uint16_t sadb_alg_maxbits;
	uint16_t sadb_alg_reserved;
};

struct sadb_spirange {
	uint16_t sadb_spirange_len;
	uint16_t sadb_spirange_exttype;
	uint32_t sadb_spirange_min;	/* network byte order */
	uint32_t sadb_spirange_max;	/* network byte order */
	uint32_t sadb_spirange_reserved;
};

struct sadb_x_pair {
	uint16_t sadb_x_pair_len;
	uint16_t sadb_x_pair_exttype;
	uint32_t sadb_x_pair_spi;	/* network byte order */
};

/* Later than the page. */
struct sadb_x_replay_ctr {
	uint16_t sadb_x_rc_len;
	uint16_t sadb_x_rc_exttype;
	uint32_t sadb_x_rc_replay32;
	uint64_t sadb_x_rc_replay64;
};

/* Later than the page. */
struct sadb_x_edump {
	uint16_t sadb_x_edump_len;
	uint16_t sadb_x_edump_exttype;
	uint32_t sadb_x_edump_reserved;
	uint64_t sadb_x_edump_timeout;	/* seconds */
};

/* sadb_ext_type; REPLAY_VALUE and what follows is later than the page */
#define SADB_EXT_RESERVED            0
#define SADB_EXT_SA                  1
#define SADB_EXT_LIFETIME_CURRENT    2
#define SADB_EXT_LIFETIME_HARD       3
#define SADB_EXT_LIFETIME_SOFT       4
#define SADB_EXT_ADDRESS_SRC         5
#define SADB_EXT_ADDRESS_DST         6
#define SADB_EXT_ADDRESS_PROXY       7
#define SADB_X_EXT_ADDRESS_INNER_SRC SADB_EXT_ADDRESS_PROXY
#define SADB_EXT_KEY_AUTH            8
#define SADB_EXT_KEY_ENCRYPT         9
#define SADB_EXT_IDENTITY_SRC        10
#define SADB_EXT_IDENTITY_DST        11
#define SADB_EXT_SENSITIVITY         12
#define SADB_EXT_PROPOSAL            13
#define SADB_EXT_SUPPORTED_AUTH      14
#define SADB_EXT_SUPPORTED_ENCRYPT   15
#define SADB_EXT_SPIRANGE            16
#define SADB_X_EXT_EREG              17
#define SADB_X_EXT_EPROP             18
#define SADB_X_EXT_KM_COOKIE         19
#define SADB_X_EXT_ADDRESS_NATT_LOC  20
#define SADB_X_EXT_ADDRESS_NATT_REM  21
#define SADB_X_EXT_ADDRESS_INNER_DST 22
#define SADB_X_EXT_PAIR              23
#define SADB_X_EXT_REPLAY_VALUE      24
#define SADB_X_EXT_EDUMP             25
#define SADB_X_EXT_LIFETIME_IDLE     26
#define SADB_X_EXT_OUTER_SENS        27
#define SADB_EXT_MAX                 27

/* sadb_msg_satype; there are databases for AH and ESP */
#define SADB_SATYPE_UNSPEC 0
#define SADB_SATYPE_AH     2
#define SADB_SATYPE_ESP    3
#define SADB_SATYPE_RSVP   5
#define SADB_SATYPE_OSPFV2 6
#define SADB_SATYPE_RIPV2  7
#define SADB_SATYPE_MIP    8
#define SADB_SATYPE_MAX    8

/* sadb_sa_state */
#define SADB_SASTATE_LARVAL 0
#define SADB_SASTATE_MATURE 1
#define SADB_SASTATE_DYING  2
#define SADB_SASTATE_DEAD   3
#define SADB_SASTATE_MAX    3

/* sadb_sa_flags; NATTED is later than the page */
#define SADB_SAFLAGS_PFS        0x1
#define SADB_SAFLAGS_NOREPLAY   0x2
#define SADB_X_SAFLAGS_NATTED   0x1000
#define SADB_X_SAFLAGS_USED     0x80000000
#define SADB_X_SAFLAGS_UNIQUE   0x40000000
#define SADB_X_SAFLAGS_AALG1    0x20000000
#define SADB_X_SAFLAGS_AALG2    0x10000000
#define SADB_X_SAFLAGS_EALG1    0x8000000
#define SADB_X_SAFLAGS_EALG2    0x4000000
#define SADB_X_SAFLAGS_KM1      0x2000000
#define SADB_X_SAFLAGS_KM2      0x1000000
#define SADB_X_SAFLAGS_KM3      0x800000
#define SADB_X_SAFLAGS_KM4      0x400000
#define SADB_X_SAFLAGS_KRES1    0x200000
#define SADB_X_SAFLAGS_NATT_LOC 0x100000
#define SADB_X_SAFLAGS_NATT_REM 0x80000
#define SADB_X_SAFLAGS_KRES2    0x40000
#define SADB_X_SAFLAGS_TUNNEL   0x20000
#define SADB_X_SAFLAGS_PAIRED   0x10000
#define SADB_X_SAFLAGS_OUTBOUND 0x8000
#define SADB_X_SAFLAGS_INBOUND  0x4000

/* sadb_sa_auth */
#define SADB_AALG_NONE       0
#define SADB_AALG_MD5HMAC    2
#define SADB_AALG_SHA1HMAC   3
#define SADB_AALG_SHA256HMAC 5
#define SADB_AALG_SHA384HMAC 6
#define SADB_AALG_SHA512HMAC 7
#define SADB_AALG_MAX        7

/* sadb_sa_encrypt; CCM and GCM are later than the page */
#define SADB_EALG_NONE          0
#define SADB_EALG_DESCBC        2
#define SADB_EALG_3DESCBC       3
#define SADB_EALG_BLOWFISH      7
#define SADB_EALG_NULL          11
#define SADB_EALG_AES           12
#define SADB_EALG_AES_CCM_ICV8  14
#define SADB_EALG_AES_CCM_ICV12 15
#define SADB_EALG_AES_CCM_ICV16 16
#define SADB_EALG_AES_GCM_ICV8  18
#define SADB_EALG_AES_GCM_ICV12 19
#define SADB_EALG_AES_GCM_ICV16 20
#define SADB_EALG_MAX           20

/* sadb_ident_type */
#define SADB_IDENTTYPE_RESERVED     0
#define SADB_IDENTTYPE_PREFIX       1
#define SADB_IDENTTYPE_FQDN         2
#define SADB_IDENTTYPE_USER_FQDN    3
#define SADB_X_IDENTTYPE_DN         4
#define SADB_X_IDENTTYPE_GN         5
#define SADB_X_IDENTTYPE_KEY_ID     6
#define SADB_X_IDENTTYPE_ADDR_RANGE 7
#define SADB_IDENTTYPE_MAX          7

/* sadb_x_algdesc_algtype */
#define SADB_X_ALGTYPE_NONE     0
#define SADB_X_ALGTYPE_AUTH     1
#define SADB_X_ALGTYPE_CRYPT    2
#define SADB_X_ALGTYPE_COMPRESS 3
#define SADB_X_ALGTYPE_MAX      3

/* sadb_x_kmc_proto; IKEV2 is later than the page */
#define SADB_X_KMP_MANUAL 0
#define SADB_X_KMP_IKE    1
#define SADB_X_KMP_KINK   2
#define SADB_X_KMP_IKEV2  3
#define SADB_X_KMP_MAX    3

/* sadb_x_msg_diagnostic; BAD_CTX and what follows is later than the page */
#define SADB_X_DIAGNOSTIC_NONE                 0
#define SADB_X_DIAGNOSTIC_UNKNOWN_MSG          1
#define SADB_X_DIAGNOSTIC_UNKNOWN_EXT          2
#define SADB_X_DIAGNOSTIC_BAD_EXTLEN           3
#define SADB_X_DIAGNOSTIC_UNKNOWN_SATYPE       4
#define SADB_X_DIAGNOSTIC_SATYPE_NEEDED        5
#define SADB_X_DIAGNOSTIC_NO_SADBS             6
#define SADB_X_DIAGNOSTIC_NO_EXT               7
#define SADB_X_DIAGNOSTIC_BAD_SRC_AF           8
#define SADB_X_DIAGNOSTIC_BAD_DST_AF           9
#define SADB_X_DIAGNOSTIC_BAD_PROXY_AF         10
#define SADB_X_DIAGNOSTIC_BAD_INNER_SRC_AF     10
#define SADB_X_DIAGNOSTIC_AF_MISMATCH          11
#define SADB_X_DIAGNOSTIC_BAD_SRC              12
#define SADB_X_DIAGNOSTIC_BAD_DST              13
#define SADB_X_DIAGNOSTIC_ALLOC_HSERR          14
#define SADB_X_DIAGNOSTIC_BYTES_HSERR          15
#define SADB_X_DIAGNOSTIC_ADDTIME_HSERR        16
#define SADB_X_DIAGNOSTIC_USETIME_HSERR        17
#define SADB_X_DIAGNOSTIC_MISSING_SRC          18
#define SADB_X_DIAGNOSTIC_MISSING_DST          19
#define SADB_X_DIAGNOSTIC_MISSING_SA           20
#define SADB_X_DIAGNOSTIC_MISSING_EKEY         21
#define SADB_X_DIAGNOSTIC_MISSING_AKEY         22
#define SADB_X_DIAGNOSTIC_MISSING_RANGE        23
#define SADB_X_DIAGNOSTIC_DUPLICATE_SRC        24
#define SADB_X_DIAGNOSTIC_DUPLICATE_DST        25
#define SADB_X_DIAGNOSTIC_DUPLICATE_SA         26
#define SADB_X_DIAGNOSTIC_DUPLICATE_EKEY       27
#define SADB_X_DIAGNOSTIC_DUPLICATE_AKEY       28
#define SADB_X_DIAGNOSTIC_DUPLICATE_RANGE      29
#define SADB_X_DIAGNOSTIC_MALFORMED_SRC        30
#define SADB_X_DIAGNOSTIC_MALFORMED_DST        31
#define SADB_X_DIAGNOSTIC_MALFORMED_SA         32
#define SADB_X_DIAGNOSTIC_MALFORMED_EKEY       33
#define SADB_X_DIAGNOSTIC_MALFORMED_AKEY       34
#define SADB_X_DIAGNOSTIC_MALFORMED_RANGE      35
#define SADB_X_DIAGNOSTIC_AKEY_PRESENT         36
#define SADB_X_DIAGNOSTIC_EKEY_PRESENT         37
#define SADB_X_DIAGNOSTIC_PROP_PRESENT         38
#define SADB_X_DIAGNOSTIC_SUPP_PRESENT         39
#define SADB_X_DIAGNOSTIC_BAD_AALG             40
#define SADB_X_DIAGNOSTIC_BAD_EALG             41
#define SADB_X_DIAGNOSTIC_BAD_SAFLAGS          42
#define SADB_X_DIAGNOSTIC_BAD_SASTATE          43
#define SADB_X_DIAGNOSTIC_BAD_AKEYBITS         44
#define SADB_X_DIAGNOSTIC_BAD_EKEYBITS         45
#define SADB_X_DIAGNOSTIC_ENCR_NOTSUPP         46
#define SADB_X_DIAGNOSTIC_WEAK_EKEY            47
#define SADB_X_DIAGNOSTIC_WEAK_AKEY            48
#define SADB_X_DIAGNOSTIC_DUPLICATE_KMP        49
#define SADB_X_DIAGNOSTIC_DUPLICATE_KMC        50
#define SADB_X_DIAGNOSTIC_MISSING_NATT_LOC     51
#define SADB_X_DIAGNOSTIC_MISSING_NATT_REM     52
#define SADB_X_DIAGNOSTIC_DUPLICATE_NATT_LOC   53
#define SADB_X_DIAGNOSTIC_DUPLICATE_NATT_REM   54
#define SADB_X_DIAGNOSTIC_MALFORMED_NATT_LOC   55
#define SADB_X_DIAGNOSTIC_MALFORMED_NATT_REM   56
#define SADB_X_DIAGNOSTIC_DUPLICATE_NATT_PORTS 57
#define SADB_X_DIAGNOSTIC_MISSING_INNER_SRC    58
#define SADB_X_DIAGNOSTIC_MISSING_INNER_DST    59
#define SADB_X_DIAGNOSTIC_DUPLICATE_INNER_SRC  60
#define SADB_X_DIAGNOSTIC_DUPLICATE_INNER_DST  61
#define SADB_X_DIAGNOSTIC_MALFORMED_INNER_SRC  62
#define SADB_X_DIAGNOSTIC_MALFORMED_INNER_DST  63
#define SADB_X_DIAGNOSTIC_PREFIX_INNER_SRC     64
#define SADB_X_DIAGNOSTIC_PREFIX_INNER_DST     65
#define SADB_X_DIAGNOSTIC_BAD_INNER_DST_AF     66
#define SADB_X_DIAGNOSTIC_INNER_AF_MISMATCH    67
#define SADB_X_DIAGNOSTIC_BAD_NATT_REM_AF      68
#define SADB_X_DIAGNOSTIC_BAD_NATT_LOC_AF      69
#define SADB_X_DIAGNOSTIC_PROTO_MISMATCH       70
#define SADB_X_DIAGNOSTIC_INNER_PROTO_MISMATCH 71
#define SADB_X_DIAGNOSTIC_DUAL_PORT_SETS       72
#define SADB_X_DIAGNOSTIC_PAIR_INAPPROPRIATE   73
#define SADB_X_DIAGNOSTIC_PAIR_ADD_MISMATCH    74
#define SADB_X_DIAGNOSTIC_PAIR_ALREADY         75
#define SADB_X_DIAGNOSTIC_PAIR_SA_NOTFOUND     76
#define SADB_X_DIAGNOSTIC_BAD_SA_DIRECTION     77
#define SADB_X_DIAGNOSTIC_SA_NOTFOUND          78
#define SADB_X_DIAGNOSTIC_SA_EXPIRED           79
#define SADB_X_DIAGNOSTIC_BAD_CTX              80
#define SADB_X_DIAGNOSTIC_INVALID_REPLAY       81
#define SADB_X_DIAGNOSTIC_MISSING_LIFETIME     82
#define SADB_X_DIAGNOSTIC_BAD_LABEL            83
#define SADB_X_DIAGNOSTIC_MISSING_ASTR         84
#define SADB_X_DIAGNOSTIC_DUPLICATE_ASTR       85
#define SADB_X_DIAGNOSTIC_MALFORMED_ASTR       86
#define SADB_X_DIAGNOSTIC_MAX                  86

#endif
