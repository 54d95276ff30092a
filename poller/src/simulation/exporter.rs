//! A simulated exporter: its journal, what it is commanded, and what it ever did.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use axum::http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::{Duration, Instant};
use wire::{
    CommandId, CommandRequest, CommandStatus, Entry, Event, EventKind, Instance, JournalPage,
    JournalPosition, Readings, Record, Sample, SampledProcess, Severity, Status, Time,
};

use super::limits::Excess;
use crate::client::Answer;
use crate::world::now;

/// Entries that a journal keeps.
const KEPT: usize = 120;

#[derive(Debug, Default)]
pub(super) struct Exporter {
    pub(super) name: String,
    /// Lives so far; the number of the first entry of each that the journal goes on with.
    pub(super) life: u64,
    lives: Vec<u64>,
    /// Lives that began with an empty journal.
    journals: BTreeSet<u64>,
    entries: VecDeque<Entry>,
    next: u64,
    revision: u64,
    last_event: u64,
    /// Wakes those who wait.
    pub(super) news: Arc<Notify>,
    /// Answers nobody.
    pub(super) down: bool,
    /// Is in every page.
    pub(super) excess: Option<Excess>,
    commands: HashMap<CommandId, (CommandRequest, Time, Instant)>,
    /// What was carried out, in order.
    pub(super) ran: Vec<CommandId>,
    /// Numbers of events ever told, and moments of samples ever taken.
    pub(super) told: BTreeSet<u64>,
    pub(super) sampled: BTreeSet<i64>,
    /// Those of them that a journal no longer had at some time before the poller asked for what follows
    /// them, which it does once they are its own; and the life that the journal began with.
    pub(super) gone: BTreeMap<u64, u64>,
    pub(super) gone_samples: BTreeMap<i64, u64>,
    /// The furthest that the poller ever asked behind in this journal.
    confirmed: u64,
    /// The life whose answer was the first that the poller kept: what it asked behind.
    first_kept: Option<u64>,
    /// Whether entries were pushed out, or a whole journal was lost.
    pub(super) overran: bool,
    pub(super) began_anew: bool,
}

impl Exporter {
    pub(super) fn new(name: &str) -> Self {
        let lives = vec![0];
        let journals = BTreeSet::from([0]);
        Self { name: name.to_owned(), next: 1, revision: 1, lives, journals, ..Self::default() }
    }

    fn epoch(&self) -> String {
        format!("life-{}", self.life)
    }

    fn first(&self) -> u64 {
        self.next - self.entries.len() as u64
    }

    fn add(&mut self, record: Record) {
        if self.entries.len() == KEPT {
            self.overran = true;
            if let Some(entry) = self.entries.pop_front() {
                self.forget(&entry);
            }
        }
        self.entries.push_back(Entry { seq: self.next, time: now(), record });
        self.next += 1;
    }

    fn forget(&mut self, entry: &Entry) {
        if entry.seq <= self.confirmed {
            return;
        }
        let journal = self.lives[0];
        match &entry.record {
            Record::Event(event) => {
                let number = event.message.parse().expect("a number");
                self.gone.insert(number, journal);
            }
            Record::Sample(_) => {
                self.gone_samples.insert(entry.time.as_millis(), journal);
            }
        }
    }

    /// Whether anybody could know that there was a journal that began with this life: those that
    /// were lost before the poller had kept anything of this server are nobody's loss.
    pub(super) fn was_known(&self, journal: u64) -> bool {
        self.first_kept.is_some_and(|life| {
            let begins = self.journals.range(..=life).next_back();
            begins.is_some_and(|first| journal >= *first)
        })
    }

    pub(super) fn event(&mut self) {
        self.event_of(EventKind::EXIT, None);
    }

    fn event_of(&mut self, kind: EventKind, end: Option<&CommandId>) {
        let number = self.told.len() as u64;
        self.told.insert(number);
        self.last_event = self.next;
        self.revision += 1;
        let mut event = Event::new(kind, Severity::Info, number.to_string());
        if let Some(id) = end {
            event.tell_end(id, CommandStatus::Succeeded);
        }
        self.add(Record::Event(event));
        self.news.notify_waiters();
    }

    pub(super) fn sample(&mut self) {
        self.sampled.insert(now().as_millis());
        let readings = Readings { memory_bytes: Some(50 << 20), ..Readings::default() };
        let instance = Instance {
            name: "api".parse().expect("a name"),
            namespace: "default".into(),
            instance_id: 0,
            pm2_home: None,
        };
        let process = SampledProcess { instance, status: Status::Online, restarts: 0, readings };
        self.add(Record::Sample(Sample { host: None, processes: vec![process] }));
    }

