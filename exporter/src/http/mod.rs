//! HTTP: the contract of the exporter.

mod body;
mod commands;
mod deployment_log;
mod error;
mod journal;
mod landing;
mod logs;
mod metrics;
mod processes;
mod query;
mod slots;
mod state;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::{get, post, put};
use service::problem::ProblemResponse;
use service::serve::Limits;
use service::shutdown::Shutdown;
use tokio::net::TcpListener;

use crate::access::Scope;
use crate::app::App;

pub use landing::escape;

/// Largest body of a request.
const MAX_REQUEST: usize = 256 * 1024;
/// Longest `?wait=`.
const MAX_WAIT: Duration = Duration::from_secs(300);

/// How many may follow logs at a time.
pub const MAX_FOLLOWERS: usize = logs::MAX_FOLLOWERS;

/// Serves `app` until `shutdown`.
pub async fn serve(listener: TcpListener, app: Arc<App>, shutdown: Shutdown) {
    service::serve::serve(listener, router(app), Limits::default(), shutdown).await;
}

/// Every route.
pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/", get(landing::show))
        .route("/metrics", get(metrics::show))
        .route("/healthz", get(state::healthz))
        .route("/readyz", get(state::readyz))
        .route("/api/state", get(state::show))
        .route("/api/journal", get(journal::show))
        .route("/api/processes", get(processes::list))
        .route("/api/processes/{name}", get(processes::show))
        .route("/api/processes/{name}/logs", get(logs::show))
        .route("/api/processes/{name}/{action}", post(processes::act).get(slots::old_status))
        .route("/api/restart/{slot}", post(slots::old_restart))
        .route("/api/slots", get(slots::list))
        .route("/api/slots/{slot}", get(slots::show))
        .route("/api/slots/{slot}/{action}", post(slots::act))
        .route("/api/slots/{slot}/env", put(slots::put_env))
        .route("/api/slots/{slot}/deployments", get(slots::deployments))
        .route("/api/slots/{slot}/deployments/{id}", get(slots::deployment))
        .route("/api/slots/{slot}/deployments/{id}/log", get(deployment_log::show))
        .route("/api/commands/{id}", put(commands::put).get(commands::show))
        .fallback(error::no_such_path)
        .method_not_allowed_fallback(error::no_such_method)
        .layer(from_fn(headers))
        .layer(DefaultBodyLimit::max(MAX_REQUEST))
        .with_state(app)
}

/// What every answer carries.
async fn headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers
        .entry(header::CONTENT_SECURITY_POLICY)
        .or_insert(HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    if response.status() == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// Whoever asks may read.
struct Reads;

impl FromRequestParts<Arc<App>> for Reads {
    type Rejection = ProblemResponse;

    async fn from_request_parts(
        parts: &mut Parts,
        app: &Arc<App>,
    ) -> Result<Self, ProblemResponse> {
        app.check(&parts.headers, Scope::Read).map(|_| Self)
    }
}
