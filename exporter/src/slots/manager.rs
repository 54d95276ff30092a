//! Takes what is asked of slots: one change at a time a slot, a bounded queue, each id once.

mod carry;
mod take;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use service::shutdown::Shutdown;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};
use wire::{CommandId, CommandRecord, Deployment, EnvRequest, SlotId};

use super::ask::{Ask, NotTaken, record_of, shown};
use super::env;
use super::managed::Managed;
use super::tell::Teller;
use super::workshop::Workshop;
use crate::commands::Memory;

/// What is asked of which slot.
#[derive(Serialize)]
struct Change {
    slot: SlotId,
    ask: Ask,
}

#[derive(Default)]
struct Book {
    memory: Memory,
    open: usize,
}

/// See the module.
pub struct Manager {
    /// PM2 and files.
    pub workshop: Workshop,
    pub(super) slots: Vec<Managed>,
    pub(super) teller: Teller,
    pub(super) turn: Arc<Semaphore>,
    builds: Arc<Semaphore>,
    pub(super) shutdown: Shutdown,
    book: Mutex<Book>,
}

impl std::fmt::Debug for Manager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Manager").field("slots", &self.slots.len()).finish_non_exhaustive()
    }
}

impl Manager {
    /// Reads what is known of every slot. [`Self::resume`] takes up what was cut off.
    pub fn new(
        workshop: Workshop,
        teller: Teller,
        turn: Arc<Semaphore>,
        shutdown: Shutdown,
    ) -> Arc<Self> {
        let slots = workshop
            .settings
            .places
            .iter()
            .map(|place| Managed::new(place.clone(), &workshop.store))
            .collect();
        let builds = Arc::new(Semaphore::new(workshop.settings.builds));
        Arc::new(Self { workshop, slots, teller, turn, builds, shutdown, book: Mutex::default() })
    }

    /// A slot with what is known of it.
    pub fn managed(&self, slot: &SlotId) -> Option<&Managed> {
        self.slots.iter().find(|managed| managed.place.slot == *slot)
    }

    /// Every slot.
    pub fn all(&self) -> &[Managed] {
        &self.slots
    }

    fn find(&self, slot: &SlotId) -> Result<&Managed, NotTaken> {
        self.managed(slot).ok_or_else(|| {
            let names: Vec<&str> =
                self.slots.iter().map(|managed| managed.place.slot.as_str()).collect();
            NotTaken::UnknownSlot(slot.clone(), names.join(", "))
        })
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of a command. A deployment is known beyond the exporter's end.
    pub fn command(&self, id: &CommandId) -> Option<CommandRecord> {
        if let Some(known) = self.book().memory.get(id) {
            return Some(known.record.borrow().clone());
        }
        self.slots.iter().find_map(|managed| {
            let state = managed.state();
            state
                .deployed(id)
                .filter(|deployed| !deployed.imported)
                .map(|deployed| record_of(&deployed.shown))
        })
    }

    /// A slot's deployments, newest first.
    ///
    /// # Errors
    /// No such slot.
    pub fn deployments(&self, slot: &SlotId) -> Result<Vec<Deployment>, NotTaken> {
        let managed = self.find(slot)?;
        let state = managed.state();
        Ok(state.deployments.iter().rev().map(|deployed| shown(&state, deployed)).collect())
    }

    /// One deployment.
    ///
    /// # Errors
    /// No such slot or deployment.
    pub fn deployment(&self, slot: &SlotId, id: &str) -> Result<Deployment, NotTaken> {
        let managed = self.find(slot)?;
        let state = managed.state();
        let found = id.parse().ok().and_then(|id| state.deployed(&id));
        found.map(|deployed| shown(&state, deployed)).ok_or_else(|| {
            NotTaken::UnknownDeployment(slot.clone(), id.chars().take(100).collect())
        })
    }

    /// Sets and removes variables of the slot's own; they count from its next start.
    ///
    /// # Errors
    /// No such slot, a name or value that cannot be, or it cannot be written.
    pub fn set_env(&self, slot: &SlotId, request: &EnvRequest) -> Result<Vec<String>, NotTaken> {
        let managed = self.find(slot)?;
        let _lock = self.meet(managed)?;
        let mut state = managed.state();
        let mut changed = state.clone();
        changed.set_env(&request.env);
        env::check(&changed.env).map_err(|message| NotTaken::Wrong(format!("env: {message}")))?;
        if let Err(error) = managed.write(&self.workshop.store, &changed) {
            return Err(NotTaken::Storage(error.to_string()));
        }
        *state = changed;
        self.teller.changed();
        Ok(state.env.keys().cloned().collect())
    }

    /// Takes over what another program has changed of a slot, before something is changed in it; held
    /// against others for as long as what is given lives. Where a change of this program is under way,
    /// nobody else may have changed anything, and where another holds the slot, it is looked at later.
    pub(super) fn meet(&self, managed: &Managed) -> Result<Option<std::fs::File>, NotTaken> {
        let storage = |error: std::io::Error| NotTaken::Storage(error.to_string());
        if managed.lane.available_permits() == 0 {
            return Ok(None);
        }
        let lock = self.workshop.store.lock(&managed.place.slot).map_err(storage)?;
        if lock.is_some() {
            managed.meet(&self.workshop.store).map_err(storage)?;
        }
        Ok(lock)
    }

    /// Waits until nothing is under way, but no longer than `wait`: for a stop, when programs
    /// that were started are being ended.
    pub async fn idle(&self, wait: Duration) {
        let until = Instant::now() + wait;
        while self.book().open > 0 && Instant::now() < until {
            sleep(Duration::from_millis(20)).await;
        }
    }
}
