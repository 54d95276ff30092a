//! An exporter that lies: it can name itself nobody else, and write nothing into the future.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use axum::Router;
use axum::extract::{Query, State};
use axum::routing::any;
use e2e::scene::{self, Server};
use e2e::{Metrics, SOON, wait_until};
use serde_json::{Value, json};
use wire::Time;

const YEAR: i64 = 365 * 24 * 3600 * 1000;

/// Answers every request with a page of a journal of its own making.
#[derive(Clone)]
struct Hostile {
    asked: Arc<AtomicU64>,
    /// How far its clock is ahead, in milliseconds.
    ahead: Arc<AtomicI64>,
    /// How far beyond that clock is when things began, were told and ended.
    claimed: Arc<AtomicI64>,
    /// What it answers instead of a page, if anything.
    answer: Arc<Mutex<Option<String>>>,
    url: String,
}

impl Hostile {
    async fn start() -> Result<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let this = Self {
            asked: Arc::default(),
            ahead: Arc::default(),
            claimed: Arc::default(),
            answer: Arc::default(),
            url: format!("http://{}", listener.local_addr()?),
        };
        let router = Router::new().fallback(any(answer)).with_state(this.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(this)
    }

    fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }

    async fn is_asked_again(&self, times: u64) -> Result<()> {
        let before = self.asked();
        wait_until("it is polled again", SOON, async || {
            (self.asked() >= before + times).then_some(())
        })
        .await
    }

    fn set(&self, answer: Option<String>) {
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = answer;
    }

    /// The two entries after a position.
    fn page(&self, position: u64) -> Value {
        let number = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let time = Time::now().plus_millis(self.ahead.load(Ordering::SeqCst));
        let claimed = time.plus_millis(self.claimed.load(Ordering::SeqCst));
        let readings = json!({"cpu_seconds": number, "memory_bytes": 1000});
        let instance = json!({"name": "web", "namespace": "default", "instance_id": 0,
                              "server": "honest", "status": "online"});
        let mut process = merged(&instance, &readings);
        process["pm_id"] = 0.into();
        process["pid"] = 1.into();
        process["exec_mode"] = "fork".into();
        process["started_at"] = json!(claimed);
        process["last_exit"] = json!({"code": 1, "at": claimed});
        process["restarts"] =
            json!({"crash": 0, "manual": 0, "reload": 0, "deploy": 0, "oom": 0, "unknown": 0});
        process["custom"] = json!([{"name": "server", "value": 1, "unit": "honest"}]);
        let mut sampled = merged(&instance, &readings);
        sampled["restarts"] = 0.into();
        let journal = json!({"epoch": "e", "first": 1, "next": position + 3});
        json!({
            "now": time,
            "server": "honest",
            "journal": journal,
            "entries": [
                {"seq": position + 1, "time": time, "server": "honest",
                 "record": {"sample": {"processes": [sampled]}}},
                {"seq": position + 2, "time": time, "server": "honest",
                 "record": {"event": {"kind": "exit", "severity": "info", "app": "web",
                                      "message": "a lie", "server": "honest",
                                      "details": {"server": "honest"}}}},
            ],
            "after": position + 2,
            "lost": 0,
            "more": false,
            "state_revision": number,
            "state": {
                "time": time,
                "server": "honest",
                "revision": number,
                "exporter": {"version": "9", "started_at": claimed, "hostname": "honest",
                             "os": "linux", "arch": "x86_64", "server": "honest"},
                "pm2": {"up": true, "home": "/", "confirmed_at": claimed},
                "host": {"booted_at": claimed},
                "processes": [process],
                "slots": [],
                "journal": journal,
            },
        })
    }
}

fn merged(one: &Value, other: &Value) -> Value {
    let both = [one, other].into_iter().filter_map(Value::as_object).flatten();
    both.map(|(key, value)| (key.clone(), value.clone())).collect()
}

async fn answer(
    State(hostile): State<Hostile>,
    Query(parameters): Query<BTreeMap<String, String>>,
) -> ([(&'static str, &'static str); 1], String) {
    let position = parameters.get("after").and_then(|after| after.parse().ok()).unwrap_or(0);
    let page = hostile.page(position).to_string();
    let other = hostile.answer.lock().unwrap_or_else(PoisonError::into_inner).clone();
    ([("content-type", "application/json")], other.unwrap_or(page))
}

/// Every text that stands for a time, anywhere in an answer.
fn times(value: &Value) -> Vec<Time> {
    match value {
        Value::String(text) => text.parse().into_iter().collect(),
        Value::Array(items) => items.iter().flat_map(times).collect(),
        Value::Object(fields) => fields.values().flat_map(times).collect(),
        _ => Vec::new(),
    }
}

