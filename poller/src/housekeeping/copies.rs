//! Copies of the database by schedule. Their folder may be in a network that does not answer: nothing
//! else waits for it, and that there is no copy is told.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use wire::{EventKind, Severity, Time};

use super::failed;
use crate::app::App;
use crate::config::{Backup, Config};
use crate::pending::Pending;
use crate::store::{StoreError, copies};

/// How often is looked whether a copy is due, and when one that failed is tried again.
const LOOK: Duration = Duration::from_secs(1);
const AGAIN: Duration = Duration::from_secs(300);
/// A folder that does not answer for so long is told, and a copy that does not end.
const SILENCE: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(3600);

/// What is under way with one folder.
struct Folder {
    path: PathBuf,
    looking: Pending<Vec<Time>>,
    copying: Option<JoinHandle<Result<PathBuf, StoreError>>>,
    /// Since when it is looked at, or copied into, without an end.
    since: Option<Instant>,
    told: bool,
}

impl Folder {
    fn new(path: &Path) -> Self {
        let (path, looking) = (path.to_owned(), Pending::default());
        Self { path, looking, copying: None, since: None, told: false }
    }

    /// The copy that ended, if one did.
    async fn copied(&mut self) -> Option<Result<PathBuf, StoreError>> {
        let ended = self.copying.take_if(|copying| copying.is_finished())?.await;
        Some(ended.unwrap_or_else(|error| Err(StoreError::Failed(error.to_string()))))
    }

    /// When the copies that are there were made; `None` while it does not answer.
    async fn times(&mut self) -> Option<Vec<Time>> {
        let look = || {
            let path = self.path.clone();
            move || copies(&path).unwrap_or_default().iter().map(|copy| copy.time).collect()
        };
        self.looking.ended("backup.dir", look).await
    }

    /// Whether it takes too long, and that was not told yet.
    fn is_late(&mut self, most: Duration) -> bool {
        let since = *self.since.get_or_insert_with(Instant::now);
        let is_late = !self.told && since.elapsed() >= most;
        self.told |= is_late;
        is_late
    }
}

/// Makes copies of the database by schedule, until `stop`. The newest copy in the folder says
/// when the next is due, so that a restart neither makes one more nor leaves one out.
pub async fn copy(app: &App, configs: watch::Receiver<Config>, stop: CancellationToken) {
    let mut tried: Option<Instant> = None;
    let mut folder: Option<Folder> = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(LOOK) => {}
        }
        let Some(backup) = configs.borrow().backup.clone() else { continue };
        // What is under way in another one goes on by itself.
        let at = match &mut folder {
            Some(folder) if folder.path == backup.dir => folder,
            other => {
                tried = None;
                other.insert(Folder::new(&backup.dir))
            }
        };
        if let Some(ended) = at.copied().await {
            (at.since, at.told) = (None, false);
            tell(app, ended).await;
        }
        if at.copying.is_some() {
            if at.is_late(LONGEST) {
                let words = format!("{} has not ended in an hour", at.path.display());
                tell(app, Err(StoreError::Failed(words))).await;
            }
            continue;
        }
        let Some(times) = at.times().await else {
            if at.is_late(SILENCE) {
                let words = format!("{}: its file system does not answer", at.path.display());
                tell(app, Err(StoreError::Failed(words))).await;
            }
            continue;
        };
        (at.since, at.told) = (None, false);
        let now = Time::now();
        if is_due(&backup, &times, now, tried) {
            tried = Some(Instant::now());
            let (store, dir) = (app.store.clone(), at.path.clone());
            let copying = async move { store.scheduled_copy(&dir, backup.keep, now).await };
            at.copying = Some(tokio::spawn(copying));
        }
    }
    // One that is under way is waited for, for as long as a stop may take.
    if let Some(copying) = folder.and_then(|folder| folder.copying) {
        let _ = copying.await;
    }
}

/// Whether a copy is due, given when there were copies made and when one was tried last.
fn is_due(backup: &Backup, times: &[Time], now: Time, tried: Option<Instant>) -> bool {
    // One of the future was made by a clock that was wrong.
    let newest = times.iter().filter(|time| **time <= now).max();
    let age = newest.map(|time| now.millis_since(*time).unsigned_abs());
    let recent = age.is_some_and(|age| u128::from(age) < backup.every.as_millis());
    let pause = AGAIN.min(backup.every);
    !recent && tried.is_none_or(|then| then.elapsed() >= pause)
}

async fn tell(app: &App, ended: Result<PathBuf, StoreError>) {
    match ended {
        Ok(target) => {
            app.metrics.backups.with_label_values(&["success"]).inc();
            app.metrics.backup_time.set(Time::now().as_millis() / 1000);
            tracing::info!(file = %target.display(), "the database was copied");
        }
        Err(error) => {
            app.metrics.backups.with_label_values(&["failure"]).inc();
            let message = format!("no copy of the database was made: {error}");
            tracing::error!("{message}");
            let told = app.store.tell(EventKind::BACKUP_FAILED, Severity::Error, message);
            if let Err(error) = told.await {
                failed(app, &error, "that no copy was made was not told");
            }
        }
    }
}
