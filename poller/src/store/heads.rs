//! How far each server is taken in, and in which recent rows its samples stand. Kept in memory,
//! since every poll needs it; the database has all of it, in the recent rows and in `servers`.
//! Only the writer changes it, and only after a commit: what is read here is always on the disk.

use std::collections::HashMap;

use futures_util::TryStreamExt;
use sqlx::sqlite::SqliteConnection;
use wire::{ServerId, Time};

use super::Result;
use super::ingest::Cursor;
use super::recent;

/// What is known of one server.
#[derive(Clone, Debug, Default)]
pub(super) struct Head {
    pub(super) id: i64,
    pub(super) cursor: Cursor,
    /// Counts the epochs, so that a record needs a byte for it and not a name.
    pub(super) epoch: u64,
    pub(super) last_success: Option<Time>,
    pub(super) online: Option<bool>,
    /// Recent rows that have samples of it and are not folded, rising.
    pub(super) rows: Vec<i64>,
    /// When the oldest of them was taken in; in milliseconds.
    pub(super) oldest: i64,
    /// Recent rows up to this one are folded.
    pub(super) folded: i64,
    /// The recent row with its newest record, and the newest that `servers` knows of: a row may
    /// go only when its cursor is there.
    pub(super) last: i64,
    pub(super) saved: i64,
}

/// All servers ever polled.
#[derive(Debug, Default)]
pub(super) struct Heads {
    pub(super) servers: HashMap<ServerId, Head>,
    /// The number that the next recent row gets. Never one that was used before: `folded` must
    /// not cover what is new.
    pub(super) next_row: i64,
}

impl Heads {
    /// # Errors
    /// The read failed.
    pub(super) async fn read(connection: &mut SqliteConnection) -> Result<Self> {
        type Row = (i64, String, String, i64, i64, Option<i64>, Option<bool>, i64);
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT id, server, epoch, epoch_number, after, last_success, online, folded \
             FROM servers",
        )
        .fetch_all(&mut *connection)
        .await?;
        let mut next_row = 0;
        let mut by_id: HashMap<i64, (String, Head)> = HashMap::with_capacity(rows.len());
        for (id, server, epoch, number, after, last_success, online, folded) in rows {
            next_row = next_row.max(folded);
            let head = Head {
                id,
                cursor: Cursor { epoch: epoch.into(), after: after.unsigned_abs() },
                epoch: number.unsigned_abs(),
                last_success: last_success.map(Time::from_millis),
                online,
                folded,
                ..Head::default()
            };
            by_id.insert(id, (server, head));
        }
        let mut rows =
            sqlx::query_as::<_, (i64, Vec<u8>)>("SELECT id, data FROM recent ORDER BY id")
                .fetch(connection);
        while let Some((row, data)) = rows.try_next().await? {
            next_row = next_row.max(row);
            for record in recent::records(&data) {
                let Some((_, head)) = by_id.get_mut(&record.server) else { continue };
                head.take(row, &record);
            }
        }
        let servers = by_id.into_values();
        let servers = servers.filter_map(|(server, head)| Some((server.parse().ok()?, head)));
        Ok(Self { servers: servers.collect(), next_row: next_row + 1 })
    }
}

impl Head {
    fn take(&mut self, row: i64, record: &recent::Record<'_>) {
        if record.epoch == self.epoch {
            self.cursor.after = self.cursor.after.max(record.after);
        }
        self.last = row;
        let answered = Time::from_millis(record.answered.cast_signed());
        if record.answered > 0 {
            self.last_success = self.last_success.max(Some(answered));
        }
        if record.samples > 0 && row > self.folded {
            self.add(row, answered.as_millis());
        }
    }

    /// A recent row that has samples of it.
    pub(super) fn add(&mut self, row: i64, taken: i64) {
        if self.rows.is_empty() {
            self.oldest = taken;
        }
        if self.rows.last() != Some(&row) {
            self.rows.push(row);
        }
    }
}
