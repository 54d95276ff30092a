//! History: samples of one app, put into steps with least, mean and greatest value. Nothing is
//! made up for a time without samples.

use std::collections::HashMap;

use futures_util::TryStreamExt;
use wire::{AppName, Instance, ServerId, Time};

use super::sample::{Process, Sample};
use super::{READ_TIMEOUT, Result, Store, StoreError};

/// Two samples further apart than this make no CPU rate: a mean over so long would hide more
/// than it shows. In milliseconds.
const MAX_APART: i64 = 5 * 60 * 1000;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct HistoryQuery {
    /// Of this server.
    pub server: ServerId,
    /// Of this app, every instance.
    pub app: AppName,
    /// These metrics; all when empty.
    pub metrics: Vec<String>,
    /// From here on.
    pub from: Time,
    /// To before this.
    pub to: Time,
    /// Length of a step in milliseconds, at least 1; steps begin at multiples of it.
    pub step_millis: i64,
}

/// One step of a series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Start of the step.
    pub time: Time,
    /// Least value.
    pub min: f64,
    /// Mean of the values.
    pub mean: f64,
    /// Greatest value.
    pub max: f64,
}

/// One metric of one instance.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Which process.
    pub instance: Instance,
    /// `cpu` (cores), `memory` (bytes), `restarts`, `threads`, `open_fds`, what Node.js tells,
    /// or the application's own.
    pub metric: String,
    /// Its unit; empty for a plain number.
    pub unit: String,
    /// The steps that have a value, oldest first.
    pub points: Vec<Point>,
}

/// A metric as it stands in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Metric {
    Cpu,
    Memory,
    Restarts,
    Threads,
    Fds,
    Further(i64),
}

const EVERYONE: [(Metric, &str, &str); 5] = [
    (Metric::Cpu, "cpu", "cores"),
    (Metric::Memory, "memory", "bytes"),
    (Metric::Restarts, "restarts", ""),
    (Metric::Threads, "threads", ""),
    (Metric::Fds, "open_fds", ""),
];

impl Store {
    /// The history that `query` asks for, by instance and metric.
    ///
    /// # Errors
    /// The read failed or took more than five seconds.
    pub async fn history(&self, query: &HistoryQuery) -> Result<Vec<Series>> {
        tokio::time::timeout(READ_TIMEOUT, self.read_history(query))
            .await
            .unwrap_or(Err(StoreError::Busy))
    }

    async fn read_history(&self, query: &HistoryQuery) -> Result<Vec<Series>> {
        let Some(server): Option<i64> =
            sqlx::query_scalar("SELECT id FROM servers WHERE server = ?")
                .bind(query.server.as_str())
                .fetch_optional(&self.readers)
                .await?
        else {
            return Ok(Vec::new());
        };
        let instances = self.instances(server, &query.app).await?;
        let metrics = self.metrics(server, &query.metrics).await?;
        let mut steps = Steps {
            query,
            instances: &instances,
            metrics: &metrics,
            before: HashMap::new(),
            buckets: HashMap::new(),
        };
        // A rate needs the sample before.
        let cpu = metrics.contains_key(&Metric::Cpu);
        let from = if cpu { query.from.plus_millis(-MAX_APART) } else { query.from };
        let mut rows = sqlx::query_as::<_, (i64, Vec<u8>)>(
            "SELECT time, data FROM samples WHERE server = ? AND time >= ? AND time < ? \
             ORDER BY time, seq",
        )
        .bind(server)
        .bind(from.as_millis())
        .bind(query.to.as_millis())
        .fetch(&self.readers);
        while let Some((time, data)) = rows.try_next().await? {
            match Sample::decode(&data) {
                Some(sample) => steps.add(time, &sample),
                None => tracing::warn!(server = %query.server, time, "a sample cannot be read"),
            }
        }
        Ok(steps.finish())
    }

    async fn instances(&self, server: i64, app: &AppName) -> Result<HashMap<i64, Instance>> {
        let rows: Vec<(i64, String, u32)> = sqlx::query_as(
            "SELECT id, namespace, instance_id FROM instances WHERE server = ? AND name = ?",
        )
        .bind(server)
        .bind(app.as_str())
        .fetch_all(&self.readers)
        .await?;
        let all = rows.into_iter().map(|(id, namespace, instance_id)| {
            (id, Instance { name: app.clone(), namespace: namespace.into(), instance_id })
        });
        Ok(all.collect())
    }

