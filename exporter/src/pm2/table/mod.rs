//! The process table, kept from the bus and confirmed by PM2's own list. Pure: it takes what
//! PM2 said and gives the events that follow; nothing here waits or reads.

mod bus;
mod ledger;
mod list;
mod view;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use wire::{AppName, Event, EventKind, Instance, RestartCause, Severity, SmolStr, Status, Time};

use super::model::Listed;
use crate::filter::Filter;
use ledger::Ledger;

pub use ledger::{DueLog, LogLook};
pub use view::LogFile;

/// Apps whose counters are remembered after the last of their processes is gone.
const MAX_LEDGERS: usize = 5_000;

/// What was deleted within this many milliseconds before the daemon went, went with it.
const KILL_TAKES: i64 = 10_000;

/// What follows from something that PM2 said.
#[derive(Debug, Default, PartialEq)]
pub struct Outcome {
    /// What happened.
    pub events: Vec<(Time, Event)>,
    /// PM2's list should be asked for within this time: something may have changed that the
    /// bus does not tell.
    pub list_within: Option<Duration>,
    /// Anything other than readings changed.
    pub changed: bool,
    /// A list had what the bus should have told.
    pub drifted: bool,
}

/// What this program itself is about to ask PM2 for: who asks over the socket, unlike the
/// `pm2` command, is not told about on the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intent {
    /// Ends and starts again, for this reason.
    Restart(RestartCause),
    /// Is deleted, and another is started in its place, for this reason.
    Replace(RestartCause),
    /// Ends for good.
    Stop,
}

/// What is still to be learnt of a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Undecided {
    /// Nothing.
    Not,
    /// PM2 was asked to restart or to reload: the next event or list decides.
    Asked,
    /// A new worker came while the old one ran: the end of the old one decides.
    Replaced,
}

/// How the last run of a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It has not, as far as is known.
    Not,
    /// By itself: what follows is a restart of this cause.
    ByItself(RestartCause),
    /// Another is started in its place for this cause: it may be deleted by now.
    Replaced(RestartCause),
    /// PM2 was asked to end it, and may say why.
    Asked,
    /// PM2 was asked to stop it, gave up on it, or leaves it as it is done: what follows is a start.
    Stopped,
}

#[derive(Clone, Debug)]
struct Row {
    listed: Listed,
    instance: Instance,
    end: End,
    /// A start whose cause is not known yet.
    undecided: Undecided,
    /// Start of the run whose end was told, so that a second `exit` is not.
    told_end_of: Option<Time>,
    /// Start that was told, so that the bus does not tell it again behind a list.
    told_start: Option<Time>,
    /// PM2 gave up on it, to be told behind its exit.
    gave_up: bool,
    /// Number of the bus event that changed it last.
    touched: u64,
}

impl Row {
    /// It does not run, PM2 does not start it again by itself, and it may be deleted by now: the
    /// bus does not say.
    fn may_be_gone(&self) -> bool {
        matches!(self.end, End::Asked | End::Stopped | End::Replaced(_))
            && !matches!(self.listed.status, Status::Online)
    }

    /// Whether it is of this app; PM2 gives numbers of deleted processes to others.
    fn is_of(&self, listed: &Listed) -> bool {
        self.instance.name == listed.name && self.instance.namespace == listed.namespace
    }

    /// Its end was told, and a list has the run after that one: the list is newer, whenever it was
    /// asked for, since the bus may come late.
    fn is_followed_by(&self, listed: &Listed) -> bool {
        self.end != End::Not
            && listed.status == Status::Online
            && listed.started_at > self.listed.started_at.max(self.told_end_of)
    }

    /// Its number, if it is of the same app as another.
    fn number(&self, other: &Instance) -> Option<u32> {
        let same = self.instance.name == other.name && self.instance.namespace == other.namespace;
        same.then_some(self.instance.instance_id)
    }
}

/// Every process that PM2 has.
#[derive(Debug)]
pub struct Table {
    rows: BTreeMap<u32, Row>,
    ledgers: HashMap<Instance, Ledger>,
    exits: HashMap<u32, (i32, Box<str>)>,
    over_memory: Vec<u32>,
    intents: HashMap<AppName, Intent>,
    /// What a daemon that is gone had: whoever starts it anew, that is a restart nobody saw.
    orphans: HashSet<Instance>,
    /// What was found deleted, and when: perhaps by a daemon that is about to go.
    deleted: Vec<(Time, Instance)>,
    filter: Filter,
    /// The daemon's directory, where there are several.
    home: Option<SmolStr>,
    heard: u64,
    /// The daemon's list was taken: what starts from now on is told.
    known: bool,
    /// Counters changed since they were last written.
    counted: bool,
}

