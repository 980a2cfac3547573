//! What clients did and saw, for the checker of linearizability.

use std::{sync::Mutex, time::Instant};

#[path = "../support/porcupine.rs"]
mod porcupine;

use porcupine::{Judgement, Operation};

/// Operations of all clients, in the order in which they ended.
pub(crate) struct History {
    start: Instant,
    operations: Mutex<Vec<Operation>>,
}

impl History {
    pub(crate) fn new() -> Self {
        Self { start: Instant::now(), operations: Mutex::default() }
    }

    /// Nanoseconds since the start.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).expect("a short test")
    }

    /// An operation that was called at `call` and has ended now; with `known` false, nobody knows whether.
    pub(crate) fn record(&self, op: &'static str, key: &str, value: Option<String>, call: u64, known: bool) {
        let end = known.then(|| self.now());
        let operation = Operation { op, key: key.to_owned(), value, call, end };
        self.operations.lock().expect("no panic holds it").push(operation);
    }

    /// How many operations ended with a known outcome.
    pub(crate) fn known(&self) -> usize {
        self.operations.lock().expect("no panic holds it").iter().filter(|operation| operation.end.is_some()).count()
    }

    /// Asks porcupine. Where there is no Go, says so and checks nothing.
    pub(crate) fn check(&self) {
        let operations = self.operations.lock().expect("no panic holds it").clone();
        let judgement = porcupine::judge(&operations);
        if judgement == Judgement::NoChecker {
            return crate::tier::not_run("linearizability of the clusters' histories: there is no Go on this machine");
        }
        assert!(matches!(judgement, Judgement::Linearizable(_)), "no one order of all operations: {judgement:?}");
        println!("{judgement:?}");
    }
}
