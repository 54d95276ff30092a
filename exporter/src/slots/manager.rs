//! Takes what is asked of slots: one change at a time a slot, a bounded queue, each id once.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use service::shutdown::Shutdown;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep, timeout_at};
use wire::{
    Action, CommandId, CommandRecord, CommandStatus, DeployRequest, Deployment, EnvRequest, SlotId,
    Target, Time,
};

use super::ask::{Ask, NotTaken, QUEUE, queued, record_of, shown};
use super::env;
use super::plan::{End, Seen};
use super::repository::{self, Repository};
use super::run::{Managed, Runner, close};
use super::tell::Teller;
use super::workshop::Workshop;
use super::{probe, words};

/// Ended commands that are remembered.
const REMEMBERED: usize = 1_000;

#[derive(Debug)]
struct Known {
    slot: SlotId,
    ask: Ask,
    record: watch::Sender<CommandRecord>,
}

#[derive(Default)]
struct Book {
    known: HashMap<CommandId, Arc<Known>>,
    order: VecDeque<CommandId>,
    open: usize,
}

/// See the module.
pub struct Manager {
    /// PM2 and files.
    pub workshop: Workshop,
    pub(super) slots: Vec<Managed>,
    pub(super) teller: Teller,
    turn: Arc<Semaphore>,
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
            .map(|place| {
                let state = workshop.store.load(&place.slot).unwrap_or_else(|error| {
                    tracing::error!(%error, slot = %place.slot, "a slot's state cannot be read");
                    Default::default()
                });
                Managed {
                    place: place.clone(),
                    state: Mutex::new(state),
                    lane: Arc::new(Semaphore::new(1)),
                }
            })
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
        if let Some(known) = self.book().known.get(id) {
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
    pub fn set_env(&self, slot: &SlotId, request: EnvRequest) -> Result<Vec<String>, NotTaken> {
        let managed = self.find(slot)?;
        let mut state = managed.state();
        let mut env = state.env.clone();
        for (name, value) in request.env {
            match value {
                Some(value) => env.insert(name, value),
                None => env.remove(&name),
            };
        }
        env::check(&env).map_err(|message| NotTaken::Wrong(format!("env: {message}")))?;
        let before = std::mem::replace(&mut state.env, env);
        if let Err(error) = self.workshop.store.save(slot, &state) {
            state.env = before;
            return Err(NotTaken::Storage(error.to_string()));
        }
        self.teller.changed();
        Ok(state.env.keys().cloned().collect())
    }

    /// Takes a change, unless its id was taken before, and waits at most `wait` for its end.
    ///
    /// # Errors
    /// See [`NotTaken`].
    pub async fn put(
        self: &Arc<Self>,
        slot: &SlotId,
        id: CommandId,
        ask: Ask,
        by: String,
        wait: Duration,
    ) -> Result<CommandRecord, NotTaken> {
        let known = match self.take(slot, id, ask, by)? {
            Taken::Now(known) => known,
            Taken::Before(record) => return Ok(*record),
        };
        let mut record = known.record.subscribe();
        let ended = record.wait_for(|record| record.status.is_final());
        let _ = timeout_at(Instant::now() + wait, ended).await;
        Ok(record.borrow().clone())
    }

    fn take(
        self: &Arc<Self>,
        slot: &SlotId,
        id: CommandId,
        ask: Ask,
        by: String,
    ) -> Result<Taken, NotTaken> {
        let managed = self.find(slot)?;
        let mut book = self.book();
        if let Some(known) = book.known.get(&id) {
            if known.ask != ask || known.slot != *slot {
                return Err(NotTaken::Reused(id));
            }
            return Ok(Taken::Now(Arc::clone(known)));
        }
        if let Some(record) = self.slots.iter().find_map(|managed| {
            managed.state().deployed(&id).map(|deployed| record_of(&deployed.shown))
        }) {
            let same =
                record.target == Target::Slot(slot.clone()) && ask.action() == Action::Deploy;
            return if same {
                Ok(Taken::Before(Box::new(record)))
            } else {
                Err(NotTaken::Reused(id))
            };
        }
        let repository = match &ask {
            Ask::Deploy(request) => Some(self.accept(request)?),
            Ask::Other(..) => None,
        };
        if book.open >= QUEUE {
            return Err(NotTaken::Busy);
        }
        while book.order.len() >= REMEMBERED {
            let ended = |id: &CommandId| {
                book.known.get(id).is_none_or(|known| known.record.borrow().status.is_final())
            };
            let Some(at) = book.order.iter().position(ended) else { return Err(NotTaken::Busy) };
            if let Some(old) = book.order.remove(at) {
                book.known.remove(&old);
            }
        }
        if let (Ask::Deploy(request), Some(repository)) = (&ask, &repository) {
            let deployed = queued(slot, &id, request, repository, &by);
            let mut state = managed.state();
            state.deployments.push(deployed);
            if let Err(error) = self.workshop.store.save(slot, &state) {
                state.deployments.pop();
                return Err(NotTaken::Storage(error.to_string()));
            }
            drop(state);
            self.teller.queued(&managed.place, &id, &repository.to_string(), &by);
        }
        let record = CommandRecord {
            id: id.clone(),
            target: Target::Slot(slot.clone()),
            action: ask.action(),
            status: CommandStatus::Queued,
            requested_by: by,
            requested_at: Time::now(),
            finished_at: None,
            error: None,
            reply: None,
            outcomes: Vec::new(),
            before: Vec::new(),
            after: Vec::new(),
        };
        let known = Arc::new(Known { slot: slot.clone(), ask, record: watch::channel(record).0 });
        book.known.insert(id.clone(), Arc::clone(&known));
        book.order.push_back(id);
        book.open += 1;
        drop(book);
        let manager = Arc::clone(self);
        let job = Arc::clone(&known);
        tokio::spawn(async move {
            manager.carry_out(&job, repository).await;
            manager.book().open -= 1;
        });
        Ok(Taken::Now(known))
    }

    /// Whether a deployment may be tried at all.
    fn accept(&self, request: &DeployRequest) -> Result<Repository, NotTaken> {
        let settings = &self.workshop.settings;
        let wrong = NotTaken::Wrong;
        let repository = Repository::parse(&request.repository, settings)
            .map_err(|unfit| wrong(format!("repository: {unfit}")))?;
        if let Some(name) = &request.branch {
            repository::branch(name).map_err(wrong)?;
        }
        if let Some(id) = &request.commit {
            repository::commit(id).map_err(wrong)?;
        }
        if let Some(folder) = &request.subdir {
            repository::subdir(folder).map_err(wrong)?;
        }
        for (name, line) in
            [("install", &request.install), ("build", &request.build), ("start", &request.start)]
        {
            if let Some(line) = line {
                words::of(line).map_err(|error| wrong(format!("{name}: {error}")))?;
            }
        }
        env::check(&request.env).map_err(|message| wrong(format!("env: {message}")))?;
        if let Some(path) = &request.health_path {
            probe::path(path).map_err(wrong)?;
        }
        if let Some(text) = &request.timeout {
            let timeout = service::quantity::duration(text)
                .map_err(|message| wrong(format!("timeout: {message}")))?;
            if !(Duration::from_secs(1)..=Duration::from_secs(7200)).contains(&timeout) {
                return Err(wrong(format!("timeout: {text:?} is out of range: 1s to 2h")));
            }
        }
        Ok(repository)
    }

    /// Waits until nothing is under way, but no longer than `wait`: for a stop, when programs
    /// that were started are being ended.
    pub async fn idle(&self, wait: Duration) {
        let until = Instant::now() + wait;
        while self.book().open > 0 && Instant::now() < until {
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn carry_out(&self, job: &Known, repository: Option<Repository>) {
        let Some(managed) = self.managed(&job.slot) else { return };
        let lane = tokio::select! {
            lane = Arc::clone(&managed.lane).acquire_owned() => lane,
            () = self.shutdown.drain.cancelled() => {
                return self.end_early(managed, job, "the exporter stops".to_owned());
            }
        };
        job.record.send_modify(|record| record.status = CommandStatus::Running);
        let deploy = match (&job.ask, repository) {
            (Ask::Deploy(request), Some(repository)) => Some(((**request).clone(), repository)),
            _ => None,
        };
        let (id, by) = {
            let record = job.record.borrow();
            (record.id.clone(), record.requested_by.clone())
        };
        let _lock = match self.hold(managed).await {
            Ok(lock) => lock,
            Err(message) => return self.end_early(managed, job, message),
        };
        // Another program may have changed it: an import, for one.
        match self.workshop.store.load(&managed.place.slot) {
            Ok(state) => *managed.state() = state,
            Err(error) => return self.end_early(managed, job, error.to_string()),
        }
        if let Err(message) = self.begin(managed, &id, &job.ask).await {
            return self.end_early(managed, job, message);
        }
        let runner = self.runner(managed, deploy.as_ref(), job.ask.reclaim(), false);
        let end = runner.run().await;
        drop(lane);
        match end {
            Some(end) => {
                self.teller.ended(managed, job.ask.action(), &by, &end, false);
                job.record.send_modify(|record| finish(record, end.failure));
            }
            None => job.record.send_modify(|record| {
                record.status = CommandStatus::Unknown;
                record.error =
                    Some("the exporter stops; it is taken up at its next start".to_owned());
                record.finished_at = Some(Time::now());
            }),
        }
    }

    pub(super) fn runner<'a>(
        &'a self,
        managed: &'a Managed,
        deploy: Option<&'a (DeployRequest, Repository)>,
        reclaim: bool,
        resumed: bool,
    ) -> Runner<'a> {
        Runner {
            workshop: &self.workshop,
            managed,
            teller: &self.teller,
            turn: &self.turn,
            builds: &self.builds,
            shutdown: &self.shutdown,
            deploy,
            reclaim,
            cut_off: AtomicBool::new(resumed),
        }
    }

    /// Holds the slot against `slots up` and its like.
    pub(super) async fn hold(&self, managed: &Managed) -> Result<std::fs::File, String> {
        let until = Instant::now() + Duration::from_secs(120);
        loop {
            match self.workshop.store.lock(&managed.place.slot) {
                Ok(Some(lock)) => return Ok(lock),
                Ok(None) if Instant::now() < until => sleep(Duration::from_millis(100)).await,
                Ok(None) => return Err("another program changes the slot".to_owned()),
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    async fn begin(&self, managed: &Managed, id: &CommandId, ask: &Ask) -> Result<(), String> {
        let slot = &managed.place.slot;
        let listing = self.workshop.list().await.map_err(|error| error.to_string())?;
        if let Some(owner) = self.workshop.foreign_owner(&listing, &managed.place)
            && !ask.reclaim()
        {
            return Err(format!(
                "port {} is held by {}, which is not the slot's; end it, or ask with \
                 \"reclaim\": true",
                managed.place.port,
                super::port::in_words(&owner)
            ));
        }
        let seen = self.workshop.seen(&listing, &managed.place, &managed.state());
        // Nobody knows how to start it again if what comes in its place is not well.
        if seen == Seen::Other && ask.action() != Action::Stop && !ask.reclaim() {
            return Err("the slot runs something that was not deployed here: take it over with \
                 'pm2-exporter slots import', stop the slot, or ask with \"reclaim\": true"
                .to_owned());
        }
        let mut state = managed.state();
        state.standing.begin(id.clone(), ask.wish()).map_err(|refusal| refusal.to_string())?;
        if let Err(error) = self.workshop.store.save(slot, &state) {
            state.standing.change = None;
            return Err(format!("the slot's state cannot be kept: {error}"));
        }
        Ok(())
    }

    fn end_early(&self, managed: &Managed, job: &Known, message: String) {
        let (id, by) = {
            let record = job.record.borrow();
            (record.id.clone(), record.requested_by.clone())
        };
        let end = End { id, failure: Some(message.clone()), put_back: None, discard: None };
        {
            let mut state = managed.state();
            close(&mut state, &end, Vec::new());
            if let Err(error) = self.workshop.store.save(&managed.place.slot, &state) {
                tracing::error!(%error, "a slot's state cannot be saved");
            }
        }
        self.teller.ended(managed, job.ask.action(), &by, &end, false);
        job.record.send_modify(|record| finish(record, Some(message)));
    }
}

enum Taken {
    Now(Arc<Known>),
    Before(Box<CommandRecord>),
}

fn finish(record: &mut CommandRecord, failure: Option<String>) {
    record.status = match failure {
        None => CommandStatus::Succeeded,
        Some(_) => CommandStatus::Failed,
    };
    record.error = failure;
    record.finished_at = Some(Time::now());
}