#[tokio::test]
async fn it_cannot_name_itself_another_server() -> Result<()> {
    let honest = e2e::FakePm2::start(e2e::pm2_process::processes(1))?;
    let exporter = scene::exporter(honest.home()).await?;
    let hostile = Hostile::start().await?;
    let servers =
        [Server::open("honest", exporter.launch().base()), Server::open("evil", &hostile.url)];
    let poller = scene::poller(&servers, "").await?;
    poller.wait_for("honest", "online").await?;
    poller.wait_for("evil", "online").await?;
    hostile.is_asked_again(3).await?;

    let evil: Value = poller.admin.json("/api/events?server=evil&kind=exit").await?;
    let lies = evil["events"].as_array().context("no events")?;
    assert!(!lies.is_empty(), "nothing was taken, so nothing is shown by this test");
    assert!(lies.iter().all(|event| event["server"] == "evil"), "{lies:?}");
    let honest: Value = poller.admin.json("/api/events?server=honest&limit=1000").await?;
    assert!(!honest.to_string().contains("a lie"), "{honest}");

    let (lie, truth) =
        ([("server", "evil"), ("name", "web")], [("server", "honest"), ("name", "app-0")]);
    let has = |page: &Metrics, labels| page.has("pm2_process_up", labels);
    let page =
        poller.metrics_with("both are shown", |page| has(page, &lie) && has(page, &truth)).await?;
    assert!(!page.has("pm2_process_up", &[("server", "honest"), ("name", "web")]));
    for series in page.iter().filter(|series| series.labels.contains_key("server")) {
        assert!(["evil", "honest"].contains(&series.labels["server"].as_str()), "{series:?}");
    }
    let apps: Value = poller.admin.json("/api/servers/honest/apps").await?;
    assert!(!apps.to_string().contains("\"web\""), "{apps}");
    Ok(())
}

#[tokio::test]
async fn it_cannot_write_into_the_future() -> Result<()> {
    let hostile = Hostile::start().await?;
    let poller = scene::poller(&[Server::open("evil", &hostile.url)], "").await?;
    poller.wait_for("evil", "online").await?;
    hostile.ahead.store(YEAR, Ordering::SeqCst);
    hostile.is_asked_again(3).await?;

    nothing_is_of_the_future(&poller).await?;
    // And it does not keep the true ones out that come later.
    hostile.ahead.store(0, Ordering::SeqCst);
    let corrected = Time::now();
    wait_until("true events are taken again", SOON, async || {
        let events = poller.events("evil").await.ok()?;
        let lies = events.iter().filter(|event| event["message"] == "a lie");
        lies.flat_map(times).any(|time| time >= corrected).then_some(())
    })
    .await?;
    // Nor with a clock that is right.
    poller.wait_for("evil", "online").await?;
    hostile.claimed.store(YEAR, Ordering::SeqCst);
    hostile.is_asked_again(3).await?;
    poller.wait_for("evil", "online").await?;
    nothing_is_of_the_future(&poller).await
}

async fn nothing_is_of_the_future(poller: &scene::Watcher) -> Result<()> {
    let soon = Time::now().plus_millis(600_000);
    for path in [
        "/api/events?limit=1000",
        "/api/servers",
        "/api/servers/evil",
        "/api/servers/evil/apps",
        "/api/servers/evil/apps/web",
        "/api/servers/evil/apps/web/metrics?metric=memory",
    ] {
        let answer: Value = poller.admin.json(path).await?;
        for time in times(&answer) {
            assert!(time < soon, "{time} in {path}: {answer}");
        }
    }
    let page = poller.metrics().await?;
    let most = soon.as_seconds();
    for series in page.iter().filter(|series| series.name.contains("time")) {
        assert!(series.value < most, "{series:?}");
    }
    Ok(())
}

#[tokio::test]
async fn whatever_it_answers_the_poller_goes_on() -> Result<()> {
    let honest = e2e::FakePm2::start(e2e::pm2_process::processes(1))?;
    let exporter = scene::exporter(honest.home()).await?;
    let deep = "[".repeat(100_000);
    let many = format!("{{\"entries\":[{}0]}}", "0,".repeat(1 << 20));
    let answers = ["", "null", "[]", "{}", "<html>", "{\"now\":\"never\"}", &deep, &many];
    // One for each answer: servers that stay away are asked less and less.
    let mut servers = vec![Server::open("honest", exporter.launch().base())];
    let mut liars = Vec::new();
    for at in 0..answers.len() {
        let hostile = Hostile::start().await?;
        servers.push(Server::open(&format!("evil{at}"), &hostile.url));
        liars.push(hostile);
    }
    let poller = scene::poller(&servers, "").await?;
    for at in 0..answers.len() {
        poller.wait_for(&format!("evil{at}"), "online").await?;
    }
    for (hostile, answer) in liars.iter().zip(answers) {
        hostile.set(Some(answer.to_owned()));
    }
    for (at, answer) in answers.iter().enumerate() {
        let name = format!("evil{at}");
        let down = || async {
            let page = poller.metrics().await.ok()?;
            (page.value("pm2_server_up", &[("server", &name)]).ok()? == 0.0).then_some(())
        };
        wait_until(&format!("{name} is down after {answer:.40}"), SOON, down).await?;
    }
    let honest = [("server", "honest")];
    poller
        .metrics_with("the honest one is up", |page| {
            page.value("pm2_server_up", &honest).is_ok_and(|up| up == 1.0)
        })
        .await?;
    for (at, hostile) in liars.iter().enumerate() {
        hostile.set(None);
        poller.wait_for(&format!("evil{at}"), "online").await?;
    }
    assert!(!poller.program.stderr().contains("panicked"));
    Ok(())
}
