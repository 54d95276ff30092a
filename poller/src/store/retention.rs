//! Taking away what is old enough, a little at a time, so that writing is never held up long.

use sqlx::query;
use wire::Time;

use super::{Result, Store};

/// Most rows of one kind that one step takes away.
const STEP: i64 = 500;

/// What one step of retention took away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Samples.
    pub samples: u64,
    /// Events.
    pub events: u64,
    /// Commands and audit rows.
    pub commands: u64,
    /// Names that no sample can refer to any more.
    pub names: u64,
}

impl Removed {
    /// Whether there may be more to take away at once.
    pub fn may_be_more(&self) -> bool {
        let full = STEP.unsigned_abs();
        self.samples >= full || self.events >= full || self.commands >= full || self.names >= full
    }
}

impl Store {
    /// One step: at most 500 samples of each server, events, commands and names that are older
    /// than these moments.
    ///
    /// # Errors
    /// The write failed; nothing was taken away.
    pub async fn retain(&self, samples: Time, events: Time, commands: Time) -> Result<Removed> {
        let servers: Vec<i64> =
            sqlx::query_scalar("SELECT id FROM servers").fetch_all(&self.readers).await?;
        let mut removed = Removed::default();
        for server in servers {
            removed.samples = removed.samples.max(self.retain_samples(server, samples).await?);
        }
        let rest = self.writer.run(move |writing| {
            Box::pin(async move {
                let connection = &mut writing.connection;
                let mut delete = async |sql: &'static str, before: Time| -> Result<u64> {
                    let done = query(sql)
                        .bind(before.as_millis())
                        .bind(STEP)
                        .execute(&mut *connection)
                        .await?;
                    Ok(done.rows_affected())
                };
                let events = delete(
                    "DELETE FROM events WHERE id IN \
                     (SELECT id FROM events WHERE time < ? ORDER BY time LIMIT ?)",
                    events,
                )
                .await?;
                let done = delete(
                    "DELETE FROM commands WHERE seq IN (SELECT seq FROM commands \
                     WHERE requested_at < ? AND status NOT IN ('queued', 'running') \
                     ORDER BY requested_at LIMIT ?)",
                    commands,
                )
                .await?;
                let audit = delete(
                    "DELETE FROM audit WHERE id IN \
                     (SELECT id FROM audit WHERE time < ? ORDER BY time LIMIT ?)",
                    commands,
                )
                .await?;
                // last_seen is up to an hour behind; two hours more keep every number that a
                // sample still has.
                let unseen = samples.plus_millis(-2 * 3_600_000);
                let instances = delete(
                    "DELETE FROM instances WHERE id IN \
                     (SELECT id FROM instances WHERE last_seen < ? LIMIT ?)",
                    unseen,
                )
                .await?;
                let metrics = delete(
                    "DELETE FROM metrics WHERE id IN \
                     (SELECT id FROM metrics WHERE last_seen < ? LIMIT ?)",
                    unseen,
                )
                .await?;
                if instances + metrics > 0 {
                    writing.names.clear();
                }
                let commands = done.max(audit);
                let names = instances.max(metrics);
                Ok(Removed { samples: 0, events, commands, names })
            })
        });
        Ok(Removed { samples: removed.samples, ..rest.await? })
    }

    async fn retain_samples(&self, server: i64, before: Time) -> Result<u64> {
        // Looked up by a reader first: for most servers nothing is due at most times.
        let due: Option<i64> =
            sqlx::query_scalar("SELECT 1 FROM samples WHERE server = ? AND time < ? LIMIT 1")
                .bind(server)
                .bind(before.as_millis())
                .fetch_optional(&self.readers)
                .await?;
        if due.is_none() {
            return Ok(0);
        }
        self.writer
            .run(move |writing| {
                Box::pin(async move {
                    let done = query(
                        "DELETE FROM samples WHERE server = ?1 AND (time, seq) IN \
                         (SELECT time, seq FROM samples WHERE server = ?1 AND time < ?2 \
                          ORDER BY time, seq LIMIT ?3)",
                    )
                    .bind(server)
                    .bind(before.as_millis())
                    .bind(STEP)
                    .execute(&mut writing.connection)
                    .await?;
                    Ok(done.rows_affected())
                })
            })
            .await
    }
}
