//! What a selection means: which servers have it, and whether it is well there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use axum::http::StatusCode;
use dashboards::ServerStatus;
use serde::Serialize;
use service::problem::ProblemResponse;
use wire::{AppName, Pm2State, Process, ServerId, State, Status, Target};

use super::super::{Commands, millis, unavailable, unknown_server};
use super::{Select, Servers};
use crate::access::Caller;
use crate::fleet::Member;

/// A server whose PM2 does not answer has what it had within this time.
const LATELY: Duration = Duration::from_secs(86_400);
/// Most names of servers that a refusal spells out.
const LEFT_OUT: usize = 10;

/// What would be touched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Touched {
    /// Where.
    pub server: ServerId,
    /// `online`, `stale` or `offline`.
    pub server_status: &'static str,
    /// Processes of the app, and how many of them are online; none for a slot.
    pub processes: usize,
    /// See there.
    pub online: usize,
    /// Whether it is all there and well, as far as is known.
    pub available: bool,
    /// Several PM2s there have the app, and none of them is meant.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ambiguous: bool,
}

impl Commands {
    /// What a selection means now, for somebody; by server. A server whose PM2 does not answer has what
    /// it had lately.
    ///
    /// # Errors
    /// 404: a server is named that is not there for them, or does not have it. 503: it cannot be read
    /// what servers had.
    pub async fn touched(
        &self,
        caller: &Caller,
        select: &Select,
        target: &Target,
    ) -> Result<Vec<Touched>, ProblemResponse> {
        let named = select.server.as_ref().map(Servers::all);
        for id in named.iter().flatten() {
            if !caller.may_see(id) || self.fleet.get(id).is_none() {
                return Err(unknown_server(id));
            }
        }
        let stale_after = self.fleet.stale_after();
        let fits = |member: &Member| {
            let it = &member.target;
            caller.may_see(&it.id)
                && named.as_ref().is_none_or(|named| named.contains(&&it.id))
                && select.group.as_ref().is_none_or(|group| *group == it.group)
                && select.tag.as_ref().is_none_or(|tag| it.tags.contains(tag))
        };
        let mut all = Vec::new();
        let mut silents: BTreeMap<ServerId, Touched> = BTreeMap::new();
        for member in self.fleet.all().into_iter().filter(fits) {
            match touched(&member, select, target, stale_after) {
                Some(touched) => all.push(touched),
                None if is_silent(&member, select) => {
                    silents.insert(member.target.id.clone(), silent(&member, stale_after));
                }
                None => {}
            }
        }
        if let Target::App(app) = target {
            let ids: Vec<ServerId> = silents.keys().cloned().collect();
            let had = self.had_app(&ids, app, select.pm2_home.as_deref()).await?;
            all.extend(silents.into_iter().filter(|(id, _)| had.contains(id)).map(|(_, it)| it));
            all.sort_by(|a, b| a.server.cmp(&b.server));
        }
        let left_out: Vec<&str> = named
            .iter()
            .flatten()
            .filter(|id| !all.iter().any(|it| it.server == ***id))
            .map(|id| id.as_str())
            .take(LEFT_OUT)
            .collect();
        if !left_out.is_empty() {
            let detail = format!(
                "select: {} of {}: not there, as far as is known, or not of that group and tag",
                target,
                left_out.join(", ")
            );
            return Err(ProblemResponse::not_found("nothing_selected", detail));
        }
        Ok(all)
    }

    /// Those of some servers that had an app lately.
    pub(in crate::commands) async fn had_app(
        &self,
        servers: &[ServerId],
        app: &AppName,
        pm2_home: Option<&str>,
    ) -> Result<BTreeSet<ServerId>, ProblemResponse> {
        let since = crate::world::now().plus_millis(-millis(LATELY));
        let had = self.store.had_app(servers, app, pm2_home, since).await;
        had.map_err(|error| {
            self.metrics.store_errors.with_label_values(&[error.label()]).inc();
            tracing::error!(%error, "it cannot be read which servers had an app");
            unavailable("it cannot be read which servers had the app")
        })
    }
}

/// Why such parts are not begun with.
pub fn refusal(parts: &[Touched], max_unavailable: Option<usize>) -> Option<ProblemResponse> {
    if let Some(part) = parts.iter().find(|part| part.ambiguous) {
        let detail = format!("select: several PM2s of {} have it: choose by pm2_home", part.server);
        return Some(ProblemResponse::new(StatusCode::CONFLICT, "conflict", detail));
    }
    let (away, all) = (parts.iter().filter(|part| !part.available).count(), parts.len());
    let most = max_unavailable.filter(|most| away >= *most)?;
    let detail = format!("max_unavailable: {away} of {all} are away already, and {most} may be");
    Some(ProblemResponse::new(StatusCode::CONFLICT, "unavailable", detail))
}

/// What of a server is selected; `None` where it does not have the target.
pub(super) fn touched(
    member: &Member,
    select: &Select,
    target: &Target,
    stale_after: Duration,
) -> Option<Touched> {
    let state = member.state.as_deref()?;
    let status = member.status(stale_after);
    let is_there = status == ServerStatus::Online;
    let mut ambiguous = false;
    let (processes, online, serves) = match target {
        Target::App(name) => {
            let home = select.pm2_home.as_deref();
            let is_mine = |it: &&Process| it.instance.name == *name && is_in(state, it, home);
            let mine = || state.processes.iter().filter(is_mine);
            let online = mine().filter(|it| it.status == Status::Online).count();
            let homes: BTreeSet<&str> = mine().map(|it| home_of(state, it)).collect();
            ambiguous = homes.len() > 1;
            match mine().count() {
                0 => return None,
                count => {
                    (count, online, online == count && homes.iter().all(|it| is_up(state, it)))
                }
            }
        }
        Target::Slot(slot) => {
            let slot = state.slots.iter().find(|it| it.slot == *slot)?;
            (0, 0, slot.serving && state.pm2.up)
        }
    };
    Some(Touched {
        server: member.target.id.clone(),
        server_status: status.as_str(),
        processes,
        online,
        available: is_there && serves,
        ambiguous,
    })
}

/// A server whose PM2 does not tell what it has.
pub(super) fn silent(member: &Member, stale_after: Duration) -> Touched {
    Touched {
        server: member.target.id.clone(),
        server_status: member.status(stale_after).as_str(),
        processes: 0,
        online: 0,
        available: false,
        ambiguous: false,
    }
}

/// Whether the PM2 that is meant, or one of all, does not answer: what it has is not known then.
pub(super) fn is_silent(member: &Member, select: &Select) -> bool {
    let is_meant = |it: &&Pm2State| {
        select.pm2_home.as_deref().is_none_or(|home| Path::new(home) == Path::new(&it.home))
    };
    member
        .state
        .as_deref()
        .is_some_and(|state| state.pm2_homes().iter().filter(is_meant).any(|home| !home.up))
}

fn is_up(state: &State, home: &str) -> bool {
    state.pm2_homes().iter().all(|it| Path::new(&it.home) != Path::new(home) || it.up)
}

/// In which PM2 a process is; what does not say is in the only one.
fn home_of<'a>(state: &'a State, process: &'a Process) -> &'a str {
    process.instance.pm2_home.as_deref().unwrap_or(&state.pm2.home)
}

/// Whether a process is in the PM2 of a directory, where one is meant. As exporters take it, `/x/` is
/// `/x`.
fn is_in(state: &State, process: &Process, home: Option<&str>) -> bool {
    home.is_none_or(|home| Path::new(home) == Path::new(home_of(state, process)))
}
