//! HTTP: the contract of the exporter.

mod body;
mod commands;
mod deployment_log;
mod error;
mod journal;
mod landing;
mod logs;
mod metrics;
mod openapi;
mod places;
mod processes;
mod query;
mod slots;
mod state;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, DefaultBodyLimit, FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use service::problem::ProblemResponse;
use service::serve::Limits;
use service::shutdown::Shutdown;
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::access::{Scope, Who};
use crate::app::App;

pub use openapi::DOCUMENT;
pub(crate) use places::Callers;
pub use places::MAX_READERS;

/// Largest body of a request.
const MAX_REQUEST: usize = 256 * 1024;
/// Longest `?wait=`.
const MAX_WAIT: Duration = Duration::from_secs(300);

/// Serves `app` until `shutdown`, over TLS where that is configured.
pub async fn serve(listener: TcpListener, app: Arc<App>, shutdown: Shutdown) {
    let (tls, limits) = (app.tls.clone(), Limits::of(&app.config.reach));
    service::serve::serve(listener, tls, router(app), limits, shutdown).await;
}

/// Every route.
pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/", get(landing::show))
        .route("/metrics", get(metrics::show))
        .route("/healthz", get(state::healthz))
        .route("/readyz", get(state::readyz))
        .route("/api/openapi.json", get(openapi::json))
        .route("/api/docs", get(openapi::page))
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
        .layer(from_fn_with_state(Arc::clone(&app), passwords))
        .layer(from_fn(headers))
        .layer(DefaultBodyLimit::max(MAX_REQUEST))
        .with_state(app)
}

/// Looks at the password of who asks, where there are users; what they may is looked at later.
async fn passwords(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let users = app.users();
    if users.is_empty() {
        return next.run(request).await;
    }
    // Those that were found right before cost nothing, and are not counted.
    let counted =
        crate::basic::is_basic(request.headers()) && users.known(request.headers()).is_none();
    let address = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|it| it.0.ip());
    let address = address.filter(|_| counted);
    if let Some(address) = address
        && let Err(wait) = app.bad_logins.take(address)
    {
        let words = "too many wrong passwords from this address: see Retry-After";
        let problem = ProblemResponse::new(StatusCode::TOO_MANY_REQUESTS, "too_many", words);
        let mut response = problem.into_response();
        let wait = HeaderValue::from(wait.as_secs() + 1);
        response.headers_mut().insert(header::RETRY_AFTER, wait);
        return response;
    }
    let looked = users.look(request.headers()).await;
    if let Some(address) = address
        && (looked.is_err() || users.known(request.headers()).is_some())
    {
        app.bad_logins.give_back(address);
    }
    if looked.is_err() {
        let words = "too many passwords are being looked at; try again";
        return ProblemResponse::new(StatusCode::SERVICE_UNAVAILABLE, "busy", words)
            .into_response();
    }
    let mut response = next.run(request).await;
    if response.status() == StatusCode::UNAUTHORIZED {
        let basic = HeaderValue::from_static("Basic realm=\"pm2-exporter\"");
        response.headers_mut().append(header::WWW_AUTHENTICATE, basic);
    }
    response
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

/// How often is looked whether somebody who follows a log still may.
const LOOK: Duration = Duration::from_secs(1);

type Allows = Box<dyn Fn(&App, &Who) -> bool + Send + Sync>;

/// Somebody who follows, for as long as they may read what `allows` says.
struct Follower {
    headers: HeaderMap,
    allows: Allows,
    look: Instant,
}

impl Follower {
    /// One who may now.
    fn new(
        headers: HeaderMap,
        allows: impl Fn(&App, &Who) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self { headers, allows: Box::new(allows), look: Instant::now() + LOOK }
    }

    /// Whether they still may: a look, where the last one is long ago.
    fn may(&mut self, app: &App) -> bool {
        if Instant::now() < self.look {
            return true;
        }
        self.look = Instant::now() + LOOK;
        app.check(&self.headers, Scope::Read).is_ok_and(|who| (self.allows)(app, &who))
    }
}

/// Whoever asks may read, what their limits say.
struct Reads(Who);

impl FromRequestParts<Arc<App>> for Reads {
    type Rejection = ProblemResponse;

    async fn from_request_parts(
        parts: &mut Parts,
        app: &Arc<App>,
    ) -> Result<Self, ProblemResponse> {
        app.check(&parts.headers, Scope::Read).map(Self)
    }
}
