//! Words as commands: what may be said where, and what must be said.

use super::attribute::{self, Attributes, Host};
use super::words::Word;
use core::fmt;
use core::net::IpAddr;
use ipsec_core::algorithm::Encryption;
use ipsec_core::{Spi, text};
use pfkey::{MessageType, SaType};

/// What is wrong with a line: the word and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    /// Where; 0 if it was not a line of a file.
    pub(super) line: usize,
    why: String,
}

impl Wrong {
    /// About this word.
    pub(super) fn at(word: &Word, why: impl fmt::Display) -> Self {
        Self { line: word.line, why: format!("{}: {why}", *word.text) }
    }

    /// About the line as a whole.
    pub(super) fn here(line: usize, why: impl fmt::Display) -> Self {
        Self { line, why: why.to_string() }
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

/// Where a command came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The arguments of the program: every user of the machine can read them.
    Arguments,
    /// A file.
    File,
    /// Somebody types.
    Prompt,
}

/// A command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// A request that is answered once.
    Ask(Box<Ask>),
    /// Show all SAs.
    Dump(SaType),
    /// Write all SAs down, to standard output if there is no file.
    Save(SaType, Option<String>),
    /// Show what is going on; actively: hear everything.
    Monitor {
        /// With PROMISC.
        active: bool,
    },
    /// Say what can be said.
    Help(Option<String>),
    /// Enough.
    Quit,
}

/// A request about one SA, or FLUSH.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ask {
    /// ADD, UPDATE, UPDATEPAIR, DELETE, DELPAIR, GET or FLUSH.
    pub(super) kind: MessageType,
    /// The SA type.
    pub(super) satype: SaType,
    /// What was said about the SA.
    pub(super) sa: Attributes,
    /// Where the command began.
    pub(super) line: usize,
}

/// Reads a command. `words` has at least one.
pub(super) fn command(words: &[Word], place: Place) -> Result<Command, Wrong> {
    let Some((first, rest)) = words.split_first() else {
        return Err(Wrong::here(0, "no command; `help' lists them"));
    };
    let not_in_a_file = |command| match place {
        Place::File => Err(Wrong::at(first, "not in a file; give it to `ipsec key' as an argument")),
        Place::Arguments | Place::Prompt => Ok(command),
    };
    match first.text.as_str() {
        "add" => ask(MessageType::Add, first, rest, place),
        "update" => ask(MessageType::Update, first, rest, place),
        "update-pair" => ask(MessageType::UpdatePair, first, rest, place),
        "delete" => ask(MessageType::Delete, first, rest, place),
        "delete-pair" => ask(MessageType::DelPair, first, rest, place),
        "get" => ask(MessageType::Get, first, rest, place),
        "flush" => {
            let (satype, rest) = optional_satype(rest)?;
            no_more(rest)?;
            let sa = Attributes::default();
            Ok(Command::Ask(Box::new(Ask { kind: MessageType::Flush, satype, sa, line: first.line })))
        }
        "dump" => {
            let (satype, rest) = optional_satype(rest)?;
            no_more(rest)?;
            not_in_a_file(Command::Dump(satype))
        }
        "save" => {
            let Some((word, rest)) = rest.split_first() else {
                return Err(Wrong::at(
                    first,
                    "which SAs? Write `save all', `save esp' or `save ah', and a file",
                ));
            };
            let satype = satype(word)?;
            let (file, rest) = match rest.split_first() {
                Some((file, rest)) => (Some(file.text.to_string()).filter(|file| file != "-"), rest),
                None => (None, rest),
            };
            no_more(rest)?;
            not_in_a_file(Command::Save(satype, file))
        }
        "monitor" => no_more(rest).and_then(|()| not_in_a_file(Command::Monitor { active: true })),
        "passive_monitor" | "pmonitor" => {
            no_more(rest).and_then(|()| not_in_a_file(Command::Monitor { active: false }))
        }
        "help" | "?" => not_in_a_file(Command::Help(rest.first().map(|word| word.text.to_string()))),
        "quit" | "exit" => no_more(rest).map(|()| Command::Quit),
        _ => Err(Wrong::at(first, "no such command; `help' lists them")),
    }
}

fn no_more(rest: &[Word]) -> Result<(), Wrong> {
    rest.first().map_or(Ok(()), |word| Err(Wrong::at(word, "nothing more may follow here")))
}

fn optional_satype(rest: &[Word]) -> Result<(SaType, &[Word]), Wrong> {
    match rest.split_first() {
        None => Ok((SaType::Unspec, rest)),
        Some((word, rest)) => Ok((satype(word)?, rest)),
    }
}

fn satype(word: &Word) -> Result<SaType, Wrong> {
    let wrong = || Wrong::at(word, "not an SA type; write all, esp, ah, tun, comp or a number");
    match word.text.to_ascii_lowercase().as_str() {
        "all" => Ok(SaType::Unspec),
        "ah" => Ok(SaType::Ah),
        "esp" => Ok(SaType::Esp),
        "tun" | "ipip" => Ok(SaType::Ipip),
        "comp" | "ipcomp" => Ok(SaType::Ipcomp),
        other => {
            let number = text::number(other).map_err(|_| wrong())?;
            u8::try_from(number).ok().and_then(SaType::from_number).ok_or_else(wrong)
        }
    }
}

