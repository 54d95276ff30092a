//! Error answers, the same in both programs.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use wire::Problem;

/// An error answer on its way out.
#[derive(Clone, Debug)]
pub struct ProblemResponse {
    problem: Box<Problem>,
    on_record: bool,
    location: Option<HeaderValue>,
}

/// An extension of answers: the refusal is on record, and needs no further row.
#[derive(Clone, Copy, Debug)]
pub struct OnRecord;

impl ProblemResponse {
    /// `kind` is the word that programs branch on; the title is the status' own reason.
    pub fn new(status: StatusCode, kind: &str, detail: impl Into<String>) -> Self {
        let problem = Problem {
            kind: kind.to_owned(),
            status: status.as_u16(),
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            detail: detail.into(),
        };
        Self { problem: Box::new(problem), on_record: false, location: None }
    }

    /// The same, with where to look instead: `Location`.
    #[must_use]
    pub fn at(self, location: String) -> Self {
        Self { location: HeaderValue::try_from(location).ok(), ..self }
    }

    /// The same, of something that was put on record.
    #[must_use]
    pub fn on_record(self) -> Self {
        Self { on_record: true, ..self }
    }

    /// Whether it is on record.
    pub fn is_on_record(&self) -> bool {
        self.on_record
    }

    /// 400: a parameter or body is not what it should be.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", detail)
    }

    /// 401: who are you?
    pub fn unauthorized(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
    }

    /// 403: not you.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", detail)
    }

    /// 404: `kind` says of what: `unknown_app`.
    pub fn not_found(kind: &str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, kind, detail)
    }

    /// The shape itself.
    pub fn problem(&self) -> &Problem {
        &self.problem
    }
}

impl IntoResponse for ProblemResponse {
    fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(&*self.problem)).into_response();
        if self.on_record {
            response.extensions_mut().insert(OnRecord);
        }
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(location) = self.location {
            headers.insert(header::LOCATION, location);
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
