//! `/api/users`: made, changed, removed by admins without limits. `PUT /api/me/password` is for
//! everybody with a password.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use service::problem::ProblemResponse;
use wire::{Action, ServerId, Time};

use super::given::{Maybe, checked, expiry, limits, maybe, name_of, once, role_of};
use crate::access::{Limits, SignIn, acceptable, described, until};
use crate::app::App;
use crate::http::error::store_failed;
use crate::http::params::Params;
use crate::http::{Admin, Peer, Reader};
use crate::store::{NewUser, StoreError, StoredUser, UserChange};

/// How often a change is tried that others come in between of.
const CHANGE_TRIES: u32 = 20;

#[derive(Debug, Serialize)]
pub(super) struct Shown {
    name: String,
    role: &'static str,
    #[serde(flatten)]
    limits: Limits,
    created_at: Time,
    password_at: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_used: Option<Time>,
}

fn shown(app: &App, user: StoredUser) -> Shown {
    Shown {
        last_used: app.access.last_used(-user.id).or(user.last_used),
        name: user.name,
        role: user.role.as_str(),
        limits: user.limits,
        created_at: user.created_at,
        password_at: user.password_at,
        expires_at: user.expires_at,
    }
}

/// `GET /api/users`
#[derive(Debug, Serialize)]
pub(super) struct List {
    users: Vec<Shown>,
}

pub(super) async fn list(
    _: Admin,
    State(app): State<Arc<App>>,
    params: Params,
) -> Result<Json<List>, ProblemResponse> {
    params.end()?;
    let users = app.store.users().await.map_err(store_failed)?;
    Ok(Json(List { users: users.into_iter().map(|user| shown(&app, user)).collect() }))
}

async fn one(app: &App, name: &str) -> Result<Shown, ProblemResponse> {
    let mut users = app.store.users().await.map_err(store_failed)?.into_iter();
    let user = users.find(|user| user.name == name).ok_or_else(|| unknown(name))?;
    Ok(shown(app, user))
}

fn unknown(name: &str) -> ProblemResponse {
    let name: String = name.chars().take(64).collect();
    ProblemResponse::not_found("unknown_user", format!("no user is called {name:?}"))
}

const NEW: &str = "{\"name\":\"alice\",\"role\":\"operator\",\"password\":\"…\"}; \
                   also servers, groups, tags, actions, expires";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    name: String,
    role: String,
    password: String,
    servers: Option<Vec<ServerId>>,
    groups: Option<Vec<String>>,
    tags: Option<Vec<String>>,
    actions: Option<BTreeSet<Action>>,
    expires: Option<String>,
}

pub(super) async fn create(
    Admin(caller): Admin,
    State(app): State<Arc<App>>,
    Peer(address): Peer,
    params: Params,
    body: Bytes,
) -> Result<Response, ProblemResponse> {
    params.end()?;
    let wanted: Wanted = service::body::parse(&body, NEW)?;
    let Wanted { name, role, password, servers, groups, tags, actions, expires } = wanted;
    let (name, role) = (name_of(&name)?, role_of(&role)?);
    let limits = limits(servers, groups, tags, actions)?;
    let expires_at = expires.as_deref().map(expiry).transpose()?;
    let password = hashed(&app, &name, "password", password).await?;
    let mut row = caller.audit(address, "user create", format!("user {name}"));
    row.detail = Some(described(role, &limits, expires_at));
    let new = NewUser { name: name.clone(), role, password, limits, expires_at };
    app.store.create_user(new, row).await.map_err(store_failed)?;
    app.access.refresh().await.map_err(store_failed)?;
    Ok((StatusCode::CREATED, Json(one(&app, &name).await?)).into_response())
}

/// The hash of a new password, which the body has in `field`.
async fn hashed(
    app: &App,
    name: &str,
    field: &str,
    password: String,
) -> Result<String, ProblemResponse> {
    acceptable(name, &password)
        .map_err(|wrong| ProblemResponse::bad_request(format!("{field}: {wrong}")))?;
    app.access.hash(password).await.map_err(not_now)
}

/// A password that was not looked at, or not hashed.
fn not_now(how: SignIn) -> ProblemResponse {
    match how {
        SignIn::TooMany(_) => {
            let detail = "too many wrong passwords from this address: try again later";
            ProblemResponse::new(StatusCode::TOO_MANY_REQUESTS, "too_many", detail)
        }
        SignIn::Busy => {
            let detail = "too many passwords are being looked at: try again";
            ProblemResponse::new(StatusCode::SERVICE_UNAVAILABLE, "busy", detail)
        }
        _ => {
            let detail = "no random numbers for a password";
            ProblemResponse::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail)
        }
    }
}

const CHANGE: &str = "any of {\"role\":\"viewer\",\"password\":\"…\",\"expires\":\"90d\",\"servers\":[\"vm1\"],\
                      \"groups\":[],\"tags\":[],\"actions\":[]}; null takes a limit or the expiry away";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    role: Option<String>,
    password: Option<String>,
    #[serde(default, deserialize_with = "maybe")]
    servers: Maybe<Vec<ServerId>>,
    #[serde(default, deserialize_with = "maybe")]
    groups: Maybe<Vec<String>>,
    #[serde(default, deserialize_with = "maybe")]
    tags: Maybe<Vec<String>>,
    #[serde(default, deserialize_with = "maybe")]
    actions: Maybe<BTreeSet<Action>>,
    #[serde(default, deserialize_with = "maybe")]
    expires: Maybe<String>,
}

