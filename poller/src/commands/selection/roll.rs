//! A selection on its way: batch by batch, part by part.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use wire::{CommandId, CommandStatus, ServerId, Time};

use super::super::health::{self, Watch};
use super::super::record::running;
use super::super::{CLOSE_AGAIN, CLOSE_TRIES, Commands, Outcome, millis, run};
use super::{Rolling, Rollout};
use crate::store::{NewCommand, StoredCommand};

impl Commands {
    /// Batch by batch, until all are done, one fails, it is cancelled, or the program stops.
    pub(super) async fn roll(
        self: &Arc<Self>,
        id: &CommandId,
        rollout: &Rollout,
        parts: Vec<NewCommand>,
        body: Vec<u8>,
        rolling: &Rolling,
    ) {
        let servers: Vec<ServerId> = parts.iter().map(|part| part.server.clone()).collect();
        let timeout = *self.timeout.read().unwrap_or_else(PoisonError::into_inner);
        let timeout = rollout.order.timeout(rollout.action, timeout);
        let total = parts.len();
        let mut left = parts.into_iter().peekable();
        let (mut well, mut end) = (0, (CommandStatus::Succeeded, None));
        while left.peek().is_some() {
            if rolling.cancelled.is_cancelled() {
                break;
            }
            let mut batch = rollout.batch;
            if let Some(most) = rollout.max_unavailable {
                let away = self.away(&servers, &rollout.select, &rollout.target);
                if away >= most {
                    let words =
                        format!("{away} are away, and {most} may be: {well} of {total} done");
                    end = (CommandStatus::Failed, Some(("unavailable", words)));
                    break;
                }
                batch = batch.min(most - away);
            }
            let now = left.by_ref().take(batch);
            let ended = join_all(now.map(|part| self.part(rollout, part, &body, timeout)));
            let ended = ended.await;
            well += ended.iter().filter(|(_, status)| *status == CommandStatus::Succeeded).count();
            let failed = ended.iter().find(|(_, status)| *status != CommandStatus::Succeeded);
            if let Some((server, status)) = failed {
                let words = format!("{} on {server}: {well} of {total} done", status.as_str());
                end = (CommandStatus::Failed, Some(("part_failed", words)));
                break;
            }
        }
        if self.stopping.is_cancelled() {
            // The next start tells of what was not run.
            return;
        }
        if rolling.cancelled.is_cancelled() {
            let words = format!("{well} of {total} were done before it was cancelled");
            end = (CommandStatus::Cancelled, Some(("cancelled", words)));
        }
        let (status, reason) = end;
        tracing::info!(command = %id, status = status.as_str(), well, total, "a selection ended");
        for _ in 0..CLOSE_TRIES {
            match self.store.finish_selection(id.clone(), status, reason.clone()).await {
                Ok(()) => return,
                Err(error) => {
                    self.metrics.store_errors.with_label_values(&[error.label()]).inc();
                    tracing::error!(command = %id, %error, "the end of a selection was not stored");
                    tokio::time::sleep(CLOSE_AGAIN).await;
                }
            }
        }
    }

    /// One part, from its beginning to its being well.
    async fn part(
        self: &Arc<Self>,
        rollout: &Rollout,
        part: NewCommand,
        body: &[u8],
        timeout: Duration,
    ) -> (ServerId, CommandStatus) {
        let (id, server) = (part.id.clone(), part.server.clone());
        let command = running(part);
        // It may be long ago that they were asked whether they may.
        let by = command.token;
        if !by.is_some_and(|by| self.access.may_still(by, &server, rollout.action)) {
            let words = "who asked for it may not do that any more".to_owned();
            let outcome = run::ended(CommandStatus::Refused, "forbidden", words);
            return self.ended(command, outcome).await;
        }
        let watched = health::is_watched(&rollout.target, rollout.action);
        let beside = if watched { rollout.health_timeout + rollout.settle } else { Duration::ZERO };
        let until = Time::now().plus_millis(millis(timeout + beside));
        match self.store.begin_command(id.clone(), until).await {
            Ok(true) => {}
            // Cancelled meanwhile.
            Ok(false) => return (server, CommandStatus::Cancelled),
            Err(error) => {
                self.metrics.store_errors.with_label_values(&[error.label()]).inc();
                tracing::error!(%error, command = %id, "not on record, and so not sent");
                return (server, CommandStatus::Failed);
            }
        }
        let Some(member) = self.fleet.get(&server) else {
            let words = "the server is not registered any more".to_owned();
            let outcome = run::ended(CommandStatus::Failed, run::UNREACHABLE, words);
            return self.ended(command, outcome).await;
        };
        self.metrics.commands_running.inc();
        let asked = (&id, &*command.record.requested_by);
        let sent = run::run(&self.client, &member.target, asked, body.to_vec(), timeout);
        let mut outcome = sent.await;
        if outcome.status == CommandStatus::Succeeded && watched {
            let watch = Watch { within: rollout.health_timeout, settle: rollout.settle };
            let target = (&rollout.target, rollout.select.pm2_home.as_deref());
            let looked = tokio::select! {
                looked = health::watch(&self.client, &member.target, target, watch) => looked,
                () = self.stopping.cancelled() => {
                    // It is asked for at the next start.
                    self.metrics.commands_running.dec();
                    return (server, CommandStatus::Running);
                }
            };
            if let Err(words) = looked {
                outcome.status = CommandStatus::Failed;
                (outcome.problem, outcome.error) = (Some("unhealthy".to_owned()), Some(words));
            }
        }
        self.metrics.commands_running.dec();
        let errors = outcome.outcomes.iter_mut().map(|of| &mut of.error);
        for error in errors.chain([&mut outcome.error]).flatten() {
            *error = rollout.order.scrub(rollout.action, error);
        }
        let unseen = watched && outcome.status == CommandStatus::Unknown;
        let (server, status) = self.ended(command, outcome).await;
        // That it was done, as its server's journal may tell, says nothing of how it is.
        (server, if unseen { CommandStatus::Unknown } else { status })
    }

    async fn ended(&self, command: StoredCommand, outcome: Outcome) -> (ServerId, CommandStatus) {
        let server = command.server.clone();
        (server, self.close(command, outcome).await)
    }
}
