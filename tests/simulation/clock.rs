//! Virtual time, and the machines that live in it.
//!
//! Each process has a tokio runtime of its own on a paused clock, so that it can be killed with all of its tasks at
//! once, or frozen. The processes share one time line and take turns: each one runs through the next [`WINDOW`],
//! including its timers, before any runs through the one after it. No link is faster than a window. So nothing that a
//! process does can reach another one within the same window, and the order of the turns does not matter.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    runtime::{Builder, Runtime},
    time::{Instant, advance, sleep_until},
};

/// Milliseconds since the simulation began. tokio's timers know nothing finer.
pub type Time = u64;

/// How far each process runs before the others do, in milliseconds: the latency of the fastest link.
pub const WINDOW: Time = 4;

/// No process runs: the simulation itself acts.
const NOBODY: usize = usize::MAX;

/// The time line that all processes share.
#[derive(Clone, Debug, Default)]
pub struct Timeline(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    now: AtomicU64,
    runs: AtomicUsize,
    /// Where the running process's clock began, and when that was.
    origin: std::sync::Mutex<Option<(Instant, Time)>>,
}

impl Default for Shared {
    fn default() -> Self {
        Self { now: AtomicU64::new(0), runs: AtomicUsize::new(NOBODY), origin: std::sync::Mutex::new(None) }
    }
}

impl Timeline {
    /// The current time: by the clock of the process that runs, or the beginning of the window if none does.
    pub fn now(&self) -> Time {
        let origin = *self.0.origin.lock().expect("nobody panics while it holds this");
        match origin {
            Some((origin, born)) if self.0.runs.load(Ordering::Relaxed) != NOBODY => {
                born + u64::try_from(origin.elapsed().as_millis()).expect("a short run")
            }
            _ => self.0.now.load(Ordering::Relaxed),
        }
    }

    /// Begins the next window.
    pub fn go_on(&self) {
        self.0.now.fetch_add(WINDOW, Ordering::Relaxed);
    }

    /// Runs `work` as this process.
    fn run<T>(&self, process: &Process, work: impl FnOnce() -> T) -> T {
        *self.0.origin.lock().expect("nobody panics while it holds this") = Some((process.origin, process.born));
        self.0.runs.store(process.host, Ordering::Relaxed);
        let outcome = work();
        self.0.runs.store(NOBODY, Ordering::Relaxed);
        outcome
    }
}

/// A process: its tasks and its clock. Dropping it ends all of its tasks, wherever they are.
pub struct Process {
    host: usize,
    timeline: Timeline,
    runtime: Runtime,
    origin: Instant,
    born: Time,
    is_frozen: bool,
}

impl Process {
    /// A process that starts now.
    pub fn new(host: usize, timeline: &Timeline) -> Self {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
        let origin = runtime.block_on(async { Instant::now() });
        Self { host, timeline: timeline.clone(), runtime, origin, born: timeline.now(), is_frozen: false }
    }

    /// Lets it run until a time.
    pub fn run_until(&self, until: Time) {
        if !self.is_frozen {
            let end = self.origin + Duration::from_millis(until - self.born);
            self.timeline.run(self, || self.runtime.block_on(async { sleep_until(end).await }));
        }
    }

    /// Runs `work` within it, while its tasks wait.
    pub fn within<T>(&self, work: impl FnOnce() -> T) -> T {
        let _entered = self.runtime.enter();
        self.timeline.run(self, work)
    }

    /// Starts a task.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.within(|| drop(self.runtime.spawn(task)));
    }

    /// Freezes it, as by SIGSTOP.
    pub fn freeze(&mut self) {
        self.is_frozen = true;
    }

    /// Continues it. Its clock went on meanwhile, so all timers that became due fire at once.
    pub fn thaw(&mut self) {
        if std::mem::take(&mut self.is_frozen) {
            let now = self.timeline.now();
            let own = self.within(|| self.timeline.now());
            self.timeline
                .run(self, || self.runtime.block_on(async { advance(Duration::from_millis(now - own)).await }));
        }
    }

    /// How many tasks it has.
    pub fn tasks(&self) -> usize {
        self.runtime.metrics().num_alive_tasks()
    }
}
