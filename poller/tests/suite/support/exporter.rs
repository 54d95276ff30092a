//! An exporter that keeps a journal, runs commands, and misbehaves as it is told.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use wire::{
    CommandRequest, CommandStatus, Entry, Event, EventKind, Instance, JournalPage, JournalPosition,
    Readings, Record, RestartCause, Sample, SampledProcess, Severity, Status, Target, Time,
};

use super::target;

/// How it answers for its journal.
#[derive(Clone, Debug, Default)]
pub enum Manner {
    #[default]
    Good,
    /// Never.
    Hang,
    /// 64 MiB, compressed.
    Bomb,
    /// This, whatever it is.
    Say(StatusCode, String),
    /// Over there.
    Redirect(String),
    /// A good page that this function has changed.
    Change(fn(&mut JournalPage)),
}

/// What it does with a command.
#[derive(Clone, Debug, Default)]
pub enum Obedience {
    #[default]
    Good,
    /// After so long.
    Slow(Duration),
    /// Runs it and breaks the connection.
    Mute,
    /// Breaks the connection and forgets it.
    Forget,
    /// The same, once it is notified.
    ForgetAfter(Arc<Notify>),
    /// Takes it, and ends it after so long.
    Later(Duration),
    /// Says no.
    Refuse(StatusCode, &'static str),
    /// Says no, and all that it was sent.
    Echo,
}

#[derive(Default)]
pub struct Inner {
    pub epoch: String,
    /// Earlier lives of the same journal, whose positions it understands.
    pub former: Vec<String>,
    pub entries: Vec<Entry>,
    pub first: u64,
    pub manner: Manner,
    pub obedience: Obedience,
    pub commands: HashMap<String, Value>,
    /// What was sent, in order.
    pub asked: Vec<Value>,
    /// Ids that ran, in order.
    pub ran: Vec<String>,
    /// Answers that are a poll: at once, or where a wait has ended without an event.
    pub polls: usize,
    /// Requests that waited, and those that wait now.
    pub waits: usize,
    pub waiting: usize,
    /// Answers at once to those that would wait, with this status.
    pub no_waits: Option<StatusCode>,
    pub authorization: Option<String>,
    pub accept_encoding: Option<String>,
    pub revision: u64,
    /// The rest of a deployment's log comes.
    pub log_goes_on: bool,
    pub apps: Vec<String>,
    /// The PM2s that it watches, by directory, each with its apps; none where it watches one.
    pub homes: Vec<(String, Vec<String>)>,
    /// Its PM2 does not answer.
    pub silent: bool,
    /// In which of them it was asked how an app is, look by look.
    pub looked_in: Vec<Option<String>>,
    /// How often it was asked how an app or slot is.
    pub looks: usize,
    /// Status and restarts that it tells then, by the number of the look.
    pub on_look: Option<Box<dyn Fn(usize) -> (&'static str, u64) + Send>>,
    /// Called before a command is looked at.
    pub on_command: Option<Box<dyn Fn(&str) + Send>>,
}

#[derive(Clone)]
pub struct Exporter {
    pub address: SocketAddr,
    inner: Arc<Mutex<Inner>>,
}

impl Exporter {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let inner = Inner {
            epoch: "first".into(),
            first: 1,
            revision: 1,
            apps: vec!["api".into(), "slot-a".into()],
            ..Inner::default()
        };
        let this = Self { address, inner: Arc::new(Mutex::new(inner)) };
        let router = Router::new()
            .route("/api/journal", get(journal))
            .route("/api/commands/{id}", put(take).get(show))
            .route("/api/processes/{name}", get(app))
            .route("/api/processes/{name}/logs", get(logs))
            .route("/api/slots/{slot}", get(slot))
            .merge(super::deployments::routes())
            .with_state(this.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        this
    }

    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn target(&self, id: &str) -> pm2_poller::config::Target {
        target(id, &self.url())
    }

    pub fn set(&self, manner: Manner) {
        self.lock().manner = manner;
    }

    fn add(&self, record: Record) {
        let mut inner = self.lock();
        let seq = inner.first + inner.entries.len() as u64;
        inner.entries.push(Entry { seq, time: Time::now(), record });
    }

    pub fn event(&self, kind: EventKind, message: &str) {
        self.event_in(None, kind, message);
    }

    pub fn event_in(&self, home: Option<&str>, kind: EventKind, message: &str) {
        let mut event = Event::new(kind, Severity::Warning, message);
        event.app = Some("api".parse().unwrap());
        event.pm2_home = home.map(Into::into);
        self.add(Record::Event(event));
    }

