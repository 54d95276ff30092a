//! The task that owns a home's table: it connects, takes what the bus tells as it comes, has
//! the list fetched where the bus tells too little, and connects again when the daemon is gone.

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::frame::{Argument, Decoder, Message};
use super::home::{Home, List, Question};
use super::model::{self, DaemonLine};
use super::rpc::{CallError, Rpc};
use super::table::Outcome;
use crate::named;
use crate::readings::KernelKills;

const CONNECT_WITHIN: Duration = Duration::from_secs(2);
/// As long as any other question: a daemon that hangs gets one, not one every few seconds.
const FIRST_ANSWER_WITHIN: Duration = Duration::from_secs(15);
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// Bytes of a file that holds a process's number.
const LONGEST_PID: u64 = 64;

/// Watches until the program ends.
pub(super) async fn watch(home: Arc<Home>, mut lists: mpsc::Receiver<List>) {
    loop {
        let lost = match connect(&home).await {
            Ok((rpc, bus)) => follow(&home, &mut lists, rpc, bus).await,
            Err(reason) => Lost::Gone(reason),
        };
        // What was asked of the old connection says nothing of the next.
        while lists.try_recv().is_ok() {}
        match lost {
            Lost::Gone(reason) => home.lost(reason),
            Lost::Silent => {
                home.silent();
                home.disconnected();
            }
        }
        sleep(RETRY_AFTER).await;
    }
}

/// Why a daemon is not followed any more.
enum Lost {
    /// It is not there, for this reason.
    Gone(String),
    /// It is there, and did not answer.
    Silent,
}

impl From<String> for Lost {
    fn from(reason: String) -> Self {
        Self::Gone(reason)
    }
}

async fn connect(home: &Home) -> Result<(Arc<Rpc>, UnixStream), String> {
    let rpc_path = home.path().join("rpc.sock");
    let bus_path = home.path().join("pub.sock");
    let rpc = Rpc::connect(&rpc_path, CONNECT_WITHIN)
        .await
        .map_err(|error| in_words(home.path(), &rpc_path, &error))?;
    let bus = timeout(CONNECT_WITHIN, UnixStream::connect(&bus_path))
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(|error| in_words(home.path(), &bus_path, &error))?;
    Ok((Arc::new(rpc), bus))
}

fn in_words(home: &Path, socket: &Path, error: &io::Error) -> String {
    let name = socket.file_name().unwrap_or_default().to_string_lossy();
    match error.kind() {
        io::ErrorKind::NotFound if !home.exists() => {
            format!("{} does not exist", home.display())
        }
        io::ErrorKind::NotFound => {
            format!("no PM2 daemon: {} has no {name}", home.display())
        }
        io::ErrorKind::ConnectionRefused => {
            format!("no PM2 daemon: nobody listens on {}", socket.display())
        }
        io::ErrorKind::PermissionDenied => {
            format!("not permitted to use {}: run as the user of that PM2", socket.display())
        }
        _ => format!("{}: {error}", socket.display()),
    }
}

/// Follows one daemon until it is gone, and says why.
async fn follow(
    home: &Arc<Home>,
    lists: &mut mpsc::Receiver<List>,
    rpc: Arc<Rpc>,
    bus: UnixStream,
) -> Lost {
    let version = match rpc.call("getVersion", &json!({}), FIRST_ANSWER_WITHIN).await {
        Ok(reply) => version_in(&reply),
        Err(CallError::Timeout(_)) => return Lost::Silent,
        Err(error) => return error.to_string().into(),
    };
    home.connected(Arc::clone(&rpc));
    let mut follower = Follower {
        home,
        bus,
        decoder: Decoder::new(|topic| {
            matches!(
                topic,
                b"s:process:event" | b"s:process:exception" | b"s:log:PM2" | b"s:axm:reply"
            )
        }),
        buffer: vec![0; 64 * 1024],
        kernel_kills: KernelKills::new(),
        list_at: None,
    };
    follower.list_within(Duration::ZERO);
    let mut version = Some(version);
    loop {
        let list_at = follower.list_at;
        tokio::select! {
            biased;
            ready = follower.bus.readable() => {
                if let Err(error) = ready {
                    return format!("pub.sock: {error}").into();
                }
                if let Err(reason) = follower.read_bus() {
                    return reason.into();
                }
            }
            Some(list) = lists.recv() => {
                // What the bus holds was said before the list was made.
                if let Err(reason) = follower.read_bus() {
                    return reason.into();
                }
                let routine = list.routine && follower.list_at.is_none();
                match home.take_list(&list) {
                    Ok(outcome) => {
                        if routine && outcome.drifted {
                            home.drifted();
                        }
                        home.listed(version.take().flatten());
                        follower.follow_up(outcome);
                    }
                    Err(error) => return format!("PM2's list makes no sense: {error}").into(),
                }
                home.answered();
            }
            reason = rpc.closed() => return format!("rpc.sock: {reason}").into(),
            () = home.gave_up() => return Lost::Silent,
            () = async { match list_at { Some(at) => sleep_until(at).await, None => std::future::pending().await } } => {
                follower.list_at = None;
                home.ask(Arc::clone(&rpc), Question::List { routine: false });
            }
        }
    }
}

