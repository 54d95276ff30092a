//! Servers added, changed and taken away. For admins; each with a line in the audit that is on
//! the disk before anything follows from it. A token for an exporter goes into a file
//! (`registry/tokens.rs`) and comes out of no answer.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use service::body::parse;
use service::problem::ProblemResponse;
use service::token::Token;
use wire::{InvalidId, ServerId};

use super::given::{Maybe, maybe};
use super::servers::Whole;
use crate::access::{Caller, Role};
use crate::app::App;
use crate::commands::unknown_server;
use crate::config::exporter_url;
use crate::http::error::store_failed;
use crate::http::params::Params;
use crate::http::{Peer, Reader};
use crate::registry::{self, Origin, Registered, Wrong};
use crate::store::{NewAudit, StoreError, StoredServer};

/// What the poller's token may do at an exporter, unless it is told otherwise there.
const SCOPES: [&str; 3] = ["read", "control", "deploy"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct New {
    id: String,
    url: String,
    #[serde(default)]
    group: String,
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default)]
    note: String,
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    make_token: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    url: Option<String>,
    #[serde(default, deserialize_with = "maybe")]
    group: Maybe<String>,
    #[serde(default, deserialize_with = "maybe")]
    tags: Maybe<Vec<String>>,
    #[serde(default, deserialize_with = "maybe")]
    note: Maybe<String>,
    #[serde(default, deserialize_with = "maybe")]
    token: Maybe<String>,
    #[serde(default)]
    make_token: bool,
}

/// A server as it is after a change.
#[derive(Serialize)]
struct Changed {
    #[serde(flatten)]
    server: Whole,
    /// For the exporter's configuration, where a token was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    exporter_tokens: Option<String>,
}

fn of(name: &'static str) -> impl Fn(Wrong) -> ProblemResponse {
    move |message| ProblemResponse::bad_request(format!("{name}: {message}"))
}

/// What a change is put on record as.
struct Act<'a> {
    app: &'a App,
    row: NewAudit,
}

impl<'a> Act<'a> {
    /// Only admins may; that others tried is on record.
    async fn begin(
        app: &'a App,
        caller: &'a Caller,
        Peer(address): Peer,
        act: &'static str,
        server: &str,
    ) -> Result<Self, ProblemResponse> {
        let server: String = server.chars().take(128).collect();
        let row = NewAudit {
            who: caller.name().to_owned(),
            via: caller.via(),
            address: address.to_string(),
            act,
            outcome: "succeeded".to_owned(),
            subject: format!("server {server}"),
            server: Some(server),
            ..NewAudit::default()
        };
        let this = Self { app, row };
        if let Err(problem) = caller.require_unlimited_admin() {
            this.refused(&problem, address).await;
            return Err(problem.on_record());
        }
        Ok(this)
    }

    async fn refused(&self, problem: &ProblemResponse, address: IpAddr) {
        if !self.app.access.refusal_has_row(address) {
            return;
        }
        let detail = Some(problem.problem().detail.clone());
        let row = NewAudit { outcome: "refused".to_owned(), detail, ..self.row.clone() };
        if let Err(error) = self.app.store.record(row).await {
            tracing::error!(%error, "a refusal could not be put on record");
        }
    }

    fn row(&self, detail: String) -> NewAudit {
        NewAudit { detail: Some(detail), ..self.row.clone() }
    }
}

