use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Redirect, Response};
use dashboards::{CommandPage, CommandsPage};
use wire::CommandStatus;

use super::act::Changer;
use super::visitor::{Visitor, html, problem};
use super::{ROWS, command_row};
use crate::access::Role;
use crate::app::App;
use crate::http::Peer;
use crate::http::filter;
use crate::http::params::{Params, Wrong};
use crate::store::{Canceller, Listed, StoredSelection};

pub(super) async fn show(
    visitor: Visitor,
    State(app): State<Arc<App>>,
    mut params: Params,
) -> Response {
    // The form shows what was asked for, even where that is wrong.
    let form = dashboards::CommandFilter {
        server: params.given("server"),
        app: params.given("app"),
        pm2_home: params.given("pm2_home"),
        status: filter::command_status(&params.given("status")).ok(),
        part_of: params.given("part_of"),
    };
    let paged = !params.given("cursor").is_empty();
    let wanted = filter::commands(&mut params, &visitor.caller)
        .and_then(|wanted| params.end().map(|()| wanted));
    let (commands, problem) = match wanted {
        Err(Wrong(message)) => (Listed { rows: Vec::new(), more: false }, Some(message)),
        Ok(mut wanted) => {
            wanted.limit = ROWS;
            match app.store.list_commands(&wanted).await {
                Ok(commands) => (commands, None),
                Err(error) => return visitor.store_failed(error),
            }
        }
    };
    let older = filter::older_commands(&commands);
    let whole = match form.part_of.parse() {
        Err(_) => None,
        Ok(id) => match app.store.selection(&id).await {
            Ok(whole) => whole.filter(|whole| all_visible(&visitor, whole)).map(|it| words(&it)),
            Err(error) => return visitor.store_failed(error),
        },
    };
    let commands = commands.rows.into_iter().map(command_row).collect();
    html(
        CommandsPage { page: visitor.page, filter: form, problem, whole, commands, older, paged }
            .render(),
    )
}

/// `/commands/{id}`
pub(super) async fn one(
    visitor: Visitor,
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Response {
    let unknown = "No command has that id.";
    let Ok(id) = id.parse() else { return visitor.not_found(unknown) };
    let command = match app.store.command(&id).await {
        Ok(command) => command.filter(|it| visitor.caller.may_see(&it.server)),
        Err(error) => return visitor.store_failed(error),
    };
    let Some(command) = command else {
        return match app.store.selection(&id).await {
            // Its parts, with a line about the whole.
            Ok(Some(whole)) if all_visible(&visitor, &whole) => {
                Redirect::to(&format!("/commands?part_of={id}")).into_response()
            }
            Ok(_) => visitor.not_found(unknown),
            Err(error) => visitor.store_failed(error),
        };
    };
    let may_cancel =
        visitor.caller.token().is_some() && visitor.caller.may_act(command.record.action);
    html(
        CommandPage {
            page: visitor.page,
            requested_from: command.requested_from.clone(),
            summary: command.summary.clone(),
            command: command_row(command),
            may_cancel,
        }
        .render(),
    )
}

fn all_visible(visitor: &Visitor, whole: &StoredSelection) -> bool {
    whole.parts.iter().all(|part| visitor.caller.may_see(&part.server))
}

/// `restart of app api by ci: succeeded, 3 of 3 servers`
fn words(whole: &StoredSelection) -> String {
    let done = |part: &&crate::store::Part| part.status == CommandStatus::Succeeded;
    let mut words = format!(
        "{} of {} by {}: {}, {} of {} servers",
        whole.action,
        whole.target,
        whole.requested_by,
        whole.status.as_str(),
        whole.parts.iter().filter(done).count(),
        whole.parts.len()
    );
    if let Some(error) = &whole.error {
        words.push_str(&format!(" ({error})"));
    }
    words
}

/// `POST /commands/{id}/cancel`
pub(super) async fn cancel(
    Changer(visitor): Changer,
    State(app): State<Arc<App>>,
    Peer(address): Peer,
    Path(id): Path<String>,
) -> Response {
    let unknown = "No command has that id.";
    if let Err(refused) = visitor.caller.require(Role::Operator) {
        return problem(visitor.page, refused.problem().clone());
    }
    let Ok(id) = id.parse() else { return visitor.not_found(unknown) };
    let command = match app.store.command(&id).await {
        Ok(command) => command.filter(|it| visitor.caller.may_see(&it.server)),
        Err(error) => return visitor.store_failed(error),
    };
    let Some(command) = command else { return visitor.not_found(unknown) };
    if let Err(refused) = visitor.caller.require_action(command.record.action) {
        return problem(visitor.page, refused.problem().clone());
    }
    let by = Canceller {
        who: visitor.caller.name().to_owned(),
        via: visitor.caller.via(),
        address: address.to_string(),
    };
    match app.commands.cancel(&command, by).await {
        // One that was sent meanwhile shows so.
        Ok(_) => Redirect::to(&format!("/commands/{id}")).into_response(),
        Err(failed) => problem(visitor.page, failed.problem().clone()),
    }
}
