//! The kept-open connection to `rpc.sock`: calls are told apart by their ids, so replies may
//! come in any order, and every caller waits at most for its own deadline.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::frame::{self, Argument, Decoder, Message};

/// Why a call brought nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// There is no connection, or it broke.
    #[error("no connection to the PM2 daemon: {0}")]
    Closed(String),
    /// The daemon did not answer in time. What was asked for may still happen.
    #[error("the PM2 daemon has not answered within {0:?}")]
    Timeout(Duration),
    /// The daemon said no, in its own words.
    #[error("PM2: {0}")]
    Refused(String),
    /// The answer makes no sense.
    #[error("the PM2 daemon's answer makes no sense: {0}")]
    Malformed(String),
}

type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<Vec<u8>>>>>;

/// A connection.
#[derive(Debug)]
pub struct Rpc {
    writer: tokio::sync::Mutex<OwnedWriteHalf>,
    waiting: Waiting,
    next: AtomicU64,
    closed: watch::Receiver<Option<String>>,
    reader: AbortHandle,
    given_up: AtomicBool,
}

impl Rpc {
    /// Connects to the socket at `path`.
    ///
    /// # Errors
    /// As the operating system tells them: no such file, nobody listens, not permitted.
    pub async fn connect(path: &Path, deadline: Duration) -> io::Result<Self> {
        let stream = timeout(deadline, UnixStream::connect(path))
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        let (reader, writer) = stream.into_split();
        let waiting = Waiting::default();
        let (tell, closed) = watch::channel(None);
        let replies = Arc::clone(&waiting);
        let reader = tokio::spawn(async move {
            let reason = read_replies(reader, &replies).await;
            // Dropping the senders wakes every caller.
            replies.lock().unwrap_or_else(PoisonError::into_inner).clear();
            tell.send_replace(Some(reason));
        });
        let (writer, reader) = (tokio::sync::Mutex::new(writer), reader.abort_handle());
        Ok(Self {
            writer,
            waiting,
            next: AtomicU64::new(1),
            closed,
            reader,
            given_up: AtomicBool::new(false),
        })
    }

    /// Nothing more is read, and every caller is told.
    fn give_up(&self) {
        self.given_up.store(true, Ordering::Relaxed);
        self.reader.abort();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn is_closed(&self) -> bool {
        self.given_up.load(Ordering::Relaxed) || self.closed.borrow().is_some()
    }

    /// Waits until the connection is gone, and says why.
    pub async fn closed(&self) -> String {
        let mut closed = self.closed.clone();
        match closed.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => "ended".to_owned(),
        }
    }

    /// Calls `method` with one argument and gives the reply's JSON: `{"args":[…]}`.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn call(
        &self,
        method: &str,
        argument: &serde_json::Value,
        deadline: Duration,
    ) -> Result<Vec<u8>, CallError> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let forget = Forget { waiting: &self.waiting, id };
        match timeout(deadline, self.exchange(id, method, argument)).await {
            Ok(result) => result,
            Err(_) => {
                drop(forget);
                Err(CallError::Timeout(deadline))
            }
        }
    }

    async fn exchange(
        &self,
        id: u64,
        method: &str,
        argument: &serde_json::Value,
    ) -> Result<Vec<u8>, CallError> {
        let reason = || self.closed.borrow().clone();
        let gone = || CallError::Closed(reason().unwrap_or_else(|| "given up".to_owned()));
        let (tell, told) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(id, tell);
        if self.is_closed() {
            return Err(gone());
        }
        let call = serde_json::json!({"type": "call", "method": method, "args": [argument]});
        let message =
            frame::encode(&[format!("j:{call}").as_bytes(), format!("s:{id}").as_bytes()]);
        let mut writer = self.writer.lock().await;
        if self.is_closed() {
            return Err(gone());
        }
        let whole = Whole(Some(self));
        writer.write_all(&message).await.map_err(|error| CallError::Closed(error.to_string()))?;
        whole.done();
        drop(writer);
        let reply = told.await.map_err(|_| gone())?;
        if reply.starts_with(b"{\"error\"") {
            #[derive(Deserialize)]
            struct Refusal {
                error: serde_json::Value,
            }
            let refusal: Refusal = serde_json::from_slice(&reply)
                .map_err(|error| CallError::Malformed(error.to_string()))?;
            let text = match refusal.error {
                serde_json::Value::String(text) => text,
                other => other.to_string(),
            };
            let text = text.chars().filter(|letter| !letter.is_control()).take(300).collect();
            return Err(CallError::Refused(text));
        }
        Ok(reply)
    }
}