/// A token that was given or is to be made, as its file; with what the exporter needs of a new
/// one.
fn token(
    app: &App,
    id: &ServerId,
    given: Option<&str>,
    make: bool,
) -> Result<(Option<PathBuf>, Option<String>), ProblemResponse> {
    let made: Token;
    let (text, block) = match (given, make) {
        (Some(_), true) => {
            let detail = "make_token: is true, and a token is given as well";
            return Err(ProblemResponse::bad_request(detail));
        }
        (Some(text), false) => (text, None),
        (None, false) => return Ok((None, None)),
        (None, true) => {
            made = registry::make().map_err(|error| {
                tracing::error!(%error, "no random numbers");
                ProblemResponse::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "no_token",
                    "no random numbers",
                )
            })?;
            (made.reveal(), Some(registry::block(&made, &SCOPES)))
        }
    };
    match registry::keep(&app.registry.token_dir(), id, text) {
        Ok(file) => Ok((Some(file), block)),
        Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => {
            Err(ProblemResponse::bad_request(format!("token: {error}")))
        }
        Err(error) => {
            tracing::error!(%error, "a token could not be written into token_dir");
            Err(ProblemResponse::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "no_token",
                "the token could not be written to a file; the poller's log says why",
            ))
        }
    }
}

fn conflict(detail: String) -> ProblemResponse {
    ProblemResponse::new(StatusCode::CONFLICT, "conflict", detail)
}

/// `POST /api/servers`
pub(super) async fn add(
    Reader(caller): Reader,
    State(app): State<Arc<App>>,
    peer: Peer,
    params: Params,
    body: Bytes,
) -> Result<Response, ProblemResponse> {
    caller_is_somebody(&caller)?;
    params.end()?;
    let new: New = parse(&body, "{\"id\":\"vm1\",\"url\":\"http://HOST:PORT\"}")?;
    let act = Act::begin(&app, &caller, peer, "server add", &new.id).await?;
    let id = registry::checked_id(&new.id).map_err(of("id"))?;
    let mut server = StoredServer {
        url: exporter_url(&new.url).map_err(of("url"))?,
        group: registry::group(&new.group).map_err(of("group"))?,
        tags: registry::tags(new.tags.iter().map(String::as_str)).map_err(of("tags"))?,
        note: registry::note(&new.note).map_err(of("note"))?,
        token_file: None,
        id: id.clone(),
    };
    if app.registry.get(&id).await.is_some() {
        return Err(conflict(format!("a server with the id {:?} is there already", id.as_str())));
    }
    let (file, block) = token(&app, &id, new.token.as_deref(), new.make_token)?;
    server.token_file.clone_from(&file);
    let row =
        act.row(format!("{}{}", server.url, if file.is_some() { ", with a token" } else { "" }));
    if let Err(error) = app.store.add_server(server, row).await {
        forget(&app, file);
        return Err(match error {
            StoreError::Exists(message) => conflict(message),
            error => store_failed(error),
        });
    }
    let mut response = answer(&app, &id, block).await?;
    *response.status_mut() = StatusCode::CREATED;
    if let Ok(location) = HeaderValue::from_str(&format!("/api/servers/{id}")) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// `PATCH /api/servers/{id}`
pub(super) async fn change(
    Reader(caller): Reader,
    State(app): State<Arc<App>>,
    peer: Peer,
    Path(id): Path<String>,
    params: Params,
    body: Bytes,
) -> Result<Response, ProblemResponse> {
    caller_is_somebody(&caller)?;
    params.end()?;
    let act = Act::begin(&app, &caller, peer, "server change", &id).await?;
    let (id, before) = added(&app, &caller, &id).await?;
    let change: Change = parse(&body, "{\"group\":\"eu\"}, of url, group, tags, note, token")?;
    let mut after = before.clone();
    let mut changed = Vec::new();
    if let Some(url) = &change.url {
        after.url = exporter_url(url).map_err(of("url"))?;
        changed.push(format!("url {}", after.url));
    }
    if let Some(text) = &change.group {
        after.group = registry::group(text.as_deref().unwrap_or_default()).map_err(of("group"))?;
        changed.push(format!("group {:?}, before {:?}", after.group, before.group));
    }
    if let Some(tags) = &change.tags {
        let tags = tags.iter().flatten().map(String::as_str);
        after.tags = registry::tags(tags).map_err(of("tags"))?;
        changed.push(format!("tags {:?}, before {:?}", after.tags, before.tags));
    }
    if let Some(text) = &change.note {
        after.note = registry::note(text.as_deref().unwrap_or_default()).map_err(of("note"))?;
        changed.push("note".to_owned());
    }
    let gives_token = change.token.is_some() || change.make_token;
    // A token that nobody can read back could otherwise be sent to whoever listens there.
    if before.token_file.is_some() && !gives_token && !registry::same_place(&before.url, &after.url)
    {
        return Err(ProblemResponse::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "token_needed",
            "url: names another exporter, which is not shown the token of the old one: give \
             token (null for none) or make_token as well",
        ));
    }
    let (file, block) = token(&app, &id, change.token.flatten().as_deref(), change.make_token)?;
    if gives_token {
        after.token_file.clone_from(&file);
        changed.push(if file.is_some() { "token" } else { "token taken away" }.to_owned());
    }
    let row = act.row(changed.join(", "));
    let replaced = (gives_token).then(|| before.token_file.clone()).flatten();
    match app.store.change_server(before, after, row).await {
        Ok(true) => forget(&app, replaced),
        Ok(false) => {
            forget(&app, file);
            return Err(conflict(format!("{id} was changed meanwhile: look at it again")));
        }
        Err(error) => {
            forget(&app, file);
            return Err(store_failed(error));
        }
    }
    answer(&app, &id, block).await
}

