//! `/api/tokens`: made, listed, revoked by admins without limits.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use service::problem::ProblemResponse;
use service::token::{Issuer, Token};
use wire::{Action, ServerId, Time};

use super::given::{expiry, limits, name_of, role_of};
use crate::access::{Limits, described};
use crate::app::App;
use crate::http::error::store_failed;
use crate::http::params::Params;
use crate::http::{Admin, Peer};
use crate::store::{NewToken, StoredToken};

/// A token, without what opens anything.
#[derive(Debug, Serialize)]
struct Shown {
    name: String,
    role: &'static str,
    #[serde(flatten)]
    limits: Limits,
    created_at: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revoked_at: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_used: Option<Time>,
    /// Whether it opens anything now.
    valid: bool,
}

fn shown(app: &App, token: StoredToken) -> Shown {
    Shown {
        valid: token.is_valid(Time::now()),
        last_used: app.access.last_used(token.id).or(token.last_used),
        name: token.name,
        role: token.role.as_str(),
        limits: token.limits,
        created_at: token.created_at,
        expires_at: token.expires_at,
        revoked_at: token.revoked_at,
    }
}

/// `GET /api/tokens`
#[derive(Debug, Serialize)]
pub(super) struct List {
    tokens: Vec<Shown>,
}

pub(super) async fn list(
    _: Admin,
    State(app): State<Arc<App>>,
    mut params: Params,
) -> Result<Json<List>, ProblemResponse> {
    let all = params.truth("all")?.unwrap_or(false);
    params.end()?;
    let mut tokens = app.store.tokens().await.map_err(store_failed)?;
    let now = Time::now();
    tokens.retain(|token| all || token.is_valid(now));
    Ok(Json(List { tokens: tokens.into_iter().map(|token| shown(&app, token)).collect() }))
}

const EXPECTED: &str = "{\"name\":\"ci\",\"role\":\"operator\",\"servers\":[\"vm1\"],\"expires\":\"90d\"}; \
                        also groups, tags, actions";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    name: String,
    role: String,
    servers: Option<Vec<ServerId>>,
    groups: Option<Vec<String>>,
    tags: Option<Vec<String>>,
    actions: Option<BTreeSet<Action>>,
    expires: Option<String>,
}

/// The answer that shows a token, once.
#[derive(Serialize)]
struct Made {
    token: String,
    name: String,
    role: &'static str,
    #[serde(flatten)]
    limits: Limits,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Time>,
}

pub(super) async fn create(
    Admin(caller): Admin,
    State(app): State<Arc<App>>,
    Peer(address): Peer,
    params: Params,
    body: Bytes,
) -> Result<Response, ProblemResponse> {
    params.end()?;
    let wanted: Wanted = service::body::parse(&body, EXPECTED)?;
    let Wanted { name, role, servers, groups, tags, actions, expires } = wanted;
    let (name, role) = (name_of(&name)?, role_of(&role)?);
    let limits = limits(servers, groups, tags, actions)?;
    let expires_at = expires.as_deref().map(expiry).transpose()?;
    let token = Token::new(Issuer::Poller).map_err(|error| {
        tracing::error!(%error, "no random numbers");
        let detail = "no random numbers for a token";
        ProblemResponse::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail)
    })?;
    let mut row = caller.audit(address, "token create", format!("token {name}"));
    row.detail = Some(described(role, &limits, expires_at));
    let made = Made {
        token: token.reveal().to_owned(),
        name: name.clone(),
        role: role.as_str(),
        limits: limits.clone(),
        expires_at,
    };
    let new = NewToken { name, role, hash: token.hash(), limits, expires_at };
    app.store.create_token(new, row).await.map_err(store_failed)?;
    app.access.refresh().await.map_err(store_failed)?;
    Ok((StatusCode::CREATED, Json(made)).into_response())
}

pub(super) async fn revoke(
    Admin(caller): Admin,
    State(app): State<Arc<App>>,
    Peer(address): Peer,
    Path(name): Path<String>,
    params: Params,
) -> Result<StatusCode, ProblemResponse> {
    params.end()?;
    let shown: String = name.chars().take(64).collect();
    let row = caller.audit(address, "token revoke", format!("token {}", shown.escape_debug()));
    let revoked = app.store.revoke_token(name, row, false).await.map_err(store_failed)?;
    app.access.refresh().await.map_err(store_failed)?;
    if !revoked {
        let detail = format!("no token in use is called {shown:?}");
        return Err(ProblemResponse::not_found("unknown_token", detail));
    }
    Ok(StatusCode::NO_CONTENT)
}
