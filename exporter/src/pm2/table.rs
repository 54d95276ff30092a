//! The process table, kept from the bus and confirmed by PM2's own list. Pure: it takes what
//! PM2 said and gives the events that follow; nothing here waits or reads.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use exposition::compat::PeerProcess;
use serde::{Deserialize, Serialize};
use wire::{
    AppName, Event, EventKind, ExitInfo, Instance, Process, Readings, RestartCause, RestartCounts,
    Severity, Status, Time,
};

use super::custom::NodeMetrics;
use super::model::{DaemonLine, Exception, Kept, Listed, ProcessEvent};

/// Apps whose counters are remembered after the last of their processes is gone.
const MAX_LEDGERS: usize = 5_000;

/// Where PM2 keeps what an instance prints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFile {
    /// The instance, or the first that shares the file.
    pub instance_id: u32,
    /// stderr; stdout otherwise.
    pub is_error: bool,
    /// The file.
    pub path: Box<str>,
}

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
}

/// Counters of an instance: they outlive `pm_id`, `pm2 reset`, the daemon and, where there is a
/// file for them, this program.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Ledger {
    restarts: RestartCounts,
    exceptions: u64,
    /// Start of the run that was counted last.
    last_start: Option<Time>,
    /// PM2's own restart counter then.
    restart_time: u64,
    last_exit: Option<ExitInfo>,
    log_out_bytes: u64,
    log_err_bytes: u64,
}

/// An instance's counters, as they are kept in a file.
#[derive(Debug, Serialize, Deserialize)]
struct KeptLedger {
    #[serde(flatten)]
    instance: Instance,
    #[serde(flatten)]
    ledger: Ledger,
}

/// What this program itself is about to ask PM2 for: who asks over the socket, unlike the
/// `pm2` command, is not told about on the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intent {
    /// Ends and starts again, for this reason.
    Restart(RestartCause),
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
    /// PM2 was asked to end it, and may say why.
    Asked,
    /// PM2 was asked to stop it: what follows is a start.
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
    /// It was ended by hand and may be deleted by now: the bus does not say.
    fn may_be_gone(&self) -> bool {
        matches!(self.end, End::Asked) && !matches!(self.listed.status, Status::Online)
    }
}

/// Every process that PM2 has.
#[derive(Debug, Default)]
pub struct Table {
    rows: BTreeMap<u32, Row>,
    ledgers: HashMap<Instance, Ledger>,
    exits: HashMap<u32, (i32, Box<str>)>,
    over_memory: Vec<u32>,
    intents: HashMap<AppName, Intent>,
    heard: u64,
    /// Counters changed since they were last written.
    counted: bool,
}

impl Table {
    /// How many bus events were applied: to be noted when a list is asked for.
    pub fn heard(&self) -> u64 {
        self.heard
    }

