use std::collections::VecDeque;

use wire::Time;

/// Readings that a window is judged by.
const POINTS: i64 = 12;

/// Where a reading is heading: a line through what it was over a window of time.
#[derive(Clone, Debug)]
pub(super) struct Trend {
    window: i64,
    points: VecDeque<(Time, f64)>,
}

impl Trend {
    /// `window` in milliseconds.
    pub(super) fn new(window: i64) -> Self {
        Self { window, points: VecDeque::new() }
    }

    /// Takes a reading; all but a few of them are left out.
    pub(super) fn note(&mut self, now: Time, value: f64) {
        if let Some((last, _)) = self.points.back() {
            let apart = now.millis_since(*last);
            if (0..self.window / POINTS).contains(&apart) {
                return;
            }
            // A line over a hole says little, one back in time nothing.
            if apart < 0 || apart > self.window / 2 {
                self.points.clear();
            }
        }
        self.points.push_back((now, value));
        while self.points.get(1).is_some_and(|(time, _)| now.millis_since(*time) >= self.window) {
            self.points.pop_front();
        }
    }

    /// Whether it has been watched for so long, in milliseconds.
    pub(super) fn spans(&self, now: Time, length: i64) -> bool {
        self.points.front().is_some_and(|(first, _)| now.millis_since(*first) >= length)
    }

    /// The line's value now and its slope a millisecond.
    pub(super) fn line(&self, now: Time) -> Option<(f64, f64)> {
        if self.points.len() < 3 {
            return None;
        }
        let count = self.points.len() as f64;
        let points =
            || self.points.iter().map(|(time, value)| (-now.millis_since(*time) as f64, *value));
        let mean_x = points().map(|(x, _)| x).sum::<f64>() / count;
        let mean_y = points().map(|(_, y)| y).sum::<f64>() / count;
        let across = points().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum::<f64>();
        let along = points().map(|(x, _)| (x - mean_x) * (x - mean_x)).sum::<f64>();
        let slope = if along > 0.0 { across / along } else { 0.0 };
        Some((mean_y - slope * mean_x, slope))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    #[test]
    fn a_line_is_found_and_a_hole_forgets_it() {
        let mut trend = Trend::new(2 * HOUR);
        let mut now = Time::from_millis(0);
        for minute in 0..=150 {
            now = Time::from_millis(minute * 60_000);
            trend.note(now, 1000.0 - minute as f64);
        }
        assert!(trend.spans(now, 2 * HOUR) && trend.points.len() <= 14, "{trend:?}");
        let (value, slope) = trend.line(now).unwrap();
        assert!((value - 850.0).abs() < 0.001, "{value}");
        assert!((slope * 60_000.0 + 1.0).abs() < 1e-9, "{slope}");
        let later = now.plus_millis(HOUR + 1);
        trend.note(later, 0.0);
        assert!(!trend.spans(later, HOUR) && trend.line(later).is_none());
    }
}
