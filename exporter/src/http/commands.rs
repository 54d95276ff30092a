use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use service::problem::ProblemResponse;
use wire::{Action, AppName, CommandId, CommandRecord, CommandRequest, InvalidId, Target};

use super::Reads;
use super::body::Body;
use super::error::not_taken;
use super::query::Parameters;
use crate::access::Who;
use crate::app::App;
use service::body::parse;

pub(super) async fn put(
    mut caller: super::slots::Caller,
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    mut parameters: Parameters,
    Body(body): Body,
) -> Result<Response, ProblemResponse> {
    let wait = parameters.wait()?.unwrap_or(Duration::ZERO);
    if let Some(by) = parameters.by()? {
        caller = caller.on_behalf_of(&by);
    }
    parameters.end("wait, by")?;
    let id: CommandId =
        id.parse().map_err(|error: InvalidId| ProblemResponse::bad_request(error.to_string()))?;
    let request: CommandRequest =
        parse(&body, "{\"target\":{\"app\":\"name\"},\"action\":\"restart\"}")?;
    if let Target::Slot(slot) = request.target.clone()
        && Action::OF_SLOTS.contains(&request.action)
    {
        return super::slots::command(caller, &app, id, &slot, request, wait).await;
    }
    let who = caller.control(request.action, request.arguments.keys())?;
    reaches(&who, &request.target)?;
    if let Target::Slot(_) = &request.target {
        // Elsewhere a slot's name is one like any other.
        super::slots::in_first_home(&app, request.pm2_home.as_deref())?;
    }
    let name = target_app(&app, &request.target)?;
    super::slots::leaves_slots_alone(&app, &name, request.pm2_home.as_deref(), request.action)?;
    app.confirm().await;
    app.commands.put(id, request, name, who.into_name(), wait).await.map(answer).map_err(not_taken)
}

pub(super) async fn show(
    Reads(who): Reads,
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Json<CommandRecord>, ProblemResponse> {
    let unknown = || {
        let shown = super::query::shown(&id);
        ProblemResponse::not_found("unknown_command", format!("no command {shown:?} is known"))
    };
    let id: CommandId = id.parse().map_err(|_: InvalidId| unknown())?;
    let known = app.commands.get(&id).or_else(|| app.slots.manager().command(&id));
    let record = known.ok_or_else(unknown)?;
    reaches(&who, &record.target)?;
    Ok(Json(record))
}

/// Whether the limits of who asks reach a target.
fn reaches(who: &Who, target: &Target) -> Result<(), ProblemResponse> {
    match target {
        Target::App(name) => who.app(name),
        Target::Slot(slot) => who.slot(slot),
    }
}

/// The app that a target means.
fn target_app(app: &App, target: &Target) -> Result<AppName, ProblemResponse> {
    match target {
        Target::App(name) => Ok(name.clone()),
        Target::Slot(slot) => {
            app.slots.place(slot).and_then(|place| place.process()).ok_or_else(|| {
                ProblemResponse::not_found("unknown_slot", format!("there is no slot {slot:?}"))
            })
        }
    }
}

/// 200 when it has ended, 202 while it has not.
pub(super) fn answer(record: CommandRecord) -> Response {
    if record.status.is_final() {
        return Json(record).into_response();
    }
    let location = HeaderValue::from_str(&format!("/api/commands/{}", record.id));
    let mut response = (StatusCode::ACCEPTED, Json(record)).into_response();
    if let Ok(location) = location {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}
