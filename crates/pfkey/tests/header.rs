//! `net/pfkeyv2.h` beside this crate: every constant and every field that pf_key(7P) names, and messages written by C
//! read by Rust, to the octet.

use pfkey::{
    Address, Algorithm, Base, Comb, Descriptor, Diagnostic, Ecomb, ExtType, Identity, KmCookie, Lifetime,
    Limits, Message, MessageType, Pair, ReplayValue, Sa, SaType, Sensitivity, SpiRange, Writer, flags,
    identity, km, state,
};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

const PAGE: &str = include_str!("data/page.txt");
/// Compilers, and the language they are to take the program for.
const COMPILERS: &[(&str, &[&str])] = &[
    ("cc", &["-std=c89", "-x", "c"]),
    ("clang", &["-std=c89", "-x", "c"]),
    ("c++", &["-std=c++98", "-x", "c++"]),
    ("clang++", &["-std=c++98", "-x", "c++"]),
    ("cc", &["-std=c17", "-x", "c"]),
    ("c++", &["-std=c++20", "-x", "c++"]),
];

/// What this crate says each constant is, under the name that the page has for it.
#[expect(clippy::wildcard_enum_match_arm, reason = "native messages and extensions have no name on the page")]
fn constants() -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    let mut put = |name: &str, value: u64| {
        all.insert(format!("SADB_{name}"), value);
    };
    for kind in MessageType::ALL {
        use MessageType as M;
        let name = match kind {
            M::GetSpi => "GETSPI",
            M::Update => "UPDATE",
            M::Add => "ADD",
            M::Delete => "DELETE",
            M::Get => "GET",
            M::Acquire => "ACQUIRE",
            M::Register => "REGISTER",
            M::Expire => "EXPIRE",
            M::Flush => "FLUSH",
            M::Dump => "DUMP",
            M::Promisc => "X_PROMISC",
            M::InverseAcquire => "X_INVERSE_ACQUIRE",
            M::UpdatePair => "X_UPDATEPAIR",
            M::DelPair => "X_DELPAIR",
            _ => continue,
        };
        put(name, kind.number().into());
    }
    for kind in ExtType::ALL {
        use ExtType as E;
        let name = match kind {
            E::Sa => "EXT_SA",
            E::LifetimeCurrent => "EXT_LIFETIME_CURRENT",
            E::LifetimeHard => "EXT_LIFETIME_HARD",
            E::LifetimeSoft => "EXT_LIFETIME_SOFT",
            E::AddressSrc => "EXT_ADDRESS_SRC",
            E::AddressDst => "EXT_ADDRESS_DST",
            E::AddressInnerSrc => "X_EXT_ADDRESS_INNER_SRC",
            E::KeyAuth => "EXT_KEY_AUTH",
            E::KeyEncrypt => "EXT_KEY_ENCRYPT",
            E::IdentitySrc => "EXT_IDENTITY_SRC",
            E::IdentityDst => "EXT_IDENTITY_DST",
            E::Sensitivity => "EXT_SENSITIVITY",
            E::Proposal => "EXT_PROPOSAL",
            E::SupportedAuth => "EXT_SUPPORTED_AUTH",
            E::SupportedEncrypt => "EXT_SUPPORTED_ENCRYPT",
            E::SpiRange => "EXT_SPIRANGE",
            E::Ereg => "X_EXT_EREG",
            E::Eprop => "X_EXT_EPROP",
            E::KmCookie => "X_EXT_KM_COOKIE",
            E::AddressNattLoc => "X_EXT_ADDRESS_NATT_LOC",
            E::AddressNattRem => "X_EXT_ADDRESS_NATT_REM",
            E::AddressInnerDst => "X_EXT_ADDRESS_INNER_DST",
            E::Pair => "X_EXT_PAIR",
            E::ReplayValue => "X_EXT_REPLAY_VALUE",
            E::Edump => "X_EXT_EDUMP",
            E::LifetimeIdle => "X_EXT_LIFETIME_IDLE",
            E::OuterSensitivity => "X_EXT_OUTER_SENS",
            _ => continue,
        };
        put(name, kind.number().into());
    }
    put("EXT_ADDRESS_PROXY", ExtType::AddressInnerSrc.number().into());
    for &(value, name) in flags::NAMES {
        match name.strip_prefix("X_") {
            Some(name) => put(&format!("X_SAFLAGS_{name}"), value.into()),
            None => put(&format!("SAFLAGS_{name}"), value.into()),
        }
    }
    let unnamed = [
        ("KM1", flags::KM1),
        ("KM2", flags::KM2),
        ("KM3", flags::KM3),
        ("KM4", flags::KM4),
        ("KRES1", flags::KRES1),
        ("KRES2", flags::KRES2),
    ];
    unnamed.iter().for_each(|(name, value)| put(&format!("X_SAFLAGS_{name}"), (*value).into()));
    // Ours, from 128 up, are answers of dialects.
    for diagnostic in Diagnostic::ALL.iter().filter(|diagnostic| diagnostic.number() < 128) {
        put(&format!("X_DIAGNOSTIC_{}", diagnostic.symbol()), diagnostic.number().into());
    }
    put("X_DIAGNOSTIC_BAD_PROXY_AF", Diagnostic::BadInnerSrcAf.number().into());
    // What the page only refers to.
    for (name, satype) in [("UNSPEC", SaType::Unspec), ("AH", SaType::Ah), ("ESP", SaType::Esp)] {
        put(&format!("SATYPE_{name}"), satype.number().into());
    }
    let states = [
        ("LARVAL", state::LARVAL),
        ("MATURE", state::MATURE),
        ("DYING", state::DYING),
        ("DEAD", state::DEAD),
    ];
    states.iter().for_each(|(name, value)| put(&format!("SASTATE_{name}"), (*value).into()));
    let identities = [
        ("IDENTTYPE_PREFIX", identity::PREFIX),
        ("IDENTTYPE_FQDN", identity::FQDN),
        ("IDENTTYPE_USER_FQDN", identity::USER_FQDN),
        ("X_IDENTTYPE_DN", identity::DN),
        ("X_IDENTTYPE_GN", identity::GN),
        ("X_IDENTTYPE_KEY_ID", identity::KEY_ID),
        ("X_IDENTTYPE_ADDR_RANGE", identity::ADDR_RANGE),
    ];
    identities.iter().for_each(|(name, value)| put(name, (*value).into()));
    let protocols = [("MANUAL", km::MANUAL), ("IKE", km::IKE), ("KINK", km::KINK), ("IKEV2", km::IKEV2)];
    protocols.iter().for_each(|(name, value)| put(&format!("X_KMP_{name}"), (*value).into()));
    all
}

