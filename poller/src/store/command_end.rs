//! What became of commands that nobody answered for: an exporter's journal outlives a cut line, and
//! an event in it tells how a command ended.

use sqlx::{AssertSqlSafe, query_as, query_scalar};
use wire::{CommandId, CommandStatus, ServerId, Time};

use super::events::{StoredEvent, stored};
use super::queue::note;
use super::{Result, Store};

/// The events that tell how commands ended which are closed as unknown, each of its own server.
/// Both sides are found by an index of what there is of them alone, and so are few. Without the `+`
/// the id has the affinity of its column, which what is extracted has not, and no index helps.
const TOLD: &str = "SELECT events.id, servers.server, events.time, events.event \
     FROM commands \
     CROSS JOIN events INDEXED BY events_ends ON json_extract(events.event, '$.details.command_id') = +commands.id \
       AND json_extract(events.event, '$.details.outcome') IS NOT NULL \
     CROSS JOIN servers ON servers.id = events.server AND servers.server = commands.server \
     WHERE commands.status = 'unknown' \
       AND json_extract(events.event, '$.details.outcome') IN ('succeeded', 'failed')";

/// How a command ended, as it is learnt afterwards.
#[derive(Clone, Debug)]
pub struct CommandEnd {
    /// The command.
    pub id: CommandId,
    /// Its server: no other can tell.
    pub server: ServerId,
    /// [`CommandStatus::Succeeded`] or [`CommandStatus::Failed`].
    pub status: CommandStatus,
    /// When.
    pub finished_at: Time,
    /// What went wrong: a word, and the same for people.
    pub problem: Option<&'static str>,
    /// See there.
    pub error: Option<String>,
    /// The number of the event that tells.
    pub event: i64,
}

impl Store {
    /// The events that tell how commands ended which are closed as unknown: this one, or any. In the
    /// order in which they were stored, at most `limit`.
    ///
    /// # Errors
    /// The read failed.
    pub async fn told_ends(&self, id: Option<&CommandId>, limit: u32) -> Result<Vec<StoredEvent>> {
        let one = if id.is_some() { " AND commands.id = ?2" } else { "" };
        let sql = format!("{TOLD}{one} ORDER BY events.id LIMIT ?1");
        let mut query = query_as(AssertSqlSafe(sql)).bind(limit);
        if let Some(id) = id {
            query = query.bind(id.as_str());
        }
        #[cfg(test)]
        let _holding = crate::simulation::world::hold();
        let rows: Vec<(i64, String, i64, String)> = query.fetch_all(&self.readers).await?;
        rows.into_iter().map(stored).collect()
    }

    /// Whether a command is closed as unknown.
    ///
    /// # Errors
    /// The read failed.
    pub async fn is_unknown(&self, id: &CommandId) -> Result<bool> {
        #[cfg(test)]
        let _holding = crate::simulation::world::hold();
        let found: Option<i64> =
            query_scalar("SELECT 1 FROM commands WHERE id = ? AND status = 'unknown'")
                .bind(id.as_str())
                .fetch_optional(&self.readers)
                .await?;
        Ok(found.is_some())
    }

    /// Closes a command anew that is closed as unknown; it is in the audit. Gives whether it was.
    ///
    /// # Errors
    /// The write failed.
    pub async fn end_unknown(&self, end: CommandEnd) -> Result<bool> {
        self.writer
            .run(move |writing| {
                Box::pin(async move {
                    let row = query_as(
                        "UPDATE commands SET status = ?, finished_at = ?, problem = ?, error = ? \
                         WHERE id = ? AND server = ? AND status = 'unknown' \
                         RETURNING requested_by, requested_from, server, action, target",
                    )
                    .bind(end.status.as_str())
                    .bind(end.finished_at.as_millis())
                    .bind(end.problem)
                    .bind(&end.error)
                    .bind(end.id.as_str())
                    .bind(end.server.as_str())
                    .fetch_optional(&mut writing.connection)
                    .await?;
                    let Some(row) = row else { return Ok(false) };
                    let told = Some(format!("told by event {}", end.event));
                    note(writing, &end.id, row, end.status.as_str(), None, told).await?;
                    Ok(true)
                })
            })
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ends_are_found_by_an_index_however_many_events_there_are() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("test.db")).await.unwrap();
        for one in ["", " AND commands.id = 'c1'"] {
            let sql = format!("EXPLAIN QUERY PLAN {TOLD}{one} ORDER BY events.id LIMIT 10");
            let plan: Vec<(i64, i64, i64, String)> =
                query_as(AssertSqlSafe(sql)).fetch_all(&store.readers).await.unwrap();
            let steps: Vec<&str> = plan.iter().map(|(.., step)| step.as_str()).collect();
            let events = steps.iter().find(|step| step.contains("events")).unwrap();
            assert!(events.contains("USING INDEX events_ends (<expr>=?)"), "{steps:?}");
            assert!(!steps[0].ends_with("SCAN commands"), "{steps:?}");
        }
    }
}
