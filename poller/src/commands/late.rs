//! The late word: how a command ended that was closed as unknown, once its server's journal comes
//! in and tells.

use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use wire::{CommandId, CommandStatus, Severity};

use super::order::{may_be_secret, one_line};
use super::{Commands, MAX_ERROR, NOT_WATCHED, health};
use crate::store::{CommandEnd, StoreError, StoredCommand, StoredEvent};

/// Ends that are taken up in one go.
const MOST: u32 = 200;
/// After what could not be read or written, so long nothing is tried; twice as long each time.
const AGAIN: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(600);

impl Commands {
    /// Takes up what events tell of commands that are closed as unknown, until `stop`.
    pub async fn hear(&self, stop: CancellationToken) {
        let mut events = self.store.follow();
        // Something may have been told while nobody listened.
        let mut look_back = Some(Instant::now());
        let mut patience = AGAIN;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep_until(look_back.unwrap_or_else(Instant::now)), if look_back.is_some() => {
                    look_back = None;
                    let Some(looked) = stop.run_until_cancelled(self.look_up(None)).await else {
                        return;
                    };
                    match looked {
                        Ok(count) if count == MOST as usize => look_back = Some(Instant::now()),
                        Ok(_) => patience = AGAIN,
                        Err(error) => self.not_heard(&error),
                    }
                }
                () = self.unheard.notified() => {
                    look_back.get_or_insert_with(|| Instant::now() + patience);
                    patience = LONGEST.min(patience * 2);
                }
                event = events.recv() => match event {
                    Ok(event) => self.heard(&event).await,
                    Err(RecvError::Lagged(_)) => look_back = Some(Instant::now()),
                    // The store is closed, and this program about to end.
                    Err(RecvError::Closed) => return stop.cancelled().await,
                },
            }
        }
    }

    async fn heard(&self, event: &StoredEvent) {
        let Some((id, _)) = event.event.end() else { return };
        // Nearly all are known: they cost no more than a look.
        let heard = match self.store.is_unknown(&id).await {
            Ok(true) => self.take_up(event).await,
            Ok(false) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = heard {
            self.not_heard(&error);
        }
    }

    /// How a command ended that was just closed as unknown; `None` where nothing more is known.
    pub(super) async fn known_by_now(&self, id: &CommandId) -> Option<StoredCommand> {
        if let Err(error) = self.look_up(Some(id)).await {
            self.not_heard(&error);
        }
        // What is told at this moment may be taken up by who listens.
        let known = self.store.command(id).await.ok()??;
        known.record.status.is_final().then_some(known)
    }

    /// Takes up what is told of one, or of any. Gives how many events tell.
    async fn look_up(&self, id: Option<&CommandId>) -> Result<usize, StoreError> {
        let events = self.store.told_ends(id, MOST).await?;
        for event in &events {
            self.take_up(event).await?;
        }
        Ok(events.len())
    }

    async fn take_up(&self, event: &StoredEvent) -> Result<(), StoreError> {
        let Some((id, status)) = event.event.end() else { return Ok(()) };
        let Some(command) = self.store.command(&id).await? else { return Ok(()) };
        let ahead = self.fleet.get(&command.server).and_then(|member| member.clock_ahead);
        // By the poller's clock, as all that it tells of commands.
        let time = event.time.plus_millis(-ahead.unwrap_or_default());
        let (problem, error) = words(&command, status, event);
        let end = CommandEnd {
            id,
            server: event.server.clone(),
            status,
            finished_at: time.min(crate::world::now()).max(command.record.requested_at),
            problem,
            error,
            event: event.id,
        };
        if self.store.end_unknown(end).await? {
            let (id, server) = (&command.record.id, &command.server);
            tracing::info!(command = %id, %server, status = status.as_str(), event = event.id, "an event tells how it ended");
        }
        Ok(())
    }

    /// It is looked for again later.
    fn not_heard(&self, error: &StoreError) {
        tracing::warn!(%error, "what events tell of commands could not be taken up");
        self.metrics.store_errors.with_label_values(&[error.label()]).inc();
        self.unheard.notify_one();
    }
}

/// What is kept of the end that an event tells: a word, and the same for people.
fn words(
    command: &StoredCommand,
    status: CommandStatus,
    event: &StoredEvent,
) -> (Option<&'static str>, Option<String>) {
    let record = &command.record;
    let said = match record.action {
        // The record and the audit stay for longer than the event.
        action if may_be_secret(action) => format!("see event {}", event.id),
        _ => one_line(&event.event.message).chars().take(MAX_ERROR).collect(),
    };
    if status != CommandStatus::Succeeded {
        return (None, Some(said));
    }
    // One that succeeded in part says so.
    let in_part = (event.event.severity > Severity::Info).then_some(said);
    if command.part_of.is_some() && health::is_watched(&record.target, record.action) {
        let words = || "it was done, and nobody watched whether it is well".to_owned();
        return (Some(NOT_WATCHED), in_part.or_else(|| Some(words())));
    }
    (None, in_part)
}
