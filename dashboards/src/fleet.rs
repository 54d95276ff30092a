use std::cmp::Ordering;
use std::collections::BTreeMap;

use askama::Template;
use wire::{HostReadings, ServerId, State, Status, Time};

use crate::form::{Choice, choices, same};
use crate::format::{age, bytes_of, count, counted, cut, percent};
use crate::health::{self, TroubleLine, Verdict};
use crate::marks::{Badge, Mark};
use crate::page::{Frame, Place};
use crate::rows::{EventLine, Moment, or_nothing};
use crate::{AlertRow, Error, EventRow, Page, Server, ServerStatus, trend};

/// What `/` was asked to show; empty means all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FleetFilter {
    /// Servers of this group.
    pub group: String,
    /// Servers with this tag.
    pub tag: String,
    /// Servers of this status.
    pub status: Option<ServerStatus>,
    /// Servers whose id, group, tags or apps contain this text.
    pub q: String,
}

/// `/`: is everything all right, and what is not.
#[derive(Clone, Debug)]
pub struct FleetPage {
    /// What every page needs.
    pub page: Page,
    /// What was asked for.
    pub filter: FleetFilter,
    /// The servers that the filter lets through, in any order.
    pub servers: Vec<Server>,
    /// How many servers the viewer may see in all, whatever the filter.
    pub registered: usize,
    /// Alerts that are told now and that the poller tells of itself.
    pub alerts: Vec<AlertRow>,
    /// Every group there is, for the form.
    pub groups: Vec<String>,
    /// Every tag there is, for the form.
    pub tags: Vec<String>,
    /// The latest events of the servers shown, newest first: about ten.
    pub events: Vec<EventRow>,
}

impl FleetPage {
    /// The page as HTML.
    pub fn render(&self) -> Result<String, Error> {
        let now = self.page.now;
        let troubles = health::troubles(&self.servers, &self.alerts, now);
        let verdict = health::verdict(&self.servers, &troubles);
        // One or two more are shown rather than hidden.
        let first = if troubles.len() <= FIRST + 2 { troubles.len() } else { FIRST };
        let title = match verdict.mark {
            Mark::Ok if self.servers.is_empty() => "Fleet",
            Mark::Ok | Mark::Off => "All right",
            Mark::Wait => "Waiting",
            Mark::Warn => "Worth a look",
            Mark::Bad => "Not all right",
        };
        View {
            frame: Frame::new(&self.page, title, Place::Fleet, true),
            troubles: TroubleLine::some(&troubles[..first], first),
            further: TroubleLine::some(&troubles[first..], MAX_TROUBLES - first),
            more: (troubles.len() > MAX_TROUBLES)
                .then(|| count((troubles.len() - MAX_TROUBLES) as u64)),
            by_group: choices(
                "all",
                self.groups.iter().map(|group| same(group)),
                &self.filter.group,
            ),
            by_tag: choices("all", self.tags.iter().map(|tag| same(tag)), &self.filter.tag),
            by_status: choices(
                "all",
                ServerStatus::ALL.map(|status| same(status.as_str())),
                self.filter.status.map_or("", ServerStatus::as_str),
            ),
            shown: format!(
                "{} of {}",
                count(self.servers.len() as u64),
                counted(self.registered as u64, "server")
            ),
            verdict,
            groups: self.groups(),
            events: EventLine::all(&self.events, now),
            filtered: self.filter != FleetFilter::default(),
            it: self,
        }
        .render()
    }

    /// The servers by group, both in natural order; those without a group last.
    fn groups(&self) -> Vec<Group<'_>> {
        let mut groups: BTreeMap<(bool, &str), Vec<&Server>> = BTreeMap::new();
        for server in &self.servers {
            let group = server.group.as_str();
            groups.entry((group.is_empty(), group)).or_default().push(server);
        }
        let fold = self.servers.len() > UNFOLDED && self.filter == FleetFilter::default();
        groups
            .into_iter()
            .map(|((_, name), mut servers)| {
                servers.sort_by(|a, b| natural(&a.id, &b.id));
                Group::new(name, &servers, fold, self.page.now)
            })
            .collect()
    }
}

/// Most troubles that the page lists: then a number and a filter serve better.
const MAX_TROUBLES: usize = 40;
/// Of these, how many are seen at once.
const FIRST: usize = 10;
/// Of more servers than this in one list, those that are well are folded away, unless a filter
/// asked for them.
const UNFOLDED: usize = 120;

#[derive(Template)]
#[template(path = "fleet.html")]
struct View<'a> {
    frame: Frame<'a>,
    it: &'a FleetPage,
    verdict: Verdict,
    troubles: Vec<TroubleLine<'a>>,
    further: Vec<TroubleLine<'a>>,
    more: Option<String>,
    by_group: Vec<Choice>,
    by_tag: Vec<Choice>,
    by_status: Vec<Choice>,
    /// `3 of 50 servers`
    shown: String,
    groups: Vec<Group<'a>>,
    events: Vec<EventLine<'a>>,
    filtered: bool,
}

struct Group<'a> {
    name: &'a str,
    /// `12 servers, 11 online`
    summary: String,
    servers: Vec<Line<'a>>,
    /// Those that are well, where there are too many to look at.
    folded: Vec<Line<'a>>,
    /// `240 servers that are well`
    folded_words: String,
}

