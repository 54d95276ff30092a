use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use service::problem::ProblemResponse;

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
