//! Copies of the database: made while it is in use, put back while it is not.

use std::fs::{self, File};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::{ConnectOptions, Connection, query};
use wire::Time;

use super::events::{begin_events_after, events_given};
use super::lock::Lock;
use super::open::{self, Found, integrity, options};
use super::{Result, Store, StoreError, apart, beside};
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

/// Renames a database and what belongs to it; `None` when there is none.
pub(super) fn aside(database: &Path, why: &str) -> Result<Option<PathBuf>> {
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

impl Store {
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