impl Default for Table {
    fn default() -> Self {
        Self::new(Filter { modules: true, ..Filter::default() })
    }
}

impl Table {
    /// Empty; apps that `filter` does not take are as if PM2 did not have them.
    pub fn new(filter: Filter) -> Self {
        Self {
            rows: BTreeMap::new(),
            ledgers: HashMap::new(),
            exits: HashMap::new(),
            over_memory: Vec::new(),
            intents: HashMap::new(),
            orphans: HashSet::new(),
            deleted: Vec::new(),
            filter,
            home: None,
            heard: 0,
            known: false,
            counted: false,
        }
    }

    /// Everything that it tells says that it is of this daemon.
    #[must_use]
    pub fn in_home(self, home: Option<SmolStr>) -> Self {
        Self { home, ..self }
    }

    /// How many bus events were applied: to be noted when a list is asked for.
    pub fn heard(&self) -> u64 {
        self.heard
    }

    /// The daemon is gone, and what it knew with it. Counters stay.
    pub fn clear(&mut self, now: Time) {
        let rows = std::mem::take(&mut self.rows).into_values().map(|row| row.instance);
        // `pm2 kill` deletes everything first, one after the other.
        let deleted = std::mem::take(&mut self.deleted).into_iter();
        let deleted = deleted.filter(|(at, _)| now.millis_since(*at) < KILL_TAKES);
        // The daemon may be looked for many times until there is one.
        if self.known {
            self.orphans = rows.chain(deleted.map(|(_, instance)| instance)).collect();
        }
        self.known = false;
        self.exits.clear();
        self.over_memory.clear();
    }

    /// What is about to be asked of PM2 for an app; `None` when it is over.
    pub fn intend(&mut self, app: &AppName, intent: Option<Intent>) {
        match intent {
            Some(intent) => self.intents.insert(app.clone(), intent),
            None => self.intents.remove(app),
        };
    }

    /// A row that was thought to be gone leaves its number to another. If it turns out to be there
    /// after all it gets a number of its own. `there` says of which rows that is certain.
    fn tell_apart(&mut self, there: impl Fn(&Row) -> bool) {
        let mut held: HashSet<&Instance> = HashSet::with_capacity(self.rows.len());
        // The newest keeps it: it is who continues the series.
        let twice: Vec<u32> = self
            .rows
            .iter()
            .rev()
            .filter(|(_, row)| there(row) && !held.insert(&row.instance))
            .map(|(pm_id, _)| *pm_id)
            .collect();
        for pm_id in twice {
            let Some(row) = self.rows.get(&pm_id) else { continue };
            let mut instance = row.instance.clone();
            let taken: Vec<u32> =
                self.rows.values().filter_map(|row| row.number(&instance)).collect();
            let Some(free) = (0..).find(|number| !taken.contains(number)) else { continue };
            instance.instance_id = free;
            self.ledgers.entry(instance.clone()).or_default();
            if let Some(row) = self.rows.get_mut(&pm_id) {
                row.instance = instance;
            }
        }
    }

    /// Bytes of log seen on the bus.
    pub fn logged(&mut self, pm_id: u32, is_error: bool, bytes: u64) {
        if let Some(row) = self.rows.get(&pm_id)
            && let Some(ledger) = self.ledgers.get_mut(&row.instance)
        {
            let count =
                if is_error { &mut ledger.log_err_bytes } else { &mut ledger.log_out_bytes };
            *count = count.saturating_add(bytes);
        }
    }

    /// The process number, read from PM2's file.
    pub fn set_pid(&mut self, pm_id: u32, pid: u32) {
        if let Some(row) = self.rows.get_mut(&pm_id) {
            row.listed.pid = Some(pid);
        }
    }
}

fn event_of(row: &Row, kind: EventKind, severity: Severity) -> Event {
    Event {
        app: Some(row.instance.name.clone()),
        namespace: Some(row.instance.namespace.clone()),
        instance_id: Some(row.instance.instance_id),
        pm2_home: row.instance.pm2_home.clone(),
        pm_id: Some(row.listed.pm_id),
        ..Event::new(kind, severity, "")
    }
}

fn deleted(row: &Row) -> Event {
    Event {
        message: format!("{} is no longer in PM2's list", row.instance.name),
        ..event_of(row, EventKind::DELETE, Severity::Info)
    }
}

#[cfg(test)]
mod tests;
