//! The poller's tasks, client's edge and store over a simulated network and time, with seeds:
//! servers that crash, links that are cut, requests and answers that are lost, a poller that is
//! killed, a disk that is full. Everything but SQLite's own threads runs on one thread with a
//! paused clock, which stands while SQLite works; so that a seed replays.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

pub(crate) mod network;
pub(crate) mod world;

mod exporter;
mod life;
mod limits;
mod run;
mod starts;

use run::{Run, simulate};

/// So many in the suite; `make soak` has a thousand.
const SEEDS: std::ops::Range<u64> = 0..12;

/// Of the environment: `SIMULATION_SEEDS=1000`, or `SIMULATION_SEED=17` for one.
fn seeds() -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    match (number("SIMULATION_SEED"), number("SIMULATION_SEEDS")) {
        (Some(one), _) => one..one + 1,
        (None, Some(many)) => 0..many,
        (None, None) => SEEDS,
    }
}

/// Runs seeds, one a core at a time: each has a thread and what is simulated there to itself.
fn run_all(seeds: std::ops::Range<u64>) -> (Run, Vec<u64>) {
    let next = AtomicU64::new(seeds.start);
    let sum = Mutex::new((Run::default(), Vec::new()));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            let run = std::panic::catch_unwind(|| simulate(seed));
            let mut sum = sum.lock().unwrap();
            match run {
                Ok(run) => sum.0.add(&run),
                Err(_) => {
                    eprintln!("to see it again: SIMULATION_SEED={seed}");
                    sum.1.push(seed);
                }
            }
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(work);
        }
    });
    sum.into_inner().unwrap()
}

#[test]
fn commands_run_at_most_once_nothing_is_lost_or_doubled_and_what_is_stale_is_called_so() {
    let seeds = seeds();
    let many = seeds.end - seeds.start > 1;
    let (run, failed) = run_all(seeds);
    assert_eq!(failed, Vec::<u64>::new(), "seeds that failed");
    let Run { commands, lives, entries, .. } = run;
    let enough = commands > 10 && lives > 10 && entries > 100;
    assert!(enough || !many, "{commands} {lives} {entries}");
}

#[test]
fn a_seed_replays() {
    let (first, second) = (simulate(3), simulate(3));
    let differ = first.trace.iter().zip(&second.trace).position(|(one, other)| one != other);
    let at = differ.map(|at| (&first.trace[at], &second.trace[at]));
    assert_eq!((at, first.trace.len()), (None, second.trace.len()));
    assert_ne!(first.trace, simulate(4).trace);
}
