use std::collections::VecDeque;

use wire::Time;

/// Changes that are remembered one by one; beyond it, one that others are near to is taken for the next.
const MAX: usize = 32;

/// By how much a counter rose within a window of time, as Prometheus' `increase` has it: what
/// was there when it was first seen is no rise, nor is a fall.
#[derive(Clone, Debug)]
pub(super) struct Rise {
    window: i64,
    noted: Time,
    /// What it was at the window's beginning, then when it became what; never empty.
    values: VecDeque<(Time, u64)>,
}

impl Rise {
    /// `window` in milliseconds.
    pub(super) fn new(window: i64, now: Time, value: u64) -> Self {
        Self { window, noted: now, values: VecDeque::from([(now, value)]) }
    }

    /// The same, where it is known when it rose to `value` before: by one at each of these times, the
    /// oldest first.
    pub(super) fn after(window: i64, now: Time, value: u64, rises: &[Time]) -> Self {
        let known = rises.len().min(MAX - 1).min(usize::try_from(value).unwrap_or(usize::MAX));
        let rises = &rises[rises.len() - known..];
        let Some(first) = rises.first() else { return Self::new(window, now, value) };
        let before = value - known as u64;
        let values = rises.iter().zip(before + 1..).map(|(time, value)| (*time, value));
        Self {
            window,
            noted: now,
            values: std::iter::once((*first, before)).chain(values).collect(),
        }
    }

    pub(super) fn note(&mut self, now: Time, value: u64) {
        let last = self.values.back().map_or(value, |(_, value)| *value);
        // Nobody knows when a rise came that was not seen for so long.
        if value < last || now.millis_since(self.noted) > self.window {
            self.values.clear();
        }
        self.noted = now;
        if self.values.back().is_none_or(|(_, last)| *last != value) {
            self.values.push_back((now, value));
        }
        while self.values.get(1).is_some_and(|(time, _)| now.millis_since(*time) >= self.window) {
            self.values.pop_front();
        }
        if self.values.len() > MAX {
            let around = |at: &usize| self.values[at + 1].0.millis_since(self.values[at - 1].0);
            // Not the first: that is what the window began with.
            if let Some(at) = (1..MAX).min_by_key(around) {
                self.values.remove(at);
            }
        }
    }

    /// As of the last note.
    pub(super) fn by(&self) -> u64 {
        let ends = self.values.back().zip(self.values.front());
        ends.map_or(0, |((_, last), (_, first))| last.saturating_sub(*first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(seconds: i64) -> Time {
        Time::from_millis(seconds * 1000)
    }

    #[test]
    fn what_rose_within_the_window_counts() {
        let mut rise = Rise::new(60_000, at(0), 7);
        assert_eq!(rise.by(), 0, "what was there before is no rise");
        for (second, value, by) in
            [(10, 8, 1), (20, 10, 3), (65, 10, 3), (70, 10, 2), (80, 10, 0), (90, 3, 0), (95, 4, 1)]
        {
            rise.note(at(second), value);
            assert_eq!(rise.by(), by, "at {second}");
        }
        rise.note(at(200), 9);
        assert_eq!(rise.by(), 0, "it was not seen for longer than the window");
    }

    #[test]
    fn what_is_known_of_before_counts() {
        let rise = |value, times: &[i64]| {
            let times: Vec<Time> = times.iter().map(|second| at(*second)).collect();
            Rise::after(60_000, at(100), value, &times)
        };
        assert_eq!(rise(7, &[]).by(), 0);
        assert_eq!(rise(2, &[50, 60, 70]).by(), 2, "no more than there is");
        assert_eq!(rise(99, &[60; 99]).by(), 31);
        let mut rise = rise(7, &[45, 60, 70]);
        assert_eq!(rise.by(), 3);
        for (second, value, by) in [(101, 7, 3), (105, 8, 3), (125, 8, 2), (131, 8, 1)] {
            rise.note(at(second), value);
            assert_eq!(rise.by(), by, "at {second}");
        }
    }

    #[test]
    fn what_rises_all_the_time_is_counted_nearly_as_it_is() {
        let mut rise = Rise::new(600_000, at(0), 0);
        for crashes in 1..=2_000 {
            let second = 2 * crashes;
            rise.note(at(second), crashes.unsigned_abs());
            if second >= 600 {
                assert!((285..=315).contains(&rise.by()), "{} at {second}", rise.by());
            }
        }
        for second in (4_005..4_600).step_by(5) {
            rise.note(at(second), 2_000);
        }
        rise.note(at(4_601), 2_000);
        assert_eq!(rise.by(), 0);
    }

    proptest! {
        #[test]
        fn never_more_than_rose_in_all_and_all_of_it_while_the_window_lasts(
            steps in proptest::collection::vec((1i64..5_000, 0u64..50), 1..200)
        ) {
            let mut rise = Rise::new(60_000, at(0), 0);
            let (mut now, mut value) = (at(0), 0);
            for (after, more) in steps {
                (now, value) = (now.plus_millis(after), value + more);
                rise.note(now, value);
                prop_assert!(rise.by() <= value);
                prop_assert!(rise.values.len() <= MAX);
                if now.as_millis() < 60_000 {
                    prop_assert_eq!(rise.by(), value);
                }
            }
        }
    }
}
