//! One simulated server: its processes and its journal, brought up to date whenever somebody
//! looks. Pure: the moment is always given.

use std::collections::VecDeque;

use serde_json::value::RawValue;
use wire::{
    Entry, Event, EventKind, ExporterInfo, JournalPosition, Pm2State, Record, RestartCause, Sample,
    Severity, State, Status, Time,
};

use super::Settings;
use super::commands::Book;
use super::noise::{between, mixed, pause};
use super::processes::{self, Simulated};
use super::readings;

/// From a crash to the process being online again, in milliseconds.
const BACK: i64 = 120;

/// What a number of the journal stands for.
#[derive(Debug)]
enum Kept {
    /// Made anew whenever it is asked for.
    Sample,
    Event(Box<Event>),
}

/// Entries after a position.
#[derive(Debug)]
pub struct Page {
    /// Where the journal stands.
    pub journal: JournalPosition,
    /// The entries, as JSON.
    pub entries: Vec<Box<RawValue>>,
    /// Position after the last of them.
    pub after: u64,
    /// Entries between the position asked for and the oldest kept.
    pub lost: u64,
    /// The position asked for is none of this journal's.
    pub anew: bool,
    /// More are there already.
    pub more: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Machine {
    seed: u64,
    hostname: String,
    epoch: String,
    booted: Time,
    started: Time,
    sample_interval: i64,
    crash_every: u64,
    keep: usize,
    pub(super) processes: Vec<Simulated>,
    kept: VecDeque<(Time, Kept)>,
    next: u64,
    last_event: u64,
    revision: u64,
    next_sample: Time,
    next_crash: Option<Time>,
    crashes: u64,
    /// Processes that come back: when, and the index.
    returning: VecDeque<(Time, usize, RestartCause)>,
    pub(super) commands: Book,
}

impl Machine {
    /// Server `number` of a fleet, whose exporter was started at `now`.
    pub fn new(number: u32, settings: &Settings, now: Time) -> Self {
        let seed = mixed(settings.seed, 1 + u64::from(number));
        let booted = now.plus_millis(-(between(seed, 1, 3_600, 5_000_000) as i64) * 1000);
        let sample_interval = (settings.sample_interval.as_millis() as i64).max(1);
        let crash_every = settings.crash_every.as_millis() as u64;
        Self {
            seed,
            hostname: format!("vm{number}"),
            epoch: format!("{:016x}", mixed(seed, now.as_millis().unsigned_abs())),
            booted,
            started: now,
            sample_interval,
            crash_every,
            keep: settings.entries.max(1),
            processes: processes::all(seed, booted),
            kept: VecDeque::new(),
            next: 1,
            last_event: 0,
            revision: 1,
            // The servers of a fleet do not sample in step.
            next_sample: now.plus_millis(between(seed, 2, 0, sample_interval as u64 - 1) as i64),
            next_crash: (crash_every > 0).then(|| now.plus_millis(pause(seed, 3, crash_every))),
            crashes: 0,
            returning: VecDeque::new(),
            commands: Book::new(settings.command_time),
        }
    }

    /// Makes happen what was to happen until `now`.
    pub fn advance(&mut self, now: Time) {
        // Nobody looked for so long that the journal would have run over: what is lost anyway
        // is only counted.
        let behind = now.millis_since(self.next_sample) / self.sample_interval;
        let skip = behind - self.keep as i64;
        if skip > 0 {
            self.next_sample = self.next_sample.plus_millis(skip * self.sample_interval);
            self.next += skip.unsigned_abs();
            self.kept.clear();
        }
        while let Some((at, what)) = self.due().filter(|(at, _)| *at <= now) {
            match what {
                Due::Sample => {
                    self.next_sample = at.plus_millis(self.sample_interval);
                    self.keep(at, Kept::Sample);
                }
                Due::Crash => self.crash(at),
                Due::Return => self.back(at),
                Due::Command => self.end_command(at),
            }
        }
    }

