//! Commands: on record, with a line in the audit, before anything is sent; closed with their
//! outcome.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sqlx::sqlite::{SqliteArguments, SqliteConnection};
use sqlx::{Arguments, FromRow, QueryBuilder, Row};
use wire::{
    Action, CommandId, CommandRecord, CommandStatus, InstanceOutcome, Process, ServerId, SmolStr,
    Target, Time,
};

use super::audit::{self, NewAudit};
use super::keys::{self, Keyed};
use super::writer::Writing;
use super::{Result, Store, StoreError};

/// A command to put on record.
#[derive(Clone, Debug)]
pub struct NewCommand {
    /// Its id.
    pub id: CommandId,
    /// Where.
    pub server: ServerId,
    /// What it is about.
    pub target: Target,
    /// What is to be done.
    pub action: Action,
    /// In which PM2, where it is sent to one of several.
    pub pm2_home: Option<SmolStr>,
    /// [`CommandStatus::Running`], [`CommandStatus::Queued`] for one that waits, or
    /// [`CommandStatus::Refused`] for one that is not sent.
    pub status: CommandStatus,
    /// Name of the token that asked.
    pub requested_by: String,
    /// Its number.
    pub token: Option<i64>,
    /// From which address.
    pub requested_from: String,
    /// By what they are known, for the audit: `token`, `session`, ….
    pub requested_via: Option<&'static str>,
    /// When.
    pub requested_at: Time,
    /// Why it was refused: a word, and the same for people.
    pub refusal: Option<(String, String)>,
    /// The caller's own name for the request; unique for a token.
    pub idempotency_key: Option<String>,
    /// Names of what it takes; never values that may be secrets.
    pub summary: Option<String>,
    /// SHA-256 that tells its body from others, where it has a key.
    pub body_hash: Option<Vec<u8>>,
    /// Until when it is asked what became of it.
    pub follow_until: Option<Time>,
    /// Until when it may wait for its server.
    pub queued_until: Option<Time>,
    /// What the exporter is to be sent, of one that waits. Holds no value that may be secret.
    pub body: Option<Vec<u8>>,
    /// The selection that it is a part of.
    pub part_of: Option<CommandId>,
}

/// What became of putting a command on record.
#[derive(Clone, Debug)]
pub enum Inserted {
    /// It is on record.
    New,
    /// Its token's key was used before, for this; nothing was written.
    Before(Keyed),
}

/// A command as stored: `GET /api/commands/{id}`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StoredCommand {
    /// Its number; rises. The cursor of lists.
    #[serde(skip)]
    pub seq: i64,
    /// Where.
    pub server: ServerId,
    /// Who, what, when, and how it ended.
    #[serde(flatten)]
    pub record: CommandRecord,
    /// From which address.
    pub requested_from: String,
    /// Names of what it takes: `env: A, B`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
    /// What went wrong: a word that programs branch on.
    #[serde(rename = "reason", skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// SHA-256 that tells its body from others.
    #[serde(skip)]
    pub body_hash: Option<Vec<u8>>,
    /// Until when it is asked what became of it.
    #[serde(skip)]
    pub follow_until: Option<Time>,
    /// Until when it waits for its server, or did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queued_until: Option<Time>,
    /// What the exporter is to be sent, of one that waits.
    #[serde(skip)]
    pub body: Option<Vec<u8>>,
    /// Number of the token that asked.
    #[serde(skip)]
    pub token: Option<i64>,
    /// The selection that it is a part of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub part_of: Option<CommandId>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct OutcomeJson {
    #[serde(skip_serializing_if = "Option::is_none")]
    reply: Option<String>,
    outcomes: Vec<InstanceOutcome>,
    before: Vec<Process>,
    after: Vec<Process>,
}

pub(super) const COLUMNS: &str = "SELECT seq, id, server, target, action, status, requested_by, \
     requested_from, requested_at, finished_at, problem, error, outcome, summary, body_hash, \
     follow_until, queued_until, body, token, part_of, pm2_home FROM commands";

/// A name as the database has it.
pub(super) fn parsed<T>(text: &str) -> sqlx::Result<T>
where
    T: std::str::FromStr<Err = wire::InvalidId>,
{
    text.parse().map_err(|error: wire::InvalidId| sqlx::Error::Decode(error.into()))
}

