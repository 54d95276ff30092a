//! Commands: put on record first, then sent, then closed with what became of them. Once on
//! record a command runs on, whether or not who asked still waits.

mod close;
mod health;
mod late;
mod order;
mod queue;
mod record;
mod run;
mod selection;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use axum::http::StatusCode;
use service::problem::ProblemResponse;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wire::{Action, CommandId, CommandStatus, ServerId, Target};

pub use order::Order;
pub use queue::{LONGEST, NotCancelled};
use record::{new_id, record, running};
use run::Outcome;
pub(crate) use selection::MOST_AT_A_TIME;
pub use selection::{Rollout, Select, Servers, Touched};

use crate::access::{Access, Caller, Role};
use crate::client::Client;
use crate::fleet::Fleet;
use crate::metrics::Metrics;
use crate::store::{Inserted, Keyed, Store, StoredCommand};

/// Commands under way at a time, of all servers and of one.
const MOST: usize = 256;
const MOST_OF_SERVER: usize = 16;
/// How often, and how far apart, an outcome is tried to be stored.
const CLOSE_TRIES: u32 = 60;
const CLOSE_AGAIN: Duration = Duration::from_secs(1);

/// A server whose PM2 does not tell has what it had within this time.
const LATELY: Duration = Duration::from_secs(86_400);

/// What a part is called that was done and that nobody watched to its end.
const NOT_WATCHED: &str = "not_watched";

/// Longest error that is kept, in characters.
const MAX_ERROR: usize = 1000;

/// What somebody wants done.
#[derive(Clone, Debug)]
pub struct Request {
    /// On which server.
    pub server: ServerId,
    /// To what.
    pub target: Target,
    /// What.
    pub action: Action,
    /// What that takes.
    pub order: Order,
    /// How long it may wait for a server that is away; it must not, unless set.
    pub queue: Option<Duration>,
    /// Their own name for the request.
    pub key: Option<String>,
    /// Who.
    pub caller: Caller,
    /// From where.
    pub address: IpAddr,
}

/// A command that goes its way.
#[derive(Debug)]
struct Open {
    server: ServerId,
    done: watch::Sender<Option<Arc<StoredCommand>>>,
    /// For its server, and so nothing of it is under way.
    waits: bool,
}

/// Who waits for the end of a command.
type Ended = watch::Receiver<Option<Arc<StoredCommand>>>;

/// What became of a request.
enum Begun {
    /// Its key was used before, by this one.
    Before(Arc<StoredCommand>),
    /// It goes its way.
    Now(Arc<StoredCommand>, Ended),
}

/// What it takes to send one.
struct Sending {
    target: Arc<crate::config::Target>,
    order: Order,
    body: Vec<u8>,
    timeout: Duration,
}

/// Takes commands, sends them, remembers those under way.
#[derive(Debug)]
pub struct Commands {
    store: Store,
    client: Client,
    fleet: Arc<Fleet>,
    metrics: Arc<Metrics>,
    access: Arc<Access>,
    timeout: RwLock<Duration>,
    queue: queue::Queue,
    open: Mutex<HashMap<CommandId, Open>>,
    rolling: Mutex<HashMap<CommandId, selection::Rolling>>,
    /// Nothing more of a selection is begun.
    stopping: CancellationToken,
    tasks: TaskTracker,
    /// What events tell of commands could not be taken up.
    unheard: Notify,
}

impl Commands {
    /// None under way.
    pub fn new(
        store: Store,
        client: Client,
        fleet: Arc<Fleet>,
        metrics: Arc<Metrics>,
        access: Arc<Access>,
        timeout: Duration,
    ) -> Self {
        let timeout = RwLock::new(timeout);
        Self {
            store,
            client,
            fleet,
            metrics,
            access,
            timeout,
            queue: queue::Queue::default(),
            open: Mutex::default(),
            rolling: Mutex::default(),
            stopping: CancellationToken::new(),
            tasks: TaskTracker::new(),
            unheard: Notify::new(),
        }
    }

    /// Asks exporters.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Changes how long one command may take; deployments have a time of their own.
    pub fn set_timeout(&self, timeout: Duration) {
        *self.timeout.write().unwrap_or_else(PoisonError::into_inner) = timeout;
    }

