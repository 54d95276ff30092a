//! Opening the file: ours or not, too new or not, up to date afterwards.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{
    SqliteAutoVacuum, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePoolOptions,
    SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection, SqlitePool};

use super::{READ_TIMEOUT, Result, StoreError, beside};
use crate::owner;

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// "pm2p", in the header of the file.
const APPLICATION_ID: i64 = 0x706d_3270;

/// Readers at a time. Each has a thread of its own.
const READERS: u32 = 4;
/// What of [`READ_TIMEOUT`] may be spent on waiting for one of them.
const TURN: Duration = Duration::from_secs(2);
/// What the write-ahead log keeps of its length once it is folded into the file, in bytes. More than it
/// has in between as a rule (1,000 pages), so that it mostly keeps its place on the disk.
pub const LOG_STAYS: u32 = 6 << 20;

pub(super) fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(READ_TIMEOUT)
        .foreign_keys(true)
        .disable_statement_logging()
}

pub(super) async fn open(path: &Path) -> Result<(SqliteConnection, SqlitePool)> {
    let writer = writer(path).await.map_err(|error| error.opening(path))?;
    let readers = readers(options(path).read_only(true)).await;
    let readers = readers.map_err(|error| StoreError::from(error).opening(path))?;
    Ok((writer, readers))
}

/// A query that runs for longer is interrupted, so that no reader keeps the write-ahead log
/// from being folded into the file.
async fn limit_time(connection: &mut SqliteConnection) -> sqlx::Result<()> {
    let end = Instant::now() + READ_TIMEOUT - TURN;
    connection.lock_handle().await?.set_progress_handler(10_000, move || Instant::now() < end);
    Ok(())
}

async fn writer(path: &Path) -> Result<SqliteConnection> {
    // Looked at before it is touched: opening in WAL mode alone would change another
    // program's file.
    if path.exists() {
        if !path.is_file() {
            return Err(failed("it is not a file"));
        }
        look(path).await?;
    } else {
        begin(path)?;
    }
    // FULL: a commit is on the disk before anything follows from it. What need not be, the writer
    // knows (`writer`).
    let mut options = options(path).create_if_missing(true);
    // To set it where it is set would be a write, which a full disk refuses.
    if std::fs::metadata(path).map_or(true, |file| file.len() == 0) {
        // What is given up can then be given back in steps.
        options = options.auto_vacuum(SqliteAutoVacuum::Incremental);
    }
    let mut connection = options
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .pragma("journal_size_limit", LOG_STAYS.to_string())
        .connect()
        .await?;
    let id: i64 = sqlx::query_scalar("PRAGMA application_id").fetch_one(&mut connection).await?;
    if id != APPLICATION_ID {
        sqlx::query("PRAGMA application_id = 1886204528").execute(&mut connection).await?;
    }
    MIGRATIONS.run_direct(None, &mut connection, false).await.map_err(|error| match error {
        MigrateError::VersionMissing(version) | MigrateError::VersionTooNew(version, _) => {
            StoreError::Newer { file: path.display().to_string(), version }
        }
        MigrateError::Execute(error) => error.into(),
        other => failed(&other.to_string()),
    })?;
    super::audit::seal(&mut connection).await?;
    Ok(connection)
}

/// What a file is that was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A database of ours, of a version that is known here.
    Ours {
        /// Nothing has to be done to it before it is used.
        up_to_date: bool,
    },
    /// An empty file, or a database with nothing in it.
    Empty,
}

/// What a file is. Nothing is changed.
///
/// # Errors
/// [`StoreError::Corrupt`] for one of ours that is damaged, and for nothing else: what cannot be
/// opened, for want of room, of rights, of descriptors, is whole for all that is known. Others for what
/// is not ours, of a later version, or cannot be opened.
pub(super) async fn look(path: &Path) -> Result<Found> {
    if !path.is_file() {
        return Err(failed("there is no such file"));
    }
    let looked = async {
        let mut connection = read_only(path).await?;
        let found = look_at(&mut connection, path).await;
        connection.close().await?;
        found
    };
    match looked.await {
        // Not even SQLite's first words are right: ours only if our own are.
        Err(StoreError::Corrupt(reason)) if !has_our_mark(path) => Err(failed(&reason)),
        other => other,
    }
}