/// Compiles a program with the header and returns what it prints. `None` where there is no such compiler.
fn run(compiler: &str, language: &[&str], body: &str) -> Option<String> {
    if Command::new(compiler).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
        skipped(&format!("net/pfkeyv2.h under {compiler}: no such compiler (apt-get install clang g++)"));
        return None;
    }
    // Tests are threads of one process.
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let program = std::env::temp_dir().join(format!("pfkeyv2-{}-{count}", std::process::id()));
    let source = format!(
        "#include <sys/types.h>\n#include <sys/socket.h>\n#include <net/pfkeyv2.h>\n\
         #include <stddef.h>\n#include <stdio.h>\n#include <string.h>\n#include <arpa/inet.h>\n{body}"
    );
    let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("include");
    let mut child = Command::new(compiler)
        .args(["-Wall", "-Wextra", "-pedantic", "-Werror"])
        .args(language)
        .arg("-I")
        .arg(include)
        .arg("-o")
        .arg(&program)
        .arg("-")
        .stdin(Stdio::piped())
        .spawn()
        .expect("compiler");
    child.stdin.take().expect("pipe").write_all(source.as_bytes()).expect("source");
    assert!(child.wait().expect("compiler").success(), "{compiler} {language:?} refuses:\n{source}");
    let output = Command::new(&program).output().expect("program");
    let _ = std::fs::remove_file(&program);
    assert!(output.status.success(), "{compiler} {language:?}: {:?}", output.status);
    Some(String::from_utf8(output.stdout).expect("text"))
}

