use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use service::problem::ProblemResponse;
use wire::{Slot, SlotId, SlotList};

use super::Reads;
use crate::app::App;

/// The program is alive.
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// PM2 answers.
pub(super) async fn readyz(State(app): State<Arc<App>>) -> Result<&'static str, ProblemResponse> {
    app.home.confirm(app.config.custom_metrics_max_age).await;
    let state = app.home.state();
    if state.up {
        return Ok("ok\n");
    }
    Err(ProblemResponse::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "pm2_unavailable",
        state.error.unwrap_or_default(),
    ))
}

pub(super) async fn show(_: Reads, State(app): State<Arc<App>>) -> Json<wire::State> {
    Json(app.state().await)
}

pub(super) async fn slots(_: Reads, State(app): State<Arc<App>>) -> Json<SlotList> {
    let processes = app.processes();
    Json(SlotList { slots: app.slots(&processes) })
}

pub(super) async fn slot(
    _: Reads,
    State(app): State<Arc<App>>,
    Path(slot): Path<String>,
) -> Result<Json<Slot>, ProblemResponse> {
    let unknown = |message: String| ProblemResponse::not_found("unknown_slot", message);
    let slot: SlotId = slot.parse().map_err(|error: wire::InvalidId| unknown(error.to_string()))?;
    let slots = app.slots(&app.processes());
    let names: Vec<&str> = slots.iter().map(|slot| slot.slot.as_str()).collect();
    let message = format!("there is no slot {slot:?}; there are: {}", names.join(", "));
    slots.into_iter().find(|known| known.slot == slot).map(Json).ok_or_else(|| unknown(message))
}
