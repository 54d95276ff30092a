//! `/api/sessions`: who is signed in at the page; one's own, and for admins without limits all.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Serialize;
use service::problem::ProblemResponse;
use wire::Time;

use crate::access::{Caller, Denied};
use crate::app::App;
use crate::http::error::store_failed;
use crate::http::params::Params;
use crate::http::{Peer, Reader};
use crate::store::StoreError;

#[derive(Debug, Serialize)]
struct Shown {
    /// What it is called; opens nothing.
    id: String,
    /// Name of the token or user.
    name: String,
    begun_at: Time,
    last_used: Time,
    address: String,
    /// Whether this very request came with it.
    current: bool,
}

/// `GET /api/sessions`
#[derive(Debug, Serialize)]
pub(super) struct List {
    /// Newest first.
    sessions: Vec<Shown>,
}

pub(super) async fn list(
    Reader(caller): Reader,
    State(app): State<Arc<App>>,
    params: Params,
) -> Result<Json<List>, ProblemResponse> {
    params.end()?;
    if caller.token().is_none() {
        return Err(Denied::NoCredential.into());
    }
    let sessions = app.access.sessions(&caller).into_iter().map(|session| Shown {
        current: caller.session() == Some(session.id.as_str()),
        id: session.id,
        name: session.name,
        begun_at: session.begun_at,
        last_used: session.last_used,
        address: session.address.to_string(),
    });
    Ok(Json(List { sessions: sessions.collect() }))
}

pub(super) async fn end(
    Reader(caller): Reader,
    State(app): State<Arc<App>>,
    Peer(address): Peer,
    Path(id): Path<String>,
    params: Params,
) -> Result<StatusCode, ProblemResponse> {
    params.end()?;
    if caller.token().is_none() {
        return Err(Denied::NoCredential.into());
    }
    end_session(&app, &caller, address, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Ends a session that the caller may see, with a row in the audit first. Both are done, though whoever
/// asked goes away.
pub(in crate::http) async fn end_session(
    app: &Arc<App>,
    caller: &Caller,
    address: std::net::IpAddr,
    id: &str,
) -> Result<(), ProblemResponse> {
    let found = app.access.sessions(caller).into_iter().find(|session| session.id == id);
    let Some(session) = found else {
        let id: String = id.chars().take(64).collect();
        let detail = format!("no session is called {id:?}");
        return Err(ProblemResponse::not_found("unknown_session", detail));
    };
    let mut row = caller.audit(address, "session end", format!("session {id}"));
    row.detail = Some(format!("of {}, begun {}", session.name, session.begun_at));
    let (app, caller, id) = (Arc::clone(app), caller.clone(), session.id);
    let both = tokio::spawn(async move {
        app.store.record(row).await?;
        app.access.end_session(&caller, &id);
        Ok(())
    });
    both.await.unwrap_or(Err(StoreError::Closed)).map_err(store_failed)
}
