//! Bodies of requests, whole and within the limit.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use service::problem::ProblemResponse;

/// A whole body within the limit.
pub(super) struct Body(pub(super) Bytes);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = ProblemResponse;

    async fn from_request(request: Request, state: &S) -> Result<Self, ProblemResponse> {
        Bytes::from_request(request, state).await.map(Self).map_err(|rejection| {
            match rejection.status() {
                StatusCode::PAYLOAD_TOO_LARGE => ProblemResponse::new(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "too_large",
                    format!("body: is larger than {} KiB", super::MAX_REQUEST / 1024),
                ),
                _ => ProblemResponse::bad_request(format!("body: {}", rejection.body_text())),
            }
        })
    }
}
