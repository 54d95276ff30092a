use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use dashboards::AppPage;
use wire::{AppName, Time};

use super::server::{find, no_server};
use super::visitor::{Visitor, html, problem};
use super::{LATEST, act, charts, command_row, done, event_row, homes, look_back, server};
use crate::app::App;
use crate::http::params::Params;
use crate::store::{CommandFilter, EventFilter};

/// Latest exceptions shown.
const EXCEPTIONS: usize = 5;

pub(super) async fn show(
    visitor: Visitor,
    State(app): State<Arc<App>>,
    Path((id, name)): Path<(String, String)>,
    mut params: Params,
) -> Response {
    let Some(member) = find(&app, &visitor, &id) else { return no_server(visitor, &id) };
    let Ok(name) = name.parse::<AppName>() else {
        return visitor.not_found("No app can have that name.");
    };
    let homes = match homes::homes(&member, &name, &mut params) {
        Ok(homes) => homes,
        Err(wrong) => return problem(visitor.page, wrong.problem().clone()),
    };
    let id = member.target.id.clone();
    let range = charts::range(&mut params);
    let latest = EventFilter {
        server: Some(id.clone()),
        app: Some(name.to_string()),
        pm2_home: homes.chosen().map(str::to_owned),
        limit: LATEST,
        ..EventFilter::default()
    };
    let thrown =
        EventFilter { kind: Some("exception".to_owned()), limit: EXCEPTIONS, ..latest.clone() };
    let past = CommandFilter {
        server: Some(id.clone()),
        app: Some(name.to_string()),
        pm2_home: homes.chosen().map(str::to_owned),
        limit: LATEST,
        ..CommandFilter::default()
    };
    let read = async {
        let events = app.store.events(&latest).await?;
        let commands = app.store.commands(&past).await?;
        let exceptions = app.store.events(&thrown).await?;
        let server = server(&app, &member, &mut look_back(&app, &visitor).await?);
        Ok((events, commands, exceptions, server))
    };
    let (events, commands, exceptions, server) = match read.await {
        Ok(read) => read,
        Err(error) => return visitor.store_failed(error),
    };
    let just = match done(&app, &visitor, &mut params).await {
        Ok(done) => done,
        Err(error) => return visitor.store_failed(error),
    };
    let over_time =
        charts::over_time(&app, &id, Some((&name, homes.chosen())), range, Time::now()).await;
    let there = member
        .state
        .as_ref()
        .is_some_and(|state| state.processes.iter().any(|it| it.instance.name == name));
    let known = !over_time.charts.is_empty() || over_time.problem.is_some();
    if !there && !known && events.is_empty() && commands.is_empty() {
        let detail = format!("{} has no app named {:?}.", member.target.id, name.as_str());
        return visitor.not_found(detail);
    }
    html(
        AppPage {
            may: act::of_apps(&visitor.caller),
            page: visitor.page,
            done: just,
            server,
            app: name,
            homes,
            process_cpu: (*member.cpu).clone(),
            over_time,
            exceptions: exceptions.into_iter().map(event_row).collect(),
            events: events.into_iter().map(event_row).collect(),
            commands: commands.into_iter().map(command_row).collect(),
        }
        .render(),
    )
}
