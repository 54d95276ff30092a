use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;
use service::problem::ProblemResponse;

use crate::app::App;
use crate::http::Reader;
use crate::http::error::store_failed;
use crate::http::filter;
use crate::http::params::Params;
use crate::store::StoredEvent;

const DEFAULT_LIMIT: usize = 100;

/// `GET /api/events`
#[derive(Debug, Serialize)]
pub(super) struct List {
    /// Newest first.
    events: Vec<StoredEvent>,
    /// What to pass as `cursor` for older ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
}

pub(super) async fn list(
    Reader(caller): Reader,
    State(app): State<Arc<App>>,
    mut params: Params,
) -> Result<Json<List>, ProblemResponse> {
    let mut wanted = filter::listed_events(&mut params, &caller)?;
    let limit = params.limit(DEFAULT_LIMIT)?;
    params.end()?;
    wanted.limit = limit;
    let events = app.store.list_events(&wanted).await.map_err(store_failed)?;
    let cursor = filter::older_events(&events);
    Ok(Json(List { events: events.rows, cursor }))
}

/// `GET /api/events/{id}`
pub(super) async fn show(
    Reader(caller): Reader,
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    params: Params,
) -> Result<Json<StoredEvent>, ProblemResponse> {
    params.end()?;
    let shown: String = id.chars().take(40).collect();
    let unknown = || {
        let detail = format!("no event has the number {shown:?}, or it is no longer kept");
        ProblemResponse::not_found("unknown_event", detail)
    };
    let id: i64 = id.parse().map_err(|_| unknown())?;
    let event = app.store.event(id).await.map_err(store_failed)?;
    event.filter(|it| caller.may_see(&it.server)).map(Json).ok_or_else(unknown)
}
