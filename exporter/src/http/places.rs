//! Places for those who follow logs: so many in all, and so many for one caller, who keeps nobody
//! else from them.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::StatusCode;
use axum::http::request::Parts;
use service::limits::whose;
use service::problem::ProblemResponse;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use crate::access::Who;
use crate::app::App;

/// Followers at a time.
pub const MAX_FOLLOWERS: usize = 100;
/// The same of one token or user, or of one address where no credential is needed. All who use a poller
/// have its token.
const OF_ONE: usize = 64;
/// Longest that one who wants to follow waits for a place, as while logs are rotated.
const ROTATED: Duration = Duration::from_secs(1);

type Caller = (String, Option<IpAddr>);

/// Who follows how many logs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Callers(Arc<Mutex<HashMap<Caller, usize>>>);

impl Callers {
    fn counted(&self, caller: Caller) -> Option<Counted> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = all.entry(caller.clone()).or_default();
        if *count >= OF_ONE {
            return None;
        }
        *count += 1;
        Some(Counted { callers: self.clone(), caller })
    }
}

#[derive(Debug)]
struct Counted {
    callers: Callers,
    caller: Caller,
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut all = self.callers.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = all.get_mut(&self.caller) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.caller);
            }
        }
    }
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    _counted: Counted,
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

/// A place among those who follow logs.
///
/// # Errors
/// 503: all are taken, or as many as one caller gets.
pub(super) async fn place(app: &App, who: &Who, from: &Address) -> Result<Place, ProblemResponse> {
    let busy = |why| ProblemResponse::new(StatusCode::SERVICE_UNAVAILABLE, "busy", why);
    let caller = (who.name().to_owned(), from.0.filter(|_| who.is_anonymous()));
    let counted = app
        .callers
        .counted(caller)
        .ok_or_else(|| busy(format!("{:?} follows {OF_ONE} logs already", who.name())))?;
    match timeout(ROTATED, Arc::clone(&app.followers).acquire_owned()).await {
        Ok(Ok(permit)) => Ok(Place { _counted: counted, _permit: permit }),
        _ => Err(busy(format!("{MAX_FOLLOWERS} readers follow logs already"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_caller_has_so_many_places_and_gets_them_back() {
        let callers = Callers::default();
        let of = |name: &str, last: Option<u8>| {
            callers.counted((name.to_owned(), last.map(|last| IpAddr::from([10, 0, 0, last]))))
        };
        let mut held: Vec<Counted> = (0..OF_ONE).map(|_| of("a", None).unwrap()).collect();
        assert!(of("a", None).is_none());
        assert!(of("b", None).is_some());
        held.pop();
        held.push(of("a", None).unwrap());
        assert!(of("a", None).is_none());
        let anonymous: Vec<Counted> = (0..OF_ONE).filter_map(|_| of("x", Some(1))).collect();
        assert!(anonymous.len() == OF_ONE && of("x", Some(1)).is_none());
        assert!(of("x", Some(2)).is_some());
        drop((held, anonymous));
        assert!(callers.0.lock().unwrap().is_empty());
    }
}
