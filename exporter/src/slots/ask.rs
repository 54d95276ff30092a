//! What is asked of slots, why it is not taken, and what is written down of it.

use serde::Serialize;
use wire::{
    Action, CommandId, CommandRecord, CommandStatus, DeployRequest, Deployment, DeploymentStatus,
    EnvRequest, InvalidId, SlotId, SlotRequest, Target, Time,
};

use super::plan::{Occupant, Wish};
use super::repository::Repository;
use super::store::{Deployed, SlotState};

/// Changes that wait for their turn, over all slots; one more is refused.
pub(super) const QUEUE: usize = 16;

/// Why a change was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// No such slot.
    #[error("there is no slot {0:?}; there are: {1}")]
    UnknownSlot(SlotId, String),
    /// No such deployment.
    #[error("slot {0:?} has no deployment {1:?}")]
    UnknownDeployment(SlotId, String),
    /// The request is not what it should be.
    #[error("{0}")]
    Wrong(String),
    /// The id names another command.
    #[error("command {0} was something else: an id names one command for good")]
    Reused(CommandId),
    /// The queue is full.
    #[error("{QUEUE} changes of slots are under way or wait already: try again later")]
    Busy,
    /// What is asked for is not possible now.
    #[error("{0}")]
    Conflict(String),
    /// The slot's state cannot be read or written.
    #[error("the slot's state cannot be kept: {0}")]
    Storage(String),
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum Ask {
    /// A new release.
    Deploy(Box<DeployRequest>),
    /// Variables of the slot's own, and a restart.
    Env(EnvRequest),
    /// Stop, restart or roll back.
    Other(Action, SlotRequest),
}

impl Ask {
    /// Its word.
    pub fn action(&self) -> Action {
        match self {
            Self::Deploy(_) => Action::Deploy,
            Self::Env(_) => Action::Env,
            Self::Other(action, _) => *action,
        }
    }

    pub(super) fn reclaim(&self) -> bool {
        match self {
            Self::Deploy(request) => request.reclaim,
            Self::Env(_) => false,
            Self::Other(_, request) => request.reclaim,
        }
    }

    pub(super) fn wish(&self) -> Wish {
        match self {
            Self::Deploy(_) => Wish::Deploy,
            Self::Other(Action::Stop, _) => Wish::Stop,
            Self::Other(Action::Rollback, request) => Wish::Rollback(request.deployment.clone()),
            Self::Env(_) | Self::Other(..) => Wish::Restart,
        }
    }
}

pub(super) fn queued(
    slot: &SlotId,
    id: &CommandId,
    request: &DeployRequest,
    repository: &Repository,
    by: &str,
) -> Deployed {
    Deployed {
        shown: Deployment {
            id: id.clone(),
            slot: slot.clone(),
            status: DeploymentStatus::Queued,
            repository: repository.to_string(),
            branch: request.branch.clone(),
            commit: request.commit.as_ref().map(|commit| commit.to_ascii_lowercase()),
            subdir: request.subdir.clone(),
            requested_by: by.to_owned(),
            requested_at: Time::now(),
            finished_at: None,
            start: None,
            env_names: request.env.keys().cloned().collect(),
            error: None,
            last_lines: Vec::new(),
            current: false,
            kept: false,
        },
        env: request.env.clone(),
        start: None,
        health_path: request.health_path.clone(),
        imported: false,
    }
}

pub(super) fn shown(state: &SlotState, deployed: &Deployed) -> Deployment {
    let id = &deployed.shown.id;
    let current = Occupant::Release(id.clone()) == state.standing.current;
    let kept = state.standing.kept.contains(id);
    Deployment { current, kept, ..deployed.shown.clone() }
}

/// The command that a deployment was.
pub(super) fn record_of(shown: &Deployment) -> CommandRecord {
    let target = Target::Slot(shown.slot.clone());
    let (id, by) = (shown.id.clone(), shown.requested_by.clone());
    CommandRecord {
        status: match shown.status {
            DeploymentStatus::Queued => CommandStatus::Queued,
            DeploymentStatus::Healthy => CommandStatus::Succeeded,
            DeploymentStatus::Failed => CommandStatus::Failed,
            _ => CommandStatus::Running,
        },
        finished_at: shown.finished_at,
        error: shown.error.clone(),
        ..CommandRecord::queued(id, target, Action::Deploy, by, shown.requested_at)
    }
}

/// A new id: sorted by time, unlike every other.
///
/// # Errors
/// There are no random numbers.
pub fn new_id() -> Result<CommandId, String> {
    let mut random = [0u8; 4];
    getrandom::fill(&mut random).map_err(|error| format!("no random numbers: {error}"))?;
    let time: String =
        Time::now().to_string().chars().filter(char::is_ascii_alphanumeric).take(15).collect();
    format!("{time}-{:08x}", u32::from_be_bytes(random))
        .parse()
        .map_err(|error: InvalidId| error.to_string())
}
