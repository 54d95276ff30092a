//! A PM2 daemon that breaks on demand, for what a real one will not do when asked.

use std::io::Write;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use crate::folder::Folder;
use crate::wait::{SOON, wait_blocking};
use crate::{amp, pm2_process};

/// How the fake behaves towards a request. A connection that is open takes a new mode with
/// its next request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// As PM2 does.
    Answers,
    /// As PM2 does, after this long.
    Slow(Duration),
    /// Takes the request and says nothing.
    Hangs,
    /// The sockets are there and nobody listens.
    Refuses,
    /// There are no sockets.
    Absent,
    /// The first half of the answer, then silence.
    HalfFrame,
    /// Bytes that are no frame.
    Garbage,
    /// A frame of the right form that says it holds this many bytes, and sends them.
    Huge(usize),
    /// Ends the connection instead of answering.
    Closes,
}

/// A fake daemon with a PM2_HOME of its own.
#[derive(Debug)]
pub struct FakePm2 {
    shared: Arc<Shared>,
    folder: Folder,
}

#[derive(Debug)]
struct Shared {
    mode: Mutex<Mode>,
    processes: Mutex<Vec<Value>>,
    calls: Mutex<Vec<(String, Value)>>,
    monitor_calls: AtomicU64,
    connections: Mutex<Vec<UnixStream>>,
    subscribers: Mutex<Vec<UnixStream>>,
    /// Tells the two accepting threads of one life that it is over.
    life: Mutex<Option<Arc<AtomicBool>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FakePm2 {
    /// One that answers, with these processes.
    ///
    /// # Errors
    /// Its folder or sockets cannot be made.
    pub fn start(processes: Vec<Value>) -> anyhow::Result<Self> {
        let shared = Shared {
            mode: Mutex::new(Mode::Answers),
            processes: Mutex::new(processes),
            calls: Mutex::default(),
            monitor_calls: AtomicU64::new(0),
            connections: Mutex::default(),
            subscribers: Mutex::default(),
            life: Mutex::default(),
        };
        let fake = Self { shared: Arc::new(shared), folder: Folder::new()? };
        // A real daemon's id stands there; ours is at least one that runs.
        fake.folder.write("pm2.pid", &std::process::id().to_string())?;
        fake.listen()?;
        Ok(fake)
    }

    /// Its PM2_HOME.
    pub fn home(&self) -> &Path {
        self.folder.path()
    }

    /// Behaves like this from now on.
    ///
    /// # Errors
    /// It is to listen again, and cannot.
    pub fn set_mode(&self, mode: Mode) -> anyhow::Result<()> {
        let was = std::mem::replace(&mut *lock(&self.shared.mode), mode.clone());
        let listens = |mode: &Mode| !matches!(mode, Mode::Refuses | Mode::Absent);
        if listens(&was) && !listens(&mode) {
            self.hang_up();
        }
        if mode == Mode::Absent {
            for socket in ["rpc.sock", "pub.sock"] {
                let _ = std::fs::remove_file(self.folder.join(socket));
            }
        }
        if !listens(&was) && listens(&mode) {
            self.listen()?;
        }
        Ok(())
    }

    /// Has these processes from now on; tells nobody.
    pub fn set_processes(&self, processes: Vec<Value>) {
        *lock(&self.shared.processes) = processes;
    }

    /// How often `getMonitorData` was asked for.
    pub fn monitor_calls(&self) -> u64 {
        self.shared.monitor_calls.load(Ordering::SeqCst)
    }

    /// Everything that was asked for, oldest first: method and first argument.
    pub fn calls(&self) -> Vec<(String, Value)> {
        lock(&self.shared.calls).clone()
    }

    /// How many listen to the bus.
    pub fn subscribers(&self) -> usize {
        lock(&self.shared.subscribers).len()
    }

    /// Tells a topic and its body on the bus.
    pub fn publish(&self, topic: &str, body: &Value) {
        self.publish_text(topic, &body.to_string());
    }

    /// Tells a topic and its body, in JSON, on the bus.
    pub fn publish_text(&self, topic: &str, body: &str) {
        let (topic, body) = (format!("s:{topic}"), format!("j:{body}"));
        self.publish_bytes(&amp::encode(&[topic.as_bytes(), body.as_bytes()]));
    }

    /// Tells an event about a process on the bus.
    pub fn publish_event(&self, word: &str, process: &Value) {
        self.publish("process:event", &pm2_process::event(word, process));
    }

    /// Sends bytes to all who listen to the bus.
    pub fn publish_bytes(&self, bytes: &[u8]) {
        lock(&self.shared.subscribers).retain_mut(|stream| stream.write_all(bytes).is_ok());
    }

    /// Ends every connection, and goes on listening.
    pub fn drop_connections(&self) {
        self.shared.drop_connections();
    }

    fn listen(&self) -> anyhow::Result<()> {
        let life = Arc::new(AtomicBool::new(true));
        for (socket, take) in [
            ("rpc.sock", Shared::take_caller as fn(&Arc<Shared>, UnixStream)),
            ("pub.sock", Shared::take_subscriber),
        ] {
            let path = self.folder.join(socket);
            let _ = std::fs::remove_file(&path);
            let listener = UnixListener::bind(path)?;
            let (shared, life) = (Arc::clone(&self.shared), Arc::clone(&life));
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    if !life.load(Ordering::SeqCst) {
                        return;
                    }
                    if let Ok(stream) = stream {
                        take(&shared, stream);
                    }
                }
            });
        }
        *lock(&self.shared.life) = Some(life);
        Ok(())
    }

    /// Stops listening and ends every connection; the sockets stay as files.
    fn hang_up(&self) {
        if let Some(life) = lock(&self.shared.life).take() {
            life.store(false, Ordering::SeqCst);
            for socket in ["rpc.sock", "pub.sock"] {
                // Wakes the accepting thread, which then sees that its life is over.
                let path = self.folder.join(socket);
                let _ = UnixStream::connect(&path);
                // Only once connections are refused has the thread let go.
                wait_blocking(SOON, || UnixStream::connect(&path).is_err());
            }
        }
        self.shared.drop_connections();
    }
}

