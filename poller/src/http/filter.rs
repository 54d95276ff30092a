//! What lists can be asked for, in addresses of the API and of the pages alike.

use std::time::Duration;

use dashboards::ServerStatus;
use wire::{AppName, CommandStatus, EventKind, Severity, Time};

use super::params::{Params, Wrong, event_cursor, to_event_cursor};
use crate::access::Caller;
use crate::fleet::Member;
use crate::store::{CommandFilter, EventFilter, Listed, Registration, StoredCommand, StoredEvent};

/// Which servers are asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct ServerFilter {
    pub(super) group: Option<String>,
    pub(super) tag: Option<String>,
    pub(super) status: Option<ServerStatus>,
    /// Part of an id, group, tag or app name, whatever its case.
    pub(super) q: Option<String>,
}

impl ServerFilter {
    pub(super) fn read(params: &mut Params) -> Result<Self, Wrong> {
        Ok(Self {
            group: params.text("group")?,
            tag: params.text("tag")?,
            status: params.name("status")?,
            q: params.text("q")?,
        })
    }

    pub(super) fn lets_through(&self, member: &Member, stale_after: Duration) -> bool {
        let target = &member.target;
        let contains = |text: &str, q: &str| text.to_lowercase().contains(q);
        self.group.as_ref().is_none_or(|group| *group == target.group)
            && self.tag.as_ref().is_none_or(|tag| target.tags.contains(tag))
            && self.status.is_none_or(|status| status == member.status(stale_after))
            && self.q.as_ref().is_none_or(|q| {
                let q = q.to_lowercase();
                contains(&target.id, &q)
                    || contains(&target.group, &q)
                    || target.tags.iter().any(|tag| contains(tag, &q))
                    || member.state.as_ref().is_some_and(|state| {
                        state.processes.iter().any(|it| contains(&it.instance.name, &q))
                    })
            })
    }
}

impl ServerFilter {
    /// The same for a server that is polled no more. Of its status there is one only.
    pub(super) fn lets_past_through(&self, it: &Registration) -> bool {
        self.status.is_none()
            && self.group.as_ref().is_none_or(|group| *group == it.group)
            && self.tag.as_ref().is_none_or(|tag| it.tags.contains(tag))
            && self.q.as_ref().is_none_or(|q| {
                let q = q.to_lowercase();
                let mut words = it.tags.iter().map(String::as_str).chain([it.group.as_str()]);
                it.server.to_lowercase().contains(&q)
                    || words.any(|word| word.to_lowercase().contains(&q))
            })
    }
}

/// Which events are asked for; cursor and limit are the caller's to set.
pub(super) fn events(params: &mut Params, caller: &Caller) -> Result<EventFilter, Wrong> {
    Ok(EventFilter {
        visible: caller.servers(),
        server: params.name("server")?,
        app: params.name::<AppName>("app")?.map(|app| app.to_string()),
        pm2_home: params.text("pm2_home")?,
        kind: params
            .parsed("kind", |text| {
                EventKind::try_from(text.to_owned()).map_err(|error| error.to_string())
            })?
            .map(|kind| kind.as_str().to_owned()),
        severity: params.parsed("severity", severity)?,
        since: params.time("since", Time::now())?,
        until: None,
        before: None,
        limit: 0,
    })
}

/// The same of a list, with its cursor.
pub(super) fn listed_events(params: &mut Params, caller: &Caller) -> Result<EventFilter, Wrong> {
    let filter = events(params, caller)?;
    let until = params.time("until", Time::now())?;
    Ok(EventFilter { until, before: params.cursor(event_cursor)?, ..filter })
}

/// One severity; it and worse ones are meant.
pub(super) fn severity(text: &str) -> Result<Severity, String> {
    Severity::ALL.into_iter().find(|known| known.as_str() == text).ok_or_else(|| {
        let shown: String = text.chars().take(64).collect();
        format!("{shown:?} is not a severity: info, warning, error or critical")
    })
}

/// Which commands are asked for; the limit is the caller's to set.
pub(super) fn commands(params: &mut Params, caller: &Caller) -> Result<CommandFilter, Wrong> {
    Ok(CommandFilter {
        visible: caller.servers(),
        server: params.name("server")?,
        app: params.name::<AppName>("app")?.map(|app| app.to_string()),
        slot: None,
        pm2_home: params.text("pm2_home")?,
        part_of: params.name("part_of")?,
        status: params.parsed("status", command_status)?,
        since: params.time("since", Time::now())?,
        until: params.time("until", Time::now())?,
        before: params.cursor(|text| text.parse().ok())?,
        limit: 0,
    })
}

/// A status by its word.
pub(super) fn command_status(text: &str) -> Result<CommandStatus, String> {
    CommandStatus::ALL.into_iter().find(|known| known.as_str() == text).ok_or_else(|| {
        let shown: String = text.chars().take(64).collect();
        let allowed: Vec<&str> = CommandStatus::ALL.iter().map(|known| known.as_str()).collect();
        format!("{shown:?} is not a status: {}", allowed.join(", "))
    })
}

/// The cursor of what follows these.
pub(super) fn older_events(events: &Listed<StoredEvent>) -> Option<String> {
    events.rows.last().filter(|_| events.more).map(|last| to_event_cursor(last.time, last.id))
}

/// The cursor of what follows these.
pub(super) fn older_commands(commands: &Listed<StoredCommand>) -> Option<String> {
    commands.rows.last().filter(|_| commands.more).map(|last| last.seq.to_string())
}
