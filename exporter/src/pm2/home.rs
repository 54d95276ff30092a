//! One PM2 daemon: whether it answers, what it last said, and calls to it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{Notify, Semaphore, broadcast, mpsc, watch};
use tokio::time::{Instant, timeout};
use wire::{Event, EventKind, Pm2State, Process, Readings, Severity, Time};

use super::dump::{self, SaveError};
use super::model::Reply;
use super::rpc::{CallError, Rpc};
use super::table::{Outcome, Table};
use super::{last_words, model, watch as watcher};
use crate::filter::Filter;
use crate::journal::{Journal, replace_file};
use crate::revision::Revision;

/// How long an answer may wait for the daemon to say that it is well.
const CONFIRM_WITHIN: Duration = Duration::from_millis(500);
/// A question that stays without an answer for this long is given up, and the connection with
/// it: the answer may have been lost.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// After this much silence the daemon is asked whether it is well.
const QUIET: Duration = Duration::from_secs(1);
/// How long a list may take that somebody needs.
const LIST_WITHIN: Duration = Duration::from_secs(5);

/// A reply of `getMonitorData`, on its way to the task that owns the table.
#[derive(Debug)]
pub(super) struct List {
    pub(super) json: Vec<u8>,
    /// [`Table::heard`] when it was asked for.
    pub(super) heard: u64,
}

#[derive(Debug)]
struct Link {
    rpc: Option<Arc<Rpc>>,
    up: bool,
    error: Option<String>,
    /// It is there, and does not answer.
    silent: bool,
    version: Option<String>,
    /// When the daemon last said anything.
    heard_at: Option<Instant>,
    listed_at: Option<Instant>,
    confirmed_at: Option<Time>,
}

impl Link {
    fn error_now(&self) -> Option<String> {
        if !self.silent {
            return self.error.clone();
        }
        let silence = self.heard_at.map_or(Duration::ZERO, |at| at.elapsed());
        Some(format!(
            "the PM2 daemon accepts connections and has not answered for {} s",
            silence.as_secs()
        ))
    }
}

/// See the module.
#[derive(Debug)]
pub struct Home {
    path: PathBuf,
    table: Mutex<Table>,
    link: Mutex<Link>,
    /// One question at a time: a daemon that hangs is not asked again and again.
    asking: Arc<Semaphore>,
    asked: watch::Sender<u64>,
    /// A question was given up.
    gave_up: Notify,
    lists: mpsc::Sender<List>,
    /// What custom actions return.
    replies: broadcast::Sender<Reply>,
    /// Wakes whoever follows logs: the bus told of a line that PM2 writes into a file.
    logged: watch::Sender<()>,
    journal: Arc<Journal>,
    revision: Revision,
    /// Where counters are kept.
    counters: Option<PathBuf>,
    /// Whether exits carry the last lines of stderr.
    exit_stderr: bool,
    drift: Mutex<dump::Comparison>,
}

