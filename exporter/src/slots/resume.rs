//! Takes up what a crash or a power cut left.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use wire::{Action, CommandId};

use super::manager::Manager;
use super::plan::{Change, End, Seen};
use super::run::{Managed, close};

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
            tokio::spawn(async move {
                if let Some(managed) = manager.slots.get(index) {
                    manager.resume_slot(managed, open).await;
                }
            });
        }
    }

    async fn resume_slot(&self, managed: &Managed, open: Vec<CommandId>) {
        let place = &managed.place;
        let store = &self.workshop.store;
        if !store.root().exists() {
            return;
        }
        let Ok(_lane) = Arc::clone(&managed.lane).acquire_owned().await else { return };
        let _lock = match self.hold(managed).await {
            Ok(lock) => lock,
            Err(error) => {
                tracing::warn!(%error, slot = %place.slot, "what was cut off stays so");
                return;
            }
        };
        let begun = managed.state().standing.change.clone();
        if begun.is_none() && open.is_empty() {
            if let Err(error) = store.sweep(&place.slot, &managed.state()) {
                tracing::warn!(%error, slot = %place.slot, "half-made folders cannot be removed");
            }
            return;
        }
        super::child::end_marked(&self.workshop.mark(place));
        if let Some(change) = begun {
            self.resume_change(managed, &change).await;
        }
        let mut state = managed.state();
        let changing = state.standing.change.as_ref().map(|change| change.id.clone());
        let is_lost = |id: &CommandId| {
            Some(id) != changing.as_ref()
                && state.deployed(id).is_some_and(|known| !known.shown.status.is_final())
        };
        let lost: Vec<CommandId> = open.into_iter().filter(is_lost).collect();
        for id in lost {
            let failure = Some("the exporter ended before its turn came".to_owned());
            let end = End { id, failure, put_back: None, discard: None };
            close(&mut state, &end, Vec::new());
        }
        let kept = store.save(&place.slot, &state).and_then(|()| store.sweep(&place.slot, &state));
        if let Err(error) = kept {
            tracing::warn!(%error, slot = %place.slot, "half-made folders cannot be removed");
        }
    }

    async fn resume_change(&self, managed: &Managed, change: &Change) {
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
        while !change.phase.is_before_switch() {
            match self.workshop.list().await {
                Ok(listing) => {
                    seen = self.workshop.seen(&listing, place, &managed.state());
                    break;
                }
                Err(_) => tokio::select! {
                    () = sleep(Duration::from_millis(500)) => {}
                    () = self.shutdown.drain.cancelled() => return,
                },
            }
        }
        let end = {
            let mut state = managed.state();
            let end = state.standing.resume(&seen);
            if let Some(end) = &end {
                close(&mut state, end, Vec::new());
            }
            if let Err(error) = self.workshop.store.save(&place.slot, &state) {
                tracing::error!(%error, "a slot's state cannot be saved");
            }
            end
        };
        let end = match end {
            Some(end) => Some(end),
            None => self.runner(managed, None, false, true).run().await,
        };
        if let Some(end) = end {
            if let Some(id) = &end.discard
                && let Err(error) = self.workshop.store.remove_release(&place.slot, id)
            {
                tracing::warn!(%error, "a half-made release cannot be removed");
            }
            let by = managed.state().deployed(&end.id).map_or_else(
                || "someone, before the exporter's end".to_owned(),
                |known| known.shown.requested_by.clone(),
            );
            self.teller.ended(managed, action, &by, &end, true);
        }
    }
}
