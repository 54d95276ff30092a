//! Taking away what is old enough, or too much, a little at a time, so that writing is never
//! held up long.

use sqlx::query;
use wire::{Event, EventKind, ServerId, Severity, Time};

use super::history::Tier;
use super::{Result, Store, StoreError};
use super::{audit, events};

/// Most rows of one kind that one step takes away.
const STEP: i64 = 500;
/// Most blocks, which are larger, and most pages given back to the file system.
const BLOCKS: i64 = 64;
const PAGES: i64 = 512;
/// Fewer free pages are kept for what comes next.
const SPARE: i64 = 2048;

/// What is older than these moments goes.
#[derive(Clone, Copy, Debug)]
pub struct Before {
    /// Samples as they came.
    pub samples: Time,
    /// By minute.
    pub minutes: Time,
    /// By hour, and names that nothing refers to then.
    pub hours: Time,
    /// Events.
    pub events: Time,
    /// Commands.
    pub commands: Time,
    /// Audit.
    pub audit: Time,
}

/// What one step of retention took away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Recent rows that are folded.
    pub recent: u64,
    /// Blocks by tier.
    pub blocks: [u64; 3],
    /// Events.
    pub events: u64,
    /// Commands.
    pub commands: u64,
    /// Audit rows.
    pub audit: u64,
    /// Names that no sample can refer to any more.
    pub names: u64,
    /// Servers that were retired long ago.
    pub retired: u64,
    /// Whether there may be more to take away at once.
    pub more: bool,
}

/// What became of a step towards a smaller database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shrunk {
    /// It is small enough.
    Fits,
    /// History was dropped.
    Dropped(Dropped),
    /// It has so many bytes, and nothing in it that may be dropped.
    Stays(u64),
}

/// What was dropped because the database was too large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// Of this tier.
    pub tier: Tier,
    /// How many blocks.
    pub blocks: u64,
    /// The newest of them began then.
    pub up_to: Time,
}

impl Store {
    /// One step: at most some hundred rows of each kind that are older than these moments.
    /// Blocks go only when the next tier has them, and all that make one of its blocks together.
    ///
    /// # Errors
    /// The write failed; nothing more was taken away.
    pub async fn retain(&self, before: Before) -> Result<Removed> {
        let mut removed = Removed { recent: self.drop_folded(STEP).await?, ..Removed::default() };
        removed.more = removed.recent >= STEP.unsigned_abs();
        let moments = [before.samples, before.minutes, before.hours];
        for (tier, moment) in Tier::ALL.into_iter().zip(moments) {
            let whole = tier.next().unwrap_or(tier).start(moment.as_millis());
            let gone = self.drop_blocks(tier, whole).await?;
            removed.blocks[tier as usize] = gone;
            removed.more |= gone >= BLOCKS.unsigned_abs();
        }
        // The oldest block reaches back by its length, and last_seen is up to an hour behind: every
        // number that a block still has is kept.
        let names = before.hours.plus_millis(-Tier::Hours.length() - 2 * 3_600_000);
        let rows = self.writer.run(move |writing| {
            Box::pin(async move {
                let connection = &mut writing.connection;
                let mut counts = [0; 6];
                for (count, (sql, moment)) in counts.iter_mut().zip([
                    (
                        "DELETE FROM events WHERE id IN \
                         (SELECT id FROM events WHERE time < ? ORDER BY time LIMIT ?)",
                        before.events,
                    ),
                    (
                        "DELETE FROM commands WHERE seq IN (SELECT seq FROM commands \
                         WHERE requested_at < ? AND status NOT IN ('queued', 'running') \
                         ORDER BY requested_at LIMIT ?)",
                        before.commands,
                    ),
                    // The greatest number stays, so that none is ever given again.
                    (
                        "DELETE FROM instances WHERE id IN \
                         (SELECT id FROM instances WHERE last_seen < ? \
                          AND id < (SELECT max(id) FROM instances) LIMIT ?)",
                        names,
                    ),
                    (
                        "DELETE FROM metrics WHERE id IN \
                         (SELECT id FROM metrics WHERE last_seen < ? \
                          AND id < (SELECT max(id) FROM metrics) LIMIT ?)",
                        names,
                    ),
                    (
                        "DELETE FROM registrations WHERE server IN (SELECT server \
                         FROM registrations WHERE retired_at < ? LIMIT ?)",
                        before.hours,
                    ),
                    (
                        "DELETE FROM selections WHERE seq IN (SELECT seq FROM selections \
                         WHERE requested_at < ? AND status <> 'running' \
                         ORDER BY requested_at LIMIT ?)",
                        before.commands,
                    ),
                ]) {
                    let done = query(sql)
                        .bind(moment.as_millis())
                        .bind(STEP)
                        .execute(&mut *connection)
                        .await?;
                    *count = done.rows_affected();
                }
                if counts[2] + counts[3] > 0 {
                    writing.names.clear();
                }
                if counts[4] > 0 {
                    // What they said last goes with them.
                    query(
                        "DELETE FROM states WHERE server IN (SELECT id FROM servers \
                         WHERE server NOT IN (SELECT server FROM registrations))",
                    )
                    .execute(&mut *connection)
                    .await?;
                }
                let [events, commands, instances, metrics, retired, selections] = counts;
                let audit = audit::cut(connection, before.audit, STEP).await?;
                Ok([events, commands + selections, audit, instances, metrics, retired])
            })
        });
        let counts = rows.await?;
        removed.more |= counts.iter().any(|count| *count >= STEP.unsigned_abs());
        let [events, commands, audit, instances, metrics, retired] = counts;
        let names = instances + metrics;
        Ok(Removed { events, commands, audit, names, retired, ..removed })
    }

