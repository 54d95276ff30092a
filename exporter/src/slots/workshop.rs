//! What changes slots by acting: PM2 is asked, ports are looked at. Used by `serve` and by the
//! `slots` commands; decides nothing that `plan` can decide.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};
use wire::{PortOwner, Process, RestartCause};

use super::config::Settings;
use super::env::{self, Env};
use super::place::SlotPlace;
use super::plan::{Occupant, Seen};
use super::port;
use super::record::{RESTARTS_DEPLOYED, RESTARTS_PLACEHOLDER, Wanted};
use super::start::{Start, on_path};
use super::store::{SlotState, Store};
use crate::config::Config;
use crate::pm2::dump::{self, SaveError};
use crate::pm2::launch::{self, Listing, Running};
use crate::pm2::rpc::Rpc;
use crate::pm2::{CallError, Home, Intent};

/// Gives the connection to the daemon, where there is one.
pub type Connection = Arc<dyn Fn() -> Result<Arc<Rpc>, CallError> + Send + Sync>;
/// Gives variables of the exporter's own environment.
pub type OwnEnv = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// Tells processes of a slot from all others, those that lost their parent included.
const MARK: &str = "PM2_EXPORTER_SLOT";

/// Why a slot's process could not be exchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stuck {
    /// PM2 is not there to be asked: later, perhaps.
    Away(String),
    /// It will not work.
    Wrong(String),
}

impl std::fmt::Display for Stuck {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Self::Away(reason) | Self::Wrong(reason)) = self;
        f.write_str(reason)
    }
}

impl From<CallError> for Stuck {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Refused(_) => Self::Wrong(error.to_string()),
            _ => Self::Away(error.to_string()),
        }
    }
}

/// See the module.
#[derive(Clone)]
pub struct Workshop {
    /// `[slots]`.
    pub settings: Arc<Settings>,
    /// Where the exporter listens: the admin server watches it.
    pub listen: SocketAddr,
    /// The files.
    pub store: Store,
    /// PM2's directory.
    pub home: PathBuf,
    /// The daemon.
    pub connection: Connection,
    /// This program.
    pub exporter: PathBuf,
    /// Node.js.
    pub node: PathBuf,
    /// The exporter's own environment.
    pub own: OwnEnv,
    /// The process table, where there is one: it is told what is about to happen.
    pub watched: Option<Arc<Home>>,
}

