use askama::Template;
use wire::Process;

use crate::page::{Frame, Place};
use crate::rows::{CommandLine, Moment};
use crate::{CommandRow, Error, Page, links, marks};

/// `/commands/{id}`: one command, with all that is known of it.
#[derive(Clone, Debug)]
pub struct CommandPage {
    /// What every page needs.
    pub page: Page,
    /// The command.
    pub command: CommandRow,
    /// From which address it was asked for.
    pub requested_from: String,
    /// Names of what it took.
    pub summary: Option<String>,
    /// The visitor may take it back, as long as it waits.
    pub may_cancel: bool,
}

impl CommandPage {
    /// The page as HTML.
    pub fn render(&self) -> Result<String, Error> {
        let record = &self.command.record;
        let rows = CommandLine::all(std::slice::from_ref(&self.command), self.page.now);
        let Some(line) = rows.into_iter().next() else { return Ok(String::new()) };
        let title = format!("{} {}", record.action, record.target);
        View {
            frame: Frame::new(&self.page, &title, Place::Commands, line.open).open(line.open),
            cancel: self.may_cancel && record.status == wire::CommandStatus::Queued,
            ended: record.finished_at.map(|time| Moment::new(time, self.page.now)),
            sides: match (record.before.as_slice(), record.after.as_slice()) {
                ([], []) => Vec::new(),
                (before, after) => [("Before", before), ("After", after)]
                    .map(|(name, side)| (name, side.iter().map(Row::new).collect()))
                    .into(),
            },
            shell: Some(format!(
                "curl -H \"Authorization: Bearer $TOKEN\" '{}/api{}'",
                self.page.base,
                links::command(&record.id)
            )),
            line,
            it: self,
        }
        .render()
    }
}

#[derive(Template)]
#[template(path = "command.html")]
struct View<'a> {
    frame: Frame<'a>,
    it: &'a CommandPage,
    line: CommandLine<'a>,
    cancel: bool,
    ended: Option<Moment>,
    /// Before and after, unless nothing is known of either.
    sides: Vec<(&'static str, Vec<Row>)>,
    shell: Option<String>,
}

/// A process before or after.
struct Row {
    instance: u32,
    pm_id: u32,
    badge: marks::Badge,
    pid: String,
    restarts: String,
}

impl Row {
    fn new(process: &Process) -> Self {
        Self {
            instance: process.instance.instance_id,
            pm_id: process.pm_id,
            badge: marks::Badge::process(process),
            pid: crate::rows::or_nothing(process.pid, |pid| pid.to_string()),
            restarts: crate::format::count(process.restarts.total()),
        }
    }
}
