//! The audit: who did, or tried to do, what. Rows are only ever added, each chained to the one
//! before it.

mod chain;

use std::fmt;

use sqlx::sqlite::{SqliteArguments, SqliteConnection};
use sqlx::{Arguments, AssertSqlSafe, QueryBuilder};
use wire::{ServerId, Time};

use super::events::json_list;
use super::writer::Writing;
use super::{Result, Store, StoreError};

pub use chain::AuditCheck;
pub(super) use chain::{End, cut, is_sealed, seal};

/// A row to add.
#[derive(Clone, Debug, Default)]
pub struct NewAudit {
    /// Name of the token or user, or of who sat at the command line.
    pub who: String,
    /// By what they are known: `token`, `session`, `command line`, …
    pub via: Option<&'static str>,
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
    /// For how many more like it the row stands, which have none of their own.
    pub repeats: Option<i64>,
}

/// A row as stored.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, sqlx::FromRow)]
pub struct AuditRow {
    /// Its number; rises.
    pub id: i64,
    /// When.
    #[sqlx(try_from = "i64")]
    pub time: Stamp,
    /// Name of the token or user, or of who sat at the command line.
    pub who: String,
    /// By what they are known: `token`, `session`, `command line`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub via: Option<String>,
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
    /// For how many more like it the row stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repeats: Option<i64>,
    /// What chains it to the row before it.
    #[sqlx(try_from = "Vec<u8>")]
    pub hash: RowHash,
}

impl AuditRow {
    fn hash_after(&self, before: &[u8; 32]) -> [u8; 32] {
        let texts = [
            Some(self.who.as_str()),
            Some(&self.address),
            Some(&self.act),
            Some(&self.outcome),
            self.server.as_deref(),
            Some(&self.subject),
            self.detail.as_deref(),
            self.command.as_deref(),
            self.via.as_deref(),
        ];
        let (id, time, repeats) = (self.id, self.time.0.as_millis(), self.repeats);
        chain::hash(before, &chain::Said { id, time, texts, repeats })
    }
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

/// The SHA-256 of a row; written in hexadecimal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowHash(pub [u8; 32]);

impl From<Vec<u8>> for RowHash {
    /// What is no hash becomes one that fits nothing.
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.try_into().unwrap_or_default())
    }
}

impl fmt::Display for RowHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl serde::Serialize for RowHash {
    fn serialize<S: serde::Serializer>(
        &self,
        serializer: S,
    ) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Which rows are asked for, newest first. `None` means any.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    /// Only rows about these servers: what the caller may see.
    pub visible: Option<Vec<ServerId>>,
    /// About this server.
    pub server: Option<String>,
    /// By this name.
    pub who: Option<String>,
    /// From this address.
    pub address: Option<String>,
    /// This act.
    pub act: Option<String>,
    /// With this outcome.
    pub outcome: Option<String>,
    /// At or after.
    pub since: Option<Time>,
    /// Before.
    pub until: Option<Time>,
    /// Numbers below this one.
    pub before: Option<i64>,
    /// At most so many.
    pub limit: usize,
}

const COLUMNS: &str = "SELECT id, time, who, via, address, act, outcome, server, subject, detail, \
     command, repeats, hash FROM audit";

/// Adds a row, unless the audit ends elsewhere than its arguments say.
const INSERT: &str = "INSERT INTO audit (id, time, who, via, address, act, outcome, server, subject, \
     detail, command, repeats, hash) SELECT ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ? FROM audit_anchor \
     WHERE audit_anchor.id < ? AND NOT EXISTS (SELECT 1 FROM audit WHERE audit.id >= ?)";

/// Adds a row at the end of the chain.
pub(super) async fn insert(writing: &mut Writing, row: NewAudit) -> Result<()> {
    let Writing { connection, audit_end, .. } = writing;
    // Another process may have added rows since: then it is looked up once more.
    for known in [audit_end.take(), None] {
        let end = match known {
            Some(end) => end,
            None => End::read(connection).await?,
        };
        if let Some(end) = add(connection, &row, end).await? {
            *audit_end = Some(end);
            return Ok(());
        }
    }
    Err(StoreError::Failed("the audit has another end than its rows".to_owned()))
}

