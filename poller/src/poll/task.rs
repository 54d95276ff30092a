use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval_at};
use wire::{JournalPage, MAX_BODY_BYTES, Record, State, Time};

use super::ahead::Ahead;
use super::backoff::Backoff;
use super::check::{self, Checked};
use super::clock::Clock;
use super::failure::{Failure, Reason};
use super::flood::Flood;
use super::freshen::freshen;
use super::offset::until_next;
use super::rates::Counters;
use super::wait::Pace;
use super::{Tools, ask, told};
use crate::client::{CallError, Line};
use crate::config::{Target, Timing};
use crate::fleet::News;
use crate::store::{Cursor, Ingest, Ingesting, StoreError};
use crate::world;

/// Pages taken in one poll; the rest waits for the next, so that a server with a long backlog
/// does not hold up its own present.
const MAX_PAGES: usize = 20;

/// Polls one server.
pub(super) struct Task {
    pub(super) tools: Tools,
    pub(super) target: Arc<Target>,
    pub(super) timing: Timing,
    keep_raw: i64,
    /// Where the store's cursor stands; `None` until it is read, and after it was moved by
    /// somebody else.
    pub(super) cursor: Option<Cursor>,
    /// Revision of the state that the server need not send again.
    revision: Option<u64>,
    counters: Counters,
    /// Number of the newest sample that these have: what could not be stored comes again.
    counted: u64,
    /// What was told last: online (true) or offline.
    told: Option<bool>,
    last_answer: Instant,
    /// What the store was still busy with when the poll's time was over.
    pub(super) storing: Option<Ingesting>,
    /// How long the store was waited for in this poll.
    stored: Duration,
    /// How often waiting requests may be answered.
    pub(super) pace: Pace,
    backoff: Backoff,
    pub(super) clock: Clock,
    ahead: Ahead,
    /// Its connection.
    line: Line,
    /// How much it has told.
    flood: Flood,
}

/// Most that samples wait for company on their way to the disk, and no more than a fiftieth of the
/// interval: for so long no request waits for events.
const PATIENCE: Duration = Duration::from_millis(200);

/// A store that is busy holds up no poll for longer than this beyond its time.
const GRACE: Duration = Duration::from_millis(50);

/// What asking for one page led to.
pub(super) enum Step {
    /// There is more.
    More,
    /// All is taken in.
    Done,
    /// The store would not take it: it is asked for again.
    NotStored,
}

impl Task {
    pub(super) fn new(tools: Tools, target: Arc<Target>, timing: Timing, keep_raw: i64) -> Self {
        Self {
            tools,
            target,
            timing,
            keep_raw,
            cursor: None,
            revision: None,
            counters: Counters::default(),
            counted: 0,
            told: None,
            last_answer: Instant::now(),
            storing: None,
            stored: Duration::ZERO,
            pace: Pace::default(),
            backoff: Backoff::default(),
            clock: Clock::new(),
            ahead: Ahead::default(),
            line: Line::default(),
            flood: Flood::new(Instant::now()),
        }
    }

