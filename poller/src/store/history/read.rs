//! Answers to who asks for history.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError};

use sqlx::sqlite::SqliteConnection;
use wire::{AppName, Instance, Time};

use super::block::Block;
use super::fold::{Tier, by_hour};
use super::metric::{self, HOST};
use super::steps::{MAX_APART, Steps};
use super::{
    HOUR, HistoryQuery, MAX_POINTS, MAX_STEPS, Point, Series, Subject, Window, WindowQuery,
    known_step,
};
use crate::store::recent::{self, Placed};
use crate::store::{READ_TIMEOUT, Result, Store, StoreError, apart};

const MINUTE: i64 = 60_000;

/// A block as the database has it.
type Row = (Tier, i64, Vec<u8>);

/// All that an answer is made of.
struct Found {
    instances: HashMap<i64, Option<Instance>>,
    metrics: metric::Names,
    blocks: Vec<Row>,
    recent: Vec<Placed>,
}

impl Store {
    /// The history that `query` asks for, by instance and metric.
    ///
    /// # Errors
    /// The read failed or took too long, or [`StoreError::TooMuch`].
    pub async fn history(&self, query: &HistoryQuery) -> Result<Vec<Series>> {
        let turns = Arc::clone(&self.histories);
        let read = async {
            let turn = turns.acquire_owned().await.map_err(|_| StoreError::Closed)?;
            let Some(found) = self.find(query).await? else { return Ok(Vec::new()) };
            let query = query.clone();
            // Unpacking takes some milliseconds, and polls are waiting.
            // It goes on when nobody waits for it any more, and so does its turn.
            apart(move || {
                let _turn = turn;
                found.series(&query)
            })
            .await
        };
        tokio::time::timeout(READ_TIMEOUT, read).await.unwrap_or(Err(StoreError::Busy))
    }

    /// The same for a chart: the length of a step follows from the window, the points, and what
    /// is still kept of that time.
    ///
    /// # Errors
    /// The read failed or took too long, or [`StoreError::TooMuch`].
    pub async fn window(&self, query: &WindowQuery) -> Result<Window> {
        let span = query.to.millis_since(query.from).max(1);
        let points = i64::from(query.points.clamp(1, MAX_STEPS));
        let mut step_millis = known_step((span + points - 1) / points);
        if let Some(kept) = self.finest(query).await? {
            step_millis = step_millis.max(kept);
        }
        let query = HistoryQuery {
            server: query.server.clone(),
            subject: query.subject.clone(),
            metrics: query.metrics.clone(),
            from: query.from,
            to: query.to,
            step_millis,
        };
        let (step_millis, series) = self.fitting(query).await?;
        Ok(Window { step_millis, series })
    }

    /// The history that `query` asks for, in longer steps where these make more points than may be; with
    /// the length of a step.
    ///
    /// # Errors
    /// The read failed or took too long, or [`StoreError::TooMuch`] however long the steps are.
    pub async fn fitting(&self, mut query: HistoryQuery) -> Result<(i64, Vec<Series>)> {
        loop {
            let read = self.history(&query).await;
            if read != Err(StoreError::TooMuch)
                || query.step_millis > query.to.millis_since(query.from)
            {
                return read.map(|series| (query.step_millis, series));
            }
            query.step_millis = known_step(2 * query.step_millis);
        }
    }

    /// The shortest step that the beginning of the window still has, where samples are gone.
    async fn finest(&self, query: &WindowQuery) -> Result<Option<i64>> {
        let oldest: Vec<(Tier, i64)> = sqlx::query_as(
            "SELECT tier, min(start) FROM blocks WHERE server = \
             (SELECT id FROM servers WHERE server = ?) GROUP BY tier",
        )
        .bind(query.server.as_str())
        .fetch_all(&self.readers)
        .await?;
        let from = query.from.as_millis();
        let has = |tier: Tier| {
            let start = oldest.iter().find(|(it, _)| *it == tier).map(|(_, start)| *start);
            start.is_some_and(|start| start <= from)
        };
        // A tier whose oldest block is older than the window's beginning covers it.
        let covers = [Tier::Samples, Tier::Minutes, Tier::Hours].into_iter().find(|it| has(*it));
        Ok(match covers {
            Some(Tier::Minutes) => Some(MINUTE),
            Some(Tier::Hours) => Some(HOUR),
            _ => None,
        })
    }

