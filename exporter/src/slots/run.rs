//! Carries out a change of a slot, step by step, as `plan` says. What a step is about to do is
//! on disk before it is done.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use service::shutdown::Shutdown;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep};
use wire::{CommandId, DeployRequest, DeploymentStatus};

use super::child::{Task, end_marked};
use super::env::{self, Env};
use super::git::Fetch;
use super::install::{Project, Todo};
use super::log::Log;
use super::place::SlotPlace;
use super::plan::{Change, End, Occupant, Phase, Seen, Went};
use super::port;
use super::probe::{Probe, Unwell, spare_port};
use super::repository::Repository;
use super::start::{Finder, on_path};
use super::store::SlotState;
use super::tell::Teller;
use super::workshop::{Stuck, Workshop};
use super::{repository, tree, words};

/// How soon a daemon that is away is asked again.
const AWAY: Duration = Duration::from_millis(500);

/// A slot with what is known of it.
#[derive(Debug)]
pub struct Managed {
    /// The slot.
    pub place: SlotPlace,
    /// What is known.
    pub state: Mutex<SlotState>,
    /// One change at a time.
    pub lane: Arc<Semaphore>,
}

impl Managed {
    /// What is known.
    pub fn state(&self) -> MutexGuard<'_, SlotState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a change is carried out with.
pub struct Runner<'a> {
    /// PM2 and files.
    pub workshop: &'a Workshop,
    /// The slot.
    pub managed: &'a Managed,
    /// Who is told.
    pub teller: &'a Teller,
    /// The turn to change something of this daemon.
    pub turn: &'a Arc<Semaphore>,
    /// Places for those who clone, install and build.
    pub builds: &'a Arc<Semaphore>,
    /// Ends waits.
    pub shutdown: &'a Shutdown,
    /// What is deployed; none for other changes, and for one that was cut off.
    pub deploy: Option<&'a (DeployRequest, Repository)>,
    /// Whoever else holds the port is ended.
    pub reclaim: bool,
    /// It was cut off and is taken up again, or the daemon was away meanwhile: a daemon that
    /// was killed leaves its processes, and those of the slot are in the way.
    pub cut_off: AtomicBool,
}