/// Tells `cargo xtask test` what could not be tested here.
fn skipped(why: &str) {
    eprintln!("skipped: {why}");
    if let Some(list) = std::env::var_os("TULIPS_SKIPPED")
        && let Ok(mut file) = std::fs::File::options().append(true).create(true).open(list)
    {
        let _ = writeln!(file, "{why}");
    }
}

#[test]
fn every_number_of_the_page_is_ours() {
    let ours = constants();
    let mut names: Vec<&str> = ours.keys().map(String::as_str).collect();
    let mut expected = ours.clone();
    for line in PAGE.lines().filter_map(|line| line.strip_prefix("define ")) {
        let (name, value) = line.split_once(' ').unwrap_or((line, ""));
        assert!(ours.contains_key(name), "the crate has no {name}");
        if !value.is_empty() {
            let value =
                value.strip_prefix("0x").map_or_else(|| value.parse(), |hex| u64::from_str_radix(hex, 16));
            assert_eq!(ours[name], value.expect("a number"), "{name}");
        }
    }
    names.extend(["PF_KEY_V2", "SADB_RESERVED", "SADB_EXT_RESERVED", "IPPROTO_ENCAP", "PF_KEY"]);
    expected.extend([
        ("PF_KEY_V2".into(), 2),
        ("SADB_RESERVED".into(), 0),
        ("SADB_EXT_RESERVED".into(), 0),
        ("IPPROTO_ENCAP".into(), 4),
        ("PF_KEY".into(), 15),
    ]);
    let mut body = "int main(void) {\n".to_owned();
    for name in &names {
        writeln!(body, "printf(\"%s %lu\\n\", \"{name}\", (unsigned long){name});").expect("text");
    }
    body += "return 0; }\n";
    for (compiler, language) in COMPILERS {
        let Some(out) = run(compiler, language, &body) else { continue };
        let printed: BTreeMap<String, u64> = out
            .lines()
            .map(|line| {
                let (name, value) = line.split_once(' ').expect("two words");
                (name.to_owned(), value.parse().expect("a number"))
            })
            .collect();
        assert_eq!(printed, expected, "{compiler}");
    }
}

#[test]
fn every_field_of_the_page_is_where_its_types_put_it() {
    let (mut body, mut expected) = ("int main(void) {\n".to_owned(), String::new());
    let (mut name, mut offset) = ("", 0);
    let mut structs = 0;
    for line in PAGE.lines().chain(["struct end"]) {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["struct", next] => {
                if !name.is_empty() {
                    writeln!(body, "printf(\"{name} %lu\\n\", (unsigned long)sizeof(struct {name}));")
                        .unwrap();
                    writeln!(expected, "{name} {offset}").unwrap();
                    structs += 1;
                }
                (name, offset) = (next, 0);
            }
            ["field", size, field] => {
                let of = format!("((struct {name} *)0)->{field}");
                writeln!(
                    body,
                    "printf(\"{field} %lu %lu\\n\", (unsigned long)offsetof(struct {name}, {field}), \
                     (unsigned long)sizeof({of}));"
                )
                .unwrap();
                writeln!(expected, "{field} {offset} {size}").unwrap();
                offset += size.parse::<usize>().expect("a size");
            }
            _ => {}
        }
    }
    assert_eq!(structs, 18, "structures on the page");
    body += "return 0; }\n";
    for (compiler, language) in COMPILERS {
        if let Some(out) = run(compiler, language, &body) {
            assert_eq!(out, expected, "{compiler}");
        }
    }
}

