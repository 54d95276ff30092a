//! Which servers there are: those of the configuration, those of files in Prometheus' form, and
//! those added to the database, over HTTP or at the command line. What changes in any of them is
//! used within a second. Where several name the same, the first in this order wins, and the
//! others are told.

mod entry;
mod file_sd;
mod files;
mod sign;
mod tokens;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{Mutex, watch};
use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use wire::{ServerId, Time};

use crate::access::Access;
use crate::config::{Config, Target, exporter_url, is_https, read_token_file};
use crate::fleet::Fleet;
use crate::metrics::Metrics;
use crate::pending::Pending;
use crate::poll::Plan;
use crate::store::{Registration, Store, StoreError, StoredServer};

pub use entry::{Wrong, checked_id, group, note, same_place, tags};
pub use files::Files;
pub use sign::Sign;
pub use tokens::{block, forget, keep, make};

/// How often the database and the files are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Where a server is written down. The first wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// `[[servers]]`
    Configuration,
    /// `server_files`
    File,
    /// Added over HTTP or at the command line.
    Database,
}

impl Origin {
    /// The word used in JSON and at the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::File => "file",
            Self::Database => "database",
        }
    }
}

/// What the registry says of a server beside what polling it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// Where it is written down.
    pub origin: Origin,
    /// Where else, without effect.
    pub also: Vec<Origin>,
    /// For people.
    pub note: String,
}

/// A server of the registry.
#[derive(Clone, Debug)]
pub struct Registered {
    /// How it is polled.
    pub target: Arc<Target>,
    /// What else there is to say.
    pub about: Arc<About>,
}

/// Every server, by id.
pub type All = BTreeMap<ServerId, Registered>;

/// Servers that are polled no more and whose history is still there.
pub type Retired = BTreeMap<ServerId, Registration>;

/// Every server, read once. Mistakes in files are in `files`.
///
/// # Errors
/// The database cannot be read.
pub async fn read(config: &Config, store: &Store, files: &mut Files) -> Result<All, StoreError> {
    Ok(read_with(config, &store.servers().await?, files))
}

/// The same, where these are what the database has.
pub fn read_with(config: &Config, stored: &[StoredServer], files: &mut Files) -> All {
    files.look(&config.server_files, &config.exporter_tls, true);
    union(config, files, stored)
}

/// All of them together.
fn union(config: &Config, files: &Files, stored: &[StoredServer]) -> All {
    let mut all: BTreeMap<ServerId, (Arc<Target>, About)> = BTreeMap::new();
    let mut put = |target: Arc<Target>, origin: Origin, note: &str| {
        all.entry(target.id.clone())
            .and_modify(|(_, about)| about.also.push(origin))
            .or_insert_with(|| (target, About { origin, also: Vec::new(), note: note.to_owned() }));
    };
    for target in &config.servers {
        put(Arc::clone(target), Origin::Configuration, "");
    }
    for listed in files.servers() {
        put(Arc::clone(&listed.target), Origin::File, &listed.note);
    }
    for server in stored {
        put(Arc::new(target(config, server)), Origin::Database, &server.note);
    }
    let registered = |(id, (target, about))| (id, Registered { target, about: Arc::new(about) });
    all.into_iter().map(registered).collect()
}

fn target(config: &Config, stored: &StoredServer) -> Target {
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
        tls: is_https(&stored.url).then(|| config.exporter_tls.clone()),
        url: stored.url.clone(),
        group: stored.group.clone(),
        tags: stored.tags.clone(),
    }
}

/// How these servers are polled.
fn plan(config: &Config, all: &All) -> Plan {
    let keep_raw = i64::try_from(config.keep.raw.as_millis()).unwrap_or(i64::MAX);
    let targets = all.values().map(|it| Arc::clone(&it.target)).collect();
    Plan { targets, timing: config.timing, keep_raw }
}

/// What was seen last.
#[derive(Debug, Default)]
struct Looked {
    stored: Option<Vec<StoredServer>>,
    files: Files,
    /// A look at the files that takes long: one of their file systems may not answer at all.
    looking: Pending<(Files, bool)>,
    /// All of them are to be read anew at the next look.
    again: bool,
    all: All,
    /// As the database has them: every server that ever was, until its history is gone.
    registrations: Option<BTreeMap<ServerId, Registration>>,
    /// They were compared with what there is, and nothing changed since.
    compared: bool,
    /// What was there at some time in this life of the program.
    seen: BTreeSet<ServerId>,
}

