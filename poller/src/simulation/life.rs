//! One life of the poller in a simulation: its parts as the program puts them together, over a
//! simulated network and a real database, ended as by `kill -9`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::http::HeaderValue;
use dashboards::ServerStatus;
use service::token::TokenHash;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use wire::{Action, ServerId, Target as Subject};

use super::network::{Network, Wires};
use super::world::hold;
use crate::access::{Access, Caller, Role};
use crate::client::Client;
use crate::commands::{Commands, Order, Request};
use crate::config::{Target, Timing};
use crate::fleet::Fleet;
use crate::metrics::Metrics;
use crate::poll::{self, Plan, Tools};
use crate::registry::{About, Origin};
use crate::store::{NewAudit, NewToken, Store, StoreError, StoredCommand};

pub(super) const TIMING: Timing = Timing {
    interval: Duration::from_secs(10),
    timeout: Duration::from_secs(5),
    stale_after: Duration::from_secs(30),
    wait_for_events: true,
};
const TWO_DAYS: i64 = 2 * 86_400_000;

pub(super) struct Life {
    pub(super) store: Store,
    pub(super) fleet: Arc<Fleet>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) began: Instant,
    commands: Arc<Commands>,
    network: Network,
    polling: JoinHandle<Result<(), String>>,
    folding: JoinHandle<()>,
    delivering: JoinHandle<()>,
    hearing: JoinHandle<()>,
    _plan: watch::Sender<Plan>,
}

pub(super) fn target(name: &str) -> Arc<Target> {
    Arc::new(Target {
        id: name.parse().expect("an id"),
        url: format!("http://{name}"),
        group: String::new(),
        tags: Vec::new(),
        credential: Ok(None::<HeaderValue>),
        tls: None,
    })
}

impl Life {
    pub(super) async fn begin(database: &Path, wires: &Arc<Wires>, timing: Timing) -> Self {
        let holding = hold();
        let store = Store::open(database).await.expect("the database opens");
        let mut known = store.known().await.expect("what is known");
        let network = Network { wires: Arc::clone(wires), dead: Arc::default() };
        let client = Client::simulated(network.clone()).expect("a client");
        let fleet = Arc::new(Fleet::default());
        fleet.set_stale_after(timing.stale_after);
        let metrics = Arc::new(Metrics::new().expect("metrics"));
        let targets: Vec<Arc<Target>> = wires.places().keys().map(|name| target(name)).collect();
        for target in &targets {
            let about =
                About { origin: Origin::Configuration, also: Vec::new(), note: String::new() };
            let known = || known.remove(&target.id).unwrap_or_default();
            fleet.put(Arc::clone(target), Arc::new(about), known);
        }
        if store.tokens().await.expect("tokens").is_empty() {
            let new = NewToken {
                name: "simulated".to_owned(),
                role: Role::Admin,
                hash: TokenHash::of("simulated"),
                limits: crate::access::Limits::default(),
                expires_at: None,
            };
            store.create_token(new, NewAudit::default()).await.expect("a token");
        }
        let hosts = service::host::Hosts::new(([127, 0, 0, 1], 1).into(), Vec::new());
        let access = Access::new(store.clone(), Arc::clone(&fleet), true, true, hosts).await;
        let access = access.expect("who may do what");
        let commands = Arc::new(Commands::new(
            store.clone(),
            client.clone(),
            Arc::clone(&fleet),
            Arc::clone(&metrics),
            Arc::new(access),
            Duration::from_secs(20),
        ));
        commands.settle().await;
        drop(holding);
        let tools = Tools {
            store: store.clone(),
            fleet: Arc::clone(&fleet),
            client,
            metrics: Arc::clone(&metrics),
        };
        let plan = watch::channel(Plan { targets, timing, keep_raw: TWO_DAYS }).0;
        let polling = tokio::spawn(poll::run(tools, plan.subscribe(), CancellationToken::new()));
        let folding = tokio::spawn(fold(store.clone()));
        let delivering = Arc::clone(&commands);
        let delivering =
            tokio::spawn(async move { delivering.deliver(CancellationToken::new()).await });
        let hearing = Arc::clone(&commands);
        let hearing = tokio::spawn(async move { hearing.hear(CancellationToken::new()).await });
        let began = Instant::now();
        Self {
            store,
            fleet,
            metrics,
            began,
            commands,
            network,
            polling,
            folding,
            delivering,
            hearing,
            _plan: plan,
        }
    }

    /// As by `kill -9`: nothing is finished, nothing is written any more.
    pub(super) fn kill(self) {
        self.network.dead.store(true, Ordering::Relaxed);
        self.polling.abort();
        self.folding.abort();
        self.delivering.abort();
        self.hearing.abort();
        self.store.kill();
    }

    /// As by SIGTERM.
    pub(super) async fn stop(self) {
        self.polling.abort();
        self.folding.abort();
        self.delivering.abort();
        self.hearing.abort();
        let _holding = hold();
        self.store.close().await;
        self.store.writer_ended().await;
    }

    pub(super) fn polls_on(&self) -> bool {
        !self.polling.is_finished()
    }

    /// Restarts an app; gives what is on record, or nothing when it was refused.
    pub(super) fn command(
        &self,
        name: &str,
        wait: Duration,
        queue: Option<Duration>,
    ) -> impl Future<Output = Option<Arc<StoredCommand>>> + use<> {
        let request = Request {
            server: name.parse().expect("an id"),
            target: Subject::App("api".parse().expect("a name")),
            action: Action::Restart,
            order: Order::default(),
            key: None,
            queue,
            caller: Caller::simulated(),
            address: [127, 0, 0, 1].into(),
        };
        let commands = Arc::clone(&self.commands);
        async move { commands.submit(request, wait).await.ok() }
    }

    /// As if the disk had no room for one more page, or had it again.
    pub(super) async fn fill_disk(&self, full: bool) {
        // It fails with the whole commit where that has something that finds no room any more.
        while self.store.limit_pages(if full { 1 } else { 1 << 30 }).await == Err(StoreError::Full)
        {
            if full {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    pub(super) fn statuses(&self) -> BTreeMap<ServerId, ServerStatus> {
        let stale_after = self.fleet.stale_after();
        let members = self.fleet.all();
        members.iter().map(|it| (it.target.id.clone(), it.status(stale_after))).collect()
    }
}

/// Folds far more than is due, so that much of it happens in a short life.
async fn fold(store: Store) {
    loop {
        tokio::time::sleep(Duration::from_secs(45)).await;
        let _holding = hold();
        let soon = crate::world::now().plus_millis(15 * 60 * 1000);
        while let Ok(Some(_)) = store.fold(soon).await {}
        let _ = store.drop_folded(1000).await;
    }
}
