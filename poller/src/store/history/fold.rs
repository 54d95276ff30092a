//! Making blocks: of recent samples, of blocks by minute, and of these by hour. One step is one
//! block or a few; whoever calls does other things between two. A block is read, made anew and
//! replaced in one transaction, and nobody else writes blocks, so that a crash leaves what was
//! before or what came after, and doing it twice changes nothing.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use sqlx::query;
use sqlx::sqlite::SqliteConnection;
use wire::{ServerId, Time};

use super::HOUR;
use super::block::{Block, MOST_VALUES};
use super::read::recent_samples;
use super::steps::Steps;
use crate::store::heads::Head;
use crate::store::recent::Placed;
use crate::store::{Result, Store, StoreError, apart};

/// Samples are folded when the oldest of a server is so old, in milliseconds: often enough to
/// keep the recent rows few, seldom enough not to pack an hour again and again.
const FOLD_AFTER: i64 = 15 * 60 * 1000;
/// Or when a server has so many recent rows.
const FOLD_ROWS: usize = 360;
/// A block goes to the next tier when its time is over by so much: what comes in later than
/// this makes it be done again. In milliseconds.
const SETTLED: i64 = 30 * 60 * 1000;

/// How coarse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, sqlx::Type)]
#[repr(i64)]
pub enum Tier {
    /// As they came.
    Samples = 0,
    /// By minute.
    Minutes = 1,
    /// By hour.
    Hours = 2,
}

impl Tier {
    /// Every tier, the finest first.
    pub const ALL: [Self; 3] = [Self::Samples, Self::Minutes, Self::Hours];

    /// A word for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Samples => "samples",
            Self::Minutes => "minutes",
            Self::Hours => "hours",
        }
    }

    /// How long a stretch of time is one block, in milliseconds. Each divides the next.
    pub(in crate::store) fn length(self) -> i64 {
        match self {
            Self::Samples => HOUR,
            Self::Minutes => 6 * HOUR,
            Self::Hours => 48 * HOUR,
        }
    }

    fn step(self) -> i64 {
        match self {
            Self::Samples => 1,
            Self::Minutes => 60_000,
            Self::Hours => HOUR,
        }
    }

    pub(in crate::store) fn next(self) -> Option<Self> {
        match self {
            Self::Samples => Some(Self::Minutes),
            Self::Minutes => Some(Self::Hours),
            Self::Hours => None,
        }
    }

    /// Which tiers answer for steps of this length, the best first.
    pub(super) fn for_step(step: i64) -> [Self; 3] {
        match step {
            HOUR.. => [Self::Hours, Self::Minutes, Self::Samples],
            60_000.. => [Self::Minutes, Self::Samples, Self::Hours],
            _ => [Self::Samples, Self::Minutes, Self::Hours],
        }
    }

    /// The beginning of the block that a time belongs to.
    pub(in crate::store) fn start(self, time: i64) -> i64 {
        time - time.rem_euclid(self.length())
    }
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Folded {
    /// The tier that has new blocks.
    pub tier: Tier,
    /// How many blocks were written.
    pub blocks: u64,
    /// Bytes of them.
    pub bytes: u64,
}

/// A block to write.
struct Made {
    tier: Tier,
    start: i64,
    readings: usize,
    blob: Vec<u8>,
}

impl Store {
    /// One step of folding: the server whose samples wait longest, or blocks of one server that
    /// go to the next tier. `None` when nothing is due at `now`.
    ///
    /// # Errors
    /// A read or the write failed; nothing changed.
    pub async fn fold(&self, now: Time) -> Result<Option<Folded>> {
        let now = now.as_millis();
        if let Some(server) = self.longest_waiting(now).await? {
            return self.fold_recent(&server).await.map(Some);
        }
        for tier in [Tier::Samples, Tier::Minutes] {
            if let Some(folded) = self.fold_blocks(tier, now).await? {
                return Ok(Some(folded));
            }
        }
        Ok(None)
    }

    async fn longest_waiting(&self, now: i64) -> Result<Option<ServerId>> {
        let heads = self.heads().await?.read().unwrap_or_else(PoisonError::into_inner);
        let waiting = heads.servers.iter().filter(|(_, head)| {
            let old = now.saturating_sub(head.oldest) >= FOLD_AFTER;
            !head.rows.is_empty() && (old || head.rows.len() >= FOLD_ROWS)
        });
        Ok(waiting.min_by_key(|(_, head)| head.oldest).map(|(server, _)| server.clone()))
    }

