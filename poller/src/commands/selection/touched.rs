//! What a selection means on one server.

use std::path::Path;
use std::time::Duration;

use dashboards::ServerStatus;
use serde::Serialize;
use wire::{Process, ServerId, State, Status, Target};

use super::Select;
use crate::fleet::Member;

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
    let (processes, online, serves) = match target {
        Target::App(name) => {
            let home = select.pm2_home.as_deref();
            let is_mine = |it: &&Process| it.instance.name == *name && is_in(state, it, home);
            let mine = || state.processes.iter().filter(is_mine);
            let online = mine().filter(|it| it.status == Status::Online).count();
            match mine().count() {
                0 => return None,
                count => (count, online, online == count),
            }
        }
        Target::Slot(slot) => {
            let slot = state.slots.iter().find(|it| it.slot == *slot)?;
            (0, 0, slot.serving)
        }
    };
    Some(Touched {
        server: member.target.id.clone(),
        server_status: status.as_str(),
        processes,
        online,
        available: is_there && serves,
    })
}

/// Whether a process is in the PM2 of a directory, where one is meant. As exporters take it, `/x/` is
/// `/x`; what does not say is in the only one.
fn is_in(state: &State, process: &Process, home: Option<&str>) -> bool {
    let of = process.instance.pm2_home.as_deref().unwrap_or(&state.pm2.home);
    home.is_none_or(|home| Path::new(home) == Path::new(of))
}
