//! The time that alerts are judged by: nobody sets it, so that no condition holds for longer or shorter
//! than it does. What is told of it is told by the time of day.

use tokio::time::Instant;
use wire::Time;

/// A time of day that goes off by more, in milliseconds, was set.
const SET: u64 = 5000;

/// The time of day when the program started, and on from there by the clock that nobody sets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    start: Time,
    begun: Instant,
    /// By how many milliseconds the time of day is ahead of it.
    pub(super) behind: i64,
}

impl Clock {
    pub(super) fn new() -> Self {
        Self { start: Time::now(), begun: Instant::now(), behind: 0 }
    }

    /// Takes it up when the time of day was set, or the machine slept. Not every little difference:
    /// what is told of one moment is to stay the same.
    pub(super) fn compare(&mut self, time_of_day: Time) {
        let behind = time_of_day.millis_since(self.now());
        if behind.abs_diff(self.behind) > SET {
            self.behind = behind;
        }
    }

    pub(super) fn now(&self) -> Time {
        self.start.plus_millis(i64::try_from(self.begun.elapsed().as_millis()).unwrap_or(i64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_time_of_day_that_is_set_is_taken_up_and_little_differences_are_not() {
        let mut clock = Clock::new();
        for (by, behind) in
            [(3000, 0), (3_600_000, 3_600_000), (3_602_000, 3_600_000), (-20, -20), (-5000, -20)]
        {
            clock.compare(clock.now().plus_millis(by));
            assert_eq!(clock.behind, behind, "{by}");
        }
    }
}