/// JSON as the database has it.
pub(super) fn json<T: serde::de::DeserializeOwned>(text: &str) -> sqlx::Result<T> {
    serde_json::from_str(text).map_err(|error| sqlx::Error::Decode(error.into()))
}

/// A status by its word.
pub(super) fn status_of(text: &str) -> sqlx::Result<CommandStatus> {
    let known = CommandStatus::ALL.into_iter().find(|known| known.as_str() == text);
    known.ok_or_else(|| sqlx::Error::Decode(format!("status {text:?}").into()))
}

impl FromRow<'_, sqlx::sqlite::SqliteRow> for StoredCommand {
    fn from_row(row: &sqlx::sqlite::SqliteRow) -> sqlx::Result<Self> {
        let outcome: Option<&str> = row.try_get("outcome")?;
        let outcome: OutcomeJson = outcome.map(json).transpose()?.unwrap_or_default();
        let finished_at: Option<i64> = row.try_get("finished_at")?;
        let follow_until: Option<i64> = row.try_get("follow_until")?;
        let queued_until: Option<i64> = row.try_get("queued_until")?;
        let part_of: Option<&str> = row.try_get("part_of")?;
        let pm2_home: Option<&str> = row.try_get("pm2_home")?;
        Ok(Self {
            seq: row.try_get("seq")?,
            server: parsed(row.try_get("server")?)?,
            record: CommandRecord {
                id: parsed(row.try_get("id")?)?,
                target: json(row.try_get("target")?)?,
                action: parsed(row.try_get("action")?)?,
                pm2_home: pm2_home.map(SmolStr::from),
                status: status_of(row.try_get("status")?)?,
                requested_by: row.try_get("requested_by")?,
                requested_at: Time::from_millis(row.try_get("requested_at")?),
                finished_at: finished_at.map(Time::from_millis),
                error: row.try_get("error")?,
                reply: outcome.reply,
                outcomes: outcome.outcomes,
                before: outcome.before,
                after: outcome.after,
            },
            requested_from: row.try_get("requested_from")?,
            summary: row.try_get("summary")?,
            problem: row.try_get("problem")?,
            body_hash: row.try_get("body_hash")?,
            follow_until: follow_until.map(Time::from_millis),
            queued_until: queued_until.map(Time::from_millis),
            body: row.try_get("body")?,
            token: row.try_get("token")?,
            part_of: part_of.map(parsed).transpose()?,
        })
    }
}

impl Store {
    /// Puts a command on record, on the disk when this returns.
    ///
    /// # Errors
    /// It is not on record: it must not be sent.
    pub async fn insert_command(&self, command: NewCommand) -> Result<Inserted> {
        self.writer.run(move |writing| Box::pin(insert(writing, command))).await
    }

    /// Closes a command that ended. One that is closed already stays as it is. A loss of power may
    /// open it again: then its exporter is asked once more what became of it.
    ///
    /// # Errors
    /// The write failed.
    pub async fn finish_command(&self, command: Arc<StoredCommand>) -> Result<()> {
        self.writer.run_relaxed(move |writing| Box::pin(finish(writing, command))).await
    }

    /// One command.
    ///
    /// # Errors
    /// The read failed.
    pub async fn command(&self, id: &CommandId) -> Result<Option<StoredCommand>> {
        #[cfg(test)]
        let _holding = crate::simulation::world::hold();
        let mut sql = QueryBuilder::new(COLUMNS);
        sql.push(" WHERE id = ").push_bind(id.as_str());
        Ok(sql.build_query_as().fetch_optional(&self.readers).await?)
    }

    /// Every command that is not closed.
    ///
    /// # Errors
    /// The read failed.
    pub async fn open_commands(&self) -> Result<Vec<StoredCommand>> {
        let mut sql = QueryBuilder::new(COLUMNS);
        sql.push(" WHERE status IN ('queued', 'running') ORDER BY seq");
        Ok(sql.build_query_as().fetch_all(&self.readers).await?)
    }
}