    /// Tells the end of a command, as its journal does whether or not its answer arrived.
    pub fn tell_end(&self, id: &str, severity: Severity, (status, message): (CommandStatus, &str)) {
        let mut event = Event::new(EventKind::COMMAND, severity, message);
        event.app = Some("api".parse().unwrap());
        event.tell_end(&id.parse().unwrap(), status);
        self.add(Record::Event(event));
    }

    /// Watches two PM2s; both have `api`.
    pub fn watch_two(&self, [one, two]: [&str; 2]) {
        let mut inner = self.lock();
        let only = ["api", "only"].map(str::to_owned);
        inner.homes = vec![(one.into(), vec!["api".into()]), (two.into(), only.into())];
        inner.revision += 1;
    }

    /// Its `api` crashes.
    pub fn crash(&self) {
        self.crash_in(None);
    }

    pub fn crash_in(&self, home: Option<&str>) {
        let Instance { name, namespace, instance_id, .. } = instance("api");
        let mut event = Event::new(EventKind::EXIT, Severity::Warning, "crashed");
        (event.app, event.namespace) = (Some(name), Some(namespace));
        (event.instance_id, event.cause) = (Some(instance_id), Some(RestartCause::Crash));
        event.pm2_home = home.map(Into::into);
        self.add(Record::Event(event));
    }

    pub fn sample(&self, cpu_seconds: f64) {
        self.sample_in(None, cpu_seconds);
    }

    pub fn sample_in(&self, home: Option<&str>, cpu_seconds: f64) {
        let instance = Instance { pm2_home: home.map(Into::into), ..instance("api") };
        let readings = Readings {
            cpu_seconds: Some(cpu_seconds),
            memory_bytes: Some(50 << 20),
            ..Readings::default()
        };
        let process = SampledProcess { instance, status: Status::Online, restarts: 0, readings };
        self.add(Record::Sample(Sample { host: None, processes: vec![process] }));
    }

    /// Its PM2 is gone, or there, with these apps.
    pub fn pm2(&self, up: bool, apps: &[&str]) {
        let mut inner = self.lock();
        inner.silent = !up;
        inner.apps = apps.iter().map(|app| (*app).to_owned()).collect();
        inner.revision += 1;
    }

    /// A new life without the old journal.
    pub fn begin_anew(&self, epoch: &str) {
        let mut inner = self.lock();
        inner.epoch = epoch.into();
        inner.entries.clear();
        inner.first = 1;
        inner.commands.clear();
    }

    /// A new life that goes on with the old journal.
    pub fn restart(&self, epoch: &str) {
        let mut inner = self.lock();
        let old = std::mem::replace(&mut inner.epoch, epoch.into());
        inner.former.push(old);
        inner.commands.clear();
    }