impl Drop for Rpc {
    /// A daemon that hangs would never end the connection, and who reads from it would wait for ever.
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// A message that is being written. Where that is cut off, by a deadline or an error, the next one would
/// be read as its end: the connection is given up.
struct Whole<'a>(Option<&'a Rpc>);

impl Whole<'_> {
    fn done(mut self) {
        self.0 = None;
    }
}

impl Drop for Whole<'_> {
    fn drop(&mut self) {
        if let Some(rpc) = self.0 {
            rpc.give_up();
        }
    }
}

struct Forget<'a> {
    waiting: &'a Waiting,
    id: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

async fn read_replies(mut reader: OwnedReadHalf, waiting: &Waiting) -> String {
    let mut decoder = Decoder::new(|_| true);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = match reader.read(&mut buffer).await {
            Ok(0) => return "it was closed".to_owned(),
            Ok(read) => read,
            Err(error) => return error.to_string(),
        };
        decoder.push(&buffer[..read]);
        loop {
            let args = match decoder.message() {
                Ok(Some(Message::Whole(args))) => args,
                Ok(Some(Message::Passed { .. })) => continue,
                Ok(None) => break,
                Err(error) => return error.to_string(),
            };
            if let [reply, id] = &args[..]
                && let Ok(id) = std::str::from_utf8(Argument::parse(id).bytes())
                && let Ok(id) = id.parse::<u64>()
            {
                // A reply that nobody waits for any more came too late.
                let teller = waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
                if let Some(teller) = teller {
                    let _ = teller.send(Argument::parse(reply).bytes().to_vec());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use tokio::net::UnixListener;

    const SOON: Duration = Duration::from_secs(10);

    /// A connection to a daemon that hangs, and its end.
    async fn hung() -> (tempfile::TempDir, Rpc, UnixStream) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rpc.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let rpc = Rpc::connect(&path, SOON).await.unwrap();
        let (daemon, _) = listener.accept().await.unwrap();
        (folder, rpc, daemon)
    }

    #[tokio::test]
    async fn a_connection_that_is_given_up_is_closed_though_the_daemon_hangs() {
        let (_folder, rpc, mut daemon) = hung().await;
        let late = rpc.call("getVersion", &json!({}), Duration::from_millis(50)).await;
        assert!(matches!(late, Err(CallError::Timeout(_))), "{late:?}");
        drop(rpc);
        let closed = async {
            while daemon.write_all(&[0; 1024]).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(SOON, closed).await.expect("somebody reads what the daemon says");
    }

    #[tokio::test]
    async fn nothing_follows_a_message_that_was_cut_off() {
        let (_folder, rpc, mut daemon) = hung().await;
        // More than the socket takes.
        let large = json!({"it": "x".repeat(8 << 20)});
        let late = rpc.call("prepare", &large, Duration::from_millis(100)).await;
        assert!(matches!(late, Err(CallError::Timeout(_))), "{late:?}");
        let next = timeout(SOON, rpc.call("getMonitorData", &json!({}), SOON)).await.unwrap();
        assert!(matches!(next, Err(CallError::Closed(_))), "{next:?}");
        timeout(SOON, rpc.closed()).await.expect("who watches connects anew");
        drop(rpc);
        let mut heard = Vec::new();
        timeout(SOON, daemon.read_to_end(&mut heard)).await.unwrap().unwrap();
        assert!(heard.len() > 1000 && heard.len() < 8 << 20);
        let heard = String::from_utf8_lossy(&heard);
        assert!(!heard.contains("getMonitorData"));
    }
}
