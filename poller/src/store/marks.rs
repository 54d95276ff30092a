//! Events as marks on a chart: short, and only those that explain a change of its lines.

use sqlx::QueryBuilder;
use wire::{AppName, ServerId, Severity, Time};

use super::{Result, Store};

/// Kinds that explain a change. `online` and `start` follow one of these.
const OF_APPS: [&str; 11] = [
    "exit",
    "errored",
    "exception",
    "restart",
    "reload",
    "stop",
    "delete",
    "deploy_healthy",
    "deploy_failed",
    "slot_rolled_back",
    "slot_failed",
];

/// The same for a machine.
const OF_SERVERS: [&str; 8] = [
    "pm2_connected",
    "pm2_disconnected",
    "exporter_started",
    "server_offline",
    "server_online",
    "journal_lost",
    "deploy_healthy",
    "deploy_failed",
];

/// Whose marks, from when on.
#[derive(Clone, Debug)]
pub struct MarkQuery {
    /// On this server.
    pub server: ServerId,
    /// Of this app; `None` for the machine.
    pub app: Option<AppName>,
    /// Of this PM2 of several.
    pub pm2_home: Option<String>,
    /// At or after.
    pub from: Time,
    /// At most so many, the newest.
    pub limit: usize,
}

/// One mark.
#[derive(Clone, Debug, PartialEq)]
pub struct Mark {
    /// When.
    pub time: Time,
    /// Kind of event.
    pub kind: String,
    /// How bad.
    pub severity: Severity,
    /// One line for people.
    pub message: String,
}

impl Store {
    /// The marks that `query` asks for, newest first.
    ///
    /// # Errors
    /// The read failed.
    pub async fn marks(&self, query: &MarkQuery) -> Result<Vec<Mark>> {
        let mut sql = QueryBuilder::new(
            "SELECT time, kind, severity, event ->> 'message' FROM events \
             WHERE server = (SELECT id FROM servers WHERE server = ",
        );
        sql.push_bind(query.server.as_str());
        sql.push(") AND time >= ").push_bind(query.from.as_millis());
        let kinds: &[&str] = match &query.app {
            Some(app) => {
                sql.push(" AND app = ").push_bind(app.as_str());
                &OF_APPS
            }
            None => &OF_SERVERS,
        };
        if let Some(home) = &query.pm2_home {
            sql.push(" AND event ->> 'pm2_home' = ").push_bind(home);
        }
        sql.push(" AND kind IN (");
        let mut list = sql.separated(", ");
        for kind in kinds {
            list.push_bind(*kind);
        }
        sql.push(") ORDER BY time DESC, id DESC LIMIT ")
            .push_bind(i64::try_from(query.limit).unwrap_or(i64::MAX));
        let rows: Vec<(i64, String, i64, Option<String>)> =
            sql.build_query_as().fetch_all(&self.readers).await?;
        let mark = |(time, kind, severity, message): (i64, String, i64, Option<String>)| Mark {
            time: Time::from_millis(time),
            kind,
            severity: usize::try_from(severity)
                .ok()
                .and_then(|rank| Severity::ALL.get(rank).copied())
                .unwrap_or(Severity::Info),
            message: message.unwrap_or_default(),
        };
        Ok(rows.into_iter().map(mark).collect())
    }

    /// The event of that number.
    ///
    /// # Errors
    /// The read failed.
    pub async fn event(&self, id: i64) -> Result<Option<super::StoredEvent>> {
        let row = sqlx::query_as(
            "SELECT events.id, servers.server, events.time, events.event \
             FROM events JOIN servers ON servers.id = events.server WHERE events.id = ?",
        )
        .bind(id)
        .fetch_optional(&self.readers)
        .await?;
        row.map(super::events::stored).transpose()
    }
}
