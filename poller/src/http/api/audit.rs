use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use service::problem::ProblemResponse;
use wire::{ServerId, Time};

use crate::app::App;
use crate::http::Admin;
use crate::http::error::store_failed;
use crate::http::params::Params;
use crate::store::{AuditFilter, AuditRow};

/// `GET /api/audit`
#[derive(Debug, Serialize)]
pub(super) struct List {
    /// Newest first.
    audit: Vec<AuditRow>,
    /// What to pass as `cursor` for older ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
}

pub(super) async fn list(
    _: Admin,
    State(app): State<Arc<App>>,
    mut params: Params,
) -> Result<Json<List>, ProblemResponse> {
    let server: Option<ServerId> = params.name("server")?;
    let who = params.text("who")?;
    let since = params.time("since", Time::now())?;
    let before = params.cursor(|text| text.parse().ok())?;
    let limit = params.limit(100)?;
    params.end()?;
    let server = server.map(|server| server.to_string());
    let filter = AuditFilter { server, who, since, before, limit: limit + 1 };
    let mut audit = app.store.audit(&filter).await.map_err(store_failed)?;
    let more = audit.len() > limit;
    audit.truncate(limit);
    let cursor = audit.last().filter(|_| more).map(|row| row.id.to_string());
    Ok(Json(List { audit, cursor }))
}
