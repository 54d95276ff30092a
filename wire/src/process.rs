use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::{AppName, SlotId, Time};

/// Which process: the app's name, its PM2 namespace and the number of the instance.
///
/// Stable over restarts and redeploys, unlike PM2's `pm_id`. Instances of one name and
/// namespace in one PM2 are numbered from 0 in the order of their `pm_id`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Instance {
    /// The app's name.
    pub name: AppName,
    /// PM2's namespace, `default` unless set.
    pub namespace: SmolStr,
    /// 0, 1, … within name and namespace.
    pub instance_id: u32,
    /// PM2's directory, as configured; absent where the exporter watches one only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pm2_home: Option<SmolStr>,
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.namespace, self.name, self.instance_id)?;
        match &self.pm2_home {
            Some(home) => write!(f, " in {home}"),
            None => Ok(()),
        }
    }
}

/// PM2's view of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Running.
    Online,
    /// Started, not yet online.
    Launching,
    /// Asked to stop, still there.
    Stopping,
    /// Not running, and PM2 leaves it so.
    Stopped,
    /// Not running: PM2 gave up restarting it.
    Errored,
    /// Not running: PM2 restarts it after a delay.
    WaitingRestart,
    /// Runs once and has ended.
    OneLaunch,
    /// A word that this version does not know.
    #[serde(other)]
    Unknown,
}

impl Status {
    /// Every status, in the order of the metrics page.
    pub const ALL: [Self; 8] = [
        Self::Online,
        Self::Launching,
        Self::Stopping,
        Self::Stopped,
        Self::Errored,
        Self::WaitingRestart,
        Self::OneLaunch,
        Self::Unknown,
    ];

    /// From PM2's own word (`waiting restart`).
    pub fn from_pm2(word: &str) -> Self {
        match word {
            "online" => Self::Online,
            "launching" => Self::Launching,
            "stopping" => Self::Stopping,
            "stopped" => Self::Stopped,
            "errored" => Self::Errored,
            "waiting restart" => Self::WaitingRestart,
            "one-launch-status" => Self::OneLaunch,
            _ => Self::Unknown,
        }
    }

    /// The word used in JSON, labels and pages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Launching => "launching",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Errored => "errored",
            Self::WaitingRestart => "waiting_restart",
            Self::OneLaunch => "one_launch",
            Self::Unknown => "unknown",
        }
    }

    /// Whether PM2 holds a running operating-system process in this status.
    pub fn has_process(self) -> bool {
        matches!(self, Self::Online | Self::Launching | Self::Stopping)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Why a process was started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestartCause {
    /// It ended by itself, with a failure or without.
    Crash,
    /// Somebody asked for it.
    Manual,
    /// Somebody asked for a graceful reload.
    Reload,
    /// A slot was switched.
    Deploy,
    /// It used more memory than allowed.
    Oom,
    /// It happened while nobody looked.
    #[serde(other)]
    Unknown,
}

impl RestartCause {
    /// Every cause, in the order of the metrics page.
    pub const ALL: [Self; 6] =
        [Self::Crash, Self::Manual, Self::Reload, Self::Deploy, Self::Oom, Self::Unknown];

    /// The word used in JSON, labels and pages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::Manual => "manual",
            Self::Reload => "reload",
            Self::Deploy => "deploy",
            Self::Oom => "oom",
            Self::Unknown => "unknown",
        }
    }
}

/// Restarts since the exporter first saw the app, by cause. Never falls, whatever
/// `pm2 reset` does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RestartCounts {
    /// See [`RestartCause::Crash`].
    pub crash: u64,
    /// See [`RestartCause::Manual`].
    pub manual: u64,
    /// See [`RestartCause::Reload`].
    pub reload: u64,
    /// See [`RestartCause::Deploy`].
    pub deploy: u64,
    /// See [`RestartCause::Oom`].
    pub oom: u64,
    /// See [`RestartCause::Unknown`].
    pub unknown: u64,
}

