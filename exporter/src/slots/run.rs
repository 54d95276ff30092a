//! Carries out a change of a slot, step by step, as `plan` says. What a step is about to do is
//! on disk before it is done.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use service::shutdown::Shutdown;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use wire::{DeployRequest, DeploymentStatus};

use super::child::end_marked;
use super::log::Log;
use super::managed::Managed;
use super::plan::{Change, End, Occupant, Phase, Went};
use super::repository::Repository;
use super::store::SlotState;
use super::tell::Teller;
use super::workshop::Workshop;

/// What a change is carried out with.
pub struct Runner<'a> {
    /// PM2 and files.
    pub workshop: &'a Workshop,
    /// The slot.
    pub managed: &'a Managed,
    /// Who is told.
    pub teller: &'a Teller,
    /// The turn to change something of this daemon.
    pub turn: &'a Arc<Semaphore>,
    /// Places for those who clone, install and build.
    pub builds: &'a Arc<Semaphore>,
    /// Ends waits.
    pub shutdown: &'a Shutdown,
    /// What is deployed; none for other changes, and for one that was cut off.
    pub deploy: Option<&'a (DeployRequest, Repository)>,
    /// Whoever else holds the port is ended.
    pub reclaim: bool,
    /// It was cut off and is taken up again, or the daemon was away meanwhile: a daemon that
    /// was killed leaves its processes, and those of the slot are in the way.
    pub cut_off: AtomicBool,
}