    async fn fold_recent(&self, server: &ServerId) -> Result<Folded> {
        let head = {
            let heads = self.heads().await?.read().unwrap_or_else(PoisonError::into_inner);
            heads.servers.get(server).cloned().unwrap_or_default()
        };
        let (id, last, saved) = (head.id, head.rows.last().copied().unwrap_or_default(), head.last);
        let mut connection = self.readers.acquire().await?;
        let placed = recent_samples(&mut connection, id, &head.rows).await?;
        let mut parts = Vec::new();
        for (start, placed) in by_hour(placed) {
            let before = blob(&mut connection, id, Tier::Samples, start).await?;
            parts.push((start, before, placed));
        }
        drop(connection);
        let name = server.clone();
        let made = apart(move || {
            let make = |(start, before, placed)| merged(&name, start, before, placed);
            parts.into_iter().map(make).collect::<Result<Vec<Made>>>()
        })
        .await?;
        let folded = told(Tier::Samples, &made);
        self.writer
            .run_relaxed(move |writing| {
                Box::pin(async move {
                    write(&mut writing.connection, id, made).await?;
                    save(&mut writing.connection, &head, last).await
                })
            })
            .await?;
        let mut heads = self.heads().await?.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(head) = heads.servers.get_mut(server) {
            head.folded = last;
            head.saved = saved;
            head.rows.retain(|row| *row > last);
            // When these were taken in is not known one by one: about now.
            head.oldest = head.last_success.map_or(head.oldest, Time::as_millis);
        }
        Ok(folded)
    }

    /// Takes away recent rows that no server needs any more, at most `limit` of them.
    ///
    /// # Errors
    /// The write failed.
    pub(crate) async fn drop_folded(&self, limit: i64) -> Result<u64> {
        let (needed, unsaved) = {
            let heads = self.heads().await?.read().unwrap_or_else(PoisonError::into_inner);
            let first = heads.servers.values().filter_map(|head| head.rows.first()).min();
            let needed = first.copied().unwrap_or(heads.next_row);
            let unsaved = heads.servers.iter();
            let unsaved = unsaved.filter(|(_, head)| head.last < needed && head.last > head.saved);
            let unsaved: Vec<(ServerId, Head)> =
                unsaved.map(|(server, head)| (server.clone(), head.clone())).collect();
            (needed, unsaved)
        };
        let any: Option<i64> = sqlx::query_scalar("SELECT 1 FROM recent WHERE id < ? LIMIT 1")
            .bind(needed)
            .fetch_optional(&self.readers)
            .await?;
        if any.is_none() {
            return Ok(0);
        }
        let cursors: Vec<Head> = unsaved.iter().map(|(_, head)| head.clone()).collect();
        let removed = self.writer.run_relaxed(move |writing| {
            Box::pin(async move {
                for head in &cursors {
                    save(&mut writing.connection, head, head.folded).await?;
                }
                let done = query(
                    "DELETE FROM recent WHERE id IN \
                     (SELECT id FROM recent WHERE id < ? ORDER BY id LIMIT ?)",
                )
                .bind(needed)
                .bind(limit)
                .execute(&mut writing.connection)
                .await?;
                Ok(done.rows_affected())
            })
        });
        let removed = removed.await?;
        let mut heads = self.heads().await?.write().unwrap_or_else(PoisonError::into_inner);
        for (server, saved) in unsaved {
            if let Some(head) = heads.servers.get_mut(&server) {
                head.saved = saved.last;
            }
        }
        Ok(removed)
    }

    /// Blocks of one server that are due for the tier after `tier`.
    async fn fold_blocks(&self, tier: Tier, now: i64) -> Result<Option<Folded>> {
        let Some(next) = tier.next() else { return Ok(None) };
        // A block is due when the whole block of the next tier that it belongs to is over.
        let due: Option<(i64, i64)> = sqlx::query_as(
            "SELECT server, start FROM blocks WHERE tier = ? AND folded = 0 AND start < ? \
             ORDER BY start LIMIT 1",
        )
        .bind(tier)
        .bind(next.start(now - SETTLED))
        .fetch_optional(&self.readers)
        .await?;
        let Some((server, start)) = due else { return Ok(None) };
        let from = next.start(start);
        let to = from + next.length();
        let mut connection = self.readers.acquire().await?;
        // A rate needs the sample before, which may be in the block before.
        let finer: Vec<(i64, Vec<u8>)> = sqlx::query_as(
            "SELECT start, data FROM blocks WHERE server = ? AND tier = ? AND start >= ? \
             AND start < ? ORDER BY start",
        )
        .bind(server)
        .bind(tier)
        .bind(from - if tier == Tier::Samples { HOUR } else { 0 })
        .bind(to)
        .fetch_all(&mut *connection)
        .await?;
        let before = blob(&mut connection, server, next, from).await?;
        drop(connection);
        let made = apart(move || Ok(vec![coarser(tier, next, (from, to), &finer, before)?]));
        let made = made.await?;
        let folded = told(next, &made);
        self.writer
            .run_relaxed(move |writing| {
                Box::pin(async move {
                    write(&mut writing.connection, server, made).await?;
                    query(
                        "UPDATE blocks SET folded = 1 WHERE server = ? AND tier = ? \
                         AND start >= ? AND start < ?",
                    )
                    .bind(server)
                    .bind(tier)
                    .bind(from)
                    .bind(to)
                    .execute(&mut writing.connection)
                    .await?;
                    Ok(())
                })
            })
            .await?;
        Ok(Some(folded))
    }
}

