//! Events: what exporters told and what the poller itself saw.

use std::path::Path;

use sqlx::sqlite::SqliteConnection;
use sqlx::{ConnectOptions, Connection, QueryBuilder, query, query_scalar};
use wire::{Event, Instance, ServerId, Severity, Time};

use super::listed::{Listed, listed};
use super::open::options;
use super::{Result, Store, StoreError};

/// Most crashes that are read one by one.
const CRASHES: i64 = 10_000;

/// Server, app, PM2's directory where it is one of several, and how many.
type Crashes = (String, String, Option<String>, u32);

/// An event as stored.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct StoredEvent {
    /// Number of it here; rises in the order of storing.
    pub id: i64,
    /// Where.
    pub server: ServerId,
    /// When.
    pub time: Time,
    /// What.
    #[serde(flatten)]
    pub event: Event,
}

/// Which events are asked for, newest first. `None` and empty mean any.
#[derive(Clone, Debug, Default)]
pub struct EventFilter {
    /// Only these servers: what the caller may see.
    pub visible: Option<Vec<ServerId>>,
    /// Of this server.
    pub server: Option<ServerId>,
    /// Of this app.
    pub app: Option<String>,
    /// Of this PM2 of several.
    pub pm2_home: Option<String>,
    /// Of this kind.
    pub kind: Option<String>,
    /// This bad or worse.
    pub severity: Option<Severity>,
    /// At or after.
    pub since: Option<Time>,
    /// Before.
    pub until: Option<Time>,
    /// Older than this one, by time and number: the page after it.
    pub before: Option<(Time, i64)>,
    /// At most so many.
    pub limit: usize,
}

fn rank(severity: Severity) -> i64 {
    Severity::ALL.iter().position(|known| *known == severity).unwrap_or(0) as i64
}

pub(super) async fn insert(
    connection: &mut SqliteConnection,
    number: i64,
    server: &ServerId,
    time: Time,
    event: Event,
) -> Result<StoredEvent> {
    let json =
        serde_json::to_string(&event).map_err(|error| StoreError::Failed(error.to_string()))?;
    let id = sqlx::query_scalar(
        "INSERT INTO events (server, time, kind, severity, app, event) \
         VALUES (?, ?, ?, ?, ?, ?) RETURNING id",
    )
    .bind(number)
    .bind(time.as_millis())
    .bind(event.kind.as_str())
    .bind(rank(event.severity))
    .bind(event.app.as_ref().map(|app| app.as_str()))
    .bind(json)
    .fetch_one(connection)
    .await?;
    Ok(StoredEvent { id, server: server.clone(), time, event })
}

/// What of the events is read; conditions follow.
const COLUMNS: &str = "SELECT events.id, servers.server, events.time, events.event \
     FROM events JOIN servers ON servers.id = events.server WHERE true";

/// Those of a filter but for where its page begins.
fn conditions(sql: &mut QueryBuilder<sqlx::Sqlite>, filter: &EventFilter) {
    if let Some(server) = &filter.server {
        sql.push(" AND events.server = (SELECT id FROM servers WHERE server = ")
            .push_bind(server.as_str())
            .push(")");
    }
    if let Some(visible) = &filter.visible {
        sql.push(" AND servers.server IN (SELECT value FROM json_each(")
            .push_bind(json_list(visible))
            .push("))");
    }
    if let Some(app) = &filter.app {
        sql.push(" AND events.app = ").push_bind(app);
    }
    if let Some(home) = &filter.pm2_home {
        sql.push(" AND events.event ->> 'pm2_home' = ").push_bind(home);
    }
    if let Some(kind) = &filter.kind {
        sql.push(" AND events.kind = ").push_bind(kind);
    }
    if let Some(severity) = filter.severity {
        sql.push(" AND events.severity >= ").push_bind(rank(severity));
    }
    if let Some(since) = filter.since {
        sql.push(" AND events.time >= ").push_bind(since.as_millis());
    }
    if let Some(until) = filter.until {
        sql.push(" AND events.time < ").push_bind(until.as_millis());
    }
}

