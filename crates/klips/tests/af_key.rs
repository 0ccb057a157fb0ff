//! The questions of a probe, answered by Linux's own af_key (`data/af_key.json`: what was sent to it and what each socket heard)
//! and by us. Where the answers differ, the table below says why; nothing else may differ.
//!
//! Compared are, for each message and each socket, the messages heard: their type, errno and SA type, which extensions they have
//! and what is in them. What cannot be the same is not compared: SPIs and policies have the numbers that the answers gave them,
//! times are those of the clock, and lists of algorithms are each kernel's own. A `write` that af_key refuses is a message with
//! that errno here: the service answers each.

mod linux_world;
mod pfkey_support;

use linux_world::*;
use pfkey::dialect::linux::Record;
use pfkey_support::*;
use serde_json::Value;

const POLICY: u16 = 18;

/// What is different, and why.
const DIFFERENT: &[(&[&str], &str)] = &[
    (&["ext-unknown27"], "an extension that nobody here knows may be what matters: refused, not overlooked"),
    (&["ext-long-sa"], "RFC 2367 §2.3.1: the SA extension has one length"),
    (
        &[
            "hdr-satype-1",
            "register-unspec",
            "register-rsvp",
            "register-ospfv2",
            "register-ripv2",
            "register-mip",
        ],
        "there are AH, ESP and IPComp, and no ACQUIRE would ever come for anything else",
    ),
    (&["getspi-ipcomp-big"], "a CPI has 16 bits, but the service reserves 32-bit SPIs of every SA type"),
    (&["getspi-norange", "getspi-zero"], "RFC 2367 §3.1.1 demands the range, and an SPI of 0 names nothing"),
    (
        &[
            "add-esp-gcm",
            "add-ealg14-19",
            "add-ealg15-19",
            "add-ealg16-19",
            "add-ealg18-20",
            "add-ealg19-20",
            "add-ealg20-20",
            "add-ealg20-28",
            "add-ealg20-36",
            "add-ealg23-20",
            "add-bad-gcm-key16",
            "add-bad-gcm-plus-auth",
        ],
        "af_key cannot add AEADs at all, though its header has their numbers; here they work, and are checked",
    ),
    (
        &[
            "add-ealg2-8",
            "add-ealg6-16",
            "add-ealg7-16",
            "add-ealg13-20",
            "add-ealg22-16",
            "add-ealg252-16",
            "add-ealg253-16",
            "add-cbc-aalg8",
            "add-ah-aalg8",
        ],
        "DES, CAST-128, Blowfish, AES-CTR, Camellia, Serpent, Twofish and RIPEMD-160 are not here (RFC 8221)",
    ),
    (
        &[
            "add-ealg11-0",
            "add-aalg2-16",
            "add-aalg3-20",
            "add-aalg5-32",
            "add-aalg6-48",
            "add-aalg7-64",
            "add-aalg9-16",
            "add-null-nokey",
        ],
        "NULL has no key, so none has to be there; a key of no bits, which af_key wants, may be",
    ),
    (&["add-aalg8-20", "add-aalg250-16"], "the unknown algorithm is named before the key that is missing"),
    (&["add-sa2-beet"], "there is no BEET mode"),
    (&["add-natt-type1", "add-natt-type9"], "there is ESP in UDP as RFC 3948 has it alone"),
    (&["add-soft-gt-hard"], "RFC 2367 §2.3.2: a soft limit is below the hard one, or it is never told"),
    (&["add-proxy"], "in transport mode an SA has no network inside; in tunnel mode it is kept"),
    (&["add-ah-enc"], "AH encrypts nothing; a cipher there is a mistake"),
    (&["add-larval", "add-dying", "add-dead"], "RFC 2367 §3.1.3: what is added is mature"),
    (&["add-replay64", "add-replay255"], "af_key cuts windows to 32; here there is what was asked for"),
    (
        &["add-flags-noecn", "add-flags-nopmtu"],
        "how outer and inner headers depend on each other is RFC 6040's, whatever the flags say",
    ),
    (&["add-flags-unknown"], "a flag that nobody here knows may be what matters: refused, not overlooked"),
    (&["add-bad-auth-short31"], "a key of HMAC has the length that RFC 4868 says"),
    (&["add-cbc-aalg251"], "no integrity is 0 here, by whichever number it was asked for"),
    (&["add-satype0", "delete-satype0"], "refused for the same reason with another errno"),
    (
        &["update-mature", "update-mature-key"],
        "UPDATE of a mature SA changes its lifetimes, and never its keys or its window",
    ),
    (&["get-wrongsrc"], "an SA is found by what it is said to be, its source included"),
    (
        &["get-larval", "dump-larval", "acquire-nack"],
        "the thirty seconds of a reserved SPI are not told as a lifetime",
    ),
    (
        &["dump-filter", "dump-filter-v6", "dump-filter-plen"],
        "X_FILTER is refused: who asked for some SAs would have got all",
    ),
    (
        &["spdadd-two"],
        "a tunnel may be one that is only used, as in KAME; Linux takes none for what goes out",
    ),
    (
        &["flush-empty", "flush-esp", "flush-all", "spdflush", "spdflush-empty", "promisc-on-off"],
        "each is answered once, and all hear of a FLUSH, also of nothing",
    ),
    (&["promisc-len"], "the answer is the header alone"),
    (&["acquire-user", "acquire-nack-exts"], "RFC 2367 §3.1.6: an ACQUIRE of a key manager has no answer"),
    (&["spdadd-ipsec-noreq", "spdsetidx"], "a policy that protects says with what"),
    (
        &["spdupdate", "spdadd-transport-unique", "spdadd-unique0", "spdadd-use", "spdadd-default"],
        "transport mode is between two hosts, and these policies are between networks",
    ),
    (&["spdadd-life"], "a policy that ends by itself would leave what it protects in clear"),
    (&["spddelete2"], "others hear of one kind of deletion"),
    (&["migrate", "migrate-none"], "SAs and policies move one by one, by UPDATE and SPDUPDATE"),
];

