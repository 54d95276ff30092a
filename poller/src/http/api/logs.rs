//! `GET /api/servers/{id}/apps/{app}/logs?stream=&lines=&follow=&pm2_home=`: the exporter's lines, passed
//! on as they come; as text, or as server-sent events when asked.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, header};
use axum::response::Response;
use service::problem::ProblemResponse;
use wire::MAX_LIMIT;

use super::pass::{self, Bounds};
use super::place::Place;
use super::{app_name, member};
use crate::app::App;
use crate::http::params::{Params, Wrong};
use crate::http::{Peer, Reader};

/// Most bytes of one answer; a log that is followed may be of any length.
const MOST: u64 = 64 * 1024 * 1024;
/// How long an exporter may take between two pieces of what it has.
const READ: Duration = Duration::from_secs(20);
/// How long an application may be silent before its follower has to ask again.
const SILENT: Duration = Duration::from_secs(3600);

pub(super) async fn show(
    Reader(caller): Reader,
    State(app): State<Arc<App>>,
    peer: Peer,
    Path((id, name)): Path<(String, String)>,
    params: Params,
    headers: HeaderMap,
) -> Result<Response, ProblemResponse> {
    let (path, follow) = path(&name, params)?;
    let member = member(&app, &caller, &id)?;
    let place = Place::take(&app, (caller, peer), Some(member.target.id.clone()))?;
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let events = accept.is_some_and(|accept| accept.contains("text/event-stream"));
    let form = if events { pass::EVENTS } else { pass::TEXT };
    let bounds = match follow {
        true => Bounds { bytes: u64::MAX, silence: SILENT },
        false => Bounds { bytes: MOST, silence: READ },
    };
    pass::lines(app.commands.client(), &member.target, &path, form, bounds, place).await
}

/// What the exporter is asked, and whether that has no end.
fn path(name: &str, mut params: Params) -> Result<(String, bool), ProblemResponse> {
    let name = app_name(name)?;
    let stream = params.parsed("stream", |text| match text {
        "out" | "err" | "all" => Ok(text.to_owned()),
        _ => Err(format!("{:?} is not out, err or all", text.chars().take(64).collect::<String>())),
    })?;
    let lines = params.parsed("lines", |text| match text.parse::<usize>() {
        Ok(lines) if lines <= MAX_LIMIT => Ok(lines),
        _ => {
            let shown: String = text.chars().take(64).collect();
            Err(format!("{shown:?} is not a number from 0 to {MAX_LIMIT}"))
        }
    })?;
    let follow = params.truth("follow")?.unwrap_or(false);
    let pm2_home = params.text("pm2_home")?;
    params.end().map_err(|wrong: Wrong| ProblemResponse::from(wrong))?;
    let encoded = |text: &str| {
        text.bytes().fold(String::new(), |mut all, byte| {
            let _ = write!(all, "%{byte:02X}");
            all
        })
    };
    let mut path = format!("/api/processes/{}", encoded(&name));
    let (stream, lines) = (stream.as_deref().unwrap_or("all"), lines.unwrap_or(100));
    let _ = write!(path, "/logs?stream={stream}&lines={lines}&follow={follow}");
    if let Some(home) = pm2_home {
        let _ = write!(path, "&pm2_home={}", encoded(&home));
    }
    Ok((path, follow))
}
