use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use dashboards::{ErrorPage, Page, Viewer};
use service::problem::ProblemResponse;
use wire::{Problem, Time};

use crate::access::Caller;
use crate::app::App;
use crate::http::error::store_failed;
use crate::http::headers::Refused;
use crate::store::StoreError;

/// What a page's script sends: the number of the event that it heard of last.
pub(super) const LIVE: &str = "x-live";

/// Somebody who may look at pages. Others are shown to the login.
pub(super) struct Visitor {
    pub(super) caller: Caller,
    pub(super) page: Page,
}

impl FromRequestParts<Arc<App>> for Visitor {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Response> {
        match app.access.caller(&parts.headers).await {
            Ok(caller) => {
                // It is put into a page that says already who looks, and others get it too.
                let live = parts.headers.contains_key(LIVE);
                let viewer = if live { caller.nameless() } else { caller.viewer() };
                let page = page(app, &parts.headers, viewer);
                Ok(Self { caller, page })
            }
            Err(denied) if parts.headers.contains_key(header::AUTHORIZATION) => {
                // A program, which a form would not help.
                Err(ProblemResponse::from(denied).into_response())
            }
            Err(_) => {
                let next = parts.uri.path_and_query().map_or("/", |it| it.as_str());
                let mut encoded = String::new();
                for byte in next.bytes() {
                    if byte.is_ascii_alphanumeric()
                        || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'/')
                    {
                        encoded.push(char::from(byte));
                    } else {
                        encoded.push_str(&format!("%{byte:02X}"));
                    }
                }
                let mut shown = Redirect::to(&format!("/login?next={encoded}")).into_response();
                shown.extensions_mut().insert(Refused);
                Err(shown)
            }
        }
    }
}

/// What every page needs.
pub(super) fn page(app: &App, headers: &HeaderMap, viewer: Viewer) -> Page {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).filter(|host| {
        host.bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b':' | b'-' | b'[' | b']'))
    });
    let scheme = if app.tls.is_some() { "https" } else { "http" };
    Page {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        now: Time::now(),
        base: format!("{scheme}://{}", host.unwrap_or("127.0.0.1:10210")),
        viewer,
    }
}

/// The page, or 500 when the template failed.
pub(super) fn html(rendered: Result<String, dashboards::Error>) -> Response {
    match rendered {
        Ok(html) => Html(html).into_response(),
        Err(error) => {
            tracing::error!(%error, "a page could not be made");
            let detail = "the page could not be made; the poller's log says why";
            ProblemResponse::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail)
                .into_response()
        }
    }
}

/// A page that says what went wrong.
pub(super) fn problem(page: Page, problem: Problem) -> Response {
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = html(ErrorPage { page, problem }.render());
    if response.status() == StatusCode::OK {
        *response.status_mut() = status;
    }
    response
}

impl Visitor {
    pub(super) fn not_found(self, detail: impl Into<String>) -> Response {
        let found = ErrorPage::not_found(self.page, detail);
        problem(found.page, found.problem)
    }

    pub(super) fn store_failed(self, error: StoreError) -> Response {
        problem(self.page, store_failed(error).problem().clone())
    }
}
