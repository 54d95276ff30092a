//! What a server said while its clock was ahead. While it is, all that it says is refused: nobody knows
//! what is true of it. Once the clock is right again, its journal still has entries of that time, and
//! behind them what is true now: they must not keep that out until their time has come.

use std::time::Duration;

use tokio::time::Instant;
use wire::{Entry, JournalPage, Record, State, Time};

/// A server's clock may be ahead by so much, in milliseconds.
pub(super) const AHEAD: i64 = 60_000;
/// So long entries of the future are refused although the server's clock is right: who tests it, or
/// lies, is told so.
const REFUSED: Duration = Duration::from_secs(20);

/// What becomes of entries of the future.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Future {
    /// The page is refused.
    Refused,
    /// They are set right: see [`set_right`].
    SetRight,
}

/// Since when a server whose clock is right has had entries of the future.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ahead(Option<Instant>);

impl Ahead {
    /// What becomes of those of a page that came at `at`, when it was `now`.
    pub(super) fn judge(&mut self, page: &JournalPage, now: Time, at: Instant) -> Future {
        let is_right = page.now.millis_since(now) <= AHEAD;
        if !is_right || page.entries.iter().all(|entry| entry.time.millis_since(now) <= AHEAD) {
            self.0 = None;
            return Future::Refused;
        }
        let since = *self.0.get_or_insert(at);
        if at.saturating_duration_since(since) < REFUSED {
            Future::Refused
        } else {
            Future::SetRight
        }
    }
}

/// Times in what a server says of the present that have not come, though its clock is right now: a clock
/// that was set back leaves such ones. When it was is not known; it was there, so what has to have a time
/// has the present one.
pub(super) fn forget_ahead(state: &mut State, now: Time) {
    let is_ahead = |time: &Time| time.millis_since(now) > AHEAD;
    let forget = |time: &mut Option<Time>| *time = time.filter(|time| !is_ahead(time));
    let clamp = |time: &mut Time| {
        if is_ahead(time) {
            *time = now;
        }
    };
    clamp(&mut state.exporter.started_at);
    let homes = state.homes.iter_mut().chain([&mut state.pm2]);
    homes.filter_map(|pm2| pm2.confirmed_at.as_mut()).for_each(clamp);
    if let Some(host) = &mut state.host {
        forget(&mut host.booted_at);
    }
    for process in &mut state.processes {
        forget(&mut process.started_at);
        if let Some(exit) = &mut process.last_exit {
            clamp(&mut exit.at);
        }
    }
    for slot in &mut state.slots {
        forget(&mut slot.deployed_at);
        if let Some(more) = &mut slot.more {
            forget(&mut more.last_deploy_at);
        }
    }
}

/// What was done to entries of the future.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Corrected {
    /// Samples that are left out: readings belong to a moment.
    pub(super) samples: u64,
    /// Events that have the time of what followed them, and else the present.
    pub(super) events: u64,
    /// By how much the furthest was ahead, in milliseconds.
    pub(super) ahead: i64,
}

/// Sets entries of the future right; `None` where there are none.
pub(super) fn set_right(entries: &mut Vec<Entry>, now: Time) -> Option<Corrected> {
    let mut done = Corrected::default();
    let mut next = now;
    for entry in entries.iter_mut().rev() {
        let ahead = entry.time.millis_since(now);
        if ahead <= AHEAD {
            next = entry.time.min(now);
            continue;
        }
        done.ahead = done.ahead.max(ahead);
        match &mut entry.record {
            Record::Sample(_) => done.samples += 1,
            Record::Event(event) => {
                done.events += 1;
                event.details.insert("told_time".to_owned(), entry.time.to_string());
                entry.time = next;
            }
        }
    }
    entries.retain(|entry| entry.time.millis_since(now) <= AHEAD);
    (done.ahead > 0).then_some(done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::{Event, EventKind, JournalPosition, Sample, Severity};

    fn now() -> Time {
        Time::from_millis(1_700_000_000_000)
    }

    fn entry(seq: u64, millis: i64, is_event: bool) -> Entry {
        let record = match is_event {
            true => Record::Event(Event::new(EventKind::EXIT, Severity::Info, "exit")),
            false => Record::Sample(Sample { host: None, processes: Vec::new() }),
        };
        Entry { seq, time: now().plus_millis(millis), record }
    }

    #[test]
    fn events_keep_their_order_and_samples_of_no_moment_go() {
        let mut entries = vec![
            entry(1, -9_000, true),
            entry(2, 3_600_000, false),
            entry(3, 3_601_000, true),
            entry(4, -3_000, true),
            entry(5, -2_000, false),
            entry(6, 60_001, true),
        ];
        let done = set_right(&mut entries, now());
        assert_eq!(done, Some(Corrected { samples: 1, events: 2, ahead: 3_601_000 }));
        let left: Vec<_> = entries.iter().map(|it| (it.seq, it.time.millis_since(now()))).collect();
        assert_eq!(left, [(1, -9_000), (3, -3_000), (4, -3_000), (5, -2_000), (6, 0)]);
        let Record::Event(event) = &entries[1].record else { panic!("an event") };
        assert_eq!(event.details["told_time"], now().plus_millis(3_601_000).to_string());
        assert_eq!(set_right(&mut vec![entry(1, 60_000, false)], now()), None);
    }

    #[test]
    fn they_are_refused_for_a_while_and_for_as_long_as_the_clock_is_ahead() {
        let page = |ahead: i64, entries: Vec<Entry>| JournalPage {
            now: now().plus_millis(ahead),
            journal: JournalPosition { epoch: "e".into(), first: 1, next: 9 },
            after: 8,
            lost: 0,
            anew: false,
            more: false,
            state_revision: 0,
            state: None,
            entries,
        };
        let future = || vec![entry(1, 3_600_000, false)];
        let begin = Instant::now();
        let after = |seconds| begin + Duration::from_secs(seconds);
        let mut ahead = Ahead::default();
        let mut judge = |page: JournalPage, seconds| ahead.judge(&page, now(), after(seconds));
        for seconds in [0, 30, 60] {
            assert_eq!(judge(page(3_600_000, future()), seconds), Future::Refused);
        }
        assert_eq!(judge(page(0, future()), 70), Future::Refused);
        assert_eq!(judge(page(0, future()), 89), Future::Refused);
        assert_eq!(judge(page(0, future()), 90), Future::SetRight);
        assert_eq!(judge(page(0, vec![entry(1, 0, false)]), 91), Future::Refused, "none is");
        assert_eq!(judge(page(0, future()), 92), Future::Refused, "it begins anew");
    }
}
