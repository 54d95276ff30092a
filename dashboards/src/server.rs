use std::collections::BTreeMap;

use askama::Template;
use wire::{Instance, Time};

use crate::fleet::memory;
use crate::format::{NOTHING, bytes, bytes_of, counted, cut, number, percent, uptime};
use crate::health::{self, TroubleLine};
use crate::links::query;
use crate::marks::Badge;
use crate::over_time::{Drawn, OverTime};
use crate::page::{Frame, Place};
use crate::rows::{CommandLine, EventLine, Moment, ProcessLine, SlotLine};
use crate::{CommandRow, Error, EventRow, Page, Server, ServerStatus};

/// `/servers/{id}`: one server.
#[derive(Clone, Debug)]
pub struct ServerPage {
    /// What every page needs.
    pub page: Page,
    /// The server.
    pub server: Server,
    /// Cores used by each process over the last interval, where known.
    pub process_cpu: BTreeMap<Instance, f64>,
    /// What was measured of its machine.
    pub over_time: OverTime,
    /// Its latest events, newest first: about ten.
    pub events: Vec<EventRow>,
    /// Its latest commands, newest first: about ten.
    pub commands: Vec<CommandRow>,
}

impl ServerPage {
    /// The page as HTML.
    pub fn render(&self) -> Result<String, Error> {
        let now = self.page.now;
        let server = &self.server;
        let badge = Badge::contact(&server.contact);
        let troubles = health::within(server, now);
        let state = server.state.as_deref();
        View {
            frame: Frame::new(&self.page, server.id.as_str(), Place::Elsewhere, true)
                .of_app(&server.id, None),
            badge,
            standing: Standing::new(server, now),
            troubles: TroubleLine::some(&troubles, usize::MAX),
            facts: facts(server, now),
            time: self.over_time.draw(
                &format!("/servers/{}", server.id),
                &[],
                Some(&format!("/api/servers/{}", server.id)),
                now,
            ),
            processes: state.map_or_else(Vec::new, |state| {
                ProcessLine::all(
                    &server.id,
                    &state.processes,
                    &self.process_cpu,
                    as_of(server, now),
                )
            }),
            slots: state.map_or_else(Vec::new, |state| {
                state.slots.iter().map(|slot| SlotLine::new(&server.id, slot, now)).collect()
            }),
            events: EventLine::all(&self.events, now),
            commands: CommandLine::all(&self.commands, now),
            all_events: query("/events", &[("server", &server.id)]),
            all_commands: query("/commands", &[("server", &server.id)]),
            of_apps: true,
            it: self,
        }
        .render()
    }
}

#[derive(Template)]
#[template(path = "server.html")]
struct View<'a> {
    frame: Frame<'a>,
    it: &'a ServerPage,
    badge: Badge,
    standing: Standing,
    troubles: Vec<TroubleLine<'a>>,
    facts: Vec<Fact>,
    time: Drawn,
    processes: Vec<ProcessLine<'a>>,
    slots: Vec<SlotLine<'a>>,
    events: Vec<EventLine<'a>>,
    commands: Vec<CommandLine<'a>>,
    all_events: String,
    all_commands: String,
    /// Events tell their app.
    of_apps: bool,
}

/// How fresh a page about a server is.
pub(crate) struct Standing {
    pub(crate) answered: Option<Moment>,
    /// What is shown is from before: say so.
    pub(crate) old: bool,
    pub(crate) error: Option<String>,
}

impl Standing {
    pub(crate) fn new(server: &Server, now: Time) -> Self {
        let contact = &server.contact;
        Self {
            answered: contact.last_success.map(|time| Moment::new(time, now)),
            old: contact.status != ServerStatus::Online,
            error: contact.error.as_deref().map(|error| cut(error, 500)),
        }
    }
}

/// When what is known of a server was true.
pub(crate) fn as_of(server: &Server, now: Time) -> Time {
    match (server.contact.status, server.contact.last_success) {
        (ServerStatus::Online, _) | (_, None) => now,
        (_, Some(last)) => last,
    }
}

/// One reading of the machine.
struct Fact {
    name: &'static str,
    value: String,
    /// More about it, small.
    more: String,
    /// How much of it is used, 0 to 1, where that can be said.
    share: Option<f64>,
}

fn facts(server: &Server, now: Time) -> Vec<Fact> {
    let Some(state) = server.state.as_deref() else { return Vec::new() };
    let mut facts = Vec::new();
    let mut tell = |name, value: String, more: String, share: Option<f64>| {
        let share = share.filter(|share| share.is_finite());
        facts.push(Fact { name, value, more, share });
    };
    if let Some(host) = &state.host {
        let cores = host.cpus.map(|cpus| format!("of {}", counted(cpus.into(), "core")));
        if let Some(cpu) = server.host_cpu {
            tell("CPU", percent(cpu), cores.unwrap_or_default(), Some(cpu));
        }
        if let Some((used, all)) = memory(host) {
            let share = used as f64 / all as f64;
            tell("Memory", bytes_of(used, all), percent(share), Some(share));
        }
        if let (Some(all), Some(free)) = (host.filesystem_size_bytes, host.filesystem_avail_bytes) {
            let used = all.saturating_sub(free);
            let share = used as f64 / all as f64;
            tell("Disk", bytes_of(used, all), format!("{} free", bytes(free)), Some(share));
        }
        if let Some(load) = host.load1 {
            tell("Load", number(load), "over one minute".into(), None);
        }
        if let Some(booted) = host.booted_at {
            let up = as_of(server, now).millis_since(booted);
            tell("Up for", uptime(up), String::new(), None);
        }
    }
    let pm2 = &state.pm2;
    let version = pm2.version.as_deref().map_or_else(|| NOTHING.to_owned(), |v| cut(v, 60));
    let value = if pm2.up { version } else { "down".to_owned() };
    tell("PM2", value, cut(&pm2.home, 200), None);
    let exporter = &state.exporter;
    let machine = format!("{}, {} {}", exporter.hostname, exporter.os, exporter.arch);
    tell("Exporter", cut(&exporter.version, 60), cut(&machine, 200), None);
    facts
}
