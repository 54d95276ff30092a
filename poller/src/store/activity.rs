//! What the writer has to do, and did: for the program's own metrics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counted since the start.
#[derive(Debug, Default)]
pub(super) struct Counts {
    commits: AtomicU64,
    failed: AtomicU64,
    pieces: AtomicU64,
    micros: AtomicU64,
}

impl Counts {
    /// A commit of so many pieces ended.
    pub(super) fn add(&self, pieces: usize, took: Duration, good: bool) {
        let commits = if good { &self.commits } else { &self.failed };
        commits.fetch_add(1, Ordering::Relaxed);
        self.pieces.fetch_add(pieces as u64, Ordering::Relaxed);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }

    pub(super) fn now(&self, queue: usize) -> Activity {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Activity {
            queue: queue as u64,
            commits: read(&self.commits),
            failed: read(&self.failed),
            pieces: read(&self.pieces),
            seconds: read(&self.micros) as f64 / 1e6,
        }
    }
}

/// The writer's work.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Activity {
    /// Pieces of work that wait now.
    pub queue: u64,
    /// Commits that are on the disk.
    pub commits: u64,
    /// Commits that came to nothing.
    pub failed: u64,
    /// Pieces of work that were in any of them: what a server said, a command, ….
    pub pieces: u64,
    /// Time that commits took.
    pub seconds: f64,
}
