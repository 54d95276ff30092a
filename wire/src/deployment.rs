use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{CommandId, SlotId, Time};

/// A command line: a list of words, or one text that is split at spaces, where `'…'` and
/// `"…"` keep spaces. No shell ever reads it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum CommandLine {
    /// `"npm run build"`
    Text(String),
    /// `["npm", "run", "build"]`
    Words(Vec<String>),
}

/// Body of `POST /api/slots/{slot}/deploy`.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeployRequest {
    /// Where the application is: `https://github.com/acme/shop.git`, `git@host:shop.git`.
    pub repository: String,
    /// Its branch or tag; the repository's default one unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// Its commit, all 40 (or 64) digits; the newest unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// The folder of the application within the repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subdir: Option<String>,
    /// What installs it; found by its lock file unless set. An empty one installs nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub install: Option<CommandLine>,
    /// What builds it; the package's `build` script unless set. An empty one builds nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<CommandLine>,
    /// What runs it; the package's `start` script or `main` unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<CommandLine>,
    /// Environment of this deployment. Values go in and are never shown again.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Path that answers with a status below 400 once it is well; `/health`, then `/` unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_path: Option<String>,
    /// What cloning, installing and building may take together: `10m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
    /// End whatever else holds the slot's port.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reclaim: bool,
}

impl fmt::Debug for DeployRequest {
    /// Without what may be secret: the address may hold a password, the environment does.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeployRequest")
            .field("branch", &self.branch)
            .field("commit", &self.commit)
            .field("subdir", &self.subdir)
            .field("env", &self.env.keys())
            .finish_non_exhaustive()
    }
}

/// Body of `POST /api/slots/{slot}/{stop|restart|rollback}`; may be left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SlotRequest {
    /// Rollback: to this deployment; to the former one unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deployment: Option<CommandId>,
    /// End whatever else holds the slot's port.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub reclaim: bool,
}

/// Body of `PUT /api/slots/{slot}/env`: values to set; `null` removes a name.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvRequest {
    /// By name.
    pub env: BTreeMap<String, Option<String>>,
}

impl fmt::Debug for EnvRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnvRequest").field("env", &self.env.keys()).finish()
    }
}

/// How far a deployment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeploymentStatus {
    /// Waits for its turn.
    Queued,
    /// Is being fetched.
    Cloning,
    /// Its packages are being installed.
    Installing,
    /// Is being built.
    Building,
    /// Is being tried on a spare port.
    Probing,
    /// Takes the place of what ran.
    Switching,
    /// Answers on the slot's port.
    Healthy,
    /// Did not come that far; what ran before runs on, or again.
    Failed,
}

impl DeploymentStatus {
    /// The word used in JSON, events and labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Cloning => "cloning",
            Self::Installing => "installing",
            Self::Building => "building",
            Self::Probing => "probing",
            Self::Switching => "switching",
            Self::Healthy => "healthy",
            Self::Failed => "failed",
        }
    }

    /// Whether nothing more will happen.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Healthy | Self::Failed)
    }
}

/// A deployment: what was asked for, how far it is, how it went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployment {
    /// Its id.
    pub id: CommandId,
    /// The slot.
    pub slot: SlotId,
    /// How far it is.
    pub status: DeploymentStatus,
    /// Where it came from, without credentials.
    pub repository: String,
    /// Its branch, where one was named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// Its commit, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Its folder within the repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subdir: Option<String>,
    /// Name of the token that asked.
    pub requested_by: String,
    /// When it was asked for.
    pub requested_at: Time,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
    /// What runs it, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    /// Names of the variables that came with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env_names: Vec<String>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The last lines of its log, where it failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub last_lines: Vec<String>,
    /// The slot runs it.
    #[serde(default)]
    pub current: bool,
    /// It is kept, so that a rollback to it is possible.
    #[serde(default)]
    pub kept: bool,
}

/// `GET /api/slots/{slot}/deployments`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentList {
    /// Newest first.
    pub deployments: Vec<Deployment>,
}
