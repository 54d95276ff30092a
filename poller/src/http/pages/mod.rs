//! Pages: the store's and the fleet's answers put into `dashboards`' view models.

mod app;
mod assets;
mod commands;
mod events;
mod fleet;
mod login;
mod server;
mod visitor;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use dashboards::{CommandRow, Contact, EventRow, Server};
use wire::{AppName, ServerId, Time};

use crate::app::App;
use crate::fleet::Member;
use crate::store::{StoreError, StoredCommand, StoredEvent};

/// Largest body of the login form.
const MAX_FORM: usize = 8 * 1024;
/// Latest events and commands shown on a page about something else.
const LATEST: usize = 10;
/// Rows of a page of events or commands.
const ROWS: usize = 100;

pub(super) fn routes() -> Router<Arc<App>> {
    let form = DefaultBodyLimit::max(MAX_FORM);
    Router::new()
        .route("/", get(fleet::show))
        .route("/servers/{server}", get(server::show))
        .route("/servers/{server}/apps/{app}", get(app::show))
        .route("/events", get(events::show))
        .route("/commands", get(commands::show))
        .route("/login", get(login::show).post(login::sign_in).layer(form))
        .route("/logout", post(login::sign_out).layer(form))
        .route("/static/{name}", get(assets::show))
}

/// Crashes of the last minutes, by server and app.
type Crashes = BTreeMap<ServerId, BTreeMap<AppName, u32>>;

async fn crashes(app: &App) -> Result<Crashes, StoreError> {
    let since = Time::now().plus_millis(-Server::CRASH_WINDOW_MILLIS);
    let mut all = Crashes::new();
    for (server, app, count) in app.store.crashes(since).await? {
        if let (Ok(server), Ok(app)) = (server.parse(), app.parse()) {
            all.entry(server).or_default().insert(app, count);
        }
    }
    Ok(all)
}

fn server(app: &App, member: &Member, crashes: &mut Crashes) -> Server {
    Server {
        id: member.target.id.clone(),
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
        crashes: crashes.remove(&member.target.id).unwrap_or_default(),
    }
}

fn event_row(stored: StoredEvent) -> EventRow {
    let StoredEvent { id, server, time, event } = stored;
    EventRow { id, server, time, event }
}

fn command_row(stored: StoredCommand) -> CommandRow {
    CommandRow { server: stored.server, record: stored.record }
}