/// Writes down how far a server is taken in and folded: its records may go from now on.
async fn save(connection: &mut SqliteConnection, head: &Head, folded: i64) -> Result<()> {
    query(
        "UPDATE servers SET folded = max(folded, ?2), last_success = max(coalesce(last_success, 0), \
         coalesce(?5, 0)), after = CASE WHEN epoch_number = ?3 THEN max(after, ?4) ELSE after END \
         WHERE id = ?1",
    )
    .bind(head.id)
    .bind(folded)
    .bind(head.epoch.cast_signed())
    .bind(head.cursor.after.cast_signed())
    .bind(head.last_success.map(Time::as_millis))
    .execute(connection)
    .await?;
    Ok(())
}

/// Samples by the hour that they belong to.
pub(super) fn by_hour(placed: Vec<Placed>) -> BTreeMap<i64, Vec<Placed>> {
    let mut hours: BTreeMap<i64, Vec<Placed>> = BTreeMap::new();
    for it in placed {
        hours.entry(Tier::Samples.start(it.time)).or_default().push(it);
    }
    hours
}

/// The block of an hour with further samples in it.
fn merged(
    server: &ServerId,
    start: i64,
    before: Option<Vec<u8>>,
    placed: Vec<Placed>,
) -> Result<Made> {
    let new = Block::from_samples(placed);
    let block = match before.and_then(|blob| Block::decode(&blob, |_| true)) {
        Some(before) if before.values() + new.values() > MOST_VALUES => {
            tracing::warn!(%server, start, "an hour has too many values: the rest is not kept");
            before
        }
        Some(before) => before.merge(&new),
        None => new,
    };
    made(Tier::Samples, start, &block)
}

/// The block of the next tier from those of this one. What it has of steps that these do not
/// have stays: some of what it was made of may be gone by now.
fn coarser(
    tier: Tier,
    next: Tier,
    (from, to): (i64, i64),
    finer: &[(i64, Vec<u8>)],
    before: Option<Vec<u8>>,
) -> Result<Made> {
    let mut steps = Steps::new(next.step(), from, to);
    for (start, blob) in finer {
        let Some(block) = Block::decode(blob, |_| true) else {
            tracing::warn!(?tier, start, "a block cannot be read, and is left out");
            continue;
        };
        match tier {
            Tier::Samples => steps.add_samples(&block, |_| true),
            _ => steps.add_steps(&block, |_| true),
        }
    }
    let block = steps.into_block();
    let block = match before.and_then(|blob| Block::decode(&blob, |_| true)) {
        Some(before) => block.merge(&before),
        None => block,
    };
    made(next, from, &block)
}

fn made(tier: Tier, start: i64, block: &Block) -> Result<Made> {
    let blob = block.encode().map_err(|error| StoreError::Failed(error.to_string()))?;
    let readings = match tier {
        Tier::Samples => block.values(),
        _ => 3 * block.steps(),
    };
    Ok(Made { tier, start, readings, blob })
}

fn told(tier: Tier, made: &[Made]) -> Folded {
    let bytes = made.iter().map(|made| made.blob.len() as u64).sum();
    Folded { tier, blocks: made.len() as u64, bytes }
}

async fn blob(
    connection: &mut SqliteConnection,
    server: i64,
    tier: Tier,
    start: i64,
) -> Result<Option<Vec<u8>>> {
    let blob =
        sqlx::query_scalar("SELECT data FROM blocks WHERE server = ? AND tier = ? AND start = ?")
            .bind(server)
            .bind(tier)
            .bind(start)
            .fetch_optional(connection)
            .await?;
    Ok(blob)
}

async fn write(connection: &mut SqliteConnection, server: i64, made: Vec<Made>) -> Result<()> {
    for Made { tier, start, readings, blob } in made {
        query(
            "INSERT INTO blocks (server, tier, start, readings, bytes, data) \
             VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (server, tier, start) DO UPDATE SET folded = 0, \
             readings = excluded.readings, bytes = excluded.bytes, data = excluded.data",
        )
        .bind(server)
        .bind(tier)
        .bind(start)
        .bind(readings as i64)
        .bind(blob.len() as i64)
        .bind(blob)
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}
