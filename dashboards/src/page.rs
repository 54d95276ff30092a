use wire::{AppName, ServerId, Time};

use crate::{format, links};

/// What every page needs to know.
#[derive(Clone, Debug)]
pub struct Page {
    /// The poller's own version, for the footer.
    pub version: String,
    /// The moment that ages are told from.
    pub now: Time,
    /// Where this poller is reached, without a slash at the end:
    /// `https://fleet.example.org`. Used in the `curl` lines only.
    pub base: String,
    /// Who looks.
    pub viewer: Viewer,
}

/// Who looks at a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Viewer {
    /// Not signed in, and may not read: the page shows no navigation.
    Nobody,
    /// Not signed in, and may read.
    ReadOnly,
    /// Signed in.
    SignedIn {
        /// Name of the token or user.
        name: String,
        /// `viewer`, `operator` or `admin`.
        role: String,
    },
}

/// Which page of the navigation this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Fleet,
    Events,
    Commands,
    Audit,
    Elsewhere,
}

/// What the frame of a page shows.
pub(crate) struct Frame<'a> {
    pub(crate) page: &'a Page,
    pub(crate) title: String,
    pub(crate) place: Place,
    /// Whether the page is kept fresh while it is looked at.
    pub(crate) live: bool,
    /// Where the events come from that make it out of date.
    pub(crate) stream: String,
    /// Something on it is under way: without a script it is loaded again and again.
    pub(crate) open: bool,
}

impl<'a> Frame<'a> {
    pub(crate) fn new(page: &'a Page, title: &str, place: Place, live: bool) -> Self {
        let title = format!("{} · pm2-fleet", format::cut(title, 120));
        let stream = "/api/events/stream".to_owned();
        Self { page, title, place, live, stream, open: false }
    }

    /// Only events of this server, or of one of its apps, matter to it.
    pub(crate) fn of_app(mut self, server: &ServerId, app: Option<&AppName>) -> Self {
        let app = app.map_or("", |app| app.as_str());
        self.stream = links::query(&self.stream, &[("server", server.as_str()), ("app", app)]);
        self
    }

    /// Whether something on it is under way.
    pub(crate) fn open(self, open: bool) -> Self {
        Self { open, ..self }
    }

    /// Every page of the navigation that the viewer may see: where, its name, whether it is
    /// this one.
    pub(crate) fn links(&self) -> Vec<(&'static str, &'static str, bool)> {
        let mut links = vec![
            ("/", "Fleet", self.place == Place::Fleet),
            ("/events", "Events", self.place == Place::Events),
            ("/commands", "Commands", self.place == Place::Commands),
        ];
        if matches!(&self.page.viewer, Viewer::SignedIn { role, .. } if role == "admin") {
            links.push(("/audit", "Audit", self.place == Place::Audit));
        }
        links
    }

    pub(crate) fn asset(&self, name: &str) -> String {
        crate::assets::href(name)
    }

    pub(crate) fn clock(&self) -> String {
        format::clock(self.page.now)
    }

    pub(crate) fn machine(&self) -> String {
        format::machine_time(self.page.now)
    }
}
