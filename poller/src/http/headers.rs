//! What holds for every request and every answer.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use service::gzip::accepts_gzip;
use service::problem::{OnRecord, ProblemResponse};

use super::Peer;
use crate::app::App;
use crate::config::Config;

/// Longest time from the end of a request's headers to the beginning of its answer.
const DEADLINE: Duration = Config::MAX_WAIT.saturating_add(Duration::from_secs(10));

/// Cuts off what takes too long: a body that drips, most of all.
pub(super) async fn deadline(request: Request, next: Next) -> Response {
    tokio::time::timeout(DEADLINE, next.run(request)).await.unwrap_or_else(|_| {
        let detail = format!("the request took longer than {} s", DEADLINE.as_secs());
        ProblemResponse::new(StatusCode::REQUEST_TIMEOUT, "too_slow", detail).into_response()
    })
}

/// No other site changes anything here, whatever credential its visitor has.
pub(super) async fn changes_come_from_here(request: Request, next: Next) -> Response {
    if !request.method().is_safe() && crate::access::from_elsewhere(request.headers()) {
        return ProblemResponse::forbidden("another site made this request").into_response();
    }
    next.run(request).await
}

/// That somebody was not let in: for answers whose status does not say so.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refused;

/// A change that is refused leaves a row in the audit, whoever asked for it. One whose row
/// cannot be written is refused all the same.
pub(super) async fn refusals_are_on_record(
    State(app): State<Arc<App>>,
    Peer(address): Peer,
    request: Request,
    next: Next,
) -> Response {
    if request.method().is_safe() {
        return next.run(request).await;
    }
    let path: String = request.uri().path().chars().take(200).collect();
    let subject = format!("{} {}", request.method(), path.escape_debug());
    let headers = request.headers().clone();
    let response = next.run(request).await;
    let extensions = response.extensions();
    let is_refused = extensions.get::<Refused>().is_some()
        || matches!(
            response.status(),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS
        );
    if is_refused && extensions.get::<OnRecord>().is_none() {
        let caller = app.access.caller(&headers).await;
        let detail = response.status().to_string();
        app.access.refused(caller.as_ref().ok(), address, subject, detail).await;
    }
    response
}

/// Answers are packed by gzip for who takes that, and everybody else gets them as they are: what is asked for
/// may be a command, and is not done only to answer 406 (RFC 9110, 12.5.3, leaves that open).
pub(super) async fn gzip_or_as_it_is(mut request: Request, next: Next) -> Response {
    let gzip = accepts_gzip(request.headers());
    let headers = request.headers_mut();
    headers.remove(header::ACCEPT_ENCODING);
    if gzip {
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
    }
    next.run(request).await
}

/// The headers of every answer; and the count of answers.
pub(super) async fn every_answer(
    State(app): State<Arc<App>>,
    request: Request,
    next: Next,
) -> Response {
    let mut response = next.run(request).await;
    app.metrics.requests.with_label_values(&[response.status().as_str()]).inc();
    let retry = response.status() == StatusCode::SERVICE_UNAVAILABLE;
    let headers = response.headers_mut();
    if !headers.contains_key(header::CONTENT_SECURITY_POLICY) {
        set(headers, header::CONTENT_SECURITY_POLICY, dashboards::CONTENT_SECURITY_POLICY);
    }
    set(headers, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(headers, header::X_FRAME_OPTIONS, "DENY");
    // Not "no-referrer": a browser then says `Origin: null` with our own forms, and without TLS
    // that is all that tells them from another site's.
    set(headers, header::REFERRER_POLICY, "same-origin");
    set(headers, HeaderName::from_static("cross-origin-resource-policy"), "same-origin");
    if !headers.contains_key(header::CACHE_CONTROL) {
        set(headers, header::CACHE_CONTROL, "no-store");
    }
    if retry {
        set(headers, header::RETRY_AFTER, "1");
    }
    response
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &'static str) {
    headers.insert(name, HeaderValue::from_static(value));
}
