//! The running program: everything built once, its tasks started, reloaded and ended.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use service::config::Mistakes;
use service::gzip::Gzip;
use service::serve::{Limits, bind, serve};
use service::shutdown::{Shutdown, hangups};
use service::tls::Acceptor;
use service::{Exit, Failure};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use wire::{EventKind, Severity, Time};

use crate::access::{Access, tell_first};
use crate::app::App;
use crate::client::Client;
use crate::commands::Commands;
use crate::config::Config;
use crate::fleet::Fleet;
use crate::http::Followers;
use crate::metrics::Metrics;
use crate::notify::{self, Board, Status};
use crate::poll::Tools;
use crate::registry::Registry;
use crate::store::Store;
use crate::watched::Watched;
use crate::{housekeeping, http, poll, trend};

/// How long a stop waits for what is under way, before and after requests have ended.
const DRAIN: Duration = Duration::from_millis(3500);
const AFTER: Duration = Duration::from_secs(1);

/// Reads the configuration again.
pub type Reload = Box<dyn Fn() -> Result<Config, Mistakes> + Send>;

/// The program, built and listening.
pub struct Program {
    app: Arc<App>,
    config: Config,
    listener: TcpListener,
    tools: Tools,
    config_sender: watch::Sender<Config>,
    reloads: mpsc::Sender<()>,
    asked: mpsc::Receiver<()>,
}

impl Program {
    /// Opens the database, looks at who may do what, and binds the address.
    ///
    /// # Errors
    /// Each with the exit code that it ends the program with.
    pub async fn build(config: Config, shutdown: Shutdown) -> Result<Self, Failure> {
        let (store, kept) = Store::open_or_replace(&config.database)
            .await
            .map_err(|error| Failure::new(Exit::Storage, error))?;
        let built = Self::with_store(config, shutdown, store.clone()).await;
        if let (Ok(program), Some(kept)) = (&built, kept) {
            program.app.metrics.replaced.set(1);
            let message = format!(
                "the database was damaged: it is kept as {}, and a new one has begun without its \
                 history",
                kept.display()
            );
            let told = store.tell(EventKind::DATABASE_REPLACED, Severity::Critical, message).await;
            if let Err(error) = told {
                tracing::error!(%error, "the event of the damaged database was not stored");
            }
        }
        if built.is_err() {
            store.close().await;
        }
        built
    }

    async fn with_store(config: Config, shutdown: Shutdown, store: Store) -> Result<Self, Failure> {
        let storage = |error| Failure::new(Exit::Storage, anyhow::Error::from(error));
        let has_tokens =
            store.tokens().await.map_err(storage)?.iter().any(|it| it.is_valid(Time::now()));
        let has_users = !store.users().await.map_err(storage)?.is_empty();
        let listener = bind(config.listen, has_tokens || has_users).await?;
        let tls = Acceptor::of(config.tls.clone())?;
        let metrics = Arc::new(Metrics::new()?);
        let fleet = Arc::new(Fleet::default());
        fleet.set_stale_after(config.timing.stale_after);
        let client = Client::new(keep_open(&config))?;
        let config_sender = watch::channel(config.clone()).0;
        let (of_fleet, of_metrics) = (Arc::clone(&fleet), Arc::clone(&metrics));
        let registry =
            Registry::new(store.clone(), of_fleet, of_metrics, config_sender.subscribe());
        let registry = Arc::new(registry.await.map_err(storage)?);
        // After the servers: limits may name their groups and tags.
        let loopback = config.listen.ip().is_loopback();
        let hosts = config.reach.hosts.clone();
        let anonymous = config.anonymous_read;
        let access = Access::new(store.clone(), Arc::clone(&fleet), loopback, anonymous, hosts);
        let access = Arc::new(access.await.map_err(storage)?);
        let commands = Commands::new(
            store.clone(),
            client.clone(),
            Arc::clone(&fleet),
            Arc::clone(&metrics),
            Arc::clone(&access),
            config.command_timeout,
        );
        let tools = Tools {
            store: store.clone(),
            fleet: Arc::clone(&fleet),
            client: client.clone(),
            metrics: Arc::clone(&metrics),
        };
        metrics.reload_ok.set(1);
        metrics.reload_time.set(Time::now().as_millis() / 1000);
        let (reloads, asked) = mpsc::channel(1);
        let app = App {
            store,
            tls,
            client,
            registry,
            fleet,
            access,
            commands: Arc::new(commands),
            metrics,
            alerts: Board::default(),
            notify: Status::default(),
            followers: Followers::default(),
            scrapes: Arc::new(Semaphore::new(http::SCRAPES)),
            gzip: Gzip::default(),
            shutdown,
        };
        Ok(Self { app: Arc::new(app), config_sender, config, listener, tools, reloads, asked })
    }