/// A connection that changes nothing.
async fn read_only(path: &Path) -> Result<SqliteConnection> {
    Ok(reading(path).await?.0)
}

/// The same, and how it was opened: in a folder that cannot be written too.
async fn reading(path: &Path) -> Result<(SqliteConnection, SqliteConnectOptions)> {
    let options = options(path).read_only(true);
    let mut connection = options.connect().await?;
    let read: sqlx::Result<i64> =
        sqlx::query_scalar("PRAGMA application_id").fetch_one(&mut connection).await;
    let Err(error) = read.map_err(StoreError::from) else { return Ok((connection, options)) };
    connection.close().await?;
    // Without a log there is nobody who writes, and so no index of a log is needed.
    let logged = std::fs::metadata(beside(path, "-wal")).is_ok_and(|file| file.len() > 0);
    let options = options.immutable(true);
    if logged || !matches!(error, StoreError::Failed(_)) {
        return Err(error);
    }
    let connection = options.connect().await.map_err(|_| error)?;
    Ok((connection, options))
}

/// Opens one that is up to date, to look at it and change nothing.
pub(super) async fn open_to_look(path: &Path) -> Result<(SqliteConnection, SqlitePool)> {
    let (connection, options) = reading(path).await?;
    Ok((connection, readers(options).await?))
}

/// Pages that a reader keeps, in KiB (negative: as `PRAGMA cache_size` has it). Each write makes what it
/// keeps worthless, and history is read from one end to the other: more only fills memory, and as slowly as
/// the history grows. The system keeps the file's pages for all.
const READER_CACHE: &str = "-512";

async fn readers(options: SqliteConnectOptions) -> sqlx::Result<SqlitePool> {
    let options = options.pragma("cache_size", READER_CACHE);
    SqlitePoolOptions::new()
        .max_connections(READERS)
        .min_connections(1)
        .acquire_timeout(TURN)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        .after_connect(|connection, _| Box::pin(limit_time(connection)))
        .before_acquire(|connection, _| {
            Box::pin(async move { limit_time(connection).await.map(|()| true) })
        })
        .connect_with(options)
        .await
}

/// An empty file that its owner alone can read, which SQLite takes, and its log after it: hashes of
/// passwords will be in it.
fn begin(path: &Path) -> Result<()> {
    let made = File::options().write(true).create_new(true).mode(0o600).open(path);
    match made {
        Ok(_) => {
            owner::as_folder(path);
            Ok(())
        }
        // Somebody else was quicker.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::StorageFull => Err(StoreError::Full),
        Err(error) => Err(failed(&error.to_string())),
    }
}

/// Whether the header has the application's id, whatever else is in the file.
fn has_our_mark(path: &Path) -> bool {
    let mut header = [0; 72];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut header));
    read.is_ok() && header[68..] == (APPLICATION_ID as u32).to_be_bytes()
}

/// How long a look at the whole file may take at the start; what it did not reach is found when
/// it is read.
const LOOK: Duration = Duration::from_secs(3);

/// SQLite's quick check, as far as it comes.
///
/// # Errors
/// [`StoreError::Corrupt`] when something is wrong; another when it was cut off.
pub(super) async fn quick_look(path: &Path) -> Result<()> {
    let mut connection = read_only(path).await?;
    let end = Instant::now() + LOOK;
    connection.lock_handle().await?.set_progress_handler(10_000, move || Instant::now() < end);
    let found: sqlx::Result<String> =
        sqlx::query_scalar("PRAGMA quick_check(1)").fetch_one(&mut connection).await;
    connection.lock_handle().await?.remove_progress_handler();
    connection.close().await?;
    match found?.as_str() {
        "ok" => Ok(()),
        found => Err(StoreError::Corrupt(found.to_owned())),
    }
}

