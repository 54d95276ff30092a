use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;
use service::problem::ProblemResponse;
use wire::{ExporterInfo, Pm2State, ServerId, Slot, SlotType, Status, Time};

use super::member;
use crate::app::App;
use crate::fleet::Member;
use crate::http::Reader;
use crate::http::filter::ServerFilter;
use crate::http::params::Params;

/// One server in a list.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    id: ServerId,
    url: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    group: String,
    tags: Vec<String>,
    /// `online`, `stale` or `offline`.
    status: &'static str,
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
    total: usize,
}

/// One server with all that it said.
#[derive(Debug, Serialize)]
pub(super) struct Whole {
    #[serde(flatten)]
    summary: Summary,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<Arc<wire::State>>,
}

impl Summary {
    fn new(member: &Member, stale_after: Duration) -> Self {
        let state = member.state.as_deref();
        Self {
            id: member.target.id.clone(),
            url: member.target.url.clone(),
            group: member.target.group.clone(),
            tags: member.target.tags.clone(),
            status: member.status(stale_after).as_str(),
            last_success: member.last_success,
            reason: member.failure.as_ref().map(|failure| failure.reason.as_str()),
            error: member.error(),
            as_of: state.map(|state| state.time),
            exporter: state.map(|state| state.exporter.clone()),
            pm2: state.map(|state| state.pm2.clone()),
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
    params.end()?;
    let stale_after = app.fleet.stale_after();
    let servers: Vec<Summary> = app
        .fleet
        .all()
        .iter()
        .filter(|member| caller.may_see(&member.target.id))
        .filter(|member| filter.lets_through(member, stale_after))
        .map(|member| Summary::new(member, stale_after))
        .collect();
    Ok(Json(List { total: servers.len(), servers }))
}

pub(super) async fn show(
    Reader(caller): Reader,
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    params: Params,
) -> Result<Json<Whole>, ProblemResponse> {
    params.end()?;
    let member = member(&app, &caller, &id)?;
    let summary = Summary::new(&member, app.fleet.stale_after());
    Ok(Json(Whole { summary, state: member.state }))
}

#[derive(Debug, Serialize)]
pub(super) struct Slots {
    server: ServerId,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    as_of: Option<Time>,
    slots: Vec<Slot>,
}

pub(super) async fn slots(
    Reader(caller): Reader,
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    params: Params,
) -> Result<Json<Slots>, ProblemResponse> {
    params.end()?;
    let member = member(&app, &caller, &id)?;
    Ok(Json(Slots {
        server: member.target.id.clone(),
        status: member.status(app.fleet.stale_after()).as_str(),
        as_of: member.state.as_ref().map(|state| state.time),
        slots: member.state.as_ref().map(|state| state.slots.clone()).unwrap_or_default(),
    }))
}
