use serde::{Deserialize, Serialize};

use crate::{AppName, CommandId, DeploymentStatus, SlotId, Status, Time};

/// What a slot runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SlotType {
    /// The page that says that the slot is free.
    Placeholder,
    /// An application.
    Deployed,
    /// No PM2 process of the slot's name exists.
    Missing,
}

impl SlotType {
    /// The word used in JSON, labels and pages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Placeholder => "placeholder",
            Self::Deployed => "deployed",
            Self::Missing => "missing",
        }
    }
}

/// A named place with a fixed port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// Which: `a`.
    pub slot: SlotId,
    /// Its port.
    pub port: u16,
    /// The PM2 process that serves it: `slot-a`.
    pub process: AppName,
    /// What it runs.
    #[serde(rename = "type")]
    pub kind: SlotType,
    /// PM2's view of that process; absent when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// Whether something accepts connections on the port.
    pub serving: bool,
    /// Someone other than the slot's process owns the port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub foreign_owner: Option<String>,
    /// Where the application came from, without credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// Its branch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// Its commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// When it was deployed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployed_at: Option<Time>,
    /// By whom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployed_by: Option<String>,
    /// What is done beyond what the fields above say; absent where slots are only watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub more: Option<Box<SlotMore>>,
}

/// What an exporter that manages a slot knows of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotMore {
    /// Where people find it: `SLOT_A_URL`, or `http://localhost:3001`.
    pub url: String,
    /// Id of the deployment that runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployment: Option<CommandId>,
    /// Id of the deployment under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changing: Option<CommandId>,
    /// How far it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<DeploymentStatus>,
    /// Who holds the port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port_owner: Option<PortOwner>,
    /// Names of the slot's own variables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env_names: Vec<String>,
    /// Deployments since the first, by result. They only rise.
    #[serde(default)]
    pub deploys_healthy: u64,
    /// Those that failed.
    #[serde(default)]
    pub deploys_failed: u64,
    /// When the last one ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_deploy_at: Option<Time>,
}

/// The process that listens on a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortOwner {
    /// Its number.
    pub pid: u32,
    /// Its name: `node`.
    pub command: String,
    /// It is the slot's own.
    pub own: bool,
}

/// `GET /api/slots`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotList {
    /// All, in the order of the configuration.
    pub slots: Vec<Slot>,
}
