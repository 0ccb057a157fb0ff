//! `cargo xtask bench`: figures, each beside the limit measured in the same run.
//!
//! Machines are noisy and small: samples of the thing and of its limit alternate, and medians of ratios are what counts.
//! JSON lines on standard output, a table on standard error.

mod engine;
mod eroute;
mod ike;
mod measure;
mod pfkey;
mod report;
mod scale;
mod soak;
mod tunnel;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Measure tulips
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Seal and open per packet, for each algorithm and size, beside the raw cipher
    Engine(measure::Options),
    /// Policy with 1 to 1 000 000 eroutes: lookups, changes and the longest of them, octets
    Eroute(measure::Options),
    /// PF_KEY messages per second, in the engine and over the socket, and the memory of an SA
    Pfkey(measure::Options),
    /// IKE handshakes and rekeyings per second as responder, memory of an IKE SA, and a flood
    Ike(measure::Options),
    /// The part of `ike` that wants a process of its own
    #[command(hide = true)]
    IkeMemory { size: u32 },
    /// The program that `pfkey` starts under the shim
    #[command(hide = true)]
    PfkeyUnderShim,
    /// Mixed traffic through two gateways for ten minutes, with rekeys: nothing may be lost, reordered or altered
    Soak(soak::Options),
    /// 1, 1 000 and 100 000 tunnels, traffic over all of them: per packet, beside one tunnel
    Scale(measure::Options),
    /// Through a tunnel end to end, beside the bare cable, forwarders and other user-space tunnels
    Tunnel(tunnel::Options),
    /// The reference forwarder that `tunnel` starts
    #[command(hide = true)]
    Forward(tunnel::forward::Options),
}

fn main() -> ExitCode {
    let done = match Args::parse().what {
        What::Engine(options) => {
            engine::run(&options);
            Ok(true)
        }
        What::Eroute(options) => {
            eroute::run(&options);
            Ok(true)
        }
        What::Pfkey(options) => pfkey::run(&options).map(|()| true),
        What::Ike(options) => ike::run(&options).map(|()| true),
        What::IkeMemory { size } => {
            ike::memory(size);
            Ok(true)
        }
        What::PfkeyUnderShim => pfkey::ways::under_shim().map(|()| true),
        What::Soak(options) => soak::run(&options),
        What::Scale(options) => scale::run(&options).map(|()| true),
        What::Tunnel(options) => tunnel::run(&options),
        What::Forward(options) => tunnel::forward::run(&options),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("bench: {why}");
            ExitCode::FAILURE
        }
    }
}
