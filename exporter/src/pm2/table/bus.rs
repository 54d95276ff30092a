//! What the bus says, applied.

use std::time::Duration;

use wire::{EventKind, ExitInfo, RestartCause, Severity, Status, Time};

use super::{End, Intent, Outcome, Row, Table, Undecided, deleted, event_of};
use crate::pm2::model::{DaemonLine, Exception, Listed, ProcessEvent};

impl Table {
    /// An exception that the application reported: uncaught, or caught and told by itself.
    pub fn exception(&mut self, exception: Exception) -> Outcome {
        let Some(row) = self.rows.get(&exception.pm_id) else { return Outcome::default() };
        if let Some(ledger) = self.ledgers.get_mut(&row.instance) {
            ledger.exceptions += 1;
            self.counted = true;
        }
        let mut event = event_of(row, EventKind::EXCEPTION, Severity::Error);
        event.message = exception.message.into();
        event.details.insert("stack".to_owned(), exception.stack.into());
        Outcome { events: vec![(exception.at, event)], changed: true, ..Outcome::default() }
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
        if !self.filter.takes(&event.process.name, event.process.is_module) {
            return Outcome::default();
        }
        self.heard += 1;
        self.counted = true;
        let mut outcome = Outcome { changed: true, ..Outcome::default() };
        let pm_id = event.process.pm_id;
        if self.rows.get(&pm_id).is_some_and(|row| !row.is_of(&event.process))
            && let Some(row) = self.rows.remove(&pm_id)
        {
            outcome.events.push((event.at, deleted(&row)));
        }
        if !self.rows.contains_key(&pm_id) && &*event.event != "exit" {
            self.insert(event.process.clone(), |row| !row.may_be_gone());
        }
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
        self.tell_apart(|row| !row.may_be_gone());
        outcome
    }

    pub(super) fn change(&mut self, event: &ProcessEvent, change: impl FnOnce(&mut Row)) {
        let heard = self.heard;
        if let Some(row) = self.rows.get_mut(&event.process.pm_id) {
            row.touched = heard;
            change(row);
        }
    }

    pub(super) fn exit(&mut self, event: &ProcessEvent, outcome: &mut Outcome) {
        let pm_id = event.process.pm_id;
        let told = self.exits.remove(&pm_id);
        let over_memory = self.over_memory.contains(&pm_id);
        let intent = self.intents.get(&event.process.name).copied();
        let heard = self.heard;
        let run = event.process.started_at;
        // PM2 tells of a start once it has looked at the version of the code, which can take longer than
        // the run: then only its end is told.
        if let Some(row) = self.rows.get_mut(&pm_id)
            && !event.outgoing
            && row.end != End::Not
            && run > row.listed.started_at.max(row.told_end_of)
        {
            row.listed.started_at = run;
            self.came_online(pm_id, event.at, false, false, outcome);
        }
        let Some(row) = self.rows.get_mut(&pm_id) else {
            // The end of something that this table never saw: only a list can say more.
            outcome.list_within = Some(Duration::from_millis(50));
            return;
        };
        row.touched = heard;
        let asked = event.process.status == Status::Stopping || event.outgoing;
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
        let Listed { status, autorestart, ended_as_told, .. } = event.process;
        // A job that is done: nobody asked, and PM2 does not start it again.
        let done = ended_as_told || !autorestart && code == Some(0);
        let cause = match (event.outgoing, over_memory, asked, intent) {
            // In cluster mode PM2 reloads what is over its limit.
            (_, true, ..) => Some(RestartCause::Oom),
            (true, ..) => Some(RestartCause::Reload),
            (_, _, true, Some(Intent::Restart(cause) | Intent::Replace(cause))) => Some(cause),
            (_, _, true, _) => Some(RestartCause::Manual),
            _ if done => None,
            _ => Some(RestartCause::Crash),
        };
        self.over_memory.retain(|other| *other != pm_id);
        if current {
            let left = !asked && (status == Status::Errored || ended_as_told || !autorestart);
            row.end = match (intent.filter(|_| asked && !over_memory), cause) {
                (Some(Intent::Stop), _) => End::Stopped,
                (Some(Intent::Restart(cause)), _) => End::ByItself(cause),
                (Some(Intent::Replace(cause)), _) => End::Replaced(cause),
                (None, _) if asked && !over_memory => End::Asked,
                (None, Some(cause)) if !left => End::ByItself(cause),
                // PM2 starts it again only when it is asked to, or at a time set for it.
                (None, _) => End::Stopped,
            };
            row.listed.exit_code = code;
        }
        let exit = ExitInfo { code, signal: signal.clone(), at: event.at };
        let by_itself = !asked || event.outgoing && over_memory;
        let severity =
            if by_itself && cause.is_some() { Severity::Warning } else { Severity::Info };
        let mut told = event_of(row, EventKind::EXIT, severity);
        told.message = format!("{} ended {}", row.instance.name, in_words(&exit));
        told.exit_code = code;
        told.signal = signal;
        told.cause = cause;
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
            let cause = if over_memory { RestartCause::Oom } else { RestartCause::Reload };
            ledger.restarts.add(cause, u64::from(reloaded));
        }
        if asked {
            outcome.list_within = Some(Duration::from_millis(400));
        }
    }

    pub(super) fn online(&mut self, event: &ProcessEvent, outcome: &mut Outcome) {
        let heard = self.heard;
        let Some(row) = self.rows.get_mut(&event.process.pm_id) else { return };
        let started_at = event.process.started_at;
        if row.told_end_of.is_some() && row.told_end_of == started_at {
            // It has ended since.
            return;
        }
        // PM2 5 tells who asked for a start before the start itself.
        let new = row.told_start.is_none();
        row.touched = heard;
        if row.told_start.is_some() && row.told_start == started_at {
            // A list was quicker.
            row.listed.status = Status::Online;
            return;
        }
        let other_run = row.listed.started_at != started_at;
        let replaced = other_run && row.listed.pid.is_some() && row.end == End::Not;
        let pid = if other_run { None } else { row.listed.pid };
        let metrics = std::mem::take(&mut row.listed.metrics);
        row.listed = Listed { pid, metrics, status: Status::Online, ..event.process.clone() };
        self.came_online(event.process.pm_id, event.at, new, replaced, outcome);
        if new {
            // Whether it came in place of another, only the list says.
            outcome.list_within = Some(Duration::from_millis(50));
        }
    }

    /// Tells and counts a start, with what the row says of it now.
    pub(super) fn came_online(
        &mut self,
        pm_id: u32,
        at: Time,
        new: bool,
        replaced: bool,
        outcome: &mut Outcome,
    ) {
        let Some(row) = self.rows.get_mut(&pm_id) else { return };
        let intent = self.intents.get(&row.instance.name).copied();
        let orphaned = self.orphans.remove(&row.instance);
        let cause = match row.end {
            End::ByItself(cause) | End::Replaced(cause) => Some(cause),
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
                Some(Intent::Replace(cause)) => Some(cause),
                _ => orphaned.then_some(RestartCause::Unknown),
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

    pub(super) fn asked(
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
