//! Through a tunnel, end to end: TCP, UDP, round trips, processor time and memory, beside the bare cable, forwarders that
//! only copy or only encrypt, and every other user-space tunnel that is installed.
//!
//! Our own rows also say how much the algorithms alone would let through on one core (`algorithms_gbit`).
//!
//! All share one machine, so the contenders take turns in each round, and what else ran meanwhile (`foreign`, in cores) is
//! part of every row. Ratios of medians of one run are what counts.

pub(crate) mod contender;
pub(crate) mod forward;
pub(crate) mod place;
pub(crate) mod strongswan;
mod traffic;
pub(crate) mod tulips;
mod wireguard;

use crate::measure::median;
use crate::report::{figure, row};
use contender::Contender;
use ipsec::host::clock;
use place::{Place, Running, cpu, machine};
use serde_json::{Value, json};
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// What to compare, and how long
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// One round of fewer and shorter samples
    #[arg(long)]
    quick: bool,
    /// Rounds; each contender once in each
    #[arg(long)]
    rounds: Option<usize>,
    /// A directory with other tunnels (boringtun-cli, gotatun, wireguard-go), besides PATH
    #[arg(long, value_name = "DIR")]
    peers: Option<PathBuf>,
    /// Only contenders whose name contains one of these
    filter: Vec<String>,
}

impl Options {
    fn wants(&self, name: &str) -> bool {
        self.filter.is_empty() || self.filter.iter().any(|part| name.contains(part.as_str()))
    }

    /// Octets of payload; the last makes a packet of 1400, which no tunnel here has to cut.
    fn sizes(&self) -> &'static [usize] {
        if self.quick { &[64] } else { &[64, 200, 1372] }
    }
}

/// The figures of one contender in one round.
type Figures = Vec<(String, f64)>;

/// Measures; whether every contender could be.
pub(crate) fn run(options: &Options) -> io::Result<bool> {
    place::become_able()?;
    // What else runs disturbs all contenders less; who may not ask for that measures all the same.
    let _ = rustix::process::nice(-10);
    let contenders: Vec<Contender> = contender::all(options.peers.as_deref())
        .into_iter()
        .filter(|one| options.wants(&one.name()))
        .collect();
    let rounds = options.rounds.unwrap_or(if options.quick { 1 } else { 3 });
    let mut samples: Vec<(String, Vec<Figures>)> =
        contenders.iter().map(|contender| (contender.name(), Vec::new())).collect();
    let mut complete = true;
    for round in 1..=rounds {
        for (contender, (name, samples)) in contenders.iter().zip(&mut samples) {
            let figures = measure(contender, options).unwrap_or_else(|why| {
                complete = false;
                eprintln!("{name}: {why}");
                Figures::new()
            });
            if !figures.is_empty() {
                show(&format!("tunnel {name}"), ("round", json!(round)), &figures);
            }
            samples.push(figures);
        }
    }
    eprintln!("\nmedians; spread is (greatest - least) / median of the TCP figure that varied most");
    for (name, rounds) in &samples {
        let mut medians = Figures::new();
        let mut widest = 0.0_f64;
        let names = names(rounds);
        if names.is_empty() {
            continue;
        }
        for what in names {
            let values: Vec<f64> = rounds.iter().filter_map(|figures| figure_of(figures, &what)).collect();
            if what.starts_with("tcp") {
                widest = widest.max(spread(&values));
            }
            medians.push((what, median(values)));
        }
        medians.push(("spread".into(), widest));
        show(&format!("tunnel {name}"), ("median_of", json!(rounds.len())), &medians);
    }
    ratios(&samples);
    Ok(complete)
}

fn names(rounds: &[Figures]) -> Vec<String> {
    let longest = rounds.iter().max_by_key(|figures| figures.len());
    longest.map(|figures| figures.iter().map(|(what, _)| what.clone()).collect()).unwrap_or_default()
}

fn figure_of(figures: &Figures, what: &str) -> Option<f64> {
    figures.iter().find(|(name, _)| name == what).map(|(_, value)| *value)
}

