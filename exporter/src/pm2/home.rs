//! One PM2 daemon: whether it answers, what it last said, and calls to it.

mod calls;
mod counters;
mod link;
mod presence;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use exposition::compat::PeerProcess;
use serde_json::json;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, broadcast, mpsc, watch};
use tokio::time::{Instant, timeout};
use wire::{Event, EventKind, Pm2State, Process, Readings, Severity, SmolStr, Time};

use link::Link;
use presence::{Presence, forget_reports};

use super::dump;
use super::model::Reply;
use super::rpc::{CallError, Rpc};
use super::table::{Outcome, Table};
use super::{last_words, model, watch as watcher};
use crate::filter::Filter;
use crate::journal::Journal;
use crate::readings;
use crate::revision::Revision;

/// How long an answer may wait for the daemon to say that it is well.
const CONFIRM_WITHIN: Duration = Duration::from_millis(500);
/// What it said is taken within so long, whatever else there is to do.
const TAKEN_WITHIN: Duration = Duration::from_millis(50);
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
    /// It was asked for by its age alone: nothing had told of a change.
    pub(super) routine: bool,
    /// The question is out until the list is taken: who asks anew must not take the word that is
    /// given for this one for an answer.
    pub(super) _place: OwnedSemaphorePermit,
}

/// A question to the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// Whether it is well.
    Ping,
    /// What it has.
    List { routine: bool },
}

/// What all homes of an exporter share.
#[derive(Debug)]
pub struct Shared<'a> {
    /// What happens is written here.
    pub journal: Arc<Journal>,
    /// Changes with what is known.
    pub revision: Revision,
    /// Counters are taken up from and kept in this folder, if there is one.
    pub state: Option<&'a Path>,
    /// Exits carry the last lines of stderr.
    pub exit_stderr: bool,
    /// What is watched.
    pub filter: Filter,
}

/// See the module.
#[derive(Debug)]
pub struct Home {
    path: PathBuf,
    /// Its name in all that is told, where there are several.
    label: Option<SmolStr>,
    /// One change at a time: concurrent ones end in states nobody asked for.
    turn: Arc<Semaphore>,
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
    presence: Mutex<Presence>,
    /// What was logged is about to be kept.
    keeps_logged: AtomicBool,
}

impl Home {
    /// A home at `path`, watched from now on by a task of its own. `label` is its name in all that
    /// is told, where there are several.
    ///
    /// # Errors
    /// The folder of counters cannot be read or made.
    pub fn watch(
        path: PathBuf,
        label: Option<SmolStr>,
        shared: &Shared<'_>,
    ) -> io::Result<Arc<Self>> {
        let (lists, listed) = mpsc::channel(1);
        let mut table = Table::new(shared.filter.clone()).in_home(label.clone());
        let counters = shared.state.map(|state| state.join(counters::name(&path)));
        if let Some(file) = &counters {
            // Earlier versions watched one only, and called its file so.
            let former = file.with_file_name("counters.json");
            if label.is_none() && former.exists() && !file.exists() {
                std::fs::rename(&former, file)?;
            }
            counters::restore(&mut table, file)?;
        }
        let home = Arc::new(Self {
            path,
            label,
            turn: Arc::new(Semaphore::new(1)),
            exit_stderr: shared.exit_stderr,
            drift: Mutex::new(dump::Comparison::new(shared.filter.clone())),
            counters,
            table: Mutex::new(table),
            presence: Mutex::default(),
            keeps_logged: AtomicBool::new(false),
            link: Mutex::default(),
            asking: Arc::new(Semaphore::new(1)),
            asked: watch::channel(0).0,
            gave_up: Notify::new(),
            lists,
            replies: broadcast::channel(16).0,
            logged: watch::channel(()).0,
            journal: Arc::clone(&shared.journal),
            revision: shared.revision.clone(),
        });
        tokio::spawn(watcher::watch(Arc::clone(&home), listed));
        Ok(home)
    }

    /// The turn to change something of this daemon: slots take it as well.
    pub(crate) fn turn(&self) -> Arc<Semaphore> {
        Arc::clone(&self.turn)
    }

