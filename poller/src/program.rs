//! The running program: everything built once, its tasks started, reloaded and ended.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use service::config::Mistakes;
use service::serve::{Limits, bind, serve};
use service::shutdown::{Shutdown, hangups};
use service::{Exit, Failure};
use tokio::net::TcpListener;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinSet;
use wire::Time;

use crate::access::Access;
use crate::app::{App, STREAM_QUEUE};
use crate::client::Client;
use crate::commands::Commands;
use crate::config::Config;
use crate::fleet::Fleet;
use crate::metrics::Metrics;
use crate::poll::{Plan, Tools};
use crate::store::Store;
use crate::{housekeeping, http, poll, registry};

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
    plan: watch::Sender<Plan>,
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
        let store = Store::open(&config.database)
            .await
            .map_err(|error| Failure::new(Exit::Storage, error))?;
        let built = Self::with_store(config, shutdown, store.clone()).await;
        if built.is_err() {
            store.close().await;
        }
        built
    }

    async fn with_store(config: Config, shutdown: Shutdown, store: Store) -> Result<Self, Failure> {
        let storage = |error| Failure::new(Exit::Storage, anyhow::Error::from(error));
        let has_tokens =
            store.tokens().await.map_err(storage)?.iter().any(|it| it.is_valid(Time::now()));
        let listener = bind(config.listen, has_tokens).await?;
        let metrics = Arc::new(Metrics::new()?);
        let fleet = Arc::new(Fleet::default());
        fleet.set_stale_after(config.timing.stale_after);
        let loopback = config.listen.ip().is_loopback();
        let access = Access::new(store.clone(), loopback, config.anonymous_read);
        let access = Arc::new(access.await.map_err(storage)?);
        let client = Client::new(keep_open(&config))?;
        let targets = registry::read(&config, &store).await.map_err(storage)?;
        let mut known = store.known().await.map_err(storage)?;
        for target in &targets {
            fleet.put(Arc::clone(target), || known.remove(&target.id).unwrap_or_default());
        }
        let (events, _) = broadcast::channel(STREAM_QUEUE);
        let commands = Commands::new(
            store.clone(),
            client.clone(),
            Arc::clone(&fleet),
            Arc::clone(&metrics),
            config.command_timeout,
        );
        let tools = Tools {
            store: store.clone(),
            fleet: Arc::clone(&fleet),
            client,
            metrics: Arc::clone(&metrics),
            events: events.clone(),
        };
        metrics.reload_ok.set(1);
        metrics.reload_time.set(Time::now().as_millis() / 1000);
        let (reloads, asked) = mpsc::channel(1);
        let app =
            App { store, fleet, access, commands: Arc::new(commands), metrics, events, shutdown };
        Ok(Self {
            app: Arc::new(app),
            plan: watch::channel(registry::plan(&config, targets)).0,
            config_sender: watch::channel(config.clone()).0,
            config,
            listener,
            tools,
            reloads,
            asked,
        })
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
        let Self { app, config, listener, tools, plan, config_sender, mut asked, .. } = self;
        let shutdown = app.shutdown.clone();
        let mut hangups = hangups()?;
        tracing::info!(
            address = %listener.local_addr()?, database = %config.database.display(),
            servers = plan.borrow().targets.len(), "listening"
        );
        app.commands.settle().await;

        let limits = Limits { drain: DRAIN, ..Limits::default() };
        let mut tasks: JoinSet<(&'static str, Result<(), String>)> = JoinSet::new();
        let (router, stop) = (http::router(Arc::clone(&app)), shutdown.clone());
        tasks.spawn(async move {
            serve(listener, router, limits, stop).await;
            ("http", Ok(()))
        });
        let (plans, stop) = (plan.subscribe(), shutdown.drain.clone());
        tasks.spawn(async move { ("polling", poll::run(tools, plans, stop).await) });
        let (watched, configs, stop) =
            (Arc::clone(&app), config_sender.subscribe(), shutdown.drain.clone());
        tasks.spawn(async move {
            registry::watch(&watched, configs, plan, stop).await;
            ("registry", Ok(()))
        });
        let (watched, configs, stop) =
            (Arc::clone(&app), config_sender.subscribe(), shutdown.drain.clone());
        tasks.spawn(async move {
            housekeeping::run(&watched, configs, stop).await;
            ("housekeeping", Ok(()))
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
                _ = hangups.recv() => reconfigure(&app, &reload, &config_sender),
                Some(()) = asked.recv() => reconfigure(&app, &reload, &config_sender),
            }
        };
        shutdown.drain.cancel();
        let ending = async {
            app.commands.drain(DRAIN).await;
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

/// Takes a good configuration over; a bad one changes nothing.
fn reconfigure(app: &App, reload: &Reload, sender: &watch::Sender<Config>) {
    match reload() {
        Err(mistakes) => {
            app.metrics.reload_ok.set(0);
            for mistake in mistakes.to_string().lines() {
                tracing::error!("the configuration was not reloaded: {mistake}");
            }
        }
        Ok(new) => {
            let old = sender.borrow().clone();
            let fixed = [
                ("listen", old.listen != new.listen),
                ("database", old.database != new.database),
                ("log_format", old.log_format != new.log_format),
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
