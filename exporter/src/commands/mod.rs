//! Commands by id: the same id runs once, whatever is retried; one change at a time.

mod arguments;
mod run;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout_at};
use wire::{
    AppName, CommandId, CommandRecord, CommandRequest, CommandStatus, Event, EventKind, Severity,
    Target, Time,
};

use crate::journal::Journal;
use crate::pm2::Home;
use run::Run;

pub use arguments::check_variables;

/// Commands that wait while one runs; one more is refused.
const QUEUE: usize = 16;
/// Ended commands that are remembered, so that a repeat finds its outcome.
const REMEMBERED: usize = 1_000;
/// Why a command was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// The queue is full.
    #[error("one command runs and {QUEUE} wait already: try again later")]
    Busy,
    /// The id names another command.
    #[error("command {0} was something else: an id names one command for good")]
    Reused(CommandId),
    /// No such app.
    #[error("PM2 has no app named {0:?}")]
    UnknownApp(AppName),
    /// An argument is wrong.
    #[error("{0}")]
    Argument(String),
    /// PM2 is not there to be asked.
    #[error("{0}")]
    Unavailable(String),
}

#[derive(Debug)]
struct Known {
    request: CommandRequest,
    record: watch::Sender<CommandRecord>,
}

#[derive(Debug, Default)]
struct Book {
    known: HashMap<CommandId, Arc<Known>>,
    order: VecDeque<CommandId>,
    open: usize,
}

/// See the module.
#[derive(Debug)]
pub struct Commands {
    home: Arc<Home>,
    journal: Arc<Journal>,
    book: Arc<Mutex<Book>>,
    /// One change at a time for a daemon: concurrent ones end in states nobody asked for.
    turn: Arc<Semaphore>,
}

impl Commands {
    /// None yet.
    pub fn new(home: Arc<Home>, journal: Arc<Journal>) -> Self {
        Self { home, journal, book: Arc::default(), turn: Arc::new(Semaphore::new(1)) }
    }

    /// The turn to change something of this daemon: slots take it as well.
    pub(crate) fn turn(&self) -> Arc<Semaphore> {
        Arc::clone(&self.turn)
    }

    /// What is known of a command.
    pub fn get(&self, id: &CommandId) -> Option<CommandRecord> {
        let book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        book.known.get(id).map(|known| known.record.borrow().clone())
    }

    /// Takes a command, unless its id was taken before, and waits at most `wait` for its end.
    /// `app` is the app that the request's target means.
    ///
    /// # Errors
    /// See [`NotTaken`].
    pub async fn put(
        &self,
        id: CommandId,
        request: CommandRequest,
        app: AppName,
        by: String,
        wait: Duration,
    ) -> Result<CommandRecord, NotTaken> {
        let mut record = self.take(id, request, app, by)?.record.subscribe();
        let ended = record.wait_for(|record| record.status.is_final());
        let _ = timeout_at(Instant::now() + wait, ended).await;
        Ok(record.borrow().clone())
    }

    fn take(
        &self,
        id: CommandId,
        request: CommandRequest,
        app: AppName,
        by: String,
    ) -> Result<Arc<Known>, NotTaken> {
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = book.known.get(&id) {
            if known.request != request {
                return Err(NotTaken::Reused(id));
            }
            return Ok(Arc::clone(known));
        }
        let task = arguments::task(&request).map_err(NotTaken::Argument)?;
        let state = self.home.state();
        if !state.up {
            return Err(NotTaken::Unavailable(state.error.unwrap_or_default()));
        }
        if self.home.table(|table| table.pm_ids(&app)).is_empty() {
            return Err(NotTaken::UnknownApp(app));
        }
        if book.open > QUEUE {
            return Err(NotTaken::Busy);
        }
        while book.order.len() >= REMEMBERED {
            let ended = |id: &CommandId| {
                book.known.get(id).is_none_or(|known| known.record.borrow().status.is_final())
            };
            let Some(at) = book.order.iter().position(ended) else { return Err(NotTaken::Busy) };
            if let Some(old) = book.order.remove(at) {
                book.known.remove(&old);
            }
        }
        let record = CommandRecord {
            id: id.clone(),
            target: request.target.clone(),
            action: request.action,
            status: CommandStatus::Queued,
            requested_by: by,
            requested_at: Time::now(),
            finished_at: None,
            error: None,
            reply: None,
            outcomes: Vec::new(),
            before: Vec::new(),
            after: Vec::new(),
        };
        let save = request.save;
        let known = Arc::new(Known { request, record: watch::channel(record).0 });
        book.known.insert(id.clone(), Arc::clone(&known));
        book.order.push_back(id);
        book.open += 1;
        drop(book);
        let home = Arc::clone(&self.home);
        let run = Run { home, known: Arc::clone(&known), app, task, save };
        let (turn, book) = (Arc::clone(&self.turn), Arc::clone(&self.book));
        let journal = Arc::clone(&self.journal);
        tokio::spawn(async move {
            let turn = turn.acquire_owned().await;
            run.known.record.send_modify(|record| record.status = CommandStatus::Running);
            run.run().await;
            drop(turn);
            book.lock().unwrap_or_else(PoisonError::into_inner).open -= 1;
            tell(&journal, &run.known.record.borrow());
        });
        Ok(known)
    }
}

fn tell(journal: &Journal, record: &CommandRecord) {
    let (severity, how) = match &record.error {
        None => (Severity::Info, "succeeded".to_owned()),
        Some(error) if record.status == CommandStatus::Succeeded => {
            (Severity::Warning, format!("succeeded, {error}"))
        }
        Some(error) => (Severity::Error, format!("failed: {error}")),
    };
    let message =
        format!("{} of {} by {} {how}", record.action, record.target, record.requested_by);
    let mut event = Event::new(EventKind::COMMAND, severity, message);
    if let Target::App(name) = &record.target {
        event.app = Some(name.clone());
    }
    event.details.insert("command_id".to_owned(), record.id.to_string());
    journal.event(Time::now(), event);
}
