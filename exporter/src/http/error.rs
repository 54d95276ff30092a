//! Errors to answers: the one place.

use axum::http::{Method, StatusCode, Uri};
use service::problem::ProblemResponse;

use crate::commands::NotTaken;
use crate::pm2::NoHome;

pub(super) fn not_taken(error: NotTaken) -> ProblemResponse {
    let (status, kind) = match &error {
        NotTaken::Busy => (StatusCode::SERVICE_UNAVAILABLE, "busy"),
        NotTaken::Reused(_) => (StatusCode::UNPROCESSABLE_ENTITY, "id_reused"),
        NotTaken::Argument(_) => (StatusCode::BAD_REQUEST, "bad_request"),
        NotTaken::NoHome(error) => return no_home(error),
    };
    ProblemResponse::new(status, kind, error.to_string())
}

pub(super) fn no_home(error: &NoHome) -> ProblemResponse {
    let (status, kind) = match error {
        NoHome::UnknownApp(_) => (StatusCode::NOT_FOUND, "unknown_app"),
        NoHome::Several { .. } => (StatusCode::CONFLICT, "conflict"),
        NoHome::NotWatched { .. } => (StatusCode::BAD_REQUEST, "bad_request"),
        NoHome::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "pm2_unavailable"),
    };
    ProblemResponse::new(status, kind, error.to_string())
}

pub(super) async fn no_such_path(uri: Uri) -> ProblemResponse {
    let path: String = uri.path().chars().take(200).collect();
    ProblemResponse::not_found("unknown_path", format!("there is nothing at {path:?}"))
}

pub(super) async fn no_such_method(method: Method, uri: Uri) -> ProblemResponse {
    let path: String = uri.path().chars().take(200).collect();
    ProblemResponse::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "unknown_method",
        format!("{path:?} does not take {method}; see the Allow header"),
    )
}