pub(super) async fn change(
    Admin(caller): Admin,
    State(app): State<Arc<App>>,
    Peer(address): Peer,
    Path(name): Path<String>,
    params: Params,
    body: Bytes,
) -> Result<Json<Shown>, ProblemResponse> {
    params.end()?;
    let wanted: Change = service::body::parse(&body, CHANGE)?;
    let Change { role, password, servers, groups, tags, actions, expires } = wanted;
    let role = role.as_deref().map(role_of).transpose()?;
    let expires_at = match expires {
        None => None,
        Some(None) => Some(None),
        Some(Some(text)) => Some(Some(expiry(&text)?)),
    };
    let servers = servers.map(|servers| once("servers", servers)).transpose()?;
    let groups = groups.map(|groups| once("groups", groups)).transpose()?;
    let tags = tags.map(|tags| once("tags", tags)).transpose()?;
    let changed = |before: &Limits| {
        let Limits { servers: s, groups: g, tags: t, actions: a } = before.clone();
        checked(Limits {
            servers: servers.clone().unwrap_or(s),
            groups: groups.clone().unwrap_or(g),
            tags: tags.clone().unwrap_or(t),
            actions: actions.clone().unwrap_or(a),
        })
    };
    changed(&one(&app, &name).await?.limits)?;
    let password = match password {
        None => None,
        Some(password) => Some(hashed(&app, &name, "password", password).await?),
    };
    // Another change may come between: this one then starts from what that left.
    for turn in 1.. {
        let before = one(&app, &name).await?.limits;
        let limits = changed(&before)?;
        let limits = (limits != before).then_some((before, limits));
        let mut words: Vec<String> = role.iter().map(ToString::to_string).collect();
        words.extend(limits.iter().map(|(_, limits)| limits.words()));
        words.extend(expires_at.map(until));
        words.extend(password.iter().map(|_| "a new password".to_owned()));
        let mut row = caller.audit(address, "user change", format!("user {name}"));
        row.detail = Some(words.join(", "));
        let change = UserChange { role, password: password.clone(), limits, expires_at };
        match app.store.change_user(name.clone(), change, row, false).await {
            Ok(true) => break,
            Ok(false) => return Err(unknown(&name)),
            Err(StoreError::Moved) if turn < CHANGE_TRIES => {}
            Err(error) => return Err(store_failed(error)),
        }
    }
    app.access.refresh().await.map_err(store_failed)?;
    Ok(Json(one(&app, &name).await?))
}

pub(super) async fn remove(
    Admin(caller): Admin,
    State(app): State<Arc<App>>,
    Peer(address): Peer,
    Path(name): Path<String>,
    params: Params,
) -> Result<StatusCode, ProblemResponse> {
    params.end()?;
    let shown: String = name.chars().take(64).collect();
    let row = caller.audit(address, "user remove", format!("user {}", shown.escape_debug()));
    let removed = app.store.remove_user(name.clone(), row, false).await.map_err(store_failed)?;
    app.access.refresh().await.map_err(store_failed)?;
    if removed { Ok(StatusCode::NO_CONTENT) } else { Err(unknown(&name)) }
}

const PASSWORDS: &str = "{\"old\":\"…\",\"new\":\"…\"}";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Passwords {
    old: String,
    new: String,
}

/// `PUT /api/me/password`: one's own, with the old one. Ends all of one's sessions.
pub(super) async fn own_password(
    Reader(caller): Reader,
    State(app): State<Arc<App>>,
    Peer(address): Peer,
    params: Params,
    body: Bytes,
) -> Result<Response, ProblemResponse> {
    params.end()?;
    if caller.user().is_none() {
        let detail = "this is for users who signed in with their password";
        return Err(ProblemResponse::forbidden(detail));
    }
    let Passwords { old, new } = service::body::parse(&body, PASSWORDS)?;
    let name = caller.name().to_owned();
    match app.access.is_password(&name, old, address).await {
        Ok(true) => {}
        Ok(false) => return Err(ProblemResponse::forbidden("old: is not your password")),
        Err(SignIn::TooMany(wait)) => {
            let mut response = not_now(SignIn::TooMany(wait)).into_response();
            response.headers_mut().insert(header::RETRY_AFTER, seconds(wait));
            return Ok(response);
        }
        Err(how) => return Err(not_now(how)),
    }
    let password = Some(hashed(&app, &name, "new", new).await?);
    let row = caller.audit(address, "user password", format!("user {name}"));
    let change = UserChange { password, ..UserChange::default() };
    let done = app.store.change_user(name.clone(), change, row, false).await;
    if !done.map_err(store_failed)? {
        return Err(unknown(&name));
    }
    app.access.refresh().await.map_err(store_failed)?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// For `Retry-After`.
pub(in crate::http) fn seconds(wait: std::time::Duration) -> HeaderValue {
    HeaderValue::from(wait.as_secs() + 1)
}
