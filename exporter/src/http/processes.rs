use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::Response;
use service::problem::ProblemResponse;
use wire::{
    Action, AppGroup, AppName, CommandId, CommandRequest, InvalidId, Process, ProcessList, Status,
    Target,
};

use super::Reads;
use super::body::Body;
use super::commands::answer;
use super::error::{no_home, not_taken};
use super::query::Parameters;
use crate::app::App;
use crate::pm2::NoHome;

pub(super) async fn list(
    Reads(who): Reads,
    State(app): State<Arc<App>>,
    mut parameters: Parameters,
) -> Result<Json<ProcessList>, ProblemResponse> {
    let pm2_home = parameters.pm2_home()?;
    parameters.end("pm2_home")?;
    app.confirm().await;
    let mut processes = app.processes();
    processes.retain(|process| who.sees(&process.instance.name, process.slot.as_ref()));
    only_of(&app, &mut processes, pm2_home.as_deref())?;
    let online = processes.iter().filter(|process| process.status == Status::Online).count();
    Ok(Json(ProcessList { total: processes.len(), online, processes }))
}

pub(super) async fn show(
    Reads(who): Reads,
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    mut parameters: Parameters,
) -> Result<Json<AppGroup>, ProblemResponse> {
    let pm2_home = parameters.pm2_home()?;
    parameters.end("pm2_home")?;
    let name = app_name(&name)?;
    who.see(&name, app.slots.served_by(&name))?;
    app.confirm().await;
    let mut instances = app.processes();
    instances.retain(|process| process.instance.name == name);
    instances.retain(|process| who.sees(&name, process.slot.as_ref()));
    only_of(&app, &mut instances, pm2_home.as_deref())?;
    if instances.is_empty() {
        app.homes.of_app(&name, pm2_home.as_deref()).map_err(|error| no_home(&error))?;
        return Err(no_home(&NoHome::UnknownApp(name)));
    }
    let online = instances.iter().filter(|process| process.status == Status::Online).count();
    Ok(Json(AppGroup { name, total: instances.len(), online, instances }))
}

/// Leaves those of one PM2, where one is meant.
fn only_of(
    app: &App,
    processes: &mut Vec<Process>,
    pm2_home: Option<&str>,
) -> Result<(), ProblemResponse> {
    let Some(path) = pm2_home else { return Ok(()) };
    let home = app.homes.named(path).map_err(|error| no_home(&error))?;
    processes.retain(|process| process.instance.pm2_home.as_deref() == home.label());
    Ok(())
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
    let pm2_home = parameters.pm2_home()?;
    parameters.end("wait, save, pm2_home")?;
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
    // Before the body is looked at, and with what it asks for.
    caller.may_control()?;
    let arguments = service::body::arguments(action, &body)?;
    let who = caller.control(action, arguments.keys())?;
    let name = app_name(&name)?;
    who.app(&name)?;
    super::slots::leaves_slots_alone(&app, &name, pm2_home.as_deref(), action)?;
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
    let pm2_home = pm2_home.map(Into::into);
    let request =
        CommandRequest { target, action, pm2_home, arguments, save, deploy: None, env: None };
    app.confirm().await;
    app.commands.put(id, request, name, who.into_name(), wait).await.map(answer).map_err(not_taken)
}

/// A name as it stands in a path. What cannot be a name names nothing.
pub(super) fn app_name(text: &str) -> Result<AppName, ProblemResponse> {
    text.parse()
        .map_err(|error: InvalidId| ProblemResponse::not_found("unknown_app", error.to_string()))
}
