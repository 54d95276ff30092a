use serde::{Deserialize, Serialize};

use crate::{Event, HostReadings, Instance, Readings, State, Status, Time};

/// Where a journal stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalPosition {
    /// Names this life of the journal; numbers are comparable within one epoch only.
    pub epoch: String,
    /// Number of the oldest entry kept; `next` when there is none.
    pub first: u64,
    /// Number that the next entry will get. The first ever is 1.
    pub next: u64,
}

/// Readings of everything at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// The host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostReadings>,
    /// Every process, running or not.
    pub processes: Vec<SampledProcess>,
}

/// One process within a [`Sample`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SampledProcess {
    /// Which.
    #[serde(flatten)]
    pub instance: Instance,
    /// PM2's view.
    pub status: Status,
    /// Restarts, all causes.
    pub restarts: u64,
    /// What was read.
    #[serde(flatten)]
    pub readings: Readings,
}

/// What one entry holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Record {
    /// Readings, every `sample_interval`.
    Sample(Sample),
    /// Something happened.
    Event(Event),
}

/// One entry of the journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Its number: one more than the entry before.
    pub seq: u64,
    /// When.
    pub time: Time,
    /// What.
    pub record: Record,
}

/// `GET /api/journal?epoch=&after=&limit=&wait=&known_state=`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JournalPage {
    /// The exporter's clock when it answered.
    pub now: Time,
    /// Where the journal stands. When `epoch` is not the one asked for, and not one that this
    /// journal continues, the page starts at the oldest entry kept.
    pub journal: JournalPosition,
    /// Entries after the position asked for, oldest first.
    pub entries: Vec<Entry>,
    /// What to pass as `after` for the page that follows.
    pub after: u64,
    /// Entries between the position asked for and the oldest kept: gone for good.
    pub lost: u64,
    /// More entries are there already.
    pub more: bool,
    /// Changes whenever anything in [`State`] other than readings changes.
    pub state_revision: u64,
    /// The state, unless `known_state` names the present revision of the present epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<Box<State>>,
}
