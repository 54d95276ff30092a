//! Events: what exporters told and what the poller itself saw.

use sqlx::QueryBuilder;
use sqlx::sqlite::SqliteConnection;
use wire::{Event, ServerId, Severity, Time};

use super::{Result, Store, StoreError};

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
    /// Of this kind.
    pub kind: Option<String>,
    /// This bad or worse.
    pub severity: Option<Severity>,
    /// At or after.
    pub since: Option<Time>,
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

impl Store {
    /// The events that `filter` lets through, newest first.
    ///
    /// # Errors
    /// The read failed.
    pub async fn events(&self, filter: &EventFilter) -> Result<Vec<StoredEvent>> {
        let mut sql = QueryBuilder::new(
            "SELECT events.id, servers.server, events.time, events.event \
             FROM events JOIN servers ON servers.id = events.server WHERE true",
        );
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
        if let Some(kind) = &filter.kind {
            sql.push(" AND events.kind = ").push_bind(kind);
        }
        if let Some(severity) = filter.severity {
            sql.push(" AND events.severity >= ").push_bind(rank(severity));
        }
        if let Some(since) = filter.since {
            sql.push(" AND events.time >= ").push_bind(since.as_millis());
        }
        if let Some((time, id)) = filter.before {
            sql.push(" AND (events.time, events.id) < (")
                .push_bind(time.as_millis())
                .push(", ")
                .push_bind(id)
                .push(")");
        }
        sql.push(" ORDER BY events.time DESC, events.id DESC LIMIT ")
            .push_bind(i64::try_from(filter.limit).unwrap_or(i64::MAX));
        let rows: Vec<(i64, String, i64, String)> =
            sql.build_query_as().fetch_all(&self.readers).await?;
        rows.into_iter().map(stored).collect()
    }

    /// Exits by crash or for want of memory since a moment, by server and app.
    ///
    /// # Errors
    /// The read failed.
    pub async fn crashes(&self, since: Time) -> Result<Vec<(String, String, u32)>> {
        let rows = sqlx::query_as(
            "SELECT servers.server, app, count(*) FROM events \
             JOIN servers ON servers.id = events.server \
             WHERE time >= ? AND kind = 'exit' AND app IS NOT NULL \
             AND event ->> 'cause' IN ('crash', 'oom') GROUP BY 1, 2",
        )
        .bind(since.as_millis())
        .fetch_all(&self.readers)
        .await?;
        Ok(rows)
    }
}

fn stored((id, server, time, json): (i64, String, i64, String)) -> Result<StoredEvent> {
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
