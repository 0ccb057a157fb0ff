//! Policies that ask for several SAs, with traffic.

use crate::{INSIDE, NETS, OUTSIDE, Side, two, with_linux};

/// What is asked for, from the innermost; whether it is between the hosts themselves or between the networks behind them.
struct Case {
    requests: &'static [(&'static str, &'static str, &'static str)],
    networks: bool,
}

const CASES: &[Case] = &[
    Case { requests: &[("esp", "transport", "require"), ("ah", "transport", "require")], networks: false },
    Case { requests: &[("ipcomp", "transport", "use"), ("esp", "transport", "require")], networks: false },
    Case {
        requests: &[
            ("ipcomp", "transport", "use"),
            ("esp", "transport", "require"),
            ("ah", "transport", "require"),
        ],
        networks: false,
    },
    Case { requests: &[("esp", "tunnel", "require"), ("ah", "transport", "require")], networks: true },
    Case { requests: &[("ah", "tunnel", "require"), ("esp", "transport", "require")], networks: true },
    Case { requests: &[("ipcomp", "tunnel", "require"), ("esp", "transport", "require")], networks: true },
];

/// The SA that `from` sends on. Not with SHA-256, whose ICVs Linux cuts to 96 bits for those who come by PF_KEY.
fn sa(from: usize, (protocol, mode, _): (&str, &str, &str)) -> String {
    let (src, dst) = (OUTSIDE[from], OUTSIDE[1 - from]);
    let key = |octets: usize| format!("0x{}", format!("{:02x}", 0x11 * (from + 1)).repeat(octets));
    let (spi, algorithms) = match protocol {
        "esp" => (0x1000, format!("-E aes-cbc {} -A hmac-sha1 {}", key(16), key(20))),
        "ah" => (0x2000, format!("-A hmac-sha1 {}", key(20))),
        _ => (0x3000, "-C deflate".to_owned()),
    };
    format!("add {src} {dst} {protocol} {:#x} -m {mode} {algorithms};\n", spi + from)
}

/// The policy for what goes from `from`, as the one in question has it who is told so; `left_out` are as many of the requests as
/// are not asked for, counted from the outermost.
fn policy(case: &Case, from: usize, direction: &str, left_out: usize) -> String {
    let end = |at: usize| if case.networks { NETS[at] } else { OUTSIDE[at] };
    let ends = format!("{}-{}", OUTSIDE[from], OUTSIDE[1 - from]);
    let keep = case.requests.len() - left_out;
    let one = |(protocol, mode, level): &(&str, &str, &str)| {
        format!("{protocol}/{mode}/{}/{level}", if *mode == "tunnel" { &ends } else { "" })
    };
    let requests: Vec<String> = case.requests.iter().take(keep).map(one).collect();
    let selector = format!("{} {} any", end(from), end(1 - from));
    format!("spdupdate {selector} -P {direction} ipsec {};\n", requests.join(" "))
}

fn octets_on(side: &dyn Side, spi: u64) -> u64 {
    let all = side.dumped("-D --json");
    let sa = all.iter().find(|sa| sa["spi"] == spi).unwrap_or_else(|| panic!("{spi:#x}: {all:?}"));
    sa["current"]["bytes"].as_u64().expect("a number")
}

/// AH in the header that ESP has been put behind Linux 6.1 does not take from itself either (XfrmInStateProtoError).
fn between_linux_and_us(case: &&Case) -> bool {
    case.requests[0].0 != "ah"
}

/// Packets go through all that policy asks for, and one that has left out a part of it is refused.
fn crosses<'c>(sides: [&dyn Side; 2], cases: impl Iterator<Item = &'c Case>) {
    for case in cases {
        let shown = case.requests;
        let script = |at: usize| {
            let mut script = "flush; spdflush;\n".to_owned();
            for from in 0..2 {
                shown.iter().for_each(|request| script += &sa(from, *request));
                script += &policy(case, from, if at == from { "out" } else { "in" }, 0);
            }
            script
        };
        (0..2).for_each(|at| drop(sides[at].done("", &script(at))));
        let ends = if case.networks { INSIDE } else { OUTSIDE };
        assert!(sides[0].reaches(ends[0], ends[1]), "{shown:?}");
        assert!(sides[1].reaches(ends[1], ends[0]), "{shown:?}");
        for (protocol, ..) in shown {
            let first = match *protocol {
                "esp" => 0x1000,
                "ah" => 0x2000,
                _ => 0x3000,
            };
            for (spi, side) in [(first, 0), (first + 1, 0), (first, 1), (first + 1, 1)] {
                // Of what IPComp carries, compressed as it is, little is left.
                assert!(
                    octets_on(sides[side], spi) > 50,
                    "{shown:?}: nothing has gone on {spi:#x}, side {side}"
                );
            }
        }
        // One that only is to be used may be missing; what is required may not.
        if shown.last().is_some_and(|(protocol, ..)| *protocol == "ah") {
            for from in 0..2 {
                sides[from].done("", &policy(case, from, "out", 1));
                let before = sides[1 - from].refused();
                assert!(!sides[from].reaches(ends[from], ends[1 - from]), "{shown:?}: without AH");
                assert!(sides[1 - from].refused() > before, "{shown:?}: it came, and was refused");
                sides[from].done("", &policy(case, from, "out", 0));
                assert!(sides[from].reaches(ends[from], ends[1 - from]), "{shown:?}");
            }
        }
    }
}

#[test]
fn what_a_policy_asks_for_is_around_the_packets_between_two_of_ours() {
    let Some([here, there]) = two() else { return };
    crosses([&here, &there], CASES.iter());
}

#[test]
fn what_a_policy_asks_for_is_around_the_packets_between_linux_and_us() {
    let Some((here, there)) = with_linux() else { return };
    crosses([&here, &there], CASES.iter().filter(between_linux_and_us));
}
