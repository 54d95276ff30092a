//! Commands for servers that are away. They wait, in the order in which they came, one of a
//! server at a time; are done once, when the server answers and takes them; and expire otherwise.
//! What waits is on the disk, so that a restart of the poller changes nothing of it.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::StatusCode;
use dashboards::ServerStatus;
use service::problem::ProblemResponse;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wire::{CommandId, CommandStatus, ServerId, Target, Time};

use super::{
    CLOSE_AGAIN, CLOSE_TRIES, Commands, Ended, LATELY, MAX_ERROR, Open, Order, Outcome, run,
    unavailable,
};
use crate::store::{Canceller, StoredCommand};

/// The longest that a command may wait.
pub const LONGEST: Duration = Duration::from_secs(7 * 86_400);
/// Commands that wait at a time, of all servers and of one.
const MOST: usize = 500;
const MOST_OF_SERVER: usize = 32;
/// How often is looked for what is due.
const LOOK: Duration = Duration::from_millis(50);
/// Outcomes of which nothing was taken, and which pass: the server is away after all; or it is
/// back, and its PM2 is not yet, or has too much to do.
const PASSING: [&str; 3] = [run::UNREACHABLE, "pm2_unavailable", "busy"];
/// One that passes within a minute or so, or not at all.
const MISSING: &str = "unknown_app";
/// How long a server is let be that would not take a command: twice as long each time, up to a
/// minute or so. It answers polls, and may refuse for days, with two rows of the audit each time.
const PAUSE: Duration = Duration::from_secs(1);
const DOUBLINGS: u32 = 6;

/// One that waits.
#[derive(Clone, Debug)]
struct Waiting {
    command: StoredCommand,
    body: Vec<u8>,
    timeout: Duration,
    until: Time,
    /// It is being sent.
    leaves: bool,
    /// It was not taken: the server must answer again after this.
    after: Option<Instant>,
    /// How often its server would not take it, and how often it did not have the app.
    refusals: u32,
    missing: u32,
    /// Why it was not taken, the last time.
    why: Option<String>,
}

impl Waiting {
    /// Nothing was taken, and so it waits on.
    fn wait_on(&mut self, outcome: Outcome) {
        let mut after = Instant::now();
        if outcome.status == CommandStatus::Refused {
            let is_missing = outcome.problem.as_deref() == Some(MISSING);
            let count = if is_missing { &mut self.missing } else { &mut self.refusals };
            after += PAUSE * (1u32 << (*count).min(DOUBLINGS));
            *count += 1;
        }
        self.after = Some(after);
        self.why = outcome.error.map(|why| why.chars().take(MAX_ERROR).collect());
    }
}

/// What waits, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Mutex<Vec<Waiting>>,
    changed: Notify,
}

impl Queue {
    fn waiting(&self) -> MutexGuard<'_, Vec<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remove(&self, id: &CommandId) {
        self.waiting().retain(|it| it.command.record.id != *id);
    }

    /// It stays after all, as it is now, unless it was taken back meanwhile.
    fn stays(&self, it: Waiting) {
        let mut waiting = self.waiting();
        let id = &it.command.record.id;
        if let Some(place) = waiting.iter().position(|old| old.command.record.id == *id) {
            waiting[place] = Waiting { leaves: false, ..it };
        }
    }

    /// Whether one more may wait.
    ///
    /// # Errors
    /// 503: too many do.
    pub(super) fn has_room(&self, server: &ServerId) -> Result<(), ProblemResponse> {
        let waiting = self.waiting();
        let of_server = waiting.iter().filter(|it| it.command.server == *server).count();
        if waiting.len() < MOST && of_server < MOST_OF_SERVER {
            return Ok(());
        }
        let detail =
            format!("{of_server} commands of {server} and {} in all wait already", waiting.len());
        Err(ProblemResponse::new(StatusCode::SERVICE_UNAVAILABLE, "busy", detail))
    }
}

/// Why a command is not cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotCancelled {
    /// It was sent.
    UnderWay,
    /// It has ended.
    Ended(CommandStatus),
}