    /// Polls, and waits for events between polls, until it is aborted.
    pub(super) async fn run(mut self) {
        let wait = until_next(&self.target.id, self.timing.interval, world::now());
        let mut ticks = interval_at(Instant::now() + wait, self.timing.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut awaited = None;
        loop {
            let due = ticks.tick().await;
            let begun = Instant::now();
            self.tools.metrics.poll_lateness.observe((begun - due).as_secs_f64());
            let next = next_after(due, self.timing.interval, begun);
            // What was waited for was asked for in good time: it is timed from when it was due.
            let start = if awaited.is_some() { due } else { begun };
            match self.poll(start, awaited.take()).await {
                Ok(()) => {
                    self.backoff.answered();
                    if self.timing.wait_for_events {
                        awaited = self.wait_for_events(next, start.elapsed()).await;
                    }
                }
                Err(reason) => {
                    let offline = self.last_answer.elapsed() >= self.timing.stale_after;
                    for _ in 0..self.backoff.failed(reason, offline, self.timing.interval) {
                        ticks.tick().await;
                    }
                }
            }
        }
    }

    /// One poll, with all that follows from how it ends. `first` is its first page, where that
    /// is here already.
    async fn poll(&mut self, start: Instant, first: Option<JournalPage>) -> Result<(), Reason> {
        let deadline = Instant::now() + self.timing.timeout;
        self.stored = Duration::ZERO;
        let failure = self.pages(first, deadline).await.err();
        // Storing mostly waits for company, and nobody for it.
        let duration = start.elapsed().saturating_sub(self.stored);
        let metrics = &self.tools.metrics;
        metrics.poll_duration.observe(duration.as_secs_f64());
        let result = failure.as_ref().map_or("success", |failure| failure.reason.as_str());
        metrics.polls.with_label_values(&[result]).inc();
        let id = &self.target.id;
        match &failure {
            Some(failure) => {
                tracing::debug!(server = %id, reason = %failure.reason, "{}", failure.message)
            }
            None => tracing::trace!(server = %id, ?duration, "polled"),
        }
        self.tools.fleet.polled(id, duration, failure.clone());
        let Some(failure) = failure else { return Ok(()) };
        self.tell_offline(&failure, deadline).await;
        Err(failure.reason)
    }

    async fn pages(
        &mut self,
        mut first: Option<JournalPage>,
        deadline: Instant,
    ) -> Result<(), Failure> {
        self.stored_meanwhile().await;
        for _ in 0..MAX_PAGES {
            let cursor = match &self.cursor {
                Some(cursor) => cursor.clone(),
                None => {
                    let read = tokio::time::timeout_at(deadline, self.read_cursor()).await;
                    match read.unwrap_or(Err(StoreError::Busy)) {
                        Ok(cursor) => cursor,
                        // Without its cursor nothing can be taken in; the server is not to
                        // blame.
                        Err(error) => {
                            self.store_failed(&error);
                            return Ok(());
                        }
                    }
                }
            };
            let page = match first.take() {
                Some(page) => page,
                None => self.fetch(&cursor, None, deadline).await?,
            };
            let now = world::now();
            let checked = self.check(page, &cursor)?;
            match self.take_in(checked, cursor, now, or_grace(deadline)).await? {
                Step::More => {}
                Step::Done | Step::NotStored => return Ok(()),
            }
        }
        Ok(())
    }

    /// Whether a page may be taken in.
    pub(super) fn check(&mut self, page: JournalPage, from: &Cursor) -> Result<Checked, Failure> {
        let now = self.clock.latest();
        let future = self.ahead.judge(&page, now, Instant::now());
        check::check(page, from, now, future)
    }

    async fn read_cursor(&mut self) -> Result<Cursor, StoreError> {
        let known = self.tools.store.known_server(&self.target.id).await?;
        self.told = known.online;
        self.revision = None;
        if let Some(last) = known.last_success
            && let Ok(age) = u64::try_from(world::now().millis_since(last))
            && let Some(then) = Instant::now().checked_sub(Duration::from_millis(age))
        {
            self.last_answer = self.last_answer.min(then);
        }
        self.cursor = Some(known.cursor.clone());
        Ok(known.cursor)
    }

    /// Asks for the page after `cursor`; with `wait` only once there is an event, or it is over.
    pub(super) async fn fetch(
        &mut self,
        cursor: &Cursor,
        wait: Option<Duration>,
        deadline: Instant,
    ) -> Result<JournalPage, Failure> {
        let path = ask::path(cursor, self.revision, wait);
        let time = deadline.saturating_duration_since(Instant::now());
        let within = self.timing.timeout;
        let Self { line, tools, target, .. } = self;
        let (status, body) = line
            .ask(&tools.client, target, &path, time, MAX_BODY_BYTES)
            .await
            .map_err(|error| match error {
                // What was left of the poll's time is not what people configured.
                CallError::Timeout(_) => {
                    Failure::new(Reason::Timeout, format!("no answer within {within:?}"))
                }
                other => other.into(),
            })?;
        ask::page(status, &body)
    }

    /// Stores and shows what a page brought; the store is waited for until `until`.
    pub(super) async fn take_in(
        &mut self,
        checked: Checked,
        from: Cursor,
        now: Time,
        until: Instant,
    ) -> Result<Step, Failure> {
        let id = self.target.id.clone();
        let Checked { cursor, anew, mut page, corrected } = checked;
        // What went before the first answer of a new server was never anybody's.
        if from.epoch.is_empty() {
            page.lost = 0;
        }
        let mut told = Vec::new();
        let mut flood = self.flood;
        if let Some(gone) = flood.pass(Instant::now(), &mut page.entries) {
            told.push((now, told::flood(&id, gone)));
        }
        if page.lost > 0 {
            told.push((now, told::lost(&page, &from)));
        } else if anew {
            told.push((now, told::reset(&page, &from)));
        }
        if let Some(corrected) = corrected {
            told.push((now, told::ahead(&id, corrected)));
        }
        let back = self.told != Some(true);
        if back {
            told.push((now, told::online(&id)));
        }
        let (mut counted, mut host_cpu) = (false, Vec::new());
        if anew {
            self.counted = 0;
        }
        for entry in &page.entries {
            if let Record::Sample(sample) = &entry.record
                && entry.seq > self.counted
            {
                self.counted = entry.seq;
                self.counters.next(entry.time, sample);
                host_cpu.extend(self.counters.host_cpu().map(|cpu| (entry.time, cpu)));
                counted = true;
            }
        }
        let sent = page.state.take().map(Arc::<State>::from);
        let rates = counted.then(|| self.counters.rates());
        let (lost, clock) = (page.lost, Some(page.now));
        let news = News { state: sent.clone(), rates, host_cpu, lost, clock };
        self.tools.fleet.answered(&id, now, news, |state| freshen(state, &page));
        self.last_answer = Instant::now();

        let (events, samples) = count(&page);
        let ingest = Ingest {
            server: id,
            from,
            to: cursor.clone(),
            entries: page.entries,
            state: sent.clone(),
            told,
            answered: Some(now),
            online: back.then_some(true),
            keep_from: now.plus_millis(-self.keep_raw),
            patience: (self.timing.interval / 50).min(PATIENCE),
        };
        match self.store(ingest, until).await {
            Ok(()) => {
                self.flood = flood;
                self.cursor = Some(cursor);
                self.told = Some(true);
                if let Some(state) = sent {
                    self.revision = Some(state.revision);
                }
                self.tools.metrics.entries.with_label_values(&["event"]).inc_by(events);
                self.tools.metrics.entries.with_label_values(&["sample"]).inc_by(samples);
                Ok(if page.more { Step::More } else { Step::Done })
            }
            Err(StoreError::TooMany(what)) => {
                Err(Failure::new(Reason::Limits, format!("too many different {what}")))
            }
            Err(error) => {
                self.store_failed(&error);
                // Everything is asked for again next time, the state included.
                self.revision = None;
                if error == StoreError::Moved {
                    self.cursor = None;
                }
                Ok(Step::NotStored)
            }
        }
    }

    /// Stores, or gives up waiting when the time is over: showing what is now does not depend
    /// on the disk. What is under way then is waited for by the next poll.
    async fn store(&mut self, ingest: Ingest, until: Instant) -> Result<(), StoreError> {
        if self.storing.is_some() {
            return Err(StoreError::Busy);
        }
        let begun = Instant::now();
        let storing = &mut self.storing;
        let ended = tokio::time::timeout_at(until, async {
            let ingesting = self.tools.store.begin_ingest(ingest).await?;
            storing.insert(ingesting).await
        })
        .await;
        self.stored += begun.elapsed();
        let stored = ended.map_err(|_| StoreError::Busy)?;
        self.storing = None;
        stored.map(drop)
    }

    /// Looks whether what an earlier poll left under way is stored by now.
    async fn stored_meanwhile(&mut self) {
        let Some(storing) = &mut self.storing else { return };
        let Ok(stored) = tokio::time::timeout(Duration::ZERO, storing).await else { return };
        self.storing = None;
        // It moved the cursor, or it did not: the database knows.
        self.cursor = None;
        if let Err(error) = stored {
            self.store_failed(&error);
        }
    }

    fn store_failed(&self, error: &StoreError) {
        self.tools.metrics.store_errors.with_label_values(&[error.label()]).inc();
        tracing::warn!(server = %self.target.id, %error, "what the server said was not stored");
    }

    async fn tell_offline(&mut self, failure: &Failure, deadline: Instant) {
        let silence = self.last_answer.elapsed();
        if self.told == Some(false) || silence < self.timing.stale_after {
            return;
        }
        let Some(cursor) = self.cursor.clone() else { return };
        let event = told::offline(&self.target.id, silence, failure);
        let now = world::now();
        let ingest = Ingest {
            server: self.target.id.clone(),
            from: cursor.clone(),
            to: cursor,
            entries: Vec::new(),
            state: None,
            told: vec![(now, event)],
            answered: None,
            online: Some(false),
            keep_from: now,
            patience: Duration::ZERO,
        };
        match self.store(ingest, or_grace(deadline)).await {
            Ok(()) => self.told = Some(false),
            Err(error) => self.store_failed(&error),
        }
    }
}

/// The first beginning after `begun` among those that `due` is one of: as the ticker counts.
fn next_after(due: Instant, interval: Duration, begun: Instant) -> Instant {
    let late = begun.saturating_duration_since(due).as_nanos();
    let missed = late / interval.as_nanos().max(1);
    due + interval * u32::try_from(missed.saturating_add(1)).unwrap_or(u32::MAX)
}

fn or_grace(deadline: Instant) -> Instant {
    deadline.max(Instant::now() + GRACE)
}

fn count(page: &JournalPage) -> (u64, u64) {
    let events =
        page.entries.iter().filter(|entry| matches!(entry.record, Record::Event(_))).count();
    (events as u64, (page.entries.len() - events) as u64)
}
