use super::*;
use std::time::Duration;

fn conf_of(text: &str) -> Conf {
    Conf::parse("f", text).unwrap_or_else(|problems| panic!("{text:?}: {problems:?}"))
}

fn errors(text: &str) -> Vec<String> {
    match Conf::parse("f", text) {
        Ok(conf) => panic!("{text:?} is accepted: {conf:?}"),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    }
}

fn values(text: &str, name: &str) -> Vec<(String, String)> {
    let conf = conf_of(text);
    let conn = conf.conn(name).unwrap_or_else(|| panic!("no conn {name} in {text:?}"));
    conn.settings.iter().map(|setting| (setting.key.clone(), setting.value.clone())).collect()
}

/// The values of conn a, `key=value` joined by blanks.
fn a(body: &str) -> String {
    let pairs = values(&format!("version 2\nconn a\n{body}"), "a");
    pairs.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
}

fn a_fails(body: &str) -> String {
    errors(&format!("version 2\nconn a\n{body}")).join("; ")
}

#[test]
fn the_verified_vectors_of_the_old_reader() {
    assert_eq!(a("\tleft=1.2.3.4"), "left=1.2.3.4");
    assert_eq!(a("\tleft=1.2.3.4\n\t\n\tright=5.6.7.8"), "left=1.2.3.4 right=5.6.7.8");
    assert_eq!(a("\tleft=1.2.3.4\n\t# hi\n\tright=5.6.7.8"), "left=1.2.3.4 right=5.6.7.8");
    assert_eq!(a("\tleft=1.2.3.4\n# hi\n\tright=5.6.7.8"), "left=1.2.3.4 right=5.6.7.8");
    // A file without a version is one of 2.6.
    assert_eq!(values("conn a\n\tleft=1", "a").len(), 1);
    // Of defaults the last one counts, of what `also=` brings the section's own.
    assert_eq!(
        values("conn %default\n\tauto=add\nconn %default\n\tauto=start\nconn a\n", "a"),
        [("auto".into(), "start".into())]
    );
    assert_eq!(values("conn a\n\talso=b\n\tleft=1\nconn b\n\tleft=2", "a"), [("left".into(), "1".into())]);
    assert!(conf_of("conn a\n").conn("b").is_none());
    assert_eq!(a("\tleft=1.2.3.4 # hi = there"), "left=1.2.3.4");
    assert_eq!(a("\tleftid=@x#y"), "leftid=@x#y");
    assert_eq!((a("\tleftid=#x"), a("\tleftid= # x")), ("leftid=#x".into(), String::new()));
    assert_eq!(a("\tleftid=\"a # b\""), "leftid=a # b");
    assert_eq!(a("\tleft = 1.2.3.4"), "left=1.2.3.4");
    assert_eq!(a_fails("\tleftid=a b"), "f:3: white space within non-quoted parameter [leftid]");
    assert_eq!(a_fails("\tleftid=\"a b"), "f:3: mismatched quotes in parameter value [leftid]");
    assert_eq!(a_fails("\tleftid=a\"b"), "f:3: mismatched quotes in parameter value [leftid]");
    assert_eq!(a("\tleftid="), "");
    assert_eq!(a_fails("\tfoo=1"), "f:3: unknown parameter name [foo]");
    assert_eq!(a("\tx-foo=1"), "");
    assert_eq!(errors("version 1"), ["f:1: only version 2.0 of this file is supported [1]"]);
    assert_eq!(errors("version 2.1"), ["f:1: only version 2.0 of this file is supported [2.1]"]);
    assert!(conf_of("version 2.0\n").conns.is_empty());
    assert_eq!(errors("conn a\nconn a\n"), ["f:2: duplicate conn section, first at f:1 [a]"]);
    assert_eq!(values("conn %default\n\tauto=add\nconn a\n\tleft=1", "a")[1], ("auto".into(), "add".into()));
    assert_eq!(
        values("conn %default\n\tauto=add\nconn a\n\tauto=start", "a"),
        [("auto".into(), "start".into())]
    );
    assert_eq!(values("conn a\n\talso=b\nconn b\n\tleft=1", "a"), [("left".into(), "1".into())]);
    assert_eq!(
        values("conn a\n\talsoflip=b\nconn b\n\tleft=2\n\trightid=@r\n\tpfs=no", "a"),
        [("right".into(), "2".into()), ("leftid".into(), "@r".into()), ("pfs".into(), "no".into())]
    );
    assert_eq!(a_fails("\talso=a"), "f:3: section is requested by itself [a]");
    assert_eq!(
        errors("conn %default\n\talso=b\nconn b"),
        ["f:2: %default section may not contain this [also]"]
    );
    assert_eq!(errors("\n\tleft=1"), ["f:2: parameter is not within a section [left]"]);
    assert_eq!(errors("foo a"), ["f:1: section type not recognized [foo]"]);
    assert_eq!(errors("conn a b"), ["f:1: section header has wrong number of fields, 3 [conn a b]"]);
    assert_eq!(errors("config foo"), ["f:1: unknown config section [foo]"]);
    assert_eq!(errors("conn 9a"), ["f:1: invalid section name [9a]"]);
    assert_eq!(a_fails("\tleftid=a\u{7}b"), "f:3: line contains unprintable character [U+0007]");
}

