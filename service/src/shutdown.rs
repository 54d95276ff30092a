//! Two-stage stop: the first SIGTERM or SIGINT drains, a second ends at once. SIGHUP reloads.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Handed to everything that waits.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    /// Finish what is under way, begin nothing, end waits and streams.
    pub drain: CancellationToken,
    /// Drop everything.
    pub abort: CancellationToken,
}

impl Shutdown {
    /// One that the process' signals trigger.
    ///
    /// # Errors
    /// The signals cannot be listened to.
    pub fn on_signals() -> io::Result<Self> {
        let shutdown = Self::default();
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let handle = shutdown.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                if handle.drain.is_cancelled() {
                    tracing::warn!("second signal: ending at once");
                    handle.abort.cancel();
                    return;
                }
                tracing::info!("stopping");
                handle.drain.cancel();
            }
        });
        Ok(shutdown)
    }
}

/// SIGHUPs, for a loop that reloads.
///
/// # Errors
/// The signal cannot be listened to.
pub fn hangups() -> io::Result<Signal> {
    signal(SignalKind::hangup())
}