/// The number of the last event that ever was.
const LAST_EVENT: &str = "SELECT seq FROM sqlite_sequence WHERE name = 'events'";
/// Numbers of events are further apart than so only where they began anew: see [`begin_events_after`].
const ANEW: i64 = 500_000_000;

impl Store {
    /// The events that `filter` lets through, newest first.
    ///
    /// # Errors
    /// The read failed.
    pub async fn events(&self, filter: &EventFilter) -> Result<Vec<StoredEvent>> {
        Ok(self.list_events(filter).await?.rows)
    }

    /// The same, as a piece of a list: fewer where they are long.
    ///
    /// # Errors
    /// The read failed.
    pub async fn list_events(&self, filter: &EventFilter) -> Result<Listed<StoredEvent>> {
        let mut sql = QueryBuilder::new(COLUMNS);
        conditions(&mut sql, filter);
        if let Some((time, id)) = filter.before {
            sql.push(" AND (events.time, events.id) < (")
                .push_bind(time.as_millis())
                .push(", ")
                .push_bind(id)
                .push(")");
        }
        sql.push(" ORDER BY events.time DESC, events.id DESC");
        self.pieces(sql, filter.limit).await
    }

    async fn pieces(
        &self,
        mut sql: QueryBuilder<sqlx::Sqlite>,
        limit: usize,
    ) -> Result<Listed<StoredEvent>> {
        let rows = i64::try_from(limit.saturating_add(1)).unwrap_or(i64::MAX);
        sql.push(" LIMIT ").push_bind(rows);
        let rows = sql.build_query_as::<(i64, String, i64, String)>().fetch(&self.readers);
        listed(rows, limit, |row| {
            let size = row.3.len();
            Ok((stored(row)?, size))
        })
        .await
    }

    /// The events that `filter` lets through with numbers above `after` and up to `until`, by
    /// number.
    ///
    /// # Errors
    /// The read failed.
    pub async fn events_between(
        &self,
        filter: &EventFilter,
        after: i64,
        until: i64,
    ) -> Result<Listed<StoredEvent>> {
        let mut sql = QueryBuilder::new(COLUMNS);
        sql.push(" AND events.id > ").push_bind(after);
        sql.push(" AND events.id <= ").push_bind(until);
        conditions(&mut sql, filter);
        sql.push(" ORDER BY events.id");
        self.pieces(sql, filter.limit).await
    }

    /// The number of the last event, 0 where there was none yet.
    ///
    /// # Errors
    /// The read failed.
    pub async fn newest_event(&self) -> Result<i64> {
        let newest: Option<i64> = query_scalar(LAST_EVENT).fetch_optional(&self.readers).await?;
        Ok(newest.unwrap_or_default())
    }

    /// The number of the last event, and how many of those above `after` are not there any more.
    /// Numbers are given without holes, so that what is missing was taken away. `None` for those where
    /// `after` is a number that was never given, or numbers began anew since, in another database's place.
    ///
    /// # Errors
    /// The read failed.
    pub async fn missing_events(&self, after: i64) -> Result<(i64, Option<u64>)> {
        let (last, there): (i64, i64) = sqlx::query_as(
            "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'events'), 0), \
             (SELECT count(*) FROM events WHERE id > ?)",
        )
        .bind(after)
        .fetch_one(&self.readers)
        .await?;
        let missing = (last - after).checked_sub(there).filter(|_| after <= last);
        let missing = missing.filter(|missing| *missing < ANEW);
        Ok((last, missing.map(|missing| missing.max(0).unsigned_abs())))
    }

