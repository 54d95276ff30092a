//! Pages: the store's and the fleet's answers put into `dashboards`' view models.

mod act;
mod app;
mod assets;
mod audit;
mod charts;
mod commands;
mod events;
mod exporter;
mod fleet;
mod homes;
mod login;
mod logs;
mod server;
mod shared;
mod slot;
mod visitor;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, FromRequestParts, OriginalUri, Request, State};
use axum::http::{Method, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use dashboards::{AlertRow, CommandRow, Contact, EventRow, Server};
use wire::{AppName, ServerId, SmolStr, Time};

use crate::app::App;
use crate::fleet::Member;
use crate::http::error::no_such_path;
use crate::http::params::Params;
use crate::store::{StoreError, StoredCommand, StoredEvent};

/// Largest body of the login form.
const MAX_FORM: usize = 8 * 1024;
/// Latest events and commands shown on a page about something else.
const LATEST: usize = 10;
/// Rows of a page of events or commands.
const ROWS: usize = 100;

pub(super) fn routes(app: &Arc<App>) -> Router<Arc<App>> {
    let form = DefaultBodyLimit::max(MAX_FORM);
    Router::new()
        .route("/", get(fleet::show))
        .route("/servers/{server}", get(server::show))
        .route("/servers/{server}/apps/{app}", get(app::show))
        .route("/servers/{server}/apps/{app}/logs", get(logs::show))
        .route("/servers/{server}/apps/{app}/{action}", get(act::ask_app).post(act::act_app))
        .route("/servers/{server}/slots/{slot}", get(slot::show))
        .route("/servers/{server}/slots/{slot}/{action}", get(act::ask_slot).post(act::act_slot))
        .route("/events", get(events::show))
        .route("/events/{id}", get(events::one))
        .route("/audit", get(audit::show))
        .route("/commands", get(commands::show))
        .route("/commands/{id}", get(commands::one))
        .route("/commands/{id}/cancel", post(commands::cancel))
        .route_layer(from_fn_with_state((Arc::clone(app), Arc::default()), shared::share))
        .route("/login", get(login::show).post(login::sign_in).layer(form))
        .route("/login/first", get(login::first).post(login::make_first).layer(form))
        .route("/sessions", get(login::sessions))
        .route("/sessions/{id}/end", post(login::end).layer(form))
        .route("/logout", post(login::sign_out).layer(form))
        .route("/static/{name}", get(assets::show))
}

/// An address that there is nothing at: a page for who looks at pages, a problem for programs.
pub(super) async fn nowhere(
    State(app): State<Arc<App>>,
    uri: OriginalUri,
    request: Request,
) -> Response {
    let (mut parts, _) = request.into_parts();
    let accepted = parts.headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    let looks = parts.method == Method::GET && accepted.is_some_and(|it| it.contains("text/html"));
    if !looks {
        return no_such_path(uri).await.into_response();
    }
    match visitor::Visitor::from_request_parts(&mut parts, &app).await {
        Ok(visitor) => visitor.not_found("There is no page at this address."),
        Err(to_login) => to_login,
    }
}

/// What takes a look back to be known of servers.
#[derive(Default)]
struct Past {
    /// Crashes of the last minutes.
    crashes: BTreeMap<ServerId, BTreeMap<(AppName, Option<SmolStr>), u32>>,
    /// Alerts that are told now; without a server, those of the poller itself.
    alerts: BTreeMap<Option<ServerId>, Vec<AlertRow>>,
}

async fn look_back(app: &App, visitor: &visitor::Visitor) -> Result<Past, StoreError> {
    let since = Time::now().plus_millis(-Server::CRASH_WINDOW_MILLIS);
    let mut past = Past::default();
    for (server, app, home, count) in app.store.crashes(since).await? {
        if let (Ok(server), Ok(app)) = (server.parse(), app.parse()) {
            past.crashes.entry(server).or_default().insert((app, home.map(Into::into)), count);
        }
    }
    let holding = super::api::alerts::holding(app, &visitor.caller);
    for held in holding.alerts.into_iter().filter(|held| held.firing) {
        let (app, severity) = (held.key.app(), held.key.severity());
        let pm2_home = held.key.label("pm2_home").filter(|home| !home.is_empty()).map(Into::into);
        let (name, description) = (held.key.alert, held.active.description);
        let alert = AlertRow { name, severity, app, pm2_home, description };
        past.alerts.entry(held.server).or_default().push(alert);
    }
    Ok(past)
}

fn server(app: &App, member: &Member, past: &mut Past) -> Server {
    let id = &member.target.id;
    Server {
        id: id.clone(),
        group: member.target.group.clone(),
        tags: member.target.tags.clone(),
        url: member.target.url.clone(),
        contact: Contact {
            status: member.status(app.fleet.stale_after()),
            last_success: member.last_success,
            error: member.error(),
        },
        state: member.state.clone(),
        host_cpu: member.host_cpu,
        trend: member.trend.steps(Time::now()),
        crashes: past.crashes.remove(id).unwrap_or_default(),
        alerts: past.alerts.remove(&Some(id.clone())).unwrap_or_default(),
    }
}

fn event_row(stored: StoredEvent) -> EventRow {
    let StoredEvent { id, server, time, event } = stored;
    EventRow { id, server, time, event }
}

fn command_row(stored: StoredCommand) -> CommandRow {
    CommandRow { server: stored.server, record: stored.record }
}

/// The command that a visitor's button left, where the address names one that they may see.
async fn done(
    app: &App,
    visitor: &visitor::Visitor,
    params: &mut Params,
) -> Result<Option<CommandRow>, StoreError> {
    let id = params.text("done").ok().flatten().and_then(|text| text.parse().ok());
    let Some(id) = id else { return Ok(None) };
    let command = app.store.command(&id).await?;
    Ok(command.filter(|it| visitor.caller.may_see(&it.server)).map(command_row))
}
