//! `/api`: JSON in and out.

mod apps;
mod audit;
mod commands;
pub(super) mod discovery;
mod events;
pub(super) mod health;
mod history;
mod me;
mod servers;
mod stream;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};
use service::problem::ProblemResponse;
use wire::{AppName, InvalidId, ServerId};

use crate::access::Caller;
use crate::app::App;
use crate::commands::unknown_server;
use crate::fleet::Member;

use super::error;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/me", get(me::show))
        .route("/servers", get(servers::list))
        .route("/servers/{server}", get(servers::show))
        .route("/servers/{server}/slots", get(servers::slots))
        .route("/servers/{server}/apps", get(apps::list))
        .route("/servers/{server}/apps/{app}", get(apps::show))
        .route("/servers/{server}/apps/{app}/metrics", get(history::show))
        .route("/events", get(events::list))
        .route("/events/stream", get(stream::follow))
        .route("/commands", get(commands::list))
        .route("/commands/{id}", get(commands::show))
        .route("/commands/{server}/apps/{app}/{action}", post(commands::to_app))
        .route("/commands/{server}/slots/{slot}/{action}", post(commands::to_slot))
        .route("/audit", get(audit::list))
        .fallback(error::no_such_path)
        .method_not_allowed_fallback(error::no_such_method)
}

/// The server of that id, if it exists for the caller.
fn member(app: &App, caller: &Caller, id: &str) -> Result<Member, ProblemResponse> {
    // What is no id at all is no server either.
    let id: ServerId = id.parse().map_err(|error: InvalidId| {
        ProblemResponse::not_found("unknown_server", error.to_string())
    })?;
    app.fleet.get(&id).filter(|_| caller.may_see(&id)).ok_or_else(|| unknown_server(&id))
}

fn app_name(text: &str) -> Result<AppName, ProblemResponse> {
    text.parse()
        .map_err(|error: InvalidId| ProblemResponse::not_found("unknown_app", error.to_string()))
}
