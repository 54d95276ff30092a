//! How commands end: the record is closed with what became of them, also of those that a former life
//! of this program left open.

use std::sync::Arc;
use std::time::Duration;

use wire::CommandStatus;

use super::order::may_be_secret;
use super::run::{self, Outcome};
use super::{CLOSE_AGAIN, CLOSE_TRIES, Commands, MAX_ERROR, NOT_WATCHED, health};
use crate::store::StoredCommand;

impl Commands {
    /// Tells who waits, and closes the record. Until that is on the disk it is tried again: a
    /// full disk must not leave a command that ended looking as if it ran. Gives how it ended, as far
    /// as is known by now.
    pub(super) async fn close(
        &self,
        mut command: StoredCommand,
        mut outcome: Outcome,
    ) -> CommandStatus {
        outcome.error = outcome.error.map(|error| error.chars().take(MAX_ERROR).collect());
        let id = command.record.id.clone();
        self.metrics.commands.with_label_values(&[outcome.status.as_str()]).inc();
        tracing::info!(
            command = %id, server = %command.server, status = outcome.status.as_str(),
            error = outcome.error.as_deref().unwrap_or_default(), "command ended"
        );
        command.record.status = outcome.status;
        command.record.finished_at = Some(crate::world::now());
        command.record.error = outcome.error;
        command.record.reply = outcome.reply;
        command.record.outcomes = outcome.outcomes;
        command.record.before = outcome.before;
        command.record.after = outcome.after;
        command.problem = outcome.problem;
        let command = Arc::new(command);
        let mut tries = 0;
        while let Err(error) = self.store.finish_command(Arc::clone(&command)).await {
            tries += 1;
            tracing::error!(command = %id, %error, "the end of a command could not be stored");
            self.metrics.store_errors.with_label_values(&[error.label()]).inc();
            if let Some(open) = self.open().get(&id) {
                open.done.send_replace(Some(Arc::clone(&command)));
            }
            if tries == CLOSE_TRIES {
                break;
            }
            tokio::time::sleep(CLOSE_AGAIN).await;
        }
        // Its event may have come while its answer did not.
        let mut command = command;
        if command.record.status == CommandStatus::Unknown
            && let Some(known) = self.known_by_now(&id).await
        {
            command = Arc::new(known);
        }
        let status = command.record.status;
        if let Some(open) = self.open().remove(&id) {
            open.done.send_replace(Some(command));
        }
        status
    }

    /// What became of the commands that a former life of this program left open: what waits waits
    /// on; of what was sent the exporters are asked, what they do not know is unknown, what is
    /// under way is followed further.
    pub async fn settle(self: &Arc<Self>) {
        match self.store.interrupt_selections().await {
            Ok(0) => {}
            Ok(count) => tracing::warn!(count, "selections were interrupted: the rest is not run"),
            Err(error) => tracing::error!(%error, "selections left open cannot be closed"),
        }
        let open = match self.store.open_commands().await {
            Ok(open) => open,
            Err(error) => {
                tracing::error!(%error, "commands left open cannot be read");
                return;
            }
        };
        for mut command in open {
            if command.record.status == CommandStatus::Queued {
                if command.part_of.is_some() {
                    // Its selection could not be closed.
                    continue;
                }
                let body = command.body.take().unwrap_or_default();
                self.enqueue(command, body);
                continue;
            }
            let target = self.fleet.get(&command.server).map(|member| member.target);
            let this = Arc::clone(self);
            self.metrics.commands_running.inc();
            self.tasks.spawn(async move {
                let until = command.follow_until.map(|time| time.millis_since(crate::world::now()));
                let left = until.and_then(|left| u64::try_from(left).ok()).unwrap_or_default();
                let (target, id) = (target.as_deref(), &command.record.id);
                let left = Duration::from_millis(left);
                let mut outcome = run::settle(&this.client, target, id, left).await;
                if may_be_secret(command.record.action) && outcome.problem.is_none() {
                    outcome.forget_words();
                }
                let watched = command.part_of.is_some()
                    && health::is_watched(&command.record.target, command.record.action);
                if watched && outcome.status == CommandStatus::Succeeded {
                    outcome.problem = Some(NOT_WATCHED.to_owned());
                    let words =
                        "it was done, and the poller was stopped before it was seen to be well";
                    outcome.error.get_or_insert_with(|| words.to_owned());
                }
                this.metrics.commands_running.dec();
                this.close(command, outcome).await;
            });
        }
    }
}
