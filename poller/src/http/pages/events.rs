use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use dashboards::{EventPage, EventsPage};

use super::visitor::{Visitor, html};
use super::{ROWS, event_row};
use crate::app::App;
use crate::http::filter;
use crate::http::params::{Params, Wrong};
use crate::store::{EventFilter, Listed};

pub(super) async fn show(
    visitor: Visitor,
    State(app): State<Arc<App>>,
    mut params: Params,
) -> Response {
    // The form shows what was asked for, even where that is wrong.
    let form = dashboards::EventFilter {
        server: params.given("server"),
        app: params.given("app"),
        pm2_home: params.given("pm2_home"),
        kind: params.given("kind"),
        severity: filter::severity(&params.given("severity")).ok(),
        since: params.given("since"),
    };
    let paged = !params.given("cursor").is_empty();
    let wanted = filter::listed_events(&mut params, &visitor.caller)
        .and_then(|wanted| params.end().map(|()| wanted));
    let (events, problem) = match wanted {
        Err(Wrong(message)) => (Listed { rows: Vec::new(), more: false }, Some(message)),
        Ok(mut wanted) => {
            wanted.limit = ROWS;
            match app.store.list_events(&wanted).await {
                Ok(events) => (events, None),
                Err(error) => return visitor.store_failed(error),
            }
        }
    };
    let older = filter::older_events(&events);
    let events = events.rows.into_iter().map(event_row).collect();
    html(EventsPage { page: visitor.page, filter: form, problem, events, older, paged }.render())
}

/// Events shown around one: half before, half after.
const AROUND: usize = 5;
/// What happened longer after an event is not around it, in milliseconds.
const AFTER: i64 = 10 * 60 * 1000;

/// `/events/{id}`
pub(super) async fn one(
    visitor: Visitor,
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Response {
    let unknown = "No event has that number, or it is no longer kept.";
    let Ok(id) = id.parse::<i64>() else { return visitor.not_found(unknown) };
    let event = match app.store.event(id).await {
        Ok(event) => event.filter(|it| visitor.caller.may_see(&it.server)),
        Err(error) => return visitor.store_failed(error),
    };
    let Some(event) = event else { return visitor.not_found(unknown) };
    let since = EventFilter {
        server: Some(event.server.clone()),
        since: Some(event.time),
        before: Some((event.time.plus_millis(AFTER), i64::MAX)),
        limit: 20 * AROUND,
        ..EventFilter::default()
    };
    let before = EventFilter {
        server: Some(event.server.clone()),
        before: Some((event.time, event.id)),
        limit: AROUND,
        ..EventFilter::default()
    };
    let read = async {
        let after = app.store.events(&since).await?;
        Ok((after, app.store.events(&before).await?))
    };
    let (mut around, before) = match read.await {
        Ok(read) => read,
        Err(error) => return visitor.store_failed(error),
    };
    // Newest first: those nearest to it are the last ones.
    around.retain(|it| (it.time, it.id) >= (event.time, event.id));
    let far = around.len().saturating_sub(AROUND + 1);
    around.drain(..far);
    around.extend(before);
    html(
        EventPage {
            page: visitor.page,
            event: event_row(event),
            around: around.into_iter().map(event_row).collect(),
        }
        .render(),
    )
}
