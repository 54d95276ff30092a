//! Commands by id: the same id runs once, whatever is retried; one change at a time.

mod arguments;
mod memory;
mod run;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use service::shutdown::Shutdown;
use tokio::time::{Instant, sleep};
use wire::{
    AppName, CommandId, CommandRecord, CommandRequest, CommandStatus, Event, EventKind, Severity,
    Target, Time,
};

use crate::journal::Journal;
use crate::pm2::{Home, Homes, NoHome};
use run::Run;

pub use arguments::check_variables;
pub(crate) use memory::{Asked, Known, Memory};

/// Commands that wait while one runs; one more is refused.
const QUEUE: usize = 16;

/// Why a command was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// The queue is full.
    #[error("one command runs and {QUEUE} wait already: try again later")]
    Busy,
    /// The id names another command.
    #[error("command {0} was something else: an id names one command for good")]
    Reused(CommandId),
    /// An argument is wrong.
    #[error("{0}")]
    Argument(String),
    /// There is no PM2 that has such an app and can be asked.
    #[error(transparent)]
    NoHome(#[from] NoHome),
}

#[derive(Debug, Default)]
struct Book {
    memory: Memory,
    /// Commands that run or wait, for each PM2.
    open: HashMap<PathBuf, usize>,
}

/// See the module.
#[derive(Debug)]
pub struct Commands {
    homes: Arc<Homes>,
    journal: Arc<Journal>,
    shutdown: Shutdown,
    book: Arc<Mutex<Book>>,
}

impl Commands {
    /// None yet.
    pub fn new(homes: Arc<Homes>, journal: Arc<Journal>, shutdown: Shutdown) -> Self {
        Self { homes, journal, shutdown, book: Arc::default() }
    }

    /// Waits until none is under way, but no longer than `wait`: each ends after the instance that it is
    /// at, with an outcome.
    pub async fn idle(&self, wait: Duration) {
        let is_idle = || {
            let book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
            book.open.values().all(|open| *open == 0)
        };
        let until = Instant::now() + wait;
        while !is_idle() && Instant::now() < until {
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// The PM2 that a command is for.
    fn home_of(&self, request: &CommandRequest, app: &AppName) -> Result<&Arc<Home>, NoHome> {
        match (&request.target, request.pm2_home.as_deref()) {
            // Slots are the first one's.
            (Target::Slot(_), None) => {
                let first = self.homes.first();
                self.homes.of_app(app, first.path().to_str())
            }
            (_, wanted) => self.homes.of_app(app, wanted),
        }
    }

    /// The same, if it answers.
    fn up_home_of(&self, request: &CommandRequest, app: &AppName) -> Result<Arc<Home>, NoHome> {
        let home = self.home_of(request, app)?;
        let state = home.state();
        match state.error.filter(|_| !state.up) {
            Some(error) => Err(NoHome::Unavailable(error)),
            None => Ok(Arc::clone(home)),
        }
    }

    /// Gives a PM2 that is there time to answer: a moment's silence refuses no command.
    async fn hear(&self, request: &CommandRequest, app: &AppName) {
        if let Ok(home) = self.home_of(request, app)
            && !home.state().up
            && home.rpc().is_ok()
        {
            // One that says nothing is refused as one that does not answer.
            let _ = home.refresh().await;
        }
    }

    /// What is known of a command.
    pub fn get(&self, id: &CommandId) -> Option<CommandRecord> {
        let book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        book.memory.get(id).map(|known| known.record.borrow().clone())
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
        if self.get(&id).is_none() {
            self.hear(&request, &app).await;
        }
        Ok(self.take(id, request, app, by)?.ended(wait).await)
    }

    fn take(
        &self,
        id: CommandId,
        request: CommandRequest,
        app: AppName,
        by: String,
    ) -> Result<Arc<Known>, NotTaken> {
        let asked = Asked::of(&request).map_err(|error| NotTaken::Argument(error.to_string()))?;
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = book.memory.get(&id) {
            if known.asked != asked {
                return Err(NotTaken::Reused(id));
            }
            return Ok(Arc::clone(known));
        }
        let task = arguments::task(&request).map_err(NotTaken::Argument)?;
        let home = self.up_home_of(&request, &app)?;
        if book.open.get(home.path()).is_some_and(|open| *open > QUEUE) {
            return Err(NotTaken::Busy);
        }
        if !book.memory.make_room() {
            return Err(NotTaken::Busy);
        }
        let (target, action, save) = (request.target.clone(), request.action, request.save);
        let mut record = CommandRecord::queued(id, target, action, by, Time::now());
        record.pm2_home = home.label().map(Into::into);
        let known = book.memory.insert(asked, record);
        *book.open.entry(home.path().to_owned()).or_default() += 1;
        drop(book);
        let (turn, path) = (home.turn(), home.path().to_owned());
        let shutdown = self.shutdown.clone();
        let run = Run { home, known: Arc::clone(&known), app, task, save, shutdown };
        let book = Arc::clone(&self.book);
        let journal = Arc::clone(&self.journal);
        tokio::spawn(async move {
            let turn = turn.acquire_owned().await;
            run.known.record.send_modify(|record| record.status = CommandStatus::Running);
            run.run().await;
            drop(turn);
            tell(&journal, &run.known.record.borrow());
            let mut book = book.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(open) = book.open.get_mut(&path) {
                *open -= 1;
            }
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
    event.pm2_home.clone_from(&record.pm2_home);
    event.tell_end(&record.id, record.status);
    journal.event(Time::now(), event);
}