impl Workshop {
    /// For a daemon's directory.
    pub fn new(
        settings: Arc<Settings>,
        listen: SocketAddr,
        root: PathBuf,
        home: PathBuf,
        connection: Connection,
        own: OwnEnv,
    ) -> Self {
        let path = own("PATH").unwrap_or_default();
        let node = on_path("node", &path).unwrap_or_else(|| PathBuf::from("node"));
        let exporter = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("pm2-exporter"));
        Self {
            settings,
            listen,
            store: Store::new(root),
            home,
            connection,
            exporter,
            node,
            own,
            watched: None,
        }
    }

    /// For the daemon that `serve` watches.
    pub fn of_home(config: &Config, home: &Arc<Home>) -> Self {
        let own: OwnEnv = Arc::new(|name| std::env::var(name).ok());
        let root = config.slots.root(config.state_dir.as_deref(), own("HOME"));
        let (settings, path) = (Arc::new(config.slots.clone()), home.path().to_owned());
        let asked = Arc::clone(home);
        let connection: Connection = Arc::new(move || asked.rpc());
        let workshop = Self::new(settings, config.listen, root, path, connection, own);
        Self { watched: Some(Arc::clone(home)), ..workshop }
    }

    /// Tells the process table why the slot's process is about to be replaced, or that it was.
    pub fn intend(&self, place: &SlotPlace, cause: Option<RestartCause>) {
        if let (Some(home), Some(name)) = (&self.watched, place.process()) {
            home.table(|table| table.intend(&name, cause.map(Intent::Replace)));
        }
    }

    /// What PM2 was last seen to run as the slot's process.
    pub fn processes(&self, place: &SlotPlace) -> Vec<Process> {
        let (Some(home), Some(name)) = (&self.watched, place.process()) else { return Vec::new() };
        let mut all = home.processes(|_| Default::default());
        all.retain(|process| process.instance.name == name);
        all
    }

    /// Has the process table see what PM2 has now.
    pub async fn look(&self) {
        if let Some(home) = &self.watched {
            // What comes later by itself is no reason to fail.
            let _ = home.refresh().await;
        }
    }

    /// The PATH that programs are found by.
    pub fn path(&self) -> String {
        (self.own)("PATH").unwrap_or_default()
    }

    /// What marks everything of a slot.
    pub fn mark(&self, place: &SlotPlace) -> String {
        format!("{}#{}", self.store.root().display(), place.slot)
    }

    /// What is to run as the slot's process.
    ///
    /// # Errors
    /// The release is not known, or nothing is known that runs it.
    pub fn wanted(
        &self,
        place: &SlotPlace,
        state: &SlotState,
        occupant: &Occupant,
    ) -> Result<Wanted, String> {
        let name = format!("slot-{}", place.slot);
        let mark = (MARK.to_owned(), self.mark(place));
        match occupant {
            Occupant::Placeholder => {
                let mut env = env::of_placeholder(&self.settings, place, &*self.own);
                env.extend([mark]);
                let start = Start {
                    script: self.exporter.clone(),
                    node: None,
                    args: vec!["placeholder".to_owned()],
                    env: Env::new(),
                    cwd: self.store.root().to_owned(),
                };
                Ok(Wanted { name, start, env, max_restarts: RESTARTS_PLACEHOLDER })
            }
            Occupant::Release(id) => {
                let deployed =
                    state.deployed(id).ok_or_else(|| format!("deployment {id} is not known"))?;
                let start = deployed
                    .start
                    .clone()
                    .ok_or_else(|| format!("nothing is known that runs deployment {id}"))?;
                if !start.script.is_file() {
                    return Err(format!("{} of deployment {id} is gone", start.shown()));
                }
                let mut env = self.application_env(place, state, &deployed.env, place.port);
                env.extend([mark]);
                Ok(Wanted { name, start, env, max_restarts: RESTARTS_DEPLOYED })
            }
        }
    }

    /// What an application of the slot gets.
    pub fn application_env(
        &self,
        place: &SlotPlace,
        state: &SlotState,
        deployment: &Env,
        port: u16,
    ) -> Env {
        env::of_application(&self.settings, place, port, &state.env, deployment, &*self.own)
    }

    /// PM2's list.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn list(&self) -> Result<Listing, CallError> {
        launch::list(&*(self.connection)()?).await
    }

    /// What PM2 runs as the slot's process.
    pub fn seen(&self, listing: &Listing, place: &SlotPlace, state: &SlotState) -> Seen {
        let name = format!("slot-{}", place.slot);
        let all: Vec<&Running> = listing.named(&name).collect();
        match all[..] {
            [] => Seen::Nothing,
            [one] => self.occupant(one, place, state).map_or(Seen::Other, Seen::Occupant),
            _ => Seen::Other,
        }
    }

    fn occupant(
        &self,
        running: &Running,
        place: &SlotPlace,
        state: &SlotState,
    ) -> Option<Occupant> {
        let script = Path::new(&running.script);
        if running.first_arg == "placeholder" && script.file_name() == self.exporter.file_name() {
            return Some(Occupant::Placeholder);
        }
        for deployed in &state.deployments {
            let id = &deployed.shown.id;
            let ours = deployed.start.as_ref().is_some_and(|start| {
                start.script == script && start.cwd == Path::new(&running.cwd)
            });
            if ours || script.starts_with(self.store.release(&place.slot, id)) {
                return Some(Occupant::Release(id.clone()));
            }
        }
        state.foreign_placeholder.then_some(Occupant::Placeholder)
    }

    /// Of several processes of the slot's name the one that is what the slot is to run, and
    /// serves.
    pub fn rightful<'a>(
        &self,
        listing: &'a Listing,
        place: &SlotPlace,
        state: &SlotState,
    ) -> Option<&'a Running> {
        let name = format!("slot-{}", place.slot);
        listing.processes.iter().filter(|running| running.name == name).find(|running| {
            running.status == "online"
                && self.occupant(running, place, state).as_ref() == Some(&state.standing.current)
                && port::owners(&[(place.port, Some(running.pid))])
                    .get(&place.port)
                    .is_some_and(|owner| owner.own)
        })
    }

    /// Who holds the slot's port, if that is not the slot's own process.
    pub fn foreign_owner(&self, listing: &Listing, place: &SlotPlace) -> Option<PortOwner> {
        let name = format!("slot-{}", place.slot);
        let own = listing.named(&name).map(|running| running.pid).find(|pid| *pid > 0);
        port::owners(&[(place.port, own)]).remove(&place.port).filter(|owner| !owner.own)
    }

    /// Whether this is a process of the slot's own that a killed daemon left behind.
    pub fn is_leftover(&self, owner: &PortOwner, place: &SlotPlace) -> bool {
        !owner.own && is_marked(owner.pid, &self.mark(place))
    }

    /// Exchanges the slot's process: deletes every one of its name, starts the wanted one.
    /// `reclaim`: whoever else then holds the port is ended; `resumed`: what the slot itself
    /// left behind is, because a daemon that was killed leaves its processes.
    ///
    /// # Errors
    /// See [`Stuck`].
    pub async fn exchange(
        &self,
        place: &SlotPlace,
        wanted: &Wanted,
        reclaim: bool,
        resumed: bool,
    ) -> Result<(), Stuck> {
        self.store.prepare(&place.slot).map_err(|error| Stuck::Wrong(error.to_string()))?;
        let rpc = (self.connection)()?;
        let listing = launch::list(&rpc).await?;
        let name = format!("slot-{}", place.slot);
        let old: Vec<&Running> = listing.named(&name).collect();
        // What it started may outlive it and hold the port.
        let family: Vec<(u32, Option<String>)> = old
            .iter()
            .filter(|running| running.pid > 0)
            .flat_map(|running| port::family(running.pid))
            .map(|pid| (pid, start_of(pid)))
            .collect();
        for running in old {
            launch::delete(&rpc, running.pm_id).await?;
        }
        for (pid, started) in family {
            if started.is_some() && start_of(pid) == started {
                kill(pid);
            }
        }
        if resumed {
            end_leftovers(&self.mark(place));
        }
        if reclaim {
            let owner = port::owners(&[(place.port, None)]).remove(&place.port);
            if let Some(owner) = owner.filter(|owner| owner.pid > 0) {
                port::end(owner.pid, Duration::from_secs(5)).await.map_err(Stuck::Wrong)?;
            }
        }
        // A socket may outlive its process for a moment.
        let until = Instant::now() + Duration::from_millis(500);
        while !port::owners(&[(place.port, None)]).is_empty() && Instant::now() < until {
            sleep(Duration::from_millis(10)).await;
        }
        let record = wanted.record(&self.settings, &self.store, &self.home, &self.node);
        if let Some(pm_id) = launch::start(&rpc, &record).await? {
            keep_alone(&rpc, &name, pm_id).await?;
        }
        Ok(())
    }

    /// Saves PM2's list, so that a reboot brings back what runs now.
    ///
    /// # Errors
    /// It is not saved, in words.
    pub async fn save(&self) -> Result<(), String> {
        let listing = self.list().await.map_err(|error| error.to_string())?;
        self.save_listing(&listing, &[]).map_err(|error| error.to_string())
    }

    /// Saves a list that was read already. `gone` may be missing from it.
    ///
    /// # Errors
    /// See [`SaveError`].
    pub fn save_listing(&self, listing: &Listing, gone: &[&str]) -> Result<(), SaveError> {
        dump::save(&self.home, &listing.raw, gone)
    }
}

/// Deletes what came beside a process that was started: a `pm2 resurrect` under way starts what
/// it had not found, and PM2 puts a process back that was deleted while it started it again.
async fn keep_alone(rpc: &Rpc, name: &str, pm_id: u32) -> Result<(), CallError> {
    let listing = launch::list(rpc).await?;
    if listing.named(name).any(|running| running.pm_id == pm_id) {
        for other in listing.named(name).filter(|running| running.pm_id != pm_id) {
            launch::delete(rpc, other.pm_id).await?;
        }
    }
    Ok(())
}

fn start_of(pid: u32) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(19).map(str::to_owned)
}

fn kill(pid: u32) {
    if let Some(pid) = Pid::from_raw(pid.cast_signed()) {
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// Ends processes of the slot that no daemon looks after any more.
fn end_leftovers(mark: &str) {
    port::all_pids().into_iter().filter(|pid| is_marked(*pid, mark)).for_each(kill);
}

fn is_marked(pid: u32, mark: &str) -> bool {
    port::has_variable(pid, MARK, mark)
}