impl Runner<'_> {
    /// Carries the change out to its end.
    ///
    /// # Errors
    /// It was cut off before: [`Manager::resume`](super::Manager::resume) and its like bring it
    /// to its end.
    pub async fn run(&self) -> Result<End, Cut> {
        let mut building: Option<OwnedSemaphorePermit> = None;
        let limit = self.time_limit();
        let mut deadline = Instant::now() + limit;
        let log = self.log().ok_or(Cut::Stopped)?;
        loop {
            let change = self.managed.state().standing.change.clone().ok_or(Cut::Stopped)?;
            if change.phase == Phase::Fetch && building.is_none() {
                building = tokio::select! {
                    place = Arc::clone(self.builds).acquire_owned() => place.ok(),
                    () = self.shutdown.drain.cancelled() => None,
                };
                deadline = Instant::now() + limit;
            }
            if !matches!(change.phase, Phase::Fetch | Phase::Install | Phase::Build) {
                building = None;
            }
            self.teller.phase(self.managed, &change);
            log.note(change.phase.doing());
            let went = self.step(&change, &log, deadline).await?;
            if let Went::Wrong(reason) = &went {
                log.note(reason);
            }
            let lines = log.last_lines();
            let end = {
                let mut state = self.managed.state();
                let before = state.clone();
                let mut end = state.standing.went(went);
                if let Some(end) = &end {
                    close(&mut state, end, lines.clone());
                }
                let change = state.standing.change.as_ref();
                let switches = change.is_some_and(|change| change.phase == Phase::Switch);
                // What is not written down would be taken back at the next start, with what runs.
                if let Err(error) = self.save(&state)
                    && switches
                {
                    *state = before;
                    let reason = format!("the slot's state cannot be kept: {error}");
                    log.note(&reason);
                    end = state.standing.went(Went::Wrong(reason));
                    if let Some(end) = &end {
                        close(&mut state, end, lines);
                    }
                    let _ = self.save(&state);
                }
                end
            };
            if let Some(end) = end {
                self.finish(&end, &log).await;
                return Ok(end);
            }
        }
    }

    /// What runs counts more than what is written: but for a switch, the change goes on.
    fn save(&self, state: &SlotState) -> std::io::Result<()> {
        let kept = self.managed.keep(&self.workshop.store, state);
        kept.inspect_err(|error| {
            tracing::error!(%error, slot = %self.managed.place.slot, "a slot's state cannot be saved");
        })
    }

    fn time_limit(&self) -> Duration {
        let asked = self.deploy.and_then(|(request, _)| request.timeout.as_deref());
        asked
            .and_then(|text| service::quantity::duration(text).ok())
            .unwrap_or(self.workshop.settings.timeout)
    }

    fn log(&self) -> Option<Log> {
        let place = &self.managed.place;
        let id = self.managed.state().standing.change.as_ref()?.id.clone();
        let mut secrets =
            self.deploy.map(|(_, repository)| repository.secrets()).unwrap_or_default();
        {
            // What a build prints of its environment is not shown either; what is short is
            // mostly no secret, and would tear ordinary words out of the log.
            let state = self.managed.state();
            let own = state.deployed(&id).map(|deployed| deployed.env.values());
            let workspace = self.workshop.settings.env.iter().map(|(_, value)| value);
            let values = state.env.values().chain(own.into_iter().flatten()).chain(workspace);
            secrets.extend(values.filter(|value| value.len() >= 8).cloned());
        }
        if self.managed.state().deployed(&id).is_none() {
            // Only deployments have a log that can be read.
            return Log::create(Path::new("/dev/null"), 0, Vec::new()).ok();
        }
        let store = &self.workshop.store;
        let made = store.prepare(&place.slot).and_then(|()| {
            Log::create(&store.log(&place.slot, &id), self.workshop.settings.log_limit, secrets)
        });
        made.inspect_err(|error| tracing::error!(%error, "a deployment's log cannot be written"))
            .or_else(|_| Log::create(Path::new("/dev/null"), 0, Vec::new()))
            .ok()
    }

    /// Does one step.
    async fn step(&self, change: &Change, log: &Log, deadline: Instant) -> Result<Went, Cut> {
        let result = match change.phase {
            Phase::Fetch => self.fetch(&change.id, log, deadline).await,
            Phase::Install => self.install(&change.id, log, deadline).await,
            Phase::Build => self.build(&change.id, log, deadline).await,
            Phase::Try => self.try_out(&change.to, log).await,
            Phase::Check => self.check(&change.to).await,
            Phase::Switch => return self.switch(&change.to, self.reclaim).await,
            Phase::PutBack => {
                let went = self.switch(&change.from, self.reclaim).await?;
                // Whether it answers again is told, and changes nothing.
                if went == Went::Well
                    && let Err(Failed::Wrong(error)) = self.check(&change.from).await
                {
                    log.note(&format!("the former release does not answer: {error}"));
                }
                return Ok(went);
            }
            Phase::LastResort => return self.switch(&Occupant::Placeholder, self.reclaim).await,
        };
        match result {
            Ok(()) => Ok(Went::Well),
            Err(Failed::Wrong(reason)) => Ok(Went::Wrong(reason)),
            Err(Failed::Stopped) => Err(Cut::Stopped),
            Err(Failed::Away(reason)) => Err(Cut::Away(reason)),
        }
    }

    /// Tidies up behind a change that has ended.
    async fn finish(&self, end: &End, log: &Log) {
        let place = &self.managed.place;
        let store = &self.workshop.store;
        end_marked(&self.workshop.mark(place));
        let (mut useless, forgotten) = {
            let mut state = self.managed.state();
            let useless = state.standing.prune(self.workshop.settings.keep);
            let forgotten = state.forget();
            let _ = self.save(&state);
            (useless, forgotten)
        };
        useless.extend(end.discard.clone());
        for id in useless {
            let (store, slot) = (store.clone(), place.slot.clone());
            let removed =
                tokio::task::spawn_blocking(move || store.remove_release(&slot, &id)).await;
            if let Ok(Err(error)) = removed {
                tracing::warn!(%error, slot = %place.slot, "an old release cannot be removed");
            }
        }
        for id in forgotten {
            let _ = std::fs::remove_file(store.log(&place.slot, &id));
        }
        if self.managed.lags() {
            // There may be room by now.
            let _ = self.save(&self.managed.state());
        }
        let untouched = end.failure.is_some() && end.put_back.is_none();
        if !untouched && let Err(error) = self.workshop.save().await {
            log.note(&error);
            tracing::warn!(%error, "PM2's list is not saved");
        }
        if self.workshop.settings.configured
            && let Err(error) = self.workshop.write_ecosystem()
        {
            tracing::warn!(error = %format_args!("{error:#}"), "ecosystem.config.js is not written");
        }
        log.note(match &end.failure {
            None => "done",
            Some(_) => "failed",
        });
    }
}

/// Why a change is not at its end. It is on disk where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The exporter stops.
    Stopped,
    /// PM2 has not answered for too long, in words.
    Away(String),
}

/// Why a step did not work.
pub(super) enum Failed {
    Wrong(String),
    /// The exporter stops.
    Stopped,
    /// PM2 has not answered for too long, in words.
    Away(String),
}

/// Writes a change's end into its deployment.
pub fn close(state: &mut SlotState, end: &End, last_lines: Vec<String>) {
    let now = wire::Time::now();
    let Some(deployed) = state.deployed_mut(&end.id) else { return };
    let shown = &mut deployed.shown;
    shown.finished_at = Some(now);
    match &end.failure {
        None => shown.status = DeploymentStatus::Healthy,
        Some(reason) => {
            shown.status = DeploymentStatus::Failed;
            shown.error = Some(reason.clone());
            shown.last_lines = last_lines;
        }
    }
    match end.failure {
        None => state.healthy += 1,
        Some(_) => state.failed += 1,
    }
    state.last_deploy_at = Some(now);
}
