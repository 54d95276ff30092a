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
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection, query};
use tokio::sync::{OnceCell, broadcast, mpsc, oneshot, watch};
use tokio::time::Instant;
use wire::{Entry, Record};

use super::activity::{Activity, Counts};
use super::backup::mark_damaged;
use super::events::StoredEvent;
use super::heads::Heads;
use super::ingest::{Ingest, Staged, take_in};
use super::names::Names;
use super::{Result, StoreError, audit};

/// Pieces of work that may wait.
const QUEUE: usize = 1024;
/// Most pieces in one commit.
const BATCH: usize = 256;
const BEGIN: &str = "BEGIN IMMEDIATE";
/// How long one waits for a place in the queue.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a piece of work writes with.
#[derive(Debug)]
pub(super) struct Writing {
    pub(super) connection: SqliteConnection,
    /// How far each server is taken in; read when it is needed first.
    pub(super) heads: SharedHeads,
    /// What is known of the names in the database.
    pub(super) names: Names,
    /// Where the audit ended when something was added last.
    pub(super) audit_end: Option<audit::End>,
    /// A transaction is under way.
    begun: bool,
    /// What a commit waits for.
    durability: Durability,
}

/// What is waited for before a commit is answered: SQLite's `synchronous`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Durability {
    /// `NORMAL`: it is in the system's memory.
    Relaxed,
    /// `FULL`: it is on the disk.
    Durable,
}

/// The writing connection. A transaction begins with the first thing that is written: samples
/// alone become one statement, which needs none, and so one answer of SQLite's thread and not
/// three.
pub(super) struct Transaction<'a> {
    connection: &'a mut SqliteConnection,
    begun: &'a mut bool,
}

impl Writing {
    /// Its parts.
    pub(super) fn parts(&mut self) -> (Transaction<'_>, &mut Names, &SharedHeads) {
        let Self { connection, heads, names, begun, .. } = self;
        (Transaction { connection, begun }, names, heads)
    }

    /// Says what the commit to come waits for, and begins it where it is sure that something will be
    /// written: in one statement, for each costs two changes of threads.
    async fn prepare(&mut self, durability: Durability, begin: bool) -> Result<()> {
        let sql = match (durability == self.durability, durability, begin) {
            (true, _, false) => return Ok(()),
            (true, _, true) => BEGIN,
            (_, Durability::Relaxed, false) => "PRAGMA synchronous = NORMAL",
            (_, Durability::Relaxed, true) => "PRAGMA synchronous = NORMAL; BEGIN IMMEDIATE",
            (_, Durability::Durable, false) => "PRAGMA synchronous = FULL",
            (_, Durability::Durable, true) => "PRAGMA synchronous = FULL; BEGIN IMMEDIATE",
        };
        query(sql).execute(&mut self.connection).await?;
        (self.durability, self.begun) = (durability, begin);
        Ok(())
    }

    /// What is remembered may have been undone, or changed.
    pub(super) fn forget(&mut self) {
        self.names.clear();
        self.audit_end = None;
    }
}

