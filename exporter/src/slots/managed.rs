//! A slot with what is known of it, in memory and on the disk.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Semaphore;

use super::place::SlotPlace;
use super::store::{SlotState, Store};

/// How the file of a slot stands to what is in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Disk {
    /// Another program may have changed it since, as `slots import` does.
    Leads,
    /// What is in memory could not be written.
    Lags,
    /// It cannot be read: nothing is known of the slot, and what is there is not touched.
    Unreadable(String),
}

/// See the module.
#[derive(Debug)]
pub struct Managed {
    /// The slot.
    pub place: SlotPlace,
    /// One change at a time.
    pub lane: Arc<Semaphore>,
    state: Mutex<SlotState>,
    disk: Mutex<Disk>,
}

impl Managed {
    /// With what the disk has of it.
    pub fn new(place: SlotPlace, store: &Store) -> Self {
        let (state, disk) = match store.load(&place.slot) {
            Ok(state) => (state, Disk::Leads),
            Err(error) => {
                tracing::error!(%error, slot = %place.slot, "a slot's state cannot be read");
                (SlotState::default(), Disk::Unreadable(error.to_string()))
            }
        };
        let lane = Arc::new(Semaphore::new(1));
        Self { place, lane, state: Mutex::new(state), disk: Mutex::new(disk) }
    }

    /// What is known.
    pub fn state(&self) -> MutexGuard<'_, SlotState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Brings both together before something is changed: for who holds the slot.
    ///
    /// # Errors
    /// The file cannot be read, or what is newer in memory cannot be written.
    pub fn meet(&self, store: &Store) -> io::Result<()> {
        let mut state = self.state();
        let mut disk = self.disk();
        if *disk == Disk::Lags {
            store.save(&self.place.slot, &state)?;
            *disk = Disk::Leads;
            return Ok(());
        }
        match store.load(&self.place.slot) {
            Ok(read) => {
                *state = read;
                *disk = Disk::Leads;
                Ok(())
            }
            Err(error) => {
                *disk = Disk::Unreadable(error.to_string());
                Err(error)
            }
        }
    }

    /// Writes what is about to be known.
    ///
    /// # Errors
    /// It cannot be written; or what is there cannot be read, and is not written over.
    pub fn write(&self, store: &Store, state: &SlotState) -> io::Result<()> {
        let mut disk = self.disk();
        if let Disk::Unreadable(why) = &*disk {
            return Err(io::Error::other(why.clone()));
        }
        store.save(&self.place.slot, state)?;
        *disk = Disk::Leads;
        Ok(())
    }

    /// The same of what is known already, whether it can be written or not: where it cannot, memory leads
    /// until it can be.
    ///
    /// # Errors
    /// As for [`Self::write`].
    pub fn keep(&self, store: &Store, state: &SlotState) -> io::Result<()> {
        let kept = self.write(store, state);
        let mut disk = self.disk();
        if kept.is_err() && *disk == Disk::Leads {
            *disk = Disk::Lags;
        }
        kept
    }

    /// Whether what is in memory is not on the disk.
    pub fn lags(&self) -> bool {
        *self.disk() == Disk::Lags
    }
}
