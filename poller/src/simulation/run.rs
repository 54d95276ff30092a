//! One run: everything goes wrong for ten minutes, then all is well for three, and then what is
//! there must be what was told.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};

use dashboards::ServerStatus;
use tokio::time::{Duration, Instant, sleep};
use wire::{CommandId, CommandStatus};

use super::life::{Life, TIMING};
use super::network::Wires;
use super::world::{self, Chance, hold};
use crate::store::{CommandFilter, EventFilter, HistoryQuery, Store, Subject};
use crate::world::now;

const SERVERS: usize = 4;
const TROUBLE: Duration = Duration::from_secs(600);
const PEACE: Duration = Duration::from_secs(180);

/// What it came to.
#[derive(Debug, Default)]
pub(super) struct Run {
    pub(super) commands: usize,
    pub(super) lives: usize,
    pub(super) entries: usize,
    pub(super) trace: Vec<String>,
}

impl Run {
    pub(super) fn add(&mut self, other: &Self) {
        self.commands += other.commands;
        self.lives += other.lives;
        self.entries += other.entries;
    }
}

pub(super) fn simulate(seed: u64) -> Run {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .expect("a runtime");
    // In memory where that is possible: the disk's own time is not what is looked at.
    let base = Path::new("/dev/shm");
    let folder = match base.is_dir() {
        true => tempfile::tempdir_in(base),
        false => tempfile::tempdir(),
    };
    let folder = folder.expect("a folder");
    runtime.block_on(async {
        world::begin(seed);
        Simulation::new(seed, &folder.path().join("poller.db")).run().await
    })
}

struct Simulation {
    seed: u64,
    database: std::path::PathBuf,
    names: Vec<String>,
    wires: Arc<Wires>,
    /// Commands of which somebody was told that they are on record.
    acknowledged: Arc<Mutex<Vec<CommandId>>>,
    lives: usize,
}

impl Simulation {
    fn new(seed: u64, database: &Path) -> Self {
        let names: Vec<String> = (0..SERVERS).map(|number| format!("vm{number}")).collect();
        let wires = Wires::new(seed, &names, 6);
        let database = database.to_owned();
        Self { seed, database, names, wires, acknowledged: Arc::default(), lives: 0 }
    }

    async fn run(mut self) -> Run {
        let end = Instant::now() + TROUBLE;
        let mut actors = tokio::task::JoinSet::new();
        for (at, name) in (0..).zip(&self.names) {
            let (wires, name) = (Arc::clone(&self.wires), name.clone());
            actors.spawn(tells(Arc::clone(&wires), name.clone(), Chance::new(self.seed, 10 + at)));
            let chance = Chance::new(self.seed, 30 + at);
            actors.spawn(restarts(Arc::clone(&wires), name.clone(), chance, end));
            actors.spawn(is_cut(wires, name, Chance::new(self.seed, 50 + at), end));
        }
        let mut chance = Chance::new(self.seed, 1);
        let mut life = Life::begin(&self.database, &self.wires, TIMING).await;
        while Instant::now() < end {
            life = self.live(life, &mut chance, end).await;
        }
        *self.wires.trouble.lock().expect("trouble") = 0;
        let peace = Instant::now() + PEACE;
        while Instant::now() < peace {
            self.look(&life);
            sleep(Duration::from_secs(1)).await;
        }
        assert!(life.polls_on());
        actors.abort_all();
        // What is under way is taken in.
        sleep(Duration::from_secs(25)).await;
        let statuses: BTreeSet<_> = life.statuses().into_values().collect();
        assert_eq!(statuses, BTreeSet::from([ServerStatus::Online]), "all are well again");
        life.stop().await;
        self.audit().await
    }