    /// The daemon is gone, and what it knew with it. Counters stay.
    pub fn clear(&mut self) {
        self.rows.clear();
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

    /// Takes up counters that [`Self::counters`] gave.
    ///
    /// # Errors
    /// They make no sense; the table is then as it was.
    pub fn restore(&mut self, json: &[u8]) -> Result<(), serde_json::Error> {
        let kept: Vec<KeptLedger> = serde_json::from_slice(json)?;
        self.ledgers = kept.into_iter().map(|kept| (kept.instance, kept.ledger)).collect();
        Ok(())
    }

    /// All counters as JSON, if they changed since this was last asked.
    pub fn counters(&mut self) -> Option<Vec<u8>> {
        if !std::mem::take(&mut self.counted) {
            return None;
        }
        let mut all: Vec<KeptLedger> = self
            .ledgers
            .iter()
            .map(|(instance, ledger)| KeptLedger {
                instance: instance.clone(),
                ledger: ledger.clone(),
            })
            .collect();
        all.sort_by(|a, b| a.instance.cmp(&b.instance));
        serde_json::to_vec(&all).ok()
    }

    /// Numbers of the processes of one name, in the order of instances; empty when there is none.
    pub fn pm_ids(&self, name: &AppName) -> Vec<u32> {
        let mut rows: Vec<&Row> =
            self.rows.values().filter(|row| row.instance.name == *name).collect();
        rows.sort_by(|a, b| a.instance.cmp(&b.instance));
        rows.into_iter().map(|row| row.listed.pm_id).collect()
    }

    /// Whether an app of this name runs our placeholder page; `None` when there is no such app.
    pub fn is_placeholder(&self, name: &str) -> Option<bool> {
        let mut rows = self.rows.values().filter(|row| row.instance.name.as_str() == name);
        rows.next().map(|row| row.listed.is_placeholder)
    }

    /// Every process, by name, namespace and instance; `read` gives the readings of a running
    /// one by its process number.
    pub fn processes(&self, mut read: impl FnMut(u32) -> Readings) -> Vec<Process> {
        let mut all: Vec<Process> = self
            .rows
            .values()
            .map(|row| {
                let listed = &row.listed;
                let runs = listed.status.has_process();
                let ledger = self.ledgers.get(&row.instance);
                let pid = listed.pid.filter(|_| runs);
                let mut readings = pid.map(&mut read).unwrap_or_default();
                if pid.is_some() {
                    readings.node = listed.metrics.node.clone();
                    readings.custom = listed.metrics.custom.clone();
                }
                readings.log_out_bytes = ledger.map(|ledger| ledger.log_out_bytes);
                readings.log_err_bytes = ledger.map(|ledger| ledger.log_err_bytes);
                Process {
                    instance: row.instance.clone(),
                    pm_id: listed.pm_id,
                    pid,
                    status: listed.status,
                    exec_mode: listed.exec_mode.to_owned(),
                    interpreter: listed.interpreter.to_string(),
                    node_version: listed.node_version.to_string(),
                    version: listed.version.to_string(),
                    started_at: listed.started_at.filter(|_| runs && pid.is_some()),
                    restarts: ledger.map(|ledger| ledger.restarts).unwrap_or_default(),
                    exceptions: ledger.map_or(0, |ledger| ledger.exceptions),
                    last_exit: ledger.and_then(|ledger| ledger.last_exit.clone()),
                    slot: None,
                    online_without_pid: listed.status == Status::Online && pid.is_none(),
                    readings,
                }
            })
            .collect();
        all.sort_by(|a, b| a.instance.cmp(&b.instance));
        all
    }

    /// The log files of every instance of an app, each with the instance's number; each file
    /// once, though instances may share it.
    pub fn log_files(&self, name: &AppName) -> Vec<LogFile> {
        let mut rows: Vec<&Row> =
            self.rows.values().filter(|row| row.instance.name == *name).collect();
        rows.sort_by(|a, b| a.instance.cmp(&b.instance));
        let mut files: Vec<LogFile> = Vec::new();
        for row in rows {
            for (is_error, path) in [(false, &row.listed.out_log), (true, &row.listed.err_log)] {
                let kept = !matches!(&**path, "" | "/dev/null" | "NULL");
                if kept && !files.iter().any(|file| file.path == *path) {
                    let instance_id = row.instance.instance_id;
                    files.push(LogFile { instance_id, is_error, path: path.clone() });
                }
            }
        }
        files
    }

    /// Names of all apps.
    pub fn names(&self) -> BTreeSet<String> {
        self.rows.values().map(|row| row.instance.name.to_string()).collect()
    }

    /// Where PM2 keeps what a process writes to stderr.
    pub fn err_log(&self, pm_id: u32) -> Option<Box<str>> {
        self.rows.get(&pm_id).map(|row| row.listed.err_log.clone())
    }

    /// Every process as PM2 itself lists it, for other exporters' pages.
    pub fn peers(&self) -> Vec<PeerProcess> {
        self.rows
            .values()
            .map(|row| {
                let listed = &row.listed;
                PeerProcess {
                    name: listed.name.to_string(),
                    pm_id: listed.pm_id,
                    instance: row.instance.instance_id,
                    status: listed.status,
                    has_pid: listed.pid.is_some() && listed.status.has_process(),
                    cpu_percent: listed.kept.cpu_percent,
                    memory_bytes: listed.kept.memory_bytes,
                    started_at: listed.started_at,
                    restarts: listed.restart_time,
                    prev_restart_delay: listed.kept.prev_restart_delay,
                    instances: listed.kept.instances,
                    version: listed.version.to_string(),
                    interpreter: listed.interpreter.to_string(),
                    node_version: listed.node_version.to_string(),
                    reported: listed.metrics.reported.clone(),
                }
            })
            .collect()
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

    /// The files that tell the process number of processes that run and whose number is not
    /// known yet, with their `pm_id`.
    pub fn pid_files(&self) -> Vec<(u32, Box<str>)> {
        self.rows
            .values()
            .filter(|row| row.listed.pid.is_none() && row.listed.status.has_process())
            .filter(|row| !row.listed.pid_file.is_empty())
            .map(|row| (row.listed.pm_id, row.listed.pid_file.clone()))
            .collect()
    }

    /// The process number, read from PM2's file.
    pub fn set_pid(&mut self, pm_id: u32, pid: u32) {
        if let Some(row) = self.rows.get_mut(&pm_id) {
            row.listed.pid = Some(pid);
        }
    }

    /// An uncaught exception.
    pub fn exception(&mut self, exception: Exception) -> Outcome {
        let Some(row) = self.rows.get(&exception.pm_id) else { return Outcome::default() };
        if let Some(ledger) = self.ledgers.get_mut(&row.instance) {
            ledger.exceptions += 1;
            self.counted = true;
        }
        let mut event = event_of(row, EventKind::EXCEPTION, Severity::Error);
        event.message = exception.message.into();
        event.details.insert("stack".to_owned(), exception.stack.into());
        Outcome { events: vec![(exception.at, event)], list_within: None, changed: true }
    }

    /// A line of the daemon's own log.
    pub fn daemon_line(&mut self, line: DaemonLine) -> Outcome {
        let mut outcome = Outcome::default();
        match line {
            DaemonLine::Exited { pm_id, code, signal } => {
                self.exits.insert(pm_id, (code, signal));
            }
            DaemonLine::OverMemory { pm_id } => self.over_memory.push(pm_id),
            DaemonLine::MayChange => outcome.list_within = Some(Duration::from_millis(400)),
        }
        outcome
    }

    /// An event of a process.
    pub fn process_event(&mut self, event: ProcessEvent) -> Outcome {
        self.heard += 1;
        self.counted = true;
        if !self.rows.contains_key(&event.process.pm_id) && &*event.event != "exit" {
            self.insert(event.process.clone());
        }
        let mut outcome = Outcome { changed: true, ..Outcome::default() };
        match &*event.event {
            "exit" => self.exit(&event, &mut outcome),
            "restart overlimit" => self.change(&event, |row| row.gave_up = true),
            "online" => self.online(&event, &mut outcome),
            "start" => self.asked(&event, EventKind::START, None, &mut outcome),
            "restart" => {
                self.asked(&event, EventKind::RESTART, Some(RestartCause::Manual), &mut outcome);
            }
            "reload" | "softReload" => {
                self.asked(&event, EventKind::RELOAD, Some(RestartCause::Reload), &mut outcome);
            }
            "stop" => {
                self.asked(&event, EventKind::STOP, None, &mut outcome);
                self.change(&event, |row| row.end = End::Stopped);
            }
            "delete" => {
                if let Some(row) = self.rows.remove(&event.process.pm_id) {
                    outcome.events.push((event.at, deleted(&row)));
                }
            }
            _ => outcome.changed = false,
        }
        outcome
    }

    fn change(&mut self, event: &ProcessEvent, change: impl FnOnce(&mut Row)) {
        let heard = self.heard;
        if let Some(row) = self.rows.get_mut(&event.process.pm_id) {
            row.touched = heard;
            change(row);
        }
    }

    fn exit(&mut self, event: &ProcessEvent, outcome: &mut Outcome) {
        let pm_id = event.process.pm_id;
        let told = self.exits.remove(&pm_id);
        let over_memory = self.over_memory.contains(&pm_id);
        let intent = self.intents.get(&event.process.name).copied();
        let heard = self.heard;
        let Some(row) = self.rows.get_mut(&pm_id) else {
            // The end of something that this table never saw: only a list can say more.
            outcome.list_within = Some(Duration::from_millis(50));
            return;
        };
        row.touched = heard;
        let asked = event.process.status == Status::Stopping || event.outgoing;
        let run = event.process.started_at;
        // PM2 tells the end of one run twice when it was asked to end it.
        let again = row.told_end_of.is_some() && row.told_end_of == run;
        let current = !event.outgoing && run >= row.listed.started_at;
        if current {
            row.listed.status = event.process.status;
            row.listed.pid = None;
        }
        if again {
            outcome.list_within = Some(Duration::from_millis(400));
            return;
        }
        row.told_end_of = run;
        let (code, signal) = how(event.process.exit_code, told, asked);
        let cause = match (event.outgoing, over_memory, asked, intent) {
            (true, ..) => RestartCause::Reload,
            (_, true, ..) => RestartCause::Oom,
            (_, _, true, Some(Intent::Restart(cause))) => cause,
            (_, _, true, _) => RestartCause::Manual,
            _ => RestartCause::Crash,
        };
        self.over_memory.retain(|other| *other != pm_id);
        if current {
            row.end = match intent.filter(|_| asked && !over_memory) {
                Some(Intent::Stop) => End::Stopped,
                Some(Intent::Restart(cause)) => End::ByItself(cause),
                None if asked && !over_memory => End::Asked,
                None => End::ByItself(cause),
            };
            row.listed.exit_code = code;
        }
        let exit = ExitInfo { code, signal: signal.clone(), at: event.at };
        let severity = if asked { Severity::Info } else { Severity::Warning };
        let mut told = event_of(row, EventKind::EXIT, severity);
        told.message = format!("{} ended {}", row.instance.name, in_words(&exit));
        told.exit_code = code;
        told.signal = signal;
        told.cause = Some(cause);
        outcome.events.push((event.at, told));
        if std::mem::take(&mut row.gave_up) || event.process.status == Status::Errored {
            let mut errored = event_of(row, EventKind::ERRORED, Severity::Critical);
            errored.message = format!("PM2 gave up restarting {}", row.instance.name);
            outcome.events.push((event.at, errored));
        }
        let reloaded = event.outgoing && row.undecided == Undecided::Replaced;
        if reloaded {
            row.undecided = Undecided::Not;
        }
        if let Some(ledger) = self.ledgers.get_mut(&row.instance) {
            ledger.last_exit = Some(exit);
            ledger.restarts.add(RestartCause::Reload, u64::from(reloaded));
        }
        if asked {
            outcome.list_within = Some(Duration::from_millis(400));
        }
    }

    fn online(&mut self, event: &ProcessEvent, outcome: &mut Outcome) {
        let heard = self.heard;
        let Some(row) = self.rows.get_mut(&event.process.pm_id) else { return };
        let new = row.touched == 0;
        row.touched = heard;
        let started_at = event.process.started_at;
        if row.told_start.is_some() && row.told_start == started_at {
            // A list was quicker.
            row.listed.status = Status::Online;
            return;
        }
        let replaced = row.listed.pid.is_some() && row.end == End::Not;
        let pid = if row.listed.started_at == started_at { row.listed.pid } else { None };
        let metrics = std::mem::take(&mut row.listed.metrics);
        row.listed = Listed { pid, metrics, status: Status::Online, ..event.process.clone() };
        self.came_online(event.process.pm_id, event.at, new, replaced, outcome);
        if new {
            // Whether it came in place of another, only the list says.
            outcome.list_within = Some(Duration::from_millis(50));
        }
    }

    /// Tells and counts a start, with what the row says of it now.
    fn came_online(
        &mut self,
        pm_id: u32,
        at: Time,
        new: bool,
        replaced: bool,
        outcome: &mut Outcome,
    ) {
        let Some(row) = self.rows.get_mut(&pm_id) else { return };
        let intent = self.intents.get(&row.instance.name).copied();
        let cause = match row.end {
            End::ByItself(cause) => Some(cause),
            End::Asked => {
                row.undecided = Undecided::Asked;
                None
            }
            End::Not if replaced => {
                // A cluster reload starts the new worker before it ends the old one.
                row.undecided = Undecided::Replaced;
                None
            }
            // A slot's new process, in the place of a deleted one.
            End::Not if new => match intent {
                Some(Intent::Restart(cause @ RestartCause::Deploy)) => Some(cause),
                _ => None,
            },
            End::Not | End::Stopped => None,
        };
        row.end = End::Not;
        row.told_start = row.listed.started_at;
        let mut online = event_of(row, EventKind::ONLINE, Severity::Info);
        online.message = format!("{} is online", row.instance.name);
        online.cause = cause;
        if let Some(ledger) = self.ledgers.get_mut(&row.instance) {
            if let Some(cause) = cause {
                ledger.restarts.add(cause, 1);
            }
            ledger.last_start = row.listed.started_at;
            ledger.restart_time = row.listed.restart_time;
        }
        self.counted = true;
        outcome.events.push((at, online));
    }

    fn asked(
        &mut self,
        event: &ProcessEvent,
        kind: EventKind,
        cause: Option<RestartCause>,
        outcome: &mut Outcome,
    ) {
        let heard = self.heard;
        let Some(row) = self.rows.get_mut(&event.process.pm_id) else { return };
        row.touched = heard;
        row.listed.status = event.process.status;
        if std::mem::replace(&mut row.undecided, Undecided::Not) != Undecided::Not
            && let Some(ledger) = self.ledgers.get_mut(&row.instance)
        {
            ledger.restarts.add(cause.unwrap_or(RestartCause::Manual), 1);
        }
        let mut told = event_of(row, kind.clone(), Severity::Info);
        told.message = format!("{kind} of {}", row.instance.name);
        told.cause = cause;
        outcome.events.push((event.at, told));
    }

    /// PM2's list, asked for when `heard` bus events had been applied.
    pub fn list(&mut self, list: Vec<Listed>, heard: u64, now: Time) -> Outcome {
        let mut outcome = Outcome::default();
        let gone: Vec<u32> = self
            .rows
            .values()
            .filter(|row| row.touched <= heard)
            .map(|row| row.listed.pm_id)
            .filter(|pm_id| !list.iter().any(|listed| listed.pm_id == *pm_id))
            .collect();
        for pm_id in gone {
            if let Some(row) = self.rows.remove(&pm_id) {
                outcome.events.push((now, deleted(&row)));
                outcome.changed = true;
            }
        }
        let mut back = Vec::new();
        for listed in list {
            match self.rows.get_mut(&listed.pm_id) {
                None => {
                    outcome.changed = true;
                    self.insert_listed(listed);
                }
                Some(row) if row.touched > heard => {
                    // The bus told of it after the list was made: the bus is right.
                    row.listed.metrics = listed.metrics;
                    row.listed.kept = listed.kept;
                    outcome.list_within = Some(Duration::from_secs(1));
                }
                Some(row) => {
                    // A process that is being started has its new start time already; the bus
                    // tells of it when it is online.
                    let starting = listed.status == Status::Launching;
                    let unseen = !starting && listed.started_at > row.listed.started_at;
                    let ledger = self.ledgers.get_mut(&row.instance);
                    if row.end == End::Asked && listed.status == Status::Stopped {
                        row.end = End::Stopped;
                    }
                    let listed = match starting {
                        true => Listed { started_at: row.listed.started_at, ..listed },
                        false => listed,
                    };
                    if row.undecided == Undecided::Asked
                        && let Some(ledger) = ledger
                    {
                        row.undecided = Undecided::Not;
                        ledger.restarts.add(RestartCause::Manual, 1);
                        self.counted = true;
                    } else if unseen && row.end != End::Not {
                        // Its end was told, and the bus is about to tell of its start.
                        back.push(listed.pm_id);
                    } else if unseen && let Some(ledger) = ledger {
                        let more = listed.restart_time.saturating_sub(row.listed.restart_time);
                        ledger.restarts.add(RestartCause::Unknown, more.max(1));
                        ledger.last_start = listed.started_at;
                        ledger.restart_time = listed.restart_time;
                        self.counted = true;
                        let mut missed = event_of(row, EventKind::RESTART, Severity::Warning);
                        missed.message = format!("{} was restarted unseen", row.instance.name);
                        missed.cause = Some(RestartCause::Unknown);
                        outcome.events.push((now, missed));
                        row.end = End::Not;
                    }
                    outcome.changed |= differ(&row.listed, &listed);
                    row.listed = listed;
                }
            }
        }
        for pm_id in back {
            self.came_online(pm_id, now, false, false, &mut outcome);
            outcome.list_within = Some(Duration::from_millis(400));
        }
        outcome
    }

    fn insert_listed(&mut self, listed: Listed) {
        let (start, restart_time) = (listed.started_at, listed.restart_time);
        let Some(instance) = self.insert(listed) else { return };
        let Some(ledger) = self.ledgers.get_mut(&instance) else { return };
        if ledger.last_start == start {
            return;
        }
        // Started while nobody looked: before the first look, or while the daemon or this
        // program was away. PM2's own counter says how often, unless it began anew.
        let more = match ledger.last_start {
            None => restart_time,
            Some(_) => restart_time.saturating_sub(ledger.restart_time).max(1),
        };
        ledger.restarts.add(RestartCause::Unknown, more);
        ledger.last_start = start;
        ledger.restart_time = restart_time;
        self.counted = true;
    }

    /// Gives a new process the lowest number that no other of its name has.
    fn insert(&mut self, listed: Listed) -> Option<Instance> {
        let taken: Vec<u32> = self
            .rows
            .values()
            .filter(|row| row.instance.name == listed.name)
            .filter(|row| row.instance.namespace == listed.namespace && !row.may_be_gone())
            .map(|row| row.instance.instance_id)
            .collect();
        let instance_id = (0..).find(|number| !taken.contains(number))?;
        let (name, namespace) = (listed.name.clone(), listed.namespace.clone());
        let instance = Instance { name, namespace, instance_id };
        if self.ledgers.len() >= MAX_LEDGERS && !self.ledgers.contains_key(&instance) {
            let used: Vec<Instance> = self.rows.values().map(|row| row.instance.clone()).collect();
            self.ledgers.retain(|instance, _| used.contains(instance));
        }
        self.ledgers.entry(instance.clone()).or_default();
        let row = Row {
            end: if listed.status.has_process() { End::Not } else { End::Stopped },
            instance: instance.clone(),
            undecided: Undecided::Not,
            told_end_of: None,
            told_start: None,
            gave_up: false,
            touched: 0,
            listed,
        };
        self.rows.insert(row.listed.pm_id, row);
        Some(instance)
    }
}

/// PM2 prints `code [0] via signal [SIGKILL]` for a killed process, and SIGINT wherever there
/// was no signal.
fn how(
    code: Option<i32>,
    told: Option<(i32, Box<str>)>,
    asked: bool,
) -> (Option<i32>, Option<String>) {
    let Some((code_told, signal)) = told else { return (code, None) };
    if code_told != 0 || (&*signal == "SIGINT" && !asked) {
        return (Some(code_told), None);
    }
    (None, Some(signal.into()))
}

fn in_words(exit: &ExitInfo) -> String {
    match (&exit.signal, exit.code) {
        (Some(signal), _) => format!("by {signal}"),
        (None, Some(code)) => format!("with code {code}"),
        (None, None) => "for an unknown reason".to_owned(),
    }
}

fn event_of(row: &Row, kind: EventKind, severity: Severity) -> Event {
    Event {
        app: Some(row.instance.name.clone()),
        namespace: Some(row.instance.namespace.clone()),
        instance_id: Some(row.instance.instance_id),
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

/// Whether anything but metrics differs.
fn differ(a: &Listed, b: &Listed) -> bool {
    let plain = |listed: &Listed| Listed {
        metrics: NodeMetrics::default(),
        kept: Kept::default(),
        ..listed.clone()
    };
    plain(a) != plain(b)
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