impl Home {
    /// A home at `path`, watched from now on by a task of its own. Counters are taken up from
    /// and kept in `state`, a folder, if there is one. With `exit_stderr`, exits carry the last
    /// lines of stderr; `filter` says what is watched.
    ///
    /// # Errors
    /// The folder cannot be read or made.
    pub fn watch(
        path: PathBuf,
        journal: Arc<Journal>,
        revision: Revision,
        state: Option<&Path>,
        exit_stderr: bool,
        filter: Filter,
    ) -> io::Result<Arc<Self>> {
        let (lists, listed) = mpsc::channel(1);
        let mut table = Table::new(filter);
        let counters = state.map(|state| state.join("counters.json"));
        if let Some(file) = &counters {
            restore(&mut table, file)?;
        }
        let home = Arc::new(Self {
            path,
            exit_stderr,
            drift: Mutex::default(),
            counters,
            table: Mutex::new(table),
            link: Mutex::new(Link {
                rpc: None,
                up: false,
                error: Some("not asked yet".to_owned()),
                silent: false,
                version: None,
                heard_at: None,
                listed_at: None,
                confirmed_at: None,
            }),
            asking: Arc::new(Semaphore::new(1)),
            asked: watch::channel(0).0,
            gave_up: Notify::new(),
            lists,
            replies: broadcast::channel(16).0,
            logged: watch::channel(()).0,
            journal,
            revision,
        });
        tokio::spawn(watcher::watch(Arc::clone(&home), listed));
        Ok(home)
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Looks into the process table, or changes it. `look` must not come back here.
    pub fn table<R>(&self, look: impl FnOnce(&mut Table) -> R) -> R {
        look(&mut self.table.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn link(&self) -> MutexGuard<'_, Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the daemon answers, and what it is.
    pub fn state(&self) -> Pm2State {
        let running = self.table(|table| table.names());
        let drift =
            self.drift.lock().unwrap_or_else(PoisonError::into_inner).counts(&self.path, running);
        let link = self.link();
        Pm2State {
            dump_missing: drift.map(|(missing, _)| missing),
            dump_extra: drift.map(|(_, extra)| extra),
            up: link.up,
            error: link.error_now(),
            version: link.version.clone(),
            home: self.path.display().to_string(),
            confirmed_at: link.confirmed_at,
        }
    }

    /// Every process with readings.
    pub fn processes(&self, read: impl FnMut(u32) -> Readings) -> Vec<Process> {
        self.table(|table| table.processes(read))
    }

    /// Makes sure that the list, and with it what applications report, is no older than
    /// `max_age`, and that the daemon spoke within the last second. Waits at most half a
    /// second; then [`Self::state`] says that the daemon does not answer.
    pub async fn confirm(self: &Arc<Self>, max_age: Duration) {
        let (rpc, list) = {
            let link = self.link();
            let Some(rpc) = link.rpc.clone() else { return };
            let list = link.listed_at.is_none_or(|at| at.elapsed() > max_age);
            if !list && link.up && link.heard_at.is_some_and(|at| at.elapsed() < QUIET) {
                return;
            }
            (rpc, list)
        };
        let mut asked = self.asked.subscribe();
        asked.mark_unchanged();
        self.ask(rpc, list);
        if timeout(CONFIRM_WITHIN, asked.changed()).await.is_err() {
            self.silent();
        }
    }

    /// Has the list fetched now, whatever its age.
    ///
    /// # Errors
    /// The daemon is not there or does not answer.
    pub async fn refresh(self: &Arc<Self>) -> Result<(), CallError> {
        let late = || CallError::Timeout(LIST_WITHIN);
        let deadline = Instant::now() + LIST_WITHIN;
        // A question under way may have been asked before whatever the caller wants to see.
        let place = tokio::time::timeout_at(deadline, Arc::clone(&self.asking).acquire_owned());
        drop(place.await.map_err(|_| late())?);
        let rpc = self.rpc()?;
        let mut asked = self.asked.subscribe();
        asked.mark_unchanged();
        self.ask(rpc, true);
        tokio::time::timeout_at(deadline, asked.changed()).await.map_err(|_| late())?.ok();
        Ok(())
    }

    /// Asks, unless a question is out already.
    pub(super) fn ask(self: &Arc<Self>, rpc: Arc<Rpc>, list: bool) {
        let Ok(place) = Arc::clone(&self.asking).try_acquire_owned() else { return };
        let home = Arc::clone(self);
        tokio::spawn(async move {
            let heard = home.table(|table| table.heard());
            let method = if list { "getMonitorData" } else { "ping" };
            // Whoever needs the answer has a deadline of its own. A daemon that hangs is not
            // asked once more meanwhile: that would only add to what it must do when it wakes.
            match rpc.call(method, &json!({}), ANSWER_WITHIN).await {
                Ok(json) => {
                    home.spoke();
                    // The task that owns the table gives the word when it has taken the list.
                    if !list || home.lists.send(List { json, heard }).await.is_err() {
                        home.answered();
                    }
                }
                Err(CallError::Timeout(_)) => {
                    let current =
                        home.link().rpc.as_ref().is_some_and(|now| Arc::ptr_eq(now, &rpc));
                    if current {
                        home.gave_up.notify_one();
                    }
                }
                Err(_) => {}
            }
            drop(place);
        });
    }

    /// The daemon said something.
    pub(super) fn spoke(&self) {
        let mut link = self.link();
        link.heard_at = Some(Instant::now());
        link.confirmed_at = Some(Time::now());
        if !link.up && link.rpc.is_some() && link.listed_at.is_some() {
            link.up = true;
            (link.error, link.silent) = (None, false);
            drop(link);
            self.tell(EventKind::PM2_CONNECTED, Severity::Info, "the PM2 daemon answers again");
        }
    }

    /// A question was answered.
    pub(super) fn answered(&self) {
        self.asked.send_modify(|count| *count += 1);
    }

    /// Waits until a question is given up.
    pub(super) async fn gave_up(&self) {
        self.gave_up.notified().await;
    }

    /// It is there, and does not answer. What it said before stays known.
    pub(super) fn silent(&self) {
        let mut link = self.link();
        link.silent = true;
        if std::mem::replace(&mut link.up, false) {
            drop(link);
            self.tell(
                EventKind::PM2_DISCONNECTED,
                Severity::Critical,
                "the PM2 daemon does not answer",
            );
        }
    }

    /// The connection is there and the first list was taken.
    pub(super) fn connected(&self, rpc: Arc<Rpc>) {
        let mut link = self.link();
        link.rpc = Some(rpc);
        link.listed_at = None;
    }

    /// A list was read.
    pub(super) fn listed(&self, version: Option<String>) {
        let mut link = self.link();
        link.listed_at = Some(Instant::now());
        link.confirmed_at = Some(Time::now());
        link.heard_at = Some(Instant::now());
        if version.is_some() {
            link.version = version;
        }
        if !link.up {
            link.up = true;
            (link.error, link.silent) = (None, false);
            let message = match &link.version {
                Some(version) => format!("connected to PM2 {version}"),
                None => "connected to PM2".to_owned(),
            };
            drop(link);
            self.tell(EventKind::PM2_CONNECTED, Severity::Info, &message);
        }
    }

    /// The connection was given up; the daemon is still there.
    pub(super) fn disconnected(&self) {
        let mut link = self.link();
        link.rpc = None;
        link.listed_at = None;
    }

    /// The daemon is gone.
    pub(super) fn lost(&self, reason: String) {
        let was_up = {
            let mut link = self.link();
            link.rpc = None;
            link.listed_at = None;
            let changed = link.error.as_deref() != Some(&reason);
            link.error = Some(reason.clone());
            link.silent = false;
            let was_up = std::mem::replace(&mut link.up, false);
            if changed || was_up {
                self.revision.bump();
            }
            was_up
        };
        self.table(|table| table.clear());
        self.answered();
        if was_up {
            let message = format!("lost the PM2 daemon: {reason}");
            self.tell(EventKind::PM2_DISCONNECTED, Severity::Critical, &message);
        }
    }

    fn tell(&self, kind: EventKind, severity: Severity, message: &str) {
        tracing::info!(home = %self.path.display(), "{message}");
        self.revision.bump();
        self.journal.event(Time::now(), Event::new(kind, severity, message));
    }

    /// Takes what follows from something PM2 said into the journal.
    pub(super) fn take(&self, outcome: &mut Outcome) {
        if outcome.changed {
            self.revision.bump();
        }
        for (time, mut event) in outcome.events.drain(..) {
            if self.exit_stderr
                && let Some(log) = event.pm_id.and_then(|id| self.table(|t| t.err_log(id)))
            {
                last_words::add(&mut event, Path::new(&*log));
            }
            self.journal.event(time, event);
        }
        self.keep_counters();
    }

    /// Writes what was counted, so that it never falls.
    fn keep_counters(&self) {
        let Some(file) = &self.counters else { return };
        let Some(json) = self.table(|table| table.counters()) else { return };
        if let Err(error) = replace_file(file, &json) {
            tracing::error!(%error, file = %file.display(), "counters cannot be kept");
        }
    }

    /// Takes a list into the table.
    pub(super) fn take_list(&self, list: List) -> Result<Outcome, serde_json::Error> {
        let (listed, odd) = model::list(&list.json)?;
        if odd > 0 {
            tracing::warn!(odd, "PM2 lists processes that make no sense; they are left out");
        }
        Ok(self.table(|table| table.list(listed, list.heard, Time::now())))
    }

    /// Changes whenever an application of this daemon logs.
    pub fn logged(&self) -> watch::Receiver<()> {
        self.logged.subscribe()
    }

    /// An application logged.
    pub(super) fn wake_followers(&self) {
        if self.logged.receiver_count() > 0 {
            self.logged.send_replace(());
        }
    }

    /// A custom action returned.
    pub(super) fn replied(&self, reply: Reply) {
        // Nobody waits for one that somebody else asked for.
        let _ = self.replies.send(reply);
    }

    /// Runs a custom action of one process and gives what it returns, as JSON.
    ///
    /// # Errors
    /// See [`CallError`]; [`CallError::Timeout`] when the action never returns.
    pub async fn trigger(
        &self,
        pm_id: u32,
        action: &str,
        params: Option<&str>,
        deadline: Duration,
    ) -> Result<String, CallError> {
        let mut replies = self.replies.subscribe();
        let mut message = json!({"id": pm_id, "msg": action});
        if let Some(params) = params {
            message["opts"] = json!(params);
        }
        let until = Instant::now() + deadline;
        self.call("msgProcess", message, deadline).await?;
        loop {
            match tokio::time::timeout_at(until, replies.recv()).await {
                Ok(Ok(reply)) if reply.pm_id == pm_id && &*reply.action == action => {
                    return Ok(reply.json.into());
                }
                Ok(Ok(_) | Err(broadcast::error::RecvError::Lagged(_))) => {}
                Ok(Err(broadcast::error::RecvError::Closed)) | Err(_) => {
                    return Err(CallError::Timeout(deadline));
                }
            }
        }
    }

    /// Saves PM2's list for the next boot; apps named in `gone` were deleted on purpose.
    ///
    /// # Errors
    /// PM2 does not answer, or see [`SaveError`].
    pub async fn save(&self, gone: &[&str]) -> anyhow::Result<()> {
        let list = self.rpc()?.call("getMonitorData", &json!({}), LIST_WITHIN).await?;
        let saved: Result<(), SaveError> = dump::save(&self.path, &list, gone);
        Ok(saved?)
    }

    /// The connection, where there is one.
    pub(crate) fn rpc(&self) -> Result<Arc<Rpc>, CallError> {
        let link = self.link();
        let reason = || link.error_now().unwrap_or_default();
        link.rpc.clone().ok_or_else(|| CallError::Closed(reason()))
    }

    /// Calls one of PM2's methods.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn call(
        &self,
        method: &str,
        argument: Value,
        deadline: Duration,
    ) -> Result<(), CallError> {
        let rpc = self.rpc()?;
        let result = rpc.call(method, &argument, deadline).await.map(drop);
        if !matches!(result, Err(CallError::Timeout(_) | CallError::Closed(_))) {
            self.spoke();
        }
        result
    }
}

fn restore(table: &mut Table, file: &Path) -> io::Result<()> {
    let json = match std::fs::read(file) {
        Ok(json) => json,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if let Err(error) = table.restore(&json) {
        // Set aside, not thrown away: somebody may want to look.
        let aside = file.with_extension("unreadable");
        tracing::error!(%error, aside = %aside.display(), "kept counters make no sense; they begin anew");
        std::fs::rename(file, aside)?;
    }
    Ok(())
}
