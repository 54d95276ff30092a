//! How each state is marked: a shape with a colour, always beside its word.

use wire::{CommandStatus, Process, Severity, Slot, Status};

use crate::{Contact, ServerStatus};

/// A shape and its colour, a class of the style sheet; milder first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mark {
    /// As it should be: a disc.
    Ok,
    /// Off, and nobody says that it should not be: a square.
    Off,
    /// Not known yet, or on its way: a ring.
    Wait,
    /// Worth a look: a triangle.
    Warn,
    /// Wrong: a cross.
    Bad,
}

impl Mark {
    /// The class of the style sheet.
    pub(crate) fn class(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Off => "off",
            Self::Wait => "wait",
            Self::Warn => "warn",
            Self::Bad => "bad",
        }
    }
}

/// A mark with its word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Badge {
    pub(crate) mark: Mark,
    pub(crate) word: &'static str,
}

impl Badge {
    pub(crate) const fn new(mark: Mark, word: &'static str) -> Self {
        Self { mark, word }
    }

    pub(crate) fn contact(contact: &Contact) -> Self {
        match (contact.status, contact.last_success, &contact.error) {
            (ServerStatus::Online, ..) => Self::new(Mark::Ok, "online"),
            (_, None, None) => Self::new(Mark::Wait, "not asked yet"),
            (ServerStatus::Stale, ..) => Self::new(Mark::Warn, "stale"),
            (ServerStatus::Offline, ..) => Self::new(Mark::Bad, "offline"),
        }
    }

    pub(crate) fn process(process: &Process) -> Self {
        if process.online_without_pid {
            return Self::new(Mark::Warn, "online, no process");
        }
        match process.status {
            Status::Online => Self::new(Mark::Ok, "online"),
            Status::Launching => Self::new(Mark::Wait, "launching"),
            Status::Stopping => Self::new(Mark::Wait, "stopping"),
            Status::Stopped => Self::new(Mark::Off, "stopped"),
            Status::Errored => Self::new(Mark::Bad, "errored"),
            Status::WaitingRestart => Self::new(Mark::Warn, "waiting restart"),
            Status::OneLaunch => Self::new(Mark::Off, "ended"),
            Status::Unknown => Self::new(Mark::Wait, "unknown"),
        }
    }

    pub(crate) fn slot(slot: &Slot) -> Self {
        match (&slot.foreign_owner, slot.serving) {
            (Some(_), _) => Self::new(Mark::Bad, "port taken"),
            (None, true) => Self::new(Mark::Ok, "serving"),
            (None, false) if slot.status == Some(Status::Stopped) => {
                Self::new(Mark::Off, "stopped")
            }
            (None, false) => Self::new(Mark::Bad, "not serving"),
        }
    }

    pub(crate) fn severity(severity: Severity) -> Self {
        let mark = match severity {
            Severity::Info => Mark::Off,
            Severity::Warning => Mark::Warn,
            Severity::Error | Severity::Critical => Mark::Bad,
        };
        Self::new(mark, severity.as_str())
    }

    pub(crate) fn command(status: CommandStatus) -> Self {
        let mark = match status {
            CommandStatus::Succeeded => Mark::Ok,
            CommandStatus::Queued | CommandStatus::Running => Mark::Wait,
            CommandStatus::Expired | CommandStatus::Cancelled => Mark::Off,
            CommandStatus::Unknown => Mark::Warn,
            CommandStatus::Failed | CommandStatus::Refused => Mark::Bad,
        };
        Self::new(mark, status.as_str())
    }
}
