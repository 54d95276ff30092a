//! Commands. How one ended decides the status of the answer, the same for a first request, a
//! repeat and a wait that came to its end:
//!
//! | status of the command | answer |
//! | --- | --- |
//! | `queued`, `running` | 202 with the record and its `Location` |
//! | `succeeded`; `failed` because PM2 said so | 200 with the record |
//! | `failed`: the exporter was not reached, or failed | 502, a problem |
//! | `refused`: no such app, slot or deployment | 404, a problem |
//! | `refused`: something else is under way there | 409, a problem |
//! | `refused`: the exporter's queue is full, PM2 is not there | 503, a problem |
//! | `refused`: the exporter does not let the poller in | 502, a problem |
//! | `refused` otherwise | 422, a problem |
//! | `cancelled` | 409, a problem |
//! | `expired` | 504, a problem |
//! | `unknown` | 504, a problem |
//!
//! A problem carries the command's id and status as `command` and `command_status`. Looking at
//! a command (`GET`) is always 200.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use service::problem::ProblemResponse;
use wire::{Action, CommandId, CommandStatus, InvalidId, Problem, ServerId, SlotId, Target};

use super::app_name;
use crate::access::Caller;
use crate::app::App;
use crate::commands::{LONGEST, NotCancelled, Order, Request};
use crate::config::Config;
use crate::http::error::store_failed;
use crate::http::params::Params;
use crate::http::{Peer, Reader, filter};
use crate::store::{Canceller, StoredCommand, StoredSelection};

pub(super) const DEFAULT_WAIT: Duration = Duration::from_secs(10);
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Longest `Idempotency-Key`.
const MAX_KEY: usize = 255;

