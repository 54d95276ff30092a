//! Alerts that the poller tells by itself, to receivers that take them, refuse, fail, hang or ask
//! to be left alone.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use pm2_poller::notify::receiver::{Address, Kind, Receiver};
use serde_json::Value;

use crate::support::exporter::Manner;
use crate::support::{Exporter, Poller, config, until};

/// How the receiver answers.
#[derive(Clone, Copy, Debug, Default)]
enum Mood {
    #[default]
    Takes,
    Status(StatusCode),
    /// 429, and how many seconds it wants to be left alone.
    Limits(u64),
    Redirects,
    Hangs,
}

/// Something that takes webhooks.
#[derive(Clone, Default)]
struct Hook {
    url: String,
    mood: Arc<Mutex<Mood>>,
    /// Everything that was sent, taken or not.
    sent: Arc<Mutex<Vec<(Instant, HeaderMap, Value)>>>,
    /// What was taken.
    taken: Arc<Mutex<Vec<Value>>>,
}

impl Hook {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let hook = Self { url, ..Self::default() };
        let router = Router::new().fallback(take).with_state(hook.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        hook
    }

    fn set(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    fn taken(&self) -> Vec<Value> {
        self.taken.lock().unwrap().clone()
    }

    fn sent(&self) -> usize {
        self.sent.lock().unwrap().len()
    }

    /// Status and summary of all alerts that were taken, in order.
    fn told(&self) -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let alerts = self.taken().into_iter();
        alerts
            .flat_map(|message| message["alerts"].as_array().unwrap().clone())
            .map(|alert| (text(&alert["status"]), text(&alert["summary"])))
            .collect()
    }

    async fn until_told(&self, expected: &[(&str, &str)]) {
        let expected: Vec<(String, String)> =
            expected.iter().map(|(status, text)| (status.to_string(), text.to_string())).collect();
        until(&format!("{expected:?}"), async || self.told() == expected).await;
    }

    /// A receiver of it that waits for nothing.
    fn receiver(&self, name: &str) -> Receiver {
        Receiver {
            name: name.to_owned(),
            kind: Kind::Webhook(None),
            address: Address(format!("{}/canary-path", self.url).parse().unwrap()),
            headers: Vec::new(),
            tls: None,
            severities: Default::default(),
            alerts: ["Pm2ServerDown"].into(),
            servers: Default::default(),
            groups: Default::default(),
            tags: Default::default(),
            hold: Some(Duration::ZERO),
            group_wait: Duration::ZERO,
            repeat_interval: Duration::from_secs(3600),
            resolved: true,
            // A late answer is taken for none, and what was told is told again.
            timeout: Duration::from_secs(20),
            runbook_url: None,
            page_url: None,
        }
    }
}

async fn take(State(hook): State<Hook>, headers: HeaderMap, body: Bytes) -> Response {
    let body: Value = serde_json::from_slice(&body).unwrap();
    hook.sent.lock().unwrap().push((Instant::now(), headers, body.clone()));
    let mood = *hook.mood.lock().unwrap();
    match mood {
        Mood::Takes => {
            hook.taken.lock().unwrap().push(body);
            StatusCode::OK.into_response()
        }
        Mood::Status(status) => (status, "canary-answer").into_response(),
        Mood::Limits(seconds) => {
            let wait = [(header::RETRY_AFTER, seconds.to_string())];
            (StatusCode::TOO_MANY_REQUESTS, wait).into_response()
        }
        Mood::Redirects => {
            let there = [(header::LOCATION, format!("{}/elsewhere", hook.url))];
            (StatusCode::TEMPORARY_REDIRECT, there).into_response()
        }
        Mood::Hangs => std::future::pending().await,
    }
}

const DOWN: (&str, &str) = ("firing", "vm1 does not answer");
const BACK: (&str, &str) = ("resolved", "vm1 does not answer");

/// A poller of one server that does not answer, with these receivers.
async fn with_a_server_down(receivers: Vec<Receiver>) -> (Exporter, Poller) {
    let exporter = Exporter::start().await;
    exporter.set(Manner::Hang);
    let mut config = config(vec![exporter.target("vm1")]);
    config.notify = receivers.into_iter().map(Arc::new).collect();
    (exporter, Poller::with(config).await)
}