/// Ours by everything else, figure by figure: the ratio in each round, then the median of these.
fn ratios(samples: &[(String, Vec<Figures>)]) {
    let ours = |name: &str| name.starts_with("tulips");
    eprintln!("\nratios, medians of the rounds'; more is better but for ping, cpu and resident");
    for (our_name, our_rounds) in samples.iter().filter(|(name, _)| ours(name)) {
        for (name, rounds) in samples.iter().filter(|(name, _)| !ours(name)) {
            let mut medians = Figures::new();
            for what in names(rounds).into_iter().filter(|what| what != "foreign") {
                let of = |figures: &Figures| figure_of(figures, &what).filter(|value| *value > 0.0);
                let quotient = |(ours, theirs): (&Figures, &Figures)| Some(of(ours)? / of(theirs)?);
                let quotients: Vec<f64> = our_rounds.iter().zip(rounds).filter_map(quotient).collect();
                if !quotients.is_empty() {
                    medians.push((what, median(quotients)));
                }
            }
            show(&format!("{our_name} / {name}"), ("median_of", json!(rounds.len())), &medians);
        }
    }
}

/// How far samples of one thing are apart.
fn spread(values: &[f64]) -> f64 {
    let most = values.iter().copied().fold(0.0, f64::max);
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    (most - least) / median(values.to_vec()).max(f64::MIN_POSITIVE)
}

fn show(name: &str, which: (&str, Value), figures: &Figures) {
    let mut columns = vec![("bench", json!(name)), which];
    columns.extend(figures.iter().map(|(what, value)| (what.as_str(), figure(*value))));
    row(&columns);
}

fn measure(contender: &Contender, options: &Options) -> io::Result<Figures> {
    let place = Place::new(contender.is_of_hosts())?;
    let running = contender.up(&place)?;
    let [a, b] = &place.sides;
    let mut figures = Figures::new();
    let (start, before) = (clock::now(), foreign(&running));
    let trips = traffic::ping(a, b, if options.quick { 100 } else { 500 })?;
    if let Some(last) = trips.len().checked_sub(1) {
        figures.push(("ping_us".into(), trips.iter().sum::<f64>() / trips.len() as f64));
        figures.push(("ping_p99_us".into(), trips[(trips.len() * 99 / 100).min(last)]));
    }
    let window = Duration::from_millis(if options.quick { 600 } else { 3000 });
    let (mut spent, mut gigabytes) = (0.0, 0.0);
    for streams in [1, 4] {
        for (way, from, to) in [("ab", a, b), ("ba", b, a)] {
            let mut edges = Vec::new();
            let (octets, seconds) = traffic::tcp(from, to, streams, window, || edges.push(running.cpu()))?;
            figures.push((format!("tcp{streams}_{way}_gbit"), octets * 8.0 / 1e9 / seconds));
            gigabytes += octets / 1e9;
            spent += edges.last().unwrap_or(&0.0) - edges.first().unwrap_or(&0.0);
        }
    }
    figures.push(("cpu_s_per_gb".into(), spent / gigabytes));
    figures.push(("resident_mib".into(), running.resident()));
    let (steps, trial) = if options.quick { (5, 250) } else { (8, 1000) };
    for size in options.sizes() {
        let rate = traffic::udp(a, b, *size, steps, Duration::from_millis(trial))?;
        figures.push((format!("udp{size}_kpps"), rate / 1e3));
    }
    if let Contender::Tulips { way, .. } = contender {
        figures.push(("algorithms_gbit".into(), way.algorithms_gbit()?));
    }
    let seconds = clock::now().since(start).as_secs_f64();
    figures.push(("foreign".into(), ((foreign(&running) - before) / seconds).max(0.0)));
    Ok(figures)
}

/// Seconds of the processor that neither this process nor the contender's had.
fn foreign(running: &Running) -> f64 {
    machine() - cpu("self") - running.cpu()
}
