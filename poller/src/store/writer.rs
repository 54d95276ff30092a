//! The one that writes: a task that owns the only writing connection. What is asked while a
//! commit is under way goes into the next one together, so that many polls share one wait for
//! the disk; each piece of work stands in a savepoint of its own, so that one that fails takes
//! nothing else with it.
//!
//! What something follows from, such as a command that is sent, is on the disk when it is answered
//! ([`Writer::run`]). What can be had again, samples, blocks made of them, the outcome of a command,
//! is written and not waited for ([`Writer::run_relaxed`]): it outlives the death of the program, and
//! when the machine loses its power, the last of it is gone, from some moment on, as if the poller
//! had been killed then. Whatever comes after it and is waited for takes it to the disk as well,
//! since SQLite's log is one sequence.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, RwLock};
use std::task::{Context, Poll};
use std::time::Duration;

use sqlx::Connection;
use sqlx::sqlite::SqliteConnection;
use tokio::sync::{OnceCell, broadcast, mpsc, oneshot, watch};
use tokio::time::Instant;
use wire::{Entry, Record};

use super::activity::{Activity, Counts};
use super::damage::mark_damaged;
use super::events::StoredEvent;
use super::heads::Heads;
use super::ingest::Ingest;
use super::{Result, StoreError};

mod commit;

use commit::{Durability, commit};
pub(super) use commit::{Transaction, Writing};

/// Pieces of work that may wait.
const QUEUE: usize = 1024;
/// Most pieces in one commit.
const BATCH: usize = 256;
/// Most that events wait for company: where a command brought them, its answer is mostly here by
/// then, and its outcome need not wait until they are on the disk.
const EVENTS: Duration = Duration::from_millis(10);
/// So many entries are not of one command, but what there was to catch up with.
const MANY: usize = 16;
/// How long one waits for a place in the queue.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) type Doing<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

/// A piece of work, and who waits for it.
trait Work: Send {
    fn run<'a>(&'a mut self, writing: &'a mut Writing) -> Doing<'a, ()>;
    fn done(self: Box<Self>, committed: Result<()>);
}

struct Call<F, T> {
    call: Option<F>,
    value: Option<T>,
    reply: oneshot::Sender<Result<T>>,
}

impl<F, T> Work for Call<F, T>
where
    T: Send,
    F: for<'a> FnOnce(&'a mut Writing) -> Doing<'a, T> + Send,
{
    fn run<'a>(&'a mut self, writing: &'a mut Writing) -> Doing<'a, ()> {
        Box::pin(async move {
            let Some(call) = self.call.take() else { return Err(StoreError::Closed) };
            self.value = Some(call(writing).await?);
            Ok(())
        })
    }

    fn done(self: Box<Self>, committed: Result<()>) {
        let Self { value, reply, .. } = *self;
        let value = committed.and_then(|()| value.ok_or(StoreError::Closed));
        // Who asked may have gone away; it is written all the same.
        let _ = reply.send(value);
    }
}

/// How far each server is taken in, shared with those who read.
pub(super) type SharedHeads = Arc<OnceCell<RwLock<Heads>>>;

enum Job {
    Work(Box<dyn Work>, Durability),
    Ingest(Box<Ingest>, oneshot::Sender<Result<Vec<StoredEvent>>>),
}

impl Job {
    /// How long it may wait for company. Only where that keeps nobody from much: a sample alone, a
    /// few events.
    fn patience(&self) -> Duration {
        match self {
            Self::Ingest(ingest, _) if tells(ingest) && ingest.entries.len() <= MANY => {
                ingest.patience.min(EVENTS)
            }
            Self::Ingest(ingest, _) if ingest.entries.len() <= 1 => ingest.patience,
            Self::Ingest(..) | Self::Work(..) => Duration::ZERO,
        }
    }

    /// Whether there is something to write in more than one statement.
    fn needs_transaction(&self) -> bool {
        match self {
            Self::Work(..) => true,
            Self::Ingest(ingest, _) => tells(ingest),
        }
    }

    /// Samples are asked for again, from where the server is taken in. Who heard of an event has
    /// its number, which no other may have afterwards.
    fn durability(&self) -> Durability {
        match self {
            Self::Work(_, durability) => *durability,
            Self::Ingest(ingest, _) if tells(ingest) => Durability::Durable,
            Self::Ingest(..) => Durability::Relaxed,
        }
    }
}

/// Whether there are events in it.
fn tells(ingest: &Ingest) -> bool {
    let event = |entry: &Entry| matches!(entry.record, Record::Event(_));
    !ingest.told.is_empty() || ingest.entries.iter().any(event)
}

/// Something that is being taken in, whether or not anybody waits for it. Gives the events as stored.
#[derive(Debug)]
pub struct Ingesting(oneshot::Receiver<Result<Vec<StoredEvent>>>);

impl Future for Ingesting {
    type Output = Result<Vec<StoredEvent>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let ended = Pin::new(&mut self.0).poll(context);
        ended.map(|answer| answer.unwrap_or(Err(StoreError::Closed)))
    }
}

enum Message {
    Job(Job),
    Close,
}

/// Hands work to the writer.
#[derive(Clone, Debug)]
pub(super) struct Writer {
    queue: mpsc::Sender<Message>,
    running: watch::Receiver<()>,
    counts: Arc<Counts>,
    #[cfg(test)]
    task: tokio::task::AbortHandle,
}

