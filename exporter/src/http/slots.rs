use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use service::body::parse;
use service::problem::ProblemResponse;
use wire::{
    Action, AppName, CommandId, CommandRecord, CommandRequest, CommandStatus, DeployRequest,
    Deployment, DeploymentList, EnvRequest, InvalidId, Slot, SlotId, SlotList, SlotRequest,
    SlotType,
};

use super::Reads;
use super::body::Body;
use super::query::{NoParameters, Parameters, shown};
use crate::access::{Scope, Who};
use crate::app::App;
use crate::slots::ask::{Ask, NotTaken, new_id};

/// Whoever asks for a change of a slot: may control, or deploy, or both.
pub(super) struct Caller {
    control: Result<Who, ProblemResponse>,
    deploy: Result<Who, ProblemResponse>,
}

impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = ProblemResponse;

    async fn from_request_parts(
        parts: &mut Parts,
        app: &Arc<App>,
    ) -> Result<Self, ProblemResponse> {
        let check = |scope| app.check(&parts.headers, scope);
        let caller = Self { control: check(Scope::Control), deploy: check(Scope::Deploy) };
        match (&caller.control, &caller.deploy) {
            (Err(error), Err(_)) => Err(error.clone()),
            _ => Ok(caller),
        }
    }
}

impl Caller {
    /// The same, asking for somebody else.
    pub(super) fn on_behalf_of(self, other: &str) -> Self {
        let named = |who: Result<Who, _>| who.map(|who| who.on_behalf_of(other));
        Self { control: named(self.control), deploy: named(self.deploy) }
    }

    /// Whether they may do anything to processes of apps.
    pub(super) fn may_control(&self) -> Result<(), ProblemResponse> {
        self.control.as_ref().map(drop).map_err(Clone::clone)
    }

    /// Who asks, if they may do this to processes of apps. Whoever sets variables that run code
    /// deploys with them.
    pub(super) fn control<'a>(
        self,
        action: Action,
        mut arguments: impl Iterator<Item = &'a String>,
    ) -> Result<Who, ProblemResponse> {
        let who = self.control?;
        if action == Action::Env
            && self.deploy.is_err()
            && let Some(name) = arguments.find(|name| wire::loads_code(name))
        {
            return Err(ProblemResponse::forbidden(format!(
                "env: {:?} makes a process run other code: it needs the scope deploy beside \
                 control, which this token lacks",
                shown(name)
            )));
        }
        Ok(who)
    }

    /// Name of who asks, if they may do this to this slot.
    fn may(self, action: Action, slot: &SlotId) -> Result<String, ProblemResponse> {
        let who = match action {
            // What an application is given is a part of what is deployed.
            Action::Deploy | Action::Env => self.deploy,
            _ => self.control.or(self.deploy),
        }?;
        who.slot(slot)?;
        Ok(who.into_name())
    }
}

pub(super) async fn list(
    Reads(who): Reads,
    _: NoParameters,
    State(app): State<Arc<App>>,
) -> Json<SlotList> {
    let processes = app.processes();
    let mut slots = app.slots(&processes);
    slots.retain(|slot| who.reaches_slot(&slot.slot));
    Json(SlotList { slots })
}

pub(super) async fn show(
    Reads(who): Reads,
    _: NoParameters,
    State(app): State<Arc<App>>,
    Path(slot): Path<String>,
) -> Result<Json<Slot>, ProblemResponse> {
    find(&app, &who, &slot).map(Json)
}

fn find(app: &App, who: &Who, slot: &str) -> Result<Slot, ProblemResponse> {
    let slot = slot_id(slot)?;
    who.slot(&slot)?;
    let slots = app.slots(&app.processes());
    let names: Vec<&str> = slots.iter().map(|slot| slot.slot.as_str()).collect();
    let message = format!("there is no slot {slot:?}; there are: {}", names.join(", "));
    slots
        .into_iter()
        .find(|known| known.slot == slot)
        .ok_or_else(|| ProblemResponse::not_found("unknown_slot", message))
}

pub(super) fn slot_id(text: &str) -> Result<SlotId, ProblemResponse> {
    text.parse()
        .map_err(|error: InvalidId| ProblemResponse::not_found("unknown_slot", error.to_string()))
}

