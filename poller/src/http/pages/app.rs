use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use dashboards::AppPage;
use dashboards::chart::{Chart, MAX_SERIES, Point, Series, Unit};
use wire::{AppName, Time};

use super::server::{find, no_server};
use super::visitor::{Visitor, html};
use super::{LATEST, command_row, crashes, event_row, server};
use crate::app::App;
use crate::store::{CommandFilter, EventFilter, HistoryQuery, Series as Stored};

const HOUR: i64 = 3_600_000;
const STEP: i64 = 30_000;

pub(super) async fn show(
    visitor: Visitor,
    State(app): State<Arc<App>>,
    Path((id, name)): Path<(String, String)>,
) -> Response {
    let Some(member) = find(&app, &visitor, &id) else { return no_server(visitor, &id) };
    let Ok(name) = name.parse::<AppName>() else {
        return visitor.not_found("No app can have that name.");
    };
    let id = member.target.id.clone();
    let to = Time::now();
    let query = HistoryQuery {
        server: id.clone(),
        app: name.clone(),
        metrics: vec!["cpu".to_owned(), "memory".to_owned()],
        from: to.plus_millis(-HOUR),
        to,
        step_millis: STEP,
    };
    let latest = EventFilter {
        server: Some(id.clone()),
        app: Some(name.to_string()),
        limit: LATEST,
        ..EventFilter::default()
    };
    let done = CommandFilter {
        server: Some(id),
        app: Some(name.to_string()),
        limit: LATEST,
        ..CommandFilter::default()
    };
    let read = async {
        let history = app.store.history(&query).await?;
        let events = app.store.events(&latest).await?;
        let commands = app.store.commands(&done).await?;
        Ok((history, events, commands, crashes(&app).await?))
    };
    let (history, events, commands, mut crashes) = match read.await {
        Ok(read) => read,
        Err(error) => return visitor.store_failed(error),
    };
    let there = member
        .state
        .as_ref()
        .is_some_and(|state| state.processes.iter().any(|it| it.instance.name == name));
    if !there && history.is_empty() && events.is_empty() && commands.is_empty() {
        let detail = format!("{} has no app named {:?}.", member.target.id, name.as_str());
        return visitor.not_found(detail);
    }
    let chart = |title: &str, metric: &str, unit| Chart {
        title: title.to_owned(),
        unit,
        from: query.from,
        to: query.to,
        step_millis: STEP,
        series: history
            .iter()
            .filter(|it| it.metric == metric)
            .take(MAX_SERIES)
            .map(line)
            .collect(),
    };
    html(
        AppPage {
            page: visitor.page,
            server: server(&app, &member, &mut crashes),
            app: name.clone(),
            process_cpu: (*member.cpu).clone(),
            charts: vec![chart("CPU", "cpu", Unit::Cores), chart("Memory", "memory", Unit::Bytes)],
            events: events.into_iter().map(event_row).collect(),
            commands: commands.into_iter().map(command_row).collect(),
        }
        .render(),
    )
}

fn line(stored: &Stored) -> Series {
    Series {
        label: format!("instance {}", stored.instance.instance_id),
        points: stored
            .points
            .iter()
            .map(|it| Point { time: it.time, min: it.min, mean: it.mean, max: it.max })
            .collect(),
    }
}