async fn deliveries(poller: &Poller, receiver: &str, result: &str) -> f64 {
    let page = poller.get("/metrics").await.body;
    let series =
        format!("pm2_poller_notifications_total{{receiver={receiver:?},result={result:?}}} ");
    let line = page.lines().find_map(|line| line.strip_prefix(&series));
    // None yet: the poller listens before it notifies.
    line.map_or(0.0, |count| count.parse().unwrap())
}

#[tokio::test]
async fn an_alert_is_told_once_and_so_is_its_end() {
    let hook = Hook::start().await;
    let mut key = HeaderValue::from_static("canary-key");
    key.set_sensitive(true);
    let keyed =
        Receiver { headers: vec![("x-key".parse().unwrap(), key)], ..hook.receiver("team") };
    let (exporter, poller) = with_a_server_down(vec![keyed]).await;
    hook.until_told(&[DOWN]).await;
    let message = hook.taken().remove(0);
    assert_eq!(message["alerts"][0]["labels"]["server"], "vm1");
    assert_eq!(message["alerts"][0]["severity"], "critical");
    let said = message["alerts"][0]["description"].as_str().unwrap();
    assert!(said.contains("has never answered: no answer within"), "{said}");
    assert_eq!(hook.sent.lock().unwrap()[0].1["x-key"], "canary-key");
    exporter.set(Manner::Good);
    hook.until_told(&[DOWN, BACK]).await;
    until("both count", async || deliveries(&poller, "team", "success").await == 2.0).await;
    until("nothing waits", async || {
        let page = poller.get("/metrics").await.body;
        page.contains("pm2_poller_notify_waiting_alerts{receiver=\"team\"} 0")
    })
    .await;
    let page = poller.get("/metrics").await.body;
    assert!(page.contains("pm2_poller_notify_last_success_timestamp_seconds{receiver=\"team\"} 1"));
    assert!(!page.contains("canary"), "{page}");
}

#[tokio::test]
async fn a_restart_tells_nothing_twice_and_forgets_no_end() {
    let hook = Hook::start().await;
    let (exporter, poller) = with_a_server_down(vec![hook.receiver("team")]).await;
    hook.until_told(&[DOWN]).await;
    let poller = poller.restart(None).await;
    poller.until_server("vm1", |server| server["reason"] == "timeout").await;
    let poller = poller.restart(None).await;
    poller.until_server("vm1", |server| server["reason"] == "timeout").await;
    // It ends while the poller is away.
    let (config, folder) = (poller.config.clone(), poller.stop().await);
    exporter.set(Manner::Good);
    let poller = Poller::with_folder(folder, config).await;
    hook.until_told(&[DOWN, BACK]).await;
    assert_eq!(hook.sent(), 2);
    poller.stop().await;
}

#[tokio::test]
async fn one_that_fails_is_asked_again_and_hears_how_things_are_then() {
    let hook = Hook::start().await;
    hook.set(Mood::Status(StatusCode::INTERNAL_SERVER_ERROR));
    let (exporter, poller) = with_a_server_down(vec![hook.receiver("team")]).await;
    until("it failed twice", async || deliveries(&poller, "team", "failed").await >= 2.0).await;
    let page = poller.get("/metrics").await.body;
    assert!(page.contains("pm2_poller_notify_waiting_alerts{receiver=\"team\"} 1"), "{page}");
    hook.set(Mood::Takes);
    hook.until_told(&[DOWN]).await;
    let times: Vec<Instant> = hook.sent.lock().unwrap().iter().map(|sent| sent.0).collect();
    assert!(times[1] - times[0] >= Duration::from_secs(1), "a second, then two");
    assert!(times[2] - times[1] >= Duration::from_secs(2), "a second, then two");
    exporter.set(Manner::Good);
    hook.until_told(&[DOWN, BACK]).await;
}

