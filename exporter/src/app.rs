//! Everything that is built once and shared: the homes, the journal, the commands.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use anyhow::Context;
use axum::http::HeaderMap;
use rustix::fs::FlockOperation;
use service::config::Mistakes;
use service::gzip::Gzip;
use service::limits::Allowance;
use service::problem::ProblemResponse;
use service::shutdown::Shutdown;
use service::tls::Acceptor;
use tokio::sync::Semaphore;
use wire::{Event, EventKind, ExporterInfo, HostReadings, Process, Severity, Slot, State, Time};

use crate::access::{Access, Scope, Who};
use crate::basic::{self, Users};
use crate::commands::Commands;
use crate::config::Config;
use crate::journal::Journal;
use crate::pm2::{Homes, Shared};
use crate::readings::{Host, Processes};
use crate::relay::Relays;
use crate::revision::Revision;
use crate::sampler;
use crate::slots::Slots;

/// See the module.
#[derive(Debug)]
pub struct App {
    /// Settings.
    pub config: Config,
    /// TLS of the listener.
    pub tls: Option<Arc<Acceptor>>,
    /// Who may do what; changed by a reload.
    access: RwLock<Access>,
    /// Who may read with a password.
    users: RwLock<Arc<Users>>,
    /// Wrong passwords that each address may still try.
    pub bad_logins: Allowance,
    /// Whether the last reload was taken.
    reloaded: AtomicBool,
    /// Whether the file of what was taken last is empty, and its `web_config_file`.
    blank: Mutex<(bool, bool)>,
    /// The PM2 daemons.
    pub homes: Arc<Homes>,
    /// What happened.
    pub journal: Arc<Journal>,
    /// What was asked for.
    pub commands: Commands,
    /// The slots.
    pub slots: Slots,
    /// Pages of applications.
    pub relays: Relays,
    /// Packs pages.
    pub(crate) gzip: Gzip,
    /// Changes with everything but readings.
    pub revision: Revision,
    /// Places for those who read and follow logs.
    pub log_readers: Arc<Semaphore>,
    /// How many of them each caller has.
    pub(crate) callers: crate::http::Callers,
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
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).with_context(shown)?;
        }
        if !path.is_dir() {
            DirBuilder::new().mode(0o700).create(path).with_context(shown)?;
        }
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join("lock"))
            .with_context(shown)?;
        // Whoever can open it can hold it. Those of earlier versions could be read by all.
        if lock.metadata().with_context(shown)?.permissions().mode() & 0o077 != 0
            && let Err(error) = lock.set_permissions(Permissions::from_mode(0o600))
        {
            tracing::warn!(folder = %path.display(), %error, "the lock can be held by others");
        }
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| anyhow::anyhow!("{}: another exporter uses it", shown()))?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }
}

