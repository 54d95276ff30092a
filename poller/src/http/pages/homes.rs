//! What a page shows of one PM2, where an app's name stands in several of its server.
//!
//! The store knows which PM2 an event or a command is of, and has no index by it: the latest of the
//! app are read, and those of the other are left out.

use std::collections::HashSet;

use dashboards::{Homes, Server};
use service::problem::ProblemResponse;
use wire::{AppName, RestartCause, ServerId, Time};

use crate::app::App;
use crate::fleet::Member;
use crate::http::params::Params;
use crate::store::{EventFilter, Mark, StoreError, StoredCommand, StoredEvent};

/// So many times as many are read as are shown.
const MORE: usize = 20;
/// Most events that are read for what happened over a time.
const MOST: usize = 2000;

/// The PM2s in which an app stands, and the one in the address.
///
/// # Errors
/// 404: the server has no such PM2; 400: the address names two.
pub(super) fn homes(
    member: &Member,
    name: &AppName,
    params: &mut Params,
) -> Result<Homes, ProblemResponse> {
    let chosen = params.text("pm2_home")?;
    Homes::of(member.state.as_deref(), name, chosen.as_deref()).ok_or_else(|| {
        let shown: String = chosen.unwrap_or_default().chars().take(200).collect();
        let detail = format!("{} has no PM2 in {shown:?}.", member.target.id);
        ProblemResponse::not_found("unknown_home", detail)
    })
}

/// How many are to be read where `count` are to be shown.
pub(super) fn limit(homes: &Homes, count: usize) -> usize {
    if homes.chosen().is_some() { MORE * count } else { count }
}

/// The first `count` of events that are of the PM2 that is meant.
pub(super) fn events(homes: &Homes, events: &mut Vec<StoredEvent>, count: usize) {
    if let Some(home) = homes.chosen() {
        events.retain(|it| it.event.pm2_home.as_deref() == Some(home));
    }
    events.truncate(count);
}

/// The same of commands: those whose processes were of it, or that were sent to it.
pub(super) fn commands(homes: &Homes, commands: &mut Vec<StoredCommand>, count: usize) {
    if let Some(home) = homes.chosen() {
        let named = format!("; pm2_home: {home};");
        commands.retain(|command| {
            let record = &command.record;
            let mut processes = record.before.iter().chain(&record.after);
            processes.any(|it| it.instance.pm2_home.as_deref() == Some(home))
                || format!("; {};", command.summary.as_deref().unwrap_or_default()).contains(&named)
        });
    }
    commands.truncate(count);
}

/// Of the marks of an app since a time, those of the PM2 that is meant.
///
/// # Errors
/// The read failed.
pub(super) async fn marks(
    app: &App,
    (server, name, home): (&ServerId, &AppName, &str),
    since: Time,
    marks: &mut Vec<Mark>,
) -> Result<(), StoreError> {
    let all = since_of(app, server, name, since, None).await?;
    let of_home = all.iter().filter(|it| it.event.pm2_home.as_deref() == Some(home));
    let of_home: HashSet<_> =
        of_home.map(|it| (it.time, it.event.kind.as_str(), &*it.event.message)).collect();
    marks.retain(|mark| of_home.contains(&(mark.time, &*mark.kind, &*mark.message)));
    Ok(())
}

/// Counts an app's crashes in the PM2 that is meant alone, where one is.
///
/// # Errors
/// The read failed.
pub(super) async fn crashes(
    app: &App,
    homes: &Homes,
    name: &AppName,
    server: &mut Server,
) -> Result<(), StoreError> {
    let (Some(home), Some(_)) = (homes.chosen(), server.crashes.get(name)) else { return Ok(()) };
    let since = Time::now().plus_millis(-Server::CRASH_WINDOW_MILLIS);
    let exits = since_of(app, &server.id, name, since, Some("exit")).await?;
    let count = exits.iter().map(|it| &it.event).filter(|event| {
        event.pm2_home.as_deref() == Some(home)
            && matches!(event.cause, Some(RestartCause::Crash | RestartCause::Oom))
    });
    let count = u32::try_from(count.count()).unwrap_or(u32::MAX);
    server.crashes.insert(name.clone(), count);
    Ok(())
}

async fn since_of(
    app: &App,
    server: &ServerId,
    name: &AppName,
    since: Time,
    kind: Option<&str>,
) -> Result<Vec<StoredEvent>, StoreError> {
    let filter = EventFilter {
        server: Some(server.clone()),
        app: Some(name.to_string()),
        kind: kind.map(str::to_owned),
        since: Some(since),
        limit: MOST,
        ..EventFilter::default()
    };
    app.store.events(&filter).await
}