    /// The oldest entries are gone.
    pub fn overrun(&self, count: usize) {
        let mut inner = self.lock();
        inner.entries.drain(..count);
        inner.first += count as u64;
    }
}

fn instance(name: &str) -> Instance {
    Instance {
        name: name.parse().unwrap(),
        namespace: "default".into(),
        instance_id: 0,
        pm2_home: None,
    }
}

fn process(name: &str) -> Value {
    json!({
        "name": name, "namespace": "default", "instance_id": 0, "pm_id": 0, "pid": 77,
        "status": "online", "exec_mode": "fork", "cpu_seconds": 1.5, "memory_bytes": 52428800,
        "restarts": {"crash": 0, "manual": 0, "reload": 0, "deploy": 0, "oom": 0, "unknown": 0},
    })
}

fn looked(this: &Exporter) -> (&'static str, u64) {
    let mut inner = this.lock();
    inner.looks += 1;
    inner.on_look.as_ref().map_or(("online", 0), |on_look| on_look(inner.looks))
}

fn process_in(name: &str, home: &str) -> Value {
    let mut process = process(name);
    process["pm2_home"] = json!(home);
    process
}

type Refusal = (StatusCode, Json<Value>);

/// The PM2 that has an app, where several are watched.
fn home_of(inner: &Inner, name: &str, wanted: Option<&str>) -> Result<Option<String>, Refusal> {
    let problem = |status: StatusCode, kind: &str, detail: &str| {
        let body = json!({"type": kind, "status": status.as_u16(), "title": "", "detail": detail});
        (status, Json(body))
    };
    let unknown = || {
        let detail = format!("PM2 has no app named {name:?}");
        problem(StatusCode::NOT_FOUND, "unknown_app", &detail)
    };
    if inner.homes.is_empty() {
        return inner.apps.iter().any(|it| it == name).then_some(None).ok_or_else(unknown);
    }
    let is_meant = |home: &&String| wanted.is_none_or(|wanted| wanted == *home);
    let has = inner.homes.iter().filter(|(_, apps)| apps.iter().any(|it| it == name));
    let found: Vec<&String> = has.map(|(home, _)| home).filter(is_meant).collect();
    match found[..] {
        [] => Err(unknown()),
        [home] => Ok(Some(home.clone())),
        _ => Err(problem(StatusCode::CONFLICT, "conflict", "choose one by pm2_home")),
    }
}

/// A line that says which PM2 it is of.
async fn logs(
    State(this): State<Exporter>,
    Path(name): Path<String>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let wanted = query.get("pm2_home").map(String::as_str);
    match home_of(&this.lock(), &name, wanted) {
        Err(refusal) => refusal.into_response(),
        Ok(home) => {
            let line = format!("written in {}", home.as_deref().unwrap_or("the only one"));
            let line = json!({"instance_id": 0, "stream": "out", "line": line});
            let form = [("content-type", "text/event-stream")];
            (form, format!("event: out\ndata: {line}\n\n")).into_response()
        }
    }
}

async fn app(
    State(this): State<Exporter>,
    Path(name): Path<String>,
    Query(query): Query<HashMap<String, String>>,
) -> Json<Value> {
    this.lock().looked_in.push(query.get("pm2_home").cloned());
    let (status, restarts) = looked(&this);
    let mut process = process(&name);
    process["status"] = json!(status);
    process["restarts"]["crash"] = json!(restarts);
    let online = usize::from(status == "online");
    Json(json!({"name": name, "total": 1, "online": online, "instances": [process]}))
}

async fn slot(State(this): State<Exporter>, Path(slot): Path<String>) -> Json<Value> {
    let (status, _) = looked(&this);
    Json(json!({
        "slot": slot, "port": 3001, "process": format!("slot-{slot}"), "type": "deployed",
        "status": status, "serving": status == "online",
    }))
}

fn position(inner: &Inner) -> JournalPosition {
    let next = inner.first + inner.entries.len() as u64;
    JournalPosition { epoch: inner.epoch.as_str().into(), first: inner.first, next }
}

fn state(inner: &Inner) -> wire::State {
    let mut processes: Vec<Value> = inner.apps.iter().map(|name| process(name)).collect();
    if !inner.homes.is_empty() {
        let in_home = |(home, apps): &(String, Vec<String>)| {
            apps.iter().map(|name| process_in(name, home)).collect::<Vec<_>>()
        };
        processes = inner.homes.iter().flat_map(in_home).collect();
    }
    let pm2 = |home: &str| json!({"up": !inner.silent, "version": "7.0.4", "home": home});
    let homes: Vec<Value> = inner.homes.iter().map(|(home, _)| pm2(home)).collect();
    serde_json::from_value(json!({
        "time": Time::now(), "revision": inner.revision,
        "pm2": homes.first().cloned().unwrap_or_else(|| pm2("/home/app/.pm2")),
        "homes": homes,
        "exporter": {
            "version": "0.1.0", "started_at": Time::from_millis(0), "hostname": "liar",
            "os": "linux", "arch": "x86_64",
        },
        "processes": processes,
        "slots": [{"slot": "a", "port": 3001, "process": "slot-a", "type": "placeholder",
                   "status": "online", "serving": true}],
        "journal": position(inner),
    }))
    .unwrap()
}

async fn journal(
    State(this): State<Exporter>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    {
        let mut inner = this.lock();
        if query.contains_key("wait") {
            inner.waits += 1;
        } else {
            inner.polls += 1;
        }
        inner.authorization = text("authorization");
        inner.accept_encoding = text("accept-encoding");
    }
    if let Some(wait) = query.get("wait") {
        let no_waits = this.lock().no_waits;
        if let Some(status) = no_waits {
            return status.into_response();
        }
        if !wait_for_event(&this, &query, service::quantity::duration(wait).unwrap()).await {
            this.lock().polls += 1;
        }
    }
    let manner = this.lock().manner.clone();
    match manner {
        Manner::Good => Json(page(&this, &query)).into_response(),
        Manner::Change(change) => {
            let mut page = page(&this, &query);
            change(&mut page);
            Json(page).into_response()
        }
        Manner::Hang => std::future::pending().await,
        Manner::Bomb => bomb(),
        Manner::Say(status, body) => (status, body).into_response(),
        Manner::Redirect(to) => (StatusCode::FOUND, [("location", to)]).into_response(),
    }
}

/// Counts as waiting while it lives.
struct Waiting(Exporter);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.lock().waiting -= 1;
    }
}