    /// What happens next, and when.
    fn due(&self) -> Option<(Time, Due)> {
        [
            Some((self.next_sample, Due::Sample)),
            self.next_crash.map(|at| (at, Due::Crash)),
            self.returning.front().map(|(at, ..)| (*at, Due::Return)),
            self.commands.due().map(|at| (at, Due::Command)),
        ]
        .into_iter()
        .flatten()
        .min_by_key(|(at, _)| *at)
    }

    /// When something other than a sample happens next.
    pub fn next_event(&self) -> Option<Time> {
        let returning = self.returning.front().map(|(at, ..)| *at);
        [self.next_crash, returning, self.commands.due()].into_iter().flatten().min()
    }

    fn keep(&mut self, at: Time, kept: Kept) {
        if self.kept.len() >= self.keep {
            self.kept.pop_front();
        }
        self.kept.push_back((at, kept));
        self.next += 1;
    }

    /// Something happens.
    pub fn tell(&mut self, at: Time, event: Event) {
        self.last_event = self.next;
        self.revision += 1;
        self.keep(at, Kept::Event(Box::new(event)));
    }

    /// An application crashes now, and comes back.
    pub fn crash(&mut self, at: Time) {
        self.crashes += 1;
        self.next_crash = (self.crash_every > 0)
            .then(|| at.plus_millis(pause(self.seed, 3 + self.crashes, self.crash_every)));
        let apps: Vec<usize> = (0..self.processes.len())
            .filter(|index| self.processes[*index].is_node() && self.processes[*index].is_online())
            .collect();
        if apps.is_empty() {
            return;
        }
        let index = apps[mixed(self.seed, self.crashes) as usize % apps.len()];
        self.end(index, at, Some(1), RestartCause::Crash, Status::WaitingRestart);
        self.come_back(index, at, RestartCause::Crash);
    }

    /// Process `index` ends.
    pub(super) fn end(
        &mut self,
        index: usize,
        at: Time,
        code: Option<i32>,
        cause: RestartCause,
        then: Status,
    ) {
        self.processes[index].ended(at, code, then);
        let crash = cause == RestartCause::Crash;
        let severity = if crash { Severity::Warning } else { Severity::Info };
        let mut event = self.event_of(index, EventKind::EXIT, severity, "ended");
        event.exit_code = code;
        event.cause = Some(cause);
        self.tell(at, event);
    }

    /// Process `index` is to be online again soon.
    pub(super) fn come_back(&mut self, index: usize, at: Time, cause: RestartCause) {
        self.returning.push_back((at.plus_millis(BACK), index, cause));
    }

    fn back(&mut self, at: Time) {
        let Some((_, index, cause)) = self.returning.pop_front() else { return };
        self.processes[index].started(at, Some(cause));
        let mut event = self.event_of(index, EventKind::ONLINE, Severity::Info, "is online");
        event.cause = Some(cause);
        self.tell(at, event);
    }

    pub(super) fn event_of(
        &self,
        index: usize,
        kind: EventKind,
        severity: Severity,
        what: &str,
    ) -> Event {
        let process = &self.processes[index];
        let mut event = Event::new(kind, severity, format!("{} {what}", process.instance.name));
        event.app = Some(process.instance.name.clone());
        event.namespace = Some(process.instance.namespace.clone());
        event.instance_id = Some(0);
        event.pm_id = Some(process.pm_id());
        event
    }

    /// The exporter starts anew and has lost its journal.
    pub fn restart(&mut self, now: Time) {
        self.started = now;
        self.epoch = format!("{:016x}", mixed(self.seed, now.as_millis().unsigned_abs() ^ 0xee));
        self.kept.clear();
        self.next = 1;
        self.last_event = 0;
        self.revision = 1;
    }

