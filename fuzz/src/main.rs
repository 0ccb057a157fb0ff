//! Replays the committed corpora, then mutates them for a bounded number of steps. Needs nothing but Rust.
//!
//! The steps are the same every time: this notices what broke, `cargo fuzz` finds what nobody thought of.

use clap::Parser;
use fuzz::{TARGETS, Target};
use std::fs;
use std::panic::catch_unwind;
use std::path::PathBuf;
use std::process::ExitCode;

/// Replay the fuzz corpora and mutate them
#[derive(Debug, Parser)]
struct Args {
    /// Mutations tried for each target
    #[arg(long, default_value_t = 100_000)]
    iterations: u64,
    /// Write the first inputs of each corpus anew
    #[arg(long)]
    seed: bool,
    /// Only this target
    target: Option<String>,
    /// Run this file and nothing else
    #[arg(requires = "target")]
    file: Option<PathBuf>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let mut failed = false;
    for target in
        TARGETS.iter().filter(|target| args.target.as_deref().is_none_or(|name| name == target.name))
    {
        let dir = here.join("corpus").join(target.name);
        if args.seed {
            fs::create_dir_all(&dir).expect("the corpus directory");
            for (name, data) in (target.seeds)() {
                fs::write(dir.join(name), data).expect("a corpus file");
            }
            continue;
        }
        let corpus = match &args.file {
            Some(file) => vec![fs::read(file).expect("the file")],
            None => read(&dir),
        };
        let iterations = if args.file.is_some() { 0 } else { args.iterations };
        match fuzz(target, &corpus, iterations) {
            Ok(()) => {
                println!("fuzz {}: {} inputs, {iterations} mutations, all well", target.name, corpus.len())
            }
            Err(input) => {
                let path = here.join(format!("artifact-{}", target.name));
                let _ = fs::write(&path, &input);
                eprintln!("fuzz {}: failed; the input is in {}", target.name, path.display());
                eprintln!("again: cargo run -p fuzz -- {} {}", target.name, path.display());
                failed = true;
            }
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn read(dir: &std::path::Path) -> Vec<Vec<u8>> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(dir).map(|all| all.flatten().map(|entry| entry.path()).collect()).unwrap_or_default();
    paths.sort();
    paths.iter().map(|path| fs::read(path).expect("a corpus file")).collect()
}

/// The input that failed, if one did.
fn fuzz(target: &Target, corpus: &[Vec<u8>], iterations: u64) -> Result<(), Vec<u8>> {
    assert!(!corpus.is_empty(), "no corpus for {}", target.name);
    let run = |data: &[u8]| catch_unwind(|| (target.run)(data)).map_err(|_| data.to_vec());
    for data in corpus {
        run(data)?;
        for end in 0..data.len().min(200) {
            run(data.get(..end).unwrap_or_default())?;
        }
    }
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    for _ in 0..iterations {
        let mut data = dice.pick(corpus).clone();
        for _ in 0..=dice.below(4) {
            dice.mutate(&mut data, corpus);
        }
        run(&data)?;
    }
    Ok(())
}

/// xorshift64: chance enough for this.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.roll() >> 1).unwrap_or(0) % end.max(1)
    }

    fn pick<'c>(&mut self, corpus: &'c [Vec<u8>]) -> &'c Vec<u8> {
        &corpus[self.below(corpus.len())]
    }

    fn mutate(&mut self, data: &mut Vec<u8>, corpus: &[Vec<u8>]) {
        if data.is_empty() {
            return data.push(0);
        }
        // Headers are where the decisions are.
        let end = if self.below(2) == 0 { data.len().min(96) } else { data.len() };
        let at = self.below(end);
        match self.below(9) {
            0 => data[at] ^= 1 << self.below(8),
            1 => data[at] = u8::try_from(self.below(256)).unwrap_or(0),
            2 => data[at] = [0, 1, 0x7f, 0x80, 0xff, 4, 6, 41][self.below(8)],
            3 => data.truncate(at),
            4 => data.insert(at, data[at]),
            5 => drop(data.remove(at)),
            6 => {
                let value = [0_u16, 1, 0x7fff, 0x8000, 0xffff, 20, 40, 1280][self.below(8)];
                for (to, from) in data[at..].iter_mut().zip(value.to_be_bytes()) {
                    *to = from;
                }
            }
            7 => {
                let other = self.pick(corpus).clone();
                let from = self.below(other.len());
                data.truncate(at);
                data.extend(&other[from..]);
            }
            _ => {
                let length = self.below(data.len() - at).min(64);
                let piece = data[at..at + length].to_vec();
                data.extend(piece);
            }
        }
    }
}
