//! What `help` says.

use super::attribute::{KEYWORDS, Keyword};

const COMMANDS: &[(&str, &str, &str)] = &[
    ("add", "add SATYPE spi N dst ADDRESS WORDS…", "make an SA"),
    ("update", "update SATYPE spi N dst ADDRESS WORDS…", "make a larval SA mature, or change its limits"),
    ("update-pair", "update-pair SATYPE spi N dst ADDRESS WORDS…", "the same for an SA and its pair"),
    ("delete", "delete SATYPE spi N dst ADDRESS", "delete an SA"),
    ("delete-pair", "delete-pair SATYPE spi N dst ADDRESS", "delete an SA and its pair"),
    ("get", "get SATYPE spi N dst ADDRESS", "show an SA, its keys too"),
    ("flush", "flush [SATYPE]", "delete all SAs"),
    ("dump", "dump [SATYPE]", "show all SAs, their keys too"),
    ("save", "save {all|SATYPE} [FILE]", "write all SAs down so that -f reads them"),
    ("monitor", "monitor", "show every message, until Ctrl-C"),
    ("passive_monitor", "passive_monitor (or pmonitor)", "show only what every PF_KEY socket hears"),
    ("help", "help [COMMAND|WORD]", "this"),
    ("quit", "quit (or exit)", "end"),
];

/// All commands, one command, or the keywords.
pub(super) fn text(about: Option<&str>) -> String {
    match about {
        Some("add" | "update" | "update-pair" | "attr") => {
            let mut out = usage(about.unwrap_or_default());
            out.push_str("Words (those in one line mean the same):\n");
            let mut known: Vec<(Keyword, Vec<&str>)> = Vec::new();
            for (name, keyword) in KEYWORDS {
                match known.iter_mut().find(|(same, _)| same == keyword) {
                    _ if matches!(keyword, Keyword::Refused(_)) => {}
                    Some((_, names)) => names.push(name),
                    None => known.push((*keyword, vec![name])),
                }
            }
            for (keyword, names) in known {
                out.push_str(&format!("  {} {}\n", names.join(", "), value(keyword)));
            }
            out
        }
        Some(word) if COMMANDS.iter().any(|(name, ..)| *name == word) => usage(word),
        Some(word) => match KEYWORDS.iter().find(|(name, _)| name.eq_ignore_ascii_case(word)) {
            Some((name, Keyword::Refused(why))) => format!("{name}: {why}\n"),
            Some((name, keyword)) => format!("{name} {}\n", value(*keyword)),
            None => format!("{word}: neither a command nor a word; `help' and `help add' list them\n"),
        },
        None => {
            let rows = COMMANDS.iter().map(|(_, form, what)| format!("  {form:<44} {what}\n"));
            let head = "Commands (SATYPE is esp, ah, tun, comp or a number):\n".to_owned();
            core::iter::once(head).chain(rows).chain(["`help add' lists the words.\n".to_owned()]).collect()
        }
    }
}

fn usage(command: &str) -> String {
    COMMANDS
        .iter()
        .filter(|(name, ..)| *name == command)
        .map(|(_, form, what)| format!("{form}: {what}\n"))
        .collect()
}

const fn value(keyword: Keyword) -> &'static str {
    match keyword {
        Keyword::Spi
        | Keyword::PairSpi
        | Keyword::ReservedBits
        | Keyword::ReplayValue
        | Keyword::Life(..) => "NUMBER",
        Keyword::Replay => "PACKETS",
        Keyword::State => "mature",
        Keyword::Auth | Keyword::Encrypt => "ALGORITHM",
        Keyword::Src(_) | Keyword::Dst(_) => "{ADDRESS|HOST}",
        Keyword::InnerSrc(_) | Keyword::InnerDst(_) => "ADDRESS[/PREFIX]",
        Keyword::Also => "ADDRESS/PREFIX,ADDRESS/PREFIX[,PROTOCOL,PORT,PORT]",
        Keyword::Port(_) => "PORT",
        Keyword::Proto | Keyword::InnerProto => "PROTOCOL",
        Keyword::Encap => "udp",
        Keyword::NatLoc | Keyword::NatRem => "ADDRESS",
        Keyword::AuthKey | Keyword::EncryptKey => "HEX[/BITS]",
        Keyword::SrcIdentity | Keyword::DstIdentity => "TYPE VALUE",
        Keyword::Esn | Keyword::Inbound | Keyword::Outbound | Keyword::Refused(_) => "",
    }
}