impl<'a> Group<'a> {
    fn new(name: &'a str, servers: &[&'a Server], fold: bool, now: Time) -> Self {
        let all = servers.len();
        let online =
            servers.iter().filter(|server| server.contact.status == ServerStatus::Online).count();
        let words = counted(all as u64, "server");
        let mut summary = match online {
            _ if online == all => format!("{words} online"),
            _ => format!("{words}, {online} online"),
        };
        if all > 1
            && let Some(cpu) = cpu_of(servers)
        {
            summary = format!("{summary}; {cpu}");
        }
        let (seen, folded): (Vec<&Server>, Vec<&Server>) = servers
            .iter()
            .partition(|server| !fold || !health::troubles([**server], &[], now).is_empty());
        Self {
            name,
            summary,
            folded_words: format!("{} that are well", counted(folded.len() as u64, "server")),
            servers: seen.into_iter().map(|server| Line::new(server, now)).collect(),
            folded: folded.into_iter().map(|server| Line::new(server, now)).collect(),
        }
    }
}

/// One server as a row.
struct Line<'a> {
    id: &'a ServerId,
    tags: &'a [String],
    badge: Badge,
    reason: Option<String>,
    /// Its age alone where it answers: there are many such rows.
    fresh: Option<String>,
    answered: Option<Moment>,
    /// What it shows is from before.
    old: bool,
    cpu: String,
    /// CPU over the last hour.
    trend: String,
    memory: String,
    processes: String,
    slots: String,
}

impl<'a> Line<'a> {
    fn new(server: &'a Server, now: Time) -> Self {
        let state = server.state.as_deref();
        let host = state.and_then(|state| state.host.as_ref());
        let contact = &server.contact;
        let online = contact.status == ServerStatus::Online;
        Self {
            fresh: contact.last_success.filter(|_| online).map(|time| age(now, time)),
            trend: trend::path(&server.trend),
            id: &server.id,
            tags: &server.tags,
            badge: Badge::contact(contact),
            reason: contact.error.as_deref().map(|error| cut(error, 120)),
            answered: contact.last_success.map(|time| Moment::new(time, now)),
            old: !online,
            cpu: or_nothing(server.host_cpu, percent),
            memory: or_nothing(host.and_then(memory), |(used, all)| bytes_of(used, all)),
            processes: or_nothing(state, processes),
            slots: or_nothing(state.filter(|state| !state.slots.is_empty()), |state| {
                let serving = state.slots.iter().filter(|slot| slot.serving).count();
                format!("{serving} of {}", state.slots.len())
            }),
        }
    }
}

/// `CPU 12 % on average, 61 % on vm34`: of the servers that answer.
fn cpu_of(servers: &[&Server]) -> Option<String> {
    let known = servers
        .iter()
        .filter(|server| server.contact.status == ServerStatus::Online)
        .filter_map(|server| Some((server.host_cpu?, &server.id)));
    let known: Vec<(f64, &ServerId)> = known.filter(|(cpu, _)| cpu.is_finite()).collect();
    let (most, id) = known.iter().max_by(|a, b| a.0.total_cmp(&b.0))?;
    let mean = known.iter().map(|(cpu, _)| cpu).sum::<f64>() / known.len() as f64;
    Some(format!("CPU {} on average, {} on {id}", percent(mean), percent(*most)))
}

/// Memory in use and memory in all, in bytes.
pub(crate) fn memory(host: &HostReadings) -> Option<(u64, u64)> {
    let all = host.memory_total_bytes?;
    Some((all.saturating_sub(host.memory_available_bytes?), all))
}

fn processes(state: &State) -> String {
    let number = |is: Status| state.processes.iter().filter(|one| one.status == is).count();
    let text = format!("{} of {}", number(Status::Online), state.processes.len());
    let homes = state.pm2_homes();
    match (homes.iter().filter(|pm2| !pm2.up).count(), number(Status::Errored)) {
        (down, _) if down == homes.len() => "PM2 down".to_owned(),
        (0, 0) => text,
        (0, errored) => format!("{text}, {errored} errored"),
        (down, _) => format!("{text}, {down} of {} PM2 down", homes.len()),
    }
}

/// Compares so that `vm2` stands before `vm10`.
fn natural(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    loop {
        let (a_digits, b_digits) = (digits(a), digits(b));
        let order = if a_digits > 0 && b_digits > 0 {
            let (a_number, b_number) = (trim(&a[..a_digits]), trim(&b[..b_digits]));
            a_number.len().cmp(&b_number.len()).then_with(|| a_number.cmp(b_number))
        } else {
            match (a.first(), b.first()) {
                (Some(x), Some(y)) => x.cmp(y),
                (x, y) => return x.cmp(&y),
            }
        };
        if order != Ordering::Equal {
            return order;
        }
        a = &a[a_digits.max(1)..];
        b = &b[b_digits.max(1)..];
    }
}

fn digits(text: &[u8]) -> usize {
    text.iter().take_while(|byte| byte.is_ascii_digit()).count()
}

fn trim(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == b'0').count();
    &number[zeros..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_stand_in_the_order_that_people_count_in() {
        let mut ids = ["vm10", "vm2", "vm02x", "vm", "a-9", "a-10-b", "a-10-a", "7", ""];
        ids.sort_by(|a, b| natural(a, b));
        assert_eq!(ids, ["", "7", "a-9", "a-10-a", "a-10-b", "vm", "vm2", "vm02x", "vm10"]);
    }
}
