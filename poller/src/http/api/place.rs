//! Who follows something, for as long as they may.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use service::problem::ProblemResponse;
use tokio::time::Instant;
use wire::ServerId;

use crate::access::Caller;
use crate::app::App;

/// Streams at a time.
const MOST: i64 = 1000;
/// How often is looked whether somebody still may.
const LOOK: Duration = Duration::from_secs(1);

/// A place among the streams, given back when the stream ends.
pub(super) struct Place {
    app: Arc<App>,
    caller: Caller,
    /// What is followed is of this server.
    server: Option<ServerId>,
    look: Instant,
}

impl Place {
    /// Takes one for somebody who may.
    ///
    /// # Errors
    /// 503: all are taken.
    pub(super) fn take(
        app: &Arc<App>,
        caller: Caller,
        server: Option<ServerId>,
    ) -> Result<Self, ProblemResponse> {
        if app.metrics.streams.get() >= MOST {
            let detail = format!("{MOST} streams are open already");
            return Err(ProblemResponse::new(StatusCode::SERVICE_UNAVAILABLE, "busy", detail));
        }
        app.metrics.streams.inc();
        Ok(Self { app: Arc::clone(app), caller, server, look: Instant::now() + LOOK })
    }

    pub(super) fn app(&self) -> &App {
        &self.app
    }

    /// Who follows, with the limits that they had a moment ago.
    pub(super) fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Whether it may go on: a look, where the last one is long ago.
    pub(super) fn is_kept(&mut self) -> bool {
        if Instant::now() < self.look {
            return true;
        }
        self.look = Instant::now() + LOOK;
        let Some(caller) = self.app.access.again(&self.caller) else { return false };
        self.caller = caller;
        self.server.as_ref().is_none_or(|server| self.caller.may_see(server))
    }

    /// Waits until it may not, or the program stops. It can be given up and waited for again.
    pub(super) async fn is_lost(&mut self) {
        while self.is_kept() {
            tokio::select! {
                () = self.app.shutdown.drain.cancelled() => return,
                () = tokio::time::sleep_until(self.look) => {}
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.app.metrics.streams.dec();
    }
}
