//! HTTP: the contract of the poller. Handlers ask the fleet, the store and the commands;
//! nothing here decides.

mod api;
mod csv;
mod error;
mod filter;
mod headers;
mod metrics;
mod pages;
mod params;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::extract::{ConnectInfo, DefaultBodyLimit, FromRequestParts};
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, StatusCode, Version};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::get;
use service::problem::ProblemResponse;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{DefaultPredicate, Predicate};

use crate::access::Caller;
use crate::app::App;

pub use api::place::Followers;
pub(crate) use metrics::SCRAPES;

/// Largest body of a request.
const MAX_REQUEST: usize = 64 * 1024;

/// Every route.
pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .merge(pages::routes(&app))
        .nest("/api", api::routes())
        .route("/metrics", get(metrics::show))
        .route("/healthz", get(api::health::healthz))
        .route("/readyz", get(api::health::readyz))
        .route("/sd/prometheus", get(api::discovery::prometheus))
        .fallback(pages::nowhere)
        .method_not_allowed_fallback(error::no_such_method)
        .layer(from_fn(error::problems))
        .layer(from_fn(headers::changes_come_from_here))
        .layer(from_fn_with_state(Arc::clone(&app), headers::refusals_are_on_record))
        .layer(DefaultBodyLimit::max(MAX_REQUEST))
        .layer(from_fn(headers::deadline))
        .layer(CompressionLayer::new().gzip(true).compress_when(packed()))
        .layer(from_fn(headers::gzip_or_as_it_is))
        .layer(from_fn_with_state(Arc::clone(&app), headers::every_answer))
        .with_state(app)
}

/// What is followed as it comes is not held back to be packed.
fn packed() -> impl Predicate {
    let is_whole = |_: StatusCode, _: Version, _: &HeaderMap, extensions: &Extensions| {
        extensions.get::<api::pass::Live>().is_none()
    };
    DefaultPredicate::new().and(is_whole)
}

/// Somebody who may read.
pub(crate) struct Reader(pub(crate) Caller);

impl FromRequestParts<Arc<App>> for Reader {
    type Rejection = ProblemResponse;

    async fn from_request_parts(
        parts: &mut Parts,
        app: &Arc<App>,
    ) -> Result<Self, ProblemResponse> {
        let caller = app.access.caller(&parts.headers).await?;
        let changes = !parts.method.is_safe();
        if changes && caller.by_session() && !crate::access::same_origin(&parts.headers) {
            return Err(ProblemResponse::forbidden(
                "with a session's cookie, changes are taken from this poller's own pages only",
            ));
        }
        Ok(Self(caller))
    }
}

/// Somebody who may do everything, and is limited to nothing.
pub(crate) struct Admin(pub(crate) Caller);

impl FromRequestParts<Arc<App>> for Admin {
    type Rejection = ProblemResponse;

    async fn from_request_parts(
        parts: &mut Parts,
        app: &Arc<App>,
    ) -> Result<Self, ProblemResponse> {
        let Reader(caller) = Reader::from_request_parts(parts, app).await?;
        caller.require_unlimited_admin()?;
        Ok(Self(caller))
    }
}

/// Whether a request came over TLS.
pub(crate) struct Encrypted(pub(crate) bool);

impl<S: Sync> FromRequestParts<S> for Encrypted {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self(parts.extensions.get::<service::serve::Encrypted>().is_some()))
    }
}

/// The address that a request came from.
pub(crate) struct Peer(pub(crate) IpAddr);

impl<S: Sync> FromRequestParts<S> for Peer {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        // Only a test that calls the router without a connection has none.
        Ok(Self(peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.0.ip())))
    }
}