/// Keeps the plan of polling, the fleet and the list of what is retired up to date.
#[derive(Debug)]
pub struct Registry {
    store: Store,
    fleet: Arc<Fleet>,
    metrics: Arc<Metrics>,
    configs: watch::Receiver<Config>,
    plan: watch::Sender<Plan>,
    looked: Mutex<Looked>,
    retired: RwLock<Arc<Retired>>,
    /// What is neither there nor retired, as the file that had it cannot be read.
    hidden: RwLock<BTreeSet<ServerId>>,
}

impl Registry {
    /// With every server that there is now.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn new(
        store: Store,
        fleet: Arc<Fleet>,
        metrics: Arc<Metrics>,
        configs: watch::Receiver<Config>,
    ) -> Result<Self, StoreError> {
        let config = configs.borrow().clone();
        // What cannot be read ends the program here, and is only told later on.
        store.servers().await?;
        let plan = watch::channel(plan(&config, &All::new())).0;
        let (looked, retired) = (Mutex::default(), RwLock::default());
        let hidden = RwLock::default();
        let this = Self { store, fleet, metrics, configs, plan, looked, retired, hidden };
        this.look(true).await;
        Ok(this)
    }

    /// Who is polled, and how, as it changes.
    pub fn plans(&self) -> watch::Receiver<Plan> {
        self.plan.subscribe()
    }

    /// A server that is there.
    pub async fn get(&self, id: &ServerId) -> Option<Registered> {
        self.looked.lock().await.all.get(id).cloned()
    }

    /// Where tokens are kept.
    pub fn token_dir(&self) -> PathBuf {
        self.configs.borrow().token_dir.clone()
    }

    /// What is retired.
    pub fn retired(&self) -> Arc<Retired> {
        Arc::clone(&self.retired.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether a server was there before, whether it is retired or in a file that cannot be read now.
    pub fn was(&self, id: &ServerId) -> bool {
        let hidden = self.hidden.read().unwrap_or_else(PoisonError::into_inner);
        hidden.contains(id) || self.retired().contains_key(id)
    }

    /// Keeps up to date, and the copy of the tokens with it, until `stop`.
    pub async fn watch(&self, access: &Access, stop: CancellationToken) {
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut configs = self.configs.clone();
        loop {
            let changed = tokio::select! {
                () = stop.cancelled() => return,
                woken = woken(&mut configs, &mut ticks) => woken,
            };
            let Some(changed) = changed else { return };
            self.look(changed).await;
            if let Err(error) = access.refresh().await {
                tracing::warn!(%error, "tokens and users cannot be read");
            }
            access.count_refusals(false).await;
            access.write_use(false).await;
        }
    }

    /// Looks once. `again`: at everything, whether it looks changed or not.
    pub async fn look(&self, again: bool) {
        let mut looked = self.looked.lock().await;
        let config = self.configs.borrow().clone();
        let stored = match self.store.servers().await {
            Ok(stored) => stored,
            Err(error) => {
                tracing::warn!(%error, "the added servers cannot be read");
                looked.stored.clone().unwrap_or_default()
            }
        };
        let files_changed = self.look_at_files(&mut looked, &config, again).await;
        if again || files_changed || looked.stored.as_ref() != Some(&stored) {
            let all = union(&config, &looked.files, &stored);
            self.tell_conflicts(&looked.all, &all);
            looked.stored = Some(stored);
            looked.all = all;
            looked.compared = false;
            self.apply(&config, &looked.all).await;
        }
        self.register(&mut looked).await;
    }

    async fn look_at_files(&self, looked: &mut Looked, config: &Config, again: bool) -> bool {
        let none = config.server_files.is_empty() && looked.files.is_empty();
        if none && !looked.looking.is_running() {
            return false;
        }
        looked.again |= again;
        let Looked { looking, files, again, .. } = looked;
        let begin = || {
            let (mut files, again) = (files.clone(), std::mem::take(again));
            let (patterns, tls) = (config.server_files.clone(), config.exporter_tls.clone());
            move || {
                let changed = files.look(&patterns, &tls, again);
                (files, changed)
            }
        };
        let ended = looking.ended("server_files", begin).await;
        let Some((files, changed)) = ended else { return false };
        looked.files = files;
        // What is gone leaves no series.
        self.metrics.server_files.reset();
        for (path, error) in looked.files.all() {
            let name = path.display().to_string();
            let good = i64::from(error.is_none());
            self.metrics.server_files.with_label_values(&[name.as_str()]).set(good);
        }
        changed
    }

    fn tell_conflicts(&self, before: &All, after: &All) {
        let mut count = 0;
        for (id, Registered { about, .. }) in
            after.iter().filter(|(_, it)| !it.about.also.is_empty())
        {
            count += 1;
            if before.get(id).is_none_or(|before| before.about.also != about.also) {
                let also: Vec<&str> = about.also.iter().map(|it| it.as_str()).collect();
                let (used, also) = (about.origin.as_str(), also.join(", "));
                tracing::warn!(server = %id, used, also, "a server is there more than once");
            }
        }
        self.metrics.server_conflicts.set(count);
    }

    async fn apply(&self, config: &Config, all: &All) {
        let new = plan(config, all);
        self.fleet.describe(all);
        if *self.plan.borrow() == new {
            return;
        }
        let mut known = match self.store.known().await {
            Ok(known) => known,
            Err(error) => {
                tracing::warn!(%error, "what is kept of new servers cannot be read");
                BTreeMap::new()
            }
        };
        for it in all.values() {
            let (target, about) = (Arc::clone(&it.target), Arc::clone(&it.about));
            let id = target.id.clone();
            self.fleet.put(target, about, || known.remove(&id).unwrap_or_default());
        }
        self.plan.send_replace(new);
    }

    /// Takes down what is registered, and since when something is not any more.
    async fn register(&self, looked: &mut Looked) {
        if looked.compared {
            return;
        }
        if looked.registrations.is_none() {
            match self.store.registrations().await {
                Ok(all) => looked.registrations = Some(all),
                Err(error) => {
                    tracing::warn!(%error, "the list of retired servers cannot be read");
                    return;
                }
            }
        }
        let Some(kept) = &mut looked.registrations else { return };
        let now = Time::now();
        let mut changed = Vec::new();
        for (id, it) in &looked.all {
            let new = registration(it);
            if kept.get(id) != Some(&new) {
                changed.push(new);
            }
        }
        looked.seen.extend(looked.all.keys().cloned());
        // Of a file that was never read nobody knows what is in it.
        let unread = looked.looking.is_running() || looked.files.has_unread();
        let mut hidden = BTreeSet::new();
        let missing = |(id, old): &(&ServerId, &Registration)| {
            old.retired_at.is_none() && !looked.all.contains_key(*id)
        };
        for (id, old) in kept.iter().filter(missing) {
            // One that was there in this life was in a good version, and is not any more.
            let known = looked.seen.contains(id);
            if unread && !known && old.origin == Origin::File.as_str() {
                hidden.insert(id.clone());
            } else {
                changed.push(Registration { retired_at: Some(now), ..old.clone() });
            }
        }
        *self.hidden.write().unwrap_or_else(PoisonError::into_inner) = hidden;
        if !changed.is_empty() {
            if let Err(error) = self.store.register(changed.clone()).await {
                tracing::warn!(%error, "what is registered cannot be taken down");
                return;
            }
            for new in changed {
                kept.insert(new.server.clone(), new);
            }
        }
        looked.compared = true;
        let retired = self.retired();
        let is_retired = |it: &&Registration| it.retired_at.is_some();
        let new = || kept.values().filter(is_retired);
        if !retired.values().eq(new()) {
            let new = new().map(|it| (it.server.clone(), it.clone())).collect();
            *self.retired.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
        }
    }

    /// The database forgot what was retired long ago.
    pub async fn forgot(&self) {
        let mut looked = self.looked.lock().await;
        (looked.registrations, looked.compared) = (None, false);
    }
}

/// Until it is time to look again: whether there is another configuration. `None` when there will be
/// none any more.
async fn woken<T>(configs: &mut watch::Receiver<T>, ticks: &mut Interval) -> Option<bool> {
    let woken = tokio::select! {
        _ = ticks.tick() => false,
        changed = configs.changed() => {
            changed.ok()?;
            true
        }
    };
    // One may have come together with the tick.
    Some(configs.borrow_and_update().has_changed() || woken)
}

fn registration(it: &Registered) -> Registration {
    Registration {
        server: it.target.id.clone(),
        url: it.target.url.clone(),
        group: it.target.group.clone(),
        tags: it.target.tags.clone(),
        note: it.about.note.clone(),
        origin: it.about.origin.as_str().to_owned(),
        retired_at: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_configuration_that_comes_with_a_tick_is_not_missed() {
        let (sender, mut configs) = watch::channel(0);
        for new in 1..=64 {
            sender.send_replace(new);
            let mut ticks = interval(LOOK); // Its first tick is due at once.
            assert_eq!(woken(&mut configs, &mut ticks).await, Some(true), "change {new}");
        }
        assert_eq!(woken(&mut configs, &mut interval(LOOK)).await, Some(false));
        drop(sender);
        let mut late = tokio::time::interval_at(tokio::time::Instant::now() + LOOK, LOOK);
        assert_eq!(woken(&mut configs, &mut late).await, None);
    }
}
