use askama::Template;
use wire::AppName;

use crate::form::{Choice, choices};
use crate::format::cut;
use crate::homes::HomeLink;
use crate::links::{self, query};
use crate::page::{Frame, Place};
use crate::{Error, Homes, Page, Server};

/// `/servers/{id}/apps/{app}/logs?stream=&lines=&q=&pm2_home=`: the last lines of an app's log. A
/// script goes on with the lines that follow.
#[derive(Clone, Debug)]
pub struct LogsPage {
    /// What every page needs.
    pub page: Page,
    /// The server.
    pub server: Server,
    /// The app.
    pub app: AppName,
    /// In which PM2: without a choice that it takes there are no lines, and the page asks for it.
    pub homes: Homes,
    /// `out`, `err`, or empty for both.
    pub stream: String,
    /// How many lines were asked for.
    pub lines: usize,
    /// Only lines with this text in them, whatever its case; empty for all.
    pub q: String,
    /// The lines, oldest first; or why there are none.
    pub text: Result<Vec<LogLine>, String>,
}

/// One line of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// Which instance wrote it.
    pub instance: u32,
    /// To stderr, and not to stdout.
    pub error: bool,
    /// What.
    pub text: String,
}

/// Longest line that is shown, in characters.
const LINE: usize = 4000;

impl LogsPage {
    /// The page as HTML.
    pub fn render(&self) -> Result<String, Error> {
        let title = format!("Log of {}", self.app);
        let place = links::app(&self.server.id, &self.app);
        let wanted = self.q.to_lowercase();
        let narrowed = self.homes.narrow(&self.server);
        let state = narrowed.as_ref().unwrap_or(&self.server).state.iter();
        let instances = state.flat_map(|state| &state.processes);
        let several = instances.filter(|it| it.instance.name == self.app).count() > 1;
        let lines: Vec<Line> = self
            .text
            .iter()
            .flatten()
            .filter(|line| wanted.is_empty() || line.text.to_lowercase().contains(&wanted))
            .map(|line| Line {
                stream: if line.error { "err" } else { "out" },
                instance: several.then_some(line.instance),
                text: cut(&line.text, LINE),
            })
            .collect();
        let api = place.as_ref().map(|place| {
            let stream = ("stream", self.stream.as_str());
            let fields = [stream, ("lines", "0"), ("follow", "true"), self.homes.field()];
            query(&format!("/api{place}/logs"), &fields)
        });
        let here = place.as_ref().map(|place| format!("{place}/logs")).unwrap_or_default();
        let lines_asked = if self.lines == 200 { String::new() } else { self.lines.to_string() };
        let filter = [("stream", &*self.stream), ("lines", &lines_asked), ("q", &self.q)];
        View {
            frame: Frame::new(&self.page, &title, Place::Elsewhere, true),
            homes: self.homes.links(&here, &filter),
            here,
            shell: api.as_ref().map(|api| {
                format!(
                    "curl -N -H \"Authorization: Bearer $TOKEN\" '{}{}'",
                    self.page.base,
                    api.replace("lines=0", "lines=100")
                )
            }),
            api: api.unwrap_or_default(),
            place: place.map(|place| query(&place, &[self.homes.field()])).unwrap_or_default(),
            by_stream: choices(
                "out and err",
                [("out", "out".to_owned()), ("err", "err".to_owned())],
                &self.stream,
            ),
            by_lines: choices(
                "200",
                ["50", "1000", "5000"].map(|number| (number, number.to_owned())),
                &lines_asked,
            ),
            lines,
            several,
            it: self,
        }
        .render()
    }
}

#[derive(Template)]
#[template(path = "logs.html")]
struct View<'a> {
    frame: Frame<'a>,
    it: &'a LogsPage,
    place: String,
    homes: Vec<HomeLink>,
    here: String,
    /// Where a script reads what follows.
    api: String,
    by_stream: Vec<Choice>,
    by_lines: Vec<Choice>,
    lines: Vec<Line>,
    /// Lines tell their instance.
    several: bool,
    shell: Option<String>,
}

/// A line as it stands on the page.
struct Line {
    stream: &'static str,
    instance: Option<u32>,
    text: String,
}
