//! Copies of the database: made while it is in use, put back while it is not, and what becomes
//! of one that is damaged.

use std::fs::{self, File};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::sqlite::SqliteConnection;
use sqlx::{ConnectOptions, Connection, query};
use wire::Time;

use super::audit;
use super::lock::Lock;
use super::open::{self, Found, integrity, options};
use super::{Result, Store, StoreError, beside};
use crate::owner;

/// What follows the name of a copy that is not whole yet.
const PARTIAL: &str = ".pm2-poller-partial";
/// One that nobody wrote to for so long is of a program that was killed.
const DEAD: Duration = Duration::from_secs(3600);
/// The files that SQLite keeps beside a database.
const COMPANIONS: [&str; 3] = ["", "-wal", "-shm"];

/// Copies `database` to `target`, which must not be there, while others read and write it. The
/// copy is checked, is on the disk, and can be read by its owner only.
///
/// # Errors
/// The database is none of ours, something is in the way, or the copy failed: then nothing is
/// left of it.
pub async fn copy(database: &Path, target: &Path) -> Result<()> {
    if open::look(database).await.map_err(|error| error.opening(database))? == Found::Empty {
        return Err(StoreError::Failed("it is empty".to_owned()).opening(database));
    }
    let target = target.to_owned();
    let place = target.clone();
    if apart(move || Ok(place.exists())).await? {
        let (file, reason) = (target.display().to_string(), "is there already".to_owned());
        return Err(StoreError::Copy { file, reason });
    }
    let partial = beside(&target, PARTIAL);
    let made = copy_into(database, &partial).await;
    apart(move || {
        let placed =
            made.and_then(|()| fs::rename(&partial, &target).map_err(|error| io(&target, &error)));
        if let Err(error) = placed {
            remove(&partial);
            return Err(error.copying(&target));
        }
        sync_folder(&target);
        Ok(())
    })
    .await
}

/// A part of a copy, and what SQLite left beside it.
fn remove(partial: &Path) {
    for companion in ["", "-journal", "-wal", "-shm"] {
        let _ = fs::remove_file(beside(partial, companion));
    }
}

async fn copy_into(database: &Path, partial: &Path) -> Result<()> {
    let place = partial.to_owned();
    let name = apart(move || {
        remove(&place);
        // SQLite takes an empty file that is there, and with it who may read it.
        let new = File::options().write(true).create_new(true).mode(0o600).open(&place);
        new.map_err(|error| io(&place, &error))?;
        let name = place.into_os_string().into_string();
        name.map_err(|name| StoreError::Failed(format!("{}: is no UTF-8", name.display())))
    })
    .await?;
    let mut connection = options(database).read_only(true).connect().await?;
    let copied = query("VACUUM INTO ?").bind(name).execute(&mut connection).await;
    connection.close().await?;
    copied?;
    let found = integrity(partial).await?;
    if let Some(first) = found.first() {
        return Err(StoreError::Corrupt(first.clone()));
    }
    let place = partial.to_owned();
    apart(move || sync(&place)).await
}

fn sync(partial: &Path) -> Result<()> {
    File::open(partial).and_then(|file| file.sync_all()).map_err(|error| io(partial, &error))
}

