//! Rows that several pages show: every text is made here, the templates only place it.

use std::collections::BTreeMap;

use wire::{AppName, CommandStatus, Instance, Process, RestartCause, ServerId, Slot, Time};

use crate::format::{self, NOTHING};
use crate::marks::Badge;
use crate::{CommandRow, EventRow, links};

/// Longest text of one event, in characters.
const MESSAGE: usize = 500;

/// Longest text of an event's details, in characters.
const DETAIL: usize = 4_000;

/// A moment with its age.
pub(crate) struct Moment {
    pub(crate) machine: String,
    pub(crate) clock: String,
    pub(crate) age: String,
}

impl Moment {
    pub(crate) fn new(time: Time, now: Time) -> Self {
        Self {
            machine: format::machine_time(time),
            clock: format::clock(time),
            age: format::age(now, time),
        }
    }
}

/// An app's name with its address, where it has one.
pub(crate) struct AppLink<'a> {
    pub(crate) name: &'a str,
    pub(crate) href: Option<String>,
}

impl<'a> AppLink<'a> {
    pub(crate) fn new(server: &ServerId, app: &'a AppName) -> Self {
        Self { name: app.as_str(), href: links::app(server, app) }
    }
}

/// One event.
pub(crate) struct EventLine<'a> {
    pub(crate) id: i64,
    /// Its own page.
    pub(crate) href: String,
    pub(crate) when: Moment,
    pub(crate) badge: Badge,
    pub(crate) kind: String,
    pub(crate) server: &'a ServerId,
    pub(crate) app: Option<AppLink<'a>>,
    pub(crate) message: String,
    pub(crate) details: Vec<(String, String)>,
}

impl<'a> EventLine<'a> {
    pub(crate) fn all(rows: &'a [EventRow], now: Time) -> Vec<Self> {
        rows.iter().map(|row| Self::new(row, now)).collect()
    }

    fn new(row: &'a EventRow, now: Time) -> Self {
        let event = &row.event;
        Self {
            id: row.id,
            href: format!("/events/{}", row.id),
            when: Moment::new(row.time, now),
            badge: Badge::severity(event.severity),
            kind: words(event.kind.as_str()),
            server: &row.server,
            app: event.app.as_ref().map(|app| AppLink::new(&row.server, app)),
            message: format::cut(&event.message, MESSAGE),
            details: event
                .details
                .iter()
                .map(|(name, text)| (words(&format::cut(name, 60)), format::cut(text, DETAIL)))
                .collect(),
        }
    }
}

/// One command.
pub(crate) struct CommandLine<'a> {
    pub(crate) id: &'a str,
    pub(crate) href: String,
    /// It is not over.
    pub(crate) open: bool,
    pub(crate) when: Moment,
    pub(crate) by: String,
    pub(crate) action: &'static str,
    pub(crate) server: &'a ServerId,
    pub(crate) app: Option<AppLink<'a>>,
    pub(crate) slot: Option<(&'a str, String)>,
    pub(crate) badge: Badge,
    pub(crate) took: String,
    pub(crate) outcome: String,
}

impl<'a> CommandLine<'a> {
    pub(crate) fn all(rows: &'a [CommandRow], now: Time) -> Vec<Self> {
        rows.iter().map(|row| Self::new(row, now)).collect()
    }

    fn new(row: &'a CommandRow, now: Time) -> Self {
        let record = &row.record;
        let (app, slot) = match &record.target {
            wire::Target::App(app) => (Some(AppLink::new(&row.server, app)), None),
            wire::Target::Slot(slot) => {
                (None, Some((slot.as_str(), links::slot(&row.server, slot))))
            }
        };
        let never_began =
            matches!(record.status, CommandStatus::Cancelled | CommandStatus::Expired);
        let took = record.finished_at.filter(|_| !never_began);
        let took = took.map(|end| end.millis_since(record.requested_at));
        Self {
            id: record.id.as_str(),
            href: links::command(&record.id),
            open: !record.status.is_final(),
            when: Moment::new(record.requested_at, now),
            by: format::cut(&record.requested_by, 100),
            action: record.action.as_str(),
            server: &row.server,
            app,
            slot,
            badge: Badge::command(record.status),
            took: took.map_or_else(|| NOTHING.to_owned(), format::duration),
            outcome: outcome(record),
        }
    }
}

/// What became of a command, in one line: its error, or what changed.
fn outcome(record: &wire::CommandRecord) -> String {
    if let Some(error) = &record.error {
        return format::cut(error, MESSAGE);
    }
    let refused: Vec<&str> =
        record.outcomes.iter().filter_map(|outcome| outcome.error.as_deref()).collect();
    if let Some(first) = refused.first() {
        let all = record.outcomes.len();
        return format!("{} of {all} refused: {}", refused.len(), format::cut(first, MESSAGE));
    }
    match (record.before.as_slice(), record.after.as_slice()) {
        ([], []) => String::new(),
        (before, []) => format!("{} gone", format::counted(before.len() as u64, "process")),
        ([before], [after]) => format!("{} → {}", one(before), one(after)),
        (before, after) => format!("{} → {}", many(before), many(after)),
    }
}

fn one(process: &Process) -> String {
    let status = Badge::process(process).word;
    process.pid.map_or_else(|| status.to_owned(), |pid| format!("{status}, pid {pid}"))
}

fn many(processes: &[Process]) -> String {
    let online = processes.iter().filter(|process| process.status == wire::Status::Online).count();
    format!("{online} of {} online", processes.len())
}

