use super::*;
use crate::command::key::attribute::{KEYWORDS, KeyBits, Keyword};
use crate::command::key::words::{self, Lines};
use pfkey::{Lifetime, identity, state};
use proptest::prelude::*;
use zeroize::Zeroizing;

fn at(place: Place, line: &str) -> Result<Command, String> {
    let mut words = Vec::new();
    words::split(line, 7, &mut words).expect("words");
    command(&words, place).map_err(|wrong| wrong.to_string())
}

fn ask(line: &str) -> Ask {
    match at(Place::File, line) {
        Ok(Command::Ask(ask)) => *ask,
        other => panic!("{line}: {other:?}"),
    }
}

/// What the words mean in an ADD that has all it needs.
fn said(words: &str) -> Attributes {
    ask(&format!("add esp spi 0x100 dst 192.0.2.1 auth_alg sha1 authkey 00 {words}")).sa
}

fn wrong(line: &str) -> String {
    at(Place::File, line).expect_err(line)
}

fn host(text: &str) -> Option<Host> {
    Some(Host::Ip(text.parse().expect("address")))
}

#[test]
fn the_commands() {
    assert_eq!(ask("flush").satype, SaType::Unspec);
    assert_eq!((ask("flush esp").kind, ask("flush AH").satype), (MessageType::Flush, SaType::Ah));
    for (word, kind) in
        [("get", MessageType::Get), ("delete", MessageType::Delete), ("delete-pair", MessageType::DelPair)]
    {
        let line =
            format!("{word} 3 spi 256 src 192.0.2.2 dst 192.0.2.1 sport 1 dport 2 proto 6 inbound outbound");
        let ask = ask(&line);
        assert_eq!((ask.kind, ask.satype, ask.sa.spi, ask.line), (kind, SaType::Esp, Some(256), 7));
        assert!(at(Place::Arguments, &line).is_ok() && at(Place::Prompt, &line).is_ok());
    }
    for (word, kind) in [("update", MessageType::Update), ("update-pair", MessageType::UpdatePair)] {
        assert_eq!(ask(&format!("{word} ah spi 0x100 dst 2001:db8::1 hard_bytes 5")).kind, kind);
    }
    let prompt = |line| at(Place::Prompt, line).expect(line);
    assert_eq!(prompt("dump"), Command::Dump(SaType::Unspec));
    assert_eq!(prompt("dump comp"), Command::Dump(SaType::Ipcomp));
    assert_eq!(prompt("save all -"), Command::Save(SaType::Unspec, None));
    assert_eq!(prompt("save esp \"a file\""), Command::Save(SaType::Esp, Some("a file".to_owned())));
    assert_eq!(prompt("monitor"), Command::Monitor { active: true });
    assert_eq!(prompt("pmonitor"), Command::Monitor { active: false });
    assert_eq!(prompt("passive_monitor"), Command::Monitor { active: false });
    assert_eq!(prompt("? add"), Command::Help(Some("add".to_owned())));
    assert_eq!((prompt("quit"), prompt("exit")), (Command::Quit, Command::Quit));
}

#[test]
fn where_a_command_may_stand() {
    for line in ["dump", "save all", "monitor", "pmonitor", "help"] {
        assert!(wrong(line).contains("not in a file"), "{line}");
    }
    for word in ["add", "update", "update-pair"] {
        let why =
            at(Place::Arguments, &format!("{word} esp spi 0x100 dst 192.0.2.1 hard_bytes 5")).unwrap_err();
        assert!(why.contains("not on the command line"), "{why}");
    }
}

