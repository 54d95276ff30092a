use std::collections::BTreeMap;

use askama::Template;
use wire::{Action, AppName, Instance, Process, RestartCause, SlotId, Status, Target, Time};

use crate::act::Act;
use crate::format::{count, counted};
use crate::health::{self, TroubleLine};
use crate::homes::HomeLink;
use crate::links::{self, query};
use crate::marks::Badge;
use crate::over_time::{Drawn, OverTime};
use crate::page::{Frame, Place};
use crate::readings::Readings;
use crate::rows::{CommandLine, EventLine, ProcessLine, cause_word};
use crate::server::{Standing, as_of};
use crate::{CommandRow, Error, EventRow, Homes, Page, Server};

/// `/servers/{id}/apps/{app}`: one app with its instances; in one PM2, where several have it and
/// one is meant.
#[derive(Clone, Debug)]
pub struct AppPage {
    /// What every page needs.
    pub page: Page,
    /// The server it runs on.
    pub server: Server,
    /// The app. Its instances are those of that name in the server's state; when there are
    /// none, the page says that PM2 has no such app now.
    pub app: AppName,
    /// In which PM2. What is known now is narrowed to it here; the rest comes so.
    pub homes: Homes,
    /// Cores used by each process over the last interval, where known.
    pub process_cpu: BTreeMap<Instance, f64>,
    /// What was measured of it.
    pub over_time: OverTime,
    /// Its latest uncaught exceptions, newest first: about five.
    pub exceptions: Vec<EventRow>,
    /// Its latest events, newest first: about ten.
    pub events: Vec<EventRow>,
    /// Its latest commands, newest first: about ten.
    pub commands: Vec<CommandRow>,
    /// What the visitor may do to it.
    pub may: Vec<Action>,
    /// What they just did: the record it left.
    pub done: Option<CommandRow>,
}

impl AppPage {
    /// The page as HTML.
    pub fn render(&self) -> Result<String, Error> {
        let now = self.page.now;
        let narrowed = self.homes.narrow(&self.server);
        let server = narrowed.as_ref().unwrap_or(&self.server);
        let of_app = |process: &&Process| process.instance.name == self.app;
        let instances: Vec<&Process> =
            server.state.iter().flat_map(|state| &state.processes).filter(of_app).collect();
        let troubles: Vec<_> = health::within(server, now)
            .into_iter()
            .filter(|trouble| trouble.app.as_ref().is_none_or(|app| *app == self.app))
            .collect();
        let fields =
            [("server", server.id.as_str()), ("app", self.app.as_str()), self.homes.field()];
        let place = links::app(&server.id, &self.app);
        let of_kind = |kind| {
            let [server, app, home] = fields;
            query("/events", &[server, app, home, ("kind", kind)])
        };
        View {
            frame: Frame::new(&self.page, &self.app, Place::Elsewhere, true)
                .of_app(&server.id, Some(&self.app))
                .open(self.done.iter().any(|done| !done.record.status.is_final())),
            standing: Standing::new(server, now),
            troubles: TroubleLine::some(&troubles, usize::MAX),
            summary: summary(&instances),
            processes: ProcessLine::all(
                &server.id,
                instances.iter().copied(),
                &self.process_cpu,
                as_of(server, now),
            ),
            time: self.over_time.draw(
                place.as_deref().unwrap_or_default(),
                &[self.homes.field()],
                place.as_ref().map(|place| format!("/api{place}")).as_deref(),
                now,
            ),
            exceptions: EventLine::all(&self.exceptions, now),
            all_exceptions: of_kind("exception"),
            ledger: ledger(&instances),
            exits: exits(&instances, now),
            readings: Readings::of(&instances),
            events: EventLine::all(&self.events, now),
            commands: CommandLine::all(&self.commands, now),
            all_events: query("/events", &fields),
            all_commands: query("/commands", &fields),
            acts: Act::of_app(
                &self.page.base,
                &server.id,
                &Target::App(self.app.clone()),
                &self.homes,
                &instances,
                &self.may,
            ),
            done: CommandLine::all(self.done.as_slice(), now).pop(),
            slot: instances.iter().find_map(|process| process.slot.as_ref()),
            homes: place.as_ref().map_or_else(Vec::new, |place| {
                self.homes.links(place, &[self.over_time.range.field()])
            }),
            logs: place.map(|place| query(&format!("{place}/logs"), &[self.homes.field()])),
            of_apps: false,
            it: self,
        }
        .render()
    }
}

#[derive(Template)]
#[template(path = "app.html")]
struct View<'a> {
    frame: Frame<'a>,
    it: &'a AppPage,
    standing: Standing,
    troubles: Vec<TroubleLine<'a>>,
    summary: String,
    processes: Vec<ProcessLine<'a>>,
    time: Drawn,
    exceptions: Vec<EventLine<'a>>,
    all_exceptions: String,
    ledger: Vec<(&'static str, String)>,
    exits: Vec<(u32, String)>,
    readings: Readings,
    events: Vec<EventLine<'a>>,
    commands: Vec<CommandLine<'a>>,
    all_events: String,
    all_commands: String,
    acts: Vec<Act>,
    done: Option<CommandLine<'a>>,
    /// The slot that it serves.
    slot: Option<&'a SlotId>,
    homes: Vec<HomeLink>,
    /// Address of its log.
    logs: Option<String>,
    /// Events need not tell their app.
    of_apps: bool,
}

/// `3 of 4 instances online`
fn summary(instances: &[&Process]) -> String {
    let online = instances.iter().filter(|process| process.status == Status::Online).count();
    match instances.len() {
        0 => "not in PM2's list now".to_owned(),
        1 => instances.iter().map(|process| Badge::process(process).word).collect(),
        all => format!("{online} of {} online", counted(all as u64, "instance")),
    }
}

/// Restarts of all instances by cause, the ones that never happened included: a 0 is an answer.
fn ledger(instances: &[&Process]) -> Vec<(&'static str, String)> {
    let of = |cause| {
        let counts = instances.iter().map(|process| process.restarts.get(cause));
        count(counts.fold(0, u64::saturating_add))
    };
    RestartCause::ALL.into_iter().map(|cause| (cause_word(cause), of(cause))).collect()
}

fn exits(instances: &[&Process], now: Time) -> Vec<(u32, String)> {
    let exit =
        |process: &&Process| Some((process.instance.instance_id, health::last_exit(process, now)?));
    instances.iter().filter_map(exit).collect()
}
