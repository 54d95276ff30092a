use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::{AppName, CustomMetric, Event, HostReadings, Instance, Readings, State, Status, Time};

/// Where a journal stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalPosition {
    /// Names this life of the journal; numbers are comparable within one epoch only.
    pub epoch: SmolStr,
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
#[serde(from = "Flat")]
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

/// [`SampledProcess`] as it is read: all in one, since serde holds everything back that it reads
/// into flattened parts, and a poller reads hardly anything else.
#[derive(Deserialize)]
struct Flat {
    name: AppName,
    namespace: SmolStr,
    instance_id: u32,
    #[serde(default)]
    pm2_home: Option<SmolStr>,
    status: Status,
    restarts: u64,
    #[serde(default)]
    cpu_seconds: Option<f64>,
    #[serde(default)]
    memory_bytes: Option<u64>,
    #[serde(default)]
    threads: Option<u32>,
    #[serde(default)]
    open_fds: Option<u32>,
    #[serde(default)]
    log_out_bytes: Option<u64>,
    #[serde(default)]
    log_err_bytes: Option<u64>,
    #[serde(default)]
    node: BTreeMap<SmolStr, f64>,
    #[serde(default)]
    custom: Vec<CustomMetric>,
}

impl From<Flat> for SampledProcess {
    fn from(flat: Flat) -> Self {
        let Flat { name, namespace, instance_id, pm2_home, status, restarts, .. } = flat;
        let Flat { cpu_seconds, memory_bytes, threads, open_fds, .. } = flat;
        let Flat { log_out_bytes, log_err_bytes, node, custom, .. } = flat;
        Self {
            instance: Instance { name, namespace, instance_id, pm2_home },
            status,
            restarts,
            readings: Readings {
                cpu_seconds,
                memory_bytes,
                threads,
                open_fds,
                log_out_bytes,
                log_err_bytes,
                node,
                custom,
            },
        }
    }
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

/// `GET /api/journal?epoch=&after=&limit=&wait=&known_state=`. Who sends it may have entries that
/// are JSON already.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JournalPage<E = Entry> {
    /// The exporter's clock when it answered.
    pub now: Time,
    /// Where the journal stands. When `epoch` is not the one asked for, and not one that this
    /// journal continues, the page starts at the oldest entry kept.
    pub journal: JournalPosition,
    /// Entries after the position asked for, oldest first.
    pub entries: Vec<E>,
    /// What to pass as `after` for the page that follows.
    pub after: u64,
    /// Entries between the position asked for and the oldest kept: gone for good.
    pub lost: u64,
    /// The position asked for is none of this journal's: whatever was behind it is gone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub anew: bool,
    /// More entries are there already.
    pub more: bool,
    /// Changes whenever anything in [`State`] other than readings changes.
    pub state_revision: u64,
    /// The state, unless `known_state` names the present revision of the present epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<Box<State>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_as_it_was_written() {
        let whole = SampledProcess {
            instance: Instance {
                name: "api".parse().unwrap(),
                namespace: "default".into(),
                instance_id: 3,
                pm2_home: Some("/home/a/.pm2".into()),
            },
            status: Status::Online,
            restarts: 7,
            readings: Readings {
                cpu_seconds: Some(1.5),
                memory_bytes: Some(2),
                threads: Some(3),
                open_fds: Some(4),
                log_out_bytes: Some(5),
                log_err_bytes: Some(6),
                node: BTreeMap::from([("heap_used".into(), 7.5)]),
                custom: vec![CustomMetric { name: "n".into(), value: 8.5, unit: "u".into() }],
            },
        };
        let least = SampledProcess {
            instance: Instance { pm2_home: None, ..whole.instance.clone() },
            readings: Readings::default(),
            ..whole.clone()
        };
        for process in [whole, least] {
            let json = serde_json::to_string(&process).unwrap();
            assert_eq!(serde_json::from_str::<SampledProcess>(&json).unwrap(), process, "{json}");
        }
    }
}
