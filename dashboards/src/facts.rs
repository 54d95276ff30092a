//! What the pages are told: the poller makes these from its store.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use wire::{AppName, CommandRecord, Event, InvalidId, ServerId, Severity, SmolStr, State, Time};

/// Whether a server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ServerStatus {
    /// The last poll was answered.
    Online,
    /// Polls fail, and the last answer is younger than `stale_after`.
    Stale,
    /// No answer for longer than `stale_after`, or never.
    Offline,
}

impl ServerStatus {
    /// Every status.
    pub const ALL: [Self; 3] = [Self::Online, Self::Stale, Self::Offline];

    /// The word used in addresses, JSON and pages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Stale => "stale",
            Self::Offline => "offline",
        }
    }
}

impl fmt::Display for ServerStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for ServerStatus {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        Self::ALL.into_iter().find(|status| status.as_str() == text).ok_or_else(|| InvalidId {
            what: "server status",
            value: text.chars().take(100).collect(),
            allowed: "online, stale or offline",
        })
    }
}

/// How polling a server goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contact {
    /// Whether it answers.
    pub status: ServerStatus,
    /// When it last answered; `None` when it never did.
    pub last_success: Option<Time>,
    /// Why the last poll failed, for people: `connection refused`. `None` with
    /// `last_success: None` means that it was not asked yet.
    pub error: Option<String>,
}

/// A server as the poller knows it. Cheap to clone: the large parts are shared.
#[derive(Clone, Debug)]
pub struct Server {
    /// Its id.
    pub id: ServerId,
    /// Its group; empty for none.
    pub group: String,
    /// Its tags.
    pub tags: Vec<String>,
    /// Where its exporter is, without credentials; empty when not to be shown.
    pub url: String,
    /// How polling it goes.
    pub contact: Contact,
    /// What it said last, with the newest readings that the poller has, whatever their age.
    /// `None` when it never answered.
    pub state: Option<Arc<State>>,
    /// CPU of the machine as a fraction of all its cores, 0 to 1, over the last interval.
    pub host_cpu: Option<f64>,
    /// The same over the last hour, in steps of equal length, oldest first; `None` for a step
    /// without a reading. Empty for no trend.
    pub trend: Vec<Option<f64>>,
    /// Exits with cause `crash` or `oom` in the last [`crate::Server::CRASH_WINDOW_MILLIS`] of the
    /// instance that has most, by app and PM2's directory, where it is one of several; those without
    /// any may be left out.
    pub crashes: BTreeMap<(AppName, Option<SmolStr>), u32>,
    /// Alerts about it that are told now.
    pub alerts: Vec<AlertRow>,
}

/// An alert that holds, for as long as it takes to be told.
#[derive(Clone, Debug)]
pub struct AlertRow {
    /// `Pm2MemoryGrowth`
    pub name: String,
    /// How bad it is.
    pub severity: Severity,
    /// The app that it is about, if it is about one.
    pub app: Option<AppName>,
    /// PM2's directory, where it is about one of several.
    pub pm2_home: Option<SmolStr>,
    /// What is said of it, with values.
    pub description: String,
}

impl Server {
    /// How far back [`Server::crashes`] counts: ten minutes.
    pub const CRASH_WINDOW_MILLIS: i64 = 10 * 60 * 1000;

    /// An app one instance of which crashed this often within the window is in a crash loop.
    pub const CRASH_LOOP: u32 = 3;
}

/// An event with where and when.
#[derive(Clone, Debug)]
pub struct EventRow {
    /// The poller's own number of it.
    pub id: i64,
    /// Where.
    pub server: ServerId,
    /// When.
    pub time: Time,
    /// What.
    pub event: Event,
}

/// A command with where.
#[derive(Clone, Debug)]
pub struct CommandRow {
    /// Where.
    pub server: ServerId,
    /// Who, what, when, and how it ended. `requested_by` is the poller's user or token.
    pub record: CommandRecord,
}
