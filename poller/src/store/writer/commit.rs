//! One commit: the connection and what is remembered of the database, its transaction, and the
//! pieces of work in it.

use std::sync::{Arc, PoisonError, RwLock};

use sqlx::query;
use sqlx::sqlite::SqliteConnection;
use tokio::sync::{broadcast, oneshot};

use super::{Job, SharedHeads, Work};
use crate::store::events::StoredEvent;
use crate::store::heads::Heads;
use crate::store::ingest::{Staged, take_in};
use crate::store::names::Names;
use crate::store::{Result, StoreError, audit};

const BEGIN: &str = "BEGIN IMMEDIATE";

/// What a piece of work writes with.
#[derive(Debug)]
pub(in crate::store) struct Writing {
    pub(in crate::store) connection: SqliteConnection,
    /// How far each server is taken in; read when it is needed first.
    pub(in crate::store) heads: SharedHeads,
    /// What is known of the names in the database.
    pub(in crate::store) names: Names,
    /// Where the audit ended when something was added last.
    pub(in crate::store) audit_end: Option<audit::End>,
    /// A transaction is under way.
    begun: bool,
    /// What a commit waits for, where that is known.
    durability: Option<Durability>,
}

/// What is waited for before a commit is answered: SQLite's `synchronous`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Durability {
    /// `NORMAL`: it is in the system's memory.
    Relaxed,
    /// `FULL`: it is on the disk.
    Durable,
}

/// The writing connection. A transaction begins with the first thing that is written: samples
/// alone become one statement, which needs none, and so one answer of SQLite's thread and not
/// three.
pub(in crate::store) struct Transaction<'a> {
    connection: &'a mut SqliteConnection,
    begun: &'a mut bool,
}

impl Writing {
    /// With nothing under way.
    pub(super) fn new(connection: SqliteConnection, heads: SharedHeads) -> Self {
        let (names, audit_end, begun, durability) = (Names::default(), None, false, None);
        Self { connection, heads, names, audit_end, begun, durability }
    }

    /// Its parts.
    pub(in crate::store) fn parts(&mut self) -> (Transaction<'_>, &mut Names, &SharedHeads) {
        let Self { connection, heads, names, begun, .. } = self;
        (Transaction { connection, begun }, names, heads)
    }

    /// Says what the commit to come waits for, and begins it where it is sure that something will be
    /// written: in one statement, for each costs two changes of threads.
    async fn prepare(&mut self, durability: Durability, begin: bool) -> Result<()> {
        let sql = match (self.durability == Some(durability), durability, begin) {
            (true, _, false) => return Ok(()),
            (true, _, true) => BEGIN,
            (_, Durability::Relaxed, false) => "PRAGMA synchronous = NORMAL",
            (_, Durability::Relaxed, true) => "PRAGMA synchronous = NORMAL; BEGIN IMMEDIATE",
            (_, Durability::Durable, false) => "PRAGMA synchronous = FULL",
            (_, Durability::Durable, true) => "PRAGMA synchronous = FULL; BEGIN IMMEDIATE",
        };
        // Where only the second of the two fails, the first was done.
        self.durability = None;
        query(sql).execute(&mut self.connection).await?;
        (self.durability, self.begun) = (Some(durability), begin);
        Ok(())
    }

    /// What is remembered may have been undone, or changed.
    pub(in crate::store) fn forget(&mut self) {
        self.names.clear();
        self.audit_end = None;
    }
}

impl Transaction<'_> {
    /// For reading.
    pub(in crate::store) fn read(&mut self) -> &mut SqliteConnection {
        self.connection
    }

    /// For writing, with all that is written in this commit.
    ///
    /// # Errors
    /// It does not begin.
    pub(in crate::store) async fn write(&mut self) -> Result<&mut SqliteConnection> {
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

/// What waits for the end of the commit, and how it went so far.
enum Waiting {
    Work(Box<dyn Work>, Result<()>),
    Ingest(oneshot::Sender<Result<Vec<StoredEvent>>>, Result<Vec<StoredEvent>>),
}

/// Does all of a batch in one transaction, and tells everybody how it ended.
///
/// # Errors
/// Nothing of it is written.
pub(super) async fn commit(
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
