use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::value::RawValue;
use service::problem::ProblemResponse;
use wire::{JournalPosition, MAX_LIMIT, Time};

use super::Reads;
use super::query::{Parameters, shown};
use crate::app::App;

/// [`wire::JournalPage`] with entries that are JSON already.
#[derive(Serialize)]
struct Page {
    now: Time,
    journal: JournalPosition,
    entries: Vec<Box<RawValue>>,
    after: u64,
    lost: u64,
    more: bool,
    state_revision: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<Box<wire::State>>,
}

pub(super) async fn show(
    _: Reads,
    State(app): State<Arc<App>>,
    mut parameters: Parameters,
) -> Result<Response, ProblemResponse> {
    let epoch = parameters.take("epoch", |text| match text.len() {
        1..=64 => Ok(text.to_owned()),
        _ => Err(format!("{:?} is not an epoch: 1 to 64 characters", shown(text))),
    })?;
    let after = parameters.number("after")?.unwrap_or(0);
    let limit = parameters.take("limit", |text| {
        text.parse::<usize>()
            .ok()
            .filter(|limit| (1..=MAX_LIMIT).contains(limit))
            .ok_or_else(|| format!("{:?} is not 1 to {MAX_LIMIT}", shown(text)))
    })?;
    let wait = parameters.wait()?.unwrap_or(Duration::ZERO);
    let known_state = parameters.number("known_state")?;
    parameters.end("epoch, after, limit, wait, known_state")?;

    let epoch = epoch.as_deref();
    if !wait.is_zero() {
        tokio::select! {
            () = app.journal.wait_for_event(epoch, after, wait) => {}
            () = app.shutdown.drain.cancelled() => {}
        }
    }
    let page = app.journal.page(epoch, after, limit.unwrap_or(1_000));
    let state_revision = app.revision.get();
    let known = epoch == Some(&page.journal.epoch) && known_state == Some(state_revision);
    let state = (!known).then(|| Box::new(app.state_as_known()));
    Ok(Json(Page {
        now: Time::now(),
        journal: page.journal,
        entries: page.entries,
        after: page.after,
        lost: page.lost,
        more: page.more,
        state_revision: state.as_ref().map_or(state_revision, |state| state.revision),
        state,
    })
    .into_response())
}
