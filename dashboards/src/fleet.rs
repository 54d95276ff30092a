use std::cmp::Ordering;
use std::collections::BTreeMap;

use askama::Template;
use wire::{HostReadings, ServerId, State, Status, Time};

use crate::form::{Choice, choices, same};
use crate::format::{bytes_of, count, counted, cut, percent};
use crate::health::{self, TroubleLine, Verdict};
use crate::marks::{Badge, Mark};
use crate::page::{Frame, Place};
use crate::rows::{EventLine, Moment, or_nothing};
use crate::{Error, EventRow, Page, Server, ServerStatus};

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
        let troubles = health::troubles(&self.servers, now);
        let verdict = health::verdict(&self.servers, &troubles);
        let title = match verdict.mark {
            Mark::Ok if self.servers.is_empty() => "Fleet",
            Mark::Ok | Mark::Off => "All right",
            Mark::Wait => "Waiting",
            Mark::Warn => "Worth a look",
            Mark::Bad => "Not all right",
        };
        View {
            frame: Frame::new(&self.page, title, Place::Fleet, true),
            troubles: TroubleLine::some(&troubles, MAX_TROUBLES),
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
        groups
            .into_iter()
            .map(|((_, name), mut servers)| {
                servers.sort_by(|a, b| natural(&a.id, &b.id));
                Group::new(name, &servers, self.page.now)
            })
            .collect()
    }
}

/// Most troubles that the page lists: then a number and a filter serve better.
const MAX_TROUBLES: usize = 40;

#[derive(Template)]
#[template(path = "fleet.html")]
struct View<'a> {
    frame: Frame<'a>,
    it: &'a FleetPage,
    verdict: Verdict,
    troubles: Vec<TroubleLine<'a>>,
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
}

impl<'a> Group<'a> {
    fn new(name: &'a str, servers: &[&'a Server], now: Time) -> Self {
        let all = servers.len();
        let online =
            servers.iter().filter(|server| server.contact.status == ServerStatus::Online).count();
        let words = counted(all as u64, "server");
        let summary = match online {
            _ if online == all => format!("{words} online"),
            _ => format!("{words}, {online} online"),
        };
        Self {
            name,
            summary,
            servers: servers.iter().map(|server| Line::new(server, now)).collect(),
        }
    }
}

/// One server as a row.
struct Line<'a> {
    id: &'a ServerId,
    tags: &'a [String],
    badge: Badge,
    reason: Option<String>,
    answered: Option<Moment>,
    /// What it shows is from before.
    old: bool,
    cpu: String,
    memory: String,
    processes: String,
    slots: String,
}

impl<'a> Line<'a> {
    fn new(server: &'a Server, now: Time) -> Self {
        let state = server.state.as_deref();
        let host = state.and_then(|state| state.host.as_ref());
        let contact = &server.contact;
        Self {
            id: &server.id,
            tags: &server.tags,
            badge: Badge::contact(contact),
            reason: contact.error.as_deref().map(|error| cut(error, 120)),
            answered: contact.last_success.map(|time| Moment::new(time, now)),
            old: contact.status != ServerStatus::Online,
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

/// Memory in use and memory in all, in bytes.
pub(crate) fn memory(host: &HostReadings) -> Option<(u64, u64)> {
    let all = host.memory_total_bytes?;
    Some((all.saturating_sub(host.memory_available_bytes?), all))
}

fn processes(state: &State) -> String {
    let number = |is: Status| state.processes.iter().filter(|one| one.status == is).count();
    let text = format!("{} of {}", number(Status::Online), state.processes.len());
    match (state.pm2.up, number(Status::Errored)) {
        (false, _) => "PM2 down".to_owned(),
        (true, 0) => text,
        (true, errored) => format!("{text}, {errored} errored"),
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
