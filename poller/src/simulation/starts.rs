//! When polls begin: spread over the interval, and by the clock, whatever others do.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use tokio::time::{Duration, sleep};

use super::life::{Life, TIMING};
use super::network::Wires;
use super::world;
use crate::config::Timing;

const PLAIN: Timing = Timing { wait_for_events: false, ..TIMING };

/// Runs something in simulated time, with a hundred servers and a database of its own.
fn simulated<T>(run: impl AsyncFnOnce(&[String], &Arc<Wires>, &Path) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("poller.db");
    runtime.block_on(async {
        world::begin(1);
        let names: Vec<String> = (0..100).map(|number| format!("vm{number}")).collect();
        let wires = Wires::new(1, &names, 0);
        run(&names, &wires, &database).await
    })
}

/// Moments at which each server was asked, in milliseconds, over so long.
fn starts(cut: fn(usize) -> bool, lives: usize) -> Vec<BTreeMap<String, Vec<u64>>> {
    simulated(async |names, wires, database| {
        for (at, name) in names.iter().enumerate() {
            wires.with(name, |place| place.cut = cut(at));
        }
        let mut all = Vec::new();
        for _ in 0..lives {
            let life = Life::begin(database, wires, PLAIN).await;
            sleep(Duration::from_secs(100)).await;
            let durations: Vec<Option<Duration>> =
                life.fleet.all().iter().map(|member| member.duration).collect();
            let most = PLAIN.timeout + Duration::from_millis(100);
            assert!(durations.iter().all(|it| it.is_some_and(|it| it <= most)), "{durations:?}");
            life.stop().await;
            let mut starts: BTreeMap<String, Vec<u64>> = BTreeMap::new();
            for line in std::mem::take(&mut *wires.trace.lock().unwrap()) {
                if line.ends_with("Good") {
                    let mut words = line.split(' ');
                    let at = words.next().unwrap().parse().unwrap();
                    starts.entry(words.next().unwrap().to_owned()).or_default().push(at);
                }
            }
            all.push(starts);
            // Another moment of the interval.
            sleep(Duration::from_millis(3_333)).await;
        }
        all
    })
}

/// Polls that ended in a hundred seconds in which every server tells an event now and then, and those of
/// them that began more than a second late.
fn polled(timing: Timing) -> (u64, u64) {
    simulated(async |names, wires, database| {
        let life = Life::begin(database, wires, timing).await;
        let told = async {
            loop {
                sleep(Duration::from_millis(3_137)).await;
                names.iter().for_each(|name| wires.with(name, |place| place.exporter.event()));
            }
        };
        let over = tokio::time::timeout(Duration::from_secs(100), told).await;
        assert!(over.is_err());
        let polls = life.metrics.poll_duration.get_sample_count();
        let late = life.metrics.late_polls().1;
        life.stop().await;
        (polls, late)
    })
}

fn offset(at: u64) -> u64 {
    at % 10_000
}

#[test]
fn a_hundred_servers_are_asked_spread_over_the_interval_and_alike_in_every_life() {
    let lives = starts(|_| false, 2);
    let first: Vec<u64> = lives[0].values().map(|starts| offset(starts[0])).collect();
    assert_eq!(first.len(), 100);
    for second in 0..10_000 {
        let within = |at: &&u64| (**at + 10_000 - second) % 10_000 < 1_000;
        assert!(first.iter().filter(within).count() <= 25, "at {second} ms: {first:?}");
    }
    for (name, starts) in &lives[1] {
        let before = offset(lives[0][name][0]);
        assert!(starts.len() >= 9 && starts.iter().all(|at| offset(*at) == before), "{name}");
    }
}

#[test]
fn half_of_them_hang_and_the_others_are_asked_in_time() {
    let starts = &starts(|at| at % 2 == 0, 1)[0];
    for at in (1..100).step_by(2) {
        let name = format!("vm{at}");
        let starts = &starts[&name];
        assert!((9..=11).contains(&starts.len()), "{name}: {starts:?}");
        let apart: Vec<u64> = starts.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(apart.iter().all(|apart| apart.abs_diff(10_000) <= 1), "{name}: {apart:?}");
    }
}

/// What is told between polls makes none of them late, nor leaves one out.
#[test]
fn events_that_come_between_polls_are_no_polls_and_hold_none_up() {
    let (quiet, eventful) = (polled(PLAIN), polled(TIMING));
    assert!((900..=1_000).contains(&quiet.0), "{quiet:?}");
    // Whether the first and the last are within is a matter of milliseconds.
    assert!(eventful.0.abs_diff(quiet.0) <= 100, "{quiet:?} {eventful:?}");
    assert_eq!((quiet.1, eventful.1), (0, 0), "polls that began more than a second late");
}
