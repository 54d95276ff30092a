use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;
use service::problem::ProblemResponse;
use wire::{ExporterInfo, MAX_LIMIT, Pm2State, ServerId, Slot, SlotType, Status, Time};

use super::{member, past_or_present};
use crate::app::App;
use crate::commands::unknown_server;
use crate::fleet::Member;
use crate::http::Reader;
use crate::http::error::store_failed;
use crate::http::filter::ServerFilter;
use crate::http::params::Params;
use crate::store::Registration;

/// One server in a list.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    id: ServerId,
    url: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    group: String,
    tags: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    note: String,
    /// Where it is written down; where else, without effect.
    #[serde(skip_serializing_if = "str::is_empty")]
    origin: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    also_in: Vec<&'static str>,
    /// `online`, `stale` or `offline`; `retired` when it is polled no more.
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    retired_at: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_success: Option<Time>,
    /// Why the last poll failed: a word, and the same for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// Time of all that follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    as_of: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exporter: Option<ExporterInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pm2: Option<Pm2State>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    homes: Vec<Pm2State>,
    #[serde(skip_serializing_if = "Option::is_none")]
    processes: Option<Count>,
    #[serde(skip_serializing_if = "Option::is_none")]
    slots: Option<SlotCount>,
}

#[derive(Debug, Serialize)]
struct Count {
    total: usize,
    online: usize,
}

#[derive(Debug, Serialize)]
struct SlotCount {
    total: usize,
    deployed: usize,
    serving: usize,
}

#[derive(Debug, Serialize)]
pub(super) struct List {
    servers: Vec<Summary>,
    /// Of all that fit.
    total: usize,
    /// What to pass as `cursor` for the next ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
}

/// One server with all that it said.
#[derive(Debug, Serialize)]
pub(super) struct Whole {
    #[serde(flatten)]
    summary: Summary,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<Arc<wire::State>>,
}

impl Whole {
    pub(super) fn new(member: &Member, stale_after: Duration) -> Self {
        Self { summary: Summary::new(member, stale_after), state: member.state.clone() }
    }
}

impl Summary {
    /// Of one that is polled no more.
    fn retired(it: &Registration) -> Self {
        Self {
            id: it.server.clone(),
            url: it.url.clone(),
            group: it.group.clone(),
            tags: it.tags.clone(),
            note: it.note.clone(),
            origin: it.origin.clone(),
            also_in: Vec::new(),
            status: "retired",
            retired_at: it.retired_at,
            last_success: None,
            reason: None,
            error: None,
            as_of: None,
            exporter: None,
            pm2: None,
            homes: Vec::new(),
            processes: None,
            slots: None,
        }
    }

    fn new(member: &Member, stale_after: Duration) -> Self {
        let state = member.state.as_deref();
        Self {
            id: member.target.id.clone(),
            url: member.target.url.clone(),
            group: member.target.group.clone(),
            tags: member.target.tags.clone(),
            note: member.about.note.clone(),
            origin: member.about.origin.as_str().to_owned(),
            also_in: member.about.also.iter().map(|it| it.as_str()).collect(),
            retired_at: None,
            status: member.status(stale_after).as_str(),
            last_success: member.last_success,
            reason: member.failure.as_ref().map(|failure| failure.reason.as_str()),
            error: member.error(),
            as_of: state.map(|state| state.time),
            exporter: state.map(|state| state.exporter.clone()),
            pm2: state.map(|state| state.pm2.clone()),
            homes: state.map(|state| state.homes.clone()).unwrap_or_default(),
            processes: state.map(|state| Count {
                total: state.processes.len(),
                online: state.processes.iter().filter(|it| it.status == Status::Online).count(),
            }),
            slots: state.map(|state| SlotCount {
                total: state.slots.len(),
                deployed: state.slots.iter().filter(|it| it.kind == SlotType::Deployed).count(),
                serving: state.slots.iter().filter(|it| it.serving).count(),
            }),
        }
    }
}

pub(super) async fn list(
    Reader(caller): Reader,
    State(app): State<Arc<App>>,
    mut params: Params,
) -> Result<Json<List>, ProblemResponse> {
    let filter = ServerFilter::read(&mut params)?;
    let retired = params.truth("retired")?.unwrap_or(false);
    let limit = params.limit(MAX_LIMIT)?;
    let after: Option<ServerId> = params.cursor(|text| text.parse().ok())?;
    params.end()?;
    let stale_after = app.fleet.stale_after();
    let mut total = 0;
    let mut servers: Vec<Summary> = Vec::new();
    // Both are by id, and so is what is taken of them.
    let mut take = |id: &ServerId, summary: &dyn Fn() -> Summary| {
        total += 1;
        if servers.len() <= limit && after.as_ref().is_none_or(|after| after < id) {
            servers.push(summary());
        }
    };
    if retired {
        for it in app.registry.retired().values() {
            if caller.may_see(&it.server) && filter.lets_past_through(it) {
                take(&it.server, &|| Summary::retired(it));
            }
        }
    } else {
        for member in app.fleet.all() {
            if caller.may_see(&member.target.id) && filter.lets_through(&member, stale_after) {
                take(&member.target.id, &|| Summary::new(&member, stale_after));
            }
        }
    }
    let more = servers.len() > limit;
    servers.truncate(limit);
    let cursor = servers.last().filter(|_| more).map(|last| last.id.to_string());
    Ok(Json(List { servers, total, cursor }))
}

pub(super) async fn show(
    Reader(caller): Reader,
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    mut params: Params,
) -> Result<Json<Whole>, ProblemResponse> {
    let wants_retired = params.truth("retired")?.unwrap_or(false);
    params.end()?;
    if !wants_retired {
        let member = member(&app, &caller, &id)?;
        return Ok(Json(Whole::new(&member, app.fleet.stale_after())));
    }
    let id = past_or_present(&app, &caller, &id)?;
    let retired = app.registry.retired();
    let it = retired.get(&id).ok_or_else(|| unknown_server(&id))?;
    let state = app.store.last_state(&id).await.map_err(store_failed)?;
    let last_success = app.store.known_server(&id).await.map_err(store_failed)?.last_success;
    let summary = Summary {
        last_success,
        as_of: state.as_ref().map(|state| state.time),
        ..Summary::retired(it)
    };
    Ok(Json(Whole { summary, state: state.map(Arc::new) }))
}

#[derive(Debug, Serialize)]
pub(super) struct Slots {
    server: ServerId,
    /// Of the server: `online`, `stale` or `offline`.
    server_status: &'static str,
    /// The same, by its former name.
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    as_of: Option<Time>,
    slots: Vec<Slot>,
    total: usize,
}

pub(super) async fn slots(
    Reader(caller): Reader,
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    params: Params,
) -> Result<Json<Slots>, ProblemResponse> {
    params.end()?;
    let member = member(&app, &caller, &id)?;
    let status = member.status(app.fleet.stale_after()).as_str();
    let slots = member.state.as_ref().map(|state| state.slots.clone()).unwrap_or_default();
    Ok(Json(Slots {
        server: member.target.id.clone(),
        server_status: status,
        status,
        as_of: member.state.as_ref().map(|state| state.time),
        total: slots.len(),
        slots,
    }))
}
