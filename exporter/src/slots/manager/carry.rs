//! Carrying out what was taken, from its turn to its end.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use wire::{Action, CommandId, CommandRecord, CommandStatus, DeployRequest, Time};

use super::{Change, Manager};
use crate::commands::Known;
use crate::slots::ask::Ask;
use crate::slots::managed::Managed;
use crate::slots::plan::{End, Seen};
use crate::slots::port;
use crate::slots::repository::Repository;
use crate::slots::run::{Cut, Runner, close};

impl Manager {
    pub(super) async fn carry_out(
        self: &Arc<Self>,
        job: &Known,
        change: Change,
        repository: Option<Repository>,
    ) {
        let Change { slot, ask } = change;
        let action = ask.action();
        let Some(managed) = self.managed(&slot) else { return };
        let lane = tokio::select! {
            lane = Arc::clone(&managed.lane).acquire_owned() => lane,
            () = self.shutdown.drain.cancelled() => {
                return self.end_early(managed, job, action, "the exporter stops".to_owned());
            }
        };
        job.record.send_modify(|record| record.status = CommandStatus::Running);
        let (id, by) = {
            let record = job.record.borrow();
            (record.id.clone(), record.requested_by.clone())
        };
        let _lock = match self.hold(managed).await {
            Ok(lock) => lock,
            Err(message) => return self.end_early(managed, job, action, message),
        };
        // Another program may have changed it: an import, for one.
        if let Err(error) = managed.meet(&self.workshop.store) {
            return self.end_early(managed, job, action, error.to_string());
        }
        let before = self.workshop.processes(&managed.place);
        job.record.send_modify(|record| record.before = before);
        if let Err(message) = self.begin(managed, &id, &ask).await {
            return self.end_early(managed, job, action, message);
        }
        let reclaim = ask.reclaim();
        let deploy = match (ask, repository) {
            (Ask::Deploy(request), Some(repository)) => Some((*request, repository)),
            _ => None,
        };
        let runner = self.runner(managed, deploy.as_ref(), reclaim, false);
        let end = runner.run().await;
        // What PM2 has started meanwhile has a pid now.
        self.workshop.look().await;
        let after = self.workshop.processes(&managed.place);
        job.record.send_modify(|record| record.after = after);
        drop(lane);
        let cut = match end {
            Ok(end) => {
                self.teller.ended(managed, action, &by, &end, false);
                return job.record.send_modify(|record| finish(record, end.failure));
            }
            Err(Cut::Stopped) => "the exporter stops; it is taken up at its next start".to_owned(),
            Err(Cut::Away(reason)) => {
                self.take_up(&slot);
                format!("{reason}; it is brought to its end once PM2 answers")
            }
        };
        job.record.send_modify(|record| {
            record.status = CommandStatus::Unknown;
            record.error = Some(cut);
            record.finished_at = Some(Time::now());
        });
    }

    pub(in crate::slots) fn runner<'a>(
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
    pub(in crate::slots) async fn hold(&self, managed: &Managed) -> Result<std::fs::File, String> {
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
        let listing = self.workshop.list().await.map_err(|error| error.to_string())?;
        if let Some(owner) = self.workshop.foreign_owner(&listing, &managed.place)
            && !ask.reclaim()
        {
            return Err(format!(
                "port {} is held by {}, which is not the slot's; end it, or ask with \
                 \"reclaim\": true",
                managed.place.port,
                port::in_words(&owner)
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
        if let Err(error) = managed.write(&self.workshop.store, &state) {
            state.standing.change = None;
            return Err(format!("the slot's state cannot be kept: {error}"));
        }
        Ok(())
    }

    fn end_early(&self, managed: &Managed, job: &Known, action: Action, message: String) {
        let (id, by) = {
            let record = job.record.borrow();
            (record.id.clone(), record.requested_by.clone())
        };
        let end = End { id, failure: Some(message.clone()), put_back: None, discard: None };
        {
            let mut state = managed.state();
            close(&mut state, &end, Vec::new());
            if let Err(error) = managed.keep(&self.workshop.store, &state) {
                tracing::error!(%error, "a slot's state cannot be saved");
            }
        }
        self.teller.ended(managed, action, &by, &end, false);
        job.record.send_modify(|record| finish(record, Some(message)));
    }
}

fn finish(record: &mut CommandRecord, failure: Option<String>) {
    record.status = match failure {
        None => CommandStatus::Succeeded,
        Some(_) => CommandStatus::Failed,
    };
    record.error = failure;
    record.finished_at = Some(Time::now());
}
