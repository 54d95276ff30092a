use std::sync::Arc;

use axum::Json;
use axum::extract::State;
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
    let mut wanted = filter::events(&mut params, &caller)?;
    let limit = params.limit(DEFAULT_LIMIT)?;
    params.end()?;
    wanted.limit = limit + 1;
    let mut events = app.store.events(&wanted).await.map_err(store_failed)?;
    let cursor = filter::older_events(&mut events, limit);
    Ok(Json(List { events, cursor }))
}