fn access(config: &Config) -> Access {
    let (tokens, has_users) = (config.tokens.clone(), !config.users.is_empty());
    Access::new(tokens, has_users, config.anonymous_read, config.reach.hosts.clone())
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
        let tls = Acceptor::of(config.tls.clone())?;
        let version = env!("CARGO_PKG_VERSION");
        journal.event(
            started_at,
            Event::new(
                EventKind::EXPORTER_STARTED,
                Severity::Info,
                format!("pm2-exporter {version} started"),
            ),
        );
        let shared = Shared {
            journal: Arc::clone(&journal),
            revision: revision.clone(),
            state: state.as_ref().map(|state| state.path.as_path()),
            exit_stderr: config.exit_stderr,
            filter: config.filter.clone(),
        };
        let homes = Arc::new(Homes::watch(&config.pm2_homes, &shared).context("state_dir")?);
        let commands = Commands::new(Arc::clone(&homes), Arc::clone(&journal), shutdown.clone());
        let slots = crate::slots::Manager::new(
            crate::slots::workshop::Workshop::of_home(&config, homes.first()),
            crate::slots::tell::Teller::new(
                Arc::clone(&journal),
                revision.clone(),
                homes.first().label().map(Into::into),
            ),
            homes.first().turn(),
            shutdown.clone(),
        );
        let app = Arc::new(Self {
            access: RwLock::new(access(&config)),
            users: RwLock::new(Arc::new(Users::new(config.users.clone())?)),
            bad_logins: service::limits::bad_logins(),
            reloaded: AtomicBool::new(true),
            blank: Mutex::new((config.is_blank, config.web_is_blank)),
            commands,
            relays: Relays::new(&config.relays),
            gzip: Gzip::default(),
            slots: Slots::new(slots, revision.clone()),
            callers: crate::http::Callers::default(),
            log_readers: Arc::new(Semaphore::new(crate::http::MAX_READERS)),
            readings: Processes::default(),
            info: ExporterInfo {
                version: version.to_owned(),
                started_at,
                hostname: Host::name(),
                os: std::env::consts::OS.to_owned(),
                arch: std::env::consts::ARCH.to_owned(),
                // Of those in use now: see `state_as_known`.
                token_expiries: Vec::new(),
            },
            _state: state,
            tls,
            config,
            homes,
            journal,
            revision,
            shutdown,
        });
        tokio::spawn(sampler::run(Arc::clone(&app)));
        Ok(app)
    }

    /// Who asks, if they may.
    ///
    /// # Errors
    /// See [`Access::check`].
    pub fn check(&self, headers: &HeaderMap, scope: Scope) -> Result<Who, ProblemResponse> {
        if let Some(name) = self.users().known(headers) {
            return match scope {
                Scope::Read => Ok(Who::unlimited(name)),
                _ => Err(ProblemResponse::forbidden(format!(
                    "user {name:?} may read only; a token is needed for the scope {scope}"
                ))),
            };
        }
        if !self.users().is_empty() && basic::is_basic(headers) {
            return Err(ProblemResponse::unauthorized("the user or the password is wrong"));
        }
        let access = self.access.read().unwrap_or_else(PoisonError::into_inner);
        access.check(headers, scope, Time::now())
    }

    /// Who may read with a password.
    pub fn users(&self) -> Arc<Users> {
        Arc::clone(&self.users.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes up who may do what from a configuration that was read again. A wrong one changes
    /// nothing. Everything else needs a restart, which is told where it differs.
    pub fn reload(&self, config: Result<Config, Mistakes>) {
        let mut blank = self.blank.lock().unwrap_or_else(PoisonError::into_inner);
        let (was_blank, web_was_blank) = *blank;
        let config = match config {
            // It is being written, or could not be.
            Ok(new) if new.is_blank && !was_blank => Err("its file is empty".to_owned()),
            Ok(new) if new.web_is_blank && !web_was_blank => {
                Err("its web_config_file is empty".to_owned())
            }
            // What is listened on stays, whatever it says.
            Ok(new) if !self.config.listen.ip().is_loopback() && !new.has_credentials() => {
                let listen = self.config.listen;
                Err(format!("{listen} is reachable from outside, and there are no [[tokens]]"))
            }
            other => other.map_err(|mistakes| mistakes.to_string()),
        };
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
                *blank = (config.is_blank, config.web_is_blank);
                // Whoever is known by a password and follows something stays known.
                if !self.users().are(&config.users) {
                    match Users::new(config.users.clone()) {
                        Ok(users) => {
                            *self.users.write().unwrap_or_else(PoisonError::into_inner) =
                                Arc::new(users);
                        }
                        Err(error) => tracing::error!("users were not read again: {error:#}"),
                    }
                }
                *self.access.write().unwrap_or_else(PoisonError::into_inner) = access(&config);
                // The state tells when tokens expire.
                self.revision.bump();
                tracing::info!("tokens and users were read again");
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

    /// Whether the last reload was taken, and the files of the certificate are in use as they are.
    pub fn reloaded(&self) -> bool {
        let certificates = self.tls.as_ref().is_none_or(|tls| tls.up_to_date());
        self.reloaded.load(Ordering::Relaxed) && certificates
    }

    /// Every process now, with the slot that it serves.
    pub fn processes(&self) -> Vec<Process> {
        let mut processes = self.homes.processes(|pid| self.readings.read(pid));
        let first = self.homes.first().label();
        for process in &mut processes {
            // Elsewhere such a name is one like any other.
            if process.instance.pm2_home.as_deref() == first {
                process.slot = self.slots.served_by(&process.instance.name).cloned();
            }
        }
        processes
    }

    /// Every slot now.
    pub fn slots(&self, processes: &[Process]) -> Vec<Slot> {
        self.homes.first().table(|table| self.slots.all(table, processes))
    }

    /// The machine now.
    pub fn host(&self) -> HostReadings {
        Host::read(self.homes.first().path())
    }

    /// Makes sure that what is known is no older than the configuration allows.
    pub async fn confirm(&self) {
        self.homes.confirm(self.config.custom_metrics_max_age).await;
    }

    /// Everything now. What applications report is no older than the configuration allows.
    pub async fn state(&self) -> State {
        self.confirm().await;
        self.state_as_known()
    }

    /// Everything as known, without asking the daemon.
    pub fn state_as_known(&self) -> State {
        let revision = self.revision.get();
        let processes = self.processes();
        let token_expiries = self.access.read().unwrap_or_else(PoisonError::into_inner).expiries();
        State {
            time: Time::now(),
            revision,
            exporter: ExporterInfo { token_expiries, ..self.info.clone() },
            pm2: self.homes.first().state(),
            homes: if self.homes.are_several() { self.homes.states() } else { Vec::new() },
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The whole is built and nothing is bound.
    #[tokio::test]
    async fn one_that_is_reachable_from_outside_is_never_left_without_tokens() {
        let home = tempfile::tempdir().unwrap();
        let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let token = |name: &str| {
            format!("[[tokens]]\nname = {name:?}\nsha256 = {hash:?}\nscopes = [\"read\"]\n")
        };
        let config = |listen: &str, more: &str| {
            let text =
                format!("listen = \"{listen}:10209\"\npm2_homes = [{:?}]\n{more}", home.path());
            let reader = service::config::Reader::new(text.parse().unwrap(), "", "exporter.toml");
            Config::read(reader, |_| None)
        };
        let names = |app: &App| {
            let access = app.access.read().unwrap();
            access.expiries().into_iter().map(|expiry| expiry.name).collect::<Vec<_>>()
        };
        let first = token("old") + "expires = \"2099-01-01T00:00:00Z\"";
        let next = token("new") + "expires = \"2099-01-01T00:00:00Z\"";
        let outside = App::start(config("0.0.0.0", &first).unwrap(), Shutdown::default()).unwrap();
        // What it listens on does not change with the file, whatever that says.
        for listen in ["0.0.0.0", "127.0.0.1"] {
            outside.reload(config(listen, ""));
            assert!(!outside.reloaded(), "{listen}");
            assert_eq!(names(&outside), ["old"], "{listen}");
        }
        outside.reload(config("127.0.0.1", &next));
        assert!(outside.reloaded());
        assert_eq!(names(&outside), ["new"]);

        // Users of a file that is being written anew.
        let web = home.path().join("web.yml");
        let hash = bcrypt::hash("word", 4).unwrap();
        std::fs::write(&web, format!("basic_auth_users:\n  prom: {hash}\n")).unwrap();
        let with_web = format!("web_config_file = {web:?}\n");
        let by_users =
            App::start(config("127.0.0.1", &with_web).unwrap(), Shutdown::default()).unwrap();
        // And of one that was empty when the program began.
        std::fs::write(&web, "").unwrap();
        let filled =
            App::start(config("127.0.0.1", &with_web).unwrap(), Shutdown::default()).unwrap();
        std::fs::write(&web, format!("basic_auth_users:\n  prom: {hash}\n")).unwrap();
        filled.reload(config("127.0.0.1", &with_web));
        std::fs::write(&web, "").unwrap();
        filled.reload(config("127.0.0.1", &with_web));
        assert!(!filled.reloaded() && !filled.users().is_empty());
        std::fs::write(&web, format!("basic_auth_users:\n  prom: {hash}\n")).unwrap();
        let known = by_users.users();
        by_users.reload(config("127.0.0.1", &with_web));
        assert!(by_users.reloaded());
        assert!(Arc::ptr_eq(&known, &by_users.users()), "who is known by a password stays known");
        std::fs::write(&web, "# soon\n").unwrap();
        by_users.reload(config("127.0.0.1", &with_web));
        assert!(!by_users.reloaded() && !by_users.users().is_empty());

        let inside = App::start(config("127.0.0.1", &first).unwrap(), Shutdown::default()).unwrap();
        inside.reload(config("127.0.0.1", ""));
        assert!(inside.reloaded() && names(&inside).is_empty());
    }

    #[test]
    fn nobody_else_can_hold_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let made = folder.path().join("above/state");
        let state = StateDir::open(&made).unwrap();
        assert_eq!((mode(&made), mode(&made.join("lock"))), (0o700, 0o600));
        assert!(StateDir::open(&made).is_err());
        drop(state);

        // One that is there keeps its mode; the lock of an earlier version does not.
        let there = folder.path().join("there");
        std::fs::create_dir(&there).unwrap();
        std::fs::set_permissions(&there, Permissions::from_mode(0o755)).unwrap();
        std::fs::write(there.join("lock"), "").unwrap();
        std::fs::set_permissions(there.join("lock"), Permissions::from_mode(0o644)).unwrap();
        let _state = StateDir::open(&there).unwrap();
        assert_eq!((mode(&there), mode(&there.join("lock"))), (0o755, 0o600));
    }
}
