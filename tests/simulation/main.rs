//! Deterministic simulation of whole clusters. A seed decides every fault, and the same seed gives the same run, byte
//! for byte. See `docs/simulation.md`.
//!
//! This test has no harness: it is a program with these flags.
//!
//! | flag | does |
//! |---|---|
//! | `--seeds N`, `--seeds N-M` | runs the seeds from 1 to N, or from N to M |
//! | `--seed N` | runs one seed |
//! | `--threads N` | runs N seeds at a time; default: the number of cores |
//! | `--trace` | prints each event in words |
//! | `--sums` | prints the hash of each seed's events |
//! | `--bug NAME` | plants a bug |
//! | `--find` | ends at the first seed that fails; status 1: none fails, 3: the histories could not be judged |
//!
//! Without a flag, it first runs a few seeds several times, in this process and in another. Then it looks for each bug
//! that can be planted. Then it runs as many seeds as the tier of the tests asks for.

mod clients;
mod clock;
mod disk;
mod events;
mod faults;
#[path = "../support/laws.rs"]
mod laws;
mod logs;
mod member;
#[path = "../world/disk.rs"]
#[allow(dead_code, reason = "the tests of worlds use the rest")]
mod memory_disk;
mod network;
mod operator;
mod oracles;
mod order;
mod panics;
mod plan;
#[path = "../support/porcupine.rs"]
mod porcupine;
mod run;
mod runner;
mod stranger;
#[path = "../support/tier.rs"]
mod tier;

use std::{ops::RangeInclusive, process::Command, thread::available_parallelism};

use plan::{BUGS, Bug};
use runner::{Search, simulate};

/// The seeds that are run several times and compared. Seed 87 kills members of a cluster of seven. It once gave another
/// run when another seed had run before it in the same process.
const TWICE: [u64; 5] = [1, 2, 3, 4, 87];

/// A planted bug must be found within this many seeds.
const FOUND_WITHIN: u64 = 200;

/// The flags of the program.
struct Flags {
    bug: Option<Bug>,
    seeds: Option<RangeInclusive<u64>>,
    threads: usize,
    is_traced: bool,
    sums: bool,
    finds: bool,
}

fn main() {
    let flags = Flags::read(std::env::args().skip(1)).unwrap_or_else(|why| {
        eprintln!("simulation: {why}");
        std::process::exit(2);
    });
    panics::watch();
    if let (true, Some(seeds)) = (flags.finds, &flags.seeds) {
        std::process::exit(find(seeds.clone(), &flags));
    }
    let is_well = match &flags.seeds {
        Some(seeds) if flags.sums => {
            seeds.clone().for_each(|seed| println!("{}", sum(seed)));
            true
        }
        Some(seeds) => told("seeds", runner::run(seeds.clone(), flags.bug, flags.threads, flags.is_traced)),
        None => {
            told("repeated", repeated())
                & told("bugs", bugs(flags.threads))
                & told("seeds", runner::run(1..=by_tier(), None, flags.threads, false))
        }
    };
    std::process::exit(i32::from(!is_well));
}

/// The number of seeds that the tier of the tests asks for.
fn by_tier() -> u64 {
    match std::env::var("RAFTHTTP_TEST_TIER").as_deref() {
        Ok("all") => 1000,
        Ok(_) => 100,
        Err(_) => 10,
    }
}

fn told(what: &str, (passed, failed): (u64, u64)) -> bool {
    println!("{what}: {passed} passed, {failed} failed");
    failed == 0 && passed > 0
}

fn sum(seed: u64) -> String {
    let report = simulate(seed, None, false);
    format!("{seed} {:016x} of {} events", report.sum.0, report.sum.1)
}

/// Runs each seed twice in this process and once in a process of its own. The hash must be the same: it must not depend
/// on what the process ran before.
fn repeated() -> (u64, u64) {
    let (mut passed, mut failed) = (0, 0);
    for seed in TWICE {
        let program = std::env::current_exe().expect("it runs");
        let alone = Command::new(program).args(["--sums", "--seed", &seed.to_string()]).output().expect("it runs");
        let (alone, here) = (String::from_utf8(alone.stdout).expect("text"), [sum(seed), sum(seed)]);
        if here[0] == here[1] && here[0] == alone.trim_end() {
            passed += 1;
        } else {
            println!("seed {seed} does not repeat: {here:?} here, {alone:?} in a process of its own");
            failed += 1;
        }
    }
    (passed, failed)
}

/// Looks for the first seed that fails. Returns the status of the program.
fn find(seeds: RangeInclusive<u64>, flags: &Flags) -> i32 {
    match runner::find(flags.bug, seeds, flags.threads) {
        Search::Found(seed, said) => {
            println!("seed {seed}: {said}");
            0
        }
        Search::NotFound => 1,
        Search::NoChecker => 3,
    }
}

/// Looks for each bug that can be planted.
fn bugs(threads: usize) -> (u64, u64) {
    let (mut passed, mut failed) = (0, 0);
    for (name, bug) in BUGS {
        match runner::find(Some(bug), 1..=FOUND_WITHIN, threads) {
            Search::Found(seed, said) => {
                println!("bug {name}: seed {seed} finds it: {said}");
                passed += 1;
            }
            Search::NoChecker => tier::not_run(&format!("the simulation's bug {name}: there is no Go on this machine")),
            Search::NotFound => {
                println!("bug {name}: not found within {FOUND_WITHIN} seeds");
                failed += 1;
            }
        }
    }
    (passed, failed)
}

impl Flags {
    fn read(arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let threads = available_parallelism().map_or(1, std::num::NonZero::get);
        let mut flags = Self { bug: None, seeds: None, threads, is_traced: false, sums: false, finds: false };
        let mut arguments = arguments;
        while let Some(flag) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{flag}: expected a value"));
            match flag.as_str() {
                "--seed" => flags.seeds = Some(range(&flag, &value()?, |number| number..=number)?),
                "--seeds" => flags.seeds = Some(range(&flag, &value()?, |number| 1..=number)?),
                "--threads" => flags.threads = number(&flag, &value()?)?.max(1).try_into().unwrap_or(threads),
                "--bug" => flags.bug = Some(bug(&value()?)?),
                "--trace" => flags.is_traced = true,
                "--sums" => flags.sums = true,
                "--find" => flags.finds = true,
                // A flag of cargo's own harness. Cargo may pass it to every test.
                "--nocapture" => {}
                _ => {
                    return Err(format!(
                        "{flag}: expected --seed, --seeds, --threads, --bug, --find, --trace or --sums"
                    ));
                }
            }
        }
        Ok(flags)
    }
}

fn bug(name: &str) -> Result<Bug, String> {
    let known = BUGS.iter().find(|(known, _)| *known == name).map(|(_, bug)| *bug);
    known.ok_or_else(|| format!("--bug {name}: expected one of {}", BUGS.map(|(name, _)| name).join(", ")))
}

fn number(flag: &str, text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("{flag} {text}: expected a number"))
}

fn range(flag: &str, text: &str, alone: impl Fn(u64) -> RangeInclusive<u64>) -> Result<RangeInclusive<u64>, String> {
    match text.split_once('-') {
        None => Ok(alone(number(flag, text)?)),
        Some((from, to)) => {
            let range = number(flag, from)?..=number(flag, to)?;
            if range.is_empty() { Err(format!("{flag} {text}: expected the smaller first")) } else { Ok(range) }
        }
    }
}