#[tokio::test]
async fn each_way_to_fail_is_counted_and_holds_nobody_else_up() {
    let good = Hook::start().await;
    let (limits, hangs, refuses, redirects) =
        (Hook::start().await, Hook::start().await, Hook::start().await, Hook::start().await);
    limits.set(Mood::Limits(600));
    hangs.set(Mood::Hangs);
    refuses.set(Mood::Status(StatusCode::FORBIDDEN));
    redirects.set(Mood::Redirects);
    let gone = Receiver {
        address: Address("http://127.0.0.1:1/canary-path".parse().unwrap()),
        ..good.receiver("gone")
    };
    let receivers = vec![
        limits.receiver("limits"),
        Receiver { timeout: Duration::from_millis(300), ..hangs.receiver("hangs") },
        refuses.receiver("refuses"),
        redirects.receiver("redirects"),
        gone,
        good.receiver("good"),
    ];
    let (_exporter, poller) = with_a_server_down(receivers).await;
    good.until_told(&[DOWN]).await;
    for (receiver, result, least) in [
        ("hangs", "timeout", 2.0),
        ("refuses", "refused", 2.0),
        ("redirects", "refused", 2.0),
        ("gone", "connect", 2.0),
        ("limits", "limited", 1.0),
    ] {
        until(receiver, async || deliveries(&poller, receiver, result).await >= least).await;
    }
    assert_eq!(limits.sent(), 1, "it wants to be left alone for ten minutes");
    let lists: Vec<Hook> = vec![refuses, redirects];
    assert!(lists.iter().all(|hook| hook.sent() >= 2 && hook.taken().is_empty()));
    // Nothing of what is on its way keeps the program from ending.
    poller.stop().await;
}

#[tokio::test]
async fn filters_groups_and_repeats() {
    let hook = Hook::start().await;
    let other = Hook::start().await;
    let elsewhere = Receiver { groups: ["us".to_owned()].into(), ..other.receiver("elsewhere") };
    let again = Receiver { repeat_interval: Duration::from_secs(1), ..hook.receiver("again") };
    let together = Hook::start().await;
    let grouped = Receiver { group_wait: Duration::from_secs(5), ..together.receiver("grouped") };
    let (one, two) = (Exporter::start().await, Exporter::start().await);
    let mut config = config(vec![one.target("vm1"), two.target("vm2")]);
    config.notify = [elsewhere, again, grouped].into_iter().map(Arc::new).collect();
    let poller = Poller::with(config).await;
    poller.until_status("vm1", "online").await;
    poller.until_status("vm2", "online").await;
    one.set(Manner::Hang);
    two.set(Manner::Hang);
    until("told in one message", async || !together.taken().is_empty()).await;
    assert_eq!(together.taken()[0]["firing"], 2, "{:?}", together.taken());
    let is_down = |told: &&(String, String)| (told.0.as_str(), told.1.as_str()) == DOWN;
    until("told again", async || hook.told().iter().filter(is_down).count() >= 2).await;
    assert_eq!(other.sent(), 0);
}

#[tokio::test]
async fn receivers_come_and_go_with_the_configuration() {
    let (first, second) = (Hook::start().await, Hook::start().await);
    let (_exporter, poller) = with_a_server_down(vec![first.receiver("first")]).await;
    first.until_told(&[DOWN]).await;
    let mut config = poller.config.clone();
    config.notify = vec![Arc::new(second.receiver("second"))];
    *poller.next_config.lock().unwrap() = Ok(config);
    poller.reload.send(()).await.unwrap();
    second.until_told(&[DOWN]).await;
    until("the first is gone", async || {
        let page = poller.get("/metrics").await.body;
        page.contains("receiver=\"second\"") && !page.contains("receiver=\"first\"")
    })
    .await;
    assert_eq!(first.sent(), 1);
}

#[tokio::test]
async fn alertmanager_and_slack_get_their_shapes() {
    let hook = Hook::start().await;
    let am = Receiver { kind: Kind::Alertmanager, ..hook.receiver("am") };
    let (_exporter, _poller) = with_a_server_down(vec![am]).await;
    until("a post", async || !hook.taken().is_empty()).await;
    let alerts = hook.taken().remove(0);
    assert_eq!(alerts[0]["labels"]["alertname"], "Pm2ServerDown");
    assert!(alerts[0]["endsAt"].as_str() > alerts[0]["startsAt"].as_str(), "{alerts}");
    let hook = Hook::start().await;
    let slack = Receiver { kind: Kind::Slack, ..hook.receiver("slack") };
    let (_exporter, poller) = with_a_server_down(vec![slack]).await;
    until("a post", async || !hook.taken().is_empty()).await;
    let text = hook.taken().remove(0)["text"].as_str().unwrap().to_owned();
    assert!(text.starts_with("*PM2: 1 firing*\n*FIRING critical:* vm1 does not answer"), "{text}");
    assert_eq!(poller.ask(Method::GET, "/healthz", &[]).await.status, StatusCode::OK);
}