/// Until there is an event after the position (true), or the wait is over.
async fn wait_for_event(this: &Exporter, query: &HashMap<String, String>, wait: Duration) -> bool {
    this.lock().waiting += 1;
    let _waiting = Waiting(this.clone());
    let after: u64 = query["after"].parse().unwrap();
    let end = tokio::time::Instant::now() + wait;
    while tokio::time::Instant::now() < end {
        {
            let inner = this.lock();
            let event =
                |entry: &Entry| entry.seq > after && matches!(entry.record, Record::Event(_));
            if query.get("epoch") != Some(&inner.epoch) || inner.entries.iter().any(event) {
                return true;
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    false
}

fn page(this: &Exporter, query: &HashMap<String, String>) -> JournalPage {
    let inner = this.lock();
    let same = query.get("epoch").is_none_or(|epoch| *epoch == inner.epoch);
    let understood = same || query.get("epoch").is_some_and(|it| inner.former.contains(it));
    let asked: u64 = query.get("after").map_or(0, |after| after.parse().unwrap());
    let after = if understood { asked } else { 0 };
    let limit: usize = query["limit"].parse().unwrap();
    let journal = position(&inner);
    let lost = journal.first.saturating_sub(after + 1);
    let entries: Vec<Entry> =
        inner.entries.iter().filter(|entry| entry.seq > after).take(limit).cloned().collect();
    let after = entries.last().map_or(after + lost, |entry| entry.seq);
    let known = same && query.get("known_state") == Some(&inner.revision.to_string());
    JournalPage {
        now: Time::now(),
        more: after + 1 < journal.next,
        journal,
        entries,
        after,
        lost,
        anew: !understood,
        state_revision: inner.revision,
        state: (!known).then(|| Box::new(state(&inner))),
    }
}

/// 64 MiB of spaces in 64 KiB of gzip.
fn bomb() -> Response {
    use std::io::Write;
    static BOMB: std::sync::LazyLock<Bytes> = std::sync::LazyLock::new(|| {
        let level = flate2::Compression::fast();
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
        for _ in 0..64 {
            encoder.write_all(&vec![b' '; 1 << 20]).unwrap();
        }
        encoder.finish().unwrap().into()
    });
    ([("content-encoding", "gzip")], Body::from(BOMB.clone())).into_response()
}

async fn take(State(this): State<Exporter>, Path(id): Path<String>, body: Bytes) -> Response {
    let request: CommandRequest = serde_json::from_slice(&body).unwrap();
    let obedience = {
        let mut inner = this.lock();
        if let Some(on_command) = &inner.on_command {
            on_command(&id);
        }
        inner.asked.push(serde_json::from_slice(&body).unwrap());
        inner.obedience.clone()
    };
    if let Obedience::Refuse(status, kind) = obedience {
        let problem = json!({"type": kind, "status": status.as_u16(), "title": "", "detail": "no"});
        return (status, Json(problem)).into_response();
    }
    if matches!(obedience, Obedience::Echo) {
        let detail = String::from_utf8_lossy(&body);
        let problem = json!({"type": "bad_request", "status": 400, "title": "", "detail": detail});
        return (StatusCode::BAD_REQUEST, Json(problem)).into_response();
    }
    match &obedience {
        Obedience::Forget => return broken(),
        Obedience::ForgetAfter(notify) => {
            notify.notified().await;
            return broken();
        }
        _ => {}
    }
    let app = match &request.target {
        Target::App(name) => name.to_string(),
        Target::Slot(slot) => format!("slot-{slot}"),
    };
    let mut record = json!({
        "id": id, "target": request.target, "action": request.action, "status": "running",
        "requested_by": "poller", "requested_at": Time::now(),
    });
    let of_app = {
        let mut inner = this.lock();
        let of_app = match home_of(&inner, &app, request.pm2_home.as_deref()) {
            Err(refusal) => return refusal.into_response(),
            Ok(None) => process(&app),
            Ok(Some(home)) => process_in(&app, &home),
        };
        inner.ran.push(id.clone());
        inner.commands.insert(id.clone(), record.clone());
        of_app
    };
    match obedience {
        Obedience::Slow(time) => tokio::time::sleep(time).await,
        Obedience::Later(time) => {
            let taken = Json(record.clone());
            tokio::spawn(async move {
                tokio::time::sleep(time).await;
                record["status"] = json!("succeeded");
                this.lock().commands.insert(id, record);
            });
            return (StatusCode::ACCEPTED, taken).into_response();
        }
        _ => {}
    }
    record["status"] = json!("succeeded");
    record["finished_at"] = json!(Time::now());
    record["before"] = json!([of_app]);
    record["after"] = json!([of_app]);
    this.lock().commands.insert(id, record.clone());
    match obedience {
        Obedience::Mute => broken(),
        _ => Json(record).into_response(),
    }
}

/// An answer whose body breaks off, and the connection with it.
fn broken() -> Response {
    let pieces = [Ok(Bytes::from_static(b"{")), Err(std::io::Error::other("broken"))];
    Body::from_stream(futures_util::stream::iter(pieces)).into_response()
}

async fn show(State(this): State<Exporter>, Path(id): Path<String>) -> Response {
    match this.lock().commands.get(&id) {
        Some(record) => Json(record.clone()).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
