//! Who follows something, for as long as they may.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use service::limits::{Share, Shares, whose};
use service::problem::ProblemResponse;
use tokio::time::Instant;
use wire::ServerId;

use crate::access::Caller;
use crate::app::App;
use crate::http::Peer;

/// Streams at a time.
const MOST: i64 = 1000;
/// The same of one token or user, or of one address without a credential.
const OF_ONE: usize = 500;
/// How often is looked whether somebody still may.
const LOOK: Duration = Duration::from_secs(1);

/// Number of a token or user; an address without a credential.
type Follower = (Option<i64>, Option<IpAddr>);

/// Who follows how much.
#[derive(Clone, Debug)]
pub struct Followers(Shares<Follower>);

impl Followers {
    /// One more for them; `None` where they have as many as one caller gets.
    pub fn take(&self, number: Option<i64>, address: Option<IpAddr>) -> Option<Share<Follower>> {
        self.0.take((number, address))
    }
}

impl Default for Followers {
    fn default() -> Self {
        Self(Shares::new(OF_ONE))
    }
}

/// A place among the streams, given back when the stream ends.
pub(super) struct Place {
    app: Arc<App>,
    caller: Caller,
    /// What is followed is of this server.
    server: Option<ServerId>,
    look: Instant,
    _share: Share<Follower>,
}

impl Place {
    /// Takes one for somebody who may.
    ///
    /// # Errors
    /// 503: all are taken, or as many as one caller gets.
    pub(super) fn take(
        app: &Arc<App>,
        (caller, Peer(address)): (Caller, Peer),
        server: Option<ServerId>,
    ) -> Result<Self, ProblemResponse> {
        let busy = |why| ProblemResponse::new(StatusCode::SERVICE_UNAVAILABLE, "busy", why);
        let number = caller.token();
        let address = number.is_none().then(|| whose(address));
        let share = app.followers.take(number, address).ok_or_else(|| {
            busy(format!("{:?} has {OF_ONE} streams open already", caller.name()))
        })?;
        if app.metrics.streams.get() >= MOST {
            return Err(busy(format!("{MOST} streams are open already")));
        }
        app.metrics.streams.inc();
        let look = Instant::now() + LOOK;
        Ok(Self { app: Arc::clone(app), caller, server, look, _share: share })
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
