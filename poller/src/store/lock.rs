//! Only one process serves a database, and none while it is being replaced. The lock is the
//! operating system's, on a file beside the database, and ends with the process.

use std::fs::{File, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::{Result, StoreError, beside};
use crate::owner;

/// Holds the lock until it is dropped.
#[derive(Debug)]
pub struct Lock(#[allow(dead_code, reason = "held, not read")] Option<File>);

impl Lock {
    /// Takes the lock of a database.
    ///
    /// # Errors
    /// Another process has it.
    pub fn take(database: &Path) -> Result<Self> {
        // Whatever it is called, through links too.
        let real = std::fs::canonicalize(database).unwrap_or_else(|_| database.to_owned());
        let path = beside(&real, "-lock");
        let new = !path.exists();
        let open = File::options().create(true).truncate(false).write(true).mode(0o600).open(&path);
        // One that somebody else made can be locked all the same.
        let open = open.or_else(|error| File::open(&path).map_err(|_| error));
        if new {
            owner::as_folder(&path);
        }
        let file = match open {
            Ok(file) => file,
            // A full disk or a folder that cannot be written: SQLite says so if it matters.
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "no lock file can be made");
                return Ok(Self(None));
            }
        };
        match file.try_lock() {
            Ok(()) => Ok(Self(Some(file))),
            Err(TryLockError::WouldBlock) => {
                Err(StoreError::Running { file: database.display().to_string() })
            }
            Err(TryLockError::Error(error)) => {
                tracing::warn!(path = %path.display(), %error, "the lock file cannot be locked");
                Ok(Self(None))
            }
        }
    }
}