    /// Blocks that began before `start` and whose next tier is made.
    async fn drop_blocks(&self, tier: Tier, start: i64) -> Result<u64> {
        // Of the last tier there is no next one.
        let folded = tier.next().is_some();
        let due: Option<i64> = sqlx::query_scalar(
            "SELECT 1 FROM blocks WHERE tier = ? AND folded = ? AND start < ? LIMIT 1",
        )
        .bind(tier)
        .bind(folded)
        .bind(start)
        .fetch_optional(&self.readers)
        .await?;
        if due.is_none() {
            return Ok(0);
        }
        self.writer
            .run(move |writing| {
                Box::pin(async move {
                    let done = query(
                        "DELETE FROM blocks WHERE id IN (SELECT id FROM blocks \
                         WHERE tier = ? AND folded = ? AND start < ? ORDER BY start LIMIT ?)",
                    )
                    .bind(tier)
                    .bind(folded)
                    .bind(start)
                    .bind(BLOCKS)
                    .execute(&mut writing.connection)
                    .await?;
                    Ok(done.rows_affected())
                })
            })
            .await
    }

    /// Bytes of the file that hold something.
    ///
    /// # Errors
    /// The read failed.
    pub async fn used_bytes(&self) -> Result<u64> {
        let (pages, free, size): (i64, i64, i64) = sqlx::query_as(
            "SELECT page_count, freelist_count, page_size FROM pragma_page_count, \
             pragma_freelist_count, pragma_page_size",
        )
        .fetch_one(&self.readers)
        .await?;
        Ok(((pages - free) * size).unsigned_abs())
    }

    /// Bytes and values of the blocks of each tier.
    ///
    /// # Errors
    /// The read failed or took too long.
    pub async fn history_sizes(&self) -> Result<[(i64, i64); 3]> {
        let rows: Vec<(Tier, i64, i64)> =
            sqlx::query_as("SELECT tier, sum(bytes), sum(readings) FROM blocks GROUP BY tier")
                .fetch_all(&self.readers)
                .await?;
        let mut sizes = [(0, 0); 3];
        for (tier, bytes, values) in rows {
            sizes[tier as usize] = (bytes, values);
        }
        Ok(sizes)
    }

