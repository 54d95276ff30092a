use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use service::limits::Waits;
use service::problem::ProblemResponse;
use wire::{JournalPage, MAX_LIMIT, Time};

use super::Reads;
use super::query::{Parameters, shown};
use crate::access::Scope;
use crate::app::App;

/// Smaller than what an absence leaves to be told. What a usual poll brings is quicker as it is.
const WORTH_GZIP: usize = 64 * 1024;

pub(super) async fn show(
    Reads(who): Reads,
    State(app): State<Arc<App>>,
    Extension(waits): Extension<Waits>,
    headers: HeaderMap,
    mut parameters: Parameters,
) -> Result<Response, ProblemResponse> {
    who.everything("the journal")?;
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
        waits.begin();
        tokio::select! {
            () = app.journal.wait_for_event(epoch, after, wait) => {}
            () = app.shutdown.drain.cancelled() => {}
        }
        // Their token may have been taken away meanwhile.
        app.check(&headers, Scope::Read)?.everything("the journal")?;
    }
    let page = app.journal.page(epoch, after, limit.unwrap_or(1_000));
    let state_revision = app.revision.get();
    let known = epoch == Some(&page.journal.epoch) && known_state == Some(state_revision);
    let state = (!known).then(|| Box::new(app.state_as_known()));
    let page = JournalPage {
        now: Time::now(),
        journal: page.journal,
        entries: page.entries,
        after: page.after,
        lost: page.lost,
        anew: page.anew,
        more: page.more,
        state_revision: state.as_ref().map_or(state_revision, |state| state.revision),
        state,
    };
    let page = serde_json::to_vec(&page).map_err(|error| {
        ProblemResponse::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", error.to_string())
    })?;
    Ok(app.gzip.answer(&headers, "application/json", page, WORTH_GZIP))
}
