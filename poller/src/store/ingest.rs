//! Taking in what an exporter said: its entries, its state and the new cursor together or not
//! at all. The cursor that was asked from is part of the condition, so that the same page
//! counts once however often it comes.

use std::collections::BTreeMap;
use std::sync::Arc;

use sqlx::query;
use sqlx::sqlite::SqliteConnection;
use wire::{Entry, Event, HostReadings, Readings, Record, ServerId, State, Time};

use super::events::{self, StoredEvent};
use super::names::{Names, ServerNames};
use super::sample::{Process, Sample};
use super::writer::Writing;
use super::{Result, Store, StoreError};

/// How far a server's journal is taken in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// Epoch of the journal; empty before the first answer.
    pub epoch: String,
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
}

impl Store {
    /// Takes all of it in, in one transaction, and gives the events as stored.
    ///
    /// # Errors
    /// [`StoreError::Moved`] when the cursor is not where `from` says: nothing is written.
    pub async fn ingest(&self, ingest: Ingest) -> Result<Vec<StoredEvent>> {
        self.writer.run(move |writing| Box::pin(write(writing, ingest))).await
    }

    /// What is kept of each of these servers; those never polled are left out.
    ///
    /// # Errors
    /// The read failed.
    pub async fn known(&self) -> Result<BTreeMap<ServerId, Known>> {
        type Row = (String, String, i64, Option<i64>, Option<bool>, Option<String>);
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT servers.server, epoch, after, last_success, online, state FROM servers \
             LEFT JOIN states ON states.server = servers.id",
        )
        .fetch_all(&self.readers)
        .await?;
        let known = rows.into_iter().filter_map(|(server, epoch, after, last, online, state)| {
            let known = Known {
                cursor: Cursor { epoch, after: after.unsigned_abs() },
                // A state of an older form is left out: the next poll brings a new one.
                state: state.and_then(|json| serde_json::from_str(&json).ok()).map(Arc::new),
                last_success: last.map(Time::from_millis),
                online,
            };
            Some((server.parse().ok()?, known))
        });
        Ok(known.collect())
    }

    /// What is kept of one server, its state aside.
    ///
    /// # Errors
    /// The read failed.
    pub async fn known_server(&self, server: &ServerId) -> Result<Known> {
        let row: Option<(String, i64, Option<i64>, Option<bool>)> = sqlx::query_as(
            "SELECT epoch, after, last_success, online FROM servers WHERE server = ?",
        )
        .bind(server.as_str())
        .fetch_optional(&self.readers)
        .await?;
        Ok(row.map_or_else(Known::default, |(epoch, after, last_success, online)| Known {
            cursor: Cursor { epoch, after: after.unsigned_abs() },
            state: None,
            last_success: last_success.map(Time::from_millis),
            online,
        }))
    }
}

async fn write(writing: &mut Writing, ingest: Ingest) -> Result<Vec<StoredEvent>> {
    let Writing { connection, names } = writing;
    let id = match advance(connection, &ingest).await? {
        Some(id) => id,
        None => {
            query("INSERT INTO servers (server) VALUES (?) ON CONFLICT DO NOTHING")
                .bind(ingest.server.as_str())
                .execute(&mut *connection)
                .await?;
            advance(connection, &ingest).await?.ok_or(StoreError::Moved)?
        }
    };
    let mut stored = Vec::new();
    for (time, event) in ingest.told {
        stored.push(events::insert(connection, id, &ingest.server, time, event).await?);
    }
    for entry in ingest.entries {
        match entry.record {
            Record::Event(event) => {
                stored
                    .push(events::insert(connection, id, &ingest.server, entry.time, event).await?);
            }
            Record::Sample(sample) if entry.time >= ingest.keep_from => {
                let data = numbered(connection, names, id, entry.time, &sample).await?.encode();
                query(
                    "INSERT INTO samples (server, time, seq, data) VALUES (?, ?, ?, ?) \
                       ON CONFLICT DO NOTHING",
                )
                .bind(id)
                .bind(entry.time.as_millis())
                .bind(entry.seq.cast_signed())
                .bind(data)
                .execute(&mut *connection)
                .await?;
            }
            Record::Sample(_) => {}
        }
    }
    if let Some(state) = &ingest.state {
        let json = serde_json::to_string(&**state)
            .map_err(|error| StoreError::Failed(error.to_string()))?;
        query(
            "INSERT INTO states (server, state) VALUES (?, ?) \
               ON CONFLICT (server) DO UPDATE SET state = excluded.state",
        )
        .bind(id)
        .bind(json)
        .execute(connection)
        .await?;
    }
    Ok(stored)
}

