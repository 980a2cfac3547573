//! The inputs of the fuzz targets, without libFuzzer: those of the corpus, and those that found something once.

#![cfg(feature = "node")]

#[path = "../fuzz/src/lib.rs"]
mod fuzz;

use std::{
    collections::BTreeSet,
    fs,
    panic::catch_unwind,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

/// How many panics there were. A task's panic stays in its task, and would go unseen.
static PANICS: AtomicUsize = AtomicUsize::new(0);

fn names(directory: &Path) -> BTreeSet<String> {
    let Ok(entries) = fs::read_dir(directory) else { return BTreeSet::new() };
    entries.map(|entry| entry.expect("a readable directory").file_name().to_string_lossy().into_owned()).collect()
}

fn directory(kind: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(kind)
}

#[test]
fn every_input_of_the_corpus_and_of_the_regressions_is_read_without_a_panic() {
    let (mut read, mut failed) = (0, Vec::new());
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        print(panic);
    }));
    for (target, call) in fuzz::TARGETS {
        for kind in ["corpus", "regressions"] {
            for name in names(&directory(kind).join(target)) {
                let path = directory(kind).join(target).join(name);
                let data = fs::read(&path).expect("a file");
                read += 1;
                let before = PANICS.load(Ordering::Relaxed);
                let ended = catch_unwind(|| call(&data));
                if ended.is_err() || PANICS.load(Ordering::Relaxed) > before {
                    failed.push(path);
                }
            }
        }
    }
    assert!(failed.is_empty(), "of {read} inputs, these fail: {failed:?}");
    assert!(read > 10 * fuzz::TARGETS.len(), "only {read} inputs");
}

#[test]
fn every_target_is_one_of_libfuzzers_and_has_a_corpus() {
    let targets: BTreeSet<String> = fuzz::TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let programs =
        names(&directory("fuzz_targets")).iter().map(|name| name.trim_end_matches(".rs").to_owned()).collect();
    assert_eq!(targets, programs);
    assert_eq!(targets, names(&directory("corpus")));
    assert!(names(&directory("regressions")).is_subset(&targets));
    let size = |target: &String| {
        let corpus = directory("corpus").join(target);
        let sizes = names(&corpus).into_iter().map(|name| fs::metadata(corpus.join(name)).expect("a file").len());
        sizes.sum::<u64>()
    };
    assert!(targets.iter().map(size).sum::<u64>() < 1 << 20, "the corpus stays small");
}
