//! The short form of `make fuzz`: every file of the corpora, whole, cut and with bytes exchanged, and
//! bytes made up. Needs no cargo-fuzz.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests fail by panicking"
)]

mod targets;

use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// Every seed of a target, and what becomes of it.
fn run(name: &str, target: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(name);
    let mut seeds: Vec<Vec<u8>> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| std::fs::read(entry.unwrap().path()).unwrap())
        .collect();
    assert!(!seeds.is_empty(), "{} is empty", folder.display());
    seeds.sort();
    for seed in &seeds {
        target(seed);
        let step = (seed.len() / 50).max(1);
        for end in (0..seed.len()).step_by(step) {
            target(&seed[..end]);
        }
    }
    let mut runner = TestRunner::new(Config { cases: 300, ..Config::default() });
    let changed = (0..seeds.len(), vec((any::<usize>(), any::<u8>()), 0..8));
    runner
        .run(&changed, |(at, changes)| {
            let mut bytes = seeds[at].clone();
            for (place, byte) in changes {
                let place = place % bytes.len().max(1);
                if let Some(slot) = bytes.get_mut(place) {
                    *slot = byte;
                }
            }
            target(&bytes);
            Ok(())
        })
        .unwrap();
    runner
        .run(&vec(any::<u8>(), 0..512), |bytes| {
            target(&bytes);
            Ok(())
        })
        .unwrap();
}

#[test]
fn frames() {
    run("frame", targets::frame);
}

#[test]
fn what_pm2_says() {
    run("model", targets::model);
}

#[test]
fn log_files() {
    run("logs", targets::logs);
}

#[test]
fn pages_of_applications() {
    run("relay", targets::relay);
}
