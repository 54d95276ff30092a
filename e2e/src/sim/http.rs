//! The exporter's HTTP, as far as pollers and Prometheus use it.

use std::io::Write;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use axum::{Json, Router};
use exposition::{Format, Labels, Source, Writer, families, write_states};
use flate2::Compression;
use flate2::write::GzEncoder;
use service::problem::ProblemResponse;
use tokio::time::{Duration, Instant, sleep_until};
use wire::{CommandId, CommandRecord, CommandRequest, InvalidId, JournalPage, Time};

use super::answers::Asked;
use super::commands::Refusal;
use super::{Place, Sim};

type Answer = Result<Response, ProblemResponse>;

pub(super) fn router(sim: Arc<Sim>) -> Router {
    Router::new()
        .route("/api/journal", get(journal))
        .route("/api/state", get(state))
        .route("/api/commands/{id}", put(command).get(known_command))
        .route("/metrics", get(metrics))
        .route("/healthz", get(async || "ok\n"))
        .fallback(async || ProblemResponse::not_found("unknown_path", "there is nothing here"))
        .with_state(sim)
}

async fn journal(State(sim): State<Arc<Sim>>, request: Request) -> Answer {
    let (parts, _) = request.into_parts();
    let place = sim.place(&parts)?;
    let asked = Asked::read(&parts.uri)?;
    let wait = asked.wait()?;
    let epoch = asked.epoch.as_deref();
    until_event(place, epoch, asked.after, wait).await;
    let now = Time::now();
    let page = {
        let mut machine = place.lock();
        machine.advance(now);
        let page = machine.page(epoch, asked.after, asked.limit.unwrap_or(1000));
        let revision = machine.revision();
        let known = epoch == Some(&page.journal.epoch) && asked.known_state == Some(revision);
        JournalPage {
            now,
            journal: page.journal,
            entries: page.entries,
            after: page.after,
            lost: page.lost,
            anew: page.anew,
            more: page.more,
            state_revision: revision,
            state: (!known).then(|| Box::new(machine.state(now))),
        }
    };
    Ok(Json(page).into_response())
}

/// Waits for an event behind a position, at most so long.
async fn until_event(place: &Place, epoch: Option<&str>, after: u64, wait: Duration) {
    if wait.is_zero() {
        return;
    }
    let end = Instant::now() + wait;
    loop {
        let changed = place.changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        let now = Time::now();
        let next = {
            let mut machine = place.lock();
            machine.advance(now);
            if !machine.has_to_wait(epoch, after) || Instant::now() >= end {
                return;
            }
            machine.next_event()
        };
        let pause = next.map(|at| at.millis_since(now).max(1).unsigned_abs());
        let until =
            pause.map_or(end, |pause| end.min(Instant::now() + Duration::from_millis(pause)));
        tokio::select! {
            () = changed => {}
            () = sleep_until(until) => {}
        }
    }
}

async fn state(State(sim): State<Arc<Sim>>, request: Request) -> Answer {
    let (parts, _) = request.into_parts();
    let place = sim.place(&parts)?;
    let now = Time::now();
    let state = {
        let mut machine = place.lock();
        machine.advance(now);
        machine.state(now)
    };
    Ok(Json(state).into_response())
}

async fn command(State(sim): State<Arc<Sim>>, Path(id): Path<String>, request: Request) -> Answer {
    let (parts, body) = request.into_parts();
    let place = sim.place(&parts)?;
    let asked = Asked::read(&parts.uri)?;
    let (wait, by) = (asked.wait()?, asked.by());
    let body: Bytes = axum::body::to_bytes(body, 256 * 1024)
        .await
        .map_err(|error| ProblemResponse::bad_request(format!("body: {error}")))?;
    let id: CommandId =
        id.parse().map_err(|error: InvalidId| ProblemResponse::bad_request(error.to_string()))?;
    let request: CommandRequest = serde_json::from_slice(&body)
        .map_err(|error| ProblemResponse::bad_request(format!("body: {error}")))?;
    let end = Instant::now() + wait;
    let record = place.lock().command(id.clone(), request, &by, Time::now());
    let mut record = record.map_err(|refusal| match refusal {
        Refusal::Reused => ProblemResponse::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "id_reused",
            "the id names another command",
        ),
        Refusal::UnknownApp => ProblemResponse::not_found("unknown_app", "PM2 has no such app"),
    })?;
    place.changed.notify_waiters();
    while !record.status.is_final() && Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let mut machine = place.lock();
        machine.advance(Time::now());
        record = machine.known_command(&id).unwrap_or(record);
    }
    Ok(answer(record))
}

/// 200 when it has ended, 202 while it has not.
fn answer(record: CommandRecord) -> Response {
    let status = if record.status.is_final() { StatusCode::OK } else { StatusCode::ACCEPTED };
    (status, Json(record)).into_response()
}

async fn known_command(
    State(sim): State<Arc<Sim>>,
    Path(id): Path<String>,
    request: Request,
) -> Answer {
    let (parts, _) = request.into_parts();
    let place = sim.place(&parts)?;
    let mut machine = place.lock();
    machine.advance(Time::now());
    let record = id.parse().ok().and_then(|id| machine.known_command(&id));
    let unknown = || ProblemResponse::not_found("unknown_command", "no such command is known");
    record.map(|record| Json(record).into_response()).ok_or_else(unknown)
}

async fn metrics(State(sim): State<Arc<Sim>>, request: Request) -> Answer {
    let (parts, _) = request.into_parts();
    let place = sim.place(&parts)?;
    let begun = Instant::now();
    let text = |name| parts.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let format = Format::from_accept(text(header::ACCEPT));
    let now = Time::now();
    let state = {
        let mut machine = place.lock();
        machine.advance(now);
        machine.state(now)
    };
    let mut writer = Writer::new(format);
    let none = Labels::default();
    write_states(&mut writer, &[Source { labels: &none, state: &state }]);
    writer.family(&families::EXPORTER_RELOAD, |samples| samples.add(&none, 1.0));
    writer.family(&families::EXPORTER_READ, |samples| {
        samples.add(&none, begun.elapsed().as_secs_f64());
    });
    let page = writer.finish();
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    if text(header::ACCEPT_ENCODING).is_some_and(|accepted| accepted.contains("gzip")) {
        let mut encoder = GzEncoder::new(Vec::with_capacity(8 * 1024), Compression::fast());
        let packed = encoder.write_all(page.as_bytes()).and_then(|()| encoder.finish());
        if let Ok(packed) = packed {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            return Ok((headers, packed).into_response());
        }
    }
    Ok((headers, page).into_response())
}
