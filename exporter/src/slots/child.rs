//! Programs that are run for a deployment: without a shell, in a process group of their own,
//! with a deadline, with their output in the deployment's log.

use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group, test_kill_process_group};
use service::shutdown::Shutdown;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::env::Env;
use super::log::Log;

/// The variable that marks everything that is run for a slot, so that what a program left
/// behind in another process group is found.
const MARK: &str = "PM2_EXPORTER_TASK";

/// A program to be run.
#[derive(Clone, Copy, Debug)]
pub struct Task<'a> {
    /// The program.
    pub program: &'a Path,
    /// Its arguments.
    pub args: &'a [String],
    /// Its folder.
    pub cwd: &'a Path,
    /// Its whole environment.
    pub env: &'a Env,
    /// What it is marked with: the slot's own text.
    pub mark: &'a str,
    /// How long it may take to end after SIGTERM.
    pub grace: Duration,
}

/// Why a program did not do what it was run for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TaskError {
    /// It cannot be run.
    #[error("{0} cannot be run: {1}")]
    Spawn(String, String),
    /// It said that it failed.
    #[error("{0} {1}")]
    Exit(String, String),
    /// It took too long.
    #[error("{0} was ended: the time allowed was over")]
    Late(String),
    /// The exporter is being stopped.
    #[error("{0} was ended: the exporter stops")]
    Stopped(String),
}

/// A program that runs.
#[derive(Debug)]
pub struct Started {
    name: String,
    child: Child,
    group: Option<Pid>,
    mark: String,
    grace: Duration,
    readers: Vec<JoinHandle<()>>,
}

impl Task<'_> {
    /// Starts it.
    ///
    /// # Errors
    /// [`TaskError::Spawn`].
    pub fn start(&self, log: &Log) -> Result<Started, TaskError> {
        let name = self.program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut child = Command::new(self.program)
            .args(self.args)
            .current_dir(self.cwd)
            .env_clear()
            .envs(self.env)
            .env(MARK, self.mark)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| TaskError::Spawn(name.clone(), error.to_string()))?;
        let group = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        let mut readers = Vec::new();
        readers.extend(child.stdout.take().map(|pipe| tokio::spawn(copy(pipe, log.clone()))));
        readers.extend(child.stderr.take().map(|pipe| tokio::spawn(copy(pipe, log.clone()))));
        Ok(Started { name, child, group, mark: self.mark.to_owned(), grace: self.grace, readers })
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// See [`TaskError`].
    pub async fn run(
        &self,
        log: &Log,
        deadline: Instant,
        shutdown: &Shutdown,
    ) -> Result<(), TaskError> {
        let mut started = self.start(log)?;
        let name = started.name.clone();
        let status = tokio::select! {
            status = started.child.wait() => Ok(status),
            () = tokio::time::sleep_until(deadline) => Err(TaskError::Late(name.clone())),
            () = shutdown.drain.cancelled() => Err(TaskError::Stopped(name.clone())),
        };
        // Whatever it left in the background ends with it.
        started.end().await;
        match status? {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(TaskError::Exit(name, in_words(status))),
            Err(error) => Err(TaskError::Exit(name, format!("was lost: {error}"))),
        }
    }
}

impl Started {
    /// Its process number, as long as it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<String> {
        self.child.try_wait().ok().flatten().map(in_words)
    }

    /// Ends it and all that it started: SIGTERM, then SIGKILL.
    pub async fn end(&mut self) {
        if let Some(group) = self.group {
            let _ = kill_process_group(group, Signal::TERM);
            let until = Instant::now() + self.grace;
            loop {
                let _ = self.child.try_wait();
                let gone = test_kill_process_group(group).is_err();
                if gone || Instant::now() >= until {
                    break;
                }
                sleep(Duration::from_millis(10)).await;
            }
            let _ = kill_process_group(group, Signal::KILL);
        }
        end_marked(&self.mark);
        let _ = timeout(Duration::from_secs(2), self.child.wait()).await;
        for reader in self.readers.drain(..) {
            let abort = reader.abort_handle();
            if timeout(Duration::from_secs(1), reader).await.is_err() {
                abort.abort();
            }
        }
    }
}

/// Kills everything that carries the mark, outside of any process group we know.
pub fn end_marked(mark: &str) {
    let own = std::process::id();
    for pid in super::port::all_pids() {
        if pid != own
            && is_marked(pid, mark)
            && let Some(pid) = Pid::from_raw(pid.cast_signed())
        {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// Whether a process is a task's, or one that it started.
pub fn is_marked(pid: u32, mark: &str) -> bool {
    super::port::has_variable(pid, MARK, mark)
}

async fn copy(mut pipe: impl AsyncRead + Unpin, log: Log) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = pipe.read(&mut buffer).await {
        log.add(&buffer[..read]);
        // One that prints without end must not keep everything else from its turn.
        tokio::task::yield_now().await;
    }
}

fn in_words(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with code {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}