/// One of every extension, each field with a value of its own, as a C program writes it with the names of the header.
const EVERYTHING: &str = r#"
static unsigned char out[4096];
static size_t at = sizeof(struct sadb_msg);
static void put(const void *what, size_t size) { memcpy(out + at, what, size); at += size; }
static void address(int kind, int proto, int prefix, const char *host, int port)
{
	struct sadb_address a; struct sockaddr_in s;
	memset(&a, 0, sizeof a); memset(&s, 0, sizeof s);
	a.sadb_address_len = (uint16_t)((sizeof a + sizeof s) / 8); a.sadb_address_exttype = (uint16_t)kind;
	a.sadb_address_proto = (uint8_t)proto; a.sadb_address_prefixlen = (uint8_t)prefix;
	s.sin_family = AF_INET; s.sin_port = htons((uint16_t)port); s.sin_addr.s_addr = inet_addr(host);
	put(&a, sizeof a); put(&s, sizeof s);
}
int main(void)
{
	struct sadb_msg m; struct sadb_sa sa; struct sadb_lifetime l; struct sadb_key k; struct sadb_ident i;
	struct sadb_sens z; struct sadb_prop p; struct sadb_comb c; struct sadb_x_ecomb e; struct sadb_x_algdesc d;
	struct sadb_x_ereg g; struct sadb_x_kmc q; struct sadb_supported u; struct sadb_alg a; struct sadb_spirange r;
	struct sadb_x_pair y; struct sadb_x_replay_ctr rc; struct sadb_x_edump ed; struct sadb_ext *first; size_t n;
	memset(&sa, 0, sizeof sa); sa.sadb_sa_len = 2; sa.sadb_sa_exttype = SADB_EXT_SA; sa.sadb_sa_spi = htonl(0x12345678);
	sa.sadb_sa_replay = 64; sa.sadb_sa_state = SADB_SASTATE_MATURE; sa.sadb_sa_auth = SADB_AALG_SHA256HMAC;
	sa.sadb_sa_encrypt = SADB_EALG_AES; sa.sadb_sa_flags = SADB_X_SAFLAGS_TUNNEL | SADB_X_SAFLAGS_OUTBOUND; put(&sa, sizeof sa);
	memset(&l, 0, sizeof l); l.sadb_lifetime_len = 4; l.sadb_lifetime_exttype = SADB_EXT_LIFETIME_HARD; l.sadb_lifetime_allocations = 1;
	l.sadb_lifetime_bytes = 2; l.sadb_lifetime_addtime = 3; l.sadb_lifetime_usetime = 4; put(&l, sizeof l);
	address(SADB_EXT_ADDRESS_SRC, IPPROTO_ENCAP, 0, "192.0.2.1", 500);
	address(SADB_X_EXT_ADDRESS_INNER_DST, 6, 24, "10.1.2.0", 0);
	memset(&k, 0, sizeof k); k.sadb_key_len = 3; k.sadb_key_exttype = SADB_EXT_KEY_ENCRYPT; k.sadb_key_bits = 128; put(&k, sizeof k); put("0123456789abcdef", 16);
	memset(&i, 0, sizeof i); i.sadb_ident_len = 4; i.sadb_ident_exttype = SADB_EXT_IDENTITY_SRC; i.sadb_ident_type = SADB_IDENTTYPE_FQDN; i.sadb_ident_id = 9; put(&i, sizeof i); put("east.example\0\0\0", 16);
	memset(&z, 0, sizeof z); z.sadb_sens_len = 4; z.sadb_sens_exttype = SADB_EXT_SENSITIVITY; z.sadb_sens_dpd = 7; z.sadb_sens_sens_level = 1; z.sadb_sens_sens_len = 1;
	z.sadb_sens_integ_level = 2; z.sadb_sens_integ_len = 1; z.sadb_sens_reserved = 3; put(&z, sizeof z); put("aaaaaaaabbbbbbbb", 16);
	memset(&p, 0, sizeof p); memset(&c, 0, sizeof c); p.sadb_prop_len = 10; p.sadb_prop_exttype = SADB_EXT_PROPOSAL; p.sadb_prop_replay = 32; put(&p, sizeof p);
	c.sadb_comb_auth = 5; c.sadb_comb_encrypt = 12; c.sadb_comb_auth_minbits = 10; c.sadb_comb_auth_maxbits = 11; c.sadb_comb_encrypt_minbits = 13; c.sadb_comb_encrypt_maxbits = 14;
	c.sadb_comb_soft_allocations = 15; c.sadb_comb_hard_allocations = 16; c.sadb_comb_soft_bytes = 17; c.sadb_comb_hard_bytes = 18; c.sadb_comb_soft_addtime = 19;
	c.sadb_comb_hard_addtime = 20; c.sadb_comb_soft_usetime = 21; c.sadb_comb_hard_usetime = 22; put(&c, sizeof c);
	memset(&e, 0, sizeof e); memset(&d, 0, sizeof d); p.sadb_prop_len = 10; p.sadb_prop_exttype = SADB_X_EXT_EPROP; p.sadb_x_prop_numecombs = 1; p.sadb_x_prop_ereserved = 0; put(&p, sizeof p);
	e.sadb_x_ecomb_numalgs = 1; e.sadb_x_ecomb_soft_allocations = 15; e.sadb_x_ecomb_hard_allocations = 16; e.sadb_x_ecomb_soft_bytes = 17; e.sadb_x_ecomb_hard_bytes = 18;
	e.sadb_x_ecomb_soft_addtime = 19; e.sadb_x_ecomb_hard_addtime = 20; e.sadb_x_ecomb_soft_usetime = 21; e.sadb_x_ecomb_hard_usetime = 22; put(&e, sizeof e);
	d.sadb_x_algdesc_satype = SADB_SATYPE_ESP; d.sadb_x_algdesc_algtype = SADB_X_ALGTYPE_CRYPT; d.sadb_x_algdesc_alg = SADB_EALG_AES_GCM_ICV16; d.sadb_x_algdesc_minbits = 128; d.sadb_x_algdesc_maxbits = 256; put(&d, sizeof d);
	memset(&g, 0, sizeof g); g.sadb_x_ereg_len = 1; g.sadb_x_ereg_exttype = SADB_X_EXT_EREG; g.sadb_x_ereg_satypes[0] = SADB_SATYPE_AH; g.sadb_x_ereg_satypes[1] = SADB_SATYPE_ESP; put(&g, sizeof g);
	memset(&q, 0, sizeof q); q.sadb_x_kmc_len = 2; q.sadb_x_kmc_exttype = SADB_X_EXT_KM_COOKIE; q.sadb_x_kmc_proto = SADB_X_KMP_KINK; q.sadb_x_kmc_cookie = 77; put(&q, sizeof q);
	memset(&u, 0, sizeof u); memset(&a, 0, sizeof a); u.sadb_supported_len = 2; u.sadb_supported_exttype = SADB_EXT_SUPPORTED_AUTH; put(&u, sizeof u);
	a.sadb_alg_id = SADB_AALG_SHA1HMAC; a.sadb_alg_ivlen = 8; a.sadb_alg_minbits = 160; a.sadb_alg_maxbits = 161; put(&a, sizeof a);
	memset(&r, 0, sizeof r); r.sadb_spirange_len = 2; r.sadb_spirange_exttype = SADB_EXT_SPIRANGE; r.sadb_spirange_min = htonl(0x100); r.sadb_spirange_max = htonl(0xffff); put(&r, sizeof r);
	memset(&y, 0, sizeof y); y.sadb_x_pair_len = 1; y.sadb_x_pair_exttype = SADB_X_EXT_PAIR; y.sadb_x_pair_spi = htonl(0x1001); put(&y, sizeof y);
	memset(&rc, 0, sizeof rc); rc.sadb_x_rc_len = 2; rc.sadb_x_rc_exttype = SADB_X_EXT_REPLAY_VALUE; rc.sadb_x_rc_replay32 = 5; rc.sadb_x_rc_replay64 = 6; put(&rc, sizeof rc);
	memset(&ed, 0, sizeof ed); ed.sadb_x_edump_len = 2; ed.sadb_x_edump_exttype = SADB_X_EXT_EDUMP; ed.sadb_x_edump_timeout = 60; put(&ed, sizeof ed);
	memset(&m, 0, sizeof m); m.sadb_msg_version = PF_KEY_V2; m.sadb_msg_type = SADB_ADD; m.sadb_msg_satype = SADB_SATYPE_ESP; m.sadb_msg_errno = 0;
	m.sadb_x_msg_diagnostic = SADB_X_DIAGNOSTIC_NONE; m.sadb_msg_len = (uint16_t)(at / 8); m.sadb_msg_seq = 7; m.sadb_msg_pid = 4242; memcpy(out, &m, sizeof m);
	first = (struct sadb_ext *)(void *)(out + sizeof m);
	if (first->sadb_ext_len != 2 || first->sadb_ext_type != SADB_EXT_SA) return 1;
	for (n = 0; n < at; n++) printf("%02x", out[n]);
	return 0;
}
"#;

