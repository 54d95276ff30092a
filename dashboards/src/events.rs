use askama::Template;
use wire::{EventKind, Severity};

use crate::form::{Choice, choices, same};
use crate::links::query;
use crate::page::{Frame, Place};
use crate::rows::EventLine;
use crate::{Error, EventRow, Page};

/// What `/events` was asked to show, as it stands in the address; empty means all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// Id of a server.
    pub server: String,
    /// Name of an app.
    pub app: String,
    /// PM2's directory, on servers where one of several is meant.
    pub pm2_home: String,
    /// Kind of event: `exit`.
    pub kind: String,
    /// This severity and worse.
    pub severity: Option<Severity>,
    /// Not older than this: `1h`, `24h`, `7d`, `30d`, or a time in RFC 3339.
    pub since: String,
}

/// `/events`: what happened.
#[derive(Clone, Debug)]
pub struct EventsPage {
    /// What every page needs.
    pub page: Page,
    /// What was asked for.
    pub filter: EventFilter,
    /// What is wrong with the filter, in words; the events are then left empty.
    pub problem: Option<String>,
    /// The events, newest first.
    pub events: Vec<EventRow>,
    /// Cursor of the next older page; `None` on the last.
    pub older: Option<String>,
    /// Whether this is a later page: it then links to the newest.
    pub paged: bool,
}

impl EventsPage {
    /// The page as HTML.
    pub fn render(&self) -> Result<String, Error> {
        View {
            frame: Frame::new(&self.page, "Events", Place::Events, !self.paged),
            events: EventLine::all(&self.events, self.page.now),
            newest: self.filter.address(""),
            older: self.older.as_deref().map(|cursor| self.filter.address(cursor)),
            filtered: self.filter != EventFilter::default(),
            by_severity: choices(
                "any",
                Severity::ALL.map(severity_words),
                self.filter.severity.map_or("", Severity::as_str),
            ),
            by_time: choices(
                "any time",
                TIMES.map(|(value, text)| (value, text.to_owned())),
                &self.filter.since,
            ),
            it: self,
        }
        .render()
    }
}

impl EventFilter {
    fn address(&self, cursor: &str) -> String {
        let severity = self.severity.map_or("", Severity::as_str);
        let fields = [
            ("server", self.server.as_str()),
            ("app", &self.app),
            ("pm2_home", &self.pm2_home),
            ("kind", &self.kind),
            ("severity", severity),
            ("since", &self.since),
            ("cursor", cursor),
        ];
        query("/events", &fields)
    }
}

#[derive(Template)]
#[template(path = "events.html")]
struct View<'a> {
    frame: Frame<'a>,
    it: &'a EventsPage,
    events: Vec<EventLine<'a>>,
    newest: String,
    older: Option<String>,
    filtered: bool,
    by_severity: Vec<Choice>,
    by_time: Vec<Choice>,
}

/// What `since` offers: what stands in the address, and what people read.
pub(crate) const TIMES: [(&str, &str); 4] = [
    ("1h", "the last hour"),
    ("24h", "the last 24 hours"),
    ("7d", "the last 7 days"),
    ("30d", "the last 30 days"),
];

fn severity_words(severity: Severity) -> (&'static str, String) {
    let word = severity.as_str();
    match severity {
        Severity::Critical => same(word),
        _ => (word, format!("{word} and worse")),
    }
}

/// Kinds of event that the form offers; any other can be typed.
const KINDS: [EventKind; 17] = [
    EventKind::EXIT,
    EventKind::ONLINE,
    EventKind::START,
    EventKind::STOP,
    EventKind::RESTART,
    EventKind::RELOAD,
    EventKind::DELETE,
    EventKind::ERRORED,
    EventKind::EXCEPTION,
    EventKind::PM2_CONNECTED,
    EventKind::PM2_DISCONNECTED,
    EventKind::EXPORTER_STARTED,
    EventKind::COMMAND,
    EventKind::SERVER_OFFLINE,
    EventKind::SERVER_ONLINE,
    EventKind::JOURNAL_LOST,
    EventKind::JOURNAL_RESET,
];