/// What 2.4 refused and 2.6 reads.
#[test]
fn the_forms_of_later_files_are_read_too() {
    assert_eq!(a("\tleft=1.2.3.4\n\n# hi\n\tright=5.6.7.8"), "left=1.2.3.4 right=5.6.7.8");
    assert_eq!(a("\tLEFT=1"), "left=1");
    assert_eq!(a("\tleftsubnets={10.0.1.0/24 10.0.2.0/24} # two"), "leftsubnets=10.0.1.0/24 10.0.2.0/24");
    assert_eq!(values("conn b\n\tleft=1\nconn a\n\talso=b", "a").len(), 1);
    assert_eq!(values("conn a\n\tleft=1\nconn %default\n\tauto=add", "a").len(), 2);
    assert_eq!(conf_of("conn a # the first\n\tleft=1\r\n").conns.len(), 1);
}

#[test]
fn a_repeated_key_is_a_warning_and_the_later_value_counts() {
    let conf = conf_of("conn a\n\tleft=1\n\tright=3\n\tleft=2\n");
    assert_eq!(conf.conn("a").and_then(|conn| conn.get("left")), Some("2"));
    assert_eq!(conf.warnings.len(), 1);
    assert_eq!(
        conf.warnings[0].to_string(),
        "f:4: duplicated parameter, this value counts and not that of line 2 [left]"
    );
}

