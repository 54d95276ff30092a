use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::{AppName, CommandId, DeployRequest, EnvRequest, InvalidId, Process, SlotId, Time};

/// What can be done to an app or a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Start what is stopped.
    Start,
    /// Stop what runs.
    Stop,
    /// Stop and start.
    Restart,
    /// Start the new before the old is stopped, in cluster mode; restart otherwise.
    Reload,
    /// Take off PM2's list.
    Delete,
    /// Set PM2's own restart counter to 0.
    Reset,
    /// Restart with a changed environment.
    Env,
    /// Send a signal.
    Signal,
    /// Run a custom action of the application.
    Trigger,
    /// Change the number of instances.
    Scale,
    /// Empty the logs.
    Flush,
    /// Slots: put an application there.
    Deploy,
    /// Slots: back to an earlier deployment.
    Rollback,
}

impl Action {
    /// Every action on apps.
    pub const ALL: [Self; 11] = [
        Self::Start,
        Self::Stop,
        Self::Restart,
        Self::Reload,
        Self::Delete,
        Self::Reset,
        Self::Env,
        Self::Signal,
        Self::Trigger,
        Self::Scale,
        Self::Flush,
    ];

    /// Every action on slots.
    pub const OF_SLOTS: [Self; 5] =
        [Self::Deploy, Self::Stop, Self::Restart, Self::Rollback, Self::Env];

    /// The word used in paths, JSON and labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::Reload => "reload",
            Self::Delete => "delete",
            Self::Reset => "reset",
            Self::Env => "env",
            Self::Signal => "signal",
            Self::Trigger => "trigger",
            Self::Scale => "scale",
            Self::Flush => "flush",
            Self::Deploy => "deploy",
            Self::Rollback => "rollback",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Action {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let mut all = Self::ALL.into_iter().chain([Self::Deploy, Self::Rollback]);
        all.find(|action| action.as_str() == text).ok_or_else(|| InvalidId {
            what: "action",
            value: text.chars().take(100).collect(),
            allowed: "start, stop, restart, reload, delete, reset, env, signal, trigger, scale \
                      or flush; of a slot deploy, stop, restart, rollback or env",
        })
    }
}

/// What a command is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// Every instance of an app's name.
    App(AppName),
    /// A slot.
    Slot(SlotId),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::App(name) => write!(f, "app {name}"),
            Self::Slot(slot) => write!(f, "slot {slot}"),
        }
    }
}

/// Body of `PUT /api/commands/{id}`:
/// `{"target":{"app":"api"},"action":"restart"}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandRequest {
    /// What it is about.
    pub target: Target,
    /// What to do.
    pub action: Action,
    /// In which PM2, by its directory: needed where the exporter watches several that have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pm2_home: Option<SmolStr>,
    /// Further arguments, by action; values are never logged or shown again.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub arguments: BTreeMap<String, String>,
    /// Save PM2's list for the next boot when all went well.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub save: bool,
    /// What to deploy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deploy: Option<Box<DeployRequest>>,
    /// What to set in a slot's environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<EnvRequest>,
}

/// How far a command is, at the exporter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CommandStatus {
    /// Waits for its turn, or for its server.
    Queued,
    /// Under way.
    Running,
    /// Done.
    Succeeded,
    /// Tried, and it did not work.
    Failed,
    /// Not tried: unknown target, full queue, not allowed.
    Refused,
    /// Sent, and nobody knows what became of it.
    Unknown,
    /// Not sent in time.
    Expired,
    /// Taken back before it was sent.
    Cancelled,
}

impl CommandStatus {
    /// Every status.
    pub const ALL: [Self; 8] = [
        Self::Queued,
        Self::Running,
        Self::Succeeded,
        Self::Failed,
        Self::Refused,
        Self::Unknown,
        Self::Expired,
        Self::Cancelled,
    ];

    /// The word used in JSON, labels and pages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether nothing more will happen.
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Queued | Self::Running)
    }
}

/// What a command did to one instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InstanceOutcome {
    /// PM2's number of the process acted on.
    pub pm_id: u32,
    /// What PM2 said, where it refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A command as the exporter remembers it: `GET /api/commands/{id}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CommandRecord {
    /// Its id, chosen by who asked.
    pub id: CommandId,
    /// What it is about.
    pub target: Target,
    /// What was to be done.
    pub action: Action,
    /// In which PM2, by its directory, where the exporter watches several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pm2_home: Option<SmolStr>,
    /// How far it is.
    pub status: CommandStatus,
    /// Name of the token that asked.
    pub requested_by: String,
    /// When it came in.
    pub requested_at: Time,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
    /// What went wrong, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What the application returned, as JSON: for a custom action.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply: Option<String>,
    /// Instance by instance.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outcomes: Vec<InstanceOutcome>,
    /// The processes before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub before: Vec<Process>,
    /// The processes after.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<Process>,
}

impl CommandRecord {
    /// One that nothing has happened to yet.
    pub fn queued(
        id: CommandId,
        target: Target,
        action: Action,
        requested_by: String,
        requested_at: Time,
    ) -> Self {
        Self {
            id,
            target,
            action,
            pm2_home: None,
            status: CommandStatus::Queued,
            requested_by,
            requested_at,
            finished_at: None,
            error: None,
            reply: None,
            outcomes: Vec::new(),
            before: Vec::new(),
            after: Vec::new(),
        }
    }
}
