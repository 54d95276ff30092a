//! The configuration file, looked at again and again: what changes in it is used without a
//! signal. By its times, size and number, and not by the kernel's word, which network file
//! systems and mounted directories do not give.

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::registry::Sign;

/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// See the module.
#[derive(Debug)]
pub struct Watched {
    path: Option<PathBuf>,
    /// Of the version that was read last.
    read: Option<Sign>,
    /// Of the version that was seen last: one is read once it has stayed for a look.
    seen: Option<Sign>,
    ticks: Interval,
}

impl Watched {
    /// Of a file that was read a moment ago, if there is one.
    pub fn new(path: Option<PathBuf>) -> Self {
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut this = Self { path, read: None, seen: None, ticks };
        this.is_read();
        this
    }

    /// It is read now, for another reason.
    pub fn is_read(&mut self) {
        self.read = self.path.as_deref().and_then(Sign::of);
        self.seen = self.read;
    }

    /// Until there is another version of it. One that is gone is none.
    pub async fn changed(&mut self) {
        loop {
            self.ticks.tick().await;
            if self.look() {
                return;
            }
        }
    }

    /// Whether there is another version, which has stayed since the last look.
    fn look(&mut self) -> bool {
        let Some(path) = &self.path else { return false };
        let now = Sign::of(path);
        let stays = now == self.seen;
        self.seen = now;
        let is_new = now.is_some() && now != self.read && stays;
        if is_new {
            self.read = now;
        }
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_change_is_told_once_when_it_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("poller.toml");
        std::fs::write(&path, "a").unwrap();
        let mut watched = Watched::new(Some(path.clone()));
        assert!(!watched.look());
        std::fs::remove_file(&path).unwrap();
        assert!(!watched.look() && !watched.look(), "gone is no change");
        std::fs::write(&path, "ab").unwrap();
        assert!(!watched.look(), "it may be half written");
        assert!(watched.look());
        assert!(!watched.look(), "told once");
        std::fs::write(&path, "abc").unwrap();
        watched.is_read();
        assert!(!watched.look() && !watched.look(), "read meanwhile");
        assert!(!Watched::new(None).look());
    }
}