    async fn find(&self, query: &HistoryQuery) -> Result<Option<Found>> {
        // Before the snapshot: what is folded meanwhile is then in its blocks.
        let rows = {
            let heads = self.heads().await?.read().unwrap_or_else(PoisonError::into_inner);
            heads.servers.get(&query.server).map_or(Vec::new(), |head| head.rows.clone())
        };
        let mut snapshot = self.readers.begin().await?;
        let server: Option<(i64, i64)> =
            sqlx::query_as("SELECT id, folded FROM servers WHERE server = ?")
                .bind(query.server.as_str())
                .fetch_optional(&mut *snapshot)
                .await?;
        let Some((server, folded)) = server else { return Ok(None) };
        let instances = match &query.subject {
            Subject::Host => HashMap::from([(HOST, None)]),
            Subject::App(app) => instances(&mut snapshot, server, app).await?,
        };
        if instances.is_empty() {
            return Ok(None);
        }
        let host = query.subject == Subject::Host;
        let further: Vec<(i64, String, String)> = match host {
            true => Vec::new(),
            false => {
                sqlx::query_as("SELECT id, name, unit FROM metrics WHERE server = ?")
                    .bind(server)
                    .fetch_all(&mut *snapshot)
                    .await?
            }
        };
        let metrics = metric::names(host, further, &query.metrics);
        if metrics.is_empty() {
            return Ok(None);
        }
        // A rate needs the sample before.
        let cpu = metrics.contains_key(&metric::CPU);
        let from = query.from.as_millis() - if cpu { MAX_APART } else { 0 };
        let to = query.to.as_millis();
        let blocks = blocks(&mut snapshot, server, (from, to), query.step_millis).await?;
        let rows: Vec<i64> = rows.into_iter().filter(|row| *row > folded).collect();
        let recent = recent_samples(&mut snapshot, server, &rows).await?;
        Ok(Some(Found { instances, metrics, blocks, recent }))
    }
}

async fn instances(
    connection: &mut SqliteConnection,
    server: i64,
    app: &AppName,
) -> Result<HashMap<i64, Option<Instance>>> {
    let rows: Vec<(i64, String, u32, String)> = sqlx::query_as(
        "SELECT id, namespace, instance_id, pm2_home FROM instances \
         WHERE server = ? AND name = ?",
    )
    .bind(server)
    .bind(app.as_str())
    .fetch_all(connection)
    .await?;
    let all = rows.into_iter().map(|(id, namespace, instance_id, pm2_home)| {
        let (name, namespace) = (app.clone(), namespace.into());
        let pm2_home = (!pm2_home.is_empty()).then(|| pm2_home.into());
        (id, Some(Instance { name, namespace, instance_id, pm2_home }))
    });
    Ok(all.collect())
}

/// The blocks that an answer is made of, those of the better tier first.
async fn blocks(
    connection: &mut SqliteConnection,
    server: i64,
    (from, to): (i64, i64),
    step: i64,
) -> Result<Vec<Row>> {
    let mut chosen: Vec<(Tier, i64)> = Vec::new();
    for tier in Tier::for_step(step) {
        let starts: Vec<i64> = sqlx::query_scalar(
            "SELECT start FROM blocks WHERE server = ? AND tier = ? AND start > ? AND start < ? \
             ORDER BY start",
        )
        .bind(server)
        .bind(tier)
        .bind(from.saturating_sub(tier.length()))
        .bind(to)
        .fetch_all(&mut *connection)
        .await?;
        for start in starts {
            // Lengths divide each other: a block is within a longer one, or apart.
            let within = |(other, begin): &(Tier, i64)| {
                other.length() > tier.length() && (*begin..begin + other.length()).contains(&start)
            };
            let inside = |(other, begin): &&(Tier, i64)| {
                other.length() < tier.length() && (start..start + tier.length()).contains(begin)
            };
            let better: i64 = chosen.iter().filter(inside).map(|(other, _)| other.length()).sum();
            if !chosen.iter().any(within) && better < tier.length() {
                chosen.push((tier, start));
            }
        }
    }
    let mut rows = Vec::with_capacity(chosen.len());
    for (tier, start) in chosen {
        let data = sqlx::query_scalar(
            "SELECT data FROM blocks WHERE server = ? AND tier = ? AND start = ?",
        )
        .bind(server)
        .bind(tier)
        .bind(start)
        .fetch_one(&mut *connection)
        .await?;
        rows.push((tier, start, data));
    }
    Ok(rows)
}

