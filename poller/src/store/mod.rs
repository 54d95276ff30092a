//! What outlives the process: SQLite, and all SQL there is. Nobody outside knows the engine.
//!
//! One writer (`writer`) owns the only connection that writes; readers have a pool of
//! connections that cannot write, and five seconds each.

mod activity;
mod audit;
mod backup;
mod command_end;
mod command_list;
mod commands;
mod damage;
mod error;
mod events;
mod heads;
mod history;
mod ingest;
mod keys;
mod listed;
mod lock;
mod marks;
mod names;
mod notify;
mod open;
mod queue;
mod recent;
mod registry;
mod reserve;
mod retention;
mod sample;
mod selections;
mod tokens;
mod users;
mod varint;
mod writer;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use sqlx::SqlitePool;
use sqlx::sqlite::SqliteConnection;
use tokio::sync::{Semaphore, broadcast};

pub use activity::Activity;
pub use audit::{AuditCheck, AuditFilter, AuditRow, NewAudit, RowHash, Stamp};
pub use backup::{ScheduledCopy, copies, copy, restore};
pub use command_end::CommandEnd;
pub use command_list::CommandFilter;
pub use commands::{Inserted, NewCommand, StoredCommand};
pub use damage::is_marked;
pub use error::StoreError;
pub use events::{EventFilter, StoredEvent};
pub use history::{
    Folded, HistoryQuery, MAX_POINTS, MAX_STEPS, Point, Series, Subject, Tier, Window, WindowQuery,
    known_step,
};
pub use ingest::{Cursor, Ingest, Known};
pub use keys::Keyed;
pub use listed::Listed;
pub use lock::Lock;
pub use marks::{Mark, MarkQuery};
pub use open::LOG_STAYS;
pub use queue::Canceller;
pub use registry::{Registration, StoredServer};
pub use retention::{Before, Dropped, POLLER, Removed, Shrunk};
pub use selections::{NewSelection, Part, Selected, StoredSelection};
pub use tokens::{NewToken, StoredToken};
pub use users::{NewUser, StoredUser, UserChange};
pub use writer::Ingesting;

/// Whatever the store gives.
pub type Result<T> = std::result::Result<T, StoreError>;

/// How long one read may take, its turn included.
pub const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// Answers of history that are made at a time.
const HISTORIES: usize = 4;

/// Events that a slow reader of the live stream may be behind by before it is dropped.
const STREAM_QUEUE: usize = 1024;

/// Work that takes long, or waits for files: a folder in a network may not answer for long.
async fn apart<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = crate::apart::spawn(work).await;
    done.unwrap_or_else(|error| Err(StoreError::Failed(error.to_string())))
}

/// The open database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    writer: writer::Writer,
    readers: SqlitePool,
    heads: writer::SharedHeads,
    path: PathBuf,
    /// Answers of history that are made at a time: each may take some tens of megabytes.
    histories: Arc<Semaphore>,
    /// Events as they are committed, by rising number and none left out.
    events: broadcast::Sender<Arc<StoredEvent>>,
}

/// What a look at a database found.
#[derive(Debug)]
pub enum Look {
    /// One that is up to date, open.
    Ready(Store),
    /// One of an earlier version.
    Older,
    /// A file without anything in it.
    Empty,
}

impl Store {
    /// Opens the file, makes it when it is not there, and brings it up to date.
    ///
    /// # Errors
    /// It cannot be opened, is another program's, or a newer version's.
    pub async fn open(path: &Path) -> Result<Self> {
        let (connection, readers) = match open::open(path).await {
            // It may be for want of room, which SQLite does not always say.
            Err(error) if matches!(error, StoreError::Open { .. }) && reserve::give_up(path) => {
                tracing::warn!(%error, "the room that was kept for this is given up");
                open::open(path).await?
            }
            opened => opened?,
        };
        reserve::take(path);
        Ok(Self::with(connection, readers, path))
    }

