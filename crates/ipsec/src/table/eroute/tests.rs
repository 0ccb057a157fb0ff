use super::*;
use proptest::prelude::*;

/// The examples of ipsec_eroute(5), each in one line.
const PAGE: [&str; 7] = [
    "1867 172.31.252.0/24:0 -> 0.0.0.0/0:0 => tun0x130@192.168.43.1:0 () ()",
    "746 192.168.2.110/32:0 -> 192.168.2.120/32:25 => esp0x130@192.168.2.120:6 () ()",
    "125 3049:1::/64 -> 0:0/0 => tun:130@3058:4::5 () ()",
    "42 192.168.6.0/24:0 -> 192.168.7.0/24:0 => %passthrough",
    "2112 192.168.8.55/32:0 -> 192.168.9.47/24:0 => %hold (east) ()",
    "2001 192.168.2.110/32:0 -> 192.168.2.120/32:0 => esp0xe6de@192.168.2.120:0 () ()",
    "1984 3049:1::110/128 -> 3049:1::120/128 => ah:f5ed@3049:1::120 () ()",
];

/// Lines of KLIPS' own test logs, columns exact.
const KLIPS: [&str; 6] = [
    "1          192.0.2.0/24       -> 192.0.1.0/24       => %trap\n",
    "7          192.0.2.1/32       -> 192.0.1.1/32       => %hold\n",
    "0          192.0.2.0/24       -> 192.0.1.0/24       => tun0x23456789@192.1.2.44\n",
    "10         192.1.2.45/32      -> 192.1.2.23/32      => tun0x1001@192.1.2.23\n",
    "0          10.1.0.0/16        -> 10.2.3.4/32:25     => tun0x1a2b@198.51.100.7:6\n",
    "12         10.1.0.5/32:1024   -> 0.0.0.0/0          => %pass:17\n",
];

fn squeeze(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn the_examples_of_the_page_are_read_and_written_as_the_page_has_them() {
    for (n, example) in PAGE.iter().enumerate() {
        let line: Line = example.parse().unwrap_or_else(|e| panic!("{example}: {e}"));
        let written = squeeze(&line.write(Form::Man));
        let expected = match n {
            // `0:0` is not an IPv6 address, %passthrough is written with its family, and host bits are cleared.
            2 => example.replace("0:0/0", "::/0"),
            3 => format!("{} () ()", example.replace("through", "through4")),
            4 => example.replace("192.168.9.47/24", "192.168.9.0/24"),
            _ => (*example).to_owned(),
        };
        assert_eq!(written, expected);
    }
}

#[test]
fn the_pages_first_example_says_what_the_page_explains() {
    let line: Line = PAGE[0].parse().unwrap();
    assert_eq!(line.packets, 1867);
    assert_eq!(line.selector.src, "172.31.252.0/24".parse().unwrap());
    assert_eq!(line.selector.dst, "0.0.0.0/0".parse().unwrap());
    assert_eq!(line.said, "tun.130@192.168.43.1".parse().unwrap());
    let mail: Line = PAGE[1].parse().unwrap();
    assert_eq!((mail.selector.sport, mail.selector.dport, mail.selector.proto), (0, 25, 6));
    let hold: Line = PAGE[4].parse().unwrap();
    assert_eq!((hold.src_identity.as_str(), hold.dst_identity.as_str()), ("east", ""));
}

#[test]
fn lines_of_the_kernel_survive_reading_and_writing_to_the_column() {
    for line in KLIPS {
        assert_eq!(line.parse::<Line>().unwrap().write(Form::Klips), line);
    }
}

#[test]
fn identities_are_separated_by_tabs_and_stay_one_word() {
    let mut line: Line = KLIPS[0].parse().unwrap();
    line.src_identity = "C=US, CN=east (1)".into();
    let text = line.write(Form::Man);
    assert!(text.ends_with("=> %trap\t(C=US,\\040CN=east\\040\\0501\\051)\t()\n"), "{text}");
    assert!(text.parse::<Line>().is_ok());
}

#[test]
fn a_protocol_after_an_ipv6_said_is_not_part_of_the_address() {
    let line: Line = "0 [2001:db8::/64]:25 -> ::/0 => esp0x101@[2001:db8::1]:6".parse().unwrap();
    assert_eq!(line.selector.sport, 25);
    assert_eq!(line.selector.proto, 6);
    assert_eq!(line.said, "esp0x101@2001:db8::1".parse().unwrap());
}

#[test]
fn what_is_not_a_row_is_refused_with_the_reason() {
    for (text, why) in [
        ("", LineError::Fields),
        ("1 2 3", LineError::Fields),
        ("x 10.0.0.0/8 -> 10.0.0.0/8 => %drop", LineError::Count),
        ("1 10.0.0.0/8 => 10.0.0.0/8 -> %drop", LineError::Arrows),
        ("1 10.0.0.0/33 -> 10.0.0.0/8 => %drop", LineError::Src),
        ("1 10.0.0.0/8 -> ::/0 => %drop", LineError::Dst),
        ("1 10.0.0.0/8 -> 10.0.0.0/8 => %drip", LineError::Said),
        ("1 10.0.0.0/8 -> 10.0.0.0/8 => %drop:256", LineError::Said),
        ("1 10.0.0.0/8 -> 10.0.0.0/8 => esp0x100@1.2.3.4: () ()", LineError::Said),
        ("1 10.0.0.0/8 -> 10.0.0.0/8 => %drop east ()", LineError::Identity),
    ] {
        assert_eq!(text.parse::<Line>(), Err(why), "{text}");
    }
}

fn any_line() -> impl Strategy<Value = Line> {
    let net4 =
        (any::<[u8; 4]>(), 0_u8..=32).prop_map(|(a, n)| IpNet::new(IpAddr::from(a), n).unwrap().trunc());
    let net6 =
        (any::<[u8; 16]>(), 0_u8..=128).prop_map(|(a, n)| IpNet::new(IpAddr::from(a), n).unwrap().trunc());
    let nets = prop_oneof![(net4.clone(), net4), (net6.clone(), net6)];
    let sa = (any::<u32>(), any::<[u8; 4]>(), any::<[u8; 16]>(), any::<bool>(), 0_usize..3).prop_map(
        |(spi, v4, v6, four, word)| {
            let dst = if four { IpAddr::from(v4) } else { IpAddr::from(v6) };
            let word = ["esp", "ah", "comp"][word];
            format!("{word}0x{spi:x}@{dst}").parse::<Said>().unwrap()
        },
    );
    let said = prop_oneof![
        sa,
        Just(Said::Pass),
        Just(Said::Drop),
        Just(Said::Reject),
        Just(Said::Hold),
        Just(Said::Trap)
    ];
    (nets, said, any::<(u64, u8, u16, u16)>(), "[!-'*-\\[\\]-~]{0,12}").prop_map(
        |((src, dst), said, (packets, proto, sport, dport), id)| Line {
            packets,
            selector: Selector { src, dst, proto, sport, dport },
            said,
            src_identity: id.clone(),
            dst_identity: id,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_row_written_in_either_form_reads_back(line in any_line()) {
        prop_assert_eq!(&line.write(Form::Man).parse::<Line>().unwrap(), &line);
        let bare = Line { src_identity: String::new(), dst_identity: String::new(), ..line };
        prop_assert_eq!(&bare.write(Form::Klips).parse::<Line>().unwrap(), &bare);
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "\\PC{0,80}") {
        let _ = text.parse::<Line>();
    }
}
