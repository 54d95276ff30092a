//! History made as a running poller makes it, with a clock of its own: simulated servers tell
//! their samples, these are taken in and folded, and what is old enough goes.

use std::path::Path;
use std::time::Duration;

use e2e::sim::{Machine, Settings};
use pm2_poller::store::{Before, Cursor, Ingest, Store};
use wire::{Entry, Time};

const HOUR: i64 = 3_600_000;
pub(crate) const DAY: i64 = 24 * HOUR;

/// A server, and how far it is taken in.
struct Told {
    machine: Machine,
    server: wire::ServerId,
    cursor: Cursor,
}

/// Servers that tell a stretch of time.
pub(crate) struct Filling {
    servers: Vec<Told>,
    now: Time,
    /// Values of samples taken in.
    pub(crate) values: u64,
}

impl Filling {
    /// `vm0`, `vm1`, …, whose exporters were started at `from`.
    pub(crate) fn new(servers: u32, from: Time, sample_interval: Duration) -> anyhow::Result<Self> {
        let settings = Settings { servers, sample_interval, ..Settings::default() };
        let told = |number: u32| {
            let server = format!("vm{number}").parse()?;
            let cursor = Cursor::default();
            Ok(Told { machine: Machine::new(number, &settings, from), server, cursor })
        };
        let servers = (0..servers).map(told).collect::<anyhow::Result<_>>()?;
        Ok(Self { servers, now: from, values: 0 })
    }

    /// Goes on to `to`, an hour at a time.
    pub(crate) async fn fill(&mut self, store: &Store, to: Time) -> anyhow::Result<()> {
        while self.now < to {
            self.now = self.now.plus_millis(HOUR);
            for told in &mut self.servers {
                self.values += told.take_in(store, self.now).await?;
            }
            while store.fold(self.now).await?.is_some() {}
            while store.retain(defaults(self.now)).await?.more {}
            while store.give_back().await? {}
        }
        Ok(())
    }
}

impl Told {
    /// What came since, in pages as a poller asks for them.
    async fn take_in(&mut self, store: &Store, now: Time) -> anyhow::Result<u64> {
        self.machine.advance(now);
        let mut values = 0;
        loop {
            let epoch = Some(self.cursor.epoch.as_str()).filter(|epoch| !epoch.is_empty());
            let page = self.machine.page(epoch, self.cursor.after, 1000);
            let entries: Vec<Entry> = page
                .entries
                .iter()
                .map(|json| serde_json::from_str(json.get()))
                .collect::<Result<_, _>>()?;
            values += entries.iter().map(count).sum::<u64>();
            let to = Cursor { epoch: page.journal.epoch, after: page.after };
            let ingest = Ingest {
                server: self.server.clone(),
                from: self.cursor.clone(),
                to: to.clone(),
                entries,
                state: None,
                told: Vec::new(),
                answered: Some(now),
                online: None,
                keep_from: Time::from_millis(0),
                patience: Duration::ZERO,
            };
            store.ingest(ingest).await?;
            self.cursor = to;
            if !page.more {
                return Ok(values);
            }
        }
    }
}

/// Values that a poller keeps of an entry.
fn count(entry: &Entry) -> u64 {
    let wire::Record::Sample(sample) = &entry.record else { return 0 };
    // Status and restarts are values too.
    let of = |process: &wire::SampledProcess| {
        let readings = &process.readings;
        let there = [
            readings.cpu_seconds.is_some(),
            readings.memory_bytes.is_some(),
            readings.threads.is_some(),
            readings.open_fds.is_some(),
        ];
        2 + there.iter().filter(|there| **there).count()
            + readings.node.len()
            + readings.custom.len()
    };
    let host = if sample.host.is_some() { 6 } else { 0 };
    (host + sample.processes.iter().map(of).sum::<usize>()) as u64
}

/// How long things are kept unless somebody says otherwise.
fn defaults(now: Time) -> Before {
    let before = |days: i64| now.plus_millis(-days * DAY);
    Before {
        samples: before(2),
        minutes: before(30),
        hours: before(400),
        events: before(90),
        commands: before(400),
        audit: before(400),
    }
}

/// A database in which so many servers have a month behind them, up to now. Samples are a minute
/// apart but for the last two days: what is older is kept by minute anyway.
pub(crate) async fn month(database: &Path, servers: u32) -> anyhow::Result<()> {
    let store = Store::open(database).await?;
    let now = Time::now();
    let recent = now.plus_millis(-2 * DAY);
    let mut filling = Filling::new(servers, now.plus_millis(-30 * DAY), Duration::from_secs(60))?;
    filling.fill(&store, recent).await?;
    let mut later = Filling::new(servers, filling.now, Duration::from_secs(10))?;
    for (new, old) in later.servers.iter_mut().zip(&filling.servers) {
        // The same server goes on: its journal has begun anew.
        new.cursor = old.cursor.clone();
    }
    later.fill(&store, now.plus_millis(-HOUR)).await?;
    store.close().await;
    Ok(())
}