    /// One life of the poller, until it is killed or the trouble ends.
    async fn live(&mut self, life: Life, chance: &mut Chance, end: Instant) -> Life {
        self.lives += 1;
        let dies = Instant::now() + chance.about(150_000);
        let mut command = Instant::now() + chance.about(8_000);
        let mut disk = Instant::now() + chance.about(120_000);
        let mut full = false;
        while Instant::now() < dies.min(end) {
            sleep(Duration::from_millis(500)).await;
            self.look(&life);
            if Instant::now() >= command {
                command = Instant::now() + chance.about(8_000);
                let name = &self.names[chance.below(SERVERS as u64) as usize];
                // Some wait for their server when it is away.
                let queue = chance.percent(50).then(|| chance.about(60_000));
                let asked = life.command(name, Duration::from_secs(chance.below(5)), queue);
                let acknowledged = Arc::clone(&self.acknowledged);
                tokio::spawn(async move {
                    if let Some(stored) = asked.await {
                        acknowledged.lock().expect("ids").push(stored.record.id.clone());
                    }
                });
            }
            if Instant::now() >= disk {
                full = !full;
                disk = Instant::now() + chance.about(if full { 20_000 } else { 120_000 });
                life.fill_disk(full).await;
            }
        }
        if Instant::now() >= end {
            life.fill_disk(false).await;
            return life;
        }
        life.kill();
        sleep(chance.about(5_000)).await;
        Life::begin(&self.database, &self.wires, TIMING).await
    }

    /// Nothing is shown as fresh that is not.
    fn look(&self, life: &Life) {
        // A poll begins once an interval, late by at most a quarter of it where a waiting request
        // to this server hung, and ends with its timeout.
        let fresh = TIMING.interval * 5 / 4 + TIMING.timeout + Duration::from_millis(500);
        for (id, status) in life.statuses() {
            let heard = self.wires.with(id.as_str(), |place| place.heard);
            let age = heard.map(|heard| heard.elapsed());
            let in_this_life = heard.is_some_and(|heard| heard >= life.began);
            match status {
                ServerStatus::Online => assert!(
                    in_this_life && age <= Some(fresh),
                    "{id} is called online, and was heard of {age:?} ago: {:#?}",
                    self.wires.lately(id.as_str())
                ),
                // Before this life it may have been heard of, and that not be taken in; nor is
                // what ends a wait before its time and says nothing.
                ServerStatus::Offline if in_this_life => {
                    let lately = || self.wires.lately(id.as_str());
                    let old = age >= Some(TIMING.stale_after - TIMING.interval);
                    assert!(old, "{id} is offline after {age:?}: {:#?}", lately());
                }
                _ => {}
            }
        }
    }

    /// What is there is what was told.
    async fn audit(self) -> Run {
        let _holding = hold();
        let store = Store::open(&self.database).await.expect("the database opens");
        assert_eq!(store.integrity().await.expect("a check"), Vec::<String>::new());
        let mut run = Run { lives: self.lives, ..Run::default() };
        for name in &self.names {
            run.entries += self.entries(&store, name).await;
        }
        run.commands = self.commands(&store).await;
        run.trace = std::mem::take(&mut *self.wires.trace.lock().expect("trace"));
        store.close().await;
        run
    }

    async fn entries(&self, store: &Store, name: &str) -> usize {
        let filter = EventFilter {
            server: Some(name.parse().expect("an id")),
            limit: 100_000,
            ..EventFilter::default()
        };
        let mut events = store.events(&filter).await.expect("events");
        events.sort_by_key(|stored| stored.id);
        let of = |kind: &str| events.iter().filter(|it| it.event.kind.as_str() == kind).count();
        let (lost, anew) = (of("journal_lost"), of("journal_reset"));
        let stored: Vec<u64> = events
            .iter()
            .filter(|stored| matches!(stored.event.kind.as_str(), "exit" | "command"))
            .map(|stored| stored.event.message.parse().expect("a number"))
            .collect();
        assert!(stored.is_sorted(), "{name}: out of order: {stored:?}");
        let unique: BTreeSet<u64> = stored.iter().copied().collect();
        assert_eq!(unique.len(), stored.len(), "{name}: something is there twice: {stored:?}");
        let query = HistoryQuery {
            server: name.parse().expect("an id"),
            subject: Subject::App("api".parse().expect("a name")),
            metrics: vec!["memory".to_owned()],
            from: now().plus_millis(-3_600_000),
            to: now().plus_millis(1000),
            step_millis: 1,
        };
        let series = store.history(&query).await.expect("history");
        let points = series.iter().flat_map(|series| &series.points);
        let samples: BTreeSet<i64> = points.map(|point| point.time.as_millis()).collect();
        self.wires.with(name, |place| {
            let it = &place.exporter;
            let missing: Vec<&u64> = it.told.difference(&unique).collect();
            let excused = missing.iter().all(|number| it.gone.contains_key(number));
            assert!(excused, "{name}: events {missing:?} are missing");
            let made_up: Vec<&u64> = unique.difference(&it.told).collect();
            assert!(made_up.is_empty(), "{name}: nobody told {made_up:?}");
            let gap: Vec<&i64> = it.sampled.difference(&samples).collect();
            let excused = gap.iter().all(|at| it.gone_samples.contains_key(at));
            assert!(excused, "{name}: samples of {gap:?} are missing");
            assert!(samples.is_subset(&it.sampled), "{name}: samples that nobody took");
            // What is not there is told, and nothing else is.
            let journals = missing.iter().map(|number| it.gone[number]);
            let journals = journals.chain(gap.iter().map(|at| it.gone_samples[at]));
            let is_missing = journals.into_iter().any(|journal| it.was_known(journal));
            assert!(
                !is_missing || lost + anew > 0,
                "{name}: a loss that nobody tells of: events {missing:?}, samples {gap:?}"
            );
            assert!(it.overran || lost == 0, "{name}: a loss that there was not");
            assert!(it.began_anew || anew == 0, "{name}: a new beginning that there was not");
        });
        unique.len() + samples.len()
    }

