//! Taking in what an exporter said: its entries, its state and the new cursor together or not
//! at all. The cursor that was asked from is part of the condition, so that the same page
//! counts once however often it comes.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use sqlx::{QueryBuilder, query, query_scalar};
use wire::{Entry, Event, HostReadings, Readings, Record, ServerId, SmolStr, State, Status, Time};

use super::events::{self, StoredEvent};
use super::heads::{Head, Heads};
use super::history::metric;
use super::names::{Names, ServerNames};
use super::recent::{self, ROW};
use super::sample::{Process, Sample};
use super::writer::{Ingesting, Transaction, Writing};
use super::{Result, Store, StoreError};

/// The head of a record is no longer than this.
const RECORD_HEAD: usize = 50;
/// Most recent rows in one statement.
const ROWS: usize = 32;

/// How far a server's journal is taken in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// Epoch of the journal; empty before the first answer.
    pub epoch: SmolStr,
    /// Number of the last entry taken in.
    pub after: u64,
}

/// What is kept of a server from before.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// How far its journal is taken in.
    pub cursor: Cursor,
    /// What it said last.
    pub state: Option<Arc<State>>,
    /// When it last answered.
    pub last_success: Option<Time>,
    /// What was told last: `server_online` (true) or `server_offline`.
    pub online: Option<bool>,
}

/// Something to take in.
#[derive(Clone, Debug)]
pub struct Ingest {
    /// Whose it is, by the registry.
    pub server: ServerId,
    /// The cursor that was asked from.
    pub from: Cursor,
    /// The cursor afterwards.
    pub to: Cursor,
    /// Entries between the two.
    pub entries: Vec<Entry>,
    /// A state to keep in place of the former.
    pub state: Option<Arc<State>>,
    /// Events that the poller itself tells, with their times.
    pub told: Vec<(Time, Event)>,
    /// When the server answered, if it did.
    pub answered: Option<Time>,
    /// Whether it was told to be online (or offline) by this.
    pub online: Option<bool>,
    /// Samples before this moment are not worth keeping.
    pub keep_from: Time,
    /// How long it may wait for that of other servers, to be committed together: samples for all of
    /// it, events for a few milliseconds of it.
    pub patience: Duration,
}

impl Store {
    /// Takes all of it in, in one transaction, and gives the events as stored.
    ///
    /// # Errors
    /// [`StoreError::Moved`] when the cursor is not where `from` says: nothing is written.
    pub async fn ingest(&self, ingest: Ingest) -> Result<Vec<StoredEvent>> {
        self.begin_ingest(ingest).await?.await
    }

    /// The same, begun: it goes on though nobody waits for it.
    ///
    /// # Errors
    /// There is no place for it: nothing is written.
    pub async fn begin_ingest(&self, ingest: Ingest) -> Result<Ingesting> {
        self.writer.ingest(ingest).await
    }

    /// What is kept of each server; those never polled are left out.
    ///
    /// # Errors
    /// The read failed.
    pub async fn known(&self) -> Result<BTreeMap<ServerId, Known>> {
        let rows: Vec<(i64, String)> =
            sqlx::query_as("SELECT server, state FROM states").fetch_all(&self.readers).await?;
        let mut states: HashMap<i64, String> = rows.into_iter().collect();
        let heads = self.heads().await?.read().unwrap_or_else(PoisonError::into_inner);
        let known = heads.servers.iter().map(|(server, head)| {
            // A state of an older form is left out: the next poll brings a new one.
            let state = states.remove(&head.id).and_then(|json| serde_json::from_str(&json).ok());
            (server.clone(), Known { state: state.map(Arc::new), ..known(head) })
        });
        Ok(known.collect())
    }

    /// What is kept of one server, its state aside.
    ///
    /// # Errors
    /// The read failed.
    pub async fn known_server(&self, server: &ServerId) -> Result<Known> {
        let heads = self.heads().await?.read().unwrap_or_else(PoisonError::into_inner);
        Ok(heads.servers.get(server).map(known).unwrap_or_default())
    }
}

fn known(head: &Head) -> Known {
    Known {
        cursor: head.cursor.clone(),
        state: None,
        last_success: head.last_success,
        online: head.online,
    }
}

/// What a commit will have changed of the heads, once it is done.
#[derive(Debug, Default)]
pub(super) struct Staged {
    heads: HashMap<ServerId, Head>,
    rows: Vec<Vec<u8>>,
}

