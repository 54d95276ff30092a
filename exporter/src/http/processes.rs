use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::Response;
use service::problem::ProblemResponse;
use wire::{
    Action, AppGroup, AppName, CommandId, CommandRequest, InvalidId, ProcessList, Status, Target,
};

use super::Reads;
use super::body::Body;
use super::commands::answer;
use super::error::not_taken;
use super::query::Parameters;
use crate::app::App;

pub(super) async fn list(_: Reads, State(app): State<Arc<App>>) -> Json<ProcessList> {
    app.home.confirm(app.config.custom_metrics_max_age).await;
    let processes = app.processes();
    let online = processes.iter().filter(|process| process.status == Status::Online).count();
    Json(ProcessList { total: processes.len(), online, processes })
}

pub(super) async fn show(
    _: Reads,
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
) -> Result<Json<AppGroup>, ProblemResponse> {
    let name = app_name(&name)?;
    app.home.confirm(app.config.custom_metrics_max_age).await;
    let mut instances = app.processes();
    instances.retain(|process| process.instance.name == name);
    if instances.is_empty() {
        return Err(unknown_app(&app, &name));
    }
    let online = instances.iter().filter(|process| process.status == Status::Online).count();
    Ok(Json(AppGroup { name, total: instances.len(), online, instances }))
}

pub(super) async fn act(
    caller: super::slots::Caller,
    State(app): State<Arc<App>>,
    Path((name, action)): Path<(String, String)>,
    mut parameters: Parameters,
    Body(body): Body,
) -> Result<Response, ProblemResponse> {
    let wait = parameters.wait()?.unwrap_or(Duration::from_secs(30));
    let save = parameters.truth("save")?.unwrap_or(false);
    parameters.end("wait, save")?;
    let action: Action = action.parse().map_err(|error: InvalidId| {
        ProblemResponse::not_found("unknown_action", error.to_string())
    })?;
    if !Action::ALL.contains(&action) {
        let detail = format!("{action} is for slots: POST /api/slots/{{slot}}/{action}");
        return Err(ProblemResponse::not_found("unknown_action", detail));
    }
    let is_slot = name.parse().is_ok_and(|slot| app.slots.place(&slot).is_some());
    if is_slot
        && matches!(action, Action::Stop | Action::Restart)
        && !app.processes().iter().any(|process| process.instance.name.as_str() == name)
    {
        // The old admin panel names slots so.
        return super::slots::old(caller, &app, &name, action).await;
    }
    let by = caller.control()?;
    let arguments = service::body::arguments(action, &body)?;
    let name = app_name(&name)?;
    let mut id = [0u8; 16];
    getrandom::fill(&mut id).map_err(|error| {
        ProblemResponse::new(
            axum::http::StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            format!("no random numbers: {error}"),
        )
    })?;
    let id = format!("{:032x}", u128::from_be_bytes(id));
    let id: CommandId =
        id.parse().map_err(|error: InvalidId| ProblemResponse::bad_request(error.to_string()))?;
    let target = Target::App(name.clone());
    let request = CommandRequest { target, action, arguments, save, deploy: None };
    app.home.confirm(app.config.custom_metrics_max_age).await;
    app.commands.put(id, request, name, by, wait).await.map(answer).map_err(not_taken)
}

/// A name as it stands in a path. What cannot be a name names nothing.
pub(super) fn app_name(text: &str) -> Result<AppName, ProblemResponse> {
    text.parse()
        .map_err(|error: InvalidId| ProblemResponse::not_found("unknown_app", error.to_string()))
}

pub(super) fn unknown_app(app: &App, name: &AppName) -> ProblemResponse {
    let state = app.home.state();
    match state.error.filter(|_| !state.up) {
        Some(error) => ProblemResponse::new(
            axum::http::StatusCode::SERVICE_UNAVAILABLE,
            "pm2_unavailable",
            error,
        ),
        None => ProblemResponse::not_found("unknown_app", format!("PM2 has no app named {name:?}")),
    }
}