    async fn metrics(
        &self,
        server: i64,
        wanted: &[String],
    ) -> Result<HashMap<Metric, (String, String)>> {
        let rows: Vec<(i64, String, String)> =
            sqlx::query_as("SELECT id, name, unit FROM metrics WHERE server = ?")
                .bind(server)
                .fetch_all(&self.readers)
                .await?;
        let everyone =
            EVERYONE.into_iter().map(|(metric, name, unit)| (metric, (name.into(), unit.into())));
        let further = rows.into_iter().map(|(id, name, unit)| (Metric::Further(id), (name, unit)));
        Ok(everyone
            .chain(further)
            .filter(|(_, (name, _))| wanted.is_empty() || wanted.contains(name))
            .collect())
    }
}

#[derive(Clone, Copy)]
struct Bucket {
    start: i64,
    count: u32,
    sum: f64,
    min: f64,
    max: f64,
}

#[derive(Clone, Copy)]
struct Before {
    time: i64,
    cpu_micros: u64,
    restarts: u64,
}

/// Puts values into steps, in the order of time.
struct Steps<'a> {
    query: &'a HistoryQuery,
    instances: &'a HashMap<i64, Instance>,
    metrics: &'a HashMap<Metric, (String, String)>,
    before: HashMap<i64, Before>,
    buckets: HashMap<(i64, Metric), Vec<Bucket>>,
}

impl Steps<'_> {
    fn add(&mut self, time: i64, sample: &Sample) {
        for process in &sample.processes {
            if !self.instances.contains_key(&process.instance) {
                continue;
            }
            let cpu = self.rate(time, process);
            if time < self.query.from.as_millis() {
                continue;
            }
            let number = |value: Option<u64>| value.map(|value| value as f64);
            let everyone = [
                (Metric::Cpu, cpu),
                (Metric::Memory, number(process.memory)),
                (Metric::Restarts, number(Some(process.restarts))),
                (Metric::Threads, number(process.threads)),
                (Metric::Fds, number(process.fds)),
            ];
            let everyone =
                everyone.into_iter().filter_map(|(metric, value)| Some((metric, value?)));
            let further = process.metrics.iter().map(|(id, value)| (Metric::Further(*id), *value));
            for (metric, value) in everyone.chain(further) {
                self.put(process.instance, metric, time, value);
            }
        }
    }

    /// Cores used since the sample before. A process that was started again counts from 0, so
    /// that no rate can be told.
    fn rate(&mut self, time: i64, process: &Process) -> Option<f64> {
        let Some(cpu_micros) = process.cpu_micros else {
            self.before.remove(&process.instance);
            return None;
        };
        let now = Before { time, cpu_micros, restarts: process.restarts };
        let before = self.before.insert(process.instance, now)?;
        let apart = time - before.time;
        if before.restarts != now.restarts || !(1..=MAX_APART).contains(&apart) {
            return None;
        }
        let used = now.cpu_micros.checked_sub(before.cpu_micros)?;
        Some(used as f64 / 1000.0 / apart as f64)
    }

    fn put(&mut self, instance: i64, metric: Metric, time: i64, value: f64) {
        if !self.metrics.contains_key(&metric) {
            return;
        }
        let start = time - time.rem_euclid(self.query.step_millis);
        let buckets = self.buckets.entry((instance, metric)).or_default();
        match buckets.last_mut() {
            Some(last) if last.start == start => {
                last.count += 1;
                last.sum += value;
                last.min = last.min.min(value);
                last.max = last.max.max(value);
            }
            _ => buckets.push(Bucket { start, count: 1, sum: value, min: value, max: value }),
        }
    }

    fn finish(self) -> Vec<Series> {
        let mut all: Vec<Series> = self
            .buckets
            .into_iter()
            .filter_map(|((instance, metric), buckets)| {
                let (name, unit) = self.metrics.get(&metric)?;
                let points = buckets.iter().map(|bucket| Point {
                    time: Time::from_millis(bucket.start),
                    min: bucket.min,
                    // Rounding can push a mean of equal values a hair past them.
                    mean: (bucket.sum / f64::from(bucket.count)).clamp(bucket.min, bucket.max),
                    max: bucket.max,
                });
                Some(Series {
                    instance: self.instances.get(&instance)?.clone(),
                    metric: name.clone(),
                    unit: unit.clone(),
                    points: points.collect(),
                })
            })
            .collect();
        all.sort_by(|a, b| {
            (&a.metric, &a.unit, &a.instance).cmp(&(&b.metric, &b.unit, &b.instance))
        });
        all
    }
}
