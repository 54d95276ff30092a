use std::path::Path;

/// Why the store did not do what it was asked. What SQLite said is for the log and the command
/// line; HTTP answers say only that the store failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be opened, or is no SQLite database.
    #[error("{file}: cannot be opened as a database: {reason}")]
    Open {
        /// The file.
        file: String,
        /// Why not.
        reason: String,
    },
    /// It is some other program's database.
    #[error("{file}: is a database, but not one of pm2-poller: choose another file")]
    Foreign {
        /// The file.
        file: String,
    },
    /// No copy was made, or none was put back.
    #[error("{file}: {reason}")]
    Copy {
        /// The file that was to be made.
        file: String,
        /// Why it was not.
        reason: String,
    },
    /// A later version of this program has changed it.
    #[error(
        "{file}: was written by a newer pm2-poller (its schema has version {version}): run that one"
    )]
    Newer {
        /// The file.
        file: String,
        /// Version of its schema.
        version: i64,
    },
    /// Too much waits to be written, or a read took too long.
    #[error("the database is too busy")]
    Busy,
    /// No space left for the file.
    #[error("the disk or the database is full")]
    Full,
    /// The file is damaged.
    #[error("the database is damaged: {0}")]
    Corrupt(String),
    /// Another process serves it.
    #[error("{file}: is in use by a running pm2-poller: stop it first")]
    Running {
        /// The file.
        file: String,
    },
    /// The program is stopping.
    #[error("the database is closed")]
    Closed,
    /// Somebody else changed meanwhile what this goes on from: a journal's cursor, a user's limits.
    #[error("what this goes on from changed meanwhile")]
    Moved,
    /// What is there already has that name.
    #[error("{0}")]
    Exists(String),
    /// Nobody could administer the poller any more.
    #[error("that would leave no admin without limits: make another one first")]
    LastAdmin,
    /// An answer would have more points than are given at once.
    #[error(
        "more than {} points: ask for a longer step, a shorter time or fewer metrics",
        super::MAX_POINTS
    )]
    TooMuch,
    /// A server has too many different names for the history to keep.
    #[error("too many different {0}")]
    TooMany(&'static str),
    /// Anything else.
    #[error("the database failed: {0}")]
    Failed(String),
}

impl StoreError {
    /// A short word for metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Open { .. }
            | Self::Foreign { .. }
            | Self::Newer { .. }
            | Self::Running { .. } => "open",
            Self::Busy => "busy",
            Self::Full => "full",
            Self::Corrupt(_) => "corrupt",
            Self::Closed => "closed",
            Self::Moved => "moved",
            Self::Exists(_) => "exists",
            Self::LastAdmin => "last_admin",
            Self::TooMany(_) | Self::TooMuch => "limits",
            Self::Copy { .. } | Self::Failed(_) => "failed",
        }
    }

    /// The same, said of making `file`, a copy.
    pub(crate) fn copying(self, file: &Path) -> Self {
        match self {
            Self::Corrupt(_) | Self::Copy { .. } | Self::Open { .. } => self,
            other => Self::Copy {
                file: file.display().to_string(),
                reason: format!("was not made: {other}"),
            },
        }
    }

    /// The same, said of opening `file`.
    pub(crate) fn opening(self, file: &Path) -> Self {
        match self {
            Self::Corrupt(reason) => {
                let file = file.display().to_string();
                let is_named = reason.starts_with(&file);
                Self::Corrupt(if is_named { reason } else { format!("{file}: {reason}") })
            }
            Self::Open { .. } | Self::Foreign { .. } | Self::Newer { .. } => self,
            other => Self::Open { file: file.display().to_string(), reason: other.to_string() },
        }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        if matches!(error, sqlx::Error::PoolTimedOut) {
            return Self::Busy;
        }
        let code = error.as_database_error().and_then(|error| error.code());
        // SQLite's primary result codes; the extended ones keep them in the low byte.
        match code.and_then(|code| code.parse::<u32>().ok()).map(|code| code & 0xff) {
            Some(5 | 6 | 9) => Self::Busy,
            Some(13) => Self::Full,
            // The second: what the file begins with is no database's.
            Some(11 | 26) => Self::Corrupt(error.to_string()),
            _ => Self::Failed(error.to_string()),
        }
    }
}