/// Moves the cursor; `None` when it is not where it was asked from.
async fn advance(connection: &mut SqliteConnection, ingest: &Ingest) -> Result<Option<i64>> {
    let id = sqlx::query_scalar(
        "UPDATE servers SET epoch = ?, after = ?, last_success = coalesce(?, last_success), \
         online = coalesce(?, online) WHERE server = ? AND epoch = ? AND after = ? RETURNING id",
    )
    .bind(&ingest.to.epoch)
    .bind(ingest.to.after.cast_signed())
    .bind(ingest.answered.map(Time::as_millis))
    .bind(ingest.online)
    .bind(ingest.server.as_str())
    .bind(&ingest.from.epoch)
    .bind(ingest.from.after.cast_signed())
    .fetch_optional(connection)
    .await?;
    Ok(id)
}

/// The sample with numbers for names.
async fn numbered(
    connection: &mut SqliteConnection,
    names: &mut Names,
    server: i64,
    time: Time,
    sample: &wire::Sample,
) -> Result<Sample> {
    let names = names.of(connection, server).await?;
    let mut host = Vec::new();
    for (name, unit, value) in sample.host.iter().flat_map(host_values) {
        host.push((names.metric(connection, server, (name, unit), time).await?, value));
    }
    let mut processes = Vec::with_capacity(sample.processes.len());
    for process in &sample.processes {
        let readings = &process.readings;
        processes.push(Process {
            instance: names.instance(connection, server, &process.instance, time).await?,
            restarts: process.restarts,
            cpu_micros: readings.cpu_seconds.map(|seconds| (seconds * 1e6) as u64),
            memory: readings.memory_bytes,
            threads: readings.threads.map(u64::from),
            fds: readings.open_fds.map(u64::from),
            metrics: further(connection, names, server, time, readings).await?,
        });
    }
    Ok(Sample { host, processes })
}

async fn further(
    connection: &mut SqliteConnection,
    names: &mut ServerNames,
    server: i64,
    time: Time,
    readings: &Readings,
) -> Result<Vec<(i64, f64)>> {
    let mut metrics: Vec<(i64, f64)> = Vec::new();
    let node = readings.node.iter().map(|(name, value)| (name.as_str(), node_unit(name), *value));
    let custom = readings.custom.iter().map(|it| (it.name.as_str(), it.unit.as_str(), it.value));
    for (name, unit, value) in node.chain(custom) {
        let metric = names.metric(connection, server, (name, unit), time).await?;
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
        _ if name.contains("latency") => "seconds",
        _ if name.starts_with("heap") => "bytes",
        "http_rate" => "per_second",
        _ => "",
    }
}

/// The machine's readings as metrics: CPU as two counters, whose rates make a fraction.
fn host_values(host: &HostReadings) -> Vec<(&'static str, &'static str, f64)> {
    let bytes = |value: Option<u64>| value.map(|bytes| bytes as f64);
    let (mut busy, mut all) = (0.0, 0.0);
    for (mode, seconds) in &host.cpu_seconds {
        all += seconds;
        if !matches!(mode.as_str(), "idle" | "iowait") {
            busy += seconds;
        }
    }
    let cpu = (!host.cpu_seconds.is_empty()).then_some(());
    [
        ("host_cpu_busy", "seconds", cpu.map(|()| busy)),
        ("host_cpu_all", "seconds", cpu.map(|()| all)),
        ("host_memory_total", "bytes", bytes(host.memory_total_bytes)),
        ("host_memory_available", "bytes", bytes(host.memory_available_bytes)),
        ("host_load1", "", host.load1),
        ("host_filesystem_size", "bytes", bytes(host.filesystem_size_bytes)),
        ("host_filesystem_available", "bytes", bytes(host.filesystem_avail_bytes)),
    ]
    .into_iter()
    .filter_map(|(name, unit, value)| Some((name, unit, value?)))
    .collect()
}