    /// The address that is listened on.
    ///
    /// # Errors
    /// The operating system does not say.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// What serves requests: for tests.
    pub fn app(&self) -> Arc<App> {
        Arc::clone(&self.app)
    }

    /// Asks for a reload, as SIGHUP does.
    pub fn reloader(&self) -> mpsc::Sender<()> {
        self.reloads.clone()
    }

    /// Runs until the shutdown; `reload` reads the configuration when that is asked for.
    ///
    /// # Errors
    /// A task died, named by the error; or the signal for reloads cannot be listened to.
    pub async fn run(self, reload: Reload) -> Result<(), Failure> {
        let Self { app, config, listener, tools, config_sender, mut asked, .. } = self;
        let shutdown = app.shutdown.clone();
        let mut hangups = hangups()?;
        let mut watched = Watched::new(config.file.clone());
        tracing::info!(
            address = %listener.local_addr()?, database = %config.database.display(),
            servers = app.fleet.all().len(), "listening"
        );
        if let Some(key) = app.access.open_first() {
            let scheme = if app.tls.is_some() { "https" } else { "http" };
            tell_first(&key, &format!("{scheme}://{}", listener.local_addr()?), &config.database);
        }
        app.commands.settle().await;

        let limits = Limits { drain: DRAIN, ..Limits::of(&config.reach) };
        let mut tasks: JoinSet<(&'static str, Result<(), String>)> = JoinSet::new();
        let (router, tls, stop) =
            (http::router(Arc::clone(&app)), app.tls.clone(), shutdown.clone());
        tasks.spawn(async move {
            serve(listener, tls, router, limits, stop).await;
            ("http", Ok(()))
        });
        let (plans, stop) = (app.registry.plans(), shutdown.drain.clone());
        tasks.spawn(async move { ("polling", poll::run(tools, plans, stop).await) });
        let (kept, stop) = (Arc::clone(&app), shutdown.drain.clone());
        tasks.spawn(async move {
            kept.registry.watch(&kept.access, stop).await;
            ("registry", Ok(()))
        });
        let (kept, configs, stop) =
            (Arc::clone(&app), config_sender.subscribe(), shutdown.drain.clone());
        tasks.spawn(async move {
            housekeeping::run(&kept, configs, stop).await;
            ("housekeeping", Ok(()))
        });
        let (kept, configs, stop) =
            (Arc::clone(&app), config_sender.subscribe(), shutdown.drain.clone());
        tasks.spawn(async move {
            housekeeping::copy(&kept, configs, stop).await;
            ("copying", Ok(()))
        });
        let (kept, stop) = (Arc::clone(&app), shutdown.drain.clone());
        tasks.spawn(async move {
            housekeeping::fold(&kept, stop).await;
            ("folding", Ok(()))
        });
        let (commands, stop) = (Arc::clone(&app.commands), shutdown.drain.clone());
        tasks.spawn(async move {
            commands.deliver(stop).await;
            ("delivering", Ok(()))
        });
        let (commands, stop) = (Arc::clone(&app.commands), shutdown.drain.clone());
        tasks.spawn(async move {
            commands.hear(stop).await;
            ("late words", Ok(()))
        });
        let (kept, stop) = (Arc::clone(&app), shutdown.drain.clone());
        tasks.spawn(async move {
            trend::remember(&kept, stop).await;
            ("trends", Ok(()))
        });
        let (kept, configs, stop) =
            (Arc::clone(&app), config_sender.subscribe(), shutdown.drain.clone());
        tasks.spawn(async move { ("notifying", notify::run(&kept, configs, stop).await) });
        let stop = shutdown.drain.clone();
        tasks.spawn(async move {
            crate::apart::give_back_often(stop).await;
            ("memory", Ok(()))
        });
        let store = app.store.clone();
        tasks.spawn(async move {
            store.writer_ended().await;
            ("database writer", Ok(()))
        });

        let died = loop {
            tokio::select! {
                // In this order: tasks end by themselves once they are told to.
                biased;
                () = shutdown.drain.cancelled() => break None,
                ended = tasks.join_next() => match ended {
                    Some(Ok((name, Ok(())))) => break Some(format!("the task {name:?} ended")),
                    Some(Ok((name, Err(why)))) => break Some(format!("the task {name:?} ended: {why}")),
                    Some(Err(error)) => break Some(format!("a task died: {error}")),
                    None => break Some("every task ended".to_owned()),
                },
                _ = hangups.recv() => {
                    watched.is_read();
                    reconfigure(&app, &reload, &config, &config_sender);
                }
                Some(()) = asked.recv() => reconfigure(&app, &reload, &config, &config_sender),
                () = watched.changed() => reconfigure(&app, &reload, &config, &config_sender),
            }
        };
        shutdown.drain.cancel();
        let ending = async {
            app.commands.drain(DRAIN).await;
            app.access.count_refusals(true).await;
            app.access.write_use(true).await;
            // All but the writer: what still answers or stores needs it.
            while tasks.len() > 1 && tasks.join_next().await.is_some() {}
            app.store.close().await;
            while tasks.join_next().await.is_some() {}
        };
        tokio::select! {
            () = ending => {}
            () = tokio::time::sleep(DRAIN + AFTER) => tracing::warn!("some tasks did not end in time"),
            () = shutdown.abort.cancelled() => {}
        }
        match died {
            None => Ok(()),
            Some(why) => Err(Failure::new(Exit::Failure, anyhow::anyhow!(why))),
        }
    }
}

/// How long a quiet connection to an exporter stays open: to the poll after the next.
fn keep_open(config: &Config) -> Duration {
    (config.timing.interval * 2).max(Duration::from_secs(90))
}

/// Takes a good configuration over; a bad one changes nothing. Some of it stays as in `first`, which this
/// program started with.
fn reconfigure(app: &App, reload: &Reload, first: &Config, sender: &watch::Sender<Config>) {
    match reload() {
        Err(mistakes) => {
            app.metrics.reload_ok.set(0);
            for mistake in mistakes.to_string().lines() {
                tracing::error!("the configuration was not reloaded: {mistake}");
            }
        }
        // It is being written, or could not be.
        Ok(new) if new.is_blank && !sender.borrow().is_blank => {
            app.metrics.reload_ok.set(0);
            let file = new.file.unwrap_or_default();
            tracing::error!("the configuration was not reloaded: {} is empty", file.display());
        }
        Ok(new) => {
            let fixed = [
                ("listen", first.listen != new.listen),
                ("database", first.database != new.database),
                ("tls", first.tls != new.tls),
                (
                    "max_connections, max_requests_per_second, trusted_proxies, allowed_hosts",
                    first.reach != new.reach,
                ),
                ("log_format", first.log_format != new.log_format),
            ];
            for (key, _) in fixed.iter().filter(|(_, changed)| *changed) {
                tracing::warn!(key, "a changed setting takes effect at the next start only");
            }
            app.metrics.reload_ok.set(1);
            app.metrics.reload_time.set(Time::now().as_millis() / 1000);
            app.fleet.set_stale_after(new.timing.stale_after);
            app.access.set_anonymous_read(new.anonymous_read);
            app.commands.set_timeout(new.command_timeout);
            tracing::info!(servers = new.servers.len(), "the configuration was reloaded");
            sender.send_replace(new);
        }
    }
}