/// One process.
pub(crate) struct ProcessLine<'a> {
    pub(crate) app: AppLink<'a>,
    /// Instance, and PM2's namespace unless it is the usual one.
    pub(crate) instance: u32,
    /// The app has more than this one.
    pub(crate) one_of_many: bool,
    pub(crate) namespace: Option<&'a str>,
    pub(crate) badge: Badge,
    pub(crate) cpu: String,
    pub(crate) memory: String,
    /// How late Node.js gets to what it has to do; empty where it does not tell.
    pub(crate) event_loop: String,
    pub(crate) restarts: String,
    /// `9 crash, 3 manual`; empty for none.
    pub(crate) causes: String,
    pub(crate) uptime: String,
    pub(crate) pid: String,
    pub(crate) exceptions: Option<String>,
    pub(crate) about: String,
}

impl<'a> ProcessLine<'a> {
    /// All of them; see [`ProcessLine::new`].
    pub(crate) fn all(
        server: &ServerId,
        processes: impl IntoIterator<Item = &'a Process>,
        cpu: &BTreeMap<Instance, f64>,
        as_of: Time,
    ) -> Vec<Self> {
        let processes: Vec<&Process> = processes.into_iter().collect();
        let mut instances: BTreeMap<&AppName, usize> = BTreeMap::new();
        for process in &processes {
            *instances.entry(&process.instance.name).or_default() += 1;
        }
        let line = |process: &&'a Process| Self {
            one_of_many: instances.get(&process.instance.name).is_some_and(|number| *number > 1),
            ..Self::new(server, process, cpu, as_of)
        };
        processes.iter().map(line).collect()
    }

    /// `as_of` is when the state was true: what runs is not said to run since.
    fn new(
        server: &ServerId,
        process: &'a Process,
        cpu: &BTreeMap<Instance, f64>,
        as_of: Time,
    ) -> Self {
        let readings = &process.readings;
        let restarts = process.restarts.total();
        let started = process.started_at.filter(|_| process.status.has_process());
        Self {
            app: AppLink::new(server, &process.instance.name),
            instance: process.instance.instance_id,
            one_of_many: false,
            namespace: Some(&*process.instance.namespace).filter(|name| *name != "default"),
            badge: Badge::process(process),
            cpu: or_nothing(cpu.get(&process.instance).copied(), format::percent),
            memory: or_nothing(readings.memory_bytes, format::bytes),
            event_loop: or_nothing(readings.node.get("event_loop_latency"), |seconds| {
                format!("{} ms", format::number(seconds * 1000.0))
            }),
            restarts: format::count(restarts),
            causes: causes(process),
            uptime: or_nothing(started, |start| format::uptime(as_of.millis_since(start))),
            pid: or_nothing(process.pid, |pid| pid.to_string()),
            exceptions: Some(process.exceptions)
                .filter(|number| *number > 0)
                .map(|number| format::counted(number, "exception")),
            about: about(process),
        }
    }
}

/// What kind of process it is: `cluster, Node.js 20.11.1, version 1.4.2`.
fn about(process: &Process) -> String {
    let mut parts = vec![process.exec_mode.clone()];
    if !process.node_version.is_empty() {
        parts.push(format!("Node.js {}", process.node_version));
    } else if !process.interpreter.is_empty() && process.interpreter != "none" {
        parts.push(process.interpreter.clone());
    }
    if let Some(home) = &process.instance.pm2_home {
        parts.push(format!("PM2 in {home}"));
    }
    if !process.version.is_empty() {
        parts.push(format!("version {}", process.version));
    }
    parts.retain(|part| !part.is_empty());
    format::cut(&parts.join(", "), 200)
}

fn causes(process: &Process) -> String {
    let parts: Vec<String> = RestartCause::ALL
        .into_iter()
        .map(|cause| (cause, process.restarts.get(cause)))
        .filter(|(_, number)| *number > 0)
        .map(|(cause, number)| format!("{} {}", format::count(number), cause_word(cause)))
        .collect();
    parts.join(", ")
}

/// A cause in the words of the pages.
pub(crate) fn cause_word(cause: RestartCause) -> &'static str {
    match cause {
        RestartCause::Oom => "out of memory",
        RestartCause::Unknown => "unseen",
        other => other.as_str(),
    }
}

/// One slot.
pub(crate) struct SlotLine<'a> {
    pub(crate) slot: &'a str,
    pub(crate) href: String,
    pub(crate) port: u16,
    pub(crate) kind: &'static str,
    pub(crate) badge: Badge,
    pub(crate) app: AppLink<'a>,
    pub(crate) repository: Option<String>,
    /// `main, 3f2a91c`
    pub(crate) revision: String,
    pub(crate) owner: Option<String>,
    pub(crate) deployed: Option<Moment>,
    pub(crate) deployed_by: Option<&'a str>,
}

impl<'a> SlotLine<'a> {
    pub(crate) fn new(server: &ServerId, slot: &'a Slot, now: Time) -> Self {
        let commit = slot.commit.as_deref().map(|commit| commit.chars().take(7).collect());
        let revision: Vec<String> = slot.branch.clone().into_iter().chain(commit).collect();
        Self {
            slot: slot.slot.as_str(),
            href: links::slot(server, &slot.slot),
            port: slot.port,
            kind: slot.kind.as_str(),
            badge: Badge::slot(slot),
            app: AppLink::new(server, &slot.process),
            repository: slot.repository.as_deref().map(|text| format::cut(text, 300)),
            revision: format::cut(&revision.join(", "), 100),
            owner: slot.foreign_owner.as_deref().map(|owner| format::cut(owner, 100)),
            deployed: slot.deployed_at.map(|time| Moment::new(time, now)),
            deployed_by: slot.deployed_by.as_deref(),
        }
    }
}

/// `value` as text, or the mark for nothing.
pub(crate) fn or_nothing<T>(value: Option<T>, text: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| NOTHING.to_owned(), text)
}

fn words(name: &str) -> String {
    name.replace('_', " ")
}
