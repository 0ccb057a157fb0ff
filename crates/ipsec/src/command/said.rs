//! `--said SAID`, or `--af`, `--edst`, `--spi` and `--proto`: how commands are told which SA.

use super::usage::Usage;
use core::net::IpAddr;
use ipsec_core::text::{self, Family};
use ipsec_core::{Protocol, SaId, Said, Spi};

/// An address family, as commands take it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Af {
    /// IPv4
    #[value(alias = "4", alias = "ipv4")]
    Inet,
    /// IPv6
    #[value(alias = "6", alias = "ipv6")]
    Inet6,
}

impl From<Af> for Family {
    fn from(af: Af) -> Self {
        match af {
            Af::Inet => Self::V4,
            Af::Inet6 => Self::V6,
        }
    }
}

/// The SA a command is about.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct SaidArgs {
    /// Address family of --edst
    #[arg(long, value_enum, requires = "edst")]
    af: Option<Af>,
    /// Destination of the SA
    #[arg(long, value_name = "ADDRESS", conflicts_with = "said", requires = "spi")]
    edst: Option<String>,
    /// Security Parameters Index, 0x hexadecimal or decimal, 0x100 or more
    #[arg(long, value_name = "N", conflicts_with = "said", requires = "proto")]
    spi: Option<String>,
    /// Protocol of the SA: ah, esp, tun or comp
    #[arg(long, value_name = "PROTOCOL", conflicts_with = "said", requires = "edst")]
    proto: Option<String>,
    /// The SA in one word: esp0x101@192.0.2.1 (or, for eroutes, %pass, %drop, %reject, %trap, %hold)
    #[arg(long, value_name = "SAID")]
    said: Option<String>,
}

impl SaidArgs {
    /// What was named, if anything was.
    pub(super) fn named(&self) -> Result<Option<Said>, Usage> {
        let named = match (&self.said, &self.edst, &self.spi, &self.proto) {
            (Some(said), ..) => {
                said.parse().map_err(|why| Usage::new(format_args!("--said {said}: {why}")))?
            }
            (None, Some(edst), Some(spi), Some(proto)) => {
                let dst = self.address(edst)?;
                let protocol = protocol(proto)?;
                let spi = text::number(spi).ok().and_then(|n| u32::try_from(n).ok());
                let spi = spi
                    .ok_or_else(|| Usage::new(format_args!("--spi: not a 32-bit number [{:?}]", self.spi)))?;
                Said::Sa(SaId { dst, protocol, spi: Spi(spi) })
            }
            _ => return Ok(None),
        };
        if let Said::Sa(id) = named
            && id.spi.is_reserved()
        {
            let spi = id.spi.0;
            return Err(Usage::new(format_args!("illegal reserved SPI 0x{spi:x}, must be 0x100 or more")));
        }
        Ok(Some(named))
    }

    /// The SA that was named; the magic words are not SAs.
    pub(super) fn sa(&self) -> Result<Option<SaId>, Usage> {
        match self.named()? {
            None => Ok(None),
            Some(Said::Sa(id)) => Ok(Some(id)),
            Some(word) => Err(Usage::new(format_args!("{word} is not an SA"))),
        }
    }

    fn address(&self, edst: &str) -> Result<IpAddr, Usage> {
        text::address(edst, self.af.map(Family::from))
            .map_err(|why| Usage::new(format_args!("--edst {edst}: {why}")))
    }
}

fn protocol(word: &str) -> Result<Protocol, Usage> {
    let all = [Protocol::Ah, Protocol::Esp, Protocol::Ipip, Protocol::Ipcomp];
    all.into_iter()
        .find(|p| p.word() == word || p.number().to_string() == word)
        .ok_or_else(|| Usage::new(format_args!("--proto {word}: must be ah, esp, tun or comp")))
}
