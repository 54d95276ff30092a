//! Keeps to it that every slot has exactly one PM2 process, against those who do not know of
//! slots: one whose process was deleted by hand gets it back, and of several only one stays.
//! A process that was stopped by hand is still there, and stays stopped.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::managed::Managed;
use super::manager::Manager;
use super::plan::Occupant;
use super::tell::runs;
use super::{port, store};
use crate::pm2::launch;

/// How often PM2's list, as known, is looked at.
const EVERY: Duration = Duration::from_secs(1);
/// Whoever deletes a process by hand may be about to start another.
const PATIENCE: Duration = Duration::from_secs(3);
/// A daemon that just came up may be about to start what it ran before.
const PATIENCE_AT_FIRST: Duration = Duration::from_secs(60);

/// What is known of one slot.
#[derive(Clone, Default)]
struct Watched {
    /// This daemon ran it.
    was_there: bool,
    /// Since when it has not one process.
    wrong_since: Option<Instant>,
    /// What was told of it last.
    told: Option<String>,
}

/// Looks after the slots until the program stops. Only where slots are configured.
pub async fn run(manager: Arc<Manager>) {
    let workshop = &manager.workshop;
    let Some(home) = workshop.watched.clone().filter(|_| workshop.settings.configured) else {
        return;
    };
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut daemon = None;
    let mut all = vec![Watched::default(); manager.all().len()];
    loop {
        tokio::select! {
            () = manager.shutdown.drain.cancelled() => return,
            _ = ticks.tick() => {}
        }
        // A list that is old tells nothing; what the daemon ran, it ran nevertheless.
        if !home.state().up {
            for watched in &mut all {
                watched.wrong_since = None;
            }
            continue;
        }
        // Another daemon, another life.
        let pid = std::fs::read_to_string(workshop.home.join("pm2.pid")).ok();
        if daemon != pid {
            daemon = pid;
            all.fill(Watched::default());
        }
        let counts: Vec<usize> = home.table(|table| {
            let names = manager.all().iter().map(|managed| managed.place.process());
            names.map(|name| name.map_or(1, |name| table.pm_ids(&name).len())).collect()
        });
        if counts.iter().all(|count| *count == 1) {
            all.fill(Watched { was_there: true, ..Watched::default() });
            continue;
        }
        for ((managed, watched), count) in manager.all().iter().zip(&mut all).zip(counts) {
            if count == 1 {
                *watched = Watched { was_there: true, ..Watched::default() };
                continue;
            }
            if managed.lane.available_permits() == 0 {
                watched.wrong_since = None;
                continue;
            }
            let since = *watched.wrong_since.get_or_insert_with(Instant::now);
            let patience =
                if watched.was_there || count > 1 { PATIENCE } else { PATIENCE_AT_FIRST };
            if since.elapsed() >= patience {
                watched.wrong_since = None;
                if let Some((had, how)) = manager.mend(managed).await {
                    let told = how.clone().err();
                    // What cannot be mended is told once.
                    if told.is_none() || told != watched.told {
                        manager.teller.mended(&managed.place, had, how);
                    }
                    watched.told = told;
                }
            }
        }
    }
}

impl Manager {
    /// Gives a slot its one process back. Gives how many it had and what was done; nothing when
    /// nothing was wrong, or somebody else is at it.
    async fn mend(&self, managed: &Managed) -> Option<(usize, Result<String, String>)> {
        let place = &managed.place;
        let workshop = &self.workshop;
        // Where it was never brought up, `slots up` does.
        if !workshop.store.releases(&place.slot).is_dir() {
            return None;
        }
        let _lane = Arc::clone(&managed.lane).try_acquire_owned().ok()?;
        let _lock = workshop.store.lock(&place.slot).ok()??;
        let _turn = Arc::clone(&self.turn).acquire_owned().await.ok()?;
        let listing = workshop.list().await.ok()?;
        // Only now: variables may have been set, and deployments asked for, while the turn was waited for.
        managed.meet(&workshop.store).ok()?;
        let state = managed.state().clone();
        if state.standing.change.is_some() {
            return None;
        }
        let name = format!("slot-{}", place.slot);
        let had = listing.named(&name).count();
        if had == 1 {
            return None;
        }
        let how = self.mend_with(managed, &listing, state).await;
        workshop.look().await;
        Some((had, how))
    }

    async fn mend_with(
        &self,
        managed: &Managed,
        listing: &launch::Listing,
        mut state: store::SlotState,
    ) -> Result<String, String> {
        let place = &managed.place;
        let workshop = &self.workshop;
        let name = format!("slot-{}", place.slot);
        if let Some(stays) = workshop.rightful(listing, place, &state) {
            let rpc = (workshop.connection)().map_err(|error| error.to_string())?;
            for other in listing.named(&name).filter(|other| other.pm_id != stays.pm_id) {
                launch::delete(&rpc, other.pm_id).await.map_err(|error| error.to_string())?;
            }
            return Ok("the one that serves stays".to_owned());
        }
        let mut leftover = false;
        if let Some(owner) = workshop.foreign_owner(listing, place) {
            leftover = workshop.is_leftover(&owner, place);
            if !leftover {
                return Err(format!("port {} is held by {}", place.port, port::in_words(&owner)));
            }
        }
        let wanted = match workshop.wanted(place, &state, &state.standing.current) {
            Ok(wanted) => wanted,
            Err(reason) => {
                tracing::warn!(slot = %place.slot, reason, "the placeholder takes its place");
                let mut known = managed.state();
                let mut changed = known.clone();
                changed.standing.former = Some(changed.standing.current);
                changed.standing.current = Occupant::Placeholder;
                managed
                    .write(&workshop.store, &changed)
                    .map_err(|error| format!("the slot's state cannot be kept: {error}"))?;
                *known = changed.clone();
                drop(known);
                state = changed;
                workshop.wanted(place, &state, &Occupant::Placeholder)?
            }
        };
        workshop
            .exchange(place, &wanted, false, leftover)
            .await
            .map_err(|stuck| stuck.to_string())?;
        let _ = workshop.save().await;
        Ok(format!("{} was started again", runs(&state.standing.current)))
    }
}