/// `POST /api/slots/{slot}/{deploy|stop|restart|rollback}`
pub(super) async fn act(
    caller: Caller,
    State(app): State<Arc<App>>,
    Path((slot, action)): Path<(String, String)>,
    mut parameters: Parameters,
    Body(body): Body,
) -> Result<Response, ProblemResponse> {
    let wait = parameters.wait()?;
    parameters.end("wait")?;
    // Variables have a path of their own.
    let is_one = |action: &Action| Action::OF_SLOTS.contains(action) && *action != Action::Env;
    let action: Action = action.parse().ok().filter(is_one).ok_or_else(|| {
        let message = format!(
            "{:?} is not an action of slots: deploy, stop, restart or rollback; PUT …/env",
            shown(&action)
        );
        ProblemResponse::not_found("unknown_action", message)
    })?;
    let slot = slot_id(&slot)?;
    let by = caller.may(action, &slot)?;
    let id = new_id().map_err(internal)?;
    let ask = match action {
        Action::Deploy => Ask::Deploy(Box::new(deploy_body(&body)?)),
        _ => Ask::Other(action, parse(&body, "{}")?),
    };
    let default = if action == Action::Deploy { Duration::ZERO } else { Duration::from_secs(30) };
    let manager = app.slots.manager();
    let record =
        manager.put(&slot, id, ask, by, wait.unwrap_or(default)).await.map_err(not_taken)?;
    if action != Action::Deploy {
        return Ok(super::commands::answer(record));
    }
    let deployment = manager.deployment(&slot, &record.id).map_err(not_taken)?;
    Ok(answer(deployment))
}

