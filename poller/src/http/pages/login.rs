use std::sync::Arc;

use axum::extract::rejection::FormRejection;
use axum::extract::{Form, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{AppendHeaders, IntoResponse, Redirect, Response};
use dashboards::{LoginPage, Viewer, local_path};
use serde::Deserialize;
use service::problem::ProblemResponse;

use super::visitor::{html, page};
use crate::access::session_cookie;
use crate::app::App;
use crate::http::params::Params;

pub(super) async fn show(
    State(app): State<Arc<App>>,
    mut params: Params,
    headers: HeaderMap,
) -> Result<Response, ProblemResponse> {
    let next = params.text("next")?.unwrap_or_default();
    let viewer = app.access.caller(&headers).await.map_or(Viewer::Nobody, |caller| caller.viewer());
    Ok(html(LoginPage { page: page(&headers, viewer), error: None, next }.render()))
}

#[derive(Deserialize)]
pub(super) struct Fields {
    token: String,
    #[serde(default)]
    next: String,
}

pub(super) async fn sign_in(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    fields: Result<Form<Fields>, FormRejection>,
) -> Response {
    let (status, error, next) = match fields {
        Err(rejection) => (rejection.status(), "The form could not be read.", String::new()),
        Ok(Form(Fields { token, next })) => match app.access.sign_in(&token).await {
            Ok(Some(cookie)) => {
                let cookie = AppendHeaders([(header::SET_COOKIE, session_cookie(&cookie))]);
                return (cookie, Redirect::to(local_path(&next))).into_response();
            }
            Ok(None) => {
                (StatusCode::UNAUTHORIZED, "This token is unknown, expired or revoked.", next)
            }
            Err(error) => {
                tracing::error!(%error, "no random numbers for a session");
                (StatusCode::INTERNAL_SERVER_ERROR, "No session could be begun.", next)
            }
        },
    };
    let page = page(&headers, Viewer::Nobody);
    let mut response = html(LoginPage { page, error: Some(error.to_owned()), next }.render());
    *response.status_mut() = status;
    response
}

pub(super) async fn sign_out(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    if !crate::access::same_origin(&headers) {
        let detail = "signing out works from this poller's own pages only";
        return ProblemResponse::forbidden(detail).into_response();
    }
    app.access.sign_out(&headers);
    let cookie = AppendHeaders([(header::SET_COOKIE, session_cookie(""))]);
    (cookie, Redirect::to("/login")).into_response()
}