    async fn commands(&self, store: &Store) -> usize {
        let filter = CommandFilter { limit: 100_000, ..CommandFilter::default() };
        let stored = store.commands(&filter).await.expect("commands");
        let known: BTreeSet<&CommandId> = stored.iter().map(|it| &it.record.id).collect();
        let filter = EventFilter {
            kind: Some("command".to_owned()),
            limit: 100_000,
            ..EventFilter::default()
        };
        let events = store.events(&filter).await.expect("events");
        let told: BTreeSet<CommandId> =
            events.iter().filter_map(|it| Some(it.event.end()?.0)).collect();
        let places = self.wires.places();
        let ran: Vec<&CommandId> = places.values().flat_map(|it| &it.exporter.ran).collect();
        let once: BTreeSet<&CommandId> = ran.iter().copied().collect();
        assert_eq!(once.len(), ran.len(), "a command ran twice");
        assert!(once.is_subset(&known), "a command ran that is not on record");
        for id in self.acknowledged.lock().expect("ids").iter() {
            assert!(known.contains(id), "a command is gone of which somebody was told");
        }
        for it in &stored {
            let (id, did) = (&it.record.id, once.contains(&it.record.id));
            match it.record.status {
                CommandStatus::Succeeded => assert!(did, "{id} did not run"),
                CommandStatus::Failed | CommandStatus::Refused | CommandStatus::Expired => {
                    assert!(!did, "{id} ran: {it:?}");
                }
                CommandStatus::Unknown => assert!(!told.contains(id), "{id} is known: {it:?}"),
                other => panic!("{id} is still {other:?}"),
            }
        }
        ran.len()
    }
}

/// Samples at their interval, events as they come.
async fn tells(wires: Arc<Wires>, name: String, mut chance: Chance) {
    let begin = Instant::now() + Duration::from_millis(chance.below(10_000));
    let samples = async {
        let mut ticks = tokio::time::interval_at(begin, Duration::from_secs(10));
        loop {
            ticks.tick().await;
            wires.with(&name, |place| {
                if !place.exporter.down {
                    place.exporter.sample();
                }
            });
        }
    };
    let events = async {
        loop {
            sleep(chance.about(25_000)).await;
            for _ in 0..=chance.below(3) {
                wires.with(&name, |place| {
                    if !place.exporter.down {
                        place.exporter.event();
                    }
                });
            }
        }
    };
    tokio::join!(samples, events);
}

async fn restarts(wires: Arc<Wires>, name: String, mut chance: Chance, end: Instant) {
    loop {
        sleep(chance.about(200_000)).await;
        if Instant::now() >= end {
            return;
        }
        wires.with(&name, |place| place.exporter.down = true);
        sleep(chance.about(4_000)).await;
        let with_journal = chance.percent(70);
        wires.with(&name, |place| {
            place.exporter.restart(with_journal);
            place.exporter.down = false;
        });
    }
}

async fn is_cut(wires: Arc<Wires>, name: String, mut chance: Chance, end: Instant) {
    loop {
        sleep(chance.about(150_000)).await;
        if Instant::now() >= end {
            return;
        }
        wires.with(&name, |place| place.cut = true);
        // Now and then so long that the journal runs over.
        let length = if chance.percent(10) { 1_500_000 } else { 40_000 };
        let length = chance.about(length).min(end.saturating_duration_since(Instant::now()));
        sleep(length).await;
        wires.with(&name, |place| place.cut = false);
    }
}