#[test]
fn every_word_means_its_field() {
    let base = said("");
    let is = |words: &str, change: &dyn Fn(&mut Attributes)| {
        let mut expected = base.clone();
        change(&mut expected);
        assert_eq!(said(words), expected, "{words}");
    };
    is("pair-spi 0x200", &|sa| sa.pair_spi = Some(0x200));
    is("replay 4096 esn", &|sa| (sa.replay, sa.esn) = (Some(4096), true));
    is("state Mature", &|sa| sa.state = Some(state::MATURE));
    is("state dying", &|sa| sa.state = Some(state::DYING));
    is("state dead", &|sa| sa.state = Some(state::DEAD));
    for (word, number) in [("aes", 12), ("AES-GCM16", 20), ("3des", 3), ("14", 14), ("0x80", 128)] {
        is(&format!("encr_alg {word}"), &|sa| sa.encrypt = Some(number));
        is(&format!("encralg {word}"), &|sa| sa.encrypt = Some(number));
    }
    for (term, field) in [("hard", 0), ("soft", 1)] {
        let words = format!("{term}_alloc 1 {term}_bytes 2 {term}_addtime 3 {term}_usetime 4");
        let life = Lifetime { allocations: 1, bytes: 2, addtime: 3, usetime: 4 };
        is(&words, &|sa| *[&mut sa.hard, &mut sa.soft][field] = life);
    }
    is("idle_addtime 3 idle_usetime 4", &|sa| (sa.idle.addtime, sa.idle.usetime) = (3, 4));
    for word in ["src", "srcaddr", "saddr"] {
        is(&format!("{word} 192.0.2.9"), &|sa| sa.src = host("192.0.2.9"));
        is(&format!("{word} ::ffff:192.0.2.9"), &|sa| sa.src = host("192.0.2.9"));
        is(&format!("{word} gw.example"), &|sa| sa.src = Some(Host::Name("gw.example".to_owned(), false)));
        is(&format!("{word}6 gw.example"), &|sa| sa.src = Some(Host::Name("gw.example".to_owned(), true)));
    }
    for words in ["isrc 10.0.0.0/8 idst ten", "proxy 10.0.0.0/8 innerdst ten", "innersrc 10.0.0.0/8 idst ten"]
    {
        is(words, &|sa| {
            sa.inner_src = host("10.0.0.0").map(|host| (host, Some(8)));
            sa.inner_dst = Some((Host::Name("ten".to_owned(), false), None));
        });
    }
    is("sport 1 dport 65535 proto tcp", &|sa| (sa.sport, sa.dport, sa.proto) = (1, 65535, 6));
    is("ulp 0x11", &|sa| sa.proto = 17);
    for words in ["isport 1 idport 2 iproto 6", "innersport 1 innerdport 2 iulp 6"] {
        is(&format!("isrc6 ::/0 idst6 ::1 {words}"), &|sa| {
            (sa.inner_sport, sa.inner_dport, sa.inner_proto) = (1, 2, 6);
            sa.inner_src = host("::").map(|host| (host, Some(0)));
            sa.inner_dst = host("::1").map(|host| (host, None));
        });
    }
    is("encap udp nat_loc 192.0.2.3 nat_rem 192.0.2.4 nat_lport 4500 nat_rport 4501", &|sa| {
        sa.encap = true;
        (sa.nat_loc, sa.nat_rem) = ("192.0.2.3".parse().ok(), "192.0.2.4".parse().ok());
        (sa.nat_lport, sa.nat_rport) = (Some(4500), Some(4501));
    });
    for (word, kind) in [
        ("prefix", identity::PREFIX),
        ("domainname", identity::FQDN),
        ("mailbox", identity::USER_FQDN),
        ("7", 7),
    ] {
        is(&format!("srcidtype {word} \"a b\" dstidtype {word} \"\""), &|sa| {
            sa.src_identity = Some((kind, "a b".to_owned()));
            sa.dst_identity = Some((kind, String::new()));
        });
    }
    is("replay_value 012 inbound outbound", &|sa| {
        (sa.replay_value, sa.inbound, sa.outbound) = (Some(10), true, true);
    });
    is("reserved_bits 8 encrkey 00ff", &|sa| {
        sa.reserved_bits = 8;
        sa.encrypt_key = Some(KeyBits { octets: Zeroizing::new(vec![0, 255]), bits: 16 });
    });
}

#[test]
fn keys_are_hexadecimal_and_may_be_cut() {
    let key =
        |text: &str| said(&format!("encrkey {text}")).encrypt_key.map(|key| (key.octets.to_vec(), key.bits));
    assert_eq!(key("0xDEADbeef"), Some((vec![0xde, 0xad, 0xbe, 0xef], 32)));
    assert_eq!(key("abc"), Some((vec![0xab, 0xc0], 16)), "an odd digit is the high half");
    assert_eq!(key("aabbcc/16"), Some((vec![0xaa, 0xbb], 16)));
    assert_eq!(key("aabbcc/17"), Some((vec![0xaa, 0xbb, 0xcc], 17)));
    for bad in ["xyz", "0x", "/8", "aa/0", "aa/9", "aa/", "aa/8x", "\"\"", "0xaa0x"] {
        let why = wrong(&format!("add esp spi 0x100 dst 192.0.2.1 encr_alg aes encrkey {bad}"));
        assert!(why.starts_with("encrkey: "), "{why}");
    }
}