/// Errno of a refused `write` by name.
fn number(name: &str) -> u8 {
    match name {
        "EINVAL" => EINVAL,
        "EMSGSIZE" => EMSGSIZE,
        "EOPNOTSUPP" => EOPNOTSUPP,
        other => panic!("{other}"),
    }
}

/// One message as it is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Said {
    kind: u8,
    errno: u8,
    satype: u8,
    /// The end of a DUMP.
    last: bool,
    exts: Vec<(u16, Vec<u8>)>,
}

/// Words that one side has in the place of the other's: SPIs and numbers of policies.
#[derive(Default)]
struct Words(Vec<([u8; 4], [u8; 4])>);

impl Words {
    /// The octets, which are Linux's, as they must be here.
    fn ours(&self, octets: &[u8]) -> Vec<u8> {
        let word = |word: &[u8]| {
            let known = self.0.iter().find(|(theirs, _)| theirs == word);
            known.map_or(word.to_vec(), |(_, ours)| ours.to_vec())
        };
        octets.chunks(4).flat_map(word).collect()
    }

    /// Learns what an answer has given a name to.
    fn learn(&mut self, theirs: &Heard, ours: &Heard) {
        let named = |heard: &Heard| match heard.kind {
            GETSPI => heard.find(SA).map(|sa| sa[..4].to_vec()),
            _ => heard.find(POLICY).map(|policy| policy[4..8].to_vec()),
        };
        if let Some((theirs, ours)) = named(theirs).zip(named(ours))
            && theirs != ours
            && theirs != [0; 4]
        {
            self.0.push((theirs.try_into().unwrap(), ours.try_into().unwrap()));
        }
    }
}

/// A message without what is different everywhere.
fn said(heard: &Heard) -> Said {
    // What setkey reads of either.
    assert!(heard.errno != 0 || Record::parse(&heard.octets).is_ok(), "{heard:?}");
    let mut exts = heard.exts();
    let limits = |body: &[u8]| body.iter().any(|octet| *octet != 0);
    exts.retain(|(kind, body)| match *kind {
        // Times are those of the clock, and of what is counted nothing is.
        CURRENT => false,
        // There is a list for each SA type there, and the algorithms are each kernel's own.
        SUPPORTED_AUTH | SUPPORTED_ENCRYPT | PROPOSAL => false,
        // No limit is one of zeros there, and a reservation has thirty seconds, which it has here, too.
        HARD | SOFT => limits(body) && heard.kind != GETSPI,
        // A selector of everything is told there, and is none here.
        INNER_SRC => body[1] != 0,
        // RFC 2367 tells no key but to who asks for it.
        AKEY | EKEY => [GET, DUMP].contains(&heard.kind),
        _ => true,
    });
    // Nothing says in which order they come.
    exts.sort_by_key(|(kind, _)| *kind);
    let dumps = [DUMP, SPDDUMP].contains(&heard.kind);
    Said { kind: heard.kind, errno: heard.errno, satype: heard.satype, last: dumps && heard.seq == 0, exts }
}