impl RestartCounts {
    /// The count of one cause.
    pub fn get(&self, cause: RestartCause) -> u64 {
        match cause {
            RestartCause::Crash => self.crash,
            RestartCause::Manual => self.manual,
            RestartCause::Reload => self.reload,
            RestartCause::Deploy => self.deploy,
            RestartCause::Oom => self.oom,
            RestartCause::Unknown => self.unknown,
        }
    }

    /// Counts `more` restarts of one cause.
    pub fn add(&mut self, cause: RestartCause, more: u64) {
        let count = match cause {
            RestartCause::Crash => &mut self.crash,
            RestartCause::Manual => &mut self.manual,
            RestartCause::Reload => &mut self.reload,
            RestartCause::Deploy => &mut self.deploy,
            RestartCause::Oom => &mut self.oom,
            RestartCause::Unknown => &mut self.unknown,
        };
        *count = count.saturating_add(more);
    }

    /// All causes together.
    pub fn total(&self) -> u64 {
        RestartCause::ALL.iter().fold(0, |sum, cause| sum.saturating_add(self.get(*cause)))
    }
}

/// How a process ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitInfo {
    /// Exit code, where PM2 told one and no signal ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// The signal that ended it: `SIGKILL`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// When.
    pub at: Time,
}

/// Readings of one process and its children at one moment. What could not be read is absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Readings {
    /// CPU time used since the process started, user and system, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_seconds: Option<f64>,
    /// Resident memory in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Threads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<u32>,
    /// Open file descriptors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_fds: Option<u32>,
    /// Bytes written to stdout as seen on the bus since the exporter started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_out_bytes: Option<u64>,
    /// Bytes written to stderr, likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_err_bytes: Option<u64>,
    /// What Node.js itself told, by the name that history uses (`event_loop_latency` in
    /// seconds, `heap_used` in bytes, `http_rate` per second, …), base units.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub node: BTreeMap<SmolStr, f64>,
    /// Custom metrics of the application.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub custom: Vec<CustomMetric>,
}

/// A metric that the application itself reports through `@pm2/io`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CustomMetric {
    /// Its name as the application gave it.
    pub name: SmolStr,
    /// Its value, finite.
    pub value: f64,
    /// Its unit as the application gave it; empty for none.
    #[serde(default, skip_serializing_if = "SmolStr::is_empty")]
    pub unit: SmolStr,
}

/// One PM2 process as the exporter knows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Process {
    /// Which.
    #[serde(flatten)]
    pub instance: Instance,
    /// PM2's number of it; changes with every delete and start.
    pub pm_id: u32,
    /// The operating system's number of it, where it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// PM2's view.
    pub status: Status,
    /// `fork` or `cluster`.
    pub exec_mode: String,
    /// `node`, `none`, …: the file name alone.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub interpreter: String,
    /// Version of Node.js, where it is one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub node_version: String,
    /// Version in the application's package.json.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// Start of the running process; absent when it does not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// Restarts by cause.
    pub restarts: RestartCounts,
    /// Exceptions seen that nobody caught, or that the application reported itself.
    #[serde(default)]
    pub exceptions: u64,
    /// How it ended last, where that was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_exit: Option<ExitInfo>,
    /// The slot it serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<SlotId>,
    /// PM2 calls it online, and there is no such process.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub online_without_pid: bool,
    /// Readings at the time of the answer.
    #[serde(flatten)]
    pub readings: Readings,
}

/// `GET /api/processes`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProcessList {
    /// All, by name, namespace and instance.
    pub processes: Vec<Process>,
    /// How many.
    pub total: usize,
    /// How many of them are online.
    pub online: usize,
}

/// `GET /api/processes/{name}`: an app with its instances.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AppGroup {
    /// The app.
    pub name: AppName,
    /// How many instances.
    pub total: usize,
    /// How many of them are online.
    pub online: usize,
    /// The instances.
    pub instances: Vec<Process>,
}