#[test]
fn what_is_wrong_names_the_word_and_the_remedy() {
    let full = "add esp spi 0x100 dst 192.0.2.1 auth_alg sha1 authkey 00";
    for (line, word, remedy) in [
        ("bogus", "bogus: ", "`help'"),
        ("add", "add: ", "esp or ah"),
        ("add all spi 1", "all: ", "one SA type"),
        ("add rsvp spi 1", "rsvp: ", "esp"),
        ("flush 4", "4: ", "not an SA type"),
        ("flush esp now", "now: ", "nothing more"),
        ("quit now", "now: ", "nothing more"),
        ("save", "save: ", "`save all'"),
        ("get esp dst 192.0.2.1", "get: ", "`spi NUMBER'"),
        ("add esp spi 0x50 dst 192.0.2.1 encr_alg aes-gcm16 encrkey 00", "add: ", "0x100 up"),
        ("update ah spi 0xff dst 192.0.2.1 hard_bytes 5", "update: ", "reserved"),
        ("add esp spi 0x100 dst 192.0.2.1 encr_alg aes encrkey 00", "add: ", "auth_alg and authkey"),
        ("get esp spi 1", "get: ", "`dst ADDRESS'"),
        ("get esp spi 1 dst 192.0.2.1 hard_bytes 1", "hard_bytes: ", "spi, src, dst"),
        ("get esp spi", "spi: ", "a value must follow"),
        ("get esp spi 1x dst 192.0.2.1", "1x: ", "0x0a"),
        ("get esp spi -1 dst 192.0.2.1", "-1: ", "not a number"),
        ("get esp spi 0x100000000 dst 192.0.2.1", "0x100000000: ", "32 bits"),
        ("get esp spi 1 spi 2 dst 192.0.2.1", "spi: ", "twice"),
        ("get esp spi 1 dst 192.0.2.1 dst6 ::1", "dst6: ", "twice"),
        ("get esp spi 1 dst 192.0.2.1 dport 65536", "65536: ", "16 bits"),
        ("get esp spi 1 dst 192.0.2", "192.0.2: ", "address"),
        ("get esp spi 1 dst6 192.0.2.1", "192.0.2.1: ", "without the 6"),
        ("get esp spi 1 src ::1 dst 192.0.2.1", "get: ", "of one"),
        ("get esp spi 1 dst 192.0.2.1 proto frob", "frob: ", "like tcp"),
        ("add esp spi 0 dst 192.0.2.1 auth_alg sha1 authkey 00", "add: ", "0x100"),
        ("add esp spi 0x100 dst 192.0.2.1 authkey 00", "add: ", "encr_alg or auth_alg"),
        ("add esp spi 0x100 dst 192.0.2.1 auth_alg sha1", "add: ", "encrkey or authkey"),
        ("add ah spi 0x100 dst 192.0.2.1 auth_alg sha1 authkey 00 encr_alg aes", "add: ", "use esp"),
        ("update-pair esp spi 0x100 dst 192.0.2.1 pair-spi 5", "update-pair: ", "use update"),
    ] {
        let why = wrong(line);
        assert!(why.starts_with(word) && why.contains(remedy), "{line}: {why}");
    }
    for (words, word, remedy) in [
        ("sprot 5", "sprot: ", "`help add'"),
        ("hard_time 5", "hard_time: ", "hard_bytes"),
        ("auth_alg frob", "auth_alg: ", "twice"),
        ("encr_alg frob", "frob: ", "aes-gcm16"),
        ("encr_alg 256", "256: ", "8 bits"),
        ("state larval", "larval: ", "GETSPI"),
        ("state 1", "1: ", "mature"),
        ("flags 1", "flags: ", "leave it out"),
        ("current_bytes 1", "current_bytes: ", "leave it out"),
        ("label secret", "label: ", "leave it out"),
        ("dpd 1", "dpd: ", "leave it out"),
        ("replay 4097", "4097: ", "4096"),
        ("pair-spi 0", "add: ", "pair-spi 0"),
        ("encap tcp", "tcp: ", "encap udp"),
        ("encap udp", "add: ", "nat_lport"),
        ("nat_lport 5", "add: ", "encap udp"),
        ("nat_loc ::1", "::1: ", "IPv4"),
        ("isrc 10.0.0.0/8", "add: ", "isrc and idst"),
        ("isrc 10.0.0.0/33 idst 10.0.0.1", "10.0.0.0/33: ", "up to 32"),
        ("isrc 10.0.0.0/8 idst ::1", "add: ", "of one"),
        ("iproto 6", "add: ", "isrc and idst"),
        ("also 10.1.0.0/16,10.2.0.0/16", "add: ", "isrc and idst"),
        ("isrc 10.1.0.0 idst 10.2.0.0 also 10.1.0.0/16", "10.1.0.0/16: ", "SOURCE/PREFIX"),
        ("isrc 10.1.0.0 idst 10.2.0.0 also 10.1.0.0/16,fd00::/64", "10.1.0.0/16,fd00::/64: ", "one family"),
        ("encrkey 00 reserved_bits 8", "reserved_bits: ", "before encrkey"),
        ("srcidtype frob x", "frob: ", "user_fqdn"),
        ("srcidtype fqdn", "srcidtype: ", "a value must follow"),
    ] {
        let why = wrong(&format!("{full} {words}"));
        assert!(why.starts_with(word) && why.contains(remedy), "{words}: {why}");
    }
}