/// Puts `copy` in the place of `database`, which nobody may be serving. What was there is kept
/// beside it: the path that is given. Commands that waited are not sent any more.
///
/// # Errors
/// The database is in use, or the copy is damaged, foreign or of a later version: nothing
/// changed then.
pub async fn restore(database: &Path, copy: &Path) -> Result<Option<PathBuf>> {
    let _lock = Lock::take(database)?;
    if !copy.exists() {
        return Err(StoreError::Failed(format!("{}: there is no such file", copy.display())));
    }
    if let (Ok(one), Ok(other)) = (fs::canonicalize(copy), fs::canonicalize(database))
        && one == other
    {
        let reason = format!("{}: is the database itself, and no copy", copy.display());
        return Err(StoreError::Failed(reason));
    }
    if open::look(copy).await.map_err(|error| error.opening(copy))? == Found::Empty {
        return Err(StoreError::Failed("it is empty".to_owned()).opening(copy));
    }
    let found = integrity(copy).await.map_err(|error| error.opening(copy))?;
    if let Some(first) = found.first() {
        let reason = format!("{}: is damaged: {first}", copy.display());
        return Err(StoreError::Corrupt(reason));
    }
    let partial = beside(database, ".restoring");
    let given = events_given(database).await;
    let copied = match copy_into(copy, &partial).await {
        Ok(()) => ask_for_what_waits(&partial, given).await,
        Err(error) => Err(error),
    };
    let placed = match copied {
        Ok(()) => aside(database, "before-restore"),
        Err(error) => Err(error),
    };
    let kept = match placed {
        Ok(kept) => kept,
        Err(error) => {
            remove(&partial);
            return Err(error.copying(database));
        }
    };
    owner::as_folder(&partial);
    fs::rename(&partial, database).map_err(|error| io(database, &error))?;
    // It was the other one that was damaged.
    let _ = fs::remove_file(beside(database, "-damaged"));
    sync_folder(database);
    Ok(kept)
}

/// Numbers of events are further apart than so only where they began anew: see [`begin_events_after`].
pub(super) const ANEW: i64 = 500_000_000;

/// What waited when a copy was made may have been done since: it is not sent, and exporters are asked for
/// it, as for all that is under way when the poller starts. No number of an event is `given` again.
async fn ask_for_what_waits(partial: &Path, given: Option<i64>) -> Result<()> {
    let mut connection = options(partial).connect().await?;
    let done = async {
        query("UPDATE commands SET status = 'running' WHERE status = 'queued'")
            .execute(&mut connection)
            .await?;
        begin_events_after(&mut connection, given).await
    };
    let done = done.await;
    connection.close().await?;
    done?;
    sync(partial)
}

const LAST_EVENT: &str = "SELECT seq FROM sqlite_sequence WHERE name = 'events'";

/// The last number of an event of the database that was here, if it can be read.
async fn events_given(database: &Path) -> Option<i64> {
    if !database.exists() {
        return None;
    }
    let mut connection = options(database).read_only(true).connect().await.ok()?;
    let last = sqlx::query_scalar(LAST_EVENT).fetch_optional(&mut connection).await;
    let _ = connection.close().await;
    last.ok().flatten()
}

/// Goes on after the numbers that were `given` to events, so that whoever comes back to the stream with
/// one of them misses none. Where nobody can tell, or it was another database that gave them (the one
/// that a copy is of has gone on since), it is after more than there ever were.
async fn begin_events_after(
    connection: &mut SqliteConnection,
    given: Option<i64>,
) -> sqlx::Result<()> {
    let own: Option<i64> = sqlx::query_scalar(LAST_EVENT).fetch_optional(&mut *connection).await?;
    let last = own.unwrap_or(0);
    let next = given.filter(|given| *given >= last).unwrap_or_else(|| {
        // No rate of events comes after it, and JavaScript has such numbers. Those that were given since
        // the copy was made do not bring it nearer than `ANEW`.
        let microseconds = Time::now().as_millis().saturating_mul(1000);
        last.max(microseconds).saturating_add(2 * ANEW)
    });
    let sql = match own {
        None => "INSERT INTO sqlite_sequence (seq, name) VALUES (?, 'events')",
        Some(_) => "UPDATE sqlite_sequence SET seq = ? WHERE name = 'events'",
    };
    query(sql).bind(next).execute(connection).await?;
    Ok(())
}

/// Renames a database and what belongs to it; `None` when there is none.
fn aside(database: &Path, why: &str) -> Result<Option<PathBuf>> {
    if !database.exists() {
        return Ok(None);
    }
    let time = Time::now().to_string().replace(':', "-");
    let kept = beside(database, &format!(".{why}-{time}"));
    for companion in COMPANIONS {
        let from = beside(database, companion);
        if from.exists() {
            fs::rename(&from, beside(&kept, companion)).map_err(|error| io(&from, &error))?;
        }
    }
    Ok(Some(kept))
}

