//! What a receiver was told, and so what it has to be told: the difference between that and what
//! holds now. There is no queue that could overflow: a receiver that was away for a day hears how
//! things are, not how they were.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use wire::Time;

use super::alert::{Active, Key, Ledger};
use super::receiver::Receiver;

/// Most alerts in one message; what is left goes in the next.
pub const MAX_NOTICES: usize = 100;
/// After a failure: so long, then twice as long each time, at most the second.
const RETRY: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(300);
/// A receiver that asks for more patience than this gets this.
const PATIENCE: Duration = Duration::from_secs(900);

/// An alert within a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Which.
    pub key: Key,
    /// Since when it holds, or held.
    pub since: Time,
    /// When it was found to be over; `None` while it holds.
    pub ended: Option<Time>,
    /// What is said of it, with values.
    pub description: String,
}

/// What one request to a receiver says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// When it was made.
    pub time: Time,
    /// What holds first, then what is over.
    pub notices: Vec<Notice>,
    /// More that did not fit.
    pub left: usize,
}

impl Message {
    /// How many of its alerts hold.
    pub fn firing(&self) -> usize {
        self.notices.iter().filter(|notice| notice.ended.is_none()).count()
    }

    /// The same with all its times so many milliseconds later.
    pub(super) fn later_by(&self, millis: i64) -> Self {
        let notice = |notice: &Notice| Notice {
            since: notice.since.plus_millis(millis),
            ended: notice.ended.map(|time| time.plus_millis(millis)),
            ..notice.clone()
        };
        Self {
            time: self.time.plus_millis(millis),
            notices: self.notices.iter().map(notice).collect(),
            left: self.left,
        }
    }
}

/// An alert that a receiver knows of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Told {
    since: Time,
    at: Time,
    description: String,
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Book {
    told: BTreeMap<Key, Told>,
    /// When the first change came that is not told yet.
    window: Option<Time>,
    /// Failures in a row.
    failures: u32,
    not_before: Option<Time>,
    untold: usize,
}

impl Book {
    /// What was told in an earlier life of the program.
    ///
    /// # Errors
    /// It is not what [`Self::kept`] gave.
    pub fn restored(text: &str, now: Time) -> serde_json::Result<Self> {
        let told: Vec<(Key, Told)> = serde_json::from_str(text)?;
        let known = told.into_iter().filter(|(key, _)| key.of().is_some());
        let told = known.map(|(key, told)| (key, Told { at: told.at.min(now), ..told }));
        Ok(Self { told: told.collect(), ..Self::default() })
    }

    /// What must outlive the program, with times so many milliseconds later.
    pub fn kept(&self, millis: i64) -> String {
        let later = |told: &Told| Told {
            since: told.since.plus_millis(millis),
            at: told.at.plus_millis(millis),
            ..told.clone()
        };
        let told: Vec<(&Key, Told)> =
            self.told.iter().map(|(key, told)| (key, later(told))).collect();
        serde_json::to_string(&told).unwrap_or_default()
    }

    /// Changes that the receiver does not know of yet, as of the last look.
    pub fn untold(&self) -> usize {
        self.untold
    }

    /// Failures since the last success.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// What has to be told now, if anything.
    pub fn message(&mut self, now: Time, ledger: &Ledger, receiver: &Receiver) -> Option<Message> {
        let holds = |key: &Key, active: &Active| {
            let hold = receiver.hold.or_else(|| key.of().map(|alert| alert.hold));
            let hold = hold.map_or(i64::MAX, millis);
            receiver.wants(key, active) && now.millis_since(active.since) >= hold
        };
        // What it is no longer to hear of is not over.
        self.told.retain(|key, _| {
            ledger.active().get(key).is_none_or(|active| receiver.wants(key, active))
        });
        let (mut new, mut again, mut over) = (Vec::new(), Vec::new(), Vec::new());
        for (key, active) in ledger.active().iter().filter(|(key, active)| holds(key, active)) {
            let list = match self.told.get(key) {
                None => &mut new,
                Some(told) if now.millis_since(told.at) >= millis(receiver.repeat_interval) => {
                    &mut again
                }
                Some(_) => continue,
            };
            list.push(Notice {
                key: key.clone(),
                since: active.since,
                ended: None,
                description: active.description.clone(),
            });
        }
        for (key, told) in &self.told {
            if !ledger.active().get(key).is_some_and(|active| holds(key, active)) {
                over.push(Notice {
                    key: key.clone(),
                    since: told.since,
                    ended: Some(now),
                    description: told.description.clone(),
                });
            }
        }
        if !receiver.resolved {
            for notice in over.drain(..) {
                self.told.remove(&notice.key);
            }
        }
        self.untold = new.len() + over.len();
        if self.untold == 0 {
            self.window = None;
        } else {
            let begun = *self.window.get_or_insert(now);
            if now.millis_since(begun) < millis(receiver.group_wait) {
                return None;
            }
        }
        let early = self.not_before.is_some_and(|time| now < time);
        let all = new.len() + over.len() + again.len();
        if all == 0 || early {
            return None;
        }
        let mut notices: Vec<Notice> = new.into_iter().chain(over).chain(again).collect();
        notices.truncate(MAX_NOTICES);
        notices.sort_by_key(|notice| notice.ended.is_some());
        Some(Message { time: now, left: all - notices.len(), notices })
    }

    /// The receiver took the message.
    pub fn sent(&mut self, now: Time, message: Message) {
        for Notice { key, since, ended, description } in message.notices {
            match ended {
                None => self.told.insert(key, Told { since, at: now, description }),
                Some(_) => self.told.remove(&key),
            };
        }
        // What did not fit follows at once.
        if message.left == 0 {
            self.window = None;
        }
        (self.failures, self.not_before) = (0, None);
    }

    /// It did not; `wait` is how long it asks to be left alone.
    pub fn failed(&mut self, now: Time, wait: Option<Duration>) {
        let pause = RETRY.saturating_mul(1u32 << self.failures.min(16)).min(RETRY_MAX);
        let pause = pause.max(wait.unwrap_or_default().min(PATIENCE));
        self.failures = self.failures.saturating_add(1);
        self.not_before = Some(now.plus_millis(millis(pause)));
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[path = "book_tests.rs"]
pub(crate) mod tests;
