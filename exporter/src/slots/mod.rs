//! Slots: named places with fixed ports, each served by one PM2 process `slot-<name>`.
//!
//! `plan` decides without I/O what a change does next; `run` does it with `workshop` (PM2,
//! ports), `git`, `install`, `start`, `child` (programs) and `probe`; `manager` takes what is
//! asked for, one change at a time a slot; `store` keeps what must not be lost. `up` and its
//! like are the commands `pm2-exporter slots …`, which need no `serve`.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;
use wire::{PortOwner, Process, Slot, SlotId, SlotMore, SlotType};

use crate::pm2::Table;
use crate::revision::Revision;

pub mod ask;
mod build;
pub mod check;
pub mod child;
pub mod cli;
pub mod config;
mod ecosystem;
pub mod env;
pub mod git;
pub mod guard;
pub mod import;
pub mod install;
mod listeners;
pub mod log;
pub mod managed;
pub mod manager;
mod place;
pub mod plan;
pub mod port;
pub mod probe;
pub mod record;
pub mod repository;
mod resume;
pub mod rotate;
pub mod run;
pub mod start;
pub mod store;
mod switch;
pub mod table;
pub mod tell;
pub mod tree;
pub mod up;
pub mod words;
pub mod workshop;

pub use config::Settings;
pub use manager::Manager;
pub use place::SlotPlace;

const CONNECT_WITHIN: Duration = Duration::from_millis(250);

/// What was last seen of a slot's port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Port {
    serving: bool,
    owner: Option<PortOwner>,
}

/// Every slot of this host.
#[derive(Debug)]
pub struct Slots {
    /// Whether they were configured; if not, only those are shown that PM2 runs.
    configured: bool,
    manager: Arc<Manager>,
    ports: Mutex<HashMap<SlotId, Port>>,
    revision: Revision,
}

impl Slots {
    /// As configured, or the default ones.
    pub fn new(manager: Arc<Manager>, revision: Revision) -> Self {
        let configured = manager.workshop.settings.configured;
        Self { configured, manager, ports: Mutex::default(), revision }
    }

    /// Changes them.
    pub fn manager(&self) -> &Arc<Manager> {
        &self.manager
    }

    fn places(&self) -> &[SlotPlace] {
        &self.manager.workshop.settings.places
    }

    /// The slot's place.
    pub fn place(&self, slot: &SlotId) -> Option<&SlotPlace> {
        self.places().iter().find(|place| place.slot == *slot)
    }

    /// Whether they were configured.
    pub fn configured(&self) -> bool {
        self.configured
    }

    /// The slot that a process of this name serves.
    pub fn served_by(&self, name: &str) -> Option<&SlotId> {
        let slot = name.strip_prefix("slot-")?;
        self.places().iter().map(|place| &place.slot).find(|id| id.as_str() == slot)
    }

    /// Every slot, with PM2's view of its process.
    pub fn all(&self, table: &Table, processes: &[Process]) -> Vec<Slot> {
        let ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        self.manager
            .all()
            .iter()
            .filter_map(|managed| {
                let place = &managed.place;
                let process = place.process()?;
                let placeholder = table.is_placeholder(&process);
                if placeholder.is_none() && !self.configured {
                    return None;
                }
                let status = processes
                    .iter()
                    .find(|candidate| candidate.slot.as_ref() == Some(&place.slot))
                    .map(|candidate| candidate.status);
                let port = ports.get(&place.slot).cloned().unwrap_or_default();
                let state = managed.state();
                let current = match &state.standing.current {
                    plan::Occupant::Release(id) if placeholder == Some(false) => state.deployed(id),
                    _ => None,
                };
                let kind = match placeholder {
                    None => SlotType::Missing,
                    Some(true) => SlotType::Placeholder,
                    Some(false) if current.is_none() && state.foreign_placeholder => {
                        SlotType::Placeholder
                    }
                    Some(false) => SlotType::Deployed,
                };
                let open = state
                    .deployments
                    .iter()
                    .rev()
                    .find(|deployed| !deployed.shown.status.is_final());
                let workshop = &self.manager.workshop;
                let more = SlotMore {
                    url: env::url(&workshop.settings, place, &*workshop.own),
                    deployment: current.map(|deployed| deployed.shown.id.clone()),
                    changing: open.map(|deployed| deployed.shown.id.clone()),
                    progress: open.map(|deployed| deployed.shown.status),
                    port_owner: port.owner.clone(),
                    env_names: state.env.keys().cloned().collect(),
                    deploys_healthy: state.healthy,
                    deploys_failed: state.failed,
                    last_deploy_at: state.last_deploy_at,
                };
                let shown = current.map(|deployed| &deployed.shown);
                Some(Slot {
                    slot: place.slot.clone(),
                    port: place.port,
                    process,
                    kind,
                    status,
                    serving: port.serving,
                    foreign_owner: port
                        .owner
                        .filter(|owner| !owner.own)
                        .map(|owner| port::in_words(&owner)),
                    repository: shown.map(|shown| shown.repository.clone()),
                    branch: shown.and_then(|shown| shown.branch.clone()),
                    commit: shown.and_then(|shown| shown.commit.clone()),
                    deployed_at: shown.and_then(|shown| shown.finished_at),
                    deployed_by: shown.map(|shown| shown.requested_by.clone()),
                    more: Some(Box::new(more)),
                })
            })
            .collect()
    }

    /// Tries every slot's port, and sees who holds it. Where nothing was configured, only
    /// those that PM2 has a process for.
    pub async fn try_ports(&self, processes: &[Process]) {
        let mut found = HashMap::new();
        let mut asked = Vec::new();
        for place in self.places() {
            let Some(name) = place.process() else { continue };
            let process = processes.iter().find(|process| process.instance.name == name);
            if !self.configured && process.is_none() {
                continue;
            }
            asked.push((place.port, process.and_then(|process| process.pid)));
            let serving = accepts(place.port).await;
            found.insert(place.slot.clone(), Port { serving, owner: None });
        }
        let mut owners = port::owners(&asked);
        for place in self.places() {
            if let Some(port) = found.get_mut(&place.slot) {
                port.owner = owners.remove(&place.port);
            }
        }
        let mut known = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        if *known != found {
            *known = found;
            self.revision.bump();
        }
    }
}

async fn accepts(port: u16) -> bool {
    for address in [
        SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        SocketAddr::from((Ipv6Addr::LOCALHOST, port)),
    ] {
        if matches!(timeout(CONNECT_WITHIN, TcpStream::connect(address)).await, Ok(Ok(_))) {
            return true;
        }
    }
    false
}
