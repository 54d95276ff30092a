//! Buttons: a page that asks, and what it posts to. The outcome is shown where the button was.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::FormRejection;
use axum::extract::{Form, FromRequest, FromRequestParts, Path, Request as HttpRequest, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Redirect, Response};
use dashboards::{ActionPage, Homes, outcome_path};
use serde_json::{Value, json};
use service::problem::{OnRecord, ProblemResponse};
use wire::{Action, AppName, ServerId, SlotId, Target};

use super::homes::homes;
use super::server::no_server;
use super::visitor::{Visitor, html, problem};
use crate::access::{Caller, same_origin};
use crate::app::App;
use crate::commands::{LONGEST, Order, Request};
use crate::http::Peer;
use crate::http::params::Params;

/// A page that comes back within this time shows the outcome at once; until then it says that
/// the command is under way, and goes on looking.
const WAIT: Duration = Duration::from_secs(5);

type Fields = Result<Form<BTreeMap<String, String>>, FormRejection>;

/// What the buttons of an app offer a visitor.
pub(super) fn of_apps(caller: &Caller) -> Vec<Action> {
    Action::ALL.into_iter().filter(|action| caller.may_act(*action)).collect()
}

/// The same for a slot.
pub(super) fn of_slots(caller: &Caller) -> Vec<Action> {
    Action::OF_SLOTS.into_iter().filter(|action| caller.may_act(*action)).collect()
}

/// A visitor who changes something from one of this poller's own pages.
pub(super) struct Changer(pub(super) Visitor);

impl FromRequestParts<Arc<App>> for Changer {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Response> {
        let visitor = Visitor::from_request_parts(parts, app).await?;
        if visitor.caller.by_session() && !same_origin(&parts.headers) {
            let detail = "changes are taken from this poller's own pages only";
            let refused = ProblemResponse::forbidden(detail);
            return Err(problem(visitor.page, refused.problem().clone()));
        }
        Ok(Self(visitor))
    }
}

pub(super) async fn ask_app(
    visitor: Visitor,
    State(app): State<Arc<App>>,
    Path((server, name, action)): Path<(String, String, String)>,
    params: Params,
) -> Response {
    ask(visitor, &app, (&server, app_target(&name), &action), params, BTreeMap::new()).await
}

pub(super) async fn ask_slot(
    visitor: Visitor,
    State(app): State<Arc<App>>,
    Path((server, slot, action)): Path<(String, String, String)>,
    mut params: Params,
) -> Response {
    // A link of the history names the deployment to go back to.
    let deployment = params.text("deployment").ok().flatten();
    let given = deployment.map(|id| ("deployment".to_owned(), id)).into_iter().collect();
    ask(visitor, &app, (&server, slot_target(&slot), &action), params, given).await
}

pub(super) async fn act_app(
    changer: Changer,
    State(app): State<Arc<App>>,
    peer: Peer,
    Path((server, name, action)): Path<(String, String, String)>,
    params: Params,
    request: HttpRequest,
) -> Response {
    act(changer, app, peer, (&server, app_target(&name), &action), params, request).await
}

pub(super) async fn act_slot(
    changer: Changer,
    State(app): State<Arc<App>>,
    peer: Peer,
    Path((server, slot, action)): Path<(String, String, String)>,
    params: Params,
    request: HttpRequest,
) -> Response {
    act(changer, app, peer, (&server, slot_target(&slot), &action), params, request).await
}

fn app_target(text: &str) -> Option<Target> {
    text.parse::<AppName>().ok().map(Target::App)
}

fn slot_target(text: &str) -> Option<Target> {
    text.parse::<SlotId>().ok().map(Target::Slot)
}

/// Where, to what, what, as the address has it.
type Named<'a> = (&'a str, Option<Target>, &'a str);

/// What is wanted.
struct Wanted {
    server: ServerId,
    target: Target,
    homes: Homes,
    action: Action,
}

