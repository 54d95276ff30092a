use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::{AppName, CommandId, CommandStatus, InvalidId, RestartCause};

/// Which of an event's details name a command that ended, and how it did.
const COMMAND_ID: &str = "command_id";
const OUTCOME: &str = "outcome";

/// How bad an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// As expected.
    Info,
    /// Worth a look.
    Warning,
    /// Something failed.
    Error,
    /// Something is down and stays down.
    Critical,
}

impl Severity {
    /// Every severity, mildest first.
    pub const ALL: [Self; 4] = [Self::Info, Self::Warning, Self::Error, Self::Critical];

    /// The word used in JSON, labels and pages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Critical => "critical",
        }
    }
}

/// What happened, in one word of `a` to `z`, `0` to `9` and `_`, at most 64 long. The words that this
/// version says are the constants here; a reader accepts others, so that an older poller
/// takes a newer exporter.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct EventKind(std::borrow::Cow<'static, str>);

impl EventKind {
    /// A process ended.
    pub const EXIT: Self = Self::known("exit");
    /// A process came online.
    pub const ONLINE: Self = Self::known("online");
    /// PM2 was asked to start a new process.
    pub const START: Self = Self::known("start");
    /// PM2 was asked to stop a process.
    pub const STOP: Self = Self::known("stop");
    /// PM2 was asked to restart a process.
    pub const RESTART: Self = Self::known("restart");
    /// PM2 was asked to reload a process.
    pub const RELOAD: Self = Self::known("reload");
    /// A process is no longer in PM2's list.
    pub const DELETE: Self = Self::known("delete");
    /// PM2 gave up restarting a process.
    pub const ERRORED: Self = Self::known("errored");
    /// An uncaught exception.
    pub const EXCEPTION: Self = Self::known("exception");
    /// The exporter reached the PM2 daemon.
    pub const PM2_CONNECTED: Self = Self::known("pm2_connected");
    /// The exporter lost the PM2 daemon.
    pub const PM2_DISCONNECTED: Self = Self::known("pm2_disconnected");
    /// The exporter started.
    pub const EXPORTER_STARTED: Self = Self::known("exporter_started");
    /// A command ended.
    pub const COMMAND: Self = Self::known("command");
    /// A deployment waits for its turn.
    pub const DEPLOY_QUEUED: Self = Self::known("deploy_queued");
    /// A deployment is being fetched.
    pub const DEPLOY_CLONING: Self = Self::known("deploy_cloning");
    /// A deployment's packages are being installed.
    pub const DEPLOY_INSTALLING: Self = Self::known("deploy_installing");
    /// A deployment is being built.
    pub const DEPLOY_BUILDING: Self = Self::known("deploy_building");
    /// A deployment is being tried on a spare port.
    pub const DEPLOY_PROBING: Self = Self::known("deploy_probing");
    /// A deployment takes the place of what ran.
    pub const DEPLOY_SWITCHING: Self = Self::known("deploy_switching");
    /// A deployment answers on its slot's port.
    pub const DEPLOY_HEALTHY: Self = Self::known("deploy_healthy");
    /// A deployment failed.
    pub const DEPLOY_FAILED: Self = Self::known("deploy_failed");
    /// A slot serves its placeholder again.
    pub const SLOT_STOPPED: Self = Self::known("slot_stopped");
    /// A slot's process was started anew.
    pub const SLOT_RESTARTED: Self = Self::known("slot_restarted");
    /// A slot went back to an earlier deployment.
    pub const SLOT_ROLLED_BACK: Self = Self::known("slot_rolled_back");
    /// A slot could not be changed as asked.
    pub const SLOT_FAILED: Self = Self::known("slot_failed");
    /// A change of a slot that was cut off was brought to an end.
    pub const SLOT_RECOVERED: Self = Self::known("slot_recovered");
    /// The poller: a server stopped answering.
    pub const SERVER_OFFLINE: Self = Self::known("server_offline");
    /// The poller: a server answers.
    pub const SERVER_ONLINE: Self = Self::known("server_online");
    /// The poller: entries of a server's journal are gone for good.
    pub const JOURNAL_LOST: Self = Self::known("journal_lost");
    /// The poller: a server's journal has begun anew, with no entry known to be lost.
    pub const JOURNAL_RESET: Self = Self::known("journal_reset");

    /// The poller: what a server said while its clock was ahead was set right.
    pub const CLOCK_AHEAD: Self = Self::known("clock_ahead");
    /// The poller: a server told of so much that not all of it is kept.
    pub const EVENTS_DROPPED: Self = Self::known("events_dropped");
    /// The poller: its database was too large, and the oldest history went.
    pub const HISTORY_DROPPED: Self = Self::known("history_dropped");
    /// The poller: its database is larger than it may be, and has nothing that may be dropped.
    pub const DATABASE_TOO_LARGE: Self = Self::known("database_too_large");
    /// The poller: its database was damaged and was set aside for a new one.
    pub const DATABASE_REPLACED: Self = Self::known("database_replaced");
    /// The poller: a copy of its database by schedule failed.
    pub const BACKUP_FAILED: Self = Self::known("backup_failed");

    const fn known(word: &'static str) -> Self {
        Self(std::borrow::Cow::Borrowed(word))
    }

    /// The word.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for EventKind {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        let valid = (1..=64).contains(&text.len())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
        if valid {
            return Ok(Self(text.into()));
        }
        Err(InvalidId {
            what: "event kind",
            value: text.chars().take(100).collect(),
            allowed: "1 to 64 characters of a to z, 0 to 9 and '_'",
        })
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// What.
    pub kind: EventKind,
    /// How bad.
    pub severity: Severity,
    /// The app it happened to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<AppName>,
    /// PM2's namespace of that app.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<SmolStr>,
    /// The instance of that app.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<u32>,
    /// PM2's directory, where the exporter watches several and it is about one of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pm2_home: Option<SmolStr>,
    /// PM2's number of the process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pm_id: Option<u32>,
    /// One line for people.
    pub message: String,
    /// Exit code, for `exit`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Signal, for `exit`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// Why, for `exit`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<RestartCause>,
    /// More, by kind: `stack`, `stderr`, `command_id` and its `outcome`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub details: BTreeMap<String, String>,
}

impl Event {
    /// An event of no app.
    pub fn new(kind: EventKind, severity: Severity, message: impl Into<String>) -> Self {
        Self {
            kind,
            severity,
            app: None,
            namespace: None,
            instance_id: None,
            pm2_home: None,
            pm_id: None,
            message: message.into(),
            exit_code: None,
            signal: None,
            cause: None,
            details: BTreeMap::new(),
        }
    }

    /// Makes it tell the end of a command, `succeeded` or `failed`.
    pub fn tell_end(&mut self, id: &CommandId, status: CommandStatus) {
        self.details.insert(COMMAND_ID.to_owned(), id.to_string());
        self.details.insert(OUTCOME.to_owned(), status.as_str().to_owned());
    }

    /// The command whose end it tells, and whether it [succeeded](CommandStatus::Succeeded) or
    /// [failed](CommandStatus::Failed).
    pub fn end(&self) -> Option<(CommandId, CommandStatus)> {
        let outcome = self.details.get(OUTCOME)?;
        let ends = [CommandStatus::Succeeded, CommandStatus::Failed];
        let status = ends.into_iter().find(|status| status.as_str() == outcome)?;
        Some((self.details.get(COMMAND_ID)?.parse().ok()?, status))
    }
}
