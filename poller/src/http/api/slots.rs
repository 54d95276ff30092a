//! Slots of a server: what the last poll said of one, and, asked of the exporter at that
//! moment, what was deployed there and how it went.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::Response;
use serde::Serialize;
use service::problem::ProblemResponse;
use wire::{CommandId, Deployment, DeploymentList, InvalidId, ServerId, Slot, SlotId, Time};

use super::member;
use super::pass::{self, Bounds, TEXT};
use super::place::Place;
use crate::app::App;
use crate::http::params::Params;
use crate::http::{Peer, Reader};

/// Largest list of deployments that is read.
const MAX_LIST: usize = 4 << 20;
/// A whole log is bounded by its exporter; this bounds an exporter that is not.
const MAX_LOG: u64 = 256 << 20;
/// How long a log may pause while it is followed: a build can be silent for long.
const FOLLOWED: Duration = Duration::from_secs(2 * 3600);
const READ: Duration = Duration::from_secs(30);

#[derive(Debug, Serialize)]
pub(super) struct One {
    server: ServerId,
    /// Of the server: `online`, `stale` or `offline`.
    server_status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    as_of: Option<Time>,
    #[serde(flatten)]
    slot: Slot,
}

pub(super) async fn show(
    Reader(caller): Reader,
    State(app): State<Arc<App>>,
    Path((id, slot)): Path<(String, String)>,
    params: Params,
) -> Result<Json<One>, ProblemResponse> {
    params.end()?;
    let member = member(&app, &caller, &id)?;
    let wanted = slot_id(&slot)?;
    let state = member.state.as_ref();
    let slots = state.map(|state| state.slots.as_slice()).unwrap_or_default();
    let slot = slots.iter().find(|slot| slot.slot == wanted).cloned().ok_or_else(|| {
        let names: Vec<&str> = slots.iter().map(|slot| slot.slot.as_str()).collect();
        let known = match names[..] {
            [] => "none is known".to_owned(),
            _ => format!("there are: {}", names.join(", ")),
        };
        let detail = format!("{} has no slot {:?}; {known}", member.target.id, wanted.as_str());
        ProblemResponse::not_found("unknown_slot", detail)
    })?;
    Ok(Json(One {
        server: member.target.id.clone(),
        server_status: member.status(app.fleet.stale_after()).as_str(),
        as_of: state.map(|state| state.time),
        slot,
    }))
}

#[derive(Debug, Serialize)]
pub(super) struct List {
    server: ServerId,
    slot: SlotId,
    /// Newest first.
    deployments: Vec<Deployment>,
}

pub(super) async fn deployments(
    Reader(caller): Reader,
    State(app): State<Arc<App>>,
    Path((id, slot)): Path<(String, String)>,
    params: Params,
) -> Result<Json<List>, ProblemResponse> {
    params.end()?;
    let member = member(&app, &caller, &id)?;
    let slot = slot_id(&slot)?;
    let path = format!("/api/slots/{slot}/deployments");
    let list: DeploymentList =
        pass::json(app.commands.client(), &member.target, &path, MAX_LIST).await?;
    Ok(Json(List { server: member.target.id.clone(), slot, deployments: list.deployments }))
}

pub(super) async fn deployment(
    Reader(caller): Reader,
    State(app): State<Arc<App>>,
    Path((id, slot, deployment)): Path<(String, String, String)>,
    params: Params,
) -> Result<Json<Deployment>, ProblemResponse> {
    params.end()?;
    let member = member(&app, &caller, &id)?;
    let (slot, deployment) = (slot_id(&slot)?, deployment_id(&deployment)?);
    let path = format!("/api/slots/{slot}/deployments/{deployment}");
    pass::json(app.commands.client(), &member.target, &path, MAX_LIST).await.map(Json)
}

pub(super) async fn log(
    Reader(caller): Reader,
    State(app): State<Arc<App>>,
    peer: Peer,
    Path((id, slot, deployment)): Path<(String, String, String)>,
    mut params: Params,
) -> Result<Response, ProblemResponse> {
    let follow = params.truth("follow")?.unwrap_or(false);
    params.end()?;
    let member = member(&app, &caller, &id)?;
    let (slot, deployment) = (slot_id(&slot)?, deployment_id(&deployment)?);
    let place = Place::take(&app, (caller, peer), Some(member.target.id.clone()))?;
    let path = format!("/api/slots/{slot}/deployments/{deployment}/log?follow={follow}");
    let silence = if follow { FOLLOWED } else { READ };
    let bounds = Bounds { bytes: MAX_LOG, silence };
    pass::lines(app.commands.client(), &member.target, &path, TEXT, bounds, place).await
}

fn slot_id(text: &str) -> Result<SlotId, ProblemResponse> {
    text.parse()
        .map_err(|error: InvalidId| ProblemResponse::not_found("unknown_slot", error.to_string()))
}

/// What is no id at all is no deployment either, and never becomes part of a path.
fn deployment_id(text: &str) -> Result<CommandId, ProblemResponse> {
    text.parse().map_err(|error: InvalidId| {
        ProblemResponse::not_found("unknown_deployment", error.to_string())
    })
}