impl Staged {
    /// Writes the recent rows, by one statement if there is a moderate number of them.
    ///
    /// # Errors
    /// The write failed.
    pub(super) async fn write(
        &mut self,
        transaction: &mut Transaction<'_>,
        first: i64,
    ) -> Result<()> {
        let alone = self.rows.len() <= ROWS;
        for (first, rows) in (first..).step_by(ROWS).zip(self.rows.chunks_mut(ROWS)) {
            let mut insert = QueryBuilder::<sqlx::Sqlite>::new("INSERT INTO recent (id, data) ");
            insert.push_values((first..).zip(rows), |mut row, (id, data)| {
                row.push_bind(id).push_bind(std::mem::take(data));
            });
            let connection = if alone { transaction.read() } else { transaction.write().await? };
            insert.build().execute(connection).await?;
        }
        Ok(())
    }

    /// Takes over what is committed. What was folded meanwhile stays folded.
    pub(super) fn apply(self, heads: &mut Heads) {
        heads.next_row += self.rows.len() as i64;
        for (server, mut staged) in self.heads {
            if let Some(head) = heads.servers.get(&server) {
                staged.folded = staged.folded.max(head.folded);
                staged.saved = staged.saved.max(head.saved);
                staged.rows.retain(|row| *row > head.folded);
            }
            heads.servers.insert(server, staged);
        }
    }

    /// The row that takes a record of so many bytes, and its place among the staged ones.
    fn row(&mut self, length: usize) -> (usize, &mut Vec<u8>) {
        let full = self.rows.last().is_none_or(|row| !row.is_empty() && row.len() + length > ROW);
        if full {
            self.rows.push(Vec::with_capacity(ROW));
        }
        let place = self.rows.len() - 1;
        (place, &mut self.rows[place])
    }
}

/// Takes one in. What is refused ([`StoreError::Moved`], [`StoreError::TooMany`]) has left no
/// more than names; any other failure is one of the whole transaction.
pub(super) async fn take_in(
    writing: &mut Writing,
    staged: &mut Staged,
    first_row: i64,
    ingest: Ingest,
) -> Result<Vec<StoredEvent>> {
    let (mut transaction, names, heads) = writing.parts();
    let before = match staged.heads.get(&ingest.server) {
        Some(head) => Some(head.clone()),
        None => {
            let heads = heads.get().ok_or(StoreError::Closed)?;
            let heads = heads.read().unwrap_or_else(PoisonError::into_inner);
            heads.servers.get(&ingest.server).cloned()
        }
    };
    let mut head = before.unwrap_or_default();
    if head.cursor != ingest.from {
        return Err(StoreError::Moved);
    }
    if head.id == 0 {
        head.id = query_scalar("INSERT INTO servers (server) VALUES (?) RETURNING id")
            .bind(ingest.server.as_str())
            .fetch_one(transaction.write().await?)
            .await?;
        // Its row stays when what it says is refused, and is there for what it says next.
        staged.heads.insert(ingest.server.clone(), head.clone());
    }
    let mut record = Vec::new();
    let mut samples = 0;
    for entry in &ingest.entries {
        let Record::Sample(sample) = &entry.record else { continue };
        if entry.time >= ingest.keep_from {
            let sample = numbered(&mut transaction, names, head.id, entry.time, sample).await?;
            recent::put_sample(&mut record, entry.seq, entry.time.as_millis(), &sample);
            samples += 1;
        }
    }
    if head.cursor.epoch != ingest.to.epoch {
        head.epoch += 1;
        query("UPDATE servers SET epoch = ?, epoch_number = ?, after = 0 WHERE id = ?")
            .bind(ingest.to.epoch.as_str())
            .bind(head.epoch.cast_signed())
            .bind(head.id)
            .execute(transaction.write().await?)
            .await?;
    }
    if let Some(online) = ingest.online {
        query("UPDATE servers SET online = ? WHERE id = ?")
            .bind(online)
            .bind(head.id)
            .execute(transaction.write().await?)
            .await?;
        head.online = Some(online);
    }
    let mut stored = Vec::new();
    let entries = ingest.entries.into_iter().filter_map(|entry| match entry.record {
        Record::Event(event) => Some((entry.time, event)),
        Record::Sample(_) => None,
    });
    for (time, event) in ingest.told.into_iter().chain(entries) {
        stored.push(
            events::insert(transaction.write().await?, head.id, &ingest.server, time, event)
                .await?,
        );
    }
    if let Some(state) = &ingest.state {
        put_state(transaction.write().await?, head.id, state).await?;
    }
    let answered = ingest.answered.map_or(0, |time| time.as_millis().unsigned_abs());
    head.last_success = head.last_success.max(ingest.answered);
    if answered > 0 || ingest.to != ingest.from {
        let cursor = (head.epoch, ingest.to.after);
        let (place, row) = staged.row(record.len() + RECORD_HEAD);
        recent::put_record(row, head.id, cursor, answered, samples);
        row.extend(record);
        head.last = first_row + place as i64;
        if samples > 0 {
            head.add(head.last, answered.cast_signed());
        }
    }
    head.cursor = ingest.to;
    staged.heads.insert(ingest.server, head);
    Ok(stored)
}

