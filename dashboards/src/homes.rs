//! In which PM2: where an app's name stands in several that one exporter watches, somebody has to
//! say which is meant. With one PM2 nothing here says anything.

use std::path::Path;
use std::sync::Arc;

use wire::{AppName, State};

use crate::format::cut;
use crate::{Server, links};

/// The PM2s of a server in which an app's name stands, and the one that the address means.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Homes {
    /// Directories of those that have the app, and of the one that is meant, in the order of the
    /// exporter's configuration; none where it watches one only.
    all: Vec<String>,
    /// The one that is meant.
    chosen: Option<String>,
}

impl Homes {
    /// Those that have `app` in a server's `state`. `chosen` is a directory from an address;
    /// `None` when no PM2 of the server is in it. A server that never answered cannot be asked
    /// which it has: it is believed.
    pub fn of(state: Option<&State>, app: &AppName, chosen: Option<&str>) -> Option<Self> {
        let Some(state) = state else {
            return Some(Self { all: Vec::new(), chosen: chosen.map(str::to_owned) });
        };
        let watched = || state.pm2_homes().iter().map(|pm2| &pm2.home);
        let chosen = match chosen {
            // As the exporter looks at it: `/x/` is `/x`.
            Some(path) => Some(watched().find(|home| Path::new(home) == Path::new(path))?),
            None => None,
        };
        if state.homes.len() < 2 {
            return Some(Self::default());
        }
        let has = |home: &String| {
            let mut processes = state.processes.iter().map(|process| &process.instance);
            processes.any(|it| it.name == *app && it.pm2_home.as_deref() == Some(home))
        };
        let all = watched().filter(|home| Some(*home) == chosen || has(home)).cloned().collect();
        Some(Self { all, chosen: chosen.cloned() })
    }

    /// The directory of the one that is meant, where one is.
    pub fn chosen(&self) -> Option<&str> {
        self.chosen.as_deref()
    }

    /// Whether it takes a choice, and none was made: an exporter would refuse to act.
    pub fn is_open(&self) -> bool {
        self.chosen.is_none() && self.all.len() > 1
    }

    /// The same as a field of an address; empty for none.
    pub(crate) fn field(&self) -> (&'static str, &str) {
        field(self.chosen())
    }

    /// Links to `path` with `more` in the address, one for each; none where there is no choice.
    pub(crate) fn links(&self, path: &str, more: &[(&str, &str)]) -> Vec<HomeLink> {
        let all = self.all.iter().filter(|_| self.all.len() > 1);
        let link = |home: &String| HomeLink {
            href: links::query(path, &[&[field(Some(home))], more].concat()),
            text: cut(home, 200),
            here: Some(home) == self.chosen.as_ref(),
        };
        all.map(link).collect()
    }

    /// What is known of a server, of the PM2 that is meant alone, where one is.
    pub(crate) fn narrow(&self, server: &Server) -> Option<Server> {
        let home = self.chosen()?;
        let mut server = server.clone();
        if let Some(state) = &mut server.state {
            let state = Arc::make_mut(state);
            state.processes.retain(|it| it.instance.pm2_home.as_deref() == Some(home));
            // They are the first one's: elsewhere a slot's name is one like any other.
            if state.pm2.home != home {
                state.slots.clear();
            }
        }
        server.crashes.retain(|(_, of), _| of.as_deref() == Some(home));
        server.alerts.retain(|it| it.pm2_home.as_deref().is_none_or(|of| of == home));
        Some(server)
    }
}

/// A PM2's directory as a field of an address; empty for none.
pub(crate) fn field(home: Option<&str>) -> (&'static str, &str) {
    ("pm2_home", home.unwrap_or_default())
}

/// One PM2 of the choice on a page.
pub(crate) struct HomeLink {
    pub(crate) href: String,
    pub(crate) text: String,
    pub(crate) here: bool,
}
