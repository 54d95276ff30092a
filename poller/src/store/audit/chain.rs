//! The chain that the audit is. A row's hash is the SHA-256 of
//!
//! - the text `pm2-poller audit 1` and a line feed,
//! - the hash of the row before it, or of the anchor, 32 bytes,
//! - its number and its time in milliseconds, 8 bytes each,
//! - who, address, act, outcome, server, subject, detail, command, via: a byte 1, the length in
//!   8 bytes and the text; or a byte 0 where there is none,
//! - its repeats: a byte 1 and 8 bytes, or a byte 0.
//!
//! Numbers are big-endian. Retention takes rows away from the old end only and leaves the last
//! one's hash as the anchor, so that the rest can still be followed from it. What was changed,
//! taken out or cut off shows; that somebody who may write the file makes a whole new chain does
//! not, unless the newest hash was noted elsewhere.

use sha2::{Digest, Sha256};
use sqlx::sqlite::SqliteConnection;
use sqlx::{ConnectOptions, Connection, query, query_as};
use wire::Time;

use super::{AuditRow, COLUMNS};
use crate::store::{Result, Store, StoreError, open};

/// Rows looked at or sealed at a time.
const STEP: i64 = 1000;
const SEED: &[u8] = b"pm2-poller audit 1\n";

/// What a row says, as it is hashed.
pub(super) struct Said<'a> {
    pub(super) id: i64,
    pub(super) time: i64,
    /// In the order of the module's list.
    pub(super) texts: [Option<&'a str>; 9],
    pub(super) repeats: Option<i64>,
}

/// The hash of a row that follows one with the hash `before`.
pub(super) fn hash(before: &[u8; 32], row: &Said) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(SEED);
    hash.update(before);
    hash.update(row.id.to_be_bytes());
    hash.update(row.time.to_be_bytes());
    for text in row.texts {
        match text {
            None => hash.update([0]),
            Some(text) => {
                hash.update([1]);
                hash.update((text.len() as u64).to_be_bytes());
                hash.update(text);
            }
        }
    }
    match row.repeats {
        None => hash.update([0]),
        Some(repeats) => {
            hash.update([1]);
            hash.update(repeats.to_be_bytes());
        }
    }
    hash.finalize().into()
}

/// Where the chain ends.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct End {
    /// Hash of the newest row.
    pub(super) hash: [u8; 32],
    /// Number of the next.
    pub(super) next: i64,
}

impl End {
    pub(super) async fn read(connection: &mut SqliteConnection) -> Result<Self> {
        let (hash, next): (Vec<u8>, i64) = query_as(
            "SELECT coalesce((SELECT hash FROM audit ORDER BY id DESC LIMIT 1), \
                             (SELECT hash FROM audit_anchor)), \
                    1 + max(coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'audit'), 0), \
                            (SELECT id FROM audit_anchor))",
        )
        .fetch_one(connection)
        .await?;
        Ok(Self { hash: bytes(hash)?, next })
    }
}

fn bytes(hash: Vec<u8>) -> Result<[u8; 32]> {
    hash.try_into().map_err(|_| StoreError::Corrupt("audit: a hash is not 32 bytes".to_owned()))
}

type Unsealed = (
    i64,
    i64,
    String,
    String,
    String,
    String,
    Option<String>,
    String,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<i64>,
);

/// Whether no row is without a hash.
///
/// # Errors
/// The read failed.
pub(in crate::store) async fn is_sealed(connection: &mut SqliteConnection) -> Result<bool> {
    let sealed = sqlx::query_scalar("SELECT sealed FROM audit_anchor");
    Ok(sealed.fetch_one(connection).await?)
}

/// Gives their hashes to rows that have none: those of an earlier version, or taken over from
/// a database that was damaged.
///
/// # Errors
/// The write failed; nothing is changed.
pub(in crate::store) async fn seal(connection: &mut SqliteConnection) -> Result<()> {
    if is_sealed(connection).await? {
        return Ok(());
    }
    let mut transaction = connection.begin().await?;
    let (mut after, before): (i64, Vec<u8>) =
        query_as("SELECT id, hash FROM audit_anchor").fetch_one(&mut *transaction).await?;
    let mut before = bytes(before)?;
    loop {
        let rows: Vec<(Option<Vec<u8>>, i64)> =
            query_as("SELECT hash, id FROM audit WHERE id > ? ORDER BY id LIMIT ?")
                .bind(after)
                .bind(STEP)
                .fetch_all(&mut *transaction)
                .await?;
        let Some((_, last)) = rows.last() else { break };
        after = *last;
        for (known, id) in rows {
            before = match known {
                Some(known) => bytes(known)?,
                None => give(&mut transaction, id, &before).await?,
            };
        }
    }
    query("UPDATE audit_anchor SET sealed = 1").execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(())
}