async fn put_state(connection: &mut sqlx::SqliteConnection, id: i64, state: &State) -> Result<()> {
    let json =
        serde_json::to_string(state).map_err(|error| StoreError::Failed(error.to_string()))?;
    query(
        "INSERT INTO states (server, state) VALUES (?, ?) \
           ON CONFLICT (server) DO UPDATE SET state = excluded.state",
    )
    .bind(id)
    .bind(json)
    .execute(connection)
    .await?;
    Ok(())
}

/// The sample with numbers for names.
async fn numbered(
    transaction: &mut Transaction<'_>,
    names: &mut Names,
    server: i64,
    time: Time,
    sample: &wire::Sample,
) -> Result<Sample> {
    let names = names.of(transaction, server).await?;
    let host = sample.host.iter().flat_map(host_values).collect();
    let mut processes = Vec::with_capacity(sample.processes.len());
    for process in &sample.processes {
        let readings = &process.readings;
        processes.push(Process {
            instance: names.instance(transaction, server, &process.instance, time).await?,
            status: Status::ALL.iter().position(|it| *it == process.status).unwrap_or(0) as u8,
            restarts: process.restarts,
            cpu_micros: readings.cpu_seconds.map(|seconds| (seconds * 1e6).round() as u64),
            memory: readings.memory_bytes,
            threads: readings.threads.map(u64::from),
            fds: readings.open_fds.map(u64::from),
            metrics: further(transaction, names, server, time, readings).await?,
        });
    }
    Ok(Sample { host, processes })
}

async fn further(
    transaction: &mut Transaction<'_>,
    names: &mut ServerNames,
    server: i64,
    time: Time,
    readings: &Readings,
) -> Result<Vec<(i64, f64)>> {
    let mut metrics: Vec<(i64, f64)> =
        Vec::with_capacity(readings.node.len() + readings.custom.len());
    let node = readings.node.iter().map(|(name, value)| (name.as_str(), node_unit(name), *value));
    let custom = readings.custom.iter().map(|it| (it.name.as_str(), it.unit.as_str(), it.value));
    for (name, unit, value) in node.chain(custom) {
        let metric = names.metric(transaction, server, (name, unit), time).await?;
        // An application may give a metric of its own the name of one of Node.js's.
        if metrics.iter().all(|(known, _)| *known != metric) {
            metrics.push((metric, value));
        }
    }
    Ok(metrics)
}

/// The unit of a metric that Node.js told; the exporter gives base units.
fn node_unit(name: &str) -> &'static str {
    match name {
        "http_rate" => "per_second",
        "heap_used" | "heap_size" => "bytes",
        _ if name.starts_with("event_loop_latency") => "seconds",
        _ if name.starts_with("http_latency") => "seconds",
        _ => "",
    }
}

/// The machine's readings: CPU as two counters in microseconds, whose rates make a ratio, and of
/// memory and disk what is in use.
fn host_values(host: &HostReadings) -> impl Iterator<Item = (i64, f64)> {
    let bytes = |value: Option<u64>| value.map(|bytes| bytes as f64);
    let used = |all: Option<u64>, free: Option<u64>| Some(all?.saturating_sub(free?) as f64);
    let (mut busy, mut all) = (0.0, 0.0);
    for (mode, seconds) in &host.cpu_seconds {
        all += seconds;
        if !matches!(mode.as_str(), "idle" | "iowait") {
            busy += seconds;
        }
    }
    let cpu = |seconds: f64| (!host.cpu_seconds.is_empty()).then(|| (seconds * 1e6).round());
    [
        (metric::CPU, cpu(busy)),
        (metric::CPU_ALL, cpu(all)),
        (metric::MEMORY, used(host.memory_total_bytes, host.memory_available_bytes)),
        (metric::MEMORY_TOTAL, bytes(host.memory_total_bytes)),
        (metric::DISK, used(host.filesystem_size_bytes, host.filesystem_avail_bytes)),
        (metric::DISK_TOTAL, bytes(host.filesystem_size_bytes)),
        (metric::LOAD, host.load1),
    ]
    .into_iter()
    .filter_map(|(metric, value)| Some((metric, value?)))
}
