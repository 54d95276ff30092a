//! Words of applications, exporters and people that mean to be more than words: in no page do they run,
//! in no log, series or table do they stand for something else.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use axum::Router;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::Uri;
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use e2e::scene::{self, Server};
use e2e::{Browser, FakePm2, SOON, metrics::Metrics, pm2_process, wait_until};
use serde_json::{Value, json};
use wire::Time;

/// What marks a browser in which it ran.
const RAN: &str = "window.owned=1";

/// Breaks out of text, attributes, scripts and styles; a word has no control characters.
fn word(trap: &str) -> String {
    format!(
        "=\"'`><img src={trap} onerror={RAN}><svg onload={RAN}><script>{RAN}</script>\
         <a href=javascript:{RAN}>x</a>}}{{7*7}}"
    )
}

/// The same with what forges lines: of logs, of HTTP, of Prometheus' pages, of a terminal.
fn text(trap: &str) -> String {
    format!(
        "{}\r\n\r\n2026-01-31T12:00:00.000000Z  INFO forged: a line\npm2_forged{{a=\"b\"}} 1\n\
         \u{1b}[2J\u{1b}]0;owned\u{7}\u{9b}31m\u{202e}",
        word(trap)
    )
}

/// An exporter all of whose words are such; and the place to which some of them lead.
#[derive(Clone)]
struct Liar {
    asked: Arc<AtomicU64>,
    trapped: Arc<AtomicU64>,
    base: String,
}

impl Liar {
    async fn start() -> Result<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let base = format!("http://{}", listener.local_addr()?);
        let this = Self { asked: Arc::default(), trapped: Arc::default(), base };
        let router = Router::new().fallback(any(answer)).with_state(this.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(this)
    }

    fn trap(&self) -> String {
        format!("{}/trap", self.base)
    }

    fn process(&self, now: Time) -> Value {
        let word = word(&self.trap());
        json!({
            "name": word, "namespace": word, "instance_id": 0, "pm_id": 0, "pid": 1,
            "status": "errored", "exec_mode": word, "interpreter": word, "version": word,
            "node_version": word, "started_at": now, "exceptions": 1,
            "restarts": {"crash": 1, "manual": 0, "reload": 0, "deploy": 0, "oom": 0, "unknown": 0},
            "last_exit": {"code": 1, "signal": word, "at": now},
            "cpu_seconds": 1, "memory_bytes": 1000,
            "custom": [{"name": word, "value": 1, "unit": word}],
            "slot": "a",
        })
    }

    fn deployment(&self, now: Time) -> Value {
        let (word, text) = (word(&self.trap()), text(&self.trap()));
        json!({
            "id": "d1", "slot": "a", "status": "failed", "repository": format!("javascript:{word}"),
            "branch": word, "commit": word, "subdir": word, "requested_by": word,
            "requested_at": now, "finished_at": now, "start": word, "env_names": [word],
            "error": text, "last_lines": [text], "current": true, "kept": true,
        })
    }

    fn page(&self, position: u64) -> Value {
        let number = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let now = Time::now();
        let (word, text) = (word(&self.trap()), text(&self.trap()));
        let process = self.process(now);
        let sampled = json!({
            "name": word, "namespace": word, "instance_id": 0, "status": "errored",
            "restarts": 1, "cpu_seconds": number, "memory_bytes": 1000,
            "custom": [{"name": word, "value": 1, "unit": word}],
        });
        let kind = ["exit", "exception", "online"][(number % 3) as usize];
        let journal = json!({"epoch": "e", "first": 1, "next": position + 3});
        json!({
            "now": now, "journal": journal, "after": position + 2, "lost": 0, "more": false,
            "entries": [
                {"seq": position + 1, "time": now, "record": {"sample": {"processes": [sampled]}}},
                {"seq": position + 2, "time": now, "record": {"event": {
                    "kind": kind, "severity": "error", "app": word, "namespace": word,
                    "instance_id": 0, "message": text, "signal": word,
                    "details": {word.clone(): text.clone(), "stack": text, "stderr": text},
                }}},
            ],
            "state_revision": number,
            "state": {
                "time": now, "revision": number, "journal": journal,
                "exporter": {"version": word, "started_at": now, "hostname": word, "os": word,
                             "arch": word},
                "pm2": {"up": false, "home": word, "version": word, "error": text,
                        "confirmed_at": now},
                "processes": [process],
                "slots": [{
                    "slot": "a", "port": 3001, "process": word, "type": "deployed",
                    "status": "errored", "serving": false, "foreign_owner": word,
                    "repository": format!("javascript:{word}"), "branch": word, "commit": word,
                    "deployed_at": now, "deployed_by": word,
                    "more": {
                        "url": format!("javascript:{RAN}"), "env_names": [word],
                        "port_owner": {"pid": 1, "command": word, "own": false},
                        "deploys_healthy": 1, "deploys_failed": 1, "last_deploy_at": now,
                    },
                }],
            },
        })
    }
}