    fn open(&self) -> MutexGuard<'_, HashMap<CommandId, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rolling(&self) -> MutexGuard<'_, HashMap<CommandId, selection::Rolling>> {
        self.rolling.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a command on record and sends it on its way; gives what is known of it after at
    /// most `wait`. A request whose key was used before gives what is known of that one. When
    /// nobody waits for this any more, it goes on.
    ///
    /// # Errors
    /// It was refused, and the refusal is on record; or it could not be put on record, and
    /// nothing was sent.
    pub async fn submit(
        self: &Arc<Self>,
        request: Request,
        wait: Duration,
    ) -> Result<Arc<StoredCommand>, ProblemResponse> {
        // Whoever shows no credential leaves no row: they could fill the disk.
        if request.caller.token().is_none() {
            request.caller.require(Role::Operator)?;
        }
        let this = Arc::clone(self);
        let (command, mut done) = match self.whole(async move { this.begin(request).await }).await?
        {
            Begun::Before(command) => return Ok(command),
            Begun::Now(command, done) => (command, done),
        };
        let ended = tokio::time::timeout(wait, done.wait_for(Option::is_some)).await;
        Ok(match ended {
            Ok(Ok(ended)) => ended.clone().unwrap_or(command),
            _ => command,
        })
    }

    /// Does what must not end half-way in a task of its own: whoever asked may go away at any moment, and
    /// what is on record then has to be begun all the same.
    async fn whole<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, ProblemResponse>> + Send + 'static,
    ) -> Result<T, ProblemResponse> {
        let ended = self.tasks.spawn(work).await;
        ended.unwrap_or_else(|error| {
            tracing::error!(%error, "the beginning of a command failed");
            Err(unavailable("the command could not be begun: see the poller's log"))
        })
    }

    async fn begin(self: &Arc<Self>, request: Request) -> Result<Begun, ProblemResponse> {
        let id = new_id().map_err(|error| {
            tracing::error!(%error, "no random numbers");
            unavailable("no random numbers for the command's id")
        })?;
        let body = request.order.body(&request.target, request.action).map_err(|error| {
            tracing::error!(%error, "a command could not be written as JSON");
            ProblemResponse::bad_request("body: it cannot be passed on")
        })?;
        let target = match self.allowed(&request) {
            Ok(target) => target,
            Err(problem) => {
                // What it is refused for now may not have been so the first time.
                let Request { caller, server, action, .. } = &request;
                let may = self.saw(caller, server) && caller.require_action(*action).is_ok();
                if let Some(before) = self.keyed(caller, request.key.as_ref(), may).await? {
                    return self.before(&request, &body, before).map(Begun::Before);
                }
                self.refuse(&id, &request, &problem).await;
                return Err(problem.on_record());
            }
        };
        let timeout = *self.timeout.read().unwrap_or_else(PoisonError::into_inner);
        let timeout = request.order.timeout(request.action, timeout);
        let status = request.queue.map_or(CommandStatus::Running, |_| CommandStatus::Queued);
        let mut new = record(&id, &request, status, None);
        new.body_hash = request.key.is_some().then(|| Order::hash(&body, &id).to_vec());
        let begins = new.requested_at.plus_millis(request.queue.map_or(0, millis));
        new.follow_until = Some(begins.plus_millis(millis(timeout)));
        if request.queue.is_some() {
            new.queued_until = Some(begins);
            new.body = Some(body.clone());
        }
        match self.store.insert_command(new.clone()).await {
            Ok(Inserted::New) => {}
            Ok(Inserted::Before(before)) => {
                return self.before(&request, &body, before).map(Begun::Before);
            }
            Err(error) => {
                self.metrics.store_errors.with_label_values(&[error.label()]).inc();
                tracing::error!(%error, "a command could not be put on record and was not sent");
                return Err(unavailable(
                    "the command could not be put on record, so it was not sent",
                ));
            }
        }
        tracing::info!(
            command = %id, server = %request.server, target = %request.target,
            action = %request.action, with = new.summary.as_deref().unwrap_or_default(), by = request.caller.name(), from = %request.address,
            "command"
        );
        let command = running(new);
        let done = match request.queue {
            Some(_) => self.enqueue(command.clone(), body),
            None => {
                let sending = Sending { target, order: request.order, body, timeout };
                self.start(command.clone(), sending)
            }
        };
        Ok(Begun::Now(Arc::new(command), done))
    }

    fn allowed(&self, request: &Request) -> Result<Arc<crate::config::Target>, ProblemResponse> {
        let Request { server, caller, .. } = request;
        let member = self.fleet.get(server).filter(|_| caller.may_see(server));
        let Some(member) = member else { return Err(unknown_server(server)) };
        caller.require_action(request.action)?;
        caller.require_variables(request.order.variables(request.action))?;
        if request.queue.is_some() {
            queue::keepable(&request.order, request.action)?;
            self.queue.has_room(server)?;
            return Ok(member.target);
        }
        let open = self.open();
        let under_way = open.values().filter(|open| !open.waits);
        let of_server = under_way.clone().filter(|open| open.server == *server).count();
        let in_all = under_way.count();
        if in_all >= MOST || of_server >= MOST_OF_SERVER {
            let detail = format!(
                "{of_server} commands of {server} and {in_all} in all are under way: try again \
                 later"
            );
            return Err(ProblemResponse::new(StatusCode::SERVICE_UNAVAILABLE, "busy", detail));
        }
        Ok(member.target)
    }