/// Does a statement and, where it changed a row, adds one to the audit: both in one call of SQLite's
/// thread. Gives whether there was a change.
pub(super) async fn insert_with(
    writing: &mut Writing,
    statement: &'static str,
    mut arguments: SqliteArguments,
    row: NewAudit,
) -> Result<bool> {
    let Writing { connection, audit_end, .. } = writing;
    let end = match audit_end.take() {
        Some(end) => end,
        None => End::read(connection).await?,
    };
    let after = bind(&mut arguments, &row, &end)?;
    let both = AssertSqlSafe(format!("{statement}; {INSERT} AND changes() > 0"));
    let done = sqlx::query_with(both, arguments).execute(connection).await?;
    match done.rows_affected() {
        0 => *audit_end = Some(end),
        // It ended elsewhere: another process has added rows.
        1 => insert(writing, row).await?,
        _ => *audit_end = Some(after),
    }
    Ok(done.rows_affected() > 0)
}

/// Adds it after `end`, if that is the end, and gives the new one.
async fn add(connection: &mut SqliteConnection, row: &NewAudit, end: End) -> Result<Option<End>> {
    let mut arguments = SqliteArguments::default();
    let after = bind(&mut arguments, row, &end)?;
    let done = sqlx::query_with(INSERT, arguments).execute(connection).await?;
    Ok((done.rows_affected() == 1).then_some(after))
}

/// A row after `end` as the arguments of [`INSERT`], and what is the end then.
fn bind(arguments: &mut SqliteArguments, row: &NewAudit, end: &End) -> Result<End> {
    let (id, time) = (end.next, Time::now().as_millis());
    let texts = [
        Some(row.who.as_str()),
        Some(&row.address),
        Some(row.act),
        Some(&row.outcome),
        row.server.as_deref(),
        Some(&row.subject),
        row.detail.as_deref(),
        row.command.as_deref(),
        row.via,
    ];
    let hash = chain::hash(&end.hash, &chain::Said { id, time, texts, repeats: row.repeats });
    let mut bound = || {
        arguments.add(id)?;
        arguments.add(time)?;
        arguments.add(&row.who)?;
        arguments.add(row.via)?;
        arguments.add(&row.address)?;
        arguments.add(row.act)?;
        arguments.add(&row.outcome)?;
        arguments.add(&row.server)?;
        arguments.add(&row.subject)?;
        arguments.add(&row.detail)?;
        arguments.add(&row.command)?;
        arguments.add(row.repeats)?;
        arguments.add(hash.as_slice())?;
        arguments.add(id)?;
        arguments.add(id)
    };
    bound().map_err(|error| StoreError::Failed(error.to_string()))?;
    Ok(End { hash, next: id + 1 })
}

impl Store {
    /// Adds a row; it is on the disk when this returns.
    ///
    /// # Errors
    /// It is not on record: what it is about must not be done.
    pub async fn record(&self, row: NewAudit) -> Result<()> {
        self.writer.run(move |writing| Box::pin(insert(writing, row))).await
    }

    /// The rows that `filter` lets through, newest first.
    ///
    /// # Errors
    /// The read failed.
    pub async fn audit(&self, filter: &AuditFilter) -> Result<Vec<AuditRow>> {
        let mut sql = QueryBuilder::new(COLUMNS);
        sql.push(" WHERE true");
        if let Some(visible) = &filter.visible {
            sql.push(" AND server IN (SELECT value FROM json_each(")
                .push_bind(json_list(visible))
                .push("))");
        }
        for (column, wanted) in [
            ("server", &filter.server),
            ("who", &filter.who),
            ("address", &filter.address),
            ("act", &filter.act),
            ("outcome", &filter.outcome),
        ] {
            if let Some(wanted) = wanted {
                sql.push(" AND ").push(column).push(" = ").push_bind(wanted);
            }
        }
        if let Some(since) = filter.since {
            sql.push(" AND time >= ").push_bind(since.as_millis());
        }
        if let Some(until) = filter.until {
            sql.push(" AND time < ").push_bind(until.as_millis());
        }
        if let Some(before) = filter.before {
            sql.push(" AND id < ").push_bind(before);
        }
        sql.push(" ORDER BY id DESC LIMIT ")
            .push_bind(i64::try_from(filter.limit).unwrap_or(i64::MAX));
        Ok(sql.build_query_as().fetch_all(&self.readers).await?)
    }
}
