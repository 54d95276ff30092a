use askama::Template;

use crate::page::{Frame, Place};
use crate::rows::EventLine;
use crate::{Error, EventRow, Page, links};

/// `/events/{id}`: one event, with what happened around it.
#[derive(Clone, Debug)]
pub struct EventPage {
    /// What every page needs.
    pub page: Page,
    /// The event.
    pub event: EventRow,
    /// What happened on the same server shortly before and after, newest first; the event itself
    /// is among it.
    pub around: Vec<EventRow>,
}

impl EventPage {
    /// The page as HTML.
    pub fn render(&self) -> Result<String, Error> {
        let now = self.page.now;
        let Some(line) = EventLine::all(std::slice::from_ref(&self.event), now).pop() else {
            return Ok(String::new());
        };
        let event = &self.event.event;
        let mut facts = Vec::new();
        let mut tell = |name: &'static str, text: Option<String>| {
            facts.extend(text.map(|text| (name, text)));
        };
        tell("Instance", event.instance_id.map(|it| it.to_string()));
        tell("Namespace", event.namespace.as_deref().map(str::to_owned));
        tell("PM2 in", event.pm2_home.as_deref().map(str::to_owned));
        tell("PM2's number", event.pm_id.map(|it| it.to_string()));
        tell("Exit code", event.exit_code.map(|it| it.to_string()));
        tell("Signal", event.signal.clone());
        tell("Cause", event.cause.map(|cause| crate::rows::cause_word(cause).to_owned()));
        let command = event.details.get("command_id").map(|id| links::command(id));
        View {
            frame: Frame::new(&self.page, &line.kind, Place::Events, false),
            facts,
            command,
            around: EventLine::all(&self.around, now),
            shell: Some(format!(
                "curl -H \"Authorization: Bearer $TOKEN\" '{}/api/events/{}'",
                self.page.base, line.id
            )),
            line,
        }
        .render()
    }
}

#[derive(Template)]
#[template(path = "event.html")]
struct View<'a> {
    frame: Frame<'a>,
    line: EventLine<'a>,
    facts: Vec<(&'static str, String)>,
    /// The record of the command that it came from.
    command: Option<String>,
    around: Vec<EventLine<'a>>,
    shell: Option<String>,
}
