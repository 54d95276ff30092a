//! How a workspace stands, and taking it down.

use std::time::Duration;

use anyhow::bail;
use service::shutdown::Shutdown;

use super::{ADMIN, Workspace};
use crate::pm2::launch::{self, Listing, Running};
use crate::slots::check::refuses;
use crate::slots::plan::{Occupant, Seen};
use crate::slots::probe::Probe;
use crate::slots::table::Line;
use crate::slots::{accepts, port};

impl Workspace {
    /// Waits a moment until the port answers, and tells how it stands.
    pub(super) async fn line(
        &self,
        name: &str,
        port: u16,
        runs: String,
        note: Result<String, String>,
    ) -> anyhow::Result<Line> {
        if self.waits && note.is_ok() {
            let interval = Duration::from_millis(500);
            let probe = Probe { port, path: None, attempts: 60, interval };
            let never = Shutdown::default();
            let _ = probe.until_well(&never, || std::future::ready(None)).await;
        }
        let listing = self.workshop.list().await?;
        let (status, online) = status_of(&listing, name);
        let serves = accepts(port).await;
        let mut well = online && serves && note.is_ok();
        let note = match note {
            Ok(note) if !serves && online => {
                well = false;
                format!("{note} {}", refuses(name, port)).trim().to_owned()
            }
            Ok(note) | Err(note) => note,
        };
        Ok(Line { name: name.to_owned(), port, runs, status, note, well })
    }

    /// How everything stands; nothing is changed.
    ///
    /// # Errors
    /// The daemon does not answer, or a slot's state cannot be read.
    pub async fn status(mut self) -> anyhow::Result<Vec<Line>> {
        if !self.connect().await? {
            bail!("no PM2 daemon runs in {}; 'slots up' starts one", self.workshop.home.display());
        }
        let listing = self.workshop.list().await?;
        let mut lines = Vec::new();
        if let Some(wanted) = self.workshop.admin() {
            let port = self.workshop.settings.admin.port;
            let differs = |one| self.workshop.admin_differs(&wanted, one) == Some(true);
            let note = match listing.named(ADMIN).any(differs) {
                true => Err("runs with other settings; 'slots up' starts it anew".to_owned()),
                false => Ok(String::new()),
            };
            lines.push(self.line(ADMIN, port, wanted.start.shown(), note).await?);
        }
        for place in self.workshop.settings.places.clone() {
            let state = self.workshop.store.load(&place.slot)?;
            let runs = match self.workshop.seen(&listing, &place, &state) {
                Seen::Nothing => "-".to_owned(),
                Seen::Other => "something that was not deployed here".to_owned(),
                Seen::Occupant(Occupant::Placeholder) => "placeholder".to_owned(),
                Seen::Occupant(Occupant::Release(id)) => state.deployed(&id).map_or_else(
                    || format!("deployment {id}"),
                    |deployed| format!("{} ({id})", deployed.shown.repository),
                ),
            };
            let note = match self.workshop.foreign_owner(&listing, &place) {
                Some(owner) => {
                    Err(format!("port {} is held by {}", place.port, port::in_words(&owner)))
                }
                None => Ok(String::new()),
            };
            let name = format!("slot-{}", place.slot);
            lines.push(self.line(&name, place.port, runs, note).await?);
        }
        Ok(lines)
    }

    /// Saves what runs, then stops the slots and the admin server; other applications and the
    /// daemon stay.
    ///
    /// # Errors
    /// The daemon does not answer.
    pub async fn down(mut self) -> anyhow::Result<Vec<Line>> {
        if !self.connect().await? {
            bail!("no PM2 daemon runs in {}", self.workshop.home.display());
        }
        let listing = self.workshop.list().await?;
        // Before the stop: what is saved is what the next boot starts.
        let saved = self.workshop.save_listing(&listing, &[]);
        let rpc = (self.workshop.connection)()?;
        let slots = self
            .workshop
            .settings
            .places
            .iter()
            .map(|place| (format!("slot-{}", place.slot), place.port));
        let admin = (ADMIN.to_owned(), self.workshop.settings.admin.port);
        let mut lines = Vec::new();
        for (name, port) in std::iter::once(admin).chain(slots) {
            let mut note = String::new();
            for running in listing.named(&name).filter(|running| running.status != "stopped") {
                note = match launch::stop(&rpc, running.pm_id).await {
                    Ok(()) => "stopped".to_owned(),
                    Err(error) => error.to_string(),
                };
            }
            let (status, _) = status_of(&self.workshop.list().await?, &name);
            let well = matches!(status.as_str(), "stopped" | "-");
            lines.push(Line { name, port, runs: "-".to_owned(), status, note, well });
        }
        saved?;
        Ok(lines)
    }
}

fn status_of(listing: &Listing, name: &str) -> (String, bool) {
    let found: Vec<&Running> = listing.named(name).collect();
    match found[..] {
        [] => ("-".to_owned(), false),
        [one] => (one.status.clone(), one.status == "online"),
        _ => (format!("{} processes", found.len()), false),
    }
}