const SPDDUMP: u8 = 18;

/// All of them; those of a DUMP come in any order, and the last of them is marked.
fn in_order(all: &[Heard]) -> Vec<Said> {
    let mut all: Vec<Said> = all.iter().map(said).collect();
    let ends: Vec<usize> = (0..all.len()).filter(|n| all[*n].last).collect();
    if let [end] = ends[..]
        && end == all.len() - 1
        && all.iter().all(|one| one.kind == all[0].kind)
    {
        all[end].last = false;
        all.sort_by(|a, b| a.exts.cmp(&b.exts));
        all[end].last = true;
    }
    all
}

/// The records of one socket in a step's answer.
fn recorded(step: &Value, socket: &str) -> Vec<Heard> {
    let all = step["heard"][socket].as_array().into_iter().flatten();
    all.map(|octets| Heard::new(hex::decode(octets.as_str().unwrap()).unwrap())).collect()
}

/// The first difference in a case, if there is one.
fn difference(case: &Value) -> Option<String> {
    let mut world = World::new();
    let mut words = Words::default();
    for (n, step) in case["steps"].as_array().unwrap().iter().enumerate() {
        let by = ["A", "B", "C"].iter().position(|name| step["by"] == *name).unwrap();
        let octets = words.ours(&hex::decode(step["send"].as_str().unwrap()).unwrap());
        let answers = world.ask_octets(by, &octets);
        let others: Vec<Vec<Heard>> =
            (0..3).map(|socket| if socket == by { Vec::new() } else { world.hear(socket) }).collect();
        for (socket, name) in ["A", "B", "C"].into_iter().enumerate() {
            let here = if socket == by { &answers } else { &others[socket] };
            let mut there = recorded(step, name);
            if socket == by {
                if let Some(errno) = step["refused"].as_str() {
                    let one = here.first().map(|one| one.errno);
                    if one != Some(number(errno)) {
                        return Some(format!("step {n}: a write that fails, {errno}; here {one:?}"));
                    }
                    continue;
                }
                there.iter().zip(here).for_each(|(theirs, ours)| words.learn(theirs, ours));
            }
            for one in &mut there {
                *one = Heard::new(words.ours(&one.octets));
            }
            let (there, here) = (in_order(&there), in_order(here));
            if there != here {
                return Some(format!(
                    "step {n}, {name}:\n    there {}\n    here  {}",
                    show(&there, &here),
                    show(&here, &there)
                ));
            }
        }
    }
    None
}

/// What is in one list of messages and not in the other.
fn show(these: &[Said], those: &[Said]) -> String {
    let one = |(n, one): (usize, &Said)| {
        let other = those.get(n);
        let exts: Vec<String> = one
            .exts
            .iter()
            .filter(|ext| other.is_none_or(|other| !other.exts.contains(ext)))
            .map(|(kind, body)| format!("{kind}:{}", hex::encode(body)))
            .collect();
        let last = if one.last { " last" } else { "" };
        format!("[type {} errno {} satype {}{last} {}]", one.kind, one.errno, one.satype, exts.join(" "))
    };
    these.iter().enumerate().map(one).collect::<Vec<_>>().join(" ")
}

#[test]
fn what_linux_answers_is_answered_here_but_for_what_the_table_says() {
    let recorded: Value = serde_json::from_str(include_str!("data/af_key.json")).unwrap();
    let cases = recorded["cases"].as_array().unwrap();
    assert!(cases.len() > 150, "{}", cases.len());
    let mut wrong = Vec::new();
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let known = DIFFERENT.iter().any(|(names, _)| names.contains(&name));
        match (difference(case), known) {
            (None, false) | (Some(_), true) => {}
            (Some(what), false) => {
                wrong.push(format!("{name} ({}): {what}", case["about"].as_str().unwrap()))
            }
            (None, true) => wrong.push(format!("{name}: no difference any more")),
        }
    }
    for name in DIFFERENT.iter().flat_map(|(names, _)| *names) {
        assert!(cases.iter().any(|case| case["name"] == *name), "{name}: no such case");
    }
    assert!(wrong.is_empty(), "{}\n{} of {}", wrong.join("\n"), wrong.len(), cases.len());
}