async fn insert(writing: &mut Writing, command: NewCommand) -> Result<Inserted> {
    if let (Some(token), Some(key)) = (command.token, &command.idempotency_key)
        && let Some(before) = keys::find(&mut writing.connection, token, key).await?
    {
        return Ok(Inserted::Before(before));
    }
    let arguments = row(&command)?;
    let outcome = match command.status {
        CommandStatus::Refused => "refused",
        CommandStatus::Queued => "queued",
        _ => "requested",
    };
    let audited = NewAudit {
        who: command.requested_by,
        via: command.requested_via,
        address: command.requested_from,
        act: "command",
        outcome: outcome.to_owned(),
        server: Some(command.server.to_string()),
        subject: format!("{} {}", command.action, command.target),
        detail: command.refusal.map(|(_, error)| error).or(command.summary),
        command: Some(command.id.to_string()),
        ..NewAudit::default()
    };
    audit::insert_with(writing, INSERT, arguments, audited).await?;
    Ok(Inserted::New)
}

const INSERT: &str = "INSERT INTO commands (id, server, target, app, action, status, requested_by, \
     token, requested_from, requested_at, finished_at, problem, error, idempotency_key, summary, \
     body_hash, follow_until, queued_until, body, part_of, pm2_home) \
     VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";

/// The command alone, without a line in the audit.
pub(super) async fn insert_row(
    connection: &mut SqliteConnection,
    command: &NewCommand,
) -> Result<()> {
    sqlx::query_with(INSERT, row(command)?).execute(connection).await?;
    Ok(())
}

/// The arguments of [`INSERT`].
fn row(command: &NewCommand) -> Result<SqliteArguments> {
    let target = target_json(&command.target)?;
    let app = match &command.target {
        Target::App(name) => Some(name.as_str()),
        Target::Slot(_) => None,
    };
    let finished_at = command.status.is_final().then_some(command.requested_at.as_millis());
    let (problem, error) = command.refusal.as_ref().map(|(word, error)| (word, error)).unzip();
    let mut arguments = SqliteArguments::default();
    let bound = || {
        arguments.add(command.id.as_str())?;
        arguments.add(command.server.as_str())?;
        arguments.add(target)?;
        arguments.add(app)?;
        arguments.add(command.action.as_str())?;
        arguments.add(command.status.as_str())?;
        arguments.add(&command.requested_by)?;
        arguments.add(command.token)?;
        arguments.add(&command.requested_from)?;
        arguments.add(command.requested_at.as_millis())?;
        arguments.add(finished_at)?;
        arguments.add(problem)?;
        arguments.add(error)?;
        arguments.add(&command.idempotency_key)?;
        arguments.add(&command.summary)?;
        arguments.add(&command.body_hash)?;
        arguments.add(command.follow_until.map(Time::as_millis))?;
        arguments.add(command.queued_until.map(Time::as_millis))?;
        arguments.add(&command.body)?;
        arguments.add(command.part_of.as_ref().map(|id| id.as_str()))?;
        arguments.add(command.pm2_home.as_deref())
    };
    bound().map_err(|error| failed(&error))?;
    Ok(arguments)
}

pub(super) fn target_json(target: &Target) -> Result<String> {
    serde_json::to_string(target).map_err(|error| failed(&error))
}

const FINISH: &str = "UPDATE commands SET status = ?, finished_at = ?, problem = ?, error = ?, \
     outcome = ?, body = NULL WHERE id = ? AND status IN ('queued', 'running')";

async fn finish(writing: &mut Writing, command: Arc<StoredCommand>) -> Result<()> {
    let StoredCommand { server, record, requested_from, problem, .. } = &*command;
    let json = serde_json::to_string(&OutcomeJson {
        reply: record.reply.clone(),
        outcomes: record.outcomes.clone(),
        before: record.before.clone(),
        after: record.after.clone(),
    });
    let json = json.map_err(|error| failed(&error))?;
    let mut arguments = SqliteArguments::default();
    let bound = || {
        arguments.add(record.status.as_str())?;
        arguments.add(record.finished_at.map(Time::as_millis))?;
        arguments.add(problem)?;
        arguments.add(&record.error)?;
        arguments.add(json)?;
        arguments.add(record.id.as_str())
    };
    bound().map_err(|error| failed(&error))?;
    let audited = NewAudit {
        who: record.requested_by.clone(),
        address: requested_from.clone(),
        act: "command",
        outcome: record.status.as_str().to_owned(),
        server: Some(server.to_string()),
        subject: format!("{} {}", record.action, record.target),
        detail: record.error.clone(),
        command: Some(record.id.to_string()),
        ..NewAudit::default()
    };
    audit::insert_with(writing, FINISH, arguments, audited).await?;
    Ok(())
}

fn failed(error: &dyn std::fmt::Display) -> StoreError {
    StoreError::Failed(error.to_string())
}