    /// Opens the file to look at it: nothing is changed, and nothing can be.
    ///
    /// # Errors
    /// It cannot be opened, is another program's, or a newer version's.
    pub async fn look(path: &Path) -> Result<Look> {
        let found = open::look(path).await.map_err(|error| error.opening(path))?;
        let open::Found::Ours { up_to_date } = found else { return Ok(Look::Empty) };
        if !up_to_date {
            return Ok(Look::Older);
        }
        let opened = open::open_to_look(path).await;
        let (connection, readers) = opened.map_err(|error| error.opening(path))?;
        Ok(Look::Ready(Self::with(connection, readers, path)))
    }

    fn with(connection: SqliteConnection, readers: SqlitePool, path: &Path) -> Self {
        let heads = writer::SharedHeads::default();
        let events = broadcast::channel(STREAM_QUEUE).0;
        let writer =
            writer::Writer::start(connection, heads.clone(), path.to_owned(), events.clone());
        let histories = Arc::new(Semaphore::new(HISTORIES));
        Self { writer, readers, heads, path: path.to_owned(), histories, events }
    }

    /// How far each server is taken in.
    async fn heads(&self) -> Result<&RwLock<heads::Heads>> {
        if self.heads.get().is_none() {
            // The writer reads them when it begins anything.
            self.writer.run(|_| Box::pin(async { Ok(()) })).await?;
        }
        self.heads.get().ok_or(StoreError::Closed)
    }

    /// Writes what is under way, folds the write-ahead log into the file and closes it.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    /// Until the writer ends, which it does only when the store is closed or it died.
    pub async fn writer_ended(&self) {
        self.writer.ended().await;
    }

    /// Events from now on, as they are committed: by rising number, none left out.
    pub fn follow(&self) -> broadcast::Receiver<Arc<StoredEvent>> {
        self.events.subscribe()
    }

    /// Ends as by `kill -9`.
    #[cfg(test)]
    pub(crate) fn kill(&self) {
        self.writer.kill();
    }

    /// Lets the file have at most so many pages, as a disk does that is full.
    ///
    /// # Errors
    /// The database failed.
    #[cfg(test)]
    pub(crate) async fn limit_pages(&self, most: i64) -> Result<()> {
        let sql = format!("PRAGMA max_page_count = {most}");
        let set = self.writer.run(move |writing| {
            Box::pin(async move {
                sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&mut writing.connection).await?;
                Ok(())
            })
        });
        set.await
    }

    /// Keeps room on the disk for the next start.
    pub fn reserve_room(&self) {
        reserve::take(&self.path);
    }

    /// What the writer has to do, and did.
    pub fn activity(&self) -> Activity {
        self.writer.activity()
    }

    /// Sizes in bytes of the database and of its write-ahead log.
    pub fn sizes(&self) -> (u64, u64) {
        let size = |path: &Path| std::fs::metadata(path).map_or(0, |file| file.len());
        let mut log = self.path.clone().into_os_string();
        log.push("-wal");
        (size(&self.path), size(Path::new(&log)))
    }

    /// Whether a read is answered.
    ///
    /// # Errors
    /// It is not.
    pub async fn ping(&self) -> Result<()> {
        sqlx::query("SELECT 1").execute(&self.readers).await?;
        Ok(())
    }

    /// [`integrity`] of its file.
    #[cfg(test)]
    pub(crate) async fn integrity(&self) -> Result<Vec<String>> {
        integrity(&self.path).await
    }
}

/// SQLite's own check of a whole file; empty when all is well.
///
/// # Errors
/// The check could not be run.
pub async fn integrity(path: &Path) -> Result<Vec<String>> {
    open::integrity(path).await
}

/// The path with more at its end.
fn beside(path: &Path, more: &str) -> PathBuf {
    let mut name = path.to_owned().into_os_string();
    name.push(more);
    name.into()
}
