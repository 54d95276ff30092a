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