impl Drop for FakePm2 {
    fn drop(&mut self) {
        self.hang_up();
    }
}

impl Shared {
    fn drop_connections(&self) {
        for list in [&self.connections, &self.subscribers] {
            for stream in lock(list).drain(..) {
                let _ = stream.shutdown(std::net::Shutdown::Both);
            }
        }
    }

    fn take_subscriber(self: &Arc<Self>, stream: UnixStream) {
        let _ = stream.set_write_timeout(Some(Duration::from_secs(5)));
        lock(&self.subscribers).push(stream);
    }

    fn take_caller(self: &Arc<Self>, stream: UnixStream) {
        if let Ok(copy) = stream.try_clone() {
            lock(&self.connections).push(copy);
        }
        let shared = Arc::clone(self);
        std::thread::spawn(move || shared.converse(stream));
    }

    fn converse(&self, mut stream: UnixStream) {
        while let Ok(request) = amp::read(&mut stream) {
            let [body, id] = request.as_slice() else { return };
            let Some(body) = amp::value(body) else { return };
            let answer = self.answer(&body);
            let frame = amp::encode(&[&amp::json(&answer), id]);
            let mode = lock(&self.mode).clone();
            let sent = match mode {
                Mode::Answers => stream.write_all(&frame),
                Mode::Slow(delay) => {
                    std::thread::sleep(delay);
                    stream.write_all(&frame)
                }
                Mode::Hangs => Ok(()),
                Mode::HalfFrame => stream.write_all(&frame[..frame.len() / 2]),
                Mode::Garbage => stream.write_all(&[0xff; 4096]),
                Mode::Huge(size) => send_huge(&mut stream, size, id),
                Mode::Refuses | Mode::Absent | Mode::Closes => {
                    let _ = stream.shutdown(std::net::Shutdown::Both);
                    return;
                }
            };
            if sent.is_err() {
                return;
            }
        }
    }

    fn answer(&self, body: &Value) -> Value {
        if body["type"] == "methods" {
            let methods = ["getMonitorData", "getVersion", "ping", "restartProcessId"];
            return json!({"args": [methods]});
        }
        let method = body["method"].as_str().unwrap_or_default();
        let argument = body["args"][0].clone();
        lock(&self.calls).push((method.to_owned(), argument.clone()));
        match method {
            "getMonitorData" => {
                self.monitor_calls.fetch_add(1, Ordering::SeqCst);
                json!({"args": [*lock(&self.processes)]})
            }
            "getVersion" => json!({"args": ["7.0.4"]}),
            "ping" => json!({"args": [{"msg": "pong"}]}),
            "restartProcessId" | "reloadProcessId" => self.found(&argument["id"]),
            "startProcessId" | "stopProcessId" | "deleteProcessId" | "resetMetaProcessId" => {
                self.found(&argument)
            }
            _ => json!({"error": format!("method '{method}' does not exist"), "stack": ""}),
        }
    }

