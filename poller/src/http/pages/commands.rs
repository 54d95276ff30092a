use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use dashboards::CommandsPage;

use super::visitor::{Visitor, html};
use super::{ROWS, command_row};
use crate::app::App;
use crate::http::filter;
use crate::http::params::{Params, Wrong};

pub(super) async fn show(
    visitor: Visitor,
    State(app): State<Arc<App>>,
    mut params: Params,
) -> Response {
    // The form shows what was asked for, even where that is wrong.
    let form = dashboards::CommandFilter {
        server: params.given("server"),
        app: params.given("app"),
        status: filter::command_status(&params.given("status")).ok(),
    };
    let paged = !params.given("cursor").is_empty();
    let wanted = filter::commands(&mut params, &visitor.caller)
        .and_then(|wanted| params.end().map(|()| wanted));
    let (mut commands, problem) = match wanted {
        Err(Wrong(message)) => (Vec::new(), Some(message)),
        Ok(mut wanted) => {
            wanted.limit = ROWS + 1;
            match app.store.commands(&wanted).await {
                Ok(commands) => (commands, None),
                Err(error) => return visitor.store_failed(error),
            }
        }
    };
    let older = filter::older_commands(&mut commands, ROWS);
    let commands = commands.into_iter().map(command_row).collect();
    html(
        CommandsPage { page: visitor.page, filter: form, problem, commands, older, paged }.render(),
    )
}
