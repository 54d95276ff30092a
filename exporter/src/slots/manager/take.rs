//! Taking what is asked for: each id once, a bounded queue, and nothing that cannot be.

use std::sync::Arc;
use std::time::Duration;

use wire::{Action, CommandId, CommandRecord, DeployRequest, SlotId, Target, Time};

use super::{Change, Manager};
use crate::commands::{Asked, Known};
use crate::slots::ask::{Ask, NotTaken, QUEUE, queued, record_of};
use crate::slots::repository::{self, Repository};
use crate::slots::{env, probe, words};

enum Taken {
    Now(Arc<Known>),
    Before(Box<CommandRecord>),
}

impl Manager {
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
        match self.take(slot, id, ask, by)? {
            Taken::Now(known) => Ok(known.ended(wait).await),
            Taken::Before(record) => Ok(*record),
        }
    }

    fn take(
        self: &Arc<Self>,
        slot: &SlotId,
        id: CommandId,
        ask: Ask,
        by: String,
    ) -> Result<Taken, NotTaken> {
        let managed = self.find(slot)?;
        let change = Change { slot: slot.clone(), ask };
        let asked = Asked::of(&change).map_err(|error| NotTaken::Wrong(error.to_string()))?;
        let ask = &change.ask;
        let mut book = self.book();
        if let Some(known) = book.memory.get(&id) {
            if known.asked != asked {
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
        let repository = match ask {
            Ask::Deploy(request) => Some(self.accept(request)?),
            Ask::Env(_) | Ask::Other(..) => None,
        };
        if book.open >= QUEUE {
            return Err(NotTaken::Busy);
        }
        if !book.memory.make_room() {
            return Err(NotTaken::Busy);
        }
        if let (Ask::Deploy(request), Some(repository)) = (ask, &repository) {
            let deployed = queued(slot, &id, request, repository, &by);
            let _lock = self.meet(managed)?;
            let mut state = managed.state();
            state.deployments.push(deployed);
            if let Err(error) = managed.write(&self.workshop.store, &state) {
                state.deployments.pop();
                return Err(NotTaken::Storage(error.to_string()));
            }
            drop(state);
            self.teller.queued(&managed.place, &id, &repository.to_string(), &by);
        }
        if let Ask::Env(request) = ask {
            self.set_env(slot, request)?;
        }
        let target = Target::Slot(slot.clone());
        let record = CommandRecord::queued(id, target, ask.action(), by, Time::now());
        let known = book.memory.insert(asked, record);
        book.open += 1;
        drop(book);
        let manager = Arc::clone(self);
        let job = Arc::clone(&known);
        tokio::spawn(async move {
            manager.carry_out(&job, change, repository).await;
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
}
