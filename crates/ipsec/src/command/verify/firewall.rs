//! Whether the packet filter lets IKE and ESP in. It is looked at as text: a chain that drops by default and names none of
//! ours most likely drops them; more than that only a packet can find out.

use super::Check;
use crate::host::interfaces::keep::TABLE;
use std::process::Command;

/// The rule set of nftables, which shows that of iptables-nft as well; else iptables'.
pub(super) fn look() -> Check {
    if let Some(text) = says("nft", &["list", "ruleset"]) {
        return judge(
            &nftables(&text),
            "nft add rule inet filter input udp dport { 500, 4500 } accept; ... ip protocol esp accept",
        );
    }
    if let Some(text) = says("iptables-save", &[]) {
        return judge(
            &iptables(&text),
            "iptables -I INPUT -p udp -m multiport --dports 500,4500 -j ACCEPT; iptables -I INPUT -p esp -j ACCEPT",
        );
    }
    Check::unknown(
        "firewall",
        "neither nft nor iptables-save answers: the packet filter was not looked at",
        "let in UDP 500 and 4500, and protocol 50 (ESP)",
    )
}

fn says(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What a rule set has to do with us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Rules {
    /// Something that comes in is dropped unless a rule lets it in.
    closed: bool,
    ike: bool,
    natt: bool,
    esp: bool,
}

fn judge(rules: &Rules, remedy: &str) -> Check {
    let mut missing = Vec::new();
    for (there, what) in [(rules.ike, "UDP 500"), (rules.natt, "UDP 4500"), (rules.esp, "ESP")] {
        if !there {
            missing.push(what);
        }
    }
    match (rules.closed, missing.is_empty()) {
        (false, _) => Check::good("firewall", "the packet filter drops nothing by default"),
        (true, true) => Check::good("firewall", "the packet filter has rules for UDP 500, UDP 4500 and ESP"),
        (true, false) => Check::warn(
            "firewall",
            format!("the packet filter drops what no rule lets in, and none names {}", missing.join(", ")),
            remedy,
        ),
    }
}

/// Whether a word stands in a text by itself.
fn names(text: &str, word: &str) -> bool {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').any(|one| one == word)
}

fn nftables(text: &str) -> Rules {
    let mut rules = Rules::default();
    // Our own table names ESP and these ports, too, and what it lets pass the host's tables may still drop.
    let mut ours = false;
    for line in text.lines() {
        if let Some(table) = line.strip_prefix("table ") {
            ours = table.starts_with(&format!("inet {TABLE}"));
        }
        if ours {
            continue;
        }
        // `type filter hook input priority filter; policy drop;`, or a last rule that drops all.
        rules.closed |= line.contains("hook input") && line.contains("policy drop");
        let accepts = names(line, "accept");
        let udp = accepts && line.contains("dport");
        rules.ike |= udp && (names(line, "500") || names(line, "isakmp"));
        rules.natt |= udp && (names(line, "4500") || names(line, "ipsec-nat-t"));
        rules.esp |= accepts && (names(line, "esp") || line.contains("protocol 50"));
    }
    rules
}

fn iptables(text: &str) -> Rules {
    let mut rules = Rules::default();
    for line in text.lines() {
        rules.closed |= line.starts_with(":INPUT DROP");
        let accepts = line.ends_with("-j ACCEPT");
        let udp = accepts && line.contains("dport");
        rules.ike |= udp && names(line, "500");
        rules.natt |= udp && names(line, "4500");
        rules.esp |= accepts && (line.contains("-p esp") || line.contains("-p 50 "));
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::verify::Grade;

    #[test]
    fn a_closed_rule_set_without_ours_is_seen_and_says_what_is_missing() {
        let closed = "table inet filter {\n chain input {\n  type filter hook input priority filter; policy drop;\n  tcp dport 22 accept\n";
        let check = judge(&nftables(closed), "");
        assert_eq!(check.grade, Grade::Warn);
        assert!(check.found.ends_with("none names UDP 500, UDP 4500, ESP"), "{}", check.found);
        let open = format!("{closed}  udp dport {{ 500, 4500 }} accept\n  ip protocol esp accept\n");
        assert_eq!(judge(&nftables(&open), "").grade, Grade::Good);
        // 5001 is not 500, and a rule that drops lets nothing in.
        let other = format!("{closed}  udp dport 5001 accept\n  udp dport 500 drop\n");
        assert!(!nftables(&other).ike);
        assert_eq!(judge(&nftables(""), "").grade, Grade::Good);
    }

    #[test]
    fn our_own_table_is_no_rule_of_the_hosts() {
        let guard = "table inet tulips_1a2b3c4d {\n\tchain judged {\n\t\tfib daddr type local meta l4proto esp accept\n\t\tudp dport 500 accept\n\t\tudp dport 4500 accept\n\t}\n}\n";
        let closed = "table inet filter {\n\tchain input {\n\t\ttype filter hook input priority filter; policy drop;\n\t}\n}\n";
        for text in [format!("{guard}{closed}"), format!("{closed}{guard}")] {
            let check = judge(&nftables(&text), "");
            assert!(check.found.ends_with("none names UDP 500, UDP 4500, ESP"), "{}", check.found);
        }
    }

    #[test]
    fn the_old_rule_sets_are_read_too() {
        let text = "*filter\n:INPUT DROP [0:0]\n-A INPUT -p udp -m multiport --dports 500,4500 -j ACCEPT\n";
        let rules = iptables(text);
        assert_eq!(rules, Rules { closed: true, ike: true, natt: true, esp: false });
        assert!(judge(&rules, "").found.ends_with("none names ESP"));
    }
}