    /// The same exits as [`Self::crashes`] counts, each with its process, the oldest first; at most
    /// ten thousand, the latest.
    ///
    /// # Errors
    /// The read failed.
    pub async fn crashed(&self, since: Time) -> Result<Vec<(ServerId, Instance, Time)>> {
        let rows: Vec<(i64, String, i64, String)> = sqlx::query_as(
            "SELECT events.id, servers.server, time, event FROM events \
             JOIN servers ON servers.id = events.server \
             WHERE time >= ? AND kind = 'exit' AND app IS NOT NULL \
             AND event ->> 'cause' IN ('crash', 'oom') ORDER BY time DESC LIMIT ?",
        )
        .bind(since.as_millis())
        .bind(CRASHES)
        .fetch_all(&self.readers)
        .await?;
        let mut crashed = Vec::with_capacity(rows.len());
        for row in rows.into_iter().rev() {
            let StoredEvent { server, time, event, .. } = stored(row)?;
            let (Some(name), Some(namespace), Some(instance_id)) =
                (event.app, event.namespace, event.instance_id)
            else {
                continue;
            };
            let instance = Instance { name, namespace, instance_id, pm2_home: event.pm2_home };
            crashed.push((server, instance, time));
        }
        Ok(crashed)
    }

    /// Exits by crash or for want of memory since a moment, by server, app and PM2's directory: of the
    /// instance that has most.
    ///
    /// # Errors
    /// The read failed.
    pub async fn crashes(&self, since: Time) -> Result<Vec<Crashes>> {
        let rows = sqlx::query_as(
            "SELECT server, app, home, max(crashes) FROM (\
                 SELECT servers.server, app, event ->> 'pm2_home' AS home, count(*) AS crashes \
                 FROM events JOIN servers ON servers.id = events.server \
                 WHERE time >= ? AND kind = 'exit' AND app IS NOT NULL \
                 AND event ->> 'cause' IN ('crash', 'oom') \
                 GROUP BY 1, 2, 3, event ->> 'namespace', event ->> 'instance_id'\
             ) GROUP BY 1, 2, 3",
        )
        .bind(since.as_millis())
        .fetch_all(&self.readers)
        .await?;
        Ok(rows)
    }
}

/// The last number of an event of the database that was here, if it can be read.
pub(super) async fn events_given(database: &Path) -> Option<i64> {
    if !database.exists() {
        return None;
    }
    let mut connection = options(database).read_only(true).connect().await.ok()?;
    let last = query_scalar(LAST_EVENT).fetch_optional(&mut connection).await;
    let _ = connection.close().await;
    last.ok().flatten()
}

/// Goes on after the numbers that were `given` to events, so that whoever comes back to the stream with
/// one of them misses none. Where nobody can tell, or it was another database that gave them (the one
/// that a copy is of has gone on since), it is after more than there ever were.
pub(super) async fn begin_events_after(
    connection: &mut SqliteConnection,
    given: Option<i64>,
) -> sqlx::Result<()> {
    let own: Option<i64> = query_scalar(LAST_EVENT).fetch_optional(&mut *connection).await?;
    let last = own.unwrap_or(0);
    let next = given.filter(|given| *given >= last).unwrap_or_else(|| {
        // No rate of events comes after it, and JavaScript has such numbers. Those that were given since
        // the copy was made do not bring it nearer than `ANEW`.
        let microseconds = Time::now().as_millis().saturating_mul(1000);
        last.max(microseconds).saturating_add(2 * ANEW)
    });
    let sql = match own {
        None => "INSERT INTO sqlite_sequence (seq, name) VALUES (?, 'events')",
        Some(_) => "UPDATE sqlite_sequence SET seq = ? WHERE name = 'events'",
    };
    query(sql).bind(next).execute(connection).await?;
    Ok(())
}

pub(super) fn stored((id, server, time, json): (i64, String, i64, String)) -> Result<StoredEvent> {
    let wrong = |error: String| StoreError::Failed(format!("event {id}: {error}"));
    Ok(StoredEvent {
        id,
        server: server.parse().map_err(|error: wire::InvalidId| wrong(error.to_string()))?,
        time: Time::from_millis(time),
        event: serde_json::from_str(&json).map_err(|error| wrong(error.to_string()))?,
    })
}

/// For `IN (SELECT value FROM json_each(?))`. Ids need no escaping in JSON.
pub(super) fn json_list(ids: &[ServerId]) -> String {
    let ids: Vec<String> = ids.iter().map(|id| format!("\"{id}\"")).collect();
    format!("[{}]", ids.join(","))
}
