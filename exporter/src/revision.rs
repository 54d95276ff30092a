//! A number that changes whenever anything but readings changes, so that the poller fetches
//! the state only then.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Shared by everything that the state is made of.
#[derive(Clone, Debug, Default)]
pub struct Revision(Arc<AtomicU64>);

impl Revision {
    /// Something changed.
    pub fn bump(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// The number now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