async fn give(connection: &mut SqliteConnection, id: i64, before: &[u8; 32]) -> Result<[u8; 32]> {
    let (id, time, who, address, act, outcome, server, subject, detail, command, via, repeats): Unsealed =
        query_as(
            "SELECT id, time, who, address, act, outcome, server, subject, detail, command, via, \
             repeats FROM audit WHERE id = ?",
        )
        .bind(id)
        .fetch_one(&mut *connection)
        .await?;
    let texts = [
        Some(who.as_str()),
        Some(&address),
        Some(&act),
        Some(&outcome),
        server.as_deref(),
        Some(&subject),
        detail.as_deref(),
        command.as_deref(),
        via.as_deref(),
    ];
    let hash = hash(before, &Said { id, time, texts, repeats });
    query("UPDATE audit SET hash = ? WHERE id = ?")
        .bind(hash.as_slice())
        .bind(id)
        .execute(connection)
        .await?;
    Ok(hash)
}

/// Takes away at most `most` rows from the old end that are older than `moment`; the last of
/// them becomes the anchor. How many.
pub(in crate::store) async fn cut(
    connection: &mut SqliteConnection,
    moment: Time,
    most: i64,
) -> Result<u64> {
    let rows: Vec<(i64, i64, Vec<u8>)> =
        query_as("SELECT id, time, hash FROM audit ORDER BY id LIMIT ?")
            .bind(most)
            .fetch_all(&mut *connection)
            .await?;
    // A clock that was set back makes no hole: only a beginning goes.
    let old = rows.into_iter().take_while(|(_, time, _)| *time < moment.as_millis());
    let Some((last, _, hash)) = old.last() else { return Ok(0) };
    let done =
        query("DELETE FROM audit WHERE id <= ?").bind(last).execute(&mut *connection).await?;
    query("UPDATE audit_anchor SET id = ?, hash = ?")
        .bind(last)
        .bind(hash)
        .execute(connection)
        .await?;
    Ok(done.rows_affected())
}

/// What following the whole chain found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditCheck {
    /// Rows that are as they were written, from the oldest on.
    pub sound: u64,
    /// Number and hash of the last of them; of the anchor where there is none.
    pub last: (i64, String),
    /// What is wrong with the next one: where the first change shows.
    pub fault: Option<String>,
}

impl Store {
    /// Follows the audit from its oldest row to its newest.
    ///
    /// # Errors
    /// A read failed.
    pub async fn check_audit(&self) -> Result<AuditCheck> {
        // A reader of its own, for years of rows take longer than others may.
        let mut reader = open::options(&self.path).read_only(true).connect().await?;
        // One look for all of it: retention must not cut the beginning off meanwhile.
        let mut look = reader.begin().await?;
        let (mut last, before): (i64, Vec<u8>) =
            query_as("SELECT id, hash FROM audit_anchor").fetch_one(&mut *look).await?;
        let mut before = bytes(before)?;
        let mut sound = 0;
        let fault = 'all: loop {
            let rows: Vec<AuditRow> = query_as(sqlx::AssertSqlSafe(format!(
                "{COLUMNS} WHERE id > ? ORDER BY id LIMIT ?"
            )))
            .bind(last)
            .bind(STEP)
            .fetch_all(&mut *look)
            .await?;
            if rows.is_empty() {
                break None;
            }
            for row in rows {
                let good = row.hash_after(&before);
                if good != row.hash.0 {
                    break 'all Some(match row.id - last {
                        1 => format!("row {} was changed", row.id),
                        2 => format!("row {} is missing", last + 1),
                        _ => format!("rows {} to {} are missing", last + 1, row.id - 1),
                    });
                }
                (last, before) = (row.id, row.hash.0);
                sound += 1;
            }
        };
        let newest: i64 = sqlx::query_scalar(
            "SELECT max(coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'audit'), 0), \
             (SELECT id FROM audit_anchor))",
        )
        .fetch_one(&mut *look)
        .await?;
        let cut = || match newest - last {
            ..=0 => None,
            1 => Some(format!("the newest row, {newest}, is missing")),
            _ => Some(format!("the newest rows, {} to {newest}, are missing", last + 1)),
        };
        let fault = fault.or_else(cut);
        let last = (last, super::RowHash(before).to_string());
        Ok(AuditCheck { sound, last, fault })
    }
}