/// The same: if there is such a thing, and the visitor may.
fn wanted(
    visitor: Visitor,
    app: &App,
    (server, target, action): Named<'_>,
    mut params: Params,
) -> Result<(Visitor, Wanted), Box<Response>> {
    let Some(member) = super::server::find(app, &visitor, server) else {
        return Err(Box::new(no_server(visitor, server)));
    };
    let Some(target) = target else {
        return Err(Box::new(visitor.not_found("Nothing can have that name.")));
    };
    let (all, offered) = match target {
        Target::App(_) => (&Action::ALL[..], of_apps(&visitor.caller)),
        Target::Slot(_) => (&Action::OF_SLOTS[..], of_slots(&visitor.caller)),
    };
    let Some(action) = all.iter().find(|it| it.as_str() == action).copied() else {
        return Err(Box::new(visitor.not_found("There is no such action.")));
    };
    if !offered.contains(&action) {
        let detail = format!(
            "You may not {action} anything here: that needs the role operator, and this action among yours."
        );
        let refused = ProblemResponse::forbidden(detail);
        return Err(Box::new(problem(visitor.page, refused.problem().clone())));
    }
    let homes = match &target {
        Target::App(name) => homes(&member, name, &mut params),
        Target::Slot(_) => Ok(Homes::default()),
    };
    match homes {
        Ok(homes) => {
            let server = member.target.id.clone();
            Ok((visitor, Wanted { server, target, homes, action }))
        }
        Err(wrong) => Err(Box::new(problem(visitor.page, wrong.problem().clone()))),
    }
}

async fn ask(
    visitor: Visitor,
    app: &App,
    named: Named<'_>,
    params: Params,
    given: BTreeMap<String, String>,
) -> Response {
    match wanted(visitor, app, named, params) {
        Err(response) => *response,
        Ok((visitor, wanted)) => {
            let mut form = form(app, visitor, wanted);
            form.given = given;
            if let (Action::Rollback, Target::Slot(slot)) = (form.action, &form.target) {
                let list = super::exporter::deployments(app, &form.server, slot).await;
                form.deployments = list.unwrap_or_default();
            }
            html(form.render())
        }
    }
}

fn form(app: &App, visitor: Visitor, wanted: Wanted) -> ActionPage {
    let Wanted { server, target, homes, action } = wanted;
    ActionPage {
        away: !app.fleet.is_online(&server),
        page: visitor.page,
        server,
        target,
        homes,
        action,
        given: BTreeMap::new(),
        problem: None,
        deployments: Vec::new(),
    }
}

async fn act(
    Changer(visitor): Changer,
    app: Arc<App>,
    Peer(address): Peer,
    named: Named<'_>,
    params: Params,
    request: HttpRequest,
) -> Response {
    let (visitor, wanted) = match wanted(visitor, &app, named, params) {
        Ok(wanted) => wanted,
        Err(response) => return *response,
    };
    if wanted.homes.is_open() {
        // Another PM2 has one of that name since the button was shown.
        let mut response = html(form(&app, visitor, wanted).render());
        *response.status_mut() = StatusCode::CONFLICT;
        return response;
    }
    let fields: Fields = Form::from_request(request, &app).await;
    let mut given = match fields {
        // A button without fields sends no body, and says of none what it is.
        Err(FormRejection::InvalidFormContentType(_)) => BTreeMap::new(),
        Err(rejection) => {
            let refused = ProblemResponse::new(
                rejection.status(),
                "bad_request",
                "the form could not be read",
            );
            return problem(visitor.page, refused.problem().clone());
        }
        Ok(Form(given)) => given,
    };
    // Forms send every field, and lines end in two characters.
    given.retain(|_, value| !value.trim().is_empty());
    let save = given.get("save").is_some_and(|value| value == "true");
    let queue = given.get("queue").map(|text| kept(text)).transpose();
    let Wanted { server, target, homes, action } = &wanted;
    let order = body(*action, &given)
        .map_err(ProblemResponse::bad_request)
        .and_then(|body| Order::read(*action, target, body.to_string().as_bytes(), save))
        .map(|order| order.in_home(homes.chosen().map(str::to_owned)));
    let caller = visitor.caller.clone();
    let submitted = match order.and_then(|order| Ok((order, queue?))) {
        Err(wrong) => Err(wrong),
        Ok((order, queue)) => {
            let (server, target, action) = (server.clone(), target.clone(), *action);
            let key = None;
            // Nobody need wait for a server that is away.
            let away = queue.is_some() && !app.fleet.is_online(&server);
            let wait = if away { Duration::ZERO } else { WAIT };
            let request = Request { server, target, action, order, queue, key, caller, address };
            app.commands.submit(request, wait).await
        }
    };
    match submitted {
        Ok(command) => {
            Redirect::to(&outcome_path(server, target, homes, &command.record.id)).into_response()
        }
        Err(wrong) => {
            let on_record = wrong.is_on_record();
            let wrong = wrong.problem().clone();
            let status = wrong.status;
            let mut form = form(&app, visitor, wanted);
            form.given = given;
            form.problem = Some(wrong.detail);
            let mut response = html(form.render());
            if on_record {
                response.extensions_mut().insert(OnRecord);
            }
            if let Ok(status) = StatusCode::from_u16(status) {
                *response.status_mut() = status;
            }
            response
        }
    }
}

