//! Commands at a simulated server: by id, each once.

use std::collections::VecDeque;
use std::time::Duration;

use wire::{
    Action, CommandId, CommandRecord, CommandRequest, CommandStatus, Event, EventKind,
    InstanceOutcome, RestartCause, Severity, Status, Target, Time,
};

use super::machine::Machine;

/// Commands that are remembered.
const REMEMBERED: usize = 64;

/// Why a command is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The id names another command.
    Reused,
    /// No such app.
    UnknownApp,
}

#[derive(Debug)]
pub(super) struct Book {
    time: i64,
    all: VecDeque<(CommandRequest, CommandRecord)>,
    /// Commands carried out.
    ran: u64,
}

impl Book {
    pub(super) fn new(time: Duration) -> Self {
        Self { time: time.as_millis() as i64, all: VecDeque::new(), ran: 0 }
    }

    /// When the first of those under way ends.
    pub(super) fn due(&self) -> Option<Time> {
        let open = self.all.iter().filter(|(_, record)| !record.status.is_final());
        open.map(|(_, record)| record.requested_at.plus_millis(self.time)).min()
    }
}

impl Machine {
    /// Takes a command; one that is known already is only looked up.
    ///
    /// # Errors
    /// It is not taken.
    pub fn command(
        &mut self,
        id: CommandId,
        request: CommandRequest,
        by: &str,
        now: Time,
    ) -> Result<CommandRecord, Refusal> {
        if let Some((known, record)) = self.commands.all.iter().find(|(_, it)| it.id == id) {
            return if *known == request { Ok(record.clone()) } else { Err(Refusal::Reused) };
        }
        let index = self.index(&request.target).ok_or(Refusal::UnknownApp)?;
        let record = CommandRecord {
            status: CommandStatus::Running,
            before: vec![self.processes[index].process(now)],
            ..CommandRecord::queued(id, request.target.clone(), request.action, by.to_owned(), now)
        };
        if self.commands.all.len() == REMEMBERED {
            self.commands.all.pop_front();
        }
        let id = record.id.clone();
        self.commands.all.push_back((request, record));
        self.advance(now);
        self.known_command(&id).ok_or(Refusal::UnknownApp)
    }

    /// A command that was taken before.
    pub fn known_command(&self, id: &CommandId) -> Option<CommandRecord> {
        self.commands.all.iter().find(|(_, it)| it.id == *id).map(|(_, record)| record.clone())
    }

    /// Commands carried out so far.
    pub fn ran(&self) -> u64 {
        self.commands.ran
    }

    fn index(&self, target: &Target) -> Option<usize> {
        let name = match target {
            Target::App(name) => name.to_string(),
            Target::Slot(slot) => format!("slot-{slot}"),
        };
        self.processes.iter().position(|process| *process.instance.name == *name)
    }

    /// The oldest command under way is done now.
    pub(super) fn end_command(&mut self, at: Time) {
        let open = |(_, record): &(_, CommandRecord)| !record.status.is_final();
        let Some(place) = self.commands.all.iter().position(open) else { return };
        let record = &self.commands.all[place].1;
        let (id, target, action) = (record.id.clone(), record.target.clone(), record.action);
        let by = record.requested_by.clone();
        let Some(index) = self.index(&target) else { return };
        match action {
            Action::Stop if self.processes[index].is_online() => {
                self.end(index, at, Some(0), RestartCause::Manual, Status::Stopped);
            }
            Action::Start if !self.processes[index].is_online() => {
                self.processes[index].started(at, None);
                let event = self.event_of(index, EventKind::ONLINE, Severity::Info, "is online");
                self.tell(at, event);
            }
            Action::Restart | Action::Reload => {
                let cause = match action {
                    Action::Reload => RestartCause::Reload,
                    _ => RestartCause::Manual,
                };
                if self.processes[index].is_online() {
                    self.end(index, at, Some(0), cause, Status::Stopped);
                }
                self.processes[index].started(at, Some(cause));
                let mut event =
                    self.event_of(index, EventKind::ONLINE, Severity::Info, "is online");
                event.cause = Some(cause);
                self.tell(at, event);
            }
            _ => {}
        }
        let message = format!("{action} of {target} by {by} succeeded");
        let mut event = Event::new(EventKind::COMMAND, Severity::Info, message);
        event.tell_end(&id, CommandStatus::Succeeded);
        self.tell(at, event);
        let after = self.processes[index].process(at);
        let record = &mut self.commands.all[place].1;
        record.status = CommandStatus::Succeeded;
        record.finished_at = Some(at);
        record.outcomes = vec![InstanceOutcome { pm_id: after.pm_id, error: None }];
        record.after = vec![after];
        self.commands.ran += 1;
    }
}
