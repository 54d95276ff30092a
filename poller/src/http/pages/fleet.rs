use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use dashboards::{FleetFilter, FleetPage};

use super::visitor::{Visitor, html, problem};
use super::{LATEST, event_row, look_back, server};
use crate::app::App;
use crate::http::filter::ServerFilter;
use crate::http::params::{Params, Wrong};
use crate::store::EventFilter;

pub(super) async fn show(
    visitor: Visitor,
    State(app): State<Arc<App>>,
    params: Params,
) -> Response {
    let filter = match read(params) {
        Ok(filter) => filter,
        Err(wrong) => {
            let wrong = service::problem::ProblemResponse::from(wrong);
            return problem(visitor.page, wrong.problem().clone());
        }
    };
    let stale_after = app.fleet.stale_after();
    let mut members = app.fleet.all();
    members.retain(|member| visitor.caller.may_see(&member.target.id));
    let groups: BTreeSet<String> = members
        .iter()
        .map(|member| member.target.group.clone())
        .filter(|group| !group.is_empty())
        .collect();
    let tags: BTreeSet<String> =
        members.iter().flat_map(|member| member.target.tags.iter().cloned()).collect();
    let registered = members.len();
    members.retain(|member| filter.lets_through(member, stale_after));
    let mut past = match look_back(&app, &visitor).await {
        Ok(past) => past,
        Err(error) => return visitor.store_failed(error),
    };
    let shown = (members.len() < registered || visitor.caller.servers().is_some())
        .then(|| members.iter().map(|member| member.target.id.clone()).collect());
    let latest = EventFilter { visible: shown, limit: LATEST, ..EventFilter::default() };
    let events = match app.store.events(&latest).await {
        Ok(events) => events,
        Err(error) => return visitor.store_failed(error),
    };
    html(
        FleetPage {
            page: visitor.page,
            filter: FleetFilter {
                group: filter.group.unwrap_or_default(),
                tag: filter.tag.unwrap_or_default(),
                status: filter.status,
                q: filter.q.unwrap_or_default(),
            },
            servers: members.iter().map(|member| server(&app, member, &mut past)).collect(),
            registered,
            alerts: past.alerts.remove(&None).unwrap_or_default(),
            groups: groups.into_iter().collect(),
            tags: tags.into_iter().collect(),
            events: events.into_iter().map(event_row).collect(),
        }
        .render(),
    )
}

fn read(mut params: Params) -> Result<ServerFilter, Wrong> {
    let filter = ServerFilter::read(&mut params)?;
    params.end()?;
    Ok(filter)
}
