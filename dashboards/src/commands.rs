use askama::Template;
use wire::CommandStatus;

use crate::form::{Choice, choices, same};
use crate::links::query;
use crate::page::{Frame, Place};
use crate::rows::CommandLine;
use crate::{CommandRow, Error, Page};

/// What `/commands` was asked to show, as it stands in the address; empty means all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandFilter {
    /// Id of a server.
    pub server: String,
    /// Name of an app.
    pub app: String,
    /// PM2's directory, on servers where one of several is meant.
    pub pm2_home: String,
    /// Commands of this status.
    pub status: Option<CommandStatus>,
    /// Parts of this command for many servers.
    pub part_of: String,
}

/// `/commands`: who did what, where, when, and how it ended.
#[derive(Clone, Debug)]
pub struct CommandsPage {
    /// What every page needs.
    pub page: Page,
    /// What was asked for.
    pub filter: CommandFilter,
    /// What is wrong with the filter, in words; the commands are then left empty.
    pub problem: Option<String>,
    /// How far the command is whose parts these are, in words.
    pub whole: Option<String>,
    /// The commands, newest first.
    pub commands: Vec<CommandRow>,
    /// Cursor of the next older page; `None` on the last.
    pub older: Option<String>,
    /// Whether this is a later page: it then links to the newest.
    pub paged: bool,
}

impl CommandsPage {
    /// The page as HTML.
    pub fn render(&self) -> Result<String, Error> {
        View {
            frame: Frame::new(&self.page, "Commands", Place::Commands, !self.paged),
            commands: CommandLine::all(&self.commands, self.page.now),
            newest: self.filter.address(""),
            older: self.older.as_deref().map(|cursor| self.filter.address(cursor)),
            filtered: self.filter != CommandFilter::default(),
            by_status: choices(
                "any",
                CommandStatus::ALL.map(|status| same(status.as_str())),
                self.filter.status.map_or("", CommandStatus::as_str),
            ),
            it: self,
        }
        .render()
    }
}

impl CommandFilter {
    fn address(&self, cursor: &str) -> String {
        let status = self.status.map_or("", CommandStatus::as_str);
        let fields = [
            ("server", self.server.as_str()),
            ("app", &self.app),
            ("pm2_home", &self.pm2_home),
            ("status", status),
            ("part_of", &self.part_of),
            ("cursor", cursor),
        ];
        query("/commands", &fields)
    }
}

#[derive(Template)]
#[template(path = "commands.html")]
struct View<'a> {
    frame: Frame<'a>,
    it: &'a CommandsPage,
    commands: Vec<CommandLine<'a>>,
    newest: String,
    older: Option<String>,
    filtered: bool,
    by_status: Vec<Choice>,
}
