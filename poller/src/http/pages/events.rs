use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use dashboards::EventsPage;

use super::visitor::{Visitor, html};
use super::{ROWS, event_row};
use crate::app::App;
use crate::http::filter;
use crate::http::params::{Params, Wrong};

pub(super) async fn show(
    visitor: Visitor,
    State(app): State<Arc<App>>,
    mut params: Params,
) -> Response {
    // The form shows what was asked for, even where that is wrong.
    let form = dashboards::EventFilter {
        server: params.given("server"),
        app: params.given("app"),
        kind: params.given("kind"),
        severity: filter::severity(&params.given("severity")).ok(),
        since: params.given("since"),
    };
    let paged = !params.given("cursor").is_empty();
    let wanted = filter::events(&mut params, &visitor.caller)
        .and_then(|wanted| params.end().map(|()| wanted));
    let (mut events, problem) = match wanted {
        Err(Wrong(message)) => (Vec::new(), Some(message)),
        Ok(mut wanted) => {
            wanted.limit = ROWS + 1;
            match app.store.events(&wanted).await {
                Ok(events) => (events, None),
                Err(error) => return visitor.store_failed(error),
            }
        }
    };
    let older = filter::older_events(&mut events, ROWS);
    let events = events.into_iter().map(event_row).collect();
    html(EventsPage { page: visitor.page, filter: form, problem, events, older, paged }.render())
}