impl Transaction<'_> {
    /// For reading.
    pub(super) fn read(&mut self) -> &mut SqliteConnection {
        self.connection
    }

    /// For writing, with all that is written in this commit.
    ///
    /// # Errors
    /// It does not begin.
    pub(super) async fn write(&mut self) -> Result<&mut SqliteConnection> {
        if !*self.begun {
            query(BEGIN).execute(&mut *self.connection).await?;
            *self.begun = true;
        }
        Ok(self.connection)
    }

    async fn end(self, good: bool) -> Result<()> {
        if !*self.begun {
            return Ok(());
        }
        let sql = if good { "COMMIT" } else { "ROLLBACK" };
        let ended = query(sql).execute(self.connection).await;
        // What cannot be committed has to be rolled back; what cannot be rolled back already is.
        *self.begun = good && ended.is_err();
        ended?;
        Ok(())
    }
}

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
    /// How long it may wait for company. Only where that keeps nobody from anything: a sample
    /// alone.
    fn patience(&self) -> Duration {
        match self {
            Self::Ingest(ingest, _) if ingest.entries.len() <= 1 && !tells(ingest) => {
                ingest.patience
            }
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
        let writing = Writing {
            connection,
            heads,
            names: Names::default(),
            audit_end: None,
            begun: false,
            durability: Durability::Durable,
        };
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
    pub(super) async fn ingest(&self, ingest: Ingest) -> Result<Vec<StoredEvent>> {
        let (reply, answer) = oneshot::channel();
        self.send(Job::Ingest(Box::new(ingest), reply)).await?;
        answer.await.unwrap_or(Err(StoreError::Closed))
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
        for part in parts(batch) {
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
fn parts(batch: Vec<Job>) -> impl Iterator<Item = Vec<Job>> {
    let relaxed = |job: &Job| matches!(job, Job::Work(_, Durability::Relaxed));
    let (first, rest) = batch.into_iter().partition(relaxed);
    [first, rest].into_iter().filter(|part: &Vec<Job>| !part.is_empty())
}

/// What waits for the end of the commit, and how it went so far.
enum Waiting {
    Work(Box<dyn Work>, Result<()>),
    Ingest(oneshot::Sender<Result<Vec<StoredEvent>>>, Result<Vec<StoredEvent>>),
}

async fn commit(
    writing: &mut Writing,
    batch: Vec<Job>,
    events: &broadcast::Sender<Arc<StoredEvent>>,
) -> Result<()> {
    let mut waiting: Vec<Waiting> = Vec::with_capacity(batch.len());
    let mut staged = Staged::default();
    let durability = batch.iter().map(Job::durability).max().unwrap_or(Durability::Durable);
    let begin = batch.iter().any(Job::needs_transaction);
    let alone = batch.len() == 1;
    let mut whole = match writing.prepare(durability, begin).await {
        Ok(()) => next_row(writing).await,
        Err(error) => Err(error),
    };
    let first_row = whole.as_ref().copied().unwrap_or_default();
    for job in batch {
        match job {
            Job::Work(mut work, _) => {
                let result = match &whole {
                    Ok(_) => match step(writing, work.as_mut(), alone).await {
                        Step::Ended(result) => result,
                        Step::Lost(error) => {
                            whole = Err(error.clone());
                            Err(error)
                        }
                    },
                    Err(error) => Err(error.clone()),
                };
                waiting.push(Waiting::Work(work, result));
            }
            Job::Ingest(ingest, reply) => {
                let result = match &whole {
                    Ok(_) => take_in(writing, &mut staged, first_row, *ingest).await,
                    Err(error) => Err(error.clone()),
                };
                match &result {
                    Ok(_) | Err(StoreError::Moved | StoreError::TooMany(_)) => {}
                    Err(error) if whole.is_ok() => whole = Err(error.clone()),
                    Err(_) => {}
                }
                waiting.push(Waiting::Ingest(reply, result));
            }
        }
    }
    let ended = match whole {
        Ok(_) => end(writing, &mut staged, first_row).await,
        Err(error) => Err(error),
    };
    match &ended {
        Ok(()) => {
            if let Some(heads) = writing.heads.get() {
                staged.apply(&mut heads.write().unwrap_or_else(PoisonError::into_inner));
            }
        }
        Err(error) => {
            tracing::warn!(%error, "nothing was written");
            // It fails when SQLite has rolled back by itself, as on a full disk.
            let _ = writing.parts().0.end(false).await;
            writing.forget();
        }
    }
    for it in waiting {
        match it {
            Waiting::Work(work, result) => work.done(ended.clone().and(result)),
            Waiting::Ingest(reply, result) => {
                let result = ended.clone().and(result);
                // Told here, and not by whoever asked: so they come in the order of their
                // numbers, which is what a reader that takes up where it stood relies on.
                for event in result.iter().flatten() {
                    let _ = events.send(Arc::new(event.clone()));
                }
                // Who asked may have gone away; it is written all the same.
                drop(reply.send(result));
            }
        }
    }
    ended
}

async fn end(writing: &mut Writing, staged: &mut Staged, first_row: i64) -> Result<()> {
    let (mut transaction, ..) = writing.parts();
    staged.write(&mut transaction, first_row).await?;
    transaction.end(true).await
}

/// The number of the next recent row.
async fn next_row(writing: &mut Writing) -> Result<i64> {
    let Writing { connection, heads, .. } = writing;
    let heads = heads
        .get_or_try_init(async || Ok::<_, StoreError>(RwLock::new(Heads::read(connection).await?)))
        .await?;
    Ok(heads.read().unwrap_or_else(PoisonError::into_inner).next_row)
}

enum Step {
    /// Done, or undone alone.
    Ended(Result<()>),
    /// The transaction is gone with all that was in it.
    Lost(StoreError),
}

/// Does a piece of work, in a savepoint unless it is alone in its transaction.
async fn step(writing: &mut Writing, work: &mut dyn Work, alone: bool) -> Step {
    if alone {
        let result = work.run(writing).await;
        if result.is_err() {
            writing.forget();
            if let Err(error) = writing.parts().0.end(false).await {
                return Step::Lost(result.err().unwrap_or(error));
            }
        }
        return Step::Ended(result);
    }
    let begun = async {
        let (mut transaction, ..) = writing.parts();
        query("SAVEPOINT step").execute(transaction.write().await?).await?;
        Ok::<(), StoreError>(())
    };
    if let Err(error) = begun.await {
        return Step::Lost(error);
    }
    let result = work.run(writing).await;
    if result.is_err() {
        writing.forget();
        if let Err(error) = query("ROLLBACK TO step").execute(&mut writing.connection).await {
            return Step::Lost(result.err().unwrap_or_else(|| error.into()));
        }
    }
    match query("RELEASE step").execute(&mut writing.connection).await {
        Ok(_) => Step::Ended(result),
        Err(error) => Step::Lost(error.into()),
    }
}
