use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::SystemTime;

/// Younger than this, a file may change again without looking changed: clocks of file systems
/// tick coarsely.
const FRESH: i64 = 2;

/// What tells one version of a file from the next without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sign {
    modified: (i64, i64),
    changed: (i64, i64),
    size: u64,
    number: u64,
}

impl Sign {
    /// Of the file as it is now; `None` when there is none.
    pub fn of(path: &Path) -> Option<Self> {
        std::fs::metadata(path).ok().as_ref().map(Self::from)
    }

    /// Whether the file was changed a moment ago.
    pub fn is_fresh(&self) -> bool {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = now.map_or(0, |since| since.as_secs().cast_signed());
        (now - self.changed.0).abs() <= FRESH
    }
}

impl From<&Metadata> for Sign {
    fn from(file: &Metadata) -> Self {
        Self {
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
            size: file.size(),
            number: file.ino(),
        }
    }
}
