//! A poller in this process, and exporters that do as they are told.
#![allow(dead_code)]

pub mod deployments;
pub mod exporter;
pub mod link;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::http::{Method, StatusCode};
use pm2_poller::access::{Limits, Role};
use pm2_poller::app::App;
use pm2_poller::config::{Config, SETTINGS, Target};
use pm2_poller::program::Program;
use pm2_poller::store::{NewAudit, NewToken};
use serde_json::Value;
use service::Failure;
use service::config::Mistakes;
use service::shutdown::Shutdown;
use service::token::{Issuer, Token};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use wire::Time;

pub use exporter::Exporter;

/// How long anything is waited for.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A running poller.
pub struct Poller {
    pub base: String,
    pub app: Arc<App>,
    pub reload: mpsc::Sender<()>,
    pub next_config: Arc<Mutex<Result<Config, Mistakes>>>,
    pub config: Config,
    shutdown: Shutdown,
    task: JoinHandle<Result<(), Failure>>,
    client: reqwest::Client,
    folder: Option<TempDir>,
}

/// A poll every 200 ms. None fails, and no server is called stale or offline, because this machine
/// was busy for a moment.
pub fn config(servers: Vec<Target>) -> Config {
    let matches = clap::Command::new("test").args(SETTINGS.args()).get_matches_from(["test"]);
    let mut config = Config::read(&matches, |_| None).unwrap();
    config.listen = "127.0.0.1:0".parse().unwrap();
    config.timing.interval = Duration::from_millis(200);
    config.timing.timeout = Duration::from_secs(2);
    config.timing.stale_after = Duration::from_secs(30);
    config.command_timeout = Duration::from_secs(20);
    config.servers = servers.into_iter().map(Arc::new).collect();
    config
}

/// The same, and servers that do not answer are soon given up: where that is what is looked at.
pub fn hasty(servers: Vec<Target>) -> Config {
    let mut config = config(servers);
    config.timing.timeout = Duration::from_millis(150);
    config.timing.stale_after = Duration::from_millis(600);
    config
}

/// A folder in memory, where there is one: how long a disk takes is not what is looked at.
pub fn folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

pub fn target(id: &str, url: &str) -> Target {
    Target {
        id: id.parse().unwrap(),
        url: url.to_owned(),
        group: "eu".to_owned(),
        tags: vec!["prod".to_owned()],
        credential: Ok(None),
        tls: None,
    }
}

impl Poller {
    pub async fn start(servers: Vec<Target>) -> Self {
        Self::with(config(servers)).await
    }

    /// One of `vm1` and `vm2`, both online and both this exporter.
    pub async fn of_two() -> (Exporter, Self) {
        let exporter = Exporter::start().await;
        let poller = Self::start(vec![exporter.target("vm1"), exporter.target("vm2")]).await;
        poller.until_status("vm1", "online").await;
        poller.until_status("vm2", "online").await;
        (exporter, poller)
    }

    pub async fn with(config: Config) -> Self {
        Self::with_folder(folder(), config).await
    }

    /// With the database that is in `folder`.
    pub async fn with_folder(folder: TempDir, mut config: Config) -> Self {
        config.database = folder.path().join("poller.db");
        config.token_dir = folder.path().join("exporter-tokens");
        let shutdown = Shutdown::default();
        let program = Program::build(config.clone(), shutdown.clone()).await.unwrap();
        let base = format!("http://{}", program.address().unwrap());
        let (app, reload) = (program.app(), program.reloader());
        let next_config = Arc::new(Mutex::new(Ok::<_, Mistakes>(config.clone())));
        let next = Arc::clone(&next_config);
        let read = Box::new(move || match &*next.lock().unwrap() {
            Ok(config) => Ok(config.clone()),
            Err(mistakes) => Err(mistakes.clone()),
        });
        let task = tokio::spawn(program.run(read));
        service::tls::install();
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .unwrap();
        let folder = Some(folder);
        Self { base, app, reload, next_config, config, shutdown, task, client, folder }
    }

    pub fn database(&self) -> PathBuf {
        self.folder.as_ref().unwrap().path().join("poller.db")
    }

    /// Ends as on SIGTERM.
    pub async fn stop(mut self) -> TempDir {
        self.shutdown.drain.cancel();
        let ended = tokio::time::timeout(PATIENCE, &mut self.task).await;
        ended.expect("it ends").unwrap().unwrap();
        self.folder.take().unwrap()
    }

    /// The same database in a new life, with other settings when given.
    pub async fn restart(self, config: Option<Config>) -> Self {
        let config = config.unwrap_or_else(|| self.config.clone());
        let folder = self.stop().await;
        Self::with_folder(folder, config).await
    }

    /// A token of that role, for these servers only when any are given.
    pub async fn token(&self, name: &str, role: Role, servers: &[&str]) -> String {
        self.token_until(name, role, servers, None).await
    }