    /// The answer of an action: the process, unchanged.
    fn found(&self, id: &Value) -> Value {
        match lock(&self.processes).iter().find(|process| process["pm_id"] == *id) {
            Some(process) => json!({"args": [process["pm2_env"]]}),
            None => json!({"error": format!("{id} id unknown"), "stack": ""}),
        }
    }
}

/// A frame whose first argument has `size` bytes, in pieces.
fn send_huge(stream: &mut UnixStream, size: usize, id: &[u8]) -> std::io::Result<()> {
    stream.write_all(&[0x12])?;
    stream.write_all(&u32::try_from(size).unwrap_or(u32::MAX).to_be_bytes())?;
    stream.write_all(b"j:{\"args\":[\"")?;
    let end = b"\"]}";
    let mut left = size.saturating_sub(12 + end.len());
    let piece = [b'x'; 64 * 1024];
    while left > 0 {
        let part = left.min(piece.len());
        stream.write_all(&piece[..part])?;
        left -= part;
    }
    stream.write_all(end)?;
    stream.write_all(&u32::try_from(id.len()).unwrap_or(0).to_be_bytes())?;
    stream.write_all(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn ask(fake: &FakePm2) -> anyhow::Result<Value> {
        crate::rpc::call(fake.home(), "getMonitorData", json!({}))
    }

    #[test]
    fn answers_counts_and_remembers() {
        let fake = FakePm2::start(pm2_process::processes(2)).unwrap();
        assert_eq!(ask(&fake).unwrap()[1]["name"], "app-1");
        assert_eq!(fake.monitor_calls(), 1);
        crate::rpc::call(fake.home(), "restartProcessId", json!({"id": 1})).unwrap();
        let error = crate::rpc::call(fake.home(), "stopProcessId", json!(9)).unwrap_err();
        assert!(error.to_string().contains("9 id unknown"), "{error}");
        assert_eq!(fake.calls()[1], ("restartProcessId".to_owned(), json!({"id": 1})));
    }

    #[test]
    fn breaks_and_is_well_again() {
        let fake = FakePm2::start(pm2_process::processes(1)).unwrap();
        for mode in [Mode::Refuses, Mode::Absent, Mode::Closes, Mode::Huge(65 << 20)] {
            fake.set_mode(mode.clone()).unwrap();
            assert!(ask(&fake).is_err(), "{mode:?}");
            fake.set_mode(Mode::Answers).unwrap();
            assert!(ask(&fake).is_ok(), "after {mode:?}");
        }
        fake.set_mode(Mode::Huge(1 << 20)).unwrap();
        assert_eq!(ask(&fake).unwrap().as_str().unwrap().len(), (1 << 20) - 15);
    }

    #[test]
    fn half_a_frame_is_followed_by_silence() {
        let fake = FakePm2::start(pm2_process::processes(1)).unwrap();
        fake.set_mode(Mode::HalfFrame).unwrap();
        let mut stream = UnixStream::connect(fake.home().join("rpc.sock")).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let request = amp::json(&json!({"type": "call", "method": "ping", "args": []}));
        stream.write_all(&amp::encode(&[&request, b"s:1"])).unwrap();
        let mut got = Vec::new();
        let error = stream.read_to_end(&mut got).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
        assert!(!got.is_empty() && amp::read(&mut got.as_slice()).is_err());
    }

    #[test]
    fn tells_on_the_bus() {
        let fake = FakePm2::start(Vec::new()).unwrap();
        let mut bus = UnixStream::connect(fake.home().join("pub.sock")).unwrap();
        bus.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        assert!(wait_blocking(SOON, || fake.subscribers() == 1));
        fake.publish_event("online", &pm2_process::process(0, "api", 1));
        let frame = amp::read(&mut bus).unwrap();
        assert_eq!(frame[0], b"s:process:event");
        assert_eq!(amp::value(&frame[1]).unwrap()["process"]["name"], "api");
    }
}
