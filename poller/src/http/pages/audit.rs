use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use dashboards::AuditPage;

use super::ROWS;
use super::visitor::{Visitor, html, problem};
use crate::access::Role;
use crate::app::App;
use crate::http::api::audit;
use crate::http::params::{Params, Wrong};
use crate::store::AuditRow;

pub(super) async fn show(
    visitor: Visitor,
    State(app): State<Arc<App>>,
    mut params: Params,
) -> Response {
    if let Err(refused) = visitor.caller.require(Role::Admin) {
        return problem(visitor.page, refused.problem().clone());
    }
    // The form shows what was asked for, even where that is wrong.
    let form = dashboards::AuditFilter {
        who: params.given("who"),
        server: params.given("server"),
        act: params.given("act"),
        outcome: params.given("outcome"),
        since: params.given("since"),
    };
    let paged = !params.given("cursor").is_empty();
    let wanted = audit::filter(&mut params, &visitor.caller)
        .and_then(|wanted| params.end().map(|()| wanted));
    let (mut rows, problem) = match wanted {
        Err(Wrong(message)) => (Vec::new(), Some(message)),
        Ok(mut wanted) => {
            wanted.limit = ROWS + 1;
            match app.store.audit(&wanted).await {
                Ok(rows) => (rows, None),
                Err(error) => return visitor.store_failed(error),
            }
        }
    };
    let older = audit::older(&mut rows, ROWS);
    let rows = rows.into_iter().map(row).collect();
    html(AuditPage { page: visitor.page, filter: form, problem, rows, older, paged }.render())
}

fn row(stored: AuditRow) -> dashboards::AuditRow {
    dashboards::AuditRow {
        id: stored.id,
        time: stored.time.0,
        who: stored.who,
        via: stored.via,
        address: stored.address,
        act: stored.act,
        outcome: stored.outcome,
        server: stored.server,
        subject: stored.subject,
        detail: stored.detail,
        command: stored.command,
        repeats: stored.repeats.and_then(|it| u64::try_from(it).ok()).unwrap_or(0),
        hash: stored.hash.to_string(),
    }
}
