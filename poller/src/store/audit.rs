//! The audit: who did, or tried to do, what. Rows are only ever added.

use sqlx::QueryBuilder;
use sqlx::sqlite::SqliteConnection;
use wire::Time;

use super::{Result, Store};

/// A row to add.
#[derive(Clone, Debug, Default)]
pub struct NewAudit {
    /// Name of the token, or of who sat at the command line.
    pub who: String,
    /// Network address, or `command line`.
    pub address: String,
    /// `command`, `token create`, …
    pub act: &'static str,
    /// `requested`, `refused`, `succeeded`, …
    pub outcome: String,
    /// On which server.
    pub server: Option<String>,
    /// What it was about: `restart app api`.
    pub subject: String,
    /// More, in words.
    pub detail: Option<String>,
    /// Id of the command.
    pub command: Option<String>,
}

/// A row as stored.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, sqlx::FromRow)]
pub struct AuditRow {
    /// Its number; rises.
    pub id: i64,
    /// When.
    #[sqlx(try_from = "i64")]
    pub time: Stamp,
    /// Name of the token, or of who sat at the command line.
    pub who: String,
    /// Network address, or `command line`.
    pub address: String,
    /// `command`, `token create`, …
    pub act: String,
    /// `requested`, `refused`, `succeeded`, …
    pub outcome: String,
    /// On which server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// What it was about: `restart app api`.
    pub subject: String,
    /// More, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Id of the command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
}

/// A moment as the database has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(transparent)]
pub struct Stamp(pub Time);

impl From<i64> for Stamp {
    fn from(millis: i64) -> Self {
        Self(Time::from_millis(millis))
    }
}

/// Which rows are asked for, newest first.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    /// Of this server.
    pub server: Option<String>,
    /// By this name.
    pub who: Option<String>,
    /// At or after.
    pub since: Option<Time>,
    /// Numbers below this one.
    pub before: Option<i64>,
    /// At most so many.
    pub limit: usize,
}

pub(super) async fn insert(connection: &mut SqliteConnection, row: NewAudit) -> Result<()> {
    sqlx::query(
        "INSERT INTO audit (time, who, address, act, outcome, server, subject, detail, command) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(Time::now().as_millis())
    .bind(row.who)
    .bind(row.address)
    .bind(row.act)
    .bind(row.outcome)
    .bind(row.server)
    .bind(row.subject)
    .bind(row.detail)
    .bind(row.command)
    .execute(connection)
    .await?;
    Ok(())
}

impl Store {
    /// The rows that `filter` lets through, newest first.
    ///
    /// # Errors
    /// The read failed.
    pub async fn audit(&self, filter: &AuditFilter) -> Result<Vec<AuditRow>> {
        let mut sql = QueryBuilder::new(
            "SELECT id, time, who, address, act, outcome, server, subject, detail, command \
             FROM audit WHERE true",
        );
        if let Some(server) = &filter.server {
            sql.push(" AND server = ").push_bind(server);
        }
        if let Some(who) = &filter.who {
            sql.push(" AND who = ").push_bind(who);
        }
        if let Some(since) = filter.since {
            sql.push(" AND time >= ").push_bind(since.as_millis());
        }
        if let Some(before) = filter.before {
            sql.push(" AND id < ").push_bind(before);
        }
        sql.push(" ORDER BY id DESC LIMIT ")
            .push_bind(i64::try_from(filter.limit).unwrap_or(i64::MAX));
        Ok(sql.build_query_as().fetch_all(&self.readers).await?)
    }
}
