//! Commands that wait for their server: each step is on the disk before anything follows from it.

use sqlx::query_as;
use wire::{CommandId, ServerId, Target, Time};

use super::audit::{self, NewAudit};
use super::writer::Writing;
use super::{Result, Store};

/// Who cancels.
#[derive(Clone, Debug)]
pub struct Canceller {
    /// Name of their token.
    pub who: String,
    /// By what they are known, for the audit: `token`, `session`, ….
    pub via: Option<&'static str>,
    /// From which address.
    pub address: String,
}

/// Who asked, from where; server, action, target.
pub(super) type Row = (String, String, String, String, String);

impl Store {
    /// A queued command is about to be sent, and followed until then. `false` when it is queued no
    /// more: it must not be sent.
    ///
    /// # Errors
    /// It is not on record: it must not be sent.
    pub async fn begin_command(&self, id: CommandId, follow_until: Time) -> Result<bool> {
        self.pass(id, ["queued", "running"], follow_until, "requested", None).await
    }

    /// A command that was about to be sent was not, or was not taken, and waits again; how long it
    /// may be followed is told from the end of its time in the queue again.
    ///
    /// # Errors
    /// The write failed.
    pub async fn requeue_command(
        &self,
        id: CommandId,
        follow_until: Time,
        why: String,
    ) -> Result<bool> {
        self.pass(id, ["running", "queued"], follow_until, "queued", Some(why)).await
    }

    /// From one status to another, with a row of the audit; `false` when it has not the first.
    async fn pass(
        &self,
        id: CommandId,
        [from, to]: [&'static str; 2],
        follow_until: Time,
        outcome: &'static str,
        why: Option<String>,
    ) -> Result<bool> {
        self.writer
            .run(move |writing| {
                Box::pin(async move {
                    let connection = &mut writing.connection;
                    let row: Option<Row> = query_as(
                        "UPDATE commands SET status = ?, follow_until = ? \
                         WHERE id = ? AND status = ? \
                         RETURNING requested_by, requested_from, server, action, target",
                    )
                    .bind(to)
                    .bind(follow_until.as_millis())
                    .bind(id.as_str())
                    .bind(from)
                    .fetch_optional(&mut *connection)
                    .await?;
                    let Some(row) = row else { return Ok(false) };
                    note(writing, &id, row, outcome, None, why).await?;
                    Ok(true)
                })
            })
            .await
    }

    /// Cancels a command that is queued; `false` when it is not, and nothing is changed.
    ///
    /// # Errors
    /// The write failed.
    pub async fn cancel_command(&self, id: CommandId, by: Canceller) -> Result<bool> {
        self.writer
            .run(move |writing| {
                Box::pin(async move {
                    let connection = &mut writing.connection;
                    let row: Option<Row> = query_as(
                        "UPDATE commands SET status = 'cancelled', finished_at = ?, body = NULL, \
                         problem = 'cancelled', error = ? \
                         WHERE id = ? AND status = 'queued' \
                         RETURNING requested_by, requested_from, server, action, target",
                    )
                    .bind(Time::now().as_millis())
                    .bind(format!("cancelled by {}", by.who))
                    .bind(id.as_str())
                    .fetch_optional(&mut *connection)
                    .await?;
                    let Some((_, _, server, action, target)) = row else { return Ok(false) };
                    let row = (by.who, by.address, server, action, target);
                    note(writing, &id, row, "cancelled", by.via, None).await?;
                    Ok(true)
                })
            })
            .await
    }
}

/// Cancels what waits for a server that is taken away: another may have its name next.
pub(super) async fn cancel_waiting(writing: &mut Writing, server: &ServerId) -> Result<()> {
    let words = format!("{server} was taken away");
    let rows: Vec<(String, String, String, String, String)> = query_as(
        "UPDATE commands SET status = 'cancelled', finished_at = ?, body = NULL, \
         problem = 'unknown_server', error = ? \
         WHERE server = ? AND status = 'queued' AND part_of IS NULL \
         RETURNING id, requested_by, requested_from, action, target",
    )
    .bind(Time::now().as_millis())
    .bind(&words)
    .bind(server.as_str())
    .fetch_all(&mut writing.connection)
    .await?;
    for (id, who, address, action, target) in rows {
        let id: CommandId = super::commands::parsed(&id)?;
        let row = (who, address, server.to_string(), action, target);
        note(writing, &id, row, "cancelled", None, Some(words.clone())).await?;
    }
    Ok(())
}

/// Writes down in the audit what became of a command.
pub(super) async fn note(
    writing: &mut Writing,
    id: &CommandId,
    (who, address, server, action, target): Row,
    outcome: &str,
    via: Option<&'static str>,
    detail: Option<String>,
) -> Result<()> {
    let target =
        serde_json::from_str::<Target>(&target).map_or(target, |target| target.to_string());
    let row = NewAudit {
        who,
        via,
        address,
        act: "command",
        outcome: outcome.to_owned(),
        server: Some(server),
        subject: format!("{action} {target}"),
        detail,
        command: Some(id.to_string()),
        ..NewAudit::default()
    };
    audit::insert(writing, row).await
}