async fn answer(
    State(liar): State<Liar>,
    uri: Uri,
    Query(asked): Query<std::collections::BTreeMap<String, String>>,
) -> Response {
    let now = Time::now();
    let (word, text) = (word(&liar.trap()), text(&liar.trap()));
    let path = uri.path();
    let body = if path == "/trap" {
        liar.trapped.fetch_add(1, Ordering::SeqCst);
        json!(null)
    } else if path.ends_with("/logs") {
        let line = json!({"instance_id": 0, "stream": "err", "line": text});
        let lines = format!("event: err\ndata: {line}\n\n: {text}\n\n");
        return ([("content-type", "text/html"), ("x-frame-options", "ALLOWALL")], lines)
            .into_response();
    } else if path.ends_with("/log") {
        return ([("content-type", "text/html")], Body::from(text)).into_response();
    } else if path.ends_with("/deployments") {
        json!({"deployments": [liar.deployment(now)]})
    } else if path.contains("/deployments/") {
        liar.deployment(now)
    } else if let Some(id) = path.strip_prefix("/api/commands/") {
        json!({
            "id": id, "target": {"app": word}, "action": "restart", "status": "failed",
            "requested_by": word, "requested_at": now, "finished_at": now, "error": text,
            "reply": text, "outcomes": [{"pm_id": 0, "error": text}],
            "before": [liar.process(now)], "after": [liar.process(now)],
        })
    } else {
        let position = asked.get("after").and_then(|after| after.parse().ok()).unwrap_or(0);
        liar.page(position)
    };
    axum::Json(body).into_response()
}

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// Cells of a table as a spreadsheet takes it (RFC 4180).
fn cells(table: &str) -> Vec<String> {
    let (mut cells, mut cell, mut quoted) = (Vec::new(), String::new(), false);
    let mut letters = table.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '"' if quoted && letters.peek() == Some(&'"') => cell.extend(letters.next()),
            '"' => quoted = !quoted,
            ',' | '\n' if !quoted => cells.push(std::mem::take(&mut cell)),
            '\r' if !quoted => {}
            letter => cell.push(letter),
        }
    }
    cells.push(cell);
    cells
}

/// Each line of a log begins with the program's own time, and moves no terminal.
fn is_its_own(log: &str) {
    assert!(!log.is_empty());
    for line in log.lines() {
        let time = line.split(' ').next().unwrap_or_default();
        assert!(time.parse::<Time>().is_ok(), "{line:?}");
        assert!(!line.starts_with("2026-01-31T12:00:00.000000Z"), "forged: {line:?}");
        assert!(!line.chars().any(|letter| letter.is_control() && letter != '\t'), "{line:?}");
    }
}

/// A page in which nothing of a word ran, or was even tried.
async fn is_unharmed(browser: &Browser, path: &str) -> Result<()> {
    assert_eq!(browser.run("return window.owned === undefined").await?, true, "{path}");
    let stray = "return document.querySelectorAll(\
                 '[onerror],[onload],[onclick],a[href^=\"javascript:\"],img').length";
    assert_eq!(browser.run(stray).await?, 0, "{path} has elements of somebody else");
    let mut complaints = browser.complaints().await?;
    complaints.retain(|it| !it.contains("Failed to load resource"));
    assert!(complaints.is_empty(), "{path}: {complaints:#?}");
    Ok(())
}