/// Marks a database as damaged, so that it is set aside when it is opened again.
pub(super) fn mark_damaged(database: &Path) {
    if let Err(error) = File::create(beside(database, "-damaged")) {
        tracing::error!(%error, "the database is damaged, and cannot even be marked so");
    }
}

/// Whether it is marked.
pub fn is_marked(database: &Path) -> bool {
    beside(database, "-damaged").exists()
}

impl Store {
    /// Opens as [`Store::open`] does. One of ours that is damaged is set aside under another
    /// name, and a new one takes its place, with what can still be read of servers, tokens,
    /// users, commands and audit. Gives where the old one is then.
    ///
    /// # Errors
    /// As [`Store::open`] has them, but for damage.
    pub async fn open_or_replace(path: &Path) -> Result<(Self, Option<PathBuf>)> {
        let damage = match is_marked(path) {
            true => "it was found damaged while it was in use".to_owned(),
            false => match Self::open_sound(path).await {
                Ok(store) => return Ok((store, None)),
                Err(StoreError::Corrupt(damage)) => damage,
                Err(error) => return Err(error),
            },
        };
        let kept = aside(path, "damaged")?;
        let _ = fs::remove_file(beside(path, "-damaged"));
        let shown = kept.as_deref().unwrap_or(path).display().to_string();
        tracing::error!(
            kept = shown,
            damage,
            "the database is damaged: it is set aside, a new one is begun"
        );
        let store = Self::open(path).await?;
        if let Some(kept) = &kept {
            let saved = store.salvage(kept).await;
            tracing::warn!(
                rows = saved,
                "what could be read of the damaged database is taken over"
            );
        }
        Ok((store, kept))
    }

    async fn open_sound(path: &Path) -> Result<Self> {
        let store = Self::open(path).await?;
        match open::quick_look(path).await {
            Err(error @ StoreError::Corrupt(_)) => {
                store.close().await;
                Err(error)
            }
            _ => Ok(store),
        }
    }

    /// Takes over what can be read of small tables that nobody could make again. How many rows.
    async fn salvage(&self, from: &Path) -> u64 {
        const TABLES: [&str; 8] = [
            "registry",
            "registrations",
            "selections",
            "users",
            "tokens",
            "commands",
            "audit_anchor",
            "audit",
        ];
        let Some(from) = from.to_str().map(str::to_owned) else { return 0 };
        let mut rows = 0;
        for table in TABLES {
            rows += self.salvage_table(from.clone(), table).await.unwrap_or_else(|error| {
                tracing::warn!(table, %error, "nothing of a table could be taken over");
                0
            });
        }
        let given = events_given(Path::new(&from)).await;
        // What an earlier version wrote has no hashes yet.
        let sealed = self.detached(async |connection| {
            begin_events_after(connection, given).await?;
            query("UPDATE audit_anchor SET sealed = 0").execute(&mut *connection).await?;
            audit::seal(connection).await
        });
        if let Err(error) = sealed.await {
            tracing::warn!(%error, "the audit that was taken over is not chained");
        }
        rows
    }

    async fn salvage_table(&self, from: String, table: &'static str) -> Result<u64> {
        let mut old = options(Path::new(&from)).connect().await?;
        let columns: Vec<String> = sqlx::query_scalar("SELECT name FROM pragma_table_info(?)")
            .bind(table)
            .fetch_all(&mut old)
            .await?;
        if columns.is_empty() {
            return Ok(0);
        }
        let columns = format!("\"{}\"", columns.join("\", \""));
        old.close().await?;
        // There is one anchor, and the old one is meant.
        let verb = if table == "audit_anchor" { "REPLACE" } else { "IGNORE" };
        self.detached(async move |connection| {
            query("ATTACH ? AS old").bind(from).execute(&mut *connection).await?;
            let sql = format!(
                "INSERT OR {verb} INTO main.{table} ({columns}) SELECT {columns} FROM old.{table}"
            );
            let done = query(sqlx::AssertSqlSafe(sql)).execute(&mut *connection).await;
            query("DETACH old").execute(&mut *connection).await?;
            Ok(done?.rows_affected())
        })
        .await
    }

