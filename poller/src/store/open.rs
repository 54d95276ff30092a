//! Opening the file: ours or not, too new or not, up to date afterwards.

use std::path::Path;
use std::time::{Duration, Instant};

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection, SqlitePool};

use super::{READ_TIMEOUT, Result, StoreError};

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// "pm2p", in the header of the file.
const APPLICATION_ID: i64 = 0x706d_3270;

/// Readers at a time. Each has a thread of its own.
const READERS: u32 = 4;

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(READ_TIMEOUT)
        .foreign_keys(true)
        .disable_statement_logging()
}

pub(super) async fn open(path: &Path, create: bool) -> Result<(SqliteConnection, SqlitePool)> {
    let writer = writer(path, create).await.map_err(|error| error.opening(path))?;
    let readers = SqlitePoolOptions::new()
        .max_connections(READERS)
        .min_connections(1)
        .acquire_timeout(READ_TIMEOUT)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        .after_connect(|connection, _| Box::pin(limit_time(connection)))
        .before_acquire(|connection, _| {
            Box::pin(async move { limit_time(connection).await.map(|()| true) })
        })
        .connect_with(options(path).read_only(true))
        .await
        .map_err(|error| StoreError::from(error).opening(path))?;
    Ok((writer, readers))
}

/// A query that runs for longer is interrupted, so that no reader keeps the write-ahead log
/// from being folded into the file.
async fn limit_time(connection: &mut SqliteConnection) -> sqlx::Result<()> {
    let end = Instant::now() + READ_TIMEOUT;
    connection.lock_handle().await?.set_progress_handler(10_000, move || Instant::now() < end);
    Ok(())
}

async fn writer(path: &Path, create: bool) -> Result<SqliteConnection> {
    // Looked at before it is touched: opening in WAL mode alone would change another
    // program's file.
    if path.exists() {
        if !path.is_file() {
            return Err(failed("it is not a file"));
        }
        let mut look = options(path).connect().await?;
        let verdict = look_at(&mut look, path).await;
        look.close().await?;
        verdict?;
    } else if !create {
        return Err(failed("there is no such file"));
    }
    // FULL: a commit is on the disk before anything follows from it. What is commanded must
    // be on record first, and the writer commits many polls at once, so that one wait for the
    // disk is shared by all that came during the last one.
    let mut connection = options(path)
        .create_if_missing(create)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .pragma("journal_size_limit", "16777216")
        .connect()
        .await?;
    sqlx::query("PRAGMA application_id = 1886204528").execute(&mut connection).await?;
    MIGRATIONS.run_direct(None, &mut connection, false).await.map_err(|error| match error {
        MigrateError::VersionMissing(version) | MigrateError::VersionTooNew(version, _) => {
            StoreError::Newer { file: path.display().to_string(), version }
        }
        MigrateError::Execute(error) => error.into(),
        other => failed(&other.to_string()),
    })?;
    Ok(connection)
}

async fn look_at(connection: &mut SqliteConnection, path: &Path) -> Result<()> {
    let id: i64 = sqlx::query_scalar("PRAGMA application_id").fetch_one(&mut *connection).await?;
    if id == APPLICATION_ID {
        return Ok(());
    }
    let tables: i64 =
        sqlx::query_scalar("SELECT count(*) FROM sqlite_schema").fetch_one(connection).await?;
    if id == 0 && tables == 0 {
        return Ok(());
    }
    Err(StoreError::Foreign { file: path.display().to_string() })
}

fn failed(reason: &str) -> StoreError {
    StoreError::Failed(reason.to_owned())
}

pub(super) async fn integrity(path: &Path) -> Result<Vec<String>> {
    let mut connection =
        options(path).read_only(true).busy_timeout(Duration::from_secs(30)).connect().await?;
    let mut found: Vec<String> =
        sqlx::query_scalar("PRAGMA integrity_check").fetch_all(&mut connection).await?;
    found.retain(|line| line != "ok");
    let broken: Vec<(String,)> = sqlx::query_as("SELECT \"table\" FROM pragma_foreign_key_check")
        .fetch_all(&mut connection)
        .await?;
    found.extend(broken.into_iter().map(|(table,)| format!("{table}: a row refers to nothing")));
    connection.close().await?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Inserted, NewCommand, Store};

    /// A database that the first version left, with a command in it.
    #[tokio::test]
    async fn a_database_of_the_first_version_is_brought_up_to_date() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("test.db");
        let mut first = options(&path).create_if_missing(true).connect().await.unwrap();
        sqlx::query("PRAGMA application_id = 1886204528").execute(&mut first).await.unwrap();
        let migrator = Migrator::with_migrations(MIGRATIONS.migrations[..1].to_vec());
        migrator.run_direct(None, &mut first, false).await.unwrap();
        sqlx::query(
            "INSERT INTO commands (id, server, target, app, action, status, requested_by, token, \
             requested_from, requested_at, idempotency_key) VALUES ('a', 'vm1', \
             '{\"app\":\"api\"}', 'api', 'restart', 'running', 'ci', 1, '127.0.0.1', 0, 'k')",
        )
        .execute(&mut first)
        .await
        .unwrap();
        first.close().await.unwrap();

        let store = Store::open(&path).await.unwrap();
        let open = store.open_commands().await.unwrap();
        assert_eq!((open.len(), &open[0].body_hash, &open[0].summary), (1, &None, &None));
        let again = NewCommand {
            id: "b".parse().unwrap(),
            server: "vm1".parse().unwrap(),
            target: open[0].record.target.clone(),
            action: open[0].record.action,
            status: wire::CommandStatus::Running,
            requested_by: "ci".into(),
            token: Some(1),
            requested_from: "127.0.0.1".into(),
            requested_at: wire::Time::now(),
            refusal: None,
            idempotency_key: Some("k".into()),
            summary: Some("save: true".into()),
            body_hash: Some(vec![7; 32]),
            follow_until: None,
        };
        let inserted = store.insert_command(again.clone()).await.unwrap();
        assert!(matches!(inserted, Inserted::Before(_)));
        let other = NewCommand { idempotency_key: Some("l".into()), ..again };
        assert!(matches!(store.insert_command(other).await.unwrap(), Inserted::New));
        let stored = store.command(&"b".parse().unwrap()).await.unwrap().unwrap();
        assert_eq!(stored.body_hash, Some(vec![7; 32]));
        assert_eq!(stored.summary.as_deref(), Some("save: true"));
        store.close().await;
    }
}
