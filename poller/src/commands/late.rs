//! The late word: how a command ended that was closed as unknown, once its server's journal comes
//! in and tells.

use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use wire::CommandId;

use super::{Commands, millis};
use crate::store::{StoreError, StoredEvent};

/// So old a command is looked up whose server told of its end while nobody listened.
const LOOK_BACK: Duration = Duration::from_secs(7 * 24 * 3600);
/// After what could not be read or written, so long nothing is tried.
const AGAIN: Duration = Duration::from_secs(10);
/// So far a server's clock may be behind.
const BEHIND: Duration = Duration::from_secs(24 * 3600);

impl Commands {
    /// Takes up what events tell of commands that are closed as unknown, until `stop`.
    pub async fn hear(&self, stop: CancellationToken) {
        let mut events = self.store.follow();
        // Something may have been told while nobody listened.
        let mut look_back = Some(Instant::now());
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep_until(look_back.unwrap_or_else(Instant::now)), if look_back.is_some() => {
                    look_back = None;
                    self.look_back().await;
                }
                () = self.unheard.notified() => {
                    look_back.get_or_insert_with(|| Instant::now() + AGAIN);
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
            Ok(true) => self.take_up(&id, event.clone()).await.map(drop),
            Ok(false) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = heard {
            self.not_heard(&error);
        }
    }

    /// What was told before it was closed, or while nobody listened. Gives whether there was
    /// anything.
    pub(super) async fn look_up(&self, id: &CommandId) -> bool {
        let found = match self.store.told_end(id, millis(BEHIND)).await {
            Ok(Some(event)) => self.take_up(id, event).await,
            Ok(None) => Ok(false),
            Err(error) => Err(error),
        };
        found.unwrap_or_else(|error| {
            self.not_heard(&error);
            false
        })
    }

    async fn look_back(&self) {
        let since = crate::world::now().plus_millis(-millis(LOOK_BACK));
        match self.store.unknown_commands(since).await {
            Ok(ids) => {
                for id in ids {
                    self.look_up(&id).await;
                }
            }
            Err(error) => self.not_heard(&error),
        }
    }

    async fn take_up(&self, id: &CommandId, event: StoredEvent) -> Result<bool, StoreError> {
        let (server, message) = (event.server.clone(), event.event.message.clone());
        let changed = self.store.end_as_told(event).await?;
        if changed {
            tracing::info!(command = %id, %server, "an event tells how it ended: {message}");
        }
        Ok(changed)
    }

    /// It is looked for again later.
    fn not_heard(&self, error: &StoreError) {
        tracing::warn!(%error, "what events tell of commands could not be taken up");
        self.metrics.store_errors.with_label_values(&[error.label()]).inc();
        self.unheard.notify_one();
    }
}