impl Runner<'_> {
    /// Carries the change out to its end; `None` when the exporter stops first: then it is
    /// taken up at the next start.
    pub async fn run(&self) -> Option<End> {
        let mut building: Option<OwnedSemaphorePermit> = None;
        let limit = self.time_limit();
        let mut deadline = Instant::now() + limit;
        let log = self.log()?;
        loop {
            let change = self.managed.state().standing.change.clone()?;
            if change.phase == Phase::Fetch && building.is_none() {
                building = tokio::select! {
                    place = Arc::clone(self.builds).acquire_owned() => place.ok(),
                    () = self.shutdown.drain.cancelled() => None,
                };
                deadline = Instant::now() + limit;
            }
            if !matches!(change.phase, Phase::Fetch | Phase::Install | Phase::Build) {
                building = None;
            }
            self.teller.phase(self.managed, &change);
            log.note(change.phase.doing());
            let went = self.step(&change, &log, deadline).await?;
            if let Went::Wrong(reason) = &went {
                log.note(reason);
            }
            let lines = log.last_lines();
            let end = {
                let mut state = self.managed.state();
                let end = state.standing.went(went);
                if let Some(end) = &end {
                    close(&mut state, end, lines);
                }
                self.save(&state);
                end
            };
            if let Some(end) = end {
                self.finish(&end, &log).await;
                return Some(end);
            }
        }
    }

    fn save(&self, state: &SlotState) {
        if let Err(error) = self.workshop.store.save(&self.managed.place.slot, state) {
            // What runs counts more than what is written: the change goes on.
            tracing::error!(%error, slot = %self.managed.place.slot, "a slot's state cannot be saved");
        }
    }

    fn time_limit(&self) -> Duration {
        let asked = self.deploy.and_then(|(request, _)| request.timeout.as_deref());
        asked
            .and_then(|text| service::quantity::duration(text).ok())
            .unwrap_or(self.workshop.settings.timeout)
    }

    fn log(&self) -> Option<Log> {
        let place = &self.managed.place;
        let id = self.managed.state().standing.change.as_ref()?.id.clone();
        let secrets = self.deploy.map(|(_, repository)| repository.secrets()).unwrap_or_default();
        if self.managed.state().deployed(&id).is_none() {
            // Only deployments have a log that can be read.
            return Log::create(Path::new("/dev/null"), 0, Vec::new()).ok();
        }
        let store = &self.workshop.store;
        let made = store.prepare(&place.slot).and_then(|()| {
            Log::create(&store.log(&place.slot, &id), self.workshop.settings.log_limit, secrets)
        });
        made.inspect_err(|error| tracing::error!(%error, "a deployment's log cannot be written"))
            .or_else(|_| Log::create(Path::new("/dev/null"), 0, Vec::new()))
            .ok()
    }

    /// Does one step; `None` when the exporter stops meanwhile.
    async fn step(&self, change: &Change, log: &Log, deadline: Instant) -> Option<Went> {
        let result = match change.phase {
            Phase::Fetch => self.fetch(&change.id, log, deadline).await,
            Phase::Install => self.install(&change.id, log, deadline).await,
            Phase::Build => self.build(&change.id, log, deadline).await,
            Phase::Try => self.try_out(&change.to, log).await,
            Phase::Check => self.check(&change.to).await,
            Phase::Switch => return self.switch(&change.to, self.reclaim).await,
            Phase::PutBack => {
                let went = self.switch(&change.from, self.reclaim).await?;
                // Whether it answers again is told, and changes nothing.
                if went == Went::Well
                    && let Err(Failed::Wrong(error)) = self.check(&change.from).await
                {
                    log.note(&format!("the former release does not answer: {error}"));
                }
                return Some(went);
            }
            Phase::LastResort => return self.switch(&Occupant::Placeholder, self.reclaim).await,
        };
        Some(match result {
            Ok(()) => Went::Well,
            Err(Failed::Wrong(reason)) => Went::Wrong(reason),
            Err(Failed::Stopped) => return None,
        })
    }

    fn release(&self, id: &CommandId) -> PathBuf {
        self.workshop.store.release(&self.managed.place.slot, id)
    }

    /// The application's folder within a release.
    fn folder(&self, id: &CommandId) -> Result<PathBuf, Failed> {
        let release = self.release(id);
        let subdir =
            self.managed.state().deployed(id).and_then(|deployed| deployed.shown.subdir.clone());
        let Some(subdir) = subdir else { return Ok(release) };
        let checked = repository::subdir(&subdir).map_err(Failed::Wrong)?;
        let folder = release.join(checked);
        let real = folder.canonicalize().map_err(|_| {
            Failed::Wrong(format!("subdir: the repository has no folder {subdir:?}"))
        })?;
        let root = release.canonicalize().map_err(|error| Failed::Wrong(error.to_string()))?;
        if !real.starts_with(root) || !real.is_dir() {
            return Err(Failed::Wrong(format!(
                "subdir: {subdir:?} is not a folder of the repository"
            )));
        }
        Ok(real)
    }

    async fn fetch(&self, id: &CommandId, log: &Log, deadline: Instant) -> Result<(), Failed> {
        let Some((request, repository)) = self.deploy else {
            return Err(Failed::Wrong("what is to be deployed is not known any more".to_owned()));
        };
        self.stop_if_foreign().await?;
        let into = self.release(id);
        let path = self.workshop.path();
        let git = on_path("git", &path)
            .ok_or_else(|| Failed::Wrong("git is needed and is not on the PATH".to_owned()))?;
        let home = self.workshop.store.tools_home();
        log.note(&format!("fetching {repository}"));
        let mark = self.workshop.mark(&self.managed.place);
        let fetch = Fetch {
            repository,
            branch: request.branch.as_deref(),
            commit: request.commit.as_deref(),
            into: &into,
            git: &git,
            home: &home,
            allow_file: self.workshop.settings.allow_file_repositories,
            mark: &mark,
        };
        let commit = fetch.run(log, deadline, self.shutdown, &*self.workshop.own).await;
        let commit = self.or_stopped(commit.map_err(|error| with_last(error, log)))?;
        log.note(&format!("commit {commit}"));
        {
            let mut state = self.managed.state();
            if let Some(deployed) = state.deployed_mut(id) {
                deployed.shown.commit = Some(commit);
            }
        }
        self.measure(id).await?;
        self.folder(id).map(drop)
    }

    /// Sees that no link leads out and that it is not too big.
    async fn measure(&self, id: &CommandId) -> Result<(), Failed> {
        let (release, limit) = (self.release(id), self.workshop.settings.release_limit);
        let checked = tokio::task::spawn_blocking(move || tree::check(&release, limit)).await;
        match checked {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(refused)) => Err(Failed::Wrong(refused.to_string())),
            Err(error) => Err(Failed::Wrong(error.to_string())),
        }
    }

    async fn install(&self, id: &CommandId, log: &Log, deadline: Instant) -> Result<(), Failed> {
        let folder = self.folder(id)?;
        let (release, path) = (self.release(id), self.workshop.path());
        let release = release.canonicalize().unwrap_or(release);
        let given = self.given(|request| request.install.as_ref())?;
        let project = Project { release: &release, folder: &folder, path: &path };
        match project.install(given.as_deref()).map_err(Failed::Wrong)? {
            Some(todo) => self.todo(id, &todo, log, deadline).await,
            None => {
                log.note("nothing to install");
                Ok(())
            }
        }
    }

    async fn build(&self, id: &CommandId, log: &Log, deadline: Instant) -> Result<(), Failed> {
        let folder = self.folder(id)?;
        let (release, path) = (self.release(id), self.workshop.path());
        let release = release.canonicalize().unwrap_or(release);
        let given = self.given(|request| request.build.as_ref())?;
        let project = Project { release: &release, folder: &folder, path: &path };
        match project.build(given.as_deref()).map_err(Failed::Wrong)? {
            Some(todo) => self.todo(id, &todo, log, deadline).await?,
            None => log.note("nothing to build"),
        }
        let given = self.given(|request| request.start.as_ref())?;
        let finder = Finder { release: &release, folder: &folder, path: &path };
        let start = finder.find(given.as_deref()).map_err(Failed::Wrong)?;
        log.note(&format!("is started as: {}", start.shown()));
        self.settle_on_disk().await;
        let mut state = self.managed.state();
        if let Some(deployed) = state.deployed_mut(id) {
            deployed.shown.start = Some(start.shown());
            deployed.start = Some(start);
        }
        Ok(())
    }

    /// Has the release written out: after a power cut the slot's state may name it, and then
    /// it must be whole.
    async fn settle_on_disk(&self) {
        let root = self.workshop.store.root().to_owned();
        let written = tokio::task::spawn_blocking(move || {
            std::fs::File::open(root).and_then(|root| Ok(rustix::fs::syncfs(root)?))
        });
        match tokio::time::timeout(Duration::from_secs(30), written).await {
            Ok(Ok(Ok(()))) => {}
            _ => tracing::warn!("a release may not be on disk yet"),
        }
    }

    fn given(
        &self,
        pick: impl Fn(&DeployRequest) -> Option<&wire::CommandLine>,
    ) -> Result<Option<Vec<String>>, Failed> {
        let line = self.deploy.and_then(|(request, _)| pick(request));
        line.map(words::of).transpose().map_err(|error| Failed::Wrong(error.to_string()))
    }

    async fn todo(
        &self,
        id: &CommandId,
        todo: &Todo,
        log: &Log,
        deadline: Instant,
    ) -> Result<(), Failed> {
        log.note(&todo.shown());
        log.forget_lines();
        let place = &self.managed.place;
        let mut env = {
            let state = self.managed.state();
            let own = state.deployed(id).map(|deployed| deployed.env.clone()).unwrap_or_default();
            env::of_build(self.workshop.application_env(place, &state, &own, place.port))
        };
        self.add_tools_env(&mut env);
        let mark = self.workshop.mark(place);
        let task = Task {
            program: &todo.program,
            args: &todo.args,
            cwd: &todo.cwd,
            env: &env,
            mark: &mark,
            grace: self.workshop.settings.kill_timeout,
        };
        let done = task.run(log, deadline, self.shutdown).await;
        self.or_stopped(done.map_err(|error| with_last(error.to_string(), log)))?;
        self.measure(id).await
    }

    /// How npm and its like reach their registry is the host's matter.
    fn add_tools_env(&self, env: &mut Env) {
        for name in [
            "https_proxy",
            "HTTPS_PROXY",
            "http_proxy",
            "HTTP_PROXY",
            "no_proxy",
            "NO_PROXY",
            "NODE_EXTRA_CA_CERTS",
            "SSL_CERT_FILE",
            "npm_config_registry",
            "NPM_CONFIG_REGISTRY",
            "npm_config_userconfig",
            "NPM_CONFIG_USERCONFIG",
            "npm_config_cache",
        ] {
            if let Some(value) = (self.workshop.own)(name) {
                env.entry(name.to_owned()).or_insert(value);
            }
        }
        env.insert("npm_config_update_notifier".to_owned(), "false".to_owned());
    }

    fn or_stopped<T>(&self, result: Result<T, String>) -> Result<T, Failed> {
        result.map_err(|error| match self.shutdown.drain.is_cancelled() {
            true => Failed::Stopped,
            false => Failed::Wrong(error),
        })
    }

    fn probe<'a>(&self, port: u16, path: Option<&'a str>) -> Probe<'a> {
        let settings = &self.workshop.settings;
        Probe { port, path, attempts: settings.probe_attempts, interval: settings.probe_interval }
    }

    fn health_path(&self, occupant: &Occupant) -> Option<String> {
        match occupant {
            Occupant::Placeholder => None,
            Occupant::Release(id) => {
                self.managed.state().deployed(id).and_then(|known| known.health_path.clone())
            }
        }
    }

    /// Runs the release beside what runs, on a spare port.
    async fn try_out(&self, occupant: &Occupant, log: &Log) -> Result<(), Failed> {
        let Occupant::Release(id) = occupant else { return Ok(()) };
        let place = &self.managed.place;
        let port = spare_port()
            .map_err(|error| Failed::Wrong(format!("there is no spare port: {error}")))?;
        let (start, mut env) = {
            let state = self.managed.state();
            let wanted = self.workshop.wanted(place, &state, occupant).map_err(Failed::Wrong)?;
            let own = state.deployed(id).map(|known| known.env.clone()).unwrap_or_default();
            let mut env = self.workshop.application_env(place, &state, &own, port);
            for (name, value) in &wanted.start.env {
                env.entry(name.clone()).or_insert_with(|| value.clone());
            }
            (wanted.start, env)
        };
        env.insert("PORT".to_owned(), port.to_string());
        let (program, args) = match &start.node {
            Some(flags) => {
                let script = start.script.display().to_string();
                let words = flags.iter().cloned().chain([script]).chain(start.args.clone());
                (self.workshop.node.clone(), words.collect())
            }
            None => (start.script.clone(), start.args.clone()),
        };
        log.note(&format!("trying it on port {port}: {}", start.shown()));
        log.forget_lines();
        let mark = self.workshop.mark(place);
        let task = Task {
            program: &program,
            args: &args,
            cwd: &start.cwd,
            env: &env,
            mark: &mark,
            grace: self.workshop.settings.kill_timeout,
        };
        let mut started = task.start(log).map_err(|error| Failed::Wrong(error.to_string()))?;
        let path = self.health_path(occupant);
        let probe = self.probe(port, path.as_deref());
        let result = probe.until_well(self.shutdown, || std::future::ready(started.ended())).await;
        let elsewhere = match (&result, started.pid()) {
            (Err(Unwell::Never(_)), Some(pid)) => port::listened_by(&port::family(pid)),
            _ => Vec::new(),
        };
        started.end().await;
        let lines = log.last_lines();
        let taken = lines.iter().any(|line| line.contains("EADDRINUSE"));
        match result {
            Ok(()) => Ok(()),
            Err(Unwell::Stopped) => Err(Failed::Stopped),
            Err(Unwell::Gone(how)) if taken => Err(Failed::Wrong(format!(
                "the application {how}: the port it wants is in use (EADDRINUSE). It was given \
                 PORT={port}, which is free: it must listen on the port that PORT names"
            ))),
            Err(Unwell::Gone(how)) => {
                Err(Failed::Wrong(format!("the application {how} before it was well")))
            }
            Err(Unwell::Never(_)) if !elsewhere.is_empty() && !elsewhere.contains(&port) => {
                let ports: Vec<String> = elsewhere.iter().map(u16::to_string).collect();
                Err(Failed::Wrong(format!(
                    "the application ignores PORT: it listens on {} and not on PORT={port}",
                    ports.join(", ")
                )))
            }
            Err(Unwell::Never(last)) => Err(Failed::Wrong(format!(
                "the application was not well within {} attempts {:?} apart: {last}",
                probe.attempts, probe.interval
            ))),
        }
    }

    /// Whether somebody else holds the port: nothing is begun then.
    async fn stop_if_foreign(&self) -> Result<(), Failed> {
        if self.reclaim {
            return Ok(());
        }
        let Ok(listing) = self.workshop.list().await else { return Ok(()) };
        match self.workshop.foreign_owner(&listing, &self.managed.place) {
            None => Ok(()),
            Some(owner) => Err(Failed::Wrong(format!(
                "port {} is held by {}, which is not the slot's; end it, or ask with \
                 \"reclaim\": true",
                self.managed.place.port,
                port::in_words(&owner)
            ))),
        }
    }

    /// Exchanges the slot's process, however long PM2 is away.
    async fn switch(&self, to: &Occupant, reclaim: bool) -> Option<Went> {
        let place = &self.managed.place;
        let mut told = false;
        loop {
            let wanted = {
                let mut state = self.managed.state();
                if *to == Occupant::Placeholder {
                    state.foreign_placeholder = false;
                }
                self.workshop.wanted(place, &state, to)
            };
            let wanted = match wanted {
                Ok(wanted) => wanted,
                Err(reason) => return Some(Went::Wrong(reason)),
            };
            let turn = Arc::clone(self.turn).acquire_owned().await;
            let cut_off = self.cut_off.load(Ordering::Relaxed);
            self.workshop.intend(place, true);
            let result = self.workshop.exchange(place, &wanted, reclaim, cut_off).await;
            self.workshop.look().await;
            self.workshop.intend(place, false);
            drop(turn);
            match result {
                Ok(()) => return Some(Went::Well),
                Err(Stuck::Wrong(reason)) => return Some(Went::Wrong(reason)),
                Err(Stuck::Away(reason)) => {
                    self.cut_off.store(true, Ordering::Relaxed);
                    if !std::mem::replace(&mut told, true) {
                        tracing::warn!(slot = %place.slot, %reason, "a switch waits for PM2");
                    }
                    tokio::select! {
                        () = sleep(AWAY) => {}
                        () = self.shutdown.drain.cancelled() => return None,
                    }
                }
            }
        }
    }

    /// Whether what was started is well on the slot's port, and stays so.
    async fn check(&self, occupant: &Occupant) -> Result<(), Failed> {
        let place = &self.managed.place;
        let name = format!("slot-{}", place.slot);
        let path = self.health_path(occupant);
        let probe = self.probe(place.port, path.as_deref());
        let asked = Mutex::new(Instant::now());
        // PM2 is asked now and then: a process that it started again is not well.
        let gone = || async {
            {
                let mut asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
                if asked.elapsed() < Duration::from_millis(200) {
                    return None;
                }
                *asked = Instant::now();
            }
            let Ok(listing) = self.workshop.list().await else {
                self.cut_off.store(true, Ordering::Relaxed);
                return None;
            };
            let Some(running) = listing.named(&name).next() else {
                return Some("PM2 has no such process any more".to_owned());
            };
            // A daemon that was restarted meanwhile runs what its list holds.
            let seen = {
                let state = self.managed.state();
                self.workshop.seen(&listing, place, &state)
            };
            if seen != Seen::Occupant(occupant.clone()) {
                return Some("PM2 runs something else there".to_owned());
            }
            let code = running.exit_code.map(|code| format!(" (code {code})")).unwrap_or_default();
            match running.status.as_str() {
                "errored" => Some(format!("it crashed{code}, and PM2 gave up")),
                "stopped" => Some(format!("it ended{code}")),
                _ if running.restarts > 0 => Some(format!("it crashed after its start{code}")),
                _ => None,
            }
        };
        let unwell = |unwell: Unwell| match unwell {
            Unwell::Gone(how) => Failed::Wrong(format!("on port {}: {how}", place.port)),
            Unwell::Never(last) => Failed::Wrong(format!("on port {}: {last}", place.port)),
            Unwell::Stopped => Failed::Stopped,
        };
        probe.until_well(self.shutdown, gone).await.map_err(unwell)?;
        if let Ok(listing) = self.workshop.list().await
            && let Some(owner) = self.workshop.foreign_owner(&listing, place)
        {
            return Err(Failed::Wrong(format!(
                "port {} is held by {}, not by the slot's process",
                place.port,
                port::in_words(&owner)
            )));
        }
        if *occupant == Occupant::Placeholder {
            return Ok(());
        }
        let until = Instant::now() + self.workshop.settings.settle;
        while Instant::now() < until {
            if self.shutdown.drain.is_cancelled() {
                return Err(Failed::Stopped);
            }
            if let Some(how) = gone().await {
                return Err(unwell(Unwell::Gone(how)));
            }
            sleep(Duration::from_millis(50).min(until.saturating_duration_since(Instant::now())))
                .await;
        }
        let last = Probe { attempts: 2, ..probe };
        last.until_well(self.shutdown, gone).await.map_err(unwell)
    }

    /// Tidies up behind a change that has ended.
    async fn finish(&self, end: &End, log: &Log) {
        let place = &self.managed.place;
        let store = &self.workshop.store;
        end_marked(&self.workshop.mark(place));
        let (mut useless, forgotten) = {
            let mut state = self.managed.state();
            let useless = state.standing.prune(self.workshop.settings.keep);
            let forgotten = state.forget();
            self.save(&state);
            (useless, forgotten)
        };
        useless.extend(end.discard.clone());
        for id in useless {
            let (store, slot) = (store.clone(), place.slot.clone());
            let removed =
                tokio::task::spawn_blocking(move || store.remove_release(&slot, &id)).await;
            if let Ok(Err(error)) = removed {
                tracing::warn!(%error, slot = %place.slot, "an old release cannot be removed");
            }
        }
        for id in forgotten {
            let _ = std::fs::remove_file(store.log(&place.slot, &id));
        }
        let untouched = end.failure.is_some() && end.put_back.is_none();
        if !untouched && let Err(error) = self.workshop.save().await {
            log.note(&error);
            tracing::warn!(%error, "PM2's list is not saved");
        }
        if self.workshop.settings.configured
            && let Err(error) = self.workshop.write_ecosystem()
        {
            tracing::warn!(error = %format_args!("{error:#}"), "ecosystem.config.js is not written");
        }
        log.note(match &end.failure {
            None => "done",
            Some(_) => "failed",
        });
    }
}

/// Why a step did not work.
enum Failed {
    Wrong(String),
    /// The exporter stops.
    Stopped,
}

/// An error with the last line that was printed, which mostly says why.
fn with_last(error: String, log: &Log) -> String {
    match log.last_lines().last() {
        Some(line) => format!("{error}: {line}"),
        None => error,
    }
}

/// Writes a change's end into its deployment.
pub fn close(state: &mut SlotState, end: &End, last_lines: Vec<String>) {
    let now = wire::Time::now();
    let Some(deployed) = state.deployed_mut(&end.id) else { return };
    let shown = &mut deployed.shown;
    shown.finished_at = Some(now);
    match &end.failure {
        None => shown.status = DeploymentStatus::Healthy,
        Some(reason) => {
            shown.status = DeploymentStatus::Failed;
            shown.error = Some(reason.clone());
            shown.last_lines = last_lines;
        }
    }
    match end.failure {
        None => state.healthy += 1,
        Some(_) => state.failed += 1,
    }
    state.last_deploy_at = Some(now);
}
