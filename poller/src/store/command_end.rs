//! What became of commands that nobody answered for: an exporter's journal outlives a cut line, and
//! an event in it tells how a command ended.

use sqlx::{query_as, query_scalar};
use wire::{CommandId, CommandStatus, Severity, Time};

use super::commands::parsed;
use super::events::{StoredEvent, stored};
use super::queue::note;
use super::{Result, Store};

/// Most that is kept of what an event says, in characters.
const MAX_WORDS: usize = 1000;
/// Most commands that are looked at after a while in which nobody listened.
const MOST: i64 = 200;

impl Store {
    /// Commands closed as unknown that were asked for since a moment, the latest two hundred.
    ///
    /// # Errors
    /// The read failed.
    pub async fn unknown_commands(&self, since: Time) -> Result<Vec<CommandId>> {
        let ids: Vec<String> = query_scalar(
            "SELECT id FROM commands WHERE requested_at >= ? AND status = 'unknown' \
             ORDER BY requested_at DESC LIMIT ?",
        )
        .bind(since.as_millis())
        .bind(MOST)
        .fetch_all(&self.readers)
        .await?;
        Ok(ids.iter().map(|id| parsed(id)).collect::<sqlx::Result<_>>()?)
    }

    /// The event of its server that tells how a command ended which is closed as unknown.
    /// `within` is how far its time may be before that of the command: clocks differ.
    ///
    /// # Errors
    /// The read failed.
    pub async fn told_end(&self, id: &CommandId, within: i64) -> Result<Option<StoredEvent>> {
        let row: Option<(i64, String, i64, String)> = query_as(
            "SELECT events.id, servers.server, events.time, events.event \
             FROM commands \
             JOIN servers ON servers.server = commands.server \
             JOIN events ON events.server = servers.id \
               AND events.time >= commands.requested_at - ? \
             WHERE commands.id = ? AND commands.status = 'unknown' \
               AND events.event ->> '$.details.command_id' = commands.id \
               AND events.event ->> '$.details.outcome' IN ('succeeded', 'failed') \
             ORDER BY events.time DESC, events.id DESC LIMIT 1",
        )
        .bind(within)
        .bind(id.as_str())
        .fetch_optional(&self.readers)
        .await?;
        row.map(stored).transpose()
    }

    /// Whether a command is closed as unknown.
    ///
    /// # Errors
    /// The read failed.
    pub async fn is_unknown(&self, id: &CommandId) -> Result<bool> {
        let found: Option<i64> =
            query_scalar("SELECT 1 FROM commands WHERE id = ? AND status = 'unknown'")
                .bind(id.as_str())
                .fetch_optional(&self.readers)
                .await?;
        Ok(found.is_some())
    }

    /// Closes a command anew that is closed as unknown, as an event of its own server tells; it is
    /// in the audit. Gives whether it was.
    ///
    /// # Errors
    /// The write failed.
    pub async fn end_as_told(&self, event: StoredEvent) -> Result<bool> {
        let Some((id, status)) = event.event.end() else { return Ok(false) };
        let said = event.event.message;
        // One that succeeded in part says so.
        let is_all = status == CommandStatus::Succeeded && event.event.severity == Severity::Info;
        let error = (!is_all).then(|| said.chars().take(MAX_WORDS).collect::<String>());
        let (server, time) = (event.server, event.time);
        self.writer
            .run(move |writing| {
                Box::pin(async move {
                    let row = query_as(
                        "UPDATE commands SET status = ?, finished_at = max(?, requested_at), \
                         problem = NULL, error = ? \
                         WHERE id = ? AND server = ? AND status = 'unknown' \
                         RETURNING requested_by, requested_from, server, action, target",
                    )
                    .bind(status.as_str())
                    .bind(time.as_millis())
                    .bind(&error)
                    .bind(id.as_str())
                    .bind(server.as_str())
                    .fetch_optional(&mut writing.connection)
                    .await?;
                    let Some(row) = row else { return Ok(false) };
                    let detail = format!("told by an event of {time}: {said}");
                    let detail = Some(detail.chars().take(MAX_WORDS).collect());
                    note(writing, &id, row, status.as_str(), None, detail).await?;
                    Ok(true)
                })
            })
            .await
    }
}
