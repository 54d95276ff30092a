//! Which servers there are: those of the configuration, and those added to the database, of
//! which a running program hears within a second. Where both name one, the configuration wins.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::config::{Config, Target, exporter_url, read_token_file};
use crate::poll::Plan;
use crate::store::{Store, StoreError, StoredServer};

/// How often the database is looked at for servers and tokens.
const LOOK: Duration = Duration::from_secs(1);

/// Every server, by id.
///
/// # Errors
/// The database cannot be read.
pub async fn read(config: &Config, store: &Store) -> Result<Vec<Arc<Target>>, StoreError> {
    Ok(union(config, &store.servers().await?))
}

/// Both together.
fn union(config: &Config, stored: &[StoredServer]) -> Vec<Arc<Target>> {
    let mut all: BTreeMap<_, _> =
        stored.iter().map(|it| (it.id.clone(), Arc::new(target(it)))).collect();
    for target in &config.servers {
        all.insert(target.id.clone(), Arc::clone(target));
    }
    all.into_values().collect()
}

fn target(stored: &StoredServer) -> Target {
    // A file that went away is no reason to forget the server: its polls say what is wrong.
    let credential = stored.token_file.as_deref().map(read_token_file).transpose();
    let checked = exporter_url(&stored.url);
    Target {
        id: stored.id.clone(),
        credential: checked
            .as_ref()
            .map_err(Clone::clone)
            .and(credential.as_ref().map_err(Clone::clone))
            .cloned(),
        url: stored.url.clone(),
        group: stored.group.clone(),
        tags: stored.tags.clone(),
    }
}

/// How these servers are polled.
pub fn plan(config: &Config, targets: Vec<Arc<Target>>) -> Plan {
    let keep_raw = i64::try_from(config.keep.raw.as_millis()).unwrap_or(i64::MAX);
    Plan { targets, timing: config.timing, keep_raw }
}

/// Keeps the plan, and the copy of the tokens, up to date until `stop`.
pub async fn watch(
    app: &App,
    mut configs: watch::Receiver<Config>,
    plan_sender: watch::Sender<Plan>,
    stop: CancellationToken,
) {
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut seen: Option<Vec<StoredServer>> = None;
    loop {
        let changed = tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => false,
            changed = configs.changed() => {
                if changed.is_err() {
                    return;
                }
                true
            }
        };
        let config = configs.borrow_and_update().clone();
        if let Err(error) = app.access.refresh().await {
            tracing::warn!(%error, "the tokens cannot be read");
        }
        let stored = match app.store.servers().await {
            Ok(stored) => stored,
            Err(error) => {
                tracing::warn!(%error, "the added servers cannot be read");
                seen.clone().unwrap_or_default()
            }
        };
        if !changed && seen.as_ref() == Some(&stored) {
            continue;
        }
        let new = plan(&config, union(&config, &stored));
        seen = Some(stored);
        if *plan_sender.borrow() == new {
            continue;
        }
        let mut known = match app.store.known().await {
            Ok(known) => known,
            Err(error) => {
                tracing::warn!(%error, "what is kept of new servers cannot be read");
                BTreeMap::new()
            }
        };
        for target in &new.targets {
            app.fleet.put(Arc::clone(target), || known.remove(&target.id).unwrap_or_default());
        }
        plan_sender.send_replace(new);
    }
}
