use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;
use service::problem::ProblemResponse;
use wire::{AppGroup, AppName, Process, ServerId, Status, Time};

use super::{app_name, member};
use crate::app::App;
use crate::http::Reader;
use crate::http::params::Params;

/// Where and when what follows was so.
#[derive(Debug, Serialize)]
struct Origin {
    server: ServerId,
    /// Of the server: `online`, `stale` or `offline`.
    server_status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    as_of: Option<Time>,
}

#[derive(Debug, Serialize)]
pub(super) struct List {
    #[serde(flatten)]
    origin: Origin,
    apps: Vec<AppGroup>,
    total: usize,
}

#[derive(Debug, Serialize)]
pub(super) struct One {
    #[serde(flatten)]
    origin: Origin,
    #[serde(flatten)]
    app: AppGroup,
}

pub(super) async fn list(
    Reader(caller): Reader,
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    params: Params,
) -> Result<Json<List>, ProblemResponse> {
    params.end()?;
    let (origin, processes) = known(&app, &caller, &id)?;
    let mut apps: BTreeMap<AppName, Vec<Process>> = BTreeMap::new();
    for process in processes {
        apps.entry(process.instance.name.clone()).or_default().push(process);
    }
    let apps: Vec<AppGroup> =
        apps.into_iter().map(|(name, instances)| group(name, instances)).collect();
    Ok(Json(List { origin, total: apps.len(), apps }))
}

pub(super) async fn show(
    Reader(caller): Reader,
    State(app): State<Arc<App>>,
    Path((id, name)): Path<(String, String)>,
    params: Params,
) -> Result<Json<One>, ProblemResponse> {
    params.end()?;
    let (origin, mut instances) = known(&app, &caller, &id)?;
    let name = app_name(&name)?;
    instances.retain(|process| process.instance.name == name);
    if instances.is_empty() {
        let detail = format!("{} has no app named {:?}", origin.server, name.as_str());
        return Err(ProblemResponse::not_found("unknown_app", detail));
    }
    Ok(Json(One { origin, app: group(name, instances) }))
}

fn known(
    app: &App,
    caller: &crate::access::Caller,
    id: &str,
) -> Result<(Origin, Vec<Process>), ProblemResponse> {
    let member = member(app, caller, id)?;
    let origin = Origin {
        server: member.target.id.clone(),
        server_status: member.status(app.fleet.stale_after()).as_str(),
        as_of: member.state.as_ref().map(|state| state.time),
    };
    Ok((origin, member.state.as_ref().map(|state| state.processes.clone()).unwrap_or_default()))
}

fn group(name: AppName, instances: Vec<Process>) -> AppGroup {
    AppGroup {
        name,
        total: instances.len(),
        online: instances.iter().filter(|it| it.status == Status::Online).count(),
        instances,
    }
}