    pub async fn token_until(
        &self,
        name: &str,
        role: Role,
        servers: &[&str],
        expires_at: Option<Time>,
    ) -> String {
        let token = Token::new(Issuer::Poller).unwrap();
        let servers =
            (!servers.is_empty()).then(|| servers.iter().map(|id| id.parse().unwrap()).collect());
        let limits = Limits { servers, ..Limits::default() };
        let new = NewToken { name: name.into(), role, hash: token.hash(), limits, expires_at };
        let audit = NewAudit { who: "test".into(), act: "token create", ..NewAudit::default() };
        self.app.store.create_token(new, audit).await.unwrap();
        token.reveal().to_owned()
    }

    pub async fn ask(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = self.client.request(method, format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Answer::from(request.send().await.unwrap()).await
    }

    pub async fn form(&self, path: &str, body: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = self
            .client
            .post(format!("{}{path}", self.base))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body.to_owned());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Answer::from(request.send().await.unwrap()).await
    }

    /// JSON with a token, and with a key where one is given.
    pub async fn post_json(
        &self,
        token: &str,
        path: &str,
        body: &Value,
        key: Option<&str>,
    ) -> Answer {
        let mut request = self
            .client
            .post(format!("{}{path}", self.base))
            .header("authorization", format!("Bearer {token}"))
            .header("content-type", "application/json")
            .body(body.to_string());
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        Answer::from(request.send().await.unwrap()).await
    }

    /// JSON with a token, by any method.
    pub async fn send(&self, method: Method, token: &str, path: &str, body: &Value) -> Answer {
        let request = self
            .client
            .request(method, format!("{}{path}", self.base))
            .header("authorization", format!("Bearer {token}"))
            .header("content-type", "application/json")
            .body(body.to_string());
        Answer::from(request.send().await.unwrap()).await
    }

    pub async fn send_json(
        &self,
        method: Method,
        path: &str,
        body: &Value,
        headers: &[(&str, &str)],
    ) -> Answer {
        let mut request = self.client.request(method, format!("{}{path}", self.base));
        if !body.is_null() {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Answer::from(request.send().await.unwrap()).await
    }

    pub async fn put_json_with(
        &self,
        path: &str,
        body: &Value,
        headers: &[(&str, &str)],
    ) -> Answer {
        self.send_json(Method::PUT, path, body, headers).await
    }

    /// The status of an answer that goes on and on.
    pub async fn status_of(&self, path: &str, headers: &[(&str, &str)]) -> u16 {
        let mut request = self.client.get(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.unwrap().status().as_u16()
    }

    /// An answer that goes on and on.
    pub async fn stream(&self, path: &str) -> reqwest::Response {
        self.client.get(format!("{}{path}", self.base)).send().await.unwrap()
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, &[]).await
    }

    pub async fn get_as(&self, token: &str, path: &str) -> Answer {
        self.ask(Method::GET, path, &[("authorization", &format!("Bearer {token}"))]).await
    }

    pub async fn post_as(&self, token: &str, path: &str) -> Answer {
        self.ask(Method::POST, path, &[("authorization", &format!("Bearer {token}"))]).await
    }

    /// The server as the API shows it, once `good` holds.
    pub async fn until_server(&self, id: &str, good: impl Fn(&Value) -> bool) -> Value {
        let path = format!("/api/servers/{id}");
        let mut last = Value::Null;
        let end = tokio::time::Instant::now() + PATIENCE;
        while tokio::time::Instant::now() < end {
            last = self.get(&path).await.json();
            // A problem is not how it is.
            if last["id"] == id && good(&last) {
                return last;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{id} did not become as expected: {last:#}");
    }

    /// The same, once there is a token.
    pub async fn until_status_as(&self, token: &str, id: &str, status: &str) {
        let path = format!("/api/servers/{id}");
        until(status, async || self.get_as(token, &path).await.json()["status"] == status).await;
    }

    pub async fn until_status(&self, id: &str, status: &str) -> Value {
        self.until_server(id, |server| server["status"] == status).await
    }

    /// Waits until the events are of these kinds, oldest first.
    pub async fn until_kinds(&self, query: &str, expected: &[&str]) {
        until(query, async || self.kinds(query).await == expected).await;
    }

    /// Kinds of the events, oldest first; none as well where they cannot be read just now.
    pub async fn kinds(&self, query: &str) -> Vec<String> {
        let list = self.get(&format!("/api/events?limit=1000&{query}")).await.json();
        let Some(events) = list["events"].as_array() else { return Vec::new() };
        let events = events.iter().rev();
        events.map(|event| event["kind"].as_str().unwrap().to_owned()).collect()
    }
}

/// An answer, read.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: axum::http::HeaderMap,
    pub body: String,
}

impl Answer {
    async fn from(response: reqwest::Response) -> Self {
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.text().await.unwrap();
        Self { status, headers, body }
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }

    /// Its problem's type, checked to be a problem with the status of the answer.
    pub fn problem(&self) -> String {
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        let problem = self.json();
        assert_eq!(problem["status"], self.status.as_u16(), "{self:?}");
        problem["type"].as_str().unwrap().to_owned()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }
}

/// Waits until `good` holds.
pub async fn until(what: &str, mut good: impl AsyncFnMut() -> bool) {
    let end = tokio::time::Instant::now() + PATIENCE;
    while tokio::time::Instant::now() < end {
        if good().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("did not come about: {what}");
}
