//! One command for many servers: a record of the whole, and a command for each part.

use serde::Serialize;
use serde_json::Value;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{FromRow, QueryBuilder, Row, query, query_as, query_scalar};
use wire::{Action, CommandId, CommandStatus, ServerId, Target, Time};

use super::audit::{self, NewAudit};
use super::commands::{self, NewCommand, json, parsed, status_of};
use super::events::json_list;
use super::keys::{self, Keyed};
use super::queue::Canceller;
use super::writer::Writing;
use super::{Result, Store, StoreError};

/// A selection to put on record, with its parts.
#[derive(Clone, Debug)]
pub struct NewSelection {
    /// Its id.
    pub id: CommandId,
    /// What was asked for, as it was written.
    pub selected: Value,
    /// What each part is about.
    pub target: Target,
    /// What is to be done.
    pub action: Action,
    /// Name of the token that asked.
    pub requested_by: String,
    /// By what they are known, for the audit.
    pub requested_via: Option<&'static str>,
    /// Its number.
    pub token: Option<i64>,
    /// From which address.
    pub requested_from: String,
    /// When.
    pub requested_at: Time,
    /// Names of what it takes.
    pub summary: Option<String>,
    /// Parts at a time.
    pub batch: usize,
    /// Most that may be away at a time.
    pub max_unavailable: Option<usize>,
    /// How long each is watched, in milliseconds.
    pub settle: i64,
    /// The caller's own name for the request.
    pub idempotency_key: Option<String>,
    /// SHA-256 that tells the request from others, where it has a key.
    pub body_hash: Option<Vec<u8>>,
    /// A command each, in the order in which they run.
    pub parts: Vec<NewCommand>,
}

/// What became of putting a selection on record.
#[derive(Clone, Debug)]
pub enum Selected {
    /// It is on record.
    New,
    /// Its token's key was used before, for this; nothing was written.
    Before(Keyed),
}

/// One command for many servers: `GET /api/commands/{id}`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StoredSelection {
    /// Its number; rises. The cursor of lists.
    #[serde(skip)]
    pub seq: i64,
    /// Its id.
    pub id: CommandId,
    /// What was asked for.
    pub select: Value,
    /// What each part is about.
    pub target: Target,
    /// What was to be done.
    pub action: Action,
    /// Running, succeeded, failed or cancelled.
    pub status: CommandStatus,
    /// Who.
    pub requested_by: String,
    /// From which address.
    pub requested_from: String,
    /// When.
    pub requested_at: Time,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
    /// Names of what it takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
    /// Why it did not succeed: a word, and the same for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// See there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Parts at a time.
    pub batch: u32,
    /// Most that may be away at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_unavailable: Option<u32>,
    /// How long each is watched.
    pub settle_seconds: f64,
    /// The parts, in their order.
    pub parts: Vec<Part>,
    /// SHA-256 that tells the request from others.
    #[serde(skip)]
    pub body_hash: Option<Vec<u8>>,
}

/// A part of a selection: a command of its own.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Part {
    /// Its id.
    pub id: CommandId,
    /// Where.
    pub server: ServerId,
    /// How far it is.
    pub status: CommandStatus,
    /// Why it did not succeed: a word, and the same for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// See there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
}

const COLUMNS: &str = "SELECT seq, id, selected, target, action, status, requested_by, \
     requested_from, requested_at, finished_at, problem, error, summary, batch, max_unavailable, \
     settle, body_hash FROM selections";

impl FromRow<'_, SqliteRow> for StoredSelection {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        let finished_at: Option<i64> = row.try_get("finished_at")?;
        let settle: i64 = row.try_get("settle")?;
        let max_unavailable: Option<i64> = row.try_get("max_unavailable")?;
        Ok(Self {
            seq: row.try_get("seq")?,
            id: parsed(row.try_get("id")?)?,
            select: json(row.try_get("selected")?)?,
            target: json(row.try_get("target")?)?,
            action: parsed(row.try_get("action")?)?,
            status: status_of(row.try_get("status")?)?,
            requested_by: row.try_get("requested_by")?,
            requested_from: row.try_get("requested_from")?,
            requested_at: Time::from_millis(row.try_get("requested_at")?),
            finished_at: finished_at.map(Time::from_millis),
            summary: row.try_get("summary")?,
            reason: row.try_get("problem")?,
            error: row.try_get("error")?,
            batch: row.try_get("batch")?,
            // An earlier version took numbers beyond any use.
            max_unavailable: max_unavailable.map(|most| u32::try_from(most).unwrap_or(u32::MAX)),
            settle_seconds: settle as f64 / 1000.0,
            parts: Vec::new(),
            body_hash: row.try_get("body_hash")?,
        })
    }
}

