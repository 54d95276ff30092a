//! The last hour of one number in a few bytes: a fleet of thousands keeps one each.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use wire::Time;

use crate::app::App;
use crate::store::{HistoryQuery, Subject};

/// Steps kept, and the length of one in milliseconds.
const STEPS: usize = 12;
const LENGTH: i64 = 5 * 60 * 1000;

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub struct Trend {
    /// Number of the newest step, counted from 1970.
    newest: i64,
    /// Sum and count of each step, by number modulo [`STEPS`].
    steps: [(f32, u16); STEPS],
}

impl Trend {
    /// Takes a reading in. One that is older than the newest step's beginning by an hour is not
    /// kept.
    pub fn add(&mut self, time: Time, value: f64) {
        let step = time.as_millis().div_euclid(LENGTH);
        if !value.is_finite() || step <= self.newest - STEPS as i64 {
            return;
        }
        // What lies between the newest step and this one has no reading.
        for skipped in (self.newest + 1).max(step - STEPS as i64 + 1)..=step {
            self.steps[place(skipped)] = (0.0, 0);
        }
        self.newest = self.newest.max(step);
        let (sum, count) = &mut self.steps[place(step)];
        if *count < u16::MAX {
            *sum += value as f32;
            *count += 1;
        }
    }

    /// The means of the steps up to `now`, oldest first; `None` for a step without a reading.
    pub fn steps(&self, now: Time) -> Vec<Option<f64>> {
        let last = now.as_millis().div_euclid(LENGTH);
        (last - STEPS as i64 + 1..=last)
            .map(|step| {
                let kept = step <= self.newest && step > self.newest - STEPS as i64;
                let (sum, count) = self.steps[place(step)];
                (kept && count > 0).then(|| f64::from(sum) / f64::from(count))
            })
            .collect()
    }
}

/// Fills trends with what the store has of the time before this program started, one server
/// after the other: nobody waits for it. Goes on until `stop`.
pub async fn remember(app: &Arc<App>, stop: CancellationToken) {
    let now = Time::now();
    for member in app.fleet.all() {
        let server = member.target.id.clone();
        let query = HistoryQuery {
            server: server.clone(),
            subject: Subject::Host,
            metrics: vec!["cpu".to_owned()],
            from: now.plus_millis(-LENGTH * STEPS as i64),
            to: now,
            step_millis: LENGTH,
        };
        let read = tokio::select! {
            () = stop.cancelled() => return,
            read = app.store.history(&query) => read,
        };
        match read {
            Ok(series) => {
                let points = series.iter().flat_map(|series| &series.points);
                let cpu: Vec<_> = points.map(|point| (point.time, point.mean)).collect();
                app.fleet.remember(&server, &cpu);
            }
            Err(error) => {
                tracing::info!(%server, %error, "trends begin anew");
                break;
            }
        }
    }
    stop.cancelled().await;
}

fn place(step: i64) -> usize {
    step.rem_euclid(STEPS as i64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minutes: i64) -> Time {
        Time::from_millis(1_700_000_100_000 + minutes * 60_000)
    }

    #[test]
    fn an_hour_is_kept_with_its_gaps() {
        let mut trend = Trend::default();
        assert!(trend.steps(at(0)).iter().all(Option::is_none));
        trend.add(at(0), 0.2);
        trend.add(at(1), 0.4);
        trend.add(at(10), 1.0);
        // A page that came late, and one that came far too late.
        trend.add(at(6), 0.5);
        trend.add(at(-90), 9.0);
        trend.add(at(10), f64::NAN);
        let steps = trend.steps(at(10));
        let rounded: Vec<_> = steps.iter().map(|it| it.map(|it| (it * 100.0).round())).collect();
        assert_eq!(rounded[9..], [Some(30.0), Some(50.0), Some(100.0)]);
        assert!(rounded[..9].iter().all(Option::is_none));
        // Time goes on without readings: what there was moves out to the left.
        let later = trend.steps(at(30));
        assert_eq!(later.iter().position(Option::is_some), Some(5));
        assert!(trend.steps(at(100)).iter().all(Option::is_none));
        trend.add(at(300), 0.1);
        assert_eq!(trend.steps(at(300)).iter().flatten().count(), 1);
    }
}