#[test]
fn own_values_win_over_also_and_the_nearest_also_over_the_next() {
    let text = "conn a\n\talso=b\n\talso=c\n\tauto=add\nconn b\n\tauto=start\n\tleft=b\n\talso=d\n\
                conn c\n\tleft=c\n\tright=c\nconn d\n\tleft=d\n\tright=d\n\tmtu=1400\n";
    let mut got = values(text, "a");
    got.sort();
    let expected = [("auto", "add"), ("left", "b"), ("mtu", "1400"), ("right", "d")];
    assert_eq!(got, expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
}

#[test]
fn sections_may_share_what_they_also() {
    let text = "conn a\n\talso=b\n\talso=c\nconn b\n\talso=d\nconn c\n\talso=d\nconn d\n\tmtu=9\n";
    assert_eq!(values(text, "a"), [("mtu".into(), "9".into())]);
    let circle = errors("conn a\n\talso=b\nconn b\n\talsoflip=a\n");
    assert_eq!(
        circle,
        ["f:4: section is requested by itself [a]", "f:2: section is requested by itself [b]"]
    );
    assert_eq!(errors("conn a\n\talso=z\n"), ["f:2: did not find conn section [z]"]);
}

#[test]
fn everything_wrong_is_reported_at_once() {
    let all = errors("foo\nconn a\n\tbar=1\n\tleft=x y\nconfig setup\n\tpluto=maybe\n\tnonsense=1\nleft=1\n");
    assert_eq!(
        all,
        [
            "f:1: section type not recognized [foo]",
            "f:4: white space within non-quoted parameter [left]",
            "f:8: a parameter must be indented [left=1]",
            "f:6: value must be yes or no [pluto=maybe]",
            "f:7: unknown parameter name [nonsense=1]",
            "f:3: unknown parameter name [bar]",
        ]
    );
}

#[test]
fn setup_has_defaults() {
    let setup = conf_of("").setup;
    assert_eq!(setup.interfaces, [Interface::DefaultRoute]);
    assert_eq!(setup.protostack, Protostack::Auto);
    assert_eq!((setup.pluto, setup.hidetos, setup.fragicmp, setup.uniqueids), (true, true, true, true));
    assert_eq!((setup.overridemtu, setup.keep_alive), (None, Duration::from_secs(20)));
    assert_eq!(setup, Setup::default());
}

#[test]
fn setup_is_typed() {
    let text = "config setup\n\tinterfaces=\"ipsec0=eth0 ipsec1=wlan0.5\"\n\tprotostack=klips\n\tpluto=no\n\
                \thidetos=off\n\tfragicmp=N\n\tcopydf=yes\n\toverridemtu=1400\n\tkeep_alive=1m\n\tsyslog=daemon.debug\n\
                \tpfkeygroup=ipsec\n\trp_filter=0\n\tshareport=yes\n";
    let conf = conf_of(text);
    let pair = |name: &str, physical: &str| Interface::Pair { name: name.into(), physical: physical.into() };
    assert_eq!(conf.setup.interfaces, [pair("ipsec0", "eth0"), pair("ipsec1", "wlan0.5")]);
    assert_eq!(conf.setup.protostack, Protostack::Klips);
    assert_eq!((conf.setup.pluto, conf.setup.hidetos, conf.setup.fragicmp), (false, false, false));
    assert_eq!((conf.setup.copydf, conf.setup.overridemtu), (true, Some(1400)));
    assert_eq!(conf.setup.keep_alive, Duration::from_secs(60));
    assert_eq!(conf.setup.get("syslog"), Some("daemon.debug"));
    assert_eq!((conf.setup.pfkeygroup.as_deref(), conf.setup.shareport), (Some("ipsec"), true));
    assert_eq!(conf.warnings[0].to_string(), "f:12: parameter has no effect any more [rp_filter]");
    assert!(conf_of("config setup\n\tinterfaces=%none\n").setup.interfaces.is_empty());
}

#[test]
fn interfaces_that_could_not_be_are_refused() {
    let words = [
        "eth0",
        "ipsec=eth0",
        "ipsec0=",
        "ipsec00=eth0",
        "tun0=eth0",
        "ipsec0=a/b",
        "ipsec0=abcdefghijklmnop",
    ];
    for word in words.into_iter().chain(["\"ipsec0=eth0 ipsec0=eth1\"", "\"%defaultroute ipsec0=eth1\""]) {
        assert_eq!(errors(&format!("config setup\n\tinterfaces={word}\n")).len(), 1, "{word}");
    }
    for mtu in ["0", "67", "65536", "-1", "big"] {
        assert_eq!(errors(&format!("config setup\n\toverridemtu={mtu}\n")).len(), 1, "{mtu}");
    }
}

#[test]
fn flags_and_times() {
    assert_eq!((flag("Yes"), flag("off"), flag("1"), flag("")), (Some(true), Some(false), None, None));
    let seconds = |text| time(text).map(|span| span.as_secs());
    for (text, expected) in
        [("20", 20), ("20s", 20), ("9m", 540), ("1h", 3_600), ("2d", 172_800), ("1w", 604_800)]
    {
        assert_eq!(seconds(text), Some(expected), "{text}");
    }
    assert_eq!(seconds("%forever"), Some(0));
    for text in
        ["", "s", "-1", "+1s", "1 h", "1x", "99999999999999999999", "18446744073709551615w", "½h", "1½"]
    {
        assert_eq!(time(text), None, "{text}");
    }
}

mod files {
    use super::*;
    use std::fs;

    #[test]
    fn includes_follow_patterns_relative_to_the_file_they_stand_in() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        fs::create_dir(dir.path().join("ipsec.d")).unwrap();
        write(
            "ipsec.conf",
            "include ipsec.d/{two,one}*.conf\nconn main\n\tleft=1\ninclude nothing.*\ninclude nothing\n",
        );
        write("ipsec.d/one.conf", "conn one\n\tleft=1\ninclude deeper\n");
        write("ipsec.d/two.conf", "conn two\n\tleft=2\n");
        write("ipsec.d/deeper", "conn deeper\n\tleft=3\n");
        let conf = Conf::load(dir.path()).unwrap();
        let names: Vec<&str> = conf.conns.iter().map(|conn| conn.name.as_str()).collect();
        assert_eq!(names, ["two", "one", "deeper", "main"]);
        assert_eq!(conf.warnings.len(), 1);
        assert!(conf.warnings[0].to_string().ends_with("ipsec.conf:5: no such file to include [nothing]"));
    }

    #[test]
    fn an_include_ends_the_section() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("ipsec.conf"), "conn a\n\tleft=1\ninclude b\n\tright=2\n").unwrap();
        fs::write(dir.path().join("b"), "conn b\n").unwrap();
        let problems = Conf::load(dir.path()).unwrap_err();
        assert!(problems[0].to_string().ends_with("ipsec.conf:4: parameter is not within a section [right]"));
    }

    #[test]
    fn a_file_that_includes_itself_ends_after_ten() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("ipsec.conf"), "include ipsec.conf\n").unwrap();
        let problems = Conf::load(dir.path()).unwrap_err();
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].what, "max inclusion depth reached [ipsec.conf]");
    }

    #[test]
    fn files_that_include_each_other_by_pattern_come_to_an_end() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["ipsec.conf", "b.conf", "c.conf", "d.conf", "e.conf", "f.conf", "g.conf", "h.conf"] {
            fs::write(dir.path().join(name), "include *.conf\n").unwrap();
        }
        let problems = Conf::load(dir.path()).unwrap_err();
        assert!(problems.iter().any(|problem| problem.what == "too many files are included [*.conf]"));
        assert!(problems.len() < 10_000, "{}", problems.len());
    }

    #[test]
    fn a_directory_with_a_name_like_a_pattern_is_just_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let odd = dir.path().join("[x]{a,b}*");
        fs::create_dir(&odd).unwrap();
        fs::write(odd.join("ipsec.conf"), "include sub.{conf,cnf}\n").unwrap();
        fs::write(odd.join("sub.conf"), "conn a\n").unwrap();
        assert_eq!(Conf::load(&odd).unwrap().conns.len(), 1);
    }

    #[test]
    fn a_missing_file_and_one_that_is_not_text_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let missing = Conf::load(dir.path()).unwrap_err();
        assert!(missing[0].what.starts_with("cannot read file: "), "{missing:?}");
        assert!(
            missing[0].to_string().contains("ipsec.conf: cannot read"),
            "a file that has no lines has no line 0"
        );
        fs::write(dir.path().join("ipsec.conf"), [0xff, 0xfe]).unwrap();
        let binary = Conf::load(dir.path()).unwrap_err();
        assert!(binary[0].what.starts_with("file is not text"), "{binary:?}");
    }
}

