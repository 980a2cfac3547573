//! Runs many seeds, on all cores.

use std::{
    ops::RangeInclusive,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use super::{
    panics,
    plan::{Bug, Plan},
    porcupine::{self, Judgement, Operation},
    run::{Report, Simulation},
    tier,
};

/// The number of histories that the checker of linearizability gets at once, because each call starts a process.
const BATCH: usize = 50;
/// The interval between two lines that tell the progress.
const PROGRESS: Duration = Duration::from_secs(5);

/// The results of all seeds so far.
#[derive(Default)]
struct Account {
    done: u64,
    failed: u64,
    virtual_ms: u64,
    known: u64,
    waiting: Vec<(u64, Vec<Operation>)>,
    is_judged: bool,
}

/// Runs one seed. A panic counts as a failure of the seed.
pub fn simulate(seed: u64, bug: Option<Bug>, is_traced: bool) -> Report {
    panics::take();
    let plan = Plan { bug, ..Plan::of(seed) };
    let run = catch_unwind(AssertUnwindSafe(|| Simulation::new(seed, plan.clone(), is_traced).run()));
    run.unwrap_or_else(|_| {
        let failure = panics::take().unwrap_or_else(|| "the machine has panicked".to_owned());
        Report::broken(seed, plan, failure)
    })
}

/// The result of looking for a bug.
pub enum Search {
    /// The first seed that fails, and its failure.
    Found(u64, String),
    NotFound,
    /// Only the checker of linearizability can find it, and this machine has none.
    NoChecker,
}

/// Looks for the first of these seeds that fails. Runs `threads` seeds at a time.
pub fn find(bug: Option<Bug>, seeds: RangeInclusive<u64>, threads: usize) -> Search {
    let has_checker = porcupine::judge(&[]) != Judgement::NoChecker;
    if !has_checker && bug.is_some_and(Bug::is_for_the_checker) {
        return Search::NoChecker;
    }
    let (next, first) = (AtomicU64::new(*seeds.start()), Mutex::new(None::<(u64, String)>));
    let found = || first.lock().expect("nobody panics while it holds this");
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    // Smaller seeds that other threads run go on: one of them may fail, and would be the first.
                    if seed > *seeds.end() || found().as_ref().is_some_and(|(first, _)| *first < seed) {
                        return;
                    }
                    let Some(said) = said(seed, bug) else { continue };
                    let mut first = found();
                    if first.as_ref().is_none_or(|(first, _)| seed < *first) {
                        *first = Some((seed, said));
                    }
                }
            });
        }
    });
    match first.into_inner().expect("nobody panicked while holding it") {
        Some((seed, said)) => Search::Found(seed, said),
        // The checker might have found it.
        None if !has_checker && bug.is_none() => Search::NoChecker,
        None => Search::NotFound,
    }
}

/// The failure of a seed, in one line. `None` if it passes.
fn said(seed: u64, bug: Option<Bug>) -> Option<String> {
    let report = simulate(seed, bug, false);
    let violation = || match porcupine::judge(&report.history) {
        Judgement::Violated(said) => Some(said),
        Judgement::NoChecker | Judgement::Linearizable(_) | Judgement::Unknown(_) => None,
    };
    let said = report.failure.clone().or_else(violation)?;
    Some(said.lines().next().unwrap_or_default().to_owned())
}

/// Runs seeds. Returns how many have passed and how many have failed.
pub fn run(seeds: RangeInclusive<u64>, bug: Option<Bug>, threads: usize, is_traced: bool) -> (u64, u64) {
    let (begun, count) = (Instant::now(), seeds.end() - seeds.start() + 1);
    let next = AtomicU64::new(*seeds.start());
    let (sender, reports) = mpsc::sync_channel(2 * threads);
    let mut account = Account { is_judged: true, ..Account::default() };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (next, sender, last) = (&next, sender.clone(), *seeds.end());
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed > last || sender.send(simulate(seed, bug, is_traced)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let mut told = Instant::now();
        for report in reports {
            account.take(report);
            if told.elapsed() > PROGRESS {
                told = Instant::now();
                println!("{}", account.line(count, begun.elapsed()));
            }
        }
    });
    account.judge();
    println!("{}", account.line(count, begun.elapsed()));
    if !account.is_judged {
        tier::not_run("linearizability of the simulated histories: there is no Go on this machine");
    }
    (account.done - account.failed, account.failed)
}

impl Account {
    fn take(&mut self, report: Report) {
        self.done += 1;
        self.virtual_ms += report.virtual_time;
        self.known += report.known as u64;
        if let Some(why) = &report.failure {
            self.failed += 1;
            tell_failure(report.seed, why, &report);
            return;
        }
        self.waiting.push((report.seed, report.history));
        if self.waiting.len() >= BATCH {
            self.judge();
        }
    }

    /// Asks the checker whether the waiting histories are linearizable.
    fn judge(&mut self) {
        let mut waiting = std::mem::take(&mut self.waiting);
        while !waiting.is_empty() {
            let mut operations = Vec::new();
            for (seed, history) in &waiting {
                // The seed becomes a part of each key, so that the checker takes no two histories for one.
                let of_seed =
                    |operation: &Operation| Operation { key: format!("{seed}/{}", operation.key), ..operation.clone() };
                operations.extend(history.iter().map(of_seed));
            }
            match porcupine::judge(&operations) {
                Judgement::NoChecker => {
                    self.is_judged = false;
                    return;
                }
                Judgement::Linearizable(_) => return,
                Judgement::Violated(said) | Judgement::Unknown(said) => {
                    let seed = said.split("key ").nth(1).and_then(|rest| rest.split('/').next()?.parse::<u64>().ok());
                    self.failed += 1;
                    println!("seed {} failed: {}", seed.unwrap_or_default(), said.trim_end());
                    let Some(seed) = seed else {
                        println!("    the histories of {} other seeds were not judged", waiting.len() - 1);
                        return;
                    };
                    println!("    repeat it: make simulate SEED={seed} TRACE=1");
                    waiting.retain(|(other, _)| *other != seed);
                }
            }
        }
    }

    fn line(&self, count: u64, took: Duration) -> String {
        #[expect(clippy::cast_precision_loss, reason = "it is shown")]
        let (done, hours) = (self.done as f64, self.virtual_ms as f64 / 3_600_000.0);
        format!(
            "simulation: {} of {count} seeds, {:.1} a second, {hours:.2} virtual hours, {} operations, {} failed",
            self.done,
            done / took.as_secs_f64(),
            self.known,
            self.failed
        )
    }
}

fn tell_failure(seed: u64, why: &str, report: &Report) {
    println!("seed {seed} failed: {why}");
    println!("    {:?}", report.plan);
    report.last.iter().for_each(|line| println!("    {line}"));
    println!("    repeat it: make simulate SEED={seed} TRACE=1");
}
