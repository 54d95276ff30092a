//! Slots: named places with fixed ports, each served by one PM2 process `slot-<name>`.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;
use wire::{Process, Slot, SlotId, SlotType};

use crate::pm2::Table;
use crate::revision::Revision;

pub mod child;
pub mod config;
pub mod env;
pub mod git;
pub mod install;
pub mod log;
pub mod manager;
mod place;
pub mod plan;
pub mod port;
pub mod probe;
pub mod record;
pub mod repository;
pub mod run;
pub mod start;
pub mod store;
pub mod tell;
pub mod tree;
pub mod words;
pub mod workshop;

pub use config::Settings;
pub use place::SlotPlace;

const CONNECT_WITHIN: Duration = Duration::from_millis(250);

/// Every slot of this host.
#[derive(Debug)]
pub struct Slots {
    places: Vec<SlotPlace>,
    /// Whether they were configured; if not, only those are shown that PM2 runs.
    configured: bool,
    /// Slots whose port accepted a connection when last tried.
    serving: Mutex<Vec<SlotId>>,
    revision: Revision,
}

impl Slots {
    /// As configured, or the default ones.
    pub fn new(settings: &Settings, revision: Revision) -> Self {
        Self {
            configured: settings.configured,
            places: settings.places.clone(),
            serving: Mutex::default(),
            revision,
        }
    }

    /// The slot's place.
    pub fn place(&self, slot: &SlotId) -> Option<&SlotPlace> {
        self.places.iter().find(|place| place.slot == *slot)
    }

    /// The slot that a process of this name serves.
    pub fn served_by(&self, name: &str) -> Option<&SlotId> {
        let slot = name.strip_prefix("slot-")?;
        self.places.iter().map(|place| &place.slot).find(|id| id.as_str() == slot)
    }

    /// Every slot, with PM2's view of its process.
    pub fn all(&self, table: &Table, processes: &[Process]) -> Vec<Slot> {
        let serving = self.serving.lock().unwrap_or_else(PoisonError::into_inner);
        self.places
            .iter()
            .filter_map(|place| {
                let process = place.process()?;
                let placeholder = table.is_placeholder(&process);
                if placeholder.is_none() && !self.configured {
                    return None;
                }
                let status = processes
                    .iter()
                    .find(|candidate| candidate.instance.name == process)
                    .map(|candidate| candidate.status);
                Some(Slot {
                    slot: place.slot.clone(),
                    port: place.port,
                    process,
                    kind: match placeholder {
                        Some(true) => SlotType::Placeholder,
                        Some(false) => SlotType::Deployed,
                        None => SlotType::Missing,
                    },
                    status,
                    serving: serving.contains(&place.slot),
                    foreign_owner: None,
                    repository: None,
                    branch: None,
                    commit: None,
                    deployed_at: None,
                    deployed_by: None,
                    more: None,
                })
            })
            .collect()
    }

    /// Tries every slot's port. Where nothing was configured, only those that `exists` names.
    pub async fn try_ports(&self, exists: impl Fn(&str) -> bool) {
        let mut serving = Vec::new();
        for place in &self.places {
            let Some(process) = place.process() else { continue };
            if !self.configured && !exists(&process) {
                continue;
            }
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, place.port));
            if matches!(timeout(CONNECT_WITHIN, TcpStream::connect(address)).await, Ok(Ok(_))) {
                serving.push(place.slot.clone());
            }
        }
        let mut known = self.serving.lock().unwrap_or_else(PoisonError::into_inner);
        if *known != serving {
            *known = serving;
            self.revision.bump();
        }
    }
}