    /// Starts anew: with its journal, or without.
    pub(super) fn restart(&mut self, with_journal: bool) {
        self.life += 1;
        self.commands.clear();
        self.revision = 1;
        self.news.notify_waiters();
        if with_journal {
            self.lives.push(self.life);
            return;
        }
        self.began_anew = true;
        for entry in std::mem::take(&mut self.entries) {
            self.forget(&entry);
        }
        self.confirmed = 0;
        self.lives = vec![self.life];
        self.journals.insert(self.life);
        self.next = 1;
        self.last_event = 0;
    }

    /// Whether a request behind this position would be answered at once.
    pub(super) fn has_news(&self, query: &HashMap<String, String>) -> bool {
        let after = query.get("after").and_then(|after| after.parse().ok()).unwrap_or(0);
        query.get("epoch") != Some(&self.epoch()) || self.last_event > after
    }

    /// As the real one's `Journal::page`.
    pub(super) fn journal(&mut self, query: &HashMap<String, String>) -> Answer {
        let epoch = query.get("epoch");
        let life = epoch.and_then(|epoch| epoch.strip_prefix("life-")?.parse::<u64>().ok());
        self.first_kept = self.first_kept.or(life);
        let asked: u64 = query.get("after").and_then(|after| after.parse().ok()).unwrap_or(0);
        let of_this = life.is_none_or(|life| self.lives.contains(&life)) && asked < self.next;
        if of_this && life.is_some() {
            self.confirmed = self.confirmed.max(asked);
        }
        let (after, anew) = (if of_this { asked } else { 0 }, !of_this);
        let limit = query.get("limit").and_then(|limit| limit.parse().ok()).unwrap_or(1000);
        let lost = self.first().saturating_sub(after + 1);
        let entries: Vec<Entry> =
            self.entries.iter().filter(|entry| entry.seq > after).take(limit).cloned().collect();
        let after = entries.last().map_or(after + lost, |entry| entry.seq);
        let known = epoch == Some(&self.epoch())
            && query.get("known_state") == Some(&self.revision.to_string());
        let journal =
            JournalPosition { epoch: self.epoch().into(), first: self.first(), next: self.next };
        let mut page = JournalPage {
            now: now(),
            more: after + 1 < journal.next,
            journal: journal.clone(),
            entries,
            after,
            lost,
            anew,
            state_revision: self.revision,
            state: (!known).then(|| {
                let state = json!({
                    "time": now(), "revision": self.revision, "pm2": {"up": true, "home": "/h"},
                    "exporter": {"version": "1", "started_at": now(), "hostname": self.name,
                                 "os": "linux", "arch": "x"},
                    "processes": [], "slots": [], "journal": journal,
                });
                serde_json::from_value(state).expect("a state")
            }),
        };
        if let Some(excess) = self.excess {
            excess.put_into(&mut page);
        }
        answer(StatusCode::OK, &page)
    }

    /// Takes a command, or says what became of it.
    pub(super) fn command(
        &mut self,
        method: &Method,
        id: &CommandId,
        body: Option<&[u8]>,
        takes: Duration,
    ) -> Answer {
        if method == Method::PUT && !self.commands.contains_key(id) {
            let request = serde_json::from_slice(body.expect("a body")).expect("a command");
            self.commands.insert(id.clone(), (request, now(), Instant::now() + takes));
            self.ran.push(id.clone());
            self.event_of(EventKind::COMMAND, Some(id));
        }
        let Some((request, since, end)) = self.commands.get(id) else {
            let problem =
                json!({"type": "unknown_command", "status": 404, "title": "", "detail": ""});
            return answer(StatusCode::NOT_FOUND, &problem);
        };
        let ended = Instant::now() >= *end;
        let record = json!({
            "id": id, "target": request.target, "action": request.action,
            "status": if ended { "succeeded" } else { "running" },
            "requested_by": "poller", "requested_at": since,
        });
        answer(if ended { StatusCode::OK } else { StatusCode::ACCEPTED }, &record)
    }

    /// When a command is over, as far as is known here.
    pub(super) fn ends(&self, id: &CommandId) -> Instant {
        self.commands.get(id).map_or_else(Instant::now, |(_, _, end)| *end)
    }
}

fn answer(status: StatusCode, body: &impl serde::Serialize) -> Answer {
    let body: Value = serde_json::to_value(body).expect("JSON");
    Answer { status, headers: HeaderMap::new(), body: body.to_string().into() }
}
