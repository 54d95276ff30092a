//! Everything that is built once and shared: one home, its journal, its commands.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use anyhow::Context;
use axum::http::HeaderMap;
use rustix::fs::FlockOperation;
use service::config::Mistakes;
use service::problem::ProblemResponse;
use service::shutdown::Shutdown;
use tokio::sync::Semaphore;
use wire::{Event, EventKind, ExporterInfo, HostReadings, Process, Severity, Slot, State, Time};

use crate::access::{Access, Scope};
use crate::commands::Commands;
use crate::config::Config;
use crate::journal::Journal;
use crate::pm2::Home;
use crate::readings::{Host, Processes};
use crate::revision::Revision;
use crate::sampler;
use crate::slots::Slots;

/// See the module.
#[derive(Debug)]
pub struct App {
    /// Settings.
    pub config: Config,
    /// Who may do what; changed by a reload.
    access: RwLock<Access>,
    /// Whether the last reload was taken.
    reloaded: AtomicBool,
    /// The PM2 daemon.
    pub home: Arc<Home>,
    /// What happened.
    pub journal: Arc<Journal>,
    /// What was asked for.
    pub commands: Commands,
    /// The slots.
    pub slots: Slots,
    /// Changes with everything but readings.
    pub revision: Revision,
    /// Places for those who follow logs.
    pub followers: Arc<Semaphore>,
    /// Ends waits and streams when the program stops.
    pub shutdown: Shutdown,
    readings: Processes,
    info: ExporterInfo,
    /// Held so that no second exporter uses it.
    _state: Option<StateDir>,
}

/// The folder of what must outlive the exporter, locked.
#[derive(Debug)]
struct StateDir {
    path: PathBuf,
    _lock: File,
}

impl StateDir {
    fn open(path: &Path) -> anyhow::Result<Self> {
        let shown = || format!("state_dir: {}", path.display());
        std::fs::create_dir_all(path).with_context(shown)?;
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path.join("lock"))
            .with_context(shown)?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| anyhow::anyhow!("{}: another exporter uses it", shown()))?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }
}

impl App {
    /// Builds it and starts its tasks; must be called within the runtime.
    ///
    /// # Errors
    /// The state folder cannot be used, or there are no random numbers.
    pub fn start(config: Config, shutdown: Shutdown) -> anyhow::Result<Arc<Self>> {
        let mut epoch = [0u8; 8];
        getrandom::fill(&mut epoch).context("no random numbers")?;
        let epoch = format!("{:016x}", u64::from_be_bytes(epoch));
        let state = config.state_dir.as_deref().map(StateDir::open).transpose()?;
        let journal = match &state {
            Some(state) => Journal::open(epoch, config.journal_size, &state.path.join("journal"))
                .with_context(|| format!("state_dir: {}", state.path.display()))?,
            None => Journal::new(epoch, config.journal_size),
        };
        let journal = Arc::new(journal);
        let revision = Revision::default();
        let started_at = Time::now();
        let version = env!("CARGO_PKG_VERSION");
        journal.event(
            started_at,
            Event::new(
                EventKind::EXPORTER_STARTED,
                Severity::Info,
                format!("pm2-exporter {version} started"),
            ),
        );
        let home = Home::watch(
            config.pm2_home.clone(),
            Arc::clone(&journal),
            revision.clone(),
            state.as_ref().map(|state| state.path.as_path()),
            config.exit_stderr,
            config.filter.clone(),
        )
        .context("state_dir")?;
        let commands = Commands::new(Arc::clone(&home), Arc::clone(&journal));
        let slots = crate::slots::Manager::new(
            crate::slots::workshop::Workshop::of_home(&config, &home),
            crate::slots::tell::Teller::new(Arc::clone(&journal), revision.clone()),
            commands.turn(),
            shutdown.clone(),
        );
        let app = Arc::new(Self {
            access: RwLock::new(Access::new(config.tokens.clone(), config.anonymous_read)),
            reloaded: AtomicBool::new(true),
            commands,
            slots: Slots::new(slots, revision.clone()),
            followers: Arc::new(Semaphore::new(crate::http::MAX_FOLLOWERS)),
            readings: Processes::default(),
            info: ExporterInfo {
                version: version.to_owned(),
                started_at,
                hostname: Host::name(),
                os: std::env::consts::OS.to_owned(),
                arch: std::env::consts::ARCH.to_owned(),
            },
            _state: state,
            config,
            home,
            journal,
            revision,
            shutdown,
        });
        tokio::spawn(sampler::run(Arc::clone(&app)));
        Ok(app)
    }

    /// Name of who asks, if they may.
    ///
    /// # Errors
    /// See [`Access::check`].
    pub fn check(&self, headers: &HeaderMap, scope: Scope) -> Result<String, ProblemResponse> {
        self.access.read().unwrap_or_else(PoisonError::into_inner).check(headers, scope)
    }

    /// Takes up who may do what from a configuration that was read again. A wrong one changes
    /// nothing. Everything else needs a restart, which is told where it differs.
    pub fn reload(&self, config: Result<Config, Mistakes>) {
        let taken = config.is_ok();
        match config {
            Ok(config) => {
                let now = self.config.needing_restart();
                let changed: Vec<&str> = now
                    .into_iter()
                    .zip(config.needing_restart())
                    .filter(|(before, after)| before != after)
                    .map(|((key, _), _)| key)
                    .collect();
                let access = Access::new(config.tokens, config.anonymous_read);
                *self.access.write().unwrap_or_else(PoisonError::into_inner) = access;
                tracing::info!("tokens were read again");
                if !changed.is_empty() {
                    tracing::warn!(keys = changed.join(", "), "changed settings need a restart");
                }
            }
            Err(mistakes) => {
                tracing::error!("the configuration is wrong; nothing was changed:\n{mistakes}")
            }
        }
        self.reloaded.store(taken, Ordering::Relaxed);
    }

    /// Whether the last reload was taken.
    pub fn reloaded(&self) -> bool {
        self.reloaded.load(Ordering::Relaxed)
    }

    /// Every process now, with the slot that it serves.
    pub fn processes(&self) -> Vec<Process> {
        let mut processes = self.home.processes(|pid| self.readings.read(pid));
        for process in &mut processes {
            process.slot = self.slots.served_by(&process.instance.name).cloned();
        }
        processes
    }

    /// Every slot now.
    pub fn slots(&self, processes: &[Process]) -> Vec<Slot> {
        self.home.table(|table| self.slots.all(table, processes))
    }

    /// The machine now.
    pub fn host(&self) -> HostReadings {
        Host::read(self.home.path())
    }

    /// Everything now. What applications report is no older than the configuration allows.
    pub async fn state(&self) -> State {
        self.home.confirm(self.config.custom_metrics_max_age).await;
        self.state_as_known()
    }

    /// Everything as known, without asking the daemon.
    pub fn state_as_known(&self) -> State {
        let revision = self.revision.get();
        let processes = self.processes();
        State {
            time: Time::now(),
            revision,
            exporter: self.info.clone(),
            pm2: self.home.state(),
            host: Some(self.host()),
            slots: self.slots(&processes),
            processes,
            journal: self.journal.position(),
        }
    }

    /// Looks for children that a quick look misses.
    pub(crate) fn sweep(&self, processes: &[Process]) {
        let pids: Vec<u32> = processes.iter().filter_map(|process| process.pid).collect();
        self.readings.sweep(&pids);
    }
}
