use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use dashboards::LogsPage;
use service::problem::ProblemResponse;
use wire::AppName;

use super::homes::homes;
use super::server::{find, no_server};
use super::visitor::{Visitor, html, problem};
use super::{exporter, look_back, server};
use crate::app::App;
use crate::http::params::{Params, Wrong};
use crate::poll::percent_encoded;

/// Lines shown where none are asked for, and at most.
const LINES: usize = 200;
const MOST: usize = 5000;

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
    let asked = homes(&member, &name, &mut params)
        .and_then(|homes| Ok((homes, read(params).map_err(ProblemResponse::from)?)));
    let (homes, (stream, lines, q)) = match asked {
        Ok(asked) => asked,
        Err(wrong) => return problem(visitor.page, wrong.problem().clone()),
    };
    let mut past = match look_back(&app, &visitor).await {
        Ok(past) => past,
        Err(error) => return visitor.store_failed(error),
    };
    let wanted = if stream.is_empty() { "all" } else { stream };
    let mut path = percent_encoded(&name);
    path = format!("/api/processes/{path}/logs?lines={lines}&stream={wanted}");
    if let Some(home) = homes.chosen() {
        path.push_str(&format!("&pm2_home={}", percent_encoded(home)));
    }
    let text = match homes.is_open() {
        // It would only say so too.
        true => Ok(Vec::new()),
        false => exporter::log_lines(&app, &member.target.id, &path).await,
    };
    html(
        LogsPage {
            page: visitor.page,
            server: server(&app, &member, &mut past),
            app: name,
            homes,
            stream: stream.to_owned(),
            lines,
            q,
            text,
        }
        .render(),
    )
}

fn read(mut params: Params) -> Result<(&'static str, usize, String), Wrong> {
    let stream = params.parsed("stream", |text| match text {
        "out" => Ok("out"),
        "err" => Ok("err"),
        "all" => Ok(""),
        _ => Err(format!("{text:?} is not out, err or all")),
    })?;
    let lines = params.parsed("lines", |text| match text.parse() {
        Ok(lines) if (1..=MOST).contains(&lines) => Ok(lines),
        _ => Err(format!("{text:?} is not a number from 1 to {MOST}")),
    })?;
    let q = params.text("q")?.unwrap_or_default();
    params.end()?;
    Ok((stream.unwrap_or_default(), lines.unwrap_or(LINES), q.chars().take(200).collect()))
}