impl FromRow<'_, SqliteRow> for Part {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        let finished_at: Option<i64> = row.try_get("finished_at")?;
        Ok(Self {
            id: parsed(row.try_get("id")?)?,
            server: parsed(row.try_get("server")?)?,
            status: status_of(row.try_get("status")?)?,
            reason: row.try_get("problem")?,
            error: row.try_get("error")?,
            finished_at: finished_at.map(Time::from_millis),
        })
    }
}

impl Store {
    /// Puts a selection and all of its parts on record, on the disk when this returns.
    ///
    /// # Errors
    /// It is not on record: nothing of it must be sent.
    pub async fn insert_selection(&self, new: NewSelection) -> Result<Selected> {
        self.writer.run(move |writing| Box::pin(insert(writing, new))).await
    }

    /// Closes a selection. Parts that were not begun are cancelled for the same reason.
    ///
    /// # Errors
    /// The write failed.
    pub async fn finish_selection(
        &self,
        id: CommandId,
        status: CommandStatus,
        reason: Option<(&'static str, String)>,
    ) -> Result<()> {
        self.writer
            .run(move |writing| Box::pin(async move { finish(writing, &id, status, reason).await }))
            .await
    }

    /// Cancels what of a selection was not begun, with a line in the audit; `false` when it has
    /// ended.
    ///
    /// # Errors
    /// The write failed.
    pub async fn cancel_selection(&self, id: CommandId, by: Canceller) -> Result<bool> {
        self.writer
            .run(move |writing| {
                Box::pin(async move {
                    let connection = &mut writing.connection;
                    let row: Option<(String, String)> = query_as(
                        "SELECT action, target FROM selections WHERE id = ? AND status = 'running'",
                    )
                    .bind(id.as_str())
                    .fetch_optional(&mut *connection)
                    .await?;
                    let Some((action, target)) = row else { return Ok(false) };
                    let words = format!("cancelled by {}", by.who);
                    cancel_rest(connection, &id, "cancelled", &words).await?;
                    let row = NewAudit {
                        who: by.who,
                        via: by.via,
                        address: by.address,
                        act: "command",
                        outcome: "cancelled".to_owned(),
                        subject: format!("{action} {}", shown(target)),
                        command: Some(id.to_string()),
                        ..NewAudit::default()
                    };
                    audit::insert(writing, row).await?;
                    Ok(true)
                })
            })
            .await
    }

    /// What of selections a former life of this program left: what was not begun is not run
    /// unasked. How many there were.
    ///
    /// # Errors
    /// A read or write failed.
    pub async fn interrupt_selections(&self) -> Result<usize> {
        let ids: Vec<String> = query_scalar("SELECT id FROM selections WHERE status = 'running'")
            .fetch_all(&self.readers)
            .await?;
        for id in &ids {
            let id: CommandId = parsed(id)?;
            let (left, open): (i64, i64) = query_as(
                "SELECT count(*) FILTER (WHERE status = 'queued'), \
                 count(*) FILTER (WHERE status = 'running') FROM commands WHERE part_of = ?",
            )
            .bind(id.as_str())
            .fetch_one(&self.readers)
            .await?;
            let were = |count: i64| match count {
                1 => "1 part was".to_owned(),
                count => format!("{count} parts were"),
            };
            let mut words = format!("the poller was stopped meanwhile: {} not run", were(left));
            if open > 0 {
                words.push_str(&format!(", {} not seen to be well", were(open)));
            }
            let reason = Some(("interrupted", words));
            self.finish_selection(id, CommandStatus::Failed, reason).await?;
        }
        Ok(ids.len())
    }

    /// One selection with its parts.
    ///
    /// # Errors
    /// The read failed.
    pub async fn selection(&self, id: &CommandId) -> Result<Option<StoredSelection>> {
        let mut sql = QueryBuilder::new(COLUMNS);
        sql.push(" WHERE id = ").push_bind(id.as_str());
        let found: Option<StoredSelection> =
            sql.build_query_as().fetch_optional(&self.readers).await?;
        match found {
            None => Ok(None),
            Some(selection) => Ok(Some(self.with_parts(selection).await?)),
        }
    }

    async fn with_parts(&self, selection: StoredSelection) -> Result<StoredSelection> {
        let parts = query_as(
            "SELECT id, server, status, problem, error, finished_at FROM commands \
             WHERE part_of = ? ORDER BY seq",
        )
        .bind(selection.id.as_str())
        .fetch_all(&self.readers)
        .await?;
        Ok(StoredSelection { parts, ..selection })
    }

    /// Selections with their parts, newest first: those below a number, with no part on a server
    /// that is not visible.
    ///
    /// # Errors
    /// The read failed.
    pub async fn selections(
        &self,
        visible: Option<Vec<ServerId>>,
        before: Option<i64>,
        limit: usize,
    ) -> Result<Vec<StoredSelection>> {
        let mut sql = QueryBuilder::new(COLUMNS);
        sql.push(" WHERE true");
        if let Some(before) = before {
            sql.push(" AND seq < ").push_bind(before);
        }
        if let Some(visible) = visible {
            sql.push(
                " AND NOT EXISTS (SELECT 1 FROM commands WHERE part_of = selections.id \
                 AND server NOT IN (SELECT value FROM json_each(",
            )
            .push_bind(json_list(&visible))
            .push(")))");
        }
        sql.push(" ORDER BY seq DESC LIMIT ").push_bind(i64::try_from(limit).unwrap_or(i64::MAX));
        let found: Vec<StoredSelection> = sql.build_query_as().fetch_all(&self.readers).await?;
        let mut all = Vec::with_capacity(found.len());
        for selection in found {
            all.push(self.with_parts(selection).await?);
        }
        Ok(all)
    }
}

async fn insert(writing: &mut Writing, new: NewSelection) -> Result<Selected> {
    let connection = &mut writing.connection;
    if let (Some(token), Some(key)) = (new.token, &new.idempotency_key)
        && let Some(before) = keys::find(&mut *connection, token, key).await?
    {
        return Ok(Selected::Before(before));
    }
    let text = |error: serde_json::Error| StoreError::Failed(error.to_string());
    query(
        "INSERT INTO selections (id, selected, target, action, status, requested_by, token, \
         requested_from, requested_at, summary, batch, max_unavailable, settle, idempotency_key, \
         body_hash) VALUES (?, ?, ?, ?, 'running', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(new.id.as_str())
    .bind(new.selected.to_string())
    .bind(serde_json::to_string(&new.target).map_err(text)?)
    .bind(new.action.as_str())
    .bind(&new.requested_by)
    .bind(new.token)
    .bind(&new.requested_from)
    .bind(new.requested_at.as_millis())
    .bind(&new.summary)
    .bind(new.batch as i64)
    .bind(new.max_unavailable.map(|most| most as i64))
    .bind(new.settle)
    .bind(&new.idempotency_key)
    .bind(&new.body_hash)
    .execute(&mut *connection)
    .await?;
    let servers: Vec<&str> = new.parts.iter().map(|part| part.server.as_str()).collect();
    let on: String = servers.join(", ").chars().take(1000).collect();
    let row = NewAudit {
        who: new.requested_by,
        via: new.requested_via,
        address: new.requested_from,
        act: "command",
        outcome: "requested".to_owned(),
        subject: format!("{} {} on {} servers", new.action, new.target, servers.len()),
        detail: Some(new.summary.map_or(on.clone(), |summary| format!("{on}; {summary}"))),
        command: Some(new.id.to_string()),
        ..NewAudit::default()
    };
    audit::insert(writing, row).await?;
    for part in new.parts {
        commands::insert_row(&mut writing.connection, &part).await?;
    }
    Ok(Selected::New)
}

async fn finish(
    writing: &mut Writing,
    id: &CommandId,
    status: CommandStatus,
    reason: Option<(&'static str, String)>,
) -> Result<()> {
    let connection = &mut writing.connection;
    let (problem, error) = reason.unzip();
    let row: Option<(String, String, String, String)> = query_as(
        "UPDATE selections SET status = ?, finished_at = ?, problem = ?, error = ? \
         WHERE id = ? AND status = 'running' \
         RETURNING requested_by, requested_from, action, target",
    )
    .bind(status.as_str())
    .bind(Time::now().as_millis())
    .bind(problem)
    .bind(&error)
    .bind(id.as_str())
    .fetch_optional(&mut *connection)
    .await?;
    let Some((who, address, action, target)) = row else { return Ok(()) };
    let words = error.as_deref().unwrap_or("nothing more was to be done");
    cancel_rest(connection, id, problem.unwrap_or("cancelled"), words).await?;
    let row = NewAudit {
        who,
        address,
        act: "command",
        outcome: status.as_str().to_owned(),
        subject: format!("{action} {}", shown(target)),
        detail: error,
        command: Some(id.to_string()),
        ..NewAudit::default()
    };
    audit::insert(writing, row).await
}

async fn cancel_rest(
    connection: &mut SqliteConnection,
    id: &CommandId,
    problem: &str,
    error: &str,
) -> Result<()> {
    query(
        "UPDATE commands SET status = 'cancelled', finished_at = ?, problem = ?, error = ? \
         WHERE part_of = ? AND status = 'queued'",
    )
    .bind(Time::now().as_millis())
    .bind(problem)
    .bind(error)
    .bind(id.as_str())
    .execute(connection)
    .await?;
    Ok(())
}

fn shown(target: String) -> String {
    serde_json::from_str::<Target>(&target).map_or(target, |target| target.to_string())
}
