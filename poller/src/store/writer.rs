//! The one that writes: a task that owns the only writing connection. What is asked while a
//! commit is under way goes into the next one together, so that many polls share one wait for
//! the disk; each piece of work stands in a savepoint of its own, so that one that fails takes
//! nothing else with it.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection, query};
use tokio::sync::{mpsc, oneshot, watch};

use super::names::Names;
use super::{Result, StoreError};

/// Pieces of work that may wait.
const QUEUE: usize = 1024;
/// Most pieces in one commit.
const BATCH: usize = 128;
/// How long one waits for a place in the queue.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a piece of work writes with.
#[derive(Debug)]
pub(super) struct Writing {
    pub(super) connection: SqliteConnection,
    /// What is known of the names in the database; emptied whenever something was undone.
    pub(super) names: Names,
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

enum Message {
    Work(Box<dyn Work>),
    Close,
}

/// Hands work to the writer.
#[derive(Clone, Debug)]
pub(super) struct Writer {
    queue: mpsc::Sender<Message>,
    running: watch::Receiver<()>,
}

impl Writer {
    pub(super) fn start(connection: SqliteConnection) -> Self {
        let (queue, receiver) = mpsc::channel(QUEUE);
        let (alive, running) = watch::channel(());
        let writing = Writing { connection, names: Names::default() };
        tokio::spawn(async move {
            write_all(writing, receiver).await;
            drop(alive);
        });
        Self { queue, running }
    }

    /// Does `call` in a transaction and gives its value once that is committed and on the disk.
    pub(super) async fn run<T, F>(&self, call: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'a> FnOnce(&'a mut Writing) -> Doing<'a, T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let work = Message::Work(Box::new(Call { call: Some(call), value: None, reply }));
        self.queue.send_timeout(work, PATIENCE).await.map_err(|error| match error {
            mpsc::error::SendTimeoutError::Timeout(_) => StoreError::Busy,
            mpsc::error::SendTimeoutError::Closed(_) => StoreError::Closed,
        })?;
        answer.await.unwrap_or(Err(StoreError::Closed))
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

async fn write_all(mut writing: Writing, mut queue: mpsc::Receiver<Message>) {
    let mut closing = false;
    while !closing {
        let mut batch = Vec::new();
        let mut next = queue.recv().await;
        loop {
            match next {
                Some(Message::Work(work)) => batch.push(work),
                Some(Message::Close) | None => closing = true,
            }
            if closing || batch.len() == BATCH {
                break;
            }
            match queue.try_recv() {
                Ok(message) => next = Some(message),
                Err(_) => break,
            }
        }
        if !batch.is_empty() {
            commit(&mut writing, batch).await;
        }
    }
    if let Err(error) = writing.connection.close().await {
        tracing::warn!(%error, "the database was not closed cleanly");
    }
}

async fn commit(writing: &mut Writing, batch: Vec<Box<dyn Work>>) {
    let mut ended: Vec<(Box<dyn Work>, Result<()>)> = Vec::with_capacity(batch.len());
    let mut whole = begin(writing).await;
    for mut work in batch {
        let result = match &whole {
            Ok(()) => match step(writing, work.as_mut()).await {
                Step::Ended(result) => result,
                Step::Lost(error) => {
                    whole = Err(error.clone());
                    Err(error)
                }
            },
            Err(error) => Err(error.clone()),
        };
        ended.push((work, result));
    }
    if whole.is_ok() {
        whole =
            query("COMMIT").execute(&mut writing.connection).await.map(|_| ()).map_err(Into::into);
    }
    if let Err(error) = &whole {
        tracing::warn!(%error, "nothing was written");
        // It fails when SQLite has rolled back by itself, as on a full disk.
        let _ = query("ROLLBACK").execute(&mut writing.connection).await;
        writing.names.clear();
    }
    for (work, result) in ended {
        work.done(whole.clone().and(result));
    }
}

async fn begin(writing: &mut Writing) -> Result<()> {
    query("BEGIN IMMEDIATE").execute(&mut writing.connection).await?;
    Ok(())
}

enum Step {
    /// Done, or undone alone.
    Ended(Result<()>),
    /// The transaction is gone with all that was in it.
    Lost(StoreError),
}

async fn step(writing: &mut Writing, work: &mut dyn Work) -> Step {
    if let Err(error) = query("SAVEPOINT step").execute(&mut writing.connection).await {
        return Step::Lost(error.into());
    }
    let result = work.run(writing).await;
    if result.is_err() {
        writing.names.clear();
        if let Err(error) = query("ROLLBACK TO step").execute(&mut writing.connection).await {
            return Step::Lost(result.err().unwrap_or_else(|| error.into()));
        }
    }
    match query("RELEASE step").execute(&mut writing.connection).await {
        Ok(_) => Step::Ended(result),
        Err(error) => Step::Lost(error.into()),
    }
}
