use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use service::problem::ProblemResponse;

use super::Reads;
use super::query::NoParameters;
use crate::app::App;

/// The program is alive.
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// PM2 answers: one of them, where there are several, and those that do not are told.
pub(super) async fn readyz(State(app): State<Arc<App>>) -> Result<String, ProblemResponse> {
    app.confirm().await;
    let states = app.homes.states();
    let away: Vec<String> = states
        .iter()
        .filter(|state| !state.up)
        .map(|state| {
            let error = state.error.as_deref().unwrap_or_default();
            if states.len() > 1 { format!("{}: {error}", state.home) } else { error.to_owned() }
        })
        .collect();
    if away.len() < states.len() {
        return Ok(away.iter().fold("ok\n".to_owned(), |text, away| text + away + "\n"));
    }
    let (status, words) = (StatusCode::SERVICE_UNAVAILABLE, away.join("; "));
    Err(ProblemResponse::new(status, "pm2_unavailable", words))
}

pub(super) async fn show(
    Reads(who): Reads,
    _: NoParameters,
    State(app): State<Arc<App>>,
) -> Json<wire::State> {
    let mut state = app.state().await;
    who.limit(&mut state);
    Json(state)
}