fn ask(kind: MessageType, first: &Word, rest: &[Word], place: Place) -> Result<Command, Wrong> {
    let brings_keys = matches!(kind, MessageType::Add | MessageType::Update | MessageType::UpdatePair);
    if brings_keys && place == Place::Arguments {
        return Err(Wrong::at(
            first,
            "not on the command line, where everyone can read keys; use `ipsec key -f FILE' or the prompt",
        ));
    }
    let Some((word, rest)) = rest.split_first() else {
        return Err(Wrong::at(first, "of which SA type? Write esp or ah next"));
    };
    let satype = satype(word)?;
    if satype == SaType::Unspec {
        return Err(Wrong::at(word, "needs one SA type; write esp or ah"));
    }
    let sa = attribute::read(rest, kind)?;
    let ask = Ask { kind, satype, sa, line: first.line };
    match ask.fault() {
        Some(why) => Err(Wrong::at(first, why)),
        None => Ok(Command::Ask(Box::new(ask))),
    }
}

impl Ask {
    /// What is missing, or does not go together.
    fn fault(&self) -> Option<&'static str> {
        let Self { kind, satype, sa, .. } = self;
        let brings_keys = matches!(kind, MessageType::Add | MessageType::Update | MessageType::UpdatePair);
        let keyed = matches!(satype, SaType::Ah | SaType::Esp);
        let natt =
            sa.nat_loc.is_some() || sa.nat_rem.is_some() || sa.nat_lport.is_some() || sa.nat_rport.is_some();
        match () {
            () if sa.spi.is_none() => Some("which SA? Add `spi NUMBER'"),
            () if brings_keys && sa.spi.is_some_and(|spi| Spi(spi).is_reserved()) => {
                Some("spi 0 to 0xff are reserved (RFC 4303 §2.1); write one from 0x100 up")
            }
            () if sa.dst.is_none() => Some("whose SA? Add `dst ADDRESS'"),
            () if families(&sa.src, &sa.dst) => {
                Some("src and dst are of different families; they must be of one")
            }
            () if sa.pair_spi == Some(0) => Some("pair-spi 0 is no SA's; write that of the other direction"),
            () if *kind == MessageType::UpdatePair && sa.pair_spi.is_some() => {
                Some("update-pair changes a pair that is one already; leave pair-spi out, or use update")
            }
            () if *satype == SaType::Ah && (sa.encrypt.is_some() || sa.encrypt_key.is_some()) => {
                Some("ah does not encrypt; leave encr_alg and encrkey out, or use esp")
            }
            () if natt && !sa.encap => Some("nat_ words need `encap udp' beside them"),
            () if sa.encap && !natt => {
                Some("encap udp needs nat_lport and nat_rport (4500), or nat_loc or nat_rem")
            }
            () if sa.encap && *satype != SaType::Esp => Some("encap udp is for esp (RFC 3948)"),
            () if sa.inner_src.is_some() != sa.inner_dst.is_some() => {
                Some("isrc and idst go together; add the other one")
            }
            () if inner_families(sa) => Some("isrc and idst are of different families; they must be of one"),
            () if sa.inner_src.is_none() && !sa.also.is_empty() => Some("also needs isrc and idst"),
            () if sa.inner_src.is_none()
                && (sa.inner_sport != 0 || sa.inner_dport != 0 || sa.inner_proto != 0) =>
            {
                Some("isport, idport and iproto need isrc and idst")
            }
            () if *kind == MessageType::Add && keyed && sa.auth.is_none() && sa.encrypt.is_none() => {
                Some("which algorithms? Add encr_alg or auth_alg")
            }
            () if *kind == MessageType::Add && keyed && sa.auth_key.is_none() && sa.encrypt_key.is_none() => {
                Some("without a key? Add encrkey or authkey")
            }
            () if *kind == MessageType::Add && *satype == SaType::Esp && lacks_integrity(sa) => {
                Some("esp without integrity is not carried here; add auth_alg and authkey, or use aes-gcm16")
            }
            () => None,
        }
    }
}

/// Whether a cipher stands alone that does not protect integrity by itself (RFC 4303 §3.2).
fn lacks_integrity(sa: &Attributes) -> bool {
    let cipher = sa.encrypt.and_then(Encryption::from_number);
    sa.auth.is_none() && cipher.is_some_and(|cipher| !cipher.is_combined())
}

fn families(one: &Option<Host>, other: &Option<Host>) -> bool {
    match (one, other) {
        // `::` says "any source" of either family.
        (Some(Host::Ip(src)), Some(Host::Ip(dst))) => differ(src, dst) && !src.is_unspecified(),
        _ => false,
    }
}

fn inner_families(sa: &Attributes) -> bool {
    match (&sa.inner_src, &sa.inner_dst) {
        (Some((Host::Ip(src), _)), Some((Host::Ip(dst), _))) => differ(src, dst),
        _ => false,
    }
}

const fn differ(one: &IpAddr, other: &IpAddr) -> bool {
    one.is_ipv4() != other.is_ipv4()
}

#[cfg(test)]
mod tests;
