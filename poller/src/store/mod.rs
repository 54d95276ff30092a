//! What outlives the process: SQLite, and all SQL there is. Nobody outside knows the engine.
//!
//! One writer (`writer`) owns the only connection that writes; readers have a pool of
//! connections that cannot write, and five seconds each.

mod audit;
mod commands;
mod error;
mod events;
mod history;
mod ingest;
mod names;
mod open;
mod registry;
mod retention;
mod sample;
mod tokens;
mod writer;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::SqlitePool;

pub use audit::{AuditFilter, AuditRow, NewAudit};
pub use commands::{CommandFilter, Inserted, NewCommand, Outcome, StoredCommand};
pub use error::StoreError;
pub use events::{EventFilter, StoredEvent};
pub use history::{HistoryQuery, Point, Series};
pub use ingest::{Cursor, Ingest, Known};
pub use registry::StoredServer;
pub use retention::Removed;
pub use tokens::{NewToken, StoredToken};

/// Whatever the store gives.
pub type Result<T> = std::result::Result<T, StoreError>;

/// How long one read may take.
pub const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// The open database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    writer: writer::Writer,
    readers: SqlitePool,
    path: PathBuf,
}

impl Store {
    /// Opens the file, makes it when it is not there, and brings it up to date.
    ///
    /// # Errors
    /// It cannot be opened, is another program's, or a newer version's.
    pub async fn open(path: &Path) -> Result<Self> {
        let (connection, readers) = open::open(path, true).await?;
        Ok(Self { writer: writer::Writer::start(connection), readers, path: path.to_owned() })
    }

    /// Opens the file as [`Self::open`] does, but does not make it.
    ///
    /// # Errors
    /// The same, and when it is not there.
    pub async fn open_existing(path: &Path) -> Result<Self> {
        let (connection, readers) = open::open(path, false).await?;
        Ok(Self { writer: writer::Writer::start(connection), readers, path: path.to_owned() })
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

    /// SQLite's own check of the whole file; empty when all is well.
    ///
    /// # Errors
    /// The check could not be run.
    pub async fn integrity(&self) -> Result<Vec<String>> {
        open::integrity(&self.path).await
    }
}