    /// Its name in all that is told, where there are several.
    pub fn label(&self) -> Option<&str> {
        self.label.as_deref()
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
        let running = self.table(|table| table.to_be_saved());
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
            drifts: link.drifts,
            confirmed_at: link.confirmed_at,
        }
    }

    /// How the saved list differs from what there is; `None` when nothing was ever saved.
    pub fn drift(&self) -> Option<dump::Drift> {
        self.table(|table| dump::drift(&self.path, &table.to_be_saved(), table.filter()))
    }

    /// Every process with readings. What has ended is told though PM2 does not say so, and what
    /// applications reported is left out once it is too old.
    pub fn processes(&self, read: impl FnMut(u32) -> Readings) -> Vec<Process> {
        let mut processes = self.table(|table| table.processes(read));
        let mut presence = self.presence.lock().unwrap_or_else(PoisonError::into_inner);
        if presence.look(&mut processes, readings::runs) {
            self.revision.bump();
        }
        if self.link().reports_are_old() {
            processes.iter_mut().for_each(forget_reports);
        }
        processes
    }

    /// Every process as PM2 itself lists it, for other exporters' pages.
    pub fn peers(&self) -> Vec<PeerProcess> {
        let mut peers = self.table(|table| table.peers());
        if self.link().reports_are_old() {
            peers.iter_mut().for_each(|peer| peer.reported.clear());
        }
        peers
    }

    /// Makes sure that the list, and with it what applications report, is no older than
    /// `max_age`, and that the daemon spoke within the last second. Waits at most half a
    /// second; then [`Self::state`] says that the daemon does not answer.
    pub async fn confirm(self: &Arc<Self>, max_age: Duration) {
        let (rpc, list, routine) = {
            let mut link = self.link();
            link.max_age = Some(max_age);
            let Some(rpc) = link.rpc.clone() else { return };
            let list = link.listed_at.is_none_or(|at| at.elapsed() > max_age);
            if !list && link.up && link.heard_at.is_some_and(|at| at.elapsed() < QUIET) {
                return;
            }
            // The first list after a connect finds nothing that could have been told before.
            (rpc, list, link.listed_at.is_some())
        };
        let mut asked = self.asked.subscribe();
        asked.mark_unchanged();
        self.ask(rpc, if list { Question::List { routine } } else { Question::Ping });
        let is_late = timeout(CONFIRM_WITHIN, asked.changed()).await.is_err();
        // Where this program itself was late, what PM2 said is there and was not taken yet.
        if is_late && timeout(TAKEN_WITHIN, asked.changed()).await.is_err() {
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
        self.ask(rpc, Question::List { routine: false });
        tokio::time::timeout_at(deadline, asked.changed()).await.map_err(|_| late())?.ok();
        Ok(())
    }

    /// Asks, unless a question is out already.
    pub(super) fn ask(self: &Arc<Self>, rpc: Arc<Rpc>, question: Question) {
        let Ok(place) = Arc::clone(&self.asking).try_acquire_owned() else { return };
        let home = Arc::clone(self);
        tokio::spawn(async move {
            let heard = home.table(|table| table.heard());
            let method = match question {
                Question::Ping => "ping",
                Question::List { .. } => "getMonitorData",
            };
            // Whoever needs the answer has a deadline of its own. A daemon that hangs is not
            // asked once more meanwhile: that would only add to what it must do when it wakes.
            match rpc.call(method, &json!({}), ANSWER_WITHIN).await {
                Ok(json) => {
                    home.spoke();
                    match question {
                        Question::Ping => home.answered(),
                        // The task that owns the table gives the word when it has taken the list.
                        Question::List { routine } => {
                            let list = List { json, heard, routine, _place: place };
                            if home.lists.send(list).await.is_err() {
                                home.answered();
                            }
                        }
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
        });
    }

    fn tell(&self, kind: EventKind, severity: Severity, message: &str) {
        tracing::info!(home = %self.path.display(), "{message}");
        self.revision.bump();
        let mut event = Event::new(kind, severity, message);
        event.pm2_home.clone_from(&self.label);
        self.journal.event(Time::now(), event);
    }

    /// A routine list had what nothing had told.
    pub(super) fn drifted(&self) {
        self.link().drifts += 1;
        tracing::info!(home = %self.path.display(), "PM2's list had what nothing had told");
    }

    /// Takes what follows from something PM2 said into the journal.
    pub(super) fn take(&self, outcome: &mut Outcome) {
        if outcome.changed {
            self.revision.bump();
        }
        for (time, mut event) in outcome.events.drain(..) {
            if self.exit_stderr
                && event.kind == EventKind::EXIT
                && let Some(pm_id) = event.pm_id
                && let Some((log, before)) = self.table(|table| table.err_log(pm_id))
            {
                let now = last_words::add(&mut event, Path::new(&*log), before);
                self.table(|table| table.ended_at_err_log(pm_id, now));
            }
            self.journal.event(time, event);
        }
        self.keep_all_counters();
    }

    /// Takes a list into the table.
    pub(super) fn take_list(&self, list: &List) -> Result<Outcome, serde_json::Error> {
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
    pub(super) fn wake_followers(self: &Arc<Self>) {
        self.keep_logged_soon();
        if self.logged.receiver_count() > 0 {
            self.logged.send_replace(());
        }
    }
}