fn version_in(reply: &[u8]) -> Option<String> {
    let reply: serde_json::Value = serde_json::from_slice(reply).ok()?;
    let version = reply.get("args")?.get(0)?.as_str()?;
    Some(version.chars().filter(|letter| !letter.is_control()).take(32).collect())
}

struct Follower<'a> {
    home: &'a Arc<Home>,
    bus: UnixStream,
    decoder: Decoder,
    buffer: Vec<u8>,
    kernel_kills: KernelKills,
    list_at: Option<Instant>,
}

impl Follower<'_> {
    fn list_within(&mut self, within: Duration) {
        let at = Instant::now() + within;
        self.list_at = Some(self.list_at.map_or(at, |planned| planned.min(at)));
    }

    fn follow_up(&mut self, mut outcome: Outcome) {
        if let Some(within) = outcome.list_within {
            self.list_within(within);
        }
        self.home.take(&mut outcome);
    }

    /// Takes what the bus holds now.
    fn read_bus(&mut self) -> Result<(), String> {
        // A flood of logs must not keep the rest of the program waiting.
        for _ in 0..32 {
            let read = match self.bus.try_read(&mut self.buffer) {
                Ok(0) => return Err("pub.sock: it was closed".to_owned()),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(format!("pub.sock: {error}")),
            };
            self.decoder.push(&self.buffer[..read]);
            loop {
                match self.decoder.message() {
                    Ok(Some(message)) => self.take(message),
                    Ok(None) => break,
                    Err(error) => return Err(format!("pub.sock: {error}")),
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, message: Message) {
        let args = match message {
            Message::Whole(args) => args,
            Message::Passed { topic, length, head, tail } => {
                let is_error = match &topic[..] {
                    b"s:log:out" => false,
                    b"s:log:err" => true,
                    _ => return,
                };
                if let Some((pm_id, bytes)) = model::logged(&head, &tail, length) {
                    self.home.table(|table| table.logged(pm_id, is_error, bytes));
                }
                self.home.wake_followers();
                return;
            }
        };
        let [topic, body] = &args[..] else { return };
        let json = Argument::parse(body).bytes();
        let outcome = match &topic[..] {
            b"s:process:event" => match model::process_event(json) {
                Ok(Some(event)) => Some(self.home.table(|table| table.process_event(event))),
                Ok(None) => None,
                Err(error) => {
                    tracing::debug!(%error, "an event that makes no sense");
                    self.list_within(Duration::from_millis(50));
                    None
                }
            },
            b"s:process:exception" => match model::exception(json) {
                Ok(Some(exception)) => Some(self.home.table(|table| table.exception(exception))),
                _ => None,
            },
            b"s:axm:reply" => {
                if let Some(reply) = model::reply(json) {
                    self.home.replied(reply);
                }
                None
            }
            b"s:log:PM2" => model::daemon_line(json).map(|line| self.daemon_line(line)),
            _ => None,
        };
        if let Some(outcome) = outcome {
            self.find_pids();
            self.follow_up(outcome);
        }
        self.home.spoke();
    }

    fn daemon_line(&mut self, line: DaemonLine) -> Outcome {
        if let DaemonLine::Exited { pm_id, signal, .. } = &line
            && &**signal == "SIGKILL"
            && self.kernel_kills.another()
        {
            let over = DaemonLine::OverMemory { pm_id: *pm_id };
            self.home.table(|table| table.daemon_line(over));
        }
        self.home.table(|table| table.daemon_line(line))
    }

    /// The bus does not tell process numbers; PM2 writes them into files before it tells of a
    /// start.
    fn find_pids(&mut self) {
        let unknown = self.home.table(|table| table.pid_files());
        for (pm_id, file) in unknown {
            let mut text = String::new();
            let read = named::read(Path::new(&*file))
                .and_then(|file| file.take(LONGEST_PID).read_to_string(&mut text));
            let pid = read.ok().and_then(|_| text.trim().parse().ok());
            match pid.filter(|pid| Path::new(&format!("/proc/{pid}")).exists()) {
                Some(pid) => self.home.table(|table| table.set_pid(pm_id, pid)),
                None => self.list_within(Duration::from_millis(50)),
            }
        }
    }
}
