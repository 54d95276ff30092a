//! What a selection means: which servers have it, and whether it is well there.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use axum::http::StatusCode;
use dashboards::ServerStatus;
use serde::Serialize;
use service::problem::ProblemResponse;
use wire::{AppName, Pm2State, Process, ServerId, State, Status, Target, Time};

use super::super::{Commands, LATELY, millis, unavailable, unknown_server};
use super::{MOST, MOST_UNDER_WAY, Rollout, Select, Servers};
use crate::access::Caller;
use crate::fleet::Member;

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
        let (mut silents, mut asked) = (Vec::new(), Vec::new());
        for member in self.fleet.all().into_iter().filter(fits) {
            if let Some(touched) = touched(&member, select, target, stale_after) {
                all.push(touched);
            } else if let Some(homes) = silent_homes(&member, select) {
                asked.push((member.target.id.clone(), Some(homes)));
                silents.push(silent(&member, stale_after));
            }
        }
        if let Target::App(app) = target {
            let since = crate::world::now().plus_millis(-millis(LATELY));
            let had = self.had_app(asked, app, since).await?;
            all.extend(silents.into_iter().filter(|it| had.contains(&it.server)));
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

    /// Whether what somebody wants is begun with, given its parts.
    ///
    /// # Errors
    /// 403: not by them. 404: there are none. 400: too many. 409: not as it is now. 503: too much is
    /// under way.
    pub fn may_begin(&self, rollout: &Rollout, parts: &[Touched]) -> Result<(), ProblemResponse> {
        rollout.caller.require_action(rollout.action)?;
        rollout.caller.require_variables(rollout.order.variables(rollout.action))?;
        if parts.is_empty() {
            let mut detail = format!("select: no server that fits has {}", rollout.target);
            if let Some(home) = &rollout.select.pm2_home {
                let shown: String = home.chars().take(200).collect();
                detail.push_str(&format!(" in {shown:?}"));
            }
            return Err(ProblemResponse::not_found("nothing_selected", detail));
        }
        if parts.len() > MOST {
            let detail = format!("select: {} servers; at most {MOST} are taken", parts.len());
            return Err(ProblemResponse::bad_request(detail));
        }
        if let Some(part) = parts.iter().find(|part| part.ambiguous) {
            let detail =
                format!("select: several PM2s of {} have it: choose by pm2_home", part.server);
            return Err(ProblemResponse::new(StatusCode::CONFLICT, "conflict", detail));
        }
        let (away, all) = (parts.iter().filter(|part| !part.available).count(), parts.len());
        if let Some(most) = rollout.max_unavailable.filter(|most| away >= *most) {
            let detail =
                format!("max_unavailable: {away} of {all} are away already, and {most} may be");
            return Err(ProblemResponse::new(StatusCode::CONFLICT, "unavailable", detail));
        }
        if self.rolling().len() >= MOST_UNDER_WAY {
            let detail = format!("{MOST_UNDER_WAY} selections are under way: try again later");
            return Err(ProblemResponse::new(StatusCode::SERVICE_UNAVAILABLE, "busy", detail));
        }
        Ok(())
    }

    /// Those of some servers that had an app since a moment, in these PM2s, by directory, or in any.
    pub(in crate::commands) async fn had_app(
        &self,
        servers: Vec<(ServerId, Option<Vec<String>>)>,
        app: &AppName,
        since: Time,
    ) -> Result<BTreeSet<ServerId>, ProblemResponse> {
        self.store.had_app(servers, app, since).await.map_err(|error| {
            self.metrics.store_errors.with_label_values(&[error.label()]).inc();
            tracing::error!(%error, "it cannot be read which servers had an app");
            unavailable("it cannot be read which servers had the app")
        })
    }
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
fn silent(member: &Member, stale_after: Duration) -> Touched {
    Touched {
        server: member.target.id.clone(),
        server_status: member.status(stale_after).as_str(),
        processes: 0,
        online: 0,
        available: false,
        ambiguous: false,
    }
}

/// The PM2s that are meant and do not answer, as samples name them: what they have is not known. `None`
/// where all answer.
fn silent_homes(member: &Member, select: &Select) -> Option<Vec<String>> {
    let state = member.state.as_deref()?;
    let is_meant = |it: &&Pm2State| {
        select.pm2_home.as_deref().is_none_or(|home| Path::new(home) == Path::new(&it.home))
    };
    let silent = state.pm2_homes().iter().filter(is_meant).filter(|it| !it.up);
    // Of a single one samples say nothing.
    let name = |it: &Pm2State| if state.homes.is_empty() { String::new() } else { it.home.clone() };
    let homes: Vec<String> = silent.map(name).collect();
    (!homes.is_empty()).then_some(homes)
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
