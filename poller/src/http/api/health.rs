use std::sync::Arc;

use axum::extract::State;
use service::problem::ProblemResponse;

use crate::app::App;
use crate::http::error::store_failed;

/// The program runs.
pub(crate) async fn healthz() -> &'static str {
    "ok\n"
}

/// The program can do its work: its database answers and it is not stopping.
pub(crate) async fn readyz(State(app): State<Arc<App>>) -> Result<&'static str, ProblemResponse> {
    if app.shutdown.drain.is_cancelled() {
        return Err(ProblemResponse::new(
            axum::http::StatusCode::SERVICE_UNAVAILABLE,
            "stopping",
            "the poller is stopping",
        ));
    }
    app.store.ping().await.map_err(store_failed)?;
    Ok("ok\n")
}
