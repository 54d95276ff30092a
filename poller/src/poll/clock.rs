//! The time that a server's entries are held against. A clock that somebody sets back must not
//! turn what servers truly said before into times of the future: polls would fail for as long as
//! it was set back by.

use std::time::Duration;

use tokio::time::Instant;
use wire::Time;

use crate::world::now;

/// Runs on with the clock that nobody sets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    time: Time,
    since: Instant,
}

impl Clock {
    pub(super) fn new() -> Self {
        Self { time: now(), since: Instant::now() }
    }

    /// The time, or what it was when this began and how long ago that is, if that is later.
    pub(super) fn latest(&self) -> Time {
        later(now(), self.time, self.since.elapsed())
    }
}

fn later(now: Time, begun: Time, elapsed: Duration) -> Time {
    now.max(begun.plus_millis(i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_back_it_goes_on_and_set_forward_it_follows() {
        let begun = Time::from_millis(1_700_000_000_000);
        let after = |millis| begun.plus_millis(millis);
        let minute = Duration::from_secs(60);
        assert_eq!(later(after(60_000), begun, minute), after(60_000));
        assert_eq!(later(after(60_000 - 3_600_000), begun, minute), after(60_000));
        assert_eq!(later(after(60_000 + 3_600_000), begun, minute), after(3_660_000));
    }
}