/// 200 when it has ended, 202 while it has not.
fn answer(deployment: Deployment) -> Response {
    if deployment.status.is_final() {
        return Json(deployment).into_response();
    }
    let path = format!("/api/slots/{}/deployments/{}", deployment.slot, deployment.id);
    let mut response = (StatusCode::ACCEPTED, Json(deployment)).into_response();
    if let Ok(location) = HeaderValue::from_str(&path) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

/// Reads a deployment's body. What is wrong is told without what was sent: it holds secrets.
fn deploy_body(body: &[u8]) -> Result<DeployRequest, ProblemResponse> {
    parse(body, "{\"repository\":\"https://…\"}")
}

fn env_body(body: &[u8]) -> Result<EnvRequest, ProblemResponse> {
    parse(body, "{\"env\":{\"NAME\":\"value\",\"OLD\":null}}")
}

/// `PUT /api/slots/{slot}/env`
pub(super) async fn put_env(
    caller: Caller,
    State(app): State<Arc<App>>,
    Path(slot): Path<String>,
    mut parameters: Parameters,
    Body(body): Body,
) -> Result<Response, ProblemResponse> {
    let wait = parameters.wait()?.unwrap_or(Duration::from_secs(30));
    let restart = parameters.truth("restart")?.unwrap_or(true);
    parameters.end("wait, restart")?;
    let slot = slot_id(&slot)?;
    let by = caller.may(Action::Env, &slot)?;
    let request = env_body(&body)?;
    let manager = app.slots.manager();
    if !restart {
        let names = manager.set_env(&slot, &request).map_err(not_taken)?;
        return Ok(Json(json!({"slot": slot, "env_names": names})).into_response());
    }
    let id = new_id().map_err(internal)?;
    let record = manager.put(&slot, id, Ask::Env(request), by, wait).await.map_err(not_taken)?;
    Ok(super::commands::answer(record))
}

/// `PUT /api/commands/{id}` of a slot.
pub(super) async fn command(
    caller: Caller,
    app: &Arc<App>,
    id: CommandId,
    slot: &SlotId,
    request: CommandRequest,
    wait: Duration,
) -> Result<Response, ProblemResponse> {
    let by = caller.may(request.action, slot)?;
    in_first_home(app, request.pm2_home.as_deref())?;
    if app.commands.get(&id).is_some() {
        return Err(not_taken(NotTaken::Reused(id)));
    }
    let wrong = |message: String| ProblemResponse::bad_request(message);
    let mut other = SlotRequest::default();
    for (name, value) in &request.arguments {
        match (name.as_str(), value.as_str()) {
            ("reclaim", "true") => other.reclaim = true,
            ("reclaim", "false") => {}
            ("deployment", id) if request.action == Action::Rollback => {
                let id = id.parse().map_err(|error: InvalidId| wrong(error.to_string()))?;
                other.deployment = Some(id);
            }
            _ => {
                let name = shown(name);
                return Err(wrong(format!(
                    "arguments: {name:?} is not an argument of {} (reclaim: true or false; \
                     deployment, for rollback; a deployment stands in \"deploy\")",
                    request.action
                )));
            }
        }
    }
    if request.env.is_some() && request.action != Action::Env {
        return Err(wrong(format!("env: {} takes none", request.action)));
    }
    let ask = match (request.action, request.deploy) {
        (Action::Deploy, Some(mut deploy)) => {
            deploy.reclaim |= other.reclaim;
            Ask::Deploy(deploy)
        }
        (Action::Deploy, None) => {
            return Err(wrong("deploy: is missing; expected is {\"repository\":\"…\"}".to_owned()));
        }
        (_, Some(_)) => {
            return Err(wrong(format!("deploy: {} takes none", request.action)));
        }
        (Action::Env, None) => match request.env {
            Some(_) if other.reclaim => {
                return Err(wrong("arguments: env takes none".to_owned()));
            }
            Some(env) => Ask::Env(env),
            None => {
                let message = "env: is missing; expected is {\"env\":{\"NAME\":\"value\"}}";
                return Err(wrong(message.to_owned()));
            }
        },
        (action, None) => Ask::Other(action, other),
    };
    let record = app.slots.manager().put(slot, id, ask, by, wait).await.map_err(not_taken)?;
    Ok(super::commands::answer(record))
}

pub(super) async fn deployments(
    Reads(who): Reads,
    _: NoParameters,
    State(app): State<Arc<App>>,
    Path(slot): Path<String>,
) -> Result<Json<DeploymentList>, ProblemResponse> {
    let slot = slot_id(&slot)?;
    who.slot(&slot)?;
    let deployments = app.slots.manager().deployments(&slot).map_err(not_taken)?;
    Ok(Json(DeploymentList { deployments }))
}

pub(super) async fn deployment(
    Reads(who): Reads,
    _: NoParameters,
    State(app): State<Arc<App>>,
    Path((slot, id)): Path<(String, String)>,
) -> Result<Json<Deployment>, ProblemResponse> {
    let slot = slot_id(&slot)?;
    who.slot(&slot)?;
    app.slots.manager().deployment(&slot, &id).map(Json).map_err(not_taken)
}

/// `POST /api/restart/{slot}`, as the old admin panel asks.
pub(super) async fn old_restart(
    caller: Caller,
    State(app): State<Arc<App>>,
    Path(slot): Path<String>,
) -> Result<Response, ProblemResponse> {
    old(caller, &app, &slot, Action::Restart).await
}

/// An action of the old admin panel on a bare slot id.
pub(super) async fn old(
    caller: Caller,
    app: &Arc<App>,
    slot: &str,
    action: Action,
) -> Result<Response, ProblemResponse> {
    let slot = slot_id(slot)?;
    let by = caller.may(action, &slot)?;
    let id = new_id().map_err(internal)?;
    let ask = Ask::Other(action, SlotRequest::default());
    let wait = Duration::from_secs(60);
    let record = app.slots.manager().put(&slot, id, ask, by, wait).await.map_err(not_taken)?;
    let done = if action == Action::Stop {
        "stopped and restored to placeholder"
    } else {
        "restarted successfully"
    };
    let (status, body) = match old_outcome(&record) {
        Ok(true) => (
            StatusCode::OK,
            json!({"success": true, "message": format!("Slot {slot} {done}"), "command": record.id}),
        ),
        Ok(false) => (
            StatusCode::ACCEPTED,
            json!({"success": true, "message": format!("Slot {slot}: under way"), "command": record.id}),
        ),
        Err(reason) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            json!({"success": false, "error": format!("Failed to {action} slot {slot}"), "details": reason}),
        ),
    };
    Ok((status, Json(body)).into_response())
}

fn old_outcome(record: &CommandRecord) -> Result<bool, String> {
    match record.status {
        CommandStatus::Succeeded => Ok(true),
        CommandStatus::Queued | CommandStatus::Running => Ok(false),
        _ => Err(record.error.clone().unwrap_or_default()),
    }
}

