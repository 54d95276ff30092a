//! Takes up what a crash or a power cut left.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use wire::{Action, CommandId, SlotId};

use super::managed::Managed;
use super::manager::Manager;
use super::place::SlotPlace;
use super::plan::{Change, End, Seen};
use super::run::{Cut, close};
use crate::pm2::launch::{END_WITHIN, Listing};

impl Manager {
    /// Takes up what was cut off when the exporter, the daemon or the machine went down, and
    /// removes what it left half-made. For `serve` alone: whoever only looks must not.
    pub fn resume(self: Arc<Self>) {
        for index in 0..self.slots.len() {
            // Now, before anything new is taken.
            let open: Vec<CommandId> = self.slots.get(index).map_or_else(Vec::new, |managed| {
                let state = managed.state();
                let shown = state.deployments.iter().map(|known| &known.shown);
                shown
                    .filter(|shown| !shown.status.is_final())
                    .map(|shown| shown.id.clone())
                    .collect()
            });
            let manager = Arc::clone(&self);
            tokio::spawn(async move { manager.resume_slot(index, open).await });
        }
    }

    /// Takes up a change that was cut off because PM2 did not answer.
    pub(super) fn take_up(self: &Arc<Self>, slot: &SlotId) {
        let Some(index) = self.slots.iter().position(|managed| managed.place.slot == *slot) else {
            return;
        };
        let manager = Arc::clone(self);
        tokio::spawn(async move { manager.resume_slot(index, Vec::new()).await });
    }

    async fn resume_slot(&self, index: usize, open: Vec<CommandId>) {
        let Some(managed) = self.slots.get(index) else { return };
        let place = &managed.place;
        if !self.workshop.store.root().exists() {
            return;
        }
        loop {
            // Before the slot is held: whoever asks meanwhile is told at once that PM2 is away.
            let phase = managed.state().standing.phase();
            if phase.is_some_and(|phase| !phase.is_before_switch()) && !self.pm2_answers().await {
                return;
            }
            let Ok(lane) = Arc::clone(&managed.lane).acquire_owned().await else { return };
            let lock = match self.hold(managed).await {
                Ok(lock) => lock,
                Err(error) => {
                    tracing::warn!(%error, slot = %place.slot, "what was cut off stays so");
                    return;
                }
            };
            if let Err(error) = managed.meet(&self.workshop.store) {
                // Nothing is taken away of which nobody knows what it is.
                tracing::error!(%error, slot = %place.slot, "the slot is left as it is");
                return;
            }
            self.end_lost(managed, &open);
            let begun = managed.state().standing.change.clone();
            if let Some(change) = begun {
                super::child::end_marked(&self.workshop.mark(place));
                if let Err(cut) = self.resume_change(managed, &change).await {
                    drop((lane, lock));
                    if cut == Cut::Stopped {
                        return;
                    }
                    continue;
                }
            }
            if let Err(error) = self.workshop.store.sweep(&place.slot, &managed.state()) {
                tracing::warn!(%error, slot = %place.slot, "half-made folders cannot be removed");
            }
            return;
        }
    }

    /// Waits until PM2 answers; false when the exporter stops first.
    async fn pm2_answers(&self) -> bool {
        while self.workshop.list().await.is_err() {
            tokio::select! {
                () = sleep(Duration::from_millis(500)) => {}
                () = self.shutdown.drain.cancelled() => return false,
            }
        }
        true
    }

    /// Closes deployments whose turn never came.
    fn end_lost(&self, managed: &Managed, open: &[CommandId]) {
        let place = &managed.place;
        let mut state = managed.state();
        let changing = state.standing.change.as_ref().map(|change| change.id.clone());
        let is_lost = |id: &&CommandId| {
            Some(*id) != changing.as_ref()
                && state.deployed(id).is_some_and(|known| !known.shown.status.is_final())
        };
        let lost: Vec<CommandId> = open.iter().filter(is_lost).cloned().collect();
        if lost.is_empty() {
            return;
        }
        super::child::end_marked(&self.workshop.mark(place));
        for id in lost {
            let failure = Some("the exporter ended before its turn came".to_owned());
            let end = End { id, failure, put_back: None, discard: None };
            close(&mut state, &end, Vec::new());
        }
        if let Err(error) = managed.keep(&self.workshop.store, &state) {
            tracing::error!(%error, slot = %place.slot, "a slot's state cannot be saved");
        }
    }

    /// PM2's list when it ends no process of the slot any more: what was asked for before the
    /// exporter ended is done without it, and a process that is being ended is as good as gone.
    async fn settled_list(&self, place: &SlotPlace) -> Result<Listing, Cut> {
        let name = format!("slot-{}", place.slot);
        let until = Instant::now() + END_WITHIN;
        loop {
            let listing =
                self.workshop.list().await.map_err(|error| Cut::Away(error.to_string()))?;
            let ends = listing.named(&name).any(|running| running.status == "stopping");
            if !ends || Instant::now() >= until {
                return Ok(listing);
            }
            tokio::select! {
                () = sleep(Duration::from_millis(100)) => {}
                () = self.shutdown.drain.cancelled() => return Err(Cut::Stopped),
            }
        }
    }

    async fn resume_change(&self, managed: &Managed, change: &Change) -> Result<(), Cut> {
        let place = &managed.place;
        let action = {
            let state = managed.state();
            match (state.deployed(&change.id), &change.puts_back) {
                (Some(_), _) => Action::Deploy,
                (None, true) => Action::Rollback,
                (None, false) if change.from == change.to => Action::Restart,
                (None, false) => Action::Stop,
            }
        };
        // Before the switch nothing of PM2's was touched, so that it need not be asked.
        let mut seen = Seen::Nothing;
        if !change.phase.is_before_switch() {
            let listing = self.settled_list(place).await?;
            seen = self.workshop.seen(&listing, place, &managed.state());
        }
        let end = {
            let mut state = managed.state();
            let end = state.standing.resume(&seen);
            if let Some(end) = &end {
                close(&mut state, end, Vec::new());
            }
            if let Err(error) = managed.keep(&self.workshop.store, &state) {
                tracing::error!(%error, "a slot's state cannot be saved");
            }
            end
        };
        let end = match end {
            Some(end) => end,
            None => self.runner(managed, None, false, true).run().await?,
        };
        if let Some(id) = &end.discard
            && let Err(error) = self.workshop.store.remove_release(&place.slot, id)
        {
            tracing::warn!(%error, "a half-made release cannot be removed");
        }
        let by = managed.state().deployed(&end.id).map_or_else(
            || "someone, before it was cut off".to_owned(),
            |known| known.shown.requested_by.clone(),
        );
        self.teller.ended(managed, action, &by, &end, true);
        Ok(())
    }
}
