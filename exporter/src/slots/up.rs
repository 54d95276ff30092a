//! `pm2-exporter slots up|status|down`: a workspace brought to its state, whatever it was.
//! The only place that may start a PM2 daemon.

mod daemon;
mod status;

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::time::{Instant, sleep};

use super::place::SlotPlace;
use super::plan::{Occupant, Seen};
use super::port;
use super::record::Wanted;
use super::table::Line;
use super::workshop::{OwnEnv, Stuck, Workshop};
use crate::config::Config;
use crate::pm2::CallError;
use crate::pm2::launch::{self, Running};
use crate::pm2::rpc::Rpc;

/// PM2's name of the workspace's own server.
pub const ADMIN: &str = "admin-server";

/// How long the daemon may take to answer first.
const DAEMON: Duration = Duration::from_secs(30);
const CONNECT: Duration = Duration::from_secs(2);
/// How long `slots up` waits for a slot that `serve` changes: that may take long.
const CHANGED: Duration = Duration::from_secs(2);
/// The same for one that it holds otherwise: it tidies up behind a change, or mends.
const TIDIED: Duration = Duration::from_secs(60);

/// A workspace: the daemon, the admin server and the slots.
pub struct Workspace {
    /// What changes slots.
    pub workshop: Workshop,
    /// Whether processes get a moment to answer: a daemon may just have started them.
    waits: bool,
}

impl Workspace {
    /// As configured.
    pub fn new(config: &Config) -> Self {
        let own: OwnEnv = Arc::new(|name| std::env::var(name).ok());
        let root = config.slots.root(config.state_dir.as_deref(), own("HOME"));
        let home = config.pm2_homes.first.clone();
        let gone = || Err(CallError::Closed("not connected yet".to_owned()));
        let settings = Arc::new(config.slots.clone());
        let listen = config.listen;
        let workshop = Workshop::new(settings, listen, root, home, Arc::new(gone), own);
        Self { workshop, waits: false }
    }

