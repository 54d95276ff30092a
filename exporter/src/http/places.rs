//! Places for those who read and follow logs: so many in all, and so many for one caller, who keeps
//! nobody else from them.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::StatusCode;
use axum::http::request::Parts;
use service::limits::{Share, Shares, whose};
use service::problem::ProblemResponse;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use crate::access::Who;
use crate::app::App;

/// Readers of logs at a time, most of whom follow them.
pub const MAX_READERS: usize = 100;
/// The same of one token or user, or of one address where no credential is needed. All who use a poller
/// have its token.
const OF_ONE: usize = 64;
/// Longest that one who wants to read waits for a place, as while logs are rotated.
const ROTATED: Duration = Duration::from_secs(1);

/// Name of a token or user; with the address where no credential is needed.
type Caller = (String, Option<IpAddr>);

/// Who reads how many logs.
#[derive(Clone, Debug)]
pub(crate) struct Callers(Shares<Caller>);

impl Default for Callers {
    fn default() -> Self {
        Self(Shares::new(OF_ONE))
    }
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    _share: Share<Caller>,
    _permit: OwnedSemaphorePermit,
}

/// The address that somebody asks from.
pub(super) struct Address(Option<IpAddr>);

impl<S: Send + Sync> FromRequestParts<S> for Address {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let address = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        Ok(Self(address.map(|it| whose(it.0.ip()))))
    }
}

/// A place among those who read logs.
///
/// # Errors
/// 503: all are taken, or as many as one caller gets.
pub(super) async fn place(app: &App, who: &Who, from: &Address) -> Result<Place, ProblemResponse> {
    let busy = |why| ProblemResponse::new(StatusCode::SERVICE_UNAVAILABLE, "busy", why);
    let caller = (who.name().to_owned(), from.0.filter(|_| who.is_anonymous()));
    let share =
        app.callers.0.take(caller).ok_or_else(|| {
            busy(format!("{:?} reads or follows {OF_ONE} logs already", who.name()))
        })?;
    match timeout(ROTATED, Arc::clone(&app.log_readers).acquire_owned()).await {
        Ok(Ok(permit)) => Ok(Place { _share: share, _permit: permit }),
        _ => Err(busy(format!(
            "{MAX_READERS} readers read or follow logs already, or logs are being rotated"
        ))),
    }
}
