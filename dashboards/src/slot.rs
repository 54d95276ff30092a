use askama::Template;
use wire::{Action, Deployment, DeploymentStatus, Slot, Time};

use crate::act::Act;
use crate::format::{NOTHING, cut, duration};
use crate::links::query;
use crate::marks::{Badge, Mark};
use crate::page::{Frame, Place};
use crate::rows::{CommandLine, EventLine, Moment, SlotLine};
use crate::server::Standing;
use crate::{CommandRow, Error, EventRow, Page, Server};

/// `/servers/{id}/slots/{slot}`: what a slot runs, how it came there, and what can be done.
#[derive(Clone, Debug)]
pub struct SlotPage {
    /// What every page needs.
    pub page: Page,
    /// The server.
    pub server: Server,
    /// The slot.
    pub slot: Slot,
    /// Its deployments, newest first; or why they are not known now.
    pub deployments: Result<Vec<Deployment>, String>,
    /// The deployment whose log is shown, and the log; or why it is not known.
    pub log: Option<(String, Result<String, String>)>,
    /// Latest events of its process, newest first.
    pub events: Vec<EventRow>,
    /// Its latest commands, newest first.
    pub commands: Vec<CommandRow>,
    /// What the visitor may do to it.
    pub may: Vec<Action>,
    /// What they just did: the record it left.
    pub done: Option<CommandRow>,
}

/// Most bytes of a log that a page shows: its end.
const LOG: usize = 64 * 1024;

impl SlotPage {
    /// The page as HTML.
    pub fn render(&self) -> Result<String, Error> {
        let now = self.page.now;
        let (server, slot) = (&self.server, &self.slot);
        let title = format!("slot {} of {}", slot.slot, server.id);
        let more = slot.more.as_deref();
        let line = SlotLine::new(&server.id, slot, now);
        let deployments = self.deployments.as_deref().unwrap_or_default();
        let may_roll_back = self.may.contains(&Action::Rollback);
        // Where there is nothing to go back to, no button says so.
        let earlier =
            self.deployments.is_err() || deployments.iter().any(|it| it.kept && !it.current);
        let offered: Vec<Action> = self
            .may
            .iter()
            .copied()
            .filter(|action| earlier || *action != Action::Rollback)
            .collect();
        let current = deployments.iter().find(|it| it.current);
        let rows: Vec<Row> =
            deployments.iter().map(|it| Row::new(&line.href, it, may_roll_back, now)).collect();
        let log = self.log.as_ref().map(|(id, text)| {
            let of = deployments.iter().find(|it| it.id.as_str() == id);
            Log {
                id: id.clone(),
                steps: of.map(|it| steps(it.status)).unwrap_or_default(),
                open: of.is_some_and(|it| !it.status.is_final()),
                error: of.and_then(|it| it.error.clone()),
                badge: of.map(|it| badge(it.status)),
                text: text.as_deref().map(end_of).unwrap_or_default(),
                problem: text.as_ref().err().map(String::as_str),
            }
        });
        View {
            frame: Frame::new(&self.page, &title, Place::Elsewhere, true)
                .of_app(&server.id, None)
                .open(log.as_ref().is_some_and(|log| log.open)),
            standing: Standing::new(server, now),
            acts: Act::of_slot(&self.page.base, &server.id, slot, &offered),
            done: CommandLine::all(self.done.as_slice(), now).pop(),
            url: more.map(|more| more.url.as_str()).filter(|url| url.starts_with("http")),
            holder: more.and_then(|more| more.port_owner.as_ref()).map(|owner| {
                let whose = if owner.own { "the slot's own" } else { "not the slot's" };
                format!("{} (pid {}), {whose}", cut(&owner.command, 60), owner.pid)
            }),
            deployed_names: current.map(|it| it.env_names.as_slice()).unwrap_or_default(),
            env_names: more.map(|more| more.env_names.as_slice()).unwrap_or_default(),
            events: EventLine::all(&self.events, now),
            commands: CommandLine::all(&self.commands, now),
            all_events: query(
                "/events",
                &[("server", server.id.as_str()), ("app", slot.process.as_str())],
            ),
            all_commands: query("/commands", &[("server", server.id.as_str())]),
            of_apps: false,
            rows,
            log,
            line,
            it: self,
        }
        .render()
    }
}