async fn look_at(connection: &mut SqliteConnection, path: &Path) -> Result<Found> {
    let id: i64 = sqlx::query_scalar("PRAGMA application_id").fetch_one(&mut *connection).await?;
    let tables: Vec<String> =
        sqlx::query_scalar("SELECT name FROM sqlite_schema").fetch_all(&mut *connection).await?;
    if tables.is_empty() && (id == 0 || id == APPLICATION_ID) {
        return Ok(Found::Empty);
    }
    if id != APPLICATION_ID {
        return Err(StoreError::Foreign { file: path.display().to_string() });
    }
    if !tables.iter().any(|name| name == "_sqlx_migrations") {
        return Ok(Found::Ours { up_to_date: false });
    }
    let version: Option<i64> = sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations")
        .fetch_one(&mut *connection)
        .await?;
    let known = MIGRATIONS.iter().map(|it| it.version).max();
    match version {
        Some(version) if Some(version) > known => {
            Err(StoreError::Newer { file: path.display().to_string(), version })
        }
        version if version == known => {
            let sealed = super::audit::is_sealed(connection).await?;
            Ok(Found::Ours { up_to_date: sealed })
        }
        _ => Ok(Found::Ours { up_to_date: false }),
    }
}

fn failed(reason: &str) -> StoreError {
    StoreError::Failed(reason.to_owned())
}

pub(super) async fn integrity(path: &Path) -> Result<Vec<String>> {
    let mut connection = read_only(path).await?;
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
    use crate::store::{CommandFilter, Inserted, NewCommand, Store};

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
            pm2_home: None,
            status: wire::CommandStatus::Running,
            requested_by: "ci".into(),
            token: Some(1),
            requested_from: "127.0.0.1".into(),
            requested_via: Some("token"),
            requested_at: wire::Time::now(),
            refusal: None,
            idempotency_key: Some("k".into()),
            summary: Some("save: true".into()),
            body_hash: Some(vec![7; 32]),
            follow_until: None,
            queued_until: None,
            body: None,
            part_of: None,
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

    /// Where only a command's summary said in which PM2 it was.
    #[tokio::test]
    async fn commands_of_before_are_found_by_their_home() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("test.db");
        let mut tenth = options(&path).create_if_missing(true).connect().await.unwrap();
        sqlx::query("PRAGMA application_id = 1886204528").execute(&mut tenth).await.unwrap();
        let migrator = Migrator::with_migrations(MIGRATIONS.migrations[..10].to_vec());
        migrator.run_direct(None, &mut tenth, false).await.unwrap();
        let summaries = [
            ("a", Some("pm2_home: /home/web/.pm2")),
            ("b", Some("instances: 4; pm2_home: /x; y; save: true")),
            ("c", Some("save: true")),
            ("d", None),
        ];
        for (id, summary) in summaries {
            sqlx::query(
                "INSERT INTO commands (id, server, target, app, action, status, requested_by, \
                 requested_from, requested_at, summary) VALUES (?, 'vm1', '{\"app\":\"api\"}', \
                 'api', 'restart', 'failed', 'ci', '127.0.0.1', 0, ?)",
            )
            .bind(id)
            .bind(summary)
            .execute(&mut tenth)
            .await
            .unwrap();
        }
        tenth.close().await.unwrap();

        let store = Store::open(&path).await.unwrap();
        let filter = |home: Option<&str>| CommandFilter {
            pm2_home: home.map(str::to_owned),
            limit: 10,
            ..CommandFilter::default()
        };
        let all = store.commands(&filter(None)).await.unwrap();
        let homes: Vec<_> = all.iter().map(|it| it.record.pm2_home.as_deref()).collect();
        assert_eq!(homes, [None, None, Some("/x; y"), Some("/home/web/.pm2")]);
        let found = store.commands(&filter(Some("/x; y"))).await.unwrap();
        assert_eq!(found.iter().map(|it| it.record.id.as_str()).collect::<Vec<_>>(), ["b"]);
        store.close().await;
    }
}