    /// Rows by kind, of what is no history.
    ///
    /// # Errors
    /// The read failed or took too long.
    pub async fn rows(&self) -> Result<[(&'static str, i64); 4]> {
        let (events, commands, audit, recent): (i64, i64, i64, i64) = sqlx::query_as(
            "SELECT (SELECT count(*) FROM events), (SELECT count(*) FROM commands), \
             (SELECT count(*) FROM audit), (SELECT count(*) FROM recent)",
        )
        .fetch_one(&self.readers)
        .await?;
        Ok([("event", events), ("command", commands), ("audit", audit), ("recent", recent)])
    }

    /// One step towards a database of at most `most` bytes: the oldest blocks of samples, which
    /// minutes and hours still tell of; when there are hardly any left, of minutes; then of
    /// hours. The last six hours of samples, two days of minutes and four of hours always stay.
    ///
    /// # Errors
    /// A read or the write failed.
    pub async fn shrink(&self, most: u64, now: Time) -> Result<Shrunk> {
        let used = self.used_bytes().await?;
        if used <= most {
            return Ok(Shrunk::Fits);
        }
        for tier in Tier::ALL {
            let keep = now.as_millis() - tier.next().map_or(2 * tier.length(), Tier::length);
            let folded = tier.next().is_some();
            let starts: Vec<i64> = self
                .writer
                .run(move |writing| {
                    Box::pin(async move {
                        let starts = sqlx::query_scalar(
                            "DELETE FROM blocks WHERE id IN (SELECT id FROM blocks \
                             WHERE tier = ? AND folded = ? AND start < ? ORDER BY start LIMIT ?) \
                             RETURNING start",
                        )
                        .bind(tier)
                        .bind(folded)
                        .bind(keep)
                        .bind(BLOCKS)
                        .fetch_all(&mut writing.connection)
                        .await?;
                        Ok(starts)
                    })
                })
                .await?;
            if let Some(newest) = starts.iter().max() {
                let up_to = Time::from_millis(*newest);
                let blocks = starts.len() as u64;
                return Ok(Shrunk::Dropped(Dropped { tier, blocks, up_to }));
            }
        }
        Ok(Shrunk::Stays(used))
    }

    /// Gives some of the pages that are free back to the file system, when there are many.
    ///
    /// # Errors
    /// The write failed.
    pub async fn give_back(&self) -> Result<bool> {
        let (pages, free): (i64, i64) = sqlx::query_as(
            "SELECT page_count, freelist_count FROM pragma_page_count, pragma_freelist_count",
        )
        .fetch_one(&self.readers)
        .await?;
        if free <= SPARE.max(pages / 8) {
            return Ok(false);
        }
        self.writer
            .run(|writing| {
                Box::pin(async move {
                    // It does a page a row, so all rows must be asked for.
                    query(sqlx::AssertSqlSafe(format!("PRAGMA incremental_vacuum({PAGES})")))
                        .fetch_all(&mut writing.connection)
                        .await?;
                    Ok(true)
                })
            })
            .await
    }

    /// An event of the poller itself. It stands under the name of a server that there need not
    /// be, [`POLLER`].
    ///
    /// # Errors
    /// The write failed.
    pub async fn tell(
        &self,
        kind: EventKind,
        severity: Severity,
        message: String,
    ) -> Result<events::StoredEvent> {
        let server: ServerId = POLLER
            .parse()
            .map_err(|error: wire::InvalidId| StoreError::Failed(error.to_string()))?;
        let cursor = self.known_server(&server).await?.cursor;
        let now = Time::now();
        let told = super::Ingest {
            patience: std::time::Duration::ZERO,
            server,
            from: cursor.clone(),
            to: cursor,
            entries: Vec::new(),
            state: None,
            told: vec![(now, Event::new(kind, severity, message))],
            answered: None,
            online: None,
            keep_from: now,
        };
        let stored = self.ingest(told).await?.pop();
        stored.ok_or_else(|| StoreError::Failed("an event was not stored".to_owned()))
    }
}

/// The name under which the poller's own events stand.
pub const POLLER: &str = "pm2-poller";
