//! One command for many servers.
//!
//! `POST /api/commands` with `{"select":{"app":"api","group":"eu"},"action":"restart"}`; `pm2_home`
//! beside `app` says in which PM2, where exporters watch several. Further fields: `body` (what the action takes, as in its own request), `save`, `batch` (parts at a
//! time, 1 unless set), `max_unavailable`, `settle` (`5s` unless set), `health_timeout` (`60s`),
//! `dry_run`. It answers 200 when it has ended within `wait`, whatever became of it, 202 before.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use service::body::parse;
use service::problem::ProblemResponse;
use wire::{Action, Target};

use super::commands::{DEFAULT_WAIT, action_of, key};
use crate::access::Role;
use crate::app::App;
use crate::commands::{MOST_AT_A_TIME, Order, Rollout, Select, Touched};
use crate::config::Config;
use crate::http::error::store_failed;
use crate::http::params::Params;
use crate::http::{Peer, Reader};
use crate::store::StoredSelection;

/// More than there can be servers.
const MOST_UNAVAILABLE: usize = 1_000_000;
const SETTLE: Duration = Duration::from_secs(5);
const LONGEST_SETTLE: Duration = Duration::from_secs(600);
const HEALTH_TIMEOUT: Duration = Duration::from_secs(60);
const LONGEST_HEALTH: Duration = Duration::from_secs(3600);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    select: Select,
    action: String,
    #[serde(default)]
    body: Option<Value>,
    #[serde(default)]
    save: bool,
    #[serde(default)]
    batch: Option<usize>,
    #[serde(default)]
    max_unavailable: Option<usize>,
    #[serde(default)]
    settle: Option<String>,
    #[serde(default)]
    health_timeout: Option<String>,
    #[serde(default)]
    dry_run: bool,
}

/// What would be touched.
#[derive(Serialize)]
struct DryRun {
    dry_run: bool,
    target: Target,
    action: Action,
    batch: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_unavailable: Option<usize>,
    /// Servers that are away, or where the app does not run as a whole.
    unavailable: usize,
    total: usize,
    /// Why it would not be begun with.
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<String>,
    parts: Vec<Touched>,
}

fn wrong(name: &str, message: impl std::fmt::Display) -> ProblemResponse {
    ProblemResponse::bad_request(format!("{name}: {message}"))
}

fn time(
    name: &str,
    text: Option<&String>,
    default: Duration,
    most: Duration,
) -> Result<Duration, ProblemResponse> {
    let Some(text) = text else { return Ok(default) };
    let time = service::quantity::duration(text).map_err(|message| wrong(name, message))?;
    match time <= most {
        true => Ok(time),
        false => Err(wrong(name, format!("{text:?} is too long: at most {most:?}"))),
    }
}

fn number(name: &str, given: Option<usize>, most: usize) -> Result<Option<usize>, ProblemResponse> {
    match given {
        Some(given) if !(1..=most).contains(&given) => {
            Err(wrong(name, format!("{given} is not a number from 1 to {most}")))
        }
        given => Ok(given),
    }
}

/// `POST /api/commands`
pub(super) async fn begin(
    Reader(caller): Reader,
    State(app): State<Arc<App>>,
    Peer(address): Peer,
    mut params: Params,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ProblemResponse> {
    if caller.token().is_none() {
        caller.require(Role::Operator)?;
    }
    let wait = params.duration("wait", Config::MAX_WAIT)?.unwrap_or(DEFAULT_WAIT);
    params.end()?;
    let expected = "{\"select\":{\"app\":\"api\",\"group\":\"eu\"},\"action\":\"restart\"}";
    let wanted: Wanted = parse(&body, expected)?;
    let target = match (&wanted.select.app, &wanted.select.slot) {
        (Some(app), None) => Target::App(app.clone()),
        (None, Some(slot)) => Target::Slot(slot.clone()),
        _ => return Err(wrong("select", "either app or slot is expected")),
    };
    let pm2_home = wanted.select.pm2_home.clone();
    if let (Some(_), Target::Slot(_)) = (&pm2_home, &target) {
        return Err(wrong("select", "pm2_home goes with app: slots are in the first PM2"));
    }
    let action = action_of(&wanted.action, &target)
        .map_err(|problem| wrong("action", &problem.problem().detail))?;
    if let (true, Target::Slot(_)) = (wanted.save, &target) {
        return Err(wrong("save", "goes with app: a slot is brought up again by its own settings"));
    }
    let of_action = wanted.body.as_ref().map(Value::to_string).unwrap_or_default();
    let order = Order::read(action, &target, of_action.as_bytes(), wanted.save)
        .map_err(|problem| wrong("body", &problem.problem().detail))?
        .in_home(pm2_home);
    let batch = number("batch", wanted.batch, MOST_AT_A_TIME)?.unwrap_or(1);
    let max_unavailable = number("max_unavailable", wanted.max_unavailable, MOST_UNAVAILABLE)?;
    let settle = time("settle", wanted.settle.as_ref(), SETTLE, LONGEST_SETTLE)?;
    let health_timeout =
        time("health_timeout", wanted.health_timeout.as_ref(), HEALTH_TIMEOUT, LONGEST_HEALTH)?;
    let rollout = Rollout {
        select: wanted.select,
        target,
        action,
        order,
        batch,
        max_unavailable,
        settle,
        health_timeout,
        key: key(&headers)?,
        caller,
        address,
    };
    if wanted.dry_run {
        rollout.caller.require(Role::Operator)?;
        let parts = app.commands.touched(&rollout.caller, &rollout.select, &rollout.target).await?;
        let refusal = app.commands.may_begin(&rollout, &parts).err();
        return Ok(Json(DryRun {
            dry_run: true,
            target: rollout.target,
            action,
            batch,
            max_unavailable,
            unavailable: parts.iter().filter(|part| !part.available).count(),
            total: parts.len(),
            refusal: refusal.map(|it| it.problem().detail.clone()),
            parts,
        })
        .into_response());
    }
    // Spaces and the order of fields make no other request.
    let whole: Value = serde_json::from_slice(&body).unwrap_or_default();
    let whole = serde_json::to_vec(&whole).unwrap_or_default();
    let selection = app.commands.roll_out(rollout, whole, wait).await?;
    Ok(answer(&selection))
}

/// 200 when it has ended, 202 with where to look before.
pub(super) fn answer(selection: &StoredSelection) -> Response {
    let status = if selection.status.is_final() { StatusCode::OK } else { StatusCode::ACCEPTED };
    let mut response = (status, Json(selection)).into_response();
    if let Ok(location) = HeaderValue::from_str(&format!("/api/commands/{}", selection.id)) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

/// `GET /api/selections`
#[derive(Serialize)]
pub(super) struct List {
    /// Newest first.
    selections: Vec<StoredSelection>,
    /// What to pass as `cursor` for older ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
}

pub(super) async fn list(
    Reader(caller): Reader,
    State(app): State<Arc<App>>,
    mut params: Params,
) -> Result<Json<List>, ProblemResponse> {
    let before = params.cursor(|text| text.parse().ok())?;
    let limit = params.limit(20)?.min(100);
    params.end()?;
    let found = app.store.selections(caller.servers(), before, limit + 1).await;
    let mut selections = found.map_err(store_failed)?;
    let more = selections.len() > limit;
    selections.truncate(limit);
    let cursor = selections.last().filter(|_| more).map(|last| last.seq.to_string());
    Ok(Json(List { selections, cursor }))
}