/// `DELETE /api/servers/{id}`
pub(super) async fn remove(
    Reader(caller): Reader,
    State(app): State<Arc<App>>,
    peer: Peer,
    Path(id): Path<String>,
    params: Params,
) -> Result<StatusCode, ProblemResponse> {
    caller_is_somebody(&caller)?;
    params.end()?;
    let act = Act::begin(&app, &caller, peer, "server remove", &id).await?;
    let (id, before) = added(&app, &caller, &id).await?;
    let removed = app.store.remove_server(id.clone(), act.row(before.url)).await;
    let Some(removed) = removed.map_err(store_failed)? else { return Err(unknown_server(&id)) };
    forget(&app, removed.token_file);
    app.registry.look(false).await;
    Ok(StatusCode::NO_CONTENT)
}

fn caller_is_somebody(caller: &Caller) -> Result<(), ProblemResponse> {
    if caller.token().is_some() { Ok(()) } else { caller.require(Role::Admin) }
}

/// A server that was added, and so can be changed here.
async fn added(
    app: &App,
    caller: &Caller,
    id: &str,
) -> Result<(ServerId, StoredServer), ProblemResponse> {
    let id: ServerId = id.parse().map_err(|error: InvalidId| {
        ProblemResponse::not_found("unknown_server", error.to_string())
    })?;
    let registered = app.registry.get(&id).await.filter(|_| caller.may_see(&id));
    let Some(Registered { about, .. }) = registered else { return Err(unknown_server(&id)) };
    let place = match about.origin {
        Origin::Database => {
            let stored = app.store.servers().await.map_err(store_failed)?;
            let server = stored.into_iter().find(|server| server.id == id);
            return server.map(|it| (id.clone(), it)).ok_or_else(|| unknown_server(&id));
        }
        Origin::Configuration => "the configuration",
        Origin::File => "a file of server_files",
    };
    Err(conflict(format!("{id} is written down in {place}: change it there")))
}

fn forget(app: &App, file: Option<PathBuf>) {
    if let Some(file) = file {
        registry::forget(&app.registry.token_dir(), &file);
    }
}

async fn answer(
    app: &App,
    id: &ServerId,
    exporter_tokens: Option<String>,
) -> Result<Response, ProblemResponse> {
    app.registry.look(false).await;
    let member = app.fleet.get(id).ok_or_else(|| unknown_server(id))?;
    let server = Whole::new(&member, app.fleet.stale_after());
    Ok(Json(Changed { server, exporter_tokens }).into_response())
}
