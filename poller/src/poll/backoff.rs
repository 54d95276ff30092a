use std::time::Duration;

use super::failure::Reason;
use crate::world::random;

/// A server that stays away is looked for at least this often.
const MOST: Duration = Duration::from_secs(60);
/// And in one of this many intervals.
const INTERVALS: u32 = 6;

/// How many polls of a server that is offline are left out: more with every failure, and never
/// the same number for all, so that those that went away together are not asked together. What
/// is left out is whole intervals: polls stay at their offset.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Backoff {
    /// Failures in a row for one reason while it was offline.
    count: u32,
    reason: Option<Reason>,
}

impl Backoff {
    /// It answered.
    pub(super) fn answered(&mut self) {
        *self = Self::default();
    }

    /// A poll failed: how many to leave out. None as long as the server is not yet `offline`,
    /// and when it fails in a new way: something happened there.
    pub(super) fn failed(&mut self, reason: Reason, offline: bool, interval: Duration) -> u32 {
        let new = self.reason.replace(reason) != Some(reason);
        if !offline || new {
            self.count = 0;
            return 0;
        }
        self.count = (self.count + 1).min(INTERVALS);
        let longest = MOST.as_nanos() / interval.as_nanos().max(1);
        let most = u32::try_from(longest).unwrap_or(u32::MAX).clamp(1, INTERVALS) - 1;
        let most = most.min((1 << self.count) - 1);
        // Where there is no randomness, all are left out alike.
        let random = random().unwrap_or(u32::MAX);
        most / 2 + random % (most - most / 2 + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);

    #[test]
    fn polls_are_left_out_more_and_more_and_not_alike() {
        let mut all = Vec::new();
        for _ in 0..100 {
            let mut backoff = Backoff::default();
            let mut next = |offline| backoff.failed(Reason::Connect, offline, INTERVAL);
            assert_eq!([next(false), next(false), next(false)], [0; 3], "not offline yet");
            let left_out: Vec<u32> = (0..10).map(|_| next(true)).collect();
            assert!(left_out[0] <= 1 && left_out[1] <= 3, "{left_out:?}");
            assert!(left_out[2..].iter().all(|count| (2..=5).contains(count)), "{left_out:?}");
            all.push(left_out);
        }
        all.dedup();
        assert!(all.len() > 50, "they are not in step");
    }

    #[test]
    fn a_new_reason_and_an_answer_begin_anew() {
        let mut backoff = Backoff::default();
        for _ in 0..10 {
            backoff.failed(Reason::Connect, true, INTERVAL);
        }
        assert_eq!(backoff.failed(Reason::Status, true, INTERVAL), 0);
        for _ in 0..10 {
            backoff.failed(Reason::Status, true, INTERVAL);
        }
        backoff.answered();
        assert_eq!(backoff.failed(Reason::Status, true, INTERVAL), 0);
    }

    #[test]
    fn no_pause_is_longer_than_a_minute() {
        for (seconds, most) in [(60, 0), (30, 1), (20, 2), (3600, 0)] {
            let mut backoff = Backoff::default();
            for _ in 0..50 {
                let out = backoff.failed(Reason::Connect, true, Duration::from_secs(seconds));
                assert!(out <= most, "{out} of {seconds} s");
            }
        }
    }
}
