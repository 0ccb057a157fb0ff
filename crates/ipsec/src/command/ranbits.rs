//! `ipsec ranbits`: random bits as ipsec.conf and ipsec.secrets write keys.

use super::{Failure, finish};
use crate::print;
use std::process::ExitCode;
use zeroize::{Zeroize, Zeroizing};

/// More was never asked for, and is a mistake.
const MOST: u32 = 20_000;

/// What `ipsec ranbits` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ipsec ranbits --continuous 256     a secret for ipsec.secrets
  ipsec ranbits 128                  a key, in groups of eight digits

Exit codes: 0 done, 1 failed (the reason is on stderr), 2 usage.")]
pub struct Args {
    /// Without `_' between groups of eight digits
    #[arg(long)]
    continuous: bool,
    /// BITS is a number of octets
    #[arg(long)]
    bytes: bool,
    /// Of no effect: the kernel's randomness is always quick
    #[arg(long)]
    quick: bool,
    /// How many; whole octets are printed
    #[arg(value_name = "BITS", value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST)))]
    bits: u32,
}

/// Runs the command.
pub fn run(args: &Args) -> ExitCode {
    finish("ranbits", go(args))
}

fn go(args: &Args) -> Result<(), Failure> {
    let octets = if args.bytes { args.bits } else { args.bits.div_ceil(8) };
    let octets = usize::try_from(octets).map_err(Failure::new)?;
    let mut random = Zeroizing::new(vec![0; octets]);
    getrandom::fill(&mut random).map_err(|error| Failure::new(format_args!("no randomness: {error}")))?;
    let mut text = text(&random, args.continuous);
    let printed = print::line(&*text);
    text.zeroize();
    Ok(printed?)
}

fn text(octets: &[u8], continuous: bool) -> Zeroizing<String> {
    // As long as it will be, so that no shorter copy of a key stays behind.
    let mut text = Zeroizing::new(String::with_capacity(2 + octets.len() * 3));
    text.push_str("0x");
    for (at, octet) in octets.iter().enumerate() {
        if at > 0 && at % 4 == 0 && !continuous {
            text.push('_');
        }
        for digit in [octet >> 4, octet & 15] {
            text.push(char::from_digit(digit.into(), 16).unwrap_or('0'));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_come_in_groups_of_eight_or_all_at_once() {
        let octets: Vec<u8> = (0x10..0x1a).collect();
        assert_eq!(&*text(&octets, false), "0x10111213_14151617_1819");
        assert_eq!(&*text(&octets, true), "0x10111213141516171819");
        assert_eq!(&*text(&octets[..4], false), "0x10111213");
        assert_eq!(&*text(&octets[..1], false), "0x10");
    }
}
