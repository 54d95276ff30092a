//! `/api`: JSON in and out.

pub(super) mod alerts;
mod apps;
pub(super) mod audit;
mod commands;
pub(super) mod discovery;
mod events;
mod given;
pub(super) mod health;
mod history;
mod logs;
mod me;
mod openapi;
pub(super) mod pass;
pub(super) mod place;
mod registry;
mod selections;
mod servers;
pub(super) mod sessions;
mod slots;
mod stream;
mod tokens;
pub(super) mod users;

use std::sync::Arc;

use axum::Router;
use axum::routing::{delete, get, patch, post, put};
use service::problem::ProblemResponse;
use wire::{AppName, InvalidId, ServerId};

use crate::access::Caller;
use crate::app::App;
use crate::commands::unknown_server;
use crate::fleet::Member;

use super::error;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/openapi.json", get(openapi::json))
        .route("/docs", get(openapi::page))
        .route("/me", get(me::show))
        .route("/servers", get(servers::list).post(registry::add))
        .route(
            "/servers/{server}",
            get(servers::show).patch(registry::change).delete(registry::remove),
        )
        .route("/servers/{server}/slots", get(servers::slots))
        .route("/servers/{server}/slots/{slot}", get(slots::show))
        .route("/servers/{server}/slots/{slot}/deployments", get(slots::deployments))
        .route("/servers/{server}/slots/{slot}/deployments/{id}", get(slots::deployment))
        .route("/servers/{server}/slots/{slot}/deployments/{id}/log", get(slots::log))
        .route("/servers/{server}/apps", get(apps::list))
        .route("/servers/{server}/apps/{app}", get(apps::show))
        .route("/servers/{server}/apps/{app}/metrics", get(history::of_app))
        .route("/servers/{server}/metrics", get(history::of_host))
        .route("/servers/{server}/apps/{app}/logs", get(logs::show))
        .route("/alerts", get(alerts::list))
        .route("/events", get(events::list))
        .route("/events/stream", get(stream::follow))
        .route("/events/{id}", get(events::show))
        .route("/commands", get(commands::list).post(selections::begin))
        .route("/selections", get(selections::list))
        .route("/commands/{id}", get(commands::show).delete(commands::cancel))
        .route("/commands/{server}/apps/{app}/{action}", post(commands::to_app))
        .route("/commands/{server}/slots/{slot}/{action}", post(commands::to_slot))
        .route("/audit", get(audit::list))
        .route("/me/password", put(users::own_password))
        .route("/tokens", get(tokens::list).post(tokens::create))
        .route("/tokens/{name}", delete(tokens::revoke))
        .route("/users", get(users::list).post(users::create))
        .route("/users/{name}", patch(users::change).delete(users::remove))
        .route("/sessions", get(sessions::list))
        .route("/sessions/{id}", delete(sessions::end))
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

/// The id of a server that exists for the caller, or did: its history stays.
fn past_or_present(app: &App, caller: &Caller, id: &str) -> Result<ServerId, ProblemResponse> {
    let present = member(app, caller, id).map(|member| member.target.id.clone());
    present.or_else(|unknown| {
        let id: Result<ServerId, InvalidId> = id.parse();
        let former = id.ok().filter(|id| app.registry.was(id));
        former.filter(|id| caller.may_see(id)).ok_or(unknown)
    })
}

fn app_name(text: &str) -> Result<AppName, ProblemResponse> {
    text.parse()
        .map_err(|error: InvalidId| ProblemResponse::not_found("unknown_app", error.to_string()))
}