/// How long a command is kept for a server that is away.
fn kept(text: &str) -> Result<Duration, ProblemResponse> {
    let kept = service::quantity::duration(text)
        .map_err(|wrong| ProblemResponse::bad_request(format!("queue: {wrong}")))?;
    if kept > LONGEST {
        let detail = format!("queue: {text:?} is too long: at most {LONGEST:?}");
        return Err(ProblemResponse::bad_request(detail));
    }
    Ok(kept)
}

/// The form as the JSON that the API takes: one reader for both.
fn body(action: Action, given: &BTreeMap<String, String>) -> Result<Value, String> {
    let field = |name: &str| given.get(name).map(|value| value.trim().to_owned());
    let truth = |name: &str| given.get(name).is_some_and(|value| value == "true");
    let env = || variables(given.get("env").map_or("", String::as_str));
    Ok(match action {
        Action::Scale => {
            let text = field("instances").unwrap_or_default();
            let number: u32 = text.parse().map_err(|_| {
                let shown: String = text.chars().take(40).collect();
                format!("instances: {shown:?} is not a number from 1 to 1000")
            })?;
            json!({ "instances": number })
        }
        Action::Env => json!({ "env": env()? }),
        Action::Signal => json!({ "signal": field("signal").unwrap_or_default() }),
        Action::Trigger => {
            json!({ "action": field("action").unwrap_or_default(), "params": field("params") })
        }
        Action::Deploy => {
            let mut body = json!({ "env": env()?, "reclaim": truth("reclaim") });
            let names = [
                "repository",
                "branch",
                "commit",
                "subdir",
                "install",
                "build",
                "start",
                "health_path",
            ];
            for (name, value) in names.into_iter().filter_map(|name| Some((name, field(name)?))) {
                body[name] = value.into();
            }
            body
        }
        Action::Rollback => {
            let mut body = json!({ "reclaim": truth("reclaim") });
            if let Some(deployment) = field("deployment") {
                body["deployment"] = deployment.into();
            }
            body
        }
        _ if truth("reclaim") => json!({ "reclaim": true }),
        _ => json!({}),
    })
}

/// `NAME=value`, a line each. What is wrong is told by the line's number: it may hold a secret.
fn variables(text: &str) -> Result<BTreeMap<String, String>, String> {
    let mut env = BTreeMap::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_end_matches('\r');
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((name, value)) = line.split_once('=') else {
            return Err(format!("env: line {} is not NAME=value", number + 1));
        };
        env.insert(name.trim().to_owned(), value.to_owned());
    }
    Ok(env)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_become_what_the_api_takes() {
        let given = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
        };
        let env = given(&[("env", "A=1\r\n\r\n# no\r\nB=x=y\r\n")]);
        assert_eq!(body(Action::Env, &env), Ok(json!({"env": {"A": "1", "B": "x=y"}})));
        let wrong = body(Action::Env, &given(&[("env", "A=1\nsecret")]));
        assert_eq!(wrong, Err("env: line 2 is not NAME=value".into()));
        assert_eq!(
            body(
                Action::Deploy,
                &given(&[("repository", " https://x/y.git "), ("reclaim", "true")])
            ),
            Ok(json!({"repository": "https://x/y.git", "reclaim": true, "env": {}}))
        );
        assert_eq!(body(Action::Restart, &given(&[("save", "true")])), Ok(json!({})));
        assert!(body(Action::Scale, &given(&[("instances", "many")])).is_err());
    }
}