/// Samples of a server in these recent rows.
pub(super) async fn recent_samples(
    connection: &mut SqliteConnection,
    server: i64,
    rows: &[i64],
) -> Result<Vec<Placed>> {
    let mut placed = Vec::new();
    if rows.is_empty() {
        return Ok(placed);
    }
    let ids: Vec<String> = rows.iter().map(i64::to_string).collect();
    let data: Vec<Vec<u8>> = sqlx::query_scalar(
        "SELECT data FROM recent WHERE id IN (SELECT value FROM json_each(?)) ORDER BY id",
    )
    .bind(format!("[{}]", ids.join(",")))
    .fetch_all(connection)
    .await?;
    for row in data {
        for record in recent::records(&row).filter(|record| record.server == server) {
            placed.extend(record.read());
        }
    }
    Ok(placed)
}

impl Found {
    fn series(self, query: &HistoryQuery) -> Result<Vec<Series>> {
        let Self { instances, metrics, blocks, recent } = self;
        let (from, to) = (query.from.as_millis(), query.to.as_millis());
        let mut steps = Steps::new(query.step_millis, from, to).at_most(MAX_POINTS);
        let wanted = |metric| metrics.contains_key(&metric);
        // What is as good as its step, where a block of a worse tier reaches into the time of
        // better ones.
        let better: Vec<(Tier, i64)> =
            blocks.iter().map(|(tier, start, _)| (*tier, *start)).collect();
        let mut samples: BTreeMap<i64, Block> = BTreeMap::new();
        for (place, (tier, start, blob)) in blocks.iter().enumerate() {
            let Some(mut block) = Block::decode(blob, |key| {
                key == metric::Key::SAMPLES || instances.contains_key(&key.owner)
            }) else {
                tracing::warn!(server = %query.server, ?tier, start, "a block cannot be read");
                continue;
            };
            let covered = |time: i64| {
                let before = better[..place].iter().filter(|(other, _)| other != tier);
                let mut before = before.map(|(other, start)| *start..start + other.length());
                before.any(|stretch| stretch.contains(&time))
            };
            block.retain(|time| !covered(time));
            match tier {
                Tier::Samples => {
                    samples.insert(*start, block);
                }
                _ => steps.add_steps(&block, wanted),
            }
        }
        for (start, placed) in by_hour(recent) {
            let mut block = Block::from_samples(placed);
            block.columns.retain(|column| instances.contains_key(&column.key.owner));
            let before = samples.remove(&start).unwrap_or_default();
            samples.insert(start, before.merge(&block));
        }
        // In the order of time, as rates need it.
        for block in samples.values() {
            steps.add_samples(block, wanted);
        }
        if steps.is_over() {
            return Err(StoreError::TooMuch);
        }
        let mut all: Vec<Series> = steps
            .buckets
            .into_iter()
            .filter_map(|((owner, metric), buckets)| {
                let (name, unit) = metrics.get(&metric)?;
                let points = buckets.into_iter().map(|bucket| Point {
                    time: Time::from_millis(bucket.start),
                    min: bucket.min,
                    mean: bucket.mean(),
                    max: bucket.max,
                });
                Some(Series {
                    instance: instances.get(&owner)?.clone(),
                    metric: name.clone(),
                    unit: unit.clone(),
                    points: points.collect(),
                })
            })
            .collect();
        all.sort_by(|a, b| {
            (&a.metric, &a.unit, &a.instance).cmp(&(&b.metric, &b.unit, &b.instance))
        });
        Ok(all)
    }
}
