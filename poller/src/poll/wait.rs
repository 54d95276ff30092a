//! Between two polls: a request that the exporter answers as soon as something happened, so
//! that events are here at once. Polls do not depend on it: it ends before the next begins, and
//! where it fails the next poll decides.

use std::time::Duration;

use tokio::time::Instant;
use wire::{Record, Time};

use super::check::check;
use super::failure::Failure;
use super::task::{Step, Task};
use crate::store::Cursor;

/// Longest wait that is asked for: exporters allow more.
const HOLD: Duration = Duration::from_secs(30);
/// A wait that would be shorter is left to the poll that follows.
const LEAST: Duration = Duration::from_millis(10);
/// What is left for the answer to come back and be stored, beside twice what the poll took.
const MARGIN: Duration = Duration::from_millis(40);

/// How a waiting request ended, when it did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waited {
    /// It brought events.
    Events,
    /// It brought none.
    Quiet,
    /// What it brought was not stored.
    NotStored,
}

impl Waited {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Quiet => "quiet",
            Self::NotStored => "not_stored",
        }
    }
}

/// Results of waiting requests that did not fail, as they are counted.
pub(crate) const RESULTS: [&str; 3] =
    [Waited::Events.as_str(), Waited::Quiet.as_str(), Waited::NotStored.as_str()];

impl Task {
    /// Takes in what happens, until shortly before `next`, when the next poll begins. `polled`
    /// is what the last poll took: how long an answer needs to get here.
    pub(super) async fn wait_for_events(&mut self, next: Instant, polled: Duration) {
        let margin = (2 * polled + MARGIN).min(self.timing.interval / 4);
        let (Some(until), Some(cut)) = (next.checked_sub(margin), next.checked_sub(margin / 4))
        else {
            return;
        };
        // Where the store is behind, the next poll sorts it out.
        while let (Some(cursor), None) = (self.cursor.clone(), &self.storing) {
            let begin = self.pace.not_before(Instant::now());
            if begin + LEAST > until {
                return;
            }
            tokio::time::sleep_until(begin).await;
            let begin = Instant::now();
            let wait = until.saturating_duration_since(begin).min(HOLD);
            if wait < LEAST {
                return;
            }
            let end = begin + wait;
            let deadline = cut.min(end + self.timing.timeout);
            let waited = self.wait_once(cursor, wait, deadline, end >= until, next).await;
            let result = waited.as_ref().map_or_else(|f| f.reason.as_str(), |it| it.as_str());
            self.tools.metrics.waits.with_label_values(&[result]).inc();
            match waited {
                Ok(Waited::Events) => self.pace.answered(Instant::now()),
                // One that is quiet before the time is over does not wait at all.
                Ok(Waited::Quiet) if Instant::now() + LEAST > end => {}
                Ok(_) => return,
                Err(failure) => {
                    tracing::debug!(
                        server = %self.target.id, reason = %failure.reason,
                        "waiting for events: {}", failure.message
                    );
                    return;
                }
            }
        }
    }

    async fn wait_once(
        &mut self,
        cursor: Cursor,
        wait: Duration,
        deadline: Instant,
        last: bool,
        next: Instant,
    ) -> Result<Waited, Failure> {
        let page = self.fetch(&cursor, Some(wait), deadline).await?;
        let now = Time::now();
        let checked = check(page, &cursor, now)?;
        let event = |record: &Record| matches!(record, Record::Event(_));
        let events = checked.page.entries.iter().any(|entry| event(&entry.record));
        // The poll that follows brings readings soon enough: they are not worth a write.
        if !events && (last || checked.page.entries.is_empty()) {
            return Ok(Waited::Quiet);
        }
        Ok(match self.take_in(checked, cursor, now, next).await? {
            Step::NotStored => Waited::NotStored,
            Step::More | Step::Done if events => Waited::Events,
            Step::More | Step::Done => Waited::Quiet,
        })
    }
}

/// Keeps a server that always has something to tell from being asked all the time: after the
/// first at most four answers a second, until it was quiet for a while.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    last: Option<Instant>,
    pause: Duration,
}

impl Pace {
    const FIRST: Duration = Duration::from_millis(100);
    const MOST: Duration = Duration::from_millis(250);
    const QUIET: Duration = Duration::from_secs(2);

    fn answered(&mut self, now: Instant) {
        let quiet = self.last.is_none_or(|last| now.saturating_duration_since(last) >= Self::QUIET);
        self.pause = if quiet { Self::FIRST } else { (2 * self.pause).min(Self::MOST) };
        self.last = Some(now);
    }

    /// When the next may be asked for.
    fn not_before(&self, now: Instant) -> Instant {
        self.last.map_or(now, |last| now.max(last + self.pause))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chatty_server_has_four_answers_a_second_until_it_is_quiet() {
        let start = Instant::now();
        let mut pace = Pace::default();
        assert_eq!(pace.not_before(start), start, "the first is asked for at once");
        let mut now = start;
        let mut answers = Vec::new();
        while now < start + Duration::from_secs(10) {
            answers.push(now - start);
            pace.answered(now);
            now = pace.not_before(now);
        }
        for second in 1..10 {
            let second = Duration::from_secs(second);
            let within =
                answers.iter().filter(|at| (second..second + Duration::from_secs(1)).contains(at));
            assert_eq!(within.count(), 4, "{answers:?}");
        }
        assert!(answers.iter().filter(|at| at.as_millis() < 1000).count() <= 5, "{answers:?}");
        let later = now + Duration::from_secs(3);
        assert_eq!(pace.not_before(later), later);
        pace.answered(later);
        assert_eq!(pace.not_before(later) - later, Pace::FIRST);
    }
}
