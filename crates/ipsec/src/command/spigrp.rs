//! `ipsec spigrp`: which SAs are applied to one packet, one after the other.

use super::ask::{ask, satype};
use super::usage::Usage;
use super::{Failure, finish, listing};
use crate::table::Table;
use core::net::IpAddr;
use ipsec_core::text::{self, Family};
use ipsec_core::{Protocol, SaId, Spi};
use pfkey::{Address, Errno, ExtType, Fault, Member, MessageType, SaType};
use std::process::ExitCode;

/// Show or change which SAs are applied together
#[derive(Clone, Debug, Default, clap::Args)]
#[command(after_help = "\
Without SAs it prints the table. SAs are named from the inside to the outside:
tun, comp, esp, ah, up to four, all to one destination. One SA by itself is
taken out of its group.

Examples:
  ipsec spigrp --said tun0x1000@192.0.2.2 esp0x1001@192.0.2.2 ah0x1002@192.0.2.2
  ipsec spigrp inet 192.0.2.2 0x1000 tun  inet 192.0.2.2 0x1001 esp
  ipsec spigrp --said esp0x1001@192.0.2.2")]
pub struct Args {
    /// The SAs
    #[arg(long, value_name = "SAID", num_args = 1.., conflicts_with = "words")]
    said: Vec<String>,
    /// The SAs in four words each: inet or inet6, destination, SPI, protocol
    #[arg(value_name = "AF DST SPI PROTO")]
    words: Vec<String>,
    /// Print a JSON array with one object per group
    #[arg(long)]
    json: bool,
    /// A name for error messages
    #[arg(long, value_name = "TEXT")]
    label: Option<String>,
    /// Accepted and ignored
    #[arg(long, hide = true)]
    debug: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> ExitCode {
    let name = args.label.as_ref().map_or_else(|| "spigrp".to_owned(), |label| format!("spigrp {label}"));
    match args.sas() {
        Ok(sas) if sas.is_empty() => finish(&name, listing::print(Table::Spigrp, args.json)),
        Ok(sas) => finish(&name, group(&sas)),
        Err(usage) => usage.report(&name),
    }
}

impl Args {
    /// The SAs that were named, from the inside to the outside.
    fn sas(&self) -> Result<Vec<SaId>, Usage> {
        let sas: Vec<SaId> = if self.words.is_empty() {
            let read =
                |text: &String| text.parse().map_err(|why| Usage::new(format_args!("--said {text}: {why}")));
            self.said.iter().map(read).collect::<Result<_, _>>()?
        } else {
            let (quads, rest) = self.words.as_chunks::<4>();
            if !rest.is_empty() {
                return Err(Usage::new(
                    "each SA takes four words: inet or inet6, destination, SPI, protocol",
                ));
            }
            quads.iter().map(sa).collect::<Result<_, _>>()?
        };
        if sas.len() > 4 {
            return Err(Usage::new(format_args!("{} SAs: a group has four at most", sas.len())));
        }
        if let Some(other) = sas.iter().find(|sa| sas.first().is_some_and(|first| first.dst != sa.dst)) {
            return Err(Usage::new(format_args!("{other} has another destination than the SA before it")));
        }
        Ok(sas)
    }
}

/// One SA in four words.
fn sa([af, dst, spi, protocol]: &[String; 4]) -> Result<SaId, Usage> {
    let family = match af.as_str() {
        "inet" => Family::V4,
        "inet6" => Family::V6,
        _ => return Err(Usage::new(format_args!("{af}: the address family is inet or inet6"))),
    };
    let dst: IpAddr =
        text::address(dst, Some(family)).map_err(|why| Usage::new(format_args!("{dst}: {why}")))?;
    let number = text::number(spi).ok().and_then(|number| u32::try_from(number).ok()).map(Spi);
    let spi = number
        .filter(|spi| !spi.is_reserved())
        .ok_or_else(|| Usage::new(format_args!("{spi}: an SPI is a number of 32 bits, 0x100 or more")))?;
    let protocols = [Protocol::Ah, Protocol::Esp, Protocol::Ipip, Protocol::Ipcomp];
    let protocol = protocols
        .into_iter()
        .find(|known| known.word() == protocol.as_str())
        .ok_or_else(|| Usage::new(format_args!("{protocol}: the protocol is ah, esp, tun or comp")))?;
    Ok(SaId { dst, protocol, spi })
}

fn group(sas: &[SaId]) -> Result<(), Failure> {
    let members: Vec<Member> =
        sas.iter().map(|id| Member { satype: satype(id.protocol).number(), spi: id.spi.0 }).collect();
    let Some(dst) = sas.first().map(|sa| sa.dst) else { return Ok(()) };
    let outcome = ask(MessageType::GroupSa, SaType::Unspec, |writer| {
        writer.address(ExtType::AddressDst, &Address::host(dst));
        writer.group(&members);
    })?;
    outcome.map_err(|fault| refusal(sas, fault))
}

fn refusal(sas: &[SaId], fault: Fault) -> Failure {
    let list: Vec<String> = sas.iter().map(ToString::to_string).collect();
    let list = list.join(" ");
    match fault.errno {
        Errno::ESRCH => Failure::new(format_args!(
            "{list}: at least one of these SAs does not exist; `ipsec spi` lists them"
        )),
        Errno::EPROTOTYPE => {
            Failure::new(format_args!("{list}: the outermost SA, named last, must be esp or ah"))
        }
        _ => Failure::new(format_args!("{list}: refused: {fault}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(said: &[&str], words: &[&str]) -> Args {
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        Args { said: owned(said), words: owned(words), ..Args::default() }
    }

    #[test]
    fn sas_are_named_either_way() {
        let either = [
            args(&["tun.1000@192.0.2.2", "esp0x1001@192.0.2.2"], &[]),
            args(&[], &["inet", "192.0.2.2", "0x1000", "tun", "inet", "192.0.2.2", "4097", "esp"]),
        ];
        for args in either {
            let names: Vec<String> = args.sas().unwrap().iter().map(ToString::to_string).collect();
            assert_eq!(names, ["tun0x1000@192.0.2.2", "esp0x1001@192.0.2.2"]);
        }
        assert!(args(&[], &[]).sas().unwrap().is_empty());
    }

    #[test]
    fn what_is_no_group_is_refused_before_anybody_is_asked() {
        for (words, why) in [
            (&["inet", "192.0.2.2", "0x1000"][..], "four words"),
            (&["ip", "192.0.2.2", "0x1000", "tun"], "inet or inet6"),
            (&["inet6", "192.0.2.2", "0x1000", "tun"], "192.0.2.2"),
            (&["inet", "192.0.2.2", "0xff", "tun"], "0x100 or more"),
            (&["inet", "192.0.2.2", "0x1000", "gre"], "ah, esp, tun or comp"),
            (
                &["inet", "192.0.2.2", "0x1000", "tun", "inet", "192.0.2.3", "0x1001", "esp"],
                "another destination",
            ),
        ] {
            let told = args(&[], words).sas().unwrap_err().to_string();
            assert!(told.contains(why), "{told}");
        }
        let five = ["esp0x1001@192.0.2.2"; 5];
        assert!(args(&five, &[]).sas().unwrap_err().to_string().contains("four at most"));
    }
}
