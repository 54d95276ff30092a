use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::{JournalPosition, Process, Slot, Time};

/// `GET /api/state`: everything that an exporter knows now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// When it was read.
    pub time: Time,
    /// Changes whenever anything other than readings changes.
    pub revision: u64,
    /// The program itself.
    pub exporter: ExporterInfo,
    /// The PM2 daemon; the first, where several are watched.
    pub pm2: Pm2State,
    /// Every PM2 daemon, in the order of the configuration, where several are watched.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub homes: Vec<Pm2State>,
    /// The machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostReadings>,
    /// Every process, by name, namespace and instance.
    pub processes: Vec<Process>,
    /// Every slot, in the order of the configuration; none where the host has none.
    pub slots: Vec<Slot>,
    /// Where the journal stands.
    pub journal: JournalPosition,
}

impl State {
    /// Every PM2 daemon, in the order of the configuration: one, unless several are watched.
    pub fn pm2_homes(&self) -> &[Pm2State] {
        match &self.homes[..] {
            [] => std::slice::from_ref(&self.pm2),
            homes => homes,
        }
    }
}

/// The exporter itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExporterInfo {
    /// Its version.
    pub version: String,
    /// When it started.
    pub started_at: Time,
    /// The host's own name for itself.
    pub hostname: String,
    /// `linux`.
    pub os: String,
    /// `x86_64`, `aarch64`.
    pub arch: String,
    /// Tokens that were given an end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub token_expiries: Vec<TokenExpiry>,
}

/// When a token ends being good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenExpiry {
    /// Its name, never the token.
    pub name: String,
    /// When.
    pub expires_at: Time,
}

/// The PM2 daemon as the exporter sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pm2State {
    /// Whether it answered when last asked.
    pub up: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Its directory.
    pub home: String,
    /// Processes that it has and a reboot would lose; absent when nothing was ever saved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dump_missing: Option<u32>,
    /// Processes that a reboot would start and it does not have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dump_extra: Option<u32>,
    /// How often a routine look at PM2's own list found what nothing had told, and mended it,
    /// since the exporter started.
    #[serde(default)]
    pub drifts: u64,
    /// When its process list was last confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmed_at: Option<Time>,
}

/// Readings of the machine. What could not be read is absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostReadings {
    /// CPU time in seconds since boot, by mode (`user`, `system`, `iowait`, …), all cores.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cpu_seconds: Vec<(SmolStr, f64)>,
    /// Cores.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<u32>,
    /// Memory in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_total_bytes: Option<u64>,
    /// Memory that new programs could have, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_available_bytes: Option<u64>,
    /// Load average over one minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load1: Option<f64>,
    /// Size in bytes of the file system that holds PM2's directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filesystem_size_bytes: Option<u64>,
    /// Bytes of it free to ordinary users.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filesystem_avail_bytes: Option<u64>,
    /// When the machine started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub booted_at: Option<Time>,
}