#[tokio::test]
async fn words_stay_words_on_every_page_and_in_every_table_log_and_series() -> Result<()> {
    let liar = Liar::start().await?;
    let trap = liar.trap();
    let word = word(&trap);
    let servers = [Server::open("evil", &liar.base)];
    let poller = scene::poller(&servers, "log_level = \"trace\"").await?;
    poller.wait_for("evil", "online").await?;
    let (admin, app) = (&poller.admin, encoded(&word));

    // People's words: of another admin, say. Names take no commas and no control characters.
    let short: String =
        format!("=<script>{RAN}</script><b onclick={RAN}>").chars().take(64).collect();
    let user = json!({"name": short, "role": "admin", "password": "correct horse battery"});
    let token = json!({"name": format!("{short}t").chars().skip(1).collect::<String>(),
                       "role": "viewer", "groups": [short], "tags": [short]});
    let server = json!({"id": "noted", "url": "http://127.0.0.1:1", "group": short, "tags": [short],
                        "note": word});
    for (path, body) in [("/api/users", user), ("/api/tokens", token), ("/api/servers", server)] {
        let answer = admin.send(admin.request(reqwest::Method::POST, path).json(&body)).await?;
        assert_eq!(answer.status, 201, "{path}: {}", answer.text);
    }
    let act = format!("/api/commands/evil/apps/{app}/restart?wait=10s");
    let command: Value = admin.post(&act).await?.json()?;
    // What failed is a problem that names its record.
    let id = command["id"].as_str().or(command["command"].as_str());
    let command = id.with_context(|| command.to_string())?.to_owned();
    let deploy = json!({"repository": "https://git.test/x.git", "branch": "a<b>"});
    let request = admin.request(reqwest::Method::POST, "/api/commands/evil/slots/a/deploy?wait=5s");
    admin.send(request.json(&deploy)).await?;
    for refused in [format!("/api/users/{app}"), format!("/api/tokens/{app}")] {
        admin.send(admin.request(reqwest::Method::DELETE, &refused)).await?;
    }
    // A refusal of somebody without any right, by a path of their choosing.
    let nobody = poller.program.client();
    nobody.send(nobody.request(reqwest::Method::DELETE, &format!("/api/servers/{app}"))).await?;
    let events = wait_until("events came", SOON, async || {
        let events = poller.events("evil").await.ok()?;
        let words = events.into_iter().filter(|it| it["message"].to_string().contains("forged"));
        let words: Vec<Value> = words.collect();
        (words.len() >= 3).then_some(words)
    });
    let event = events.await?[0]["id"].to_string();

    let browser = Browser::start().await?;
    let base = poller.program.client().url("");
    // By name and password, as the person of that name.
    browser.open(&format!("{base}/login?next={}", encoded(&format!("javascript:{RAN}")))).await?;
    browser.fill("input[name=name]", &short).await?;
    browser.fill("input[name=password]", "correct horse battery").await?;
    browser.click("form:has(input[name=password]) button").await?;
    browser.find("header form[action='/logout']").await?;
    let mut fetched = 0;
    for path in [
        "/".to_owned(),
        format!("/?q={}", encoded(&word)),
        "/servers/evil".to_owned(),
        "/servers/noted".to_owned(),
        format!("/servers/evil/apps/{app}"),
        format!("/servers/evil/apps/{app}?range=24h"),
        format!("/servers/evil/apps/{app}/logs"),
        format!("/servers/evil/apps/{app}/logs?q={}", encoded(&word)),
        format!("/servers/evil/apps/{app}/restart"),
        "/servers/evil/slots/a".to_owned(),
        "/servers/evil/slots/a/deploy".to_owned(),
        "/events".to_owned(),
        format!("/events?app={app}"),
        format!("/events/{event}"),
        "/commands".to_owned(),
        format!("/commands/{command}"),
        "/audit".to_owned(),
        format!("/audit?who={}", encoded(&short)),
        "/sessions".to_owned(),
        format!("/login?next={}", encoded(&word)),
        format!("/login/first?key={}", encoded(&word)),
        format!("/{}", encoded(&word)),
        "/api/docs".to_owned(),
        format!("/api/servers/evil/apps/{app}/logs"),
        "/api/servers/evil/slots/a/deployments/d1/log".to_owned(),
        "/api/events?limit=5".to_owned(),
        "/metrics".to_owned(),
    ] {
        browser.open(&format!("{base}{path}")).await?;
        is_unharmed(&browser, &path).await?;
        // What is fetched again and put into the page is looked at as well.
        let marked = "const part = document.querySelector('main[data-stream] [data-live][id]'); \
                      if (part) { part.append(document.createElement('mark')); \
                      part.lastElementChild.id = 'former'; \
                      document.dispatchEvent(new Event('visibilitychange')); } return !!part";
        if browser.run(marked).await? == Value::Bool(true) {
            wait_until(&format!("{path} is fetched again"), SOON, async || {
                let gone = "return !document.getElementById('former')";
                (browser.run(gone).await.ok()? == Value::Bool(true)).then_some(())
            })
            .await?;
            fetched += 1;
            is_unharmed(&browser, &path).await?;
        }
    }
    assert!(fetched >= 5, "{fetched} pages were fetched again");
    assert_eq!(liar.trapped.load(Ordering::SeqCst), 0, "a page asked where a word led it");

    // Tables: no cell is a formula.
    for path in [
        "/api/audit?format=csv".to_owned(),
        format!("/api/servers/evil/apps/{app}/metrics?format=csv&from=1h"),
    ] {
        let table = admin.get(&path).await?.ok()?;
        assert!(table.contains("'="), "{path} has no such word, so nothing is shown: {table}");
        for cell in cells(&table) {
            let number = cell.parse::<f64>().is_ok();
            assert!(
                number || !cell.starts_with(['=', '+', '-', '@', '\t', '\r']),
                "{path}: {cell}"
            );
        }
    }
    // Series: whatever the words hold, what is read is what was meant.
    let page = poller
        .metrics_with("the word is a label", |page| {
            page.iter().any(|series| series.labels.values().any(|value| *value == word))
        })
        .await?;
    assert!(page.iter().all(|series| series.name != "pm2_forged"));
    e2e::openmetrics::samples(
        &admin
            .send(
                admin
                    .request(reqwest::Method::GET, "/metrics")
                    .header("accept", "application/openmetrics-text;version=1.0.0"),
            )
            .await?
            .ok()?,
    )?;
    // Headers: nothing of a word is one.
    for path in [format!("/api/servers/evil/apps/{app}/logs"), format!("/servers/evil/apps/{app}")]
    {
        let answer = admin.get(&path).await?;
        assert_eq!(answer.header("x-frame-options"), "DENY", "{path}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert!(!answer.headers.contains_key("pm2_forged"), "{path}");
    }
    let log = poller.program.stop(SOON).await?.stderr;
    is_its_own(&log);
    Ok(())
}

#[tokio::test]
async fn an_application_forges_nothing_at_its_exporter() -> Result<()> {
    let (word, text) = (word("http://127.0.0.1:1/trap"), text("http://127.0.0.1:1/trap"));
    let mut process = pm2_process::process(0, &word, std::process::id());
    let env = &mut process["pm2_env"];
    for (field, value) in [
        ("namespace", json!(word)),
        ("version", json!(text)),
        ("exec_interpreter", json!(text)),
        ("node_version", json!(text)),
        ("exec_mode", json!(text)),
        ("axm_monitor", json!({text.clone(): {"value": "1", "unit": text, "type": text}})),
        ("versioning", json!({"url": text, "revision": text, "branch": text, "comment": text})),
    ] {
        env[field] = value;
    }
    let fake = FakePm2::start(vec![process.clone()])?;
    let launch = e2e::Launch::exporter()?.pm2_home(fake.home());
    let exporter = launch.configuration("log_level = \"trace\"")?.start().await?;
    let client = exporter.client();
    wait_until("the application is known", SOON, async || {
        let state = client.get("/api/processes").await.ok()?;
        (state.text.contains("svg onload") && fake.subscribers() > 0).then_some(())
    })
    .await?;
    let about = process["pm2_env"].clone();
    let thrown = json!({"message": text, "stack": text, "name": text});
    fake.publish("process:exception", &json!({"process": about, "at": 1, "data": thrown}));
    fake.publish("log:err", &json!({"process": about, "at": 1, "data": text}));
    fake.publish_event("exit", &process);
    fake.publish(&word, &json!({"process": about, "data": text}));
    wait_until("its exception is told", SOON, async || {
        let journal = client.get("/api/journal?after=0").await.ok()?;
        journal.text.contains("\"exception\"").then_some(())
    })
    .await?;
    let page = client.get("/metrics").await?.ok()?;
    let series = Metrics::parse(&page)?;
    assert!(series.iter().any(|it| it.labels.get("name") == Some(&word)), "{page}");
    assert!(series.iter().all(|it| it.name != "pm2_forged"), "{page}");
    let request = client.request(reqwest::Method::GET, "/metrics");
    let open = request.header("accept", "application/openmetrics-text;version=1.0.0");
    e2e::openmetrics::samples(&client.send(open).await?.ok()?)?;
    let browser = Browser::start().await?;
    for path in [
        "/".to_owned(),
        "/metrics".to_owned(),
        "/api/state".to_owned(),
        "/api/journal".to_owned(),
        format!("/api/processes/{}", encoded(&word)),
        format!("/api/processes/{}/logs", encoded(&word)),
        format!("/{}", encoded(&word)),
    ] {
        browser.open(&client.url(&path)).await?;
        is_unharmed(&browser, &path).await?;
    }
    is_its_own(&exporter.stop(SOON).await?.stderr);
    Ok(())
}
