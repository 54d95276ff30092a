//! Tells the journal how changes of slots go.

use std::sync::Arc;

use wire::{Action, CommandStatus, DeploymentStatus, Event, EventKind, Severity, SmolStr, Time};

use super::managed::Managed;
use super::place::SlotPlace;
use super::plan::{Change, End, Occupant, Phase};
use crate::journal::Journal;
use crate::revision::Revision;

/// Lines of a failed deployment's log that go into its event.
const LINES: usize = 10;

/// See the module.
#[derive(Debug)]
pub struct Teller {
    journal: Arc<Journal>,
    revision: Revision,
    /// The PM2 that has the slots, where it is one of several.
    pm2_home: Option<SmolStr>,
}

impl Teller {
    /// Into this journal, of that PM2 where it is one of several.
    pub fn new(journal: Arc<Journal>, revision: Revision, pm2_home: Option<SmolStr>) -> Self {
        Self { journal, revision, pm2_home }
    }

    /// Something shown has changed.
    pub fn changed(&self) {
        self.revision.bump();
    }

    fn event(
        &self,
        place: &SlotPlace,
        kind: EventKind,
        severity: Severity,
        message: String,
        details: &[(&str, String)],
    ) {
        self.tell(place, Event::new(kind, severity, message), details);
    }

    fn tell(&self, place: &SlotPlace, mut event: Event, details: &[(&str, String)]) {
        event.message = format!("slot {}: {}", place.slot, event.message);
        event.app = place.process();
        event.pm2_home.clone_from(&self.pm2_home);
        event.details.insert("slot".to_owned(), place.slot.to_string());
        for (name, value) in details {
            event.details.insert((*name).to_owned(), value.clone());
        }
        tracing::info!(slot = %place.slot, "{}", event.message);
        self.revision.bump();
        self.journal.event(Time::now(), event);
    }

    /// A deployment waits for its turn.
    pub fn queued(&self, place: &SlotPlace, id: &str, repository: &str, by: &str) {
        let message = format!("deployment of {repository} asked for by {by}");
        let details = [("deployment", id.to_owned())];
        self.event(place, EventKind::DEPLOY_QUEUED, Severity::Info, message, &details);
    }

    /// A step is about to be done.
    pub fn phase(&self, managed: &Managed, change: &Change) {
        let (status, kind) = match change.phase {
            Phase::Fetch => (DeploymentStatus::Cloning, EventKind::DEPLOY_CLONING),
            Phase::Install => (DeploymentStatus::Installing, EventKind::DEPLOY_INSTALLING),
            Phase::Build => (DeploymentStatus::Building, EventKind::DEPLOY_BUILDING),
            Phase::Try => (DeploymentStatus::Probing, EventKind::DEPLOY_PROBING),
            _ => (DeploymentStatus::Switching, EventKind::DEPLOY_SWITCHING),
        };
        let is_deployment = {
            let mut state = managed.state();
            state.deployed_mut(&change.id).map(|deployed| deployed.shown.status = status).is_some()
        };
        // What is not a deployment is told at its end.
        if is_deployment && change.phase != Phase::Check {
            let severity = match change.phase {
                Phase::PutBack | Phase::LastResort => Severity::Warning,
                _ => Severity::Info,
            };
            let details = [("deployment", change.id.to_string())];
            let message = change.phase.doing().to_owned();
            self.event(&managed.place, kind, severity, message, &details);
        }
    }

    /// A slot had not the one process that it is to have, and has it again; or why not.
    pub fn mended(&self, place: &SlotPlace, had: usize, how: Result<String, String>) {
        let had = match had {
            0 => "its process was gone".to_owned(),
            several => format!("it had {several} processes"),
        };
        let (severity, message) = match how {
            Ok(now) => (Severity::Warning, format!("{had}: {now}")),
            Err(why) => (Severity::Error, format!("{had}, and this cannot be mended: {why}")),
        };
        self.event(place, EventKind::SLOT_RECOVERED, severity, message, &[]);
    }

    /// A change has ended.
    pub fn ended(&self, managed: &Managed, action: Action, by: &str, end: &End, resumed: bool) {
        let place = &managed.place;
        let (lines, current, url) = {
            let state = managed.state();
            let deployed = state.deployed(&end.id);
            let lines = deployed.map(|deployed| deployed.shown.last_lines.clone());
            let shown = deployed.map(|deployed| {
                let commit = deployed.shown.commit.clone().unwrap_or_default();
                format!("{} at {}", deployed.shown.repository, commit.get(..12).unwrap_or(&commit))
            });
            (lines.unwrap_or_default(), runs(&state.standing.current), shown.unwrap_or_default())
        };
        let mut details = Vec::new();
        let status = match &end.failure {
            None => CommandStatus::Succeeded,
            Some(_) => CommandStatus::Failed,
        };
        let tell = |kind, severity, message, details: &[(&str, String)]| {
            let mut event = Event::new(kind, severity, message);
            event.tell_end(&end.id, status);
            self.tell(place, event, details);
        };
        if action == Action::Deploy {
            details.push(("deployment", end.id.to_string()));
        }
        if let Some(reason) = &end.failure {
            details.push(("reason", reason.clone()));
            if !lines.is_empty() {
                let from = lines.len().saturating_sub(LINES);
                details.push(("last_lines", lines[from..].join("\n")));
            }
            let back = match &end.put_back {
                None => String::new(),
                Some(occupant) => format!("; {} was put back", runs(occupant)),
            };
            let kind = match action {
                Action::Deploy => EventKind::DEPLOY_FAILED,
                _ => EventKind::SLOT_FAILED,
            };
            let message = format!("{action} by {by} failed: {reason}{back}; it runs {current}");
            tell(kind, Severity::Error, message, &details);
        } else {
            let (kind, message) = match action {
                Action::Deploy => (EventKind::DEPLOY_HEALTHY, format!("{url} is healthy")),
                Action::Stop => (EventKind::SLOT_STOPPED, format!("stopped by {by}: it is free")),
                Action::Rollback => {
                    (EventKind::SLOT_ROLLED_BACK, format!("rolled back by {by} to {current}"))
                }
                Action::Env => {
                    (EventKind::SLOT_RESTARTED, format!("restarted by {by} with other variables"))
                }
                _ => (EventKind::SLOT_RESTARTED, format!("restarted by {by}")),
            };
            tell(kind, Severity::Info, message, &details);
        }
        if resumed {
            let message = format!("a change that was cut off is at its end: it runs {current}");
            tell(EventKind::SLOT_RECOVERED, Severity::Warning, message, &details);
        }
    }
}

/// For people.
pub(super) fn runs(occupant: &Occupant) -> String {
    match occupant {
        Occupant::Placeholder => "the placeholder".to_owned(),
        Occupant::Release(id) => format!("deployment {id}"),
    }
}