pub(super) async fn to_app(
    reader: Reader,
    state: State<Arc<App>>,
    peer: Peer,
    Path((server, name, action)): Path<(String, String, String)>,
    params: Params,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ProblemResponse> {
    let target = app_name(&name).map(Target::App);
    submit(reader, state, peer, (server, target, action), params, headers, body).await
}

pub(super) async fn to_slot(
    reader: Reader,
    state: State<Arc<App>>,
    peer: Peer,
    Path((server, slot, action)): Path<(String, String, String)>,
    params: Params,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ProblemResponse> {
    let target = slot
        .parse::<SlotId>()
        .map(Target::Slot)
        .map_err(|error| ProblemResponse::not_found("unknown_slot", error.to_string()));
    submit(reader, state, peer, (server, target, action), params, headers, body).await
}

async fn submit(
    Reader(caller): Reader,
    State(app): State<Arc<App>>,
    Peer(address): Peer,
    (server, target, action): (String, Result<Target, ProblemResponse>, String),
    mut params: Params,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ProblemResponse> {
    if caller.token().is_none() {
        caller.require(crate::access::Role::Operator)?;
    }
    let wait = params.duration("wait", Config::MAX_WAIT)?;
    let queue = params.duration("queue", LONGEST)?.filter(|queue| !queue.is_zero());
    // PM2's list is saved with an app's change; slots look after it themselves.
    let save = match &target {
        Ok(Target::Slot(_)) => false,
        _ => params.truth("save")?.unwrap_or(false),
    };
    let pm2_home = match &target {
        Ok(Target::Slot(_)) => None,
        _ => params.text("pm2_home")?,
    };
    params.end()?;
    let server: ServerId = server.parse().map_err(|error: InvalidId| {
        ProblemResponse::not_found("unknown_server", error.to_string())
    })?;
    let target = target?;
    let action = action_of(&action, &target)?;
    let order = Order::read(action, &target, &body, save)?.in_home(pm2_home);
    let key = key(&headers)?;
    // Nobody need wait for a server that is away, unless they say so.
    let away = queue.is_some() && !app.fleet.is_online(&server);
    let wait = wait.unwrap_or(if away { Duration::ZERO } else { DEFAULT_WAIT });
    let request = Request { server, target, action, order, queue, key, caller, address };
    let command = app.commands.submit(request, wait).await?;
    Ok(answer(&command))
}

pub(super) fn action_of(text: &str, target: &Target) -> Result<Action, ProblemResponse> {
    let (what, allowed) = match target {
        Target::App(_) => ("an app", &Action::ALL[..]),
        Target::Slot(_) => ("a slot", &Action::OF_SLOTS[..]),
    };
    allowed.iter().find(|action| action.as_str() == text).copied().ok_or_else(|| {
        let shown: String = text.chars().take(100).collect();
        let allowed: Vec<&str> = allowed.iter().map(|action| action.as_str()).collect();
        let detail = format!("{shown:?} is not an action on {what}: {}", allowed.join(", "));
        ProblemResponse::not_found("unknown_action", detail)
    })
}

pub(super) fn key(headers: &HeaderMap) -> Result<Option<String>, ProblemResponse> {
    let mut given = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(key) = given.next() else { return Ok(None) };
    let good = given.next().is_none()
        && (1..=MAX_KEY).contains(&key.len())
        && key.as_bytes().iter().all(u8::is_ascii_graphic);
    match key.to_str() {
        Ok(key) if good => Ok(Some(key.to_owned())),
        _ => Err(ProblemResponse::bad_request(format!(
            "Idempotency-Key: one of 1 to {MAX_KEY} visible ASCII characters is expected"
        ))),
    }
}

/// A problem that says of which command.
#[derive(Serialize)]
struct CommandProblem<'a> {
    #[serde(flatten)]
    problem: Problem,
    command: &'a CommandId,
    command_status: &'static str,
}

/// See the module for which status an outcome has.
fn answer(command: &StoredCommand) -> Response {
    let record = &command.record;
    let location = format!("/api/commands/{}", record.id);
    let status = match (record.status, command.problem.as_deref()) {
        (CommandStatus::Queued | CommandStatus::Running, _) => StatusCode::ACCEPTED,
        (CommandStatus::Unknown | CommandStatus::Expired, _) => StatusCode::GATEWAY_TIMEOUT,
        (CommandStatus::Cancelled, _) => StatusCode::CONFLICT,
        (
            CommandStatus::Refused,
            Some(
                "unknown_app" | "unknown_home" | "unknown_slot" | "unknown_deployment"
                | "unknown_action",
            ),
        ) => StatusCode::NOT_FOUND,
        (CommandStatus::Refused, Some("conflict" | "ambiguous_app")) => StatusCode::CONFLICT,
        (CommandStatus::Refused, Some("busy" | "pm2_unavailable")) => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        (CommandStatus::Refused, Some("exporter_denied")) => StatusCode::BAD_GATEWAY,
        (CommandStatus::Refused, _) => StatusCode::UNPROCESSABLE_ENTITY,
        (CommandStatus::Failed, Some(_)) => StatusCode::BAD_GATEWAY,
        _ => StatusCode::OK,
    };
    let mut response = if status.is_success() {
        (status, Json(command)).into_response()
    } else {
        let kind = command.problem.as_deref().unwrap_or("failed");
        let detail = record.error.clone().unwrap_or_default();
        let problem = ProblemResponse::new(status, kind, detail).problem().clone();
        let body =
            CommandProblem { problem, command: &record.id, command_status: record.status.as_str() };
        let kind = [(header::CONTENT_TYPE, "application/problem+json")];
        (status, kind, serde_json::to_string(&body).unwrap_or_default()).into_response()
    };
    if let Ok(location) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

pub(super) async fn show(
    Reader(caller): Reader,
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    params: Params,
) -> Result<Response, ProblemResponse> {
    params.end()?;
    Ok(match find(&app, &caller, &id).await? {
        Found::One(command) => Json(command).into_response(),
        Found::Many(selection) => Json(selection).into_response(),
    })
}

/// A command, or one for many servers.
enum Found {
    One(Box<StoredCommand>),
    Many(Box<StoredSelection>),
}

async fn find(app: &App, caller: &Caller, id: &str) -> Result<Found, ProblemResponse> {
    let shown: String = id.chars().take(128).collect();
    let unknown = || {
        ProblemResponse::not_found("unknown_command", format!("no command has the id {shown:?}"))
    };
    let id: CommandId = id.parse().map_err(|_: InvalidId| unknown())?;
    if let Some(command) = app.store.command(&id).await.map_err(store_failed)? {
        let visible = caller.may_see(&command.server);
        return visible.then(|| Found::One(Box::new(command))).ok_or_else(unknown);
    }
    let selection = app.store.selection(&id).await.map_err(store_failed)?;
    let visible = |it: &StoredSelection| it.parts.iter().all(|it| caller.may_see(&it.server));
    selection.filter(visible).map(|it| Found::Many(Box::new(it))).ok_or_else(unknown)
}

/// `DELETE /api/commands/{id}`
pub(super) async fn cancel(
    Reader(caller): Reader,
    State(app): State<Arc<App>>,
    Peer(address): Peer,
    Path(id): Path<String>,
    params: Params,
) -> Result<Response, ProblemResponse> {
    caller.require(crate::access::Role::Operator)?;
    params.end()?;
    let by = Canceller {
        who: caller.name().to_owned(),
        via: caller.via(),
        address: address.to_string(),
    };
    let conflict = |detail: String| ProblemResponse::new(StatusCode::CONFLICT, "conflict", detail);
    let command = match find(&app, &caller, &id).await? {
        Found::One(command) => {
            caller.require_action(command.record.action)?;
            command
        }
        Found::Many(selection) => {
            caller.require_action(selection.action)?;
            let selection = app.commands.cancel_rollout(&selection.id, by).await?;
            return Ok(super::selections::answer(&selection));
        }
    };
    let id = &command.record.id;
    match app.commands.cancel(&command, by).await? {
        Ok(cancelled) => Ok(Json(&*cancelled).into_response()),
        Err(NotCancelled::UnderWay) => {
            Err(conflict(format!("the command {id} was sent: it cannot be taken back")))
        }
        Err(NotCancelled::Ended(status)) => {
            Err(conflict(format!("the command {id} has ended already: {}", status.as_str())))
        }
    }
}

/// `GET /api/commands`
#[derive(Debug, Serialize)]
pub(super) struct List {
    /// Newest first.
    commands: Vec<StoredCommand>,
    /// What to pass as `cursor` for older ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
}

pub(super) async fn list(
    Reader(caller): Reader,
    State(app): State<Arc<App>>,
    mut params: Params,
) -> Result<Json<List>, ProblemResponse> {
    let mut wanted = filter::commands(&mut params, &caller)?;
    let limit = params.limit(100)?;
    params.end()?;
    wanted.limit = limit;
    let commands = app.store.list_commands(&wanted).await.map_err(store_failed)?;
    let cursor = filter::older_commands(&commands);
    Ok(Json(List { commands: commands.rows, cursor }))
}