impl Writer {
    pub(super) fn start(
        connection: SqliteConnection,
        heads: SharedHeads,
        path: PathBuf,
        events: broadcast::Sender<Arc<StoredEvent>>,
    ) -> Self {
        let (queue, receiver) = mpsc::channel(QUEUE);
        let (alive, running) = watch::channel(());
        let writing = Writing::new(connection, heads);
        let counts = Arc::new(Counts::default());
        let counted = Arc::clone(&counts);
        let _task = tokio::spawn(async move {
            write_all(writing, receiver, &path, &events, &counted).await;
            drop(alive);
        });
        Self {
            queue,
            running,
            counts,
            #[cfg(test)]
            task: _task.abort_handle(),
        }
    }

    /// Ends in the middle of whatever is under way, as by `kill -9`.
    #[cfg(test)]
    pub(super) fn kill(&self) {
        self.task.abort();
    }

    /// Does `call` in a transaction and gives its value once that is committed and on the disk.
    pub(super) async fn run<T, F>(&self, call: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'a> FnOnce(&'a mut Writing) -> Doing<'a, T> + Send + 'static,
    {
        self.work(call, Durability::Durable).await
    }

    /// Does `call` as [`Self::run`] does, but gives its value as soon as that is committed: a loss
    /// of power may take it away.
    pub(super) async fn run_relaxed<T, F>(&self, call: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'a> FnOnce(&'a mut Writing) -> Doing<'a, T> + Send + 'static,
    {
        self.work(call, Durability::Relaxed).await
    }

    async fn work<T, F>(&self, call: F, durability: Durability) -> Result<T>
    where
        T: Send + 'static,
        F: for<'a> FnOnce(&'a mut Writing) -> Doing<'a, T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let work = Box::new(Call { call: Some(call), value: None, reply });
        self.send(Job::Work(work, durability)).await?;
        answer.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Takes in what a server said, together with others.
    pub(super) async fn ingest(&self, ingest: Ingest) -> Result<Ingesting> {
        let (reply, answer) = oneshot::channel();
        self.send(Job::Ingest(Box::new(ingest), reply)).await?;
        Ok(Ingesting(answer))
    }

    async fn send(&self, job: Job) -> Result<()> {
        let sent = self.queue.send_timeout(Message::Job(job), PATIENCE).await;
        sent.map_err(|error| match error {
            mpsc::error::SendTimeoutError::Timeout(_) => StoreError::Busy,
            mpsc::error::SendTimeoutError::Closed(_) => StoreError::Closed,
        })
    }

    /// What it has to do, and did.
    pub(super) fn activity(&self) -> Activity {
        self.counts.now(self.queue.max_capacity() - self.queue.capacity())
    }

    pub(super) async fn close(&self) {
        let _ = self.queue.send(Message::Close).await;
        self.ended().await;
    }

    pub(super) async fn ended(&self) {
        let mut running = self.running.clone();
        while running.changed().await.is_ok() {}
    }
}

async fn write_all(
    mut writing: Writing,
    mut queue: mpsc::Receiver<Message>,
    path: &Path,
    events: &broadcast::Sender<Arc<StoredEvent>>,
    counts: &Counts,
) {
    let mut closing = false;
    while !closing {
        let mut batch = Vec::new();
        let mut next = queue.recv().await;
        // Polls of other servers are mostly about to come; one commit does for all of them.
        let mut end: Option<Instant> = None;
        loop {
            match next {
                Some(Message::Job(job)) => {
                    let patience = Instant::now() + job.patience();
                    end = Some(end.map_or(patience, |end| end.min(patience)));
                    batch.push(job);
                }
                Some(Message::Close) | None => closing = true,
            }
            if closing || batch.len() == BATCH {
                break;
            }
            next = match queue.try_recv() {
                Ok(message) => Some(message),
                Err(_) => match end.filter(|end| *end > Instant::now()) {
                    None => break,
                    Some(end) => match tokio::time::timeout_at(end, queue.recv()).await {
                        Ok(message) => message,
                        Err(_) => break,
                    },
                },
            };
        }
        #[cfg(test)]
        let _holding = crate::simulation::world::hold();
        for part in commits(batch) {
            let (pieces, begun) = (part.len(), Instant::now());
            let ended = commit(&mut writing, part, events).await;
            counts.add(pieces, begun.elapsed(), ended.is_ok());
            if let Err(StoreError::Corrupt(damage)) = ended {
                // The program ends with its writer, and begins anew with another database.
                tracing::error!(damage, "the database is damaged");
                mark_damaged(path);
                return;
            }
        }
    }
    if let Err(error) = writing.connection.close().await {
        tracing::warn!(%error, "the database was not closed cleanly");
    }
}

/// The commits that a batch becomes: work that waits for no disk is not made to wait for one by
/// what came with it, such as the outcome of a command by the events that tell of it.
fn commits(batch: Vec<Job>) -> impl Iterator<Item = Vec<Job>> {
    let waits = batch.iter().any(|job| job.durability() == Durability::Durable);
    let goes_first = |job: &Job| waits && matches!(job, Job::Work(_, Durability::Relaxed));
    let (first, rest) = batch.into_iter().partition(goes_first);
    [first, rest].into_iter().filter(|part: &Vec<Job>| !part.is_empty())
}
