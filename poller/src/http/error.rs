//! Errors to answers: the one place.

use axum::extract::{OriginalUri, Request};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use service::problem::ProblemResponse;

use crate::store::StoreError;

/// 409 for what is there already or must stay; 503 otherwise: what the store said is logged,
/// not sent.
pub(super) fn store_failed(error: StoreError) -> ProblemResponse {
    if let StoreError::Exists(_) | StoreError::LastAdmin = error {
        return ProblemResponse::new(StatusCode::CONFLICT, error.label(), error.to_string());
    }
    if error == StoreError::TooMuch {
        return ProblemResponse::bad_request(format!("step: {error}"));
    }
    tracing::error!(%error, "a request could not be answered");
    let (word, detail) = match error {
        StoreError::Busy => {
            ("store_busy", "the poller's database was too busy: ask again later, or for less")
        }
        _ => ("store_unavailable", "the poller's database did not answer; its log says why"),
    };
    ProblemResponse::new(StatusCode::SERVICE_UNAVAILABLE, word, detail)
}

/// 404.
pub(super) async fn no_such_path(OriginalUri(uri): OriginalUri) -> ProblemResponse {
    let path: String = uri.path().chars().take(200).collect();
    ProblemResponse::not_found("unknown_path", format!("there is nothing at {path:?}"))
}

/// 405.
pub(super) async fn no_such_method(
    method: Method,
    OriginalUri(uri): OriginalUri,
) -> ProblemResponse {
    let path: String = uri.path().chars().take(200).collect();
    ProblemResponse::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "unknown_method",
        format!("{path:?} does not take {method}; the Allow header says what it takes"),
    )
}

/// What the framework itself refuses (a body too large, a path that is no UTF-8) becomes a
/// problem like every other.
pub(super) async fn problems(request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let status = response.status();
    if !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let kind = response.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    let plain = kind.is_none_or(|kind| kind.starts_with(b"text/plain"));
    if !plain {
        return response;
    }
    let (parts, body) = response.into_parts();
    let text = axum::body::to_bytes(body, 4096).await.unwrap_or_default();
    let word = match status {
        StatusCode::NOT_FOUND => "unknown_path",
        StatusCode::METHOD_NOT_ALLOWED => "unknown_method",
        StatusCode::PAYLOAD_TOO_LARGE => "body_too_large",
        StatusCode::REQUEST_TIMEOUT => "too_slow",
        status if status.is_server_error() => "internal",
        _ => "bad_request",
    };
    let detail = match status {
        StatusCode::PAYLOAD_TOO_LARGE => {
            format!("body: is larger than {} KiB", super::MAX_REQUEST / 1024)
        }
        _ => String::from_utf8_lossy(&text).trim().to_owned(),
    };
    let mut problem = ProblemResponse::new(status, word, detail).into_response();
    for (name, value) in &parts.headers {
        if !matches!(*name, header::CONTENT_TYPE | header::CONTENT_LENGTH) {
            problem.headers_mut().append(name, value.clone());
        }
    }
    problem
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_that_took_too_long_and_one_that_failed_are_told_apart() {
        let told = |error| {
            let answer = store_failed(error);
            let problem = answer.problem();
            (problem.status, problem.kind.clone(), problem.detail.clone())
        };
        let (status, kind, detail) = told(StoreError::Busy);
        assert_eq!((status, &*kind), (503, "store_busy"));
        assert!(detail.contains("ask again later"), "{detail}");
        let (status, kind, detail) = told(StoreError::Failed("/a/path is locked".to_owned()));
        assert_eq!((status, &*kind), (503, "store_unavailable"));
        assert!(!detail.contains("/a/path"), "what SQLite said is not sent");
    }
}