mod properties {
    use super::*;
    use proptest::prelude::*;
    use proptest::test_runner::TestCaseError;

    /// Files that are mostly right: sections that pull each other in, values with and without quotes, comments.
    const FILE: &str = "(config setup\n(\tuniqueids=(yes|no)\n|\tinterfaces=\"%defaultroute\"\n|\tx-y=z\n){0,3})?\
        (conn %default\n(\t(auto=add|mtu=1400|keyingtries=3)\n){0,2})?\
        (conn a\n(\t(left|RIGHT|leftid|rightsubnet|also)=([b-d]|\"[ -!#-~]{1,9}\"|\\{[0-9a-z #\"]{1,9}\\}|@x#y|\\PC{1,3})( # why)?\r?\n){0,5})?\
        (conn b\n(\t(left|leftsourceip|alsoflip|auto)=(start|[c-d]|1\\.2\\.3\\.4)\n|\n|# no\n){0,5})?\
        conn c\n(\tpfs=no\n)?conn d\n(\tleftsubnets=\\{10\\.0\\.0\\.0/8 10\\.1\\.0\\.0/16\\}\n)?";

    type Settings = Vec<(String, String)>;

    /// All of it but where it stands.
    fn meaning(conf: &Conf) -> (Settings, Vec<(String, Settings)>) {
        let settings = |all: &[Setting]| -> Settings {
            all.iter().map(|Setting { key, value, .. }| (key.clone(), value.clone())).collect()
        };
        let conns = conf.conns.iter().map(|conn| (conn.name.clone(), settings(&conn.settings)));
        (settings(&conf.setup.settings), conns.collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

        #[test]
        fn any_text_is_read_without_panic(text in "([ \\t#\"{}=a-c%\\r\\n]|conn |config setup\\n|also=|left|\\PC){0,60}") {
            let _ = Conf::parse("f", &text);
            let _ = value::braces(&text);
            let _ = time(&text);
        }

        #[test]
        fn what_is_printed_is_read_as_what_it_was(text in FILE) {
            let Ok(read) = Conf::parse("f", &text) else { return Ok(()) };
            let printed = read.text(|_| true);
            let again = Conf::parse("f", &printed);
            let again = again.map_err(|why| TestCaseError::fail(format!("{why:?}\n{printed}")))?;
            prop_assert_eq!(meaning(&again), meaning(&read), "{}", &printed);
            prop_assert_eq!(again.text(|_| true), printed);
            prop_assert!(again.warnings.len() <= read.warnings.len());
        }

        #[test]
        fn any_quoted_value_comes_back(value in "[!-~&&[^\"]]([ -~&&[^\"]]{0,30}[!-~&&[^\"]])?") {
            prop_assert_eq!(a(&format!("\tleftid = \"{value}\"  # comment")), format!("leftid={value}"));
        }
    }
}

#[test]
fn an_unknown_key_is_named_with_the_nearest_known_one() {
    for (wrong, said) in [
        ("leftsubent=10.0.0.0/8", "f:3: unknown parameter name, do you mean leftsubnet=? [leftsubent]"),
        ("keylfie=1h", "f:3: unknown parameter name, do you mean keylife=? [keylfie]"),
        ("margintime=9m", "f:3: unknown parameter name, write rekeymargin= [margintime]"),
        ("blue=1", "f:3: unknown parameter name [blue]"),
    ] {
        assert_eq!(a_fails(&format!("\t{wrong}")), said);
    }
}