    /// With a connection of its own that may write: before anything else does.
    async fn detached<T>(
        &self,
        work: impl AsyncFnOnce(&mut SqliteConnection) -> Result<T>,
    ) -> Result<T> {
        let mut connection = options(&self.path).foreign_keys(false).connect().await?;
        let done = work(&mut connection).await;
        connection.close().await?;
        done
    }

    /// Marks the database as damaged: the next start sets it aside.
    pub fn mark_damaged(&self) {
        mark_damaged(&self.path);
    }

    /// A copy in `folder` under a name with the time, and the oldest beyond `keep` gone, after those that
    /// a clock that was wrong dated later than `now`.
    ///
    /// # Errors
    /// The copy failed; the former ones stay.
    pub async fn scheduled_copy(&self, folder: &Path, keep: u32, now: Time) -> Result<PathBuf> {
        let target = ScheduledCopy::path(folder, now);
        let place = folder.to_owned();
        apart(move || {
            fs::create_dir_all(&place).map_err(|error| io(&place, &error))?;
            clear(&place);
            Ok(())
        })
        .await?;
        copy(&self.path, &target).await?;
        let place = folder.to_owned();
        apart(move || drop_surplus(&place, keep as usize, now)).await?;
        Ok(target)
    }
}

/// Works on files on a thread that may wait for them: a folder in a network may not answer for long.
async fn apart<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let ended = crate::apart::spawn(work).await;
    ended.unwrap_or_else(|error| Err(StoreError::Failed(error.to_string())))
}

/// Takes away what a program that was killed left of a copy by schedule.
fn clear(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let begun = name.to_str().and_then(|name| name.split_once(PARTIAL));
        let modified = entry.metadata().and_then(|file| file.modified());
        let age = modified.ok().and_then(|time| time.elapsed().ok());
        if begun.is_some_and(|(copy, _)| ScheduledCopy::of(folder.join(copy)).is_some())
            && age.is_some_and(|age| age > DEAD)
        {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn drop_surplus(folder: &Path, keep: usize, now: Time) -> Result<()> {
    let mut copies = copies(folder)?;
    copies.sort_by_key(|copy| (copy.time <= now, copy.time));
    let surplus = copies.len().saturating_sub(keep);
    for old in &copies[..surplus] {
        fs::remove_file(&old.path).map_err(|error| io(&old.path, &error))?;
    }
    Ok(())
}

const PREFIX: &str = "pm2-poller-";
const SUFFIX: &str = ".db";

/// A copy that was made by schedule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ScheduledCopy {
    /// When, as its name says.
    pub time: Time,
    /// Where it is.
    pub path: PathBuf,
}

impl ScheduledCopy {
    fn path(folder: &Path, time: Time) -> PathBuf {
        folder.join(format!("{PREFIX}{}{SUFFIX}", time.to_string().replace(':', "-")))
    }

    /// `None` for whatever else is there.
    fn of(path: PathBuf) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        let (day, hours) = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.split_once('T')?;
        let time = format!("{day}T{}", hours.replace('-', ":")).parse().ok()?;
        (Self::path(path.parent()?, time) == path).then_some(Self { time, path })
    }
}

/// Copies that were made by schedule, the oldest first.
///
/// # Errors
/// The folder cannot be read.
pub fn copies(folder: &Path) -> Result<Vec<ScheduledCopy>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io(folder, &error)),
    };
    let mut copies: Vec<ScheduledCopy> =
        entries.filter_map(|entry| ScheduledCopy::of(entry.ok()?.path())).collect();
    copies.sort();
    Ok(copies)
}

fn io(path: &Path, error: &std::io::Error) -> StoreError {
    match error.kind() {
        std::io::ErrorKind::StorageFull => StoreError::Full,
        _ => StoreError::Failed(format!("{}: {error}", path.display())),
    }
}

/// A new name is on the disk only when its folder is.
fn sync_folder(path: &Path) {
    let folder = path.parent().filter(|it| !it.as_os_str().is_empty());
    if let Ok(folder) = File::open(folder.unwrap_or(Path::new("."))) {
        let _ = folder.sync_all();
    }
}