#[derive(Template)]
#[template(path = "slot.html")]
struct View<'a> {
    frame: Frame<'a>,
    it: &'a SlotPage,
    standing: Standing,
    line: SlotLine<'a>,
    acts: Vec<Act>,
    done: Option<CommandLine<'a>>,
    url: Option<&'a str>,
    /// Who holds the port.
    holder: Option<String>,
    env_names: &'a [String],
    /// Those that the deployment that runs brought with it.
    deployed_names: &'a [String],
    rows: Vec<Row>,
    log: Option<Log<'a>>,
    events: Vec<EventLine<'a>>,
    commands: Vec<CommandLine<'a>>,
    all_events: String,
    all_commands: String,
    of_apps: bool,
}

/// One deployment in the history.
struct Row {
    href: String,
    when: Moment,
    by: String,
    badge: Badge,
    /// `main, 3f2a91c`
    revision: String,
    repository: String,
    took: String,
    current: bool,
    error: Option<String>,
    roll_back: Option<String>,
}

impl Row {
    fn new(slot: &str, it: &Deployment, may_roll_back: bool, now: Time) -> Self {
        let commit = it.commit.as_deref().map(|commit| commit.chars().take(7).collect());
        let revision: Vec<String> = it.branch.clone().into_iter().chain(commit).collect();
        let took = it.finished_at.map(|end| end.millis_since(it.requested_at));
        Self {
            href: query(slot, &[("deployment", &it.id)]),
            when: Moment::new(it.requested_at, now),
            by: cut(&it.requested_by, 100),
            badge: badge(it.status),
            revision: cut(&revision.join(", "), 100),
            repository: cut(&it.repository, 200),
            took: took.map_or_else(|| NOTHING.to_owned(), duration),
            current: it.current,
            error: it.error.as_deref().map(|error| cut(error, 300)),
            roll_back: (may_roll_back && it.kept && !it.current)
                .then(|| query(&format!("{slot}/rollback"), &[("deployment", &it.id)])),
        }
    }
}

struct Log<'a> {
    id: String,
    /// Each step's word, and whether it is past, now or to come.
    steps: Vec<(&'static str, &'static str)>,
    open: bool,
    badge: Option<Badge>,
    error: Option<String>,
    text: &'a str,
    problem: Option<&'a str>,
}

fn badge(status: DeploymentStatus) -> Badge {
    let mark = match status {
        DeploymentStatus::Healthy => Mark::Ok,
        DeploymentStatus::Failed => Mark::Bad,
        _ => Mark::Wait,
    };
    Badge::new(mark, status.as_str())
}

fn steps(status: DeploymentStatus) -> Vec<(&'static str, &'static str)> {
    use DeploymentStatus::{Building, Cloning, Healthy, Installing, Probing, Queued, Switching};
    let all = [Queued, Cloning, Installing, Building, Probing, Switching, Healthy];
    let Some(now) = all.iter().position(|step| *step == status) else { return Vec::new() };
    let place = |index: usize| match index.cmp(&now) {
        std::cmp::Ordering::Less => "past",
        std::cmp::Ordering::Equal => "now",
        std::cmp::Ordering::Greater => "next",
    };
    all.iter().enumerate().map(|(index, step)| (step.as_str(), place(index))).collect()
}

/// The end of a long text, from the beginning of a line.
fn end_of(text: &str) -> &str {
    if text.len() <= LOG {
        return text;
    }
    let mut from = text.len() - LOG;
    while !text.is_char_boundary(from) {
        from += 1;
    }
    text[from..].split_once('\n').map_or(&text[from..], |(_, rest)| rest)
}
