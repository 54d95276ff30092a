//! Between two polls: a request that the exporter answers as soon as something happened, so
//! that events are here at once. It ends when the next poll is due, and its answer is that poll:
//! a quiet server is asked once an interval. Polls do not depend on it: where it fails, or ends
//! too early or too late, the poll asks by itself.

use std::time::Duration;

use tokio::time::Instant;
use wire::{JournalPage, Record};

use super::failure::Failure;
use super::task::{Step, Task};
use crate::store::Cursor;
use crate::world;

/// Longest wait that is asked for: exporters allow more.
const HOLD: Duration = Duration::from_secs(30);
/// A wait that would be shorter is left to the poll that follows.
const LEAST: Duration = Duration::from_millis(10);
/// How late the answer that makes a poll may come, beside twice what the last poll took. One
/// that is later is given up, and the poll asks anew.
const LATE: Duration = Duration::from_millis(250);

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
    /// Takes in what happens until `due`, when the next poll begins. The last request is
    /// answered then, and with all that a poll asks for: that page is given, and the poll need
    /// not ask. `took` is what the last poll took.
    pub(super) async fn wait_for_events(
        &mut self,
        due: Instant,
        took: Duration,
    ) -> Option<JournalPage> {
        let late = (LATE + 2 * took).min(self.timing.timeout / 2).min(self.timing.interval / 4);
        // Where the store is behind, the next poll sorts it out.
        while let (Some(cursor), None) = (self.cursor.clone(), &self.storing) {
            let now = Instant::now();
            let begin = self.pace.not_before(now);
            if begin + LEAST > due {
                return None;
            }
            if begin > now {
                tokio::time::sleep_until(begin).await;
            }
            let wait = due.saturating_duration_since(Instant::now()).min(HOLD);
            if wait < LEAST {
                return None;
            }
            let end = Instant::now() + wait;
            let page = match self.fetch(&cursor, Some(wait), end + late).await {
                Ok(page) => page,
                Err(failure) => {
                    self.wait_failed(&failure);
                    return None;
                }
            };
            if Instant::now() + LEAST > due {
                self.count_wait(Waited::Quiet.as_str());
                return Some(page);
            }
            match self.took_in(page, cursor, end, due).await {
                Ok(waited) => {
                    self.count_wait(waited.as_str());
                    match waited {
                        Waited::Events => self.pace.answered(Instant::now()),
                        // One that is quiet before the time is over does not wait at all.
                        Waited::Quiet if Instant::now() + LEAST > end => {}
                        Waited::Quiet | Waited::NotStored => return None,
                    }
                }
                Err(failure) => {
                    self.wait_failed(&failure);
                    return None;
                }
            }
        }
        None
    }

    /// What came before the next poll.
    async fn took_in(
        &mut self,
        page: JournalPage,
        cursor: Cursor,
        end: Instant,
        due: Instant,
    ) -> Result<Waited, Failure> {
        let now = world::now();
        let checked = self.check(page, &cursor)?;
        let event = |record: &Record| matches!(record, Record::Event(_));
        let events = checked.page.entries.iter().any(|entry| event(&entry.record));
        let early = Instant::now() + LEAST <= end;
        // The poll that follows brings readings soon enough: they are not worth a write.
        if !events && (early || checked.page.entries.is_empty()) {
            return Ok(Waited::Quiet);
        }
        Ok(match self.take_in(checked, cursor, now, due).await? {
            Step::NotStored => Waited::NotStored,
            Step::More | Step::Done if events => Waited::Events,
            Step::More | Step::Done => Waited::Quiet,
        })
    }

    fn wait_failed(&self, failure: &Failure) {
        self.count_wait(failure.reason.as_str());
        tracing::debug!(
            server = %self.target.id, reason = %failure.reason,
            "waiting for events: {}", failure.message
        );
    }

    fn count_wait(&self, result: &str) {
        self.tools.metrics.waits.with_label_values(&[result]).inc();
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
                answers.iter().filter(|at| (second..second + Duration::from_secs(1)).contains(*at));
            assert_eq!(within.count(), 4, "{answers:?}");
        }
        assert!(answers.iter().filter(|at| at.as_millis() < 1000).count() <= 5, "{answers:?}");
        let later = now + Duration::from_secs(3);
        assert_eq!(pace.not_before(later), later);
        pace.answered(later);
        assert_eq!(pace.not_before(later) - later, Pace::FIRST);
    }
}
