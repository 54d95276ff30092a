use wire::Time;

use crate::format;

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
    Elsewhere,
}

/// What the frame of a page shows.
pub(crate) struct Frame<'a> {
    pub(crate) page: &'a Page,
    pub(crate) title: String,
    pub(crate) place: Place,
    /// Whether the page may be fetched again and again while it is looked at.
    pub(crate) live: bool,
}

impl<'a> Frame<'a> {
    pub(crate) fn new(page: &'a Page, title: &str, place: Place, live: bool) -> Self {
        let title = format!("{} · pm2-fleet", format::cut(title, 120));
        Self { page, title, place, live }
    }

    /// Every page of the navigation: where, its name, whether it is this one.
    pub(crate) fn links(&self) -> [(&'static str, &'static str, bool); 3] {
        [
            ("/", "Fleet", self.place == Place::Fleet),
            ("/events", "Events", self.place == Place::Events),
            ("/commands", "Commands", self.place == Place::Commands),
        ]
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