#[test]
fn a_key_in_the_wrong_place_is_not_repeated() {
    let key = "000102030405060708090a0b0c0d0e0f";
    for line in [
        format!("add esp spi 0x100 dst 192.0.2.1 {key}"),
        format!("add esp spi 0x100 dst 192.0.2.1 encrkey {key}g"),
        format!("add esp spi 0x100 dst 192.0.2.1 encrkey {key}/4096"),
        format!("add esp spi 0x100 dst 192.0.2.1 authkey 0x{key} 0x{key}/128"),
    ] {
        let why = wrong(&line);
        assert!(!why.contains("00010203"), "{why}");
    }
    let debug = format!("{:?}", ask(&format!("add esp spi 0x100 dst 192.0.2.1 auth_alg sha1 authkey {key}")));
    assert!(!debug.contains("000102") && !debug.contains("0, 1, 2"), "{debug}");
}

proptest! {
    #[test]
    fn no_line_makes_the_parser_panic(line in "\\PC{0,200}") {
        let mut words = Vec::new();
        if words::split(&line, 1, &mut words).is_ok() {
            for place in [Place::Arguments, Place::File, Place::Prompt] {
                let _ = command(&words, place);
            }
        }
    }

    #[test]
    fn no_octets_make_the_reader_panic(octets in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let mut lines = Lines::new(&octets[..]);
        while let Some(line) = lines.words() {
            let _ = line.map(|words| command(&words, Place::File));
        }
    }

    #[test]
    fn no_sentence_of_real_words_makes_it_panic(
        first in proptest::sample::select(vec!["add esp", "update ah", "get esp", "update-pair 3", "delete 10"]),
        rest in proptest::collection::vec(
            (0..KEYWORDS.len(), "[0-9a-fx:./]{0,12}|192\\.0\\.2\\.1|udp|aes|tcp|::1/64"), 0..12),
    ) {
        let rest: Vec<String> = rest.into_iter().map(|(n, value)| format!("{} {value}", KEYWORDS[n].0)).collect();
        let _ = at(Place::File, &format!("{first} spi 0x100 dst 192.0.2.1 {}", rest.join(" ")));
    }
}

#[test]
fn every_keyword_is_spelt_once() {
    for (n, (name, keyword)) in KEYWORDS.iter().enumerate() {
        assert!(!KEYWORDS[..n].iter().any(|(other, _)| other == name), "{name}");
        assert!(!matches!(keyword, Keyword::Refused(why) if why.is_empty()));
    }
}