    /// Changes with every event.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Where the journal stands.
    pub fn position(&self) -> JournalPosition {
        JournalPosition {
            epoch: self.epoch.as_str().into(),
            first: self.next - self.kept.len() as u64,
            next: self.next,
        }
    }

    /// Whether a request that waits behind this position has to wait.
    pub fn has_to_wait(&self, epoch: Option<&str>, after: u64) -> bool {
        epoch.is_none_or(|epoch| epoch == self.epoch)
            && after < self.next
            && self.last_event <= after
    }

    /// At most `limit` entries after `after` of `epoch`; of another epoch, from the oldest.
    pub fn page(&self, epoch: Option<&str>, after: u64, limit: usize) -> Page {
        let journal = self.position();
        let same = epoch.is_none_or(|epoch| epoch == self.epoch);
        let anew = !same || after >= self.next;
        let after = if anew { 0 } else { after };
        let lost = journal.first.saturating_sub(after + 1);
        let begin = after + lost + 1;
        let skip = (begin - journal.first) as usize;
        let mut last = begin - 1;
        let mut entries = Vec::new();
        for (time, kept) in self.kept.iter().skip(skip).take(limit) {
            last += 1;
            entries.extend(self.json(last, *time, kept));
        }
        Page { more: last + 1 < journal.next, journal, entries, after: last, lost, anew }
    }

    fn json(&self, seq: u64, time: Time, kept: &Kept) -> Option<Box<RawValue>> {
        let record = match kept {
            Kept::Sample => Record::Sample(Sample {
                host: Some(readings::host(self.seed, self.booted, time)),
                processes: self.processes.iter().map(|it| it.sampled(time)).collect(),
            }),
            Kept::Event(event) => Record::Event((**event).clone()),
        };
        serde_json::value::to_raw_value(&Entry { seq, time, record }).ok()
    }

    /// Everything now.
    pub fn state(&self, now: Time) -> State {
        State {
            time: now,
            revision: self.revision,
            exporter: ExporterInfo {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                started_at: self.started,
                hostname: self.hostname.clone(),
                os: "linux".to_owned(),
                arch: "x86_64".to_owned(),
                token_expiries: Vec::new(),
            },
            pm2: Pm2State {
                up: true,
                error: None,
                version: Some("7.0.4".to_owned()),
                home: "/home/app/.pm2".to_owned(),
                dump_missing: Some(0),
                dump_extra: Some(0),
                drifts: 0,
                confirmed_at: Some(now),
            },
            homes: Vec::new(),
            host: Some(readings::host(self.seed, self.booted, now)),
            processes: self.processes.iter().map(|it| it.process(now)).collect(),
            slots: self.processes.iter().filter_map(Simulated::slot).collect(),
            journal: self.position(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    Sample,
    Crash,
    Return,
    Command,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn numbers_have_no_hole_and_what_is_pushed_out_is_lost() {
        let begin = Time::from_millis(1_700_000_000_000);
        let settings =
            Settings { entries: 50, crash_every: Duration::from_secs(60), ..Settings::default() };
        let mut machine = Machine::new(3, &settings, begin);
        let (mut after, mut seen) = (0, 0);
        for minute in 1..=60 {
            machine.advance(begin.plus_millis(minute * 60_000));
            let page = machine.page(Some(&machine.epoch), after, 1000);
            assert_eq!((page.lost, page.more), (0, false));
            for json in &page.entries {
                let entry: Entry = serde_json::from_str(json.get()).unwrap();
                after += 1;
                seen += u64::from(matches!(entry.record, Record::Event(_)));
                assert_eq!(entry.seq, after);
            }
        }
        assert!((20..=400).contains(&seen), "{seen} events of about 60 crashes");
        machine.advance(begin.plus_millis(48 * 3_600_000));
        let page = machine.page(Some(&machine.epoch), after, 1000);
        assert!(page.lost > 10_000 && page.entries.len() == 50, "{}", page.lost);
        assert_eq!(page.after + 1, page.journal.next);
    }
}