/// `GET /api/processes/{slot}/status`, as the old admin panel asks.
pub(super) async fn old_status(
    Reads(who): Reads,
    State(app): State<Arc<App>>,
    Path((slot, word)): Path<(String, String)>,
) -> Result<Response, ProblemResponse> {
    if word != "status" {
        return Err(ProblemResponse::not_found("unknown_path", "there is nothing here to read"));
    }
    let slot = find(&app, &who, &slot)?;
    let processes = app.processes();
    let process = processes.iter().find(|process| process.slot.as_ref() == Some(&slot.slot));
    let more = slot.more.clone().unwrap_or_default();
    let body = json!({
        "pm2": process.map(|process| json!({
            "name": process.instance.name,
            "status": process.status,
            "cpu": process.readings.cpu_seconds,
            "memory": process.readings.memory_bytes,
            "uptime": process.started_at.map(|time| time.as_millis()),
            "restarts": process.restarts.total(),
            "pid": process.pid,
        })),
        "slot": {
            "repository": slot.repository,
            "branch": slot.branch,
            "status": if slot.kind == SlotType::Deployed { "deployed" } else { "empty" },
            "lastDeployment": slot.deployed_at,
            "port": slot.port,
        },
        "type": slot.kind,
        "url": more.url,
    });
    Ok(Json(body).into_response())
}

/// Whether an action on the process of a slot leaves the slot what it is: one process, the
/// slot's own.
///
/// # Errors
/// 409 that says what to ask for instead.
pub(super) fn leaves_slots_alone(
    app: &App,
    name: &AppName,
    pm2_home: Option<&str>,
    action: Action,
) -> Result<(), ProblemResponse> {
    let first = app.homes.first();
    // What is found nowhere is the slot's own, which is not there now.
    if app.homes.of_app(name, pm2_home).is_ok_and(|home| !Arc::ptr_eq(home, first)) {
        return Ok(());
    }
    let Some(slot) = app.slots.served_by(name.as_str()).filter(|_| app.slots.configured()) else {
        return Ok(());
    };
    let instead = match action {
        Action::Stop | Action::Delete => format!(
            "POST /api/slots/{slot}/stop puts the placeholder there; 'pm2-exporter slots down' \
             stops all slots"
        ),
        Action::Scale => "a slot has exactly one process".to_owned(),
        Action::Env => format!("PUT /api/slots/{slot}/env sets variables that last"),
        _ => return Ok(()),
    };
    let message = format!("{name} serves slot {slot}, so {action} is not done to it: {instead}");
    Err(ProblemResponse::new(StatusCode::CONFLICT, "conflict", message))
}

/// Slots are the first PM2's.
pub(super) fn in_first_home(app: &App, pm2_home: Option<&str>) -> Result<(), ProblemResponse> {
    let Some(path) = pm2_home else { return Ok(()) };
    let home = app.homes.named(path).map_err(|error| super::error::no_home(&error))?;
    let first = app.homes.first();
    if Arc::ptr_eq(home, first) {
        return Ok(());
    }
    let first = first.path().display();
    Err(ProblemResponse::bad_request(format!("pm2_home: {path:?} has no slots; {first} has them")))
}

fn internal(message: String) -> ProblemResponse {
    ProblemResponse::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message)
}

pub(super) fn not_taken(error: NotTaken) -> ProblemResponse {
    let (status, kind) = match &error {
        NotTaken::UnknownSlot(..) => (StatusCode::NOT_FOUND, "unknown_slot"),
        NotTaken::UnknownDeployment(..) => (StatusCode::NOT_FOUND, "unknown_deployment"),
        NotTaken::Wrong(_) => (StatusCode::BAD_REQUEST, "bad_request"),
        NotTaken::Reused(_) => (StatusCode::UNPROCESSABLE_ENTITY, "id_reused"),
        NotTaken::Busy => (StatusCode::SERVICE_UNAVAILABLE, "busy"),
        NotTaken::Conflict(_) => (StatusCode::CONFLICT, "conflict"),
        NotTaken::Storage(_) => (StatusCode::SERVICE_UNAVAILABLE, "storage"),
    };
    ProblemResponse::new(status, kind, error.to_string())
}