#[test]
fn what_c_writes_is_what_rust_writes() {
    let limits = Limits { allocations: (15, 16), bytes: (17, 18), addtime: (19, 20), usetime: (21, 22) };
    let mut w = Writer::new(&Base::request(MessageType::Add, SaType::Esp, 7, 4242));
    let address = |proto, prefix, socket: &str| Address { proto, prefix, socket: socket.parse().ok() };
    let crypt = Descriptor {
        satype: SaType::Esp.number(),
        kind: pfkey::AlgorithmKind::Crypt,
        id: 20,
        salt_bits: 0,
        bits: (128, 256),
    };
    w.sa(&Sa { spi: 0x1234_5678, replay: 64, state: 1, auth: 5, encrypt: 12, flags: 0x2_8000 })
        .lifetime(ExtType::LifetimeHard, &Lifetime { allocations: 1, bytes: 2, addtime: 3, usetime: 4 })
        .address(ExtType::AddressSrc, &address(4, 0, "192.0.2.1:500"))
        .address(ExtType::AddressInnerDst, &address(6, 24, "10.1.2.0:0"))
        .key(ExtType::KeyEncrypt, 128, 0, b"0123456789abcdef")
        .identity(ExtType::IdentitySrc, &Identity { kind: identity::FQDN, id: 9, text: b"east.example" })
        .sensitivity(
            ExtType::Sensitivity,
            &Sensitivity {
                domain: 7,
                level: 1,
                integrity_level: 2,
                flags: 3,
                bitmap: b"aaaaaaaa",
                integrity_bitmap: b"bbbbbbbb",
            },
        )
        .proposal(
            32,
            &[Comb {
                auth: 5,
                encrypt: 12,
                auth_bits: (10, 11),
                encrypt_bits: (13, 14),
                salt_bits: 0,
                limits,
            }],
        )
        .eprop(32, &[Ecomb { limits, algorithms: vec![crypt] }])
        .ereg(&[2, 3])
        .km_cookie(&KmCookie { proto: km::KINK, cookie: 77 })
        .supported(
            ExtType::SupportedAuth,
            &[Algorithm { id: 3, iv: 8, min_bits: 160, max_bits: 161, increment: 0, salt_bits: 0 }],
        )
        .spi_range(&SpiRange { min: 0x100, max: 0xffff })
        .pair(&Pair { spi: 0x1001 })
        .replay_value(&ReplayValue { low: 5, high: 6 })
        .edump(60);
    let record = w.finish().expect("short enough");
    Message::parse(&record).expect("a message");
    let ours = record.iter().fold(String::new(), |mut hex, octet| {
        write!(hex, "{octet:02x}").expect("text");
        hex
    });
    for (compiler, language) in COMPILERS {
        if let Some(theirs) = run(compiler, language, EVERYTHING) {
            assert_eq!(theirs, ours, "{compiler}");
        }
    }
}