    /// Connects to the daemon that runs; none when none does.
    async fn connect(&mut self) -> anyhow::Result<bool> {
        let path = self.workshop.home.join("rpc.sock");
        let rpc = match Rpc::connect(&path, CONNECT).await {
            Ok(rpc) => Arc::new(rpc),
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                bail!("not permitted to use {}: run as the user of that PM2", path.display())
            }
            Err(_) => return Ok(false),
        };
        let ping = rpc.call("ping", &serde_json::json!({}), Duration::from_secs(10)).await;
        // One that is ending may still accept connections.
        if matches!(ping, Err(CallError::Closed(_))) {
            return Ok(false);
        }
        // A daemon that hangs accepts connections: starting another beside it helps nobody.
        ping.context("the PM2 daemon accepts connections and does not answer")?;
        self.workshop.connection = Arc::new(move || Ok(Arc::clone(&rpc)));
        Ok(true)
    }

    /// Brings the workspace up; what is right is left alone.
    ///
    /// # Errors
    /// There is no daemon and none can be started, or the folders cannot be made.
    pub async fn up(mut self, reclaim: bool) -> anyhow::Result<Vec<Line>> {
        self.waits = true;
        for place in &self.workshop.settings.places {
            let root = self.workshop.store.root().display().to_string();
            self.workshop
                .store
                .prepare(&place.slot)
                .with_context(|| format!("slots.root: {root}"))?;
        }
        if !self.connect().await? {
            self.start_daemon().await?;
        }
        let mut lines = Vec::new();
        if let Some(wanted) = self.workshop.admin() {
            lines.push(self.bring_admin(&wanted, reclaim).await?);
        }
        for place in self.workshop.settings.places.clone() {
            lines.push(self.bring(&place, reclaim).await?);
        }
        self.workshop.write_ecosystem()?;
        let listing = self.workshop.list().await?;
        if let Err(error) = self.workshop.save_listing(&listing, &[]) {
            let note = error.to_string();
            let (name, status) = ("dump.pm2".to_owned(), "-".to_owned());
            lines.push(Line { name, port: 0, runs: "-".to_owned(), status, note, well: false });
        }
        Ok(lines)
    }

    async fn bring_admin(&self, wanted: &Wanted, reclaim: bool) -> anyhow::Result<Line> {
        let port = self.workshop.settings.admin.port;
        let listing = self.workshop.list().await?;
        let runs = wanted.start.shown();
        let found: Vec<&Running> = listing.named(ADMIN).collect();
        let mut changed = false;
        if let [one] = found[..]
            && one.status == "online"
        {
            let differs = self.workshop.admin_differs(wanted, one);
            let note = match differs {
                None => "was not started here; left alone".to_owned(),
                _ => String::new(),
            };
            if differs != Some(true) {
                let (name, status) = (ADMIN.to_owned(), one.status.clone());
                return Ok(Line { name, port, runs, status, note, well: true });
            }
            changed = true;
        }
        let note = if !wanted.start.script.is_file() {
            Err(format!("{} is not there; see [slots.admin]", wanted.start.script.display()))
        } else {
            // A place of its own, so that the same exchange serves it.
            let slot = "admin-server".parse().map_err(|error| anyhow::anyhow!("{error}"))?;
            let place = SlotPlace { slot, port };
            let done = self.exchange_named(&place, wanted, &found, reclaim).await;
            done.map(|note| if changed { format!("{note}: its settings differed") } else { note })
        };
        self.line(ADMIN, port, runs, note).await
    }

    async fn exchange_named(
        &self,
        place: &SlotPlace,
        wanted: &Wanted,
        found: &[&Running],
        reclaim: bool,
    ) -> Result<String, String> {
        let rpc = (self.workshop.connection)().map_err(|error| error.to_string())?;
        let holder = |own| port::owners(&[(place.port, own)]).remove(&place.port);
        let own = found.iter().any(|one| holder(Some(one.pid)).is_some_and(|holder| holder.own));
        // Before anything is ended: what runs is better than nothing.
        if let Some(owner) = holder(None).filter(|_| !own && !reclaim) {
            return Err(format!("port {} is held by {}", place.port, port::in_words(&owner)));
        }
        for running in found {
            launch::delete(&rpc, running.pm_id).await.map_err(|error| error.to_string())?;
        }
        if let Some(owner) = holder(None) {
            if !reclaim {
                return Err(format!("port {} is held by {}", place.port, port::in_words(&owner)));
            }
            port::end(owner.pid, Duration::from_secs(5)).await?;
        }
        let workshop = &self.workshop;
        let record =
            wanted.record(&workshop.settings, &workshop.store, &workshop.home, &workshop.node);
        launch::start(&rpc, &record).await.map_err(|error| error.to_string())?;
        Ok(if found.is_empty() { "started" } else { "started anew" }.to_owned())
    }

    /// Whether the admin server that runs is not the one that is configured.
    pub async fn admin_is_another(&self, rpc: &Rpc) -> Result<bool, CallError> {
        let Some(wanted) = self.workshop.admin() else { return Ok(false) };
        let listing = launch::list(rpc).await?;
        let mut found = listing.named(ADMIN);
        Ok(found.any(|running| self.workshop.admin_differs(&wanted, running) == Some(true)))
    }

    /// Holds a slot against `serve`; none when that goes on with it.
    async fn hold(&self, place: &SlotPlace) -> anyhow::Result<Option<File>> {
        let store = &self.workshop.store;
        let began = Instant::now();
        loop {
            if let Some(lock) = store.lock(&place.slot)? {
                return Ok(Some(lock));
            }
            let changes = store.load(&place.slot)?.standing.change.is_some();
            let patience = if changes { CHANGED } else { TIDIED };
            if began.elapsed() >= patience {
                return Ok(None);
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Brings one slot to what it is to run.
    async fn bring(&self, place: &SlotPlace, reclaim: bool) -> anyhow::Result<Line> {
        let workshop = &self.workshop;
        let name = format!("slot-{}", place.slot);
        let lock = self.hold(place).await?;
        let state = workshop.store.load(&place.slot)?;
        let shown = |occupant: &Occupant| match occupant {
            Occupant::Placeholder => "placeholder".to_owned(),
            Occupant::Release(id) => state.deployed(id).map_or_else(
                || format!("deployment {id}"),
                |deployed| format!("{} ({id})", deployed.shown.repository),
            ),
        };
        if lock.is_none() {
            let note = Err("is being changed by pm2-exporter serve; left alone".to_owned());
            return self.line(&name, place.port, shown(&state.standing.current), note).await;
        }
        let listing = workshop.list().await?;
        let found: Vec<&Running> = listing.named(&name).collect();
        let seen = workshop.seen(&listing, place, &state);
        let is_online = found.iter().all(|running| running.status == "online");
        if state.standing.change.is_some() {
            let note =
                Err("a change was cut off; pm2-exporter serve will bring it to its end".to_owned());
            if seen != Seen::Nothing {
                return self.line(&name, place.port, shown(&state.standing.current), note).await;
            }
        }
        let wanted_now = match &seen {
            Seen::Occupant(occupant) => *occupant == state.standing.current,
            // Somebody runs something here by hand: that is theirs.
            Seen::Other => found.len() == 1,
            Seen::Nothing => false,
        };
        let owner = workshop.foreign_owner(&listing, place);
        // A daemon that was killed left it: bringing the slot to its state means ending it.
        let leftover = owner.as_ref().is_some_and(|owner| workshop.is_leftover(owner, place));
        if wanted_now && is_online && !leftover {
            let runs = match &seen {
                Seen::Occupant(occupant) => shown(occupant),
                _ => "something that was not deployed here".to_owned(),
            };
            return self.line(&name, place.port, runs, Ok(String::new())).await;
        }
        let mut occupant = state.standing.current.clone();
        if seen == Seen::Other && found.len() == 1 {
            // Only stopped: started as it was, for nobody knows how else.
            let rpc = (workshop.connection)()?;
            let id = serde_json::json!({"id": found.first().map(|one| one.pm_id)});
            let note = rpc
                .call("restartProcessId", &id, DAEMON)
                .await
                .map(|_| "started anew".to_owned())
                .map_err(|error| error.to_string());
            let runs = "something that was not deployed here".to_owned();
            return self.line(&name, place.port, runs, note).await;
        }
        if let Some(owner) = owner
            && !reclaim
            && !leftover
        {
            let note = Err(format!(
                "port {} is held by {}; end it, or use --reclaim",
                place.port,
                port::in_words(&owner)
            ));
            return self.line(&name, place.port, shown(&occupant), note).await;
        }
        let mut note = match (found.is_empty(), leftover) {
            (_, true) => "started anew; what a killed daemon had left was ended",
            (true, _) => "started",
            _ => "started anew",
        }
        .to_owned();
        let wanted = match workshop.wanted(place, &state, &occupant) {
            Ok(wanted) => wanted,
            Err(reason) => {
                note = format!("{reason}; the placeholder was started");
                occupant = Occupant::Placeholder;
                workshop.wanted(place, &state, &occupant).map_err(anyhow::Error::msg)?
            }
        };
        let done = workshop.exchange(place, &wanted, reclaim, leftover).await;
        let note = match done {
            Ok(()) => Ok(note),
            Err(Stuck::Away(reason) | Stuck::Wrong(reason)) => Err(reason),
        };
        self.line(&name, place.port, shown(&occupant), note).await
    }
}
