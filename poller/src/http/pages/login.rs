//! Signing in and out, the first admin, and who is signed in.

use std::sync::Arc;

use axum::extract::rejection::FormRejection;
use axum::extract::{Form, Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{AppendHeaders, IntoResponse, Redirect, Response};
use dashboards::{FirstPage, LoginPage, SessionRow, SessionsPage, Viewer, local_path};
use serde::Deserialize;
use service::problem::ProblemResponse;

use super::act::Changer;
use super::visitor::{Visitor, html, page, problem};
use crate::access::{Limits, Role, SignIn, acceptable, session_cookie};
use crate::app::App;
use crate::http::api::sessions::end_session;
use crate::http::api::users::seconds;
use crate::http::params::Params;
use crate::http::{Encrypted, Peer};
use crate::store::{NewAudit, NewUser, StoreError};

pub(super) async fn show(
    State(app): State<Arc<App>>,
    mut params: Params,
    headers: HeaderMap,
) -> Result<Response, ProblemResponse> {
    let next = params.text("next")?.unwrap_or_default();
    let viewer = app.access.caller(&headers).await.map_or(Viewer::Nobody, |caller| caller.viewer());
    let page = page(&app, &headers, viewer);
    Ok(html(LoginPage { page, error: None, next, name: String::new() }.render()))
}

#[derive(Deserialize)]
pub(super) struct Fields {
    #[serde(default)]
    token: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    next: String,
}

pub(super) async fn sign_in(
    State(app): State<Arc<App>>,
    Peer(address): Peer,
    Encrypted(encrypted): Encrypted,
    headers: HeaderMap,
    fields: Result<Form<Fields>, FormRejection>,
) -> Response {
    let Form(fields) = match fields {
        Ok(fields) => fields,
        Err(rejection) => {
            let error = "The form could not be read.".to_owned();
            let page = page(&app, &headers, Viewer::Nobody);
            let again =
                LoginPage { page, error: Some(error), next: String::new(), name: String::new() };
            return refused(again, rejection.status());
        }
    };
    let Fields { token, name, password, next } = fields;
    let with_token = !token.is_empty();
    let done = match with_token {
        true => app.access.sign_in_with_token(&token, address).await,
        false => app.access.sign_in(&name, password, address).await,
    };
    let mut wait = None;
    let (status, error) = match done {
        SignIn::Done(cookie) => {
            let cookie = session_cookie(&cookie, encrypted);
            let cookie = AppendHeaders([(header::SET_COOKIE, cookie)]);
            return (cookie, Redirect::to(local_path(&next))).into_response();
        }
        SignIn::Wrong if with_token => {
            (StatusCode::UNAUTHORIZED, "This token is unknown, expired or revoked.")
        }
        SignIn::Wrong => (StatusCode::UNAUTHORIZED, "The name or the password is wrong."),
        SignIn::TooMany(time) => {
            wait = Some(time);
            let words = "Too many wrong tries from your address: try again in a minute.";
            (StatusCode::TOO_MANY_REQUESTS, words)
        }
        SignIn::Busy => (StatusCode::SERVICE_UNAVAILABLE, "Too many are signing in: try again."),
        SignIn::Failed => (StatusCode::INTERNAL_SERVER_ERROR, "No session could be begun."),
    };
    let page = page(&app, &headers, Viewer::Nobody);
    let again = LoginPage { page, error: Some(error.to_owned()), next, name };
    let mut response = refused(again, status);
    if let Some(wait) = wait {
        response.headers_mut().insert(header::RETRY_AFTER, seconds(wait));
    }
    response
}

fn refused(page: LoginPage, status: StatusCode) -> Response {
    let mut response = html(page.render());
    *response.status_mut() = status;
    response
}

pub(super) async fn sign_out(
    State(app): State<Arc<App>>,
    Peer(address): Peer,
    Encrypted(encrypted): Encrypted,
    headers: HeaderMap,
) -> Response {
    if !crate::access::same_origin(&headers) {
        let detail = "signing out works from this poller's own pages only";
        return ProblemResponse::forbidden(detail).into_response();
    }
    if let Some(session) = app.access.sign_out(&headers) {
        let row = NewAudit {
            who: session.name,
            via: Some("session"),
            address: address.to_string(),
            act: "sign out",
            outcome: "succeeded".to_owned(),
            subject: format!("session {}", session.id),
            ..NewAudit::default()
        };
        if let Err(error) = app.store.record(row).await {
            tracing::error!(%error, "a row of the audit could not be written");
        }
    }
    let cookie = AppendHeaders([(header::SET_COOKIE, session_cookie("", encrypted))]);
    (cookie, Redirect::to("/login")).into_response()
}

/// `GET /sessions`: who is signed in.
pub(super) async fn sessions(visitor: Visitor, State(app): State<Arc<App>>) -> Response {
    let current = visitor.caller.session();
    let rows = app.access.sessions(&visitor.caller).into_iter().map(|session| SessionRow {
        current: current == Some(session.id.as_str()),
        id: session.id,
        name: session.name,
        begun: session.begun_at,
        used: session.last_used,
        address: session.address.to_string(),
    });
    let sessions = rows.collect();
    html(SessionsPage { page: visitor.page, sessions }.render())
}

/// `POST /sessions/{id}/end`
pub(super) async fn end(
    Changer(visitor): Changer,
    State(app): State<Arc<App>>,
    Peer(address): Peer,
    Path(id): Path<String>,
) -> Response {
    match end_session(&app, &visitor.caller, address, &id).await {
        Ok(()) => Redirect::to("/sessions").into_response(),
        Err(refused) => problem(visitor.page, refused.problem().clone()),
    }
}

/// `GET /login/first`: what the link leads to.
pub(super) async fn first(
    State(app): State<Arc<App>>,
    mut params: Params,
    headers: HeaderMap,
) -> Result<Response, ProblemResponse> {
    let key = params.text("key")?.unwrap_or_default();
    let page = page(&app, &headers, Viewer::Nobody);
    if !app.access.is_first(&key) {
        return Ok(no_first(page));
    }
    Ok(html(FirstPage { page, key, name: String::new(), error: None }.render()))
}

fn no_first(page: dashboards::Page) -> Response {
    let detail = "This link is over: it is good once, and for half an hour. Restart the poller for \
                  another, or make a user by 'pm2-poller user add'.";
    problem(page, ProblemResponse::forbidden(detail).problem().clone())
}

#[derive(Deserialize)]
pub(super) struct FirstFields {
    key: String,
    name: String,
    password: String,
}

/// `POST /login/first`: makes the first admin.
pub(super) async fn make_first(
    State(app): State<Arc<App>>,
    Peer(address): Peer,
    headers: HeaderMap,
    fields: Result<Form<FirstFields>, FormRejection>,
) -> Response {
    let page = page(&app, &headers, Viewer::Nobody);
    let Ok(Form(FirstFields { key, name, password })) = fields else {
        return problem(
            page,
            ProblemResponse::bad_request("the form could not be read").problem().clone(),
        );
    };
    if !app.access.is_first(&key) {
        return no_first(page);
    }
    let wrong = match crate::config::word(&name) {
        Err(message) => Some(format!("name: {message}")),
        Ok(_) => acceptable(&name, &password).err().map(|wrong| format!("password: {wrong}")),
    };
    if let Some(error) = wrong {
        let mut again = html(FirstPage { page, key, name, error: Some(error) }.render());
        *again.status_mut() = StatusCode::BAD_REQUEST;
        return again;
    }
    let Ok(password) = app.access.hash(password).await else {
        let detail = "the password could not be hashed now: try again";
        let busy = ProblemResponse::new(StatusCode::SERVICE_UNAVAILABLE, "busy", detail);
        return problem(page, busy.problem().clone());
    };
    if !app.access.take_first(&key) {
        return no_first(page);
    }
    let row = NewAudit {
        who: name.clone(),
        via: Some("first link"),
        address: address.to_string(),
        act: "user create",
        outcome: "succeeded".to_owned(),
        subject: format!("user {name}"),
        detail: Some("admin, all servers, for ever".to_owned()),
        ..NewAudit::default()
    };
    let limits = Limits::default();
    let user = NewUser { name, role: Role::Admin, password, limits, expires_at: None };
    let made = app.store.create_user(user, row).await;
    let known = match made {
        Ok(()) => app.access.refresh().await,
        Err(error) => Err(error),
    };
    match known {
        Ok(()) => Redirect::to("/login").into_response(),
        Err(error) => failed(page, error),
    }
}

fn failed(page: dashboards::Page, error: StoreError) -> Response {
    problem(page, crate::http::error::store_failed(error).problem().clone())
}