    /// A refusal is on record too. That it cannot be written changes nothing: nothing is sent.
    async fn refuse(&self, id: &CommandId, request: &Request, problem: &ProblemResponse) {
        let problem = problem.problem();
        let refusal = Some((problem.kind.clone(), problem.detail.clone()));
        let mut new = record(id, request, CommandStatus::Refused, refusal);
        // Nothing came of it, so the key is free for a better try.
        new.idempotency_key = None;
        self.metrics.commands.with_label_values(&["refused"]).inc();
        if !self.access.refusal_has_row(request.address) {
            return;
        }
        if let Err(error) = self.store.insert_command(new).await {
            tracing::error!(%error, "a refused command could not be put on record");
        }
    }

    /// Whether a server is nothing that is kept from the caller now. One that is gone has no group and no
    /// tags any more by which it could be.
    fn saw(&self, caller: &Caller, server: &ServerId) -> bool {
        caller.may_see(server) || self.fleet.get(server).is_none()
    }

    /// What a caller who may still ask for such a thing has used a key for.
    async fn keyed(
        &self,
        caller: &Caller,
        key: Option<&String>,
        may: bool,
    ) -> Result<Option<Keyed>, ProblemResponse> {
        let (true, Some(token), Some(key)) = (may, caller.token(), key) else { return Ok(None) };
        self.store.keyed(token, key.clone()).await.map_err(|error| {
            self.metrics.store_errors.with_label_values(&[error.label()]).inc();
            tracing::error!(%error, "it cannot be looked up what a key was used for");
            unavailable("what the Idempotency-Key was used for cannot be read, so nothing was sent")
        })
    }

    /// What a repeated key gives.
    fn before(
        &self,
        request: &Request,
        body: &[u8],
        before: Keyed,
    ) -> Result<Arc<StoredCommand>, ProblemResponse> {
        let before = match before {
            Keyed::Command(before) => *before,
            Keyed::Selection(before) => return Err(selection::key_of_another(&before)),
        };
        let same_body = match &before.body_hash {
            Some(hash) => hash[..] == Order::hash(body, &before.record.id),
            // Of a version whose commands took nothing.
            None => request.order == Order::default(),
        };
        let same_act = before.server == request.server
            && before.record.target == request.target
            && before.record.action == request.action;
        if !(same_act && same_body) {
            return Err(ProblemResponse::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "key_reused",
                format!(
                    "Idempotency-Key: was used for {} of {} on {}{}",
                    before.record.action,
                    before.record.target,
                    before.server,
                    if same_act { ", with another body" } else { "" }
                ),
            ));
        }
        if !before.record.status.is_final() {
            return Err(ProblemResponse::new(
                StatusCode::CONFLICT,
                "in_progress",
                format!(
                    "the command with this Idempotency-Key, {}, is under way",
                    before.record.id
                ),
            )
            .at(format!("/api/commands/{}", before.record.id)));
        }
        Ok(Arc::new(before))
    }

    fn start(self: &Arc<Self>, command: StoredCommand, sending: Sending) -> Ended {
        let (done, waiting) = watch::channel(None);
        let open = Open { server: command.server.clone(), done, waits: false };
        self.open().insert(command.record.id.clone(), open);
        self.metrics.commands_running.inc();
        let this = Arc::clone(self);
        self.tasks.spawn(async move {
            let Sending { target, order, body, timeout } = sending;
            let record = &command.record;
            let asked = (&record.id, &*record.requested_by);
            let mut outcome = run::run(&this.client, &target, asked, body, timeout).await;
            let errors = outcome.outcomes.iter_mut().map(|of| &mut of.error);
            for error in errors.chain([&mut outcome.error]).flatten() {
                *error = order.scrub(command.record.action, error);
            }
            this.metrics.commands_running.dec();
            this.close(command, outcome).await;
        });
        waiting
    }

    /// Waits for the commands under way, at most so long. Those left are settled at the next
    /// start.
    pub async fn drain(&self, within: Duration) {
        self.stopping.cancel();
        self.tasks.close();
        if tokio::time::timeout(within, self.tasks.wait()).await.is_err() {
            let count = self.open().values().filter(|open| !open.waits).count();
            tracing::warn!(count, "commands are left under way");
        }
    }
}

/// No server of that id, as far as the caller may know.
pub fn unknown_server(server: &ServerId) -> ProblemResponse {
    ProblemResponse::not_found(
        "unknown_server",
        format!("no server is called {:?}", server.as_str()),
    )
}

fn unavailable(detail: &str) -> ProblemResponse {
    ProblemResponse::new(StatusCode::SERVICE_UNAVAILABLE, "store_unavailable", detail)
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