impl Commands {
    /// Lets a command wait that is on record as queued.
    pub(super) fn enqueue(&self, command: StoredCommand, body: Vec<u8>) -> Ended {
        let (done, ended) = watch::channel(None);
        let open = Open { server: command.server.clone(), done, waits: true };
        self.open().insert(command.record.id.clone(), open);
        let until = command.queued_until.unwrap_or_else(crate::world::now);
        let followed = command.follow_until.unwrap_or(until).millis_since(until);
        let timeout = Duration::from_millis(followed.max(0).unsigned_abs());
        let waiting = Waiting {
            command,
            body,
            timeout,
            until,
            leaves: false,
            after: None,
            refusals: 0,
            missing: 0,
            why: None,
        };
        self.queue.waiting().push(waiting);
        self.queue.changed.notify_one();
        ended
    }

    /// Sends what waits as its servers answer, until `stop`.
    pub async fn deliver(self: &Arc<Self>, stop: CancellationToken) {
        loop {
            let waiting = self.queue.waiting().len();
            self.metrics.commands_queued.set(i64::try_from(waiting).unwrap_or(i64::MAX));
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.queue.changed.notified() => {}
                () = tokio::time::sleep(LOOK), if waiting > 0 => {}
            }
            self.look(crate::world::now());
        }
    }

    fn look(self: &Arc<Self>, now: Time) {
        let mut busy: HashSet<ServerId> = HashSet::new();
        let (mut due, mut late, mut gone) = (Vec::new(), Vec::new(), Vec::new());
        for it in self.queue.waiting().iter_mut() {
            let server = &it.command.server;
            // An earlier one of the same server comes first, whether it can be sent or not.
            let is_first = busy.insert(server.clone());
            if it.leaves {
                continue;
            }
            if it.until <= now {
                it.leaves = true;
                late.push(it.clone());
            } else if self.fleet.get(server).is_none() {
                it.leaves = true;
                gone.push(it.clone());
            } else if is_first && self.answers(server, it.after) {
                it.leaves = true;
                due.push(it.clone());
            }
        }
        for it in due {
            let this = Arc::clone(self);
            self.tasks.spawn(async move { this.send(it).await });
        }
        for it in gone {
            let this = Arc::clone(self);
            self.tasks.spawn(async move { this.look_for(it).await });
        }
        for it in late {
            let this = Arc::clone(self);
            self.tasks.spawn(async move {
                this.queue.remove(&it.command.record.id);
                let server = &it.command.server;
                let words = match &it.why {
                    Some(why) => format!("{server} did not take it in time: {why}"),
                    None => format!("{server} did not answer in time"),
                };
                let outcome = run::ended(CommandStatus::Expired, "expired", words);
                this.close(it.command, outcome).await;
            });
        }
    }

    /// Whether a server answers, and did so after a moment.
    fn answers(&self, server: &ServerId, after: Option<Instant>) -> bool {
        self.fleet.get(server).is_some_and(|member| {
            let online = member.status(self.fleet.stale_after()) == ServerStatus::Online;
            online && after.is_none_or(|after| member.answered_after(after))
        })
    }

    async fn send(self: &Arc<Self>, mut it: Waiting) {
        let id = it.command.record.id.clone();
        let (server, action) = (&it.command.server, it.command.record.action);
        // It may be long ago that they were asked whether they may.
        let may = it.command.token.is_some_and(|by| self.access.may_still(by, server, action));
        if !may {
            self.queue.remove(&id);
            let words = "who asked for it may not do that any more".to_owned();
            let outcome = run::ended(CommandStatus::Refused, "forbidden", words);
            self.close(it.command, outcome).await;
            return;
        }
        let until = crate::world::now().plus_millis(super::millis(it.timeout));
        match self.store.begin_command(id.clone(), until).await {
            Ok(true) => {}
            // Cancelled meanwhile.
            Ok(false) => return self.look_for(it).await,
            Err(error) => {
                self.metrics.store_errors.with_label_values(&[error.label()]).inc();
                tracing::error!(%error, command = %id, "not on record, and so not sent");
                tokio::time::sleep(CLOSE_AGAIN).await;
                return self.queue.stays(it);
            }
        }
        tracing::info!(command = %id, %server, %action, "a command that waited is sent");
        self.metrics.commands_running.inc();
        let outcome = match self.fleet.get(server) {
            Some(member) => {
                let asked = (&id, &*it.command.record.requested_by);
                run::run(&self.client, &member.target, asked, it.body.clone(), it.timeout).await
            }
            None => {
                let words = format!("{server} is no longer registered");
                run::ended(CommandStatus::Failed, run::UNREACHABLE, words)
            }
        };
        self.metrics.commands_running.dec();
        let passes = match outcome.problem.as_deref() {
            Some(MISSING) => self.may_come(&it).await,
            problem => problem.is_some_and(|problem| PASSING.contains(&problem)),
        };
        // Where its time is over by now, that is found at the next look.
        if passes && self.requeue(&it, &outcome).await {
            it.wait_on(outcome);
            return self.queue.stays(it);
        }
        self.queue.remove(&id);
        self.close(it.command, outcome).await;
    }

    /// Whether an app that is not there may be there soon: PM2 starts one after another when the machine
    /// does.
    async fn may_come(&self, it: &Waiting) -> bool {
        let record = &it.command.record;
        let Target::App(app) = &record.target else { return false };
        let homes = record.pm2_home.as_ref().map(|home| vec![home.to_string()]);
        let since = record.requested_at.plus_millis(-super::millis(LATELY));
        let server = &it.command.server;
        it.missing < DOUBLINGS
            && match self.had_app(vec![(server.clone(), homes)], app, since).await {
                Ok(had) => had.contains(server),
                // It is asked again in any case.
                Err(_) => true,
            }
    }

    /// What became of a command that may wait no more: with its server, what waited for it went.
    async fn look_for(&self, it: Waiting) {
        let id = it.command.record.id.clone();
        match self.store.command(&id).await {
            Ok(Some(now)) if now.record.status.is_final() => self.taken_back(&id, Arc::new(now)),
            // Its server may stand in a file that cannot be read yet.
            _ => {
                tokio::select! {
                    () = self.stopping.cancelled() => {}
                    () = tokio::time::sleep(CLOSE_AGAIN) => {}
                }
                self.queue.stays(it);
            }
        }
    }

    /// Tells those who wait for it that it is not sent.
    fn taken_back(&self, id: &CommandId, now: Arc<StoredCommand>) {
        self.queue.remove(id);
        if let Some(open) = self.open().remove(id) {
            self.metrics.commands.with_label_values(&[now.record.status.as_str()]).inc();
            tracing::info!(command = %id, "a command is cancelled");
            open.done.send_replace(Some(now));
        }
    }

    /// Puts on record that a command waits again, since nothing was taken.
    async fn requeue(&self, it: &Waiting, outcome: &Outcome) -> bool {
        let id = &it.command.record.id;
        // As when it was put in: after a restart, how long it may take is read from this.
        let follow_until = it.until.plus_millis(super::millis(it.timeout));
        let why = outcome.error.as_deref().unwrap_or_default();
        let why: String = why.chars().take(MAX_ERROR).collect();
        for _ in 0..CLOSE_TRIES {
            match self.store.requeue_command(id.clone(), follow_until, why.clone()).await {
                Ok(done) => return done,
                Err(error) => {
                    tracing::error!(command = %id, %error, "that it waits again was not stored");
                    tokio::time::sleep(CLOSE_AGAIN).await;
                }
            }
        }
        false
    }

    /// Takes a command back that was not sent yet.
    ///
    /// # Errors
    /// It cannot be put on record, and waits on.
    pub async fn cancel(
        &self,
        command: &StoredCommand,
        by: Canceller,
    ) -> Result<Result<Arc<StoredCommand>, NotCancelled>, ProblemResponse> {
        let id = &command.record.id;
        let failed = |error: crate::store::StoreError| {
            self.metrics.store_errors.with_label_values(&[error.label()]).inc();
            tracing::error!(%error, command = %id, "a command was not cancelled");
            unavailable("it could not be put on record that the command is cancelled")
        };
        let cancelled = self.store.cancel_command(id.clone(), by).await.map_err(failed)?;
        let now = self.store.command(id).await.map_err(failed)?;
        let now = Arc::new(now.unwrap_or_else(|| command.clone()));
        if !cancelled {
            return Ok(Err(match now.record.status {
                status if status.is_final() => NotCancelled::Ended(status),
                _ => NotCancelled::UnderWay,
            }));
        }
        self.taken_back(id, Arc::clone(&now));
        Ok(Ok(now))
    }
}

/// Whether a command may be kept until its server is back.
///
/// # Errors
/// 422: it holds what is never kept.
pub(super) fn keepable(order: &Order, action: wire::Action) -> Result<(), ProblemResponse> {
    if order.may_be_kept(action) {
        return Ok(());
    }
    Err(ProblemResponse::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "not_queueable",
        "queue: values of variables and parameters, credentials of a repository and command lines \
         are never kept, so a command that has them cannot wait",
    ))
}
