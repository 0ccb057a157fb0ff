//! `ipsec completion`: what a shell needs to complete our words. It is made from the very description that the words are read by.

use super::{Failure, finish};
use crate::print;
use clap_complete::Shell;
use std::process::ExitCode;

/// What `ipsec completion` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ipsec completion bash >/usr/share/bash-completion/completions/ipsec
  ipsec completion zsh  >/usr/share/zsh/vendor-completions/_ipsec
  ipsec completion fish >/usr/share/fish/vendor_completions.d/ipsec.fish
The Debian package brings all three.")]
pub struct Args {
    /// bash, zsh or fish
    #[arg(value_parser = ["bash", "zsh", "fish"])]
    shell: String,
}

/// Runs the command; `whole` is the description of `ipsec`.
pub fn run(args: &Args, mut whole: clap::Command) -> ExitCode {
    let mut text = Vec::new();
    let shell = match args.shell.as_str() {
        "zsh" => Shell::Zsh,
        "fish" => Shell::Fish,
        _ => Shell::Bash,
    };
    clap_complete::generate(shell, &mut whole, "ipsec", &mut text);
    finish("completion", print::text(String::from_utf8_lossy(&text)).map_err(Failure::from))
}
