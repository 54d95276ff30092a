use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use dashboards::ServerPage;
use wire::{ServerId, Time};

use super::visitor::{Visitor, html};
use super::{LATEST, charts, command_row, event_row, look_back, server};
use crate::app::App;
use crate::fleet::Member;
use crate::http::params::Params;
use crate::store::{CommandFilter, EventFilter};

pub(super) async fn show(
    visitor: Visitor,
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    mut params: Params,
) -> Response {
    let Some(member) = find(&app, &visitor, &id) else { return no_server(visitor, &id) };
    let id = member.target.id.clone();
    let latest = EventFilter { server: Some(id.clone()), limit: LATEST, ..EventFilter::default() };
    let done =
        CommandFilter { server: Some(id.clone()), limit: LATEST, ..CommandFilter::default() };
    let read = async {
        let events = app.store.events(&latest).await?;
        let commands = app.store.commands(&done).await?;
        Ok((events, commands, look_back(&app, &visitor).await?))
    };
    let (events, commands, mut past) = match read.await {
        Ok(read) => read,
        Err(error) => return visitor.store_failed(error),
    };
    let range = charts::range(&mut params);
    let over_time = charts::over_time(&app, &id, None, range, Time::now()).await;
    html(
        ServerPage {
            page: visitor.page,
            server: server(&app, &member, &mut past),
            process_cpu: (*member.cpu).clone(),
            over_time,
            events: events.into_iter().map(event_row).collect(),
            commands: commands.into_iter().map(command_row).collect(),
        }
        .render(),
    )
}

pub(super) fn find(app: &App, visitor: &Visitor, id: &str) -> Option<Member> {
    let id: ServerId = id.parse().ok()?;
    app.fleet.get(&id).filter(|_| visitor.caller.may_see(&id))
}

pub(super) fn no_server(visitor: Visitor, id: &str) -> Response {
    let shown: String = id.chars().take(128).collect();
    visitor.not_found(format!("No server is called {shown:?}."))
}
