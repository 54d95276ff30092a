use askama::Template;
use wire::Time;

use crate::form::{Choice, choices};
use crate::format::{count, cut};
use crate::links::{self, query};
use crate::marks::{Badge, Mark};
use crate::page::{Frame, Place};
use crate::rows::Moment;
use crate::{Error, Page};

/// What `/audit` was asked to show, as it stands in the address; empty means all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// By whom.
    pub who: String,
    /// On which server.
    pub server: String,
    /// What was done: `command`.
    pub act: String,
    /// How it ended: `refused`.
    pub outcome: String,
    /// Not older than this, as events have it.
    pub since: String,
}

/// One row: who did, or tried to do, what.
#[derive(Clone, Debug)]
pub struct AuditRow {
    /// Its number.
    pub id: i64,
    /// When.
    pub time: Time,
    /// Name of the token or user, or of who sat at the command line.
    pub who: String,
    /// How they showed who they are.
    pub via: Option<String>,
    /// From where.
    pub address: String,
    /// `command`, `token create`, …
    pub act: String,
    /// `requested`, `refused`, `succeeded`, …
    pub outcome: String,
    /// On which server.
    pub server: Option<String>,
    /// What it was about: `restart app api`.
    pub subject: String,
    /// More, in words.
    pub detail: Option<String>,
    /// Id of the command.
    pub command: Option<String>,
    /// How many more of the same followed and have no row of their own.
    pub repeats: u64,
    /// Hash of it and of all before it, in hexadecimal.
    pub hash: String,
}

/// `/audit`: who did, or tried to do, what.
#[derive(Clone, Debug)]
pub struct AuditPage {
    /// What every page needs.
    pub page: Page,
    /// What was asked for.
    pub filter: AuditFilter,
    /// What is wrong with the filter, in words; the rows are then left empty.
    pub problem: Option<String>,
    /// The rows, newest first.
    pub rows: Vec<AuditRow>,
    /// Cursor of the next older page; `None` on the last.
    pub older: Option<String>,
    /// Whether this is a later page: it then links to the newest.
    pub paged: bool,
}

impl AuditPage {
    /// The page as HTML.
    pub fn render(&self) -> Result<String, Error> {
        let fields = [
            ("who", self.filter.who.as_str()),
            ("server", &self.filter.server),
            ("act", &self.filter.act),
            ("outcome", &self.filter.outcome),
            ("since", &self.filter.since),
        ];
        let csv = query("/api/audit", &[&fields[..], &[("format", "csv")]].concat());
        let shell = query(&format!("{}/api/audit", self.page.base), &fields);
        View {
            frame: Frame::new(&self.page, "Audit", Place::Audit, false),
            rows: self.rows.iter().map(|row| Line::new(row, self.page.now)).collect(),
            newest: self.filter.address(""),
            older: self.older.as_deref().map(|cursor| self.filter.address(cursor)),
            filtered: self.filter != AuditFilter::default(),
            by_time: choices(
                "any time",
                crate::events::TIMES.map(|(value, text)| (value, text.to_owned())),
                &self.filter.since,
            ),
            csv,
            shell: Some(format!("curl -H \"Authorization: Bearer $TOKEN\" '{shell}'")),
            it: self,
        }
        .render()
    }
}

impl AuditFilter {
    fn address(&self, cursor: &str) -> String {
        let fields = [
            ("who", self.who.as_str()),
            ("server", &self.server),
            ("act", &self.act),
            ("outcome", &self.outcome),
            ("since", &self.since),
            ("cursor", cursor),
        ];
        query("/audit", &fields)
    }
}

#[derive(Template)]
#[template(path = "audit.html")]
struct View<'a> {
    frame: Frame<'a>,
    it: &'a AuditPage,
    rows: Vec<Line<'a>>,
    newest: String,
    older: Option<String>,
    filtered: bool,
    by_time: Vec<Choice>,
    csv: String,
    shell: Option<String>,
}

struct Line<'a> {
    id: i64,
    /// Where it is found for good.
    href: String,
    when: Moment,
    who: String,
    via: Option<String>,
    repeats: Option<String>,
    /// The beginning of its hash, and all of it.
    mark_of_chain: String,
    hash: &'a str,
    address: String,
    act: String,
    mark: Mark,
    outcome: String,
    server: Option<&'a str>,
    subject: String,
    detail: Option<String>,
    command: Option<String>,
}

impl<'a> Line<'a> {
    fn new(row: &'a AuditRow, now: Time) -> Self {
        Self {
            id: row.id,
            href: format!("/audit?cursor={0}#a{1}", row.id.saturating_add(1), row.id),
            via: row.via.as_deref().map(|via| cut(via, 60)),
            repeats: (row.repeats > 0).then(|| count(row.repeats)),
            mark_of_chain: row.hash.chars().take(8).collect(),
            hash: &row.hash,
            when: Moment::new(row.time, now),
            who: cut(&row.who, 100),
            address: cut(&row.address, 60),
            act: cut(&row.act, 60),
            mark: mark(&row.outcome),
            outcome: cut(&row.outcome, 60),
            server: row.server.as_deref(),
            subject: cut(&row.subject, 300),
            detail: row.detail.as_deref().map(|detail| cut(detail, 500)),
            command: row.command.as_deref().map(links::command),
        }
    }
}

fn mark(outcome: &str) -> Mark {
    let command = wire::CommandStatus::ALL.into_iter().find(|it| it.as_str() == outcome);
    match (command, outcome) {
        (Some(status), _) => Badge::command(status).mark,
        (None, "denied") => Mark::Bad,
        (None, "requested") => Mark::Wait,
        (None, _) => Mark::Off,
    }
}
