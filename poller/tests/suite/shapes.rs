//! The shapes that others read, as golden files. `UPDATE_GOLDEN=1` writes them anew.

use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use crate::support::{Exporter, PATIENCE, Poller, config, target, until};
use pm2_poller::access::Role;
use serde_json::Value;
use wire::EventKind;

/// Puts words in place of what differs from run to run.
fn without_accidents(value: &mut Value, key: &str, exporter: &str) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields.iter_mut() {
                without_accidents(value, name, exporter);
            }
        }
        Value::Array(items) => {
            for item in items {
                without_accidents(item, key, exporter);
            }
        }
        Value::String(text) => {
            if text.parse::<wire::Time>().is_ok() {
                *text = "TIME".into();
            } else if text.len() == 36 && text.matches('-').count() == 4 {
                *text = "UUID".into();
            } else if text.len() == 64 && text.bytes().all(|it| it.is_ascii_hexdigit()) {
                *text = "HASH".into();
            } else {
                *text = text.replace(exporter, "EXPORTER");
            }
        }
        Value::Number(_) if key == "cursor" => *value = "CURSOR".into(),
        _ => {}
    }
    if key == "cursor" && value.is_string() {
        *value = "CURSOR".into();
    }
}

fn golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, expected, "{} differs", path.display());
}

#[tokio::test]
async fn answers_have_the_shape_of_the_contract() {
    let exporter = Exporter::start().await;
    let gone = target("gone", "http://127.0.0.1:9");
    let mut config = config(vec![exporter.target("vm1"), gone]);
    // One that never answered is told to be offline after this time.
    config.timing.stale_after = Duration::from_secs(8);
    let poller = Poller::with(config).await;
    poller.until_status("vm1", "online").await;
    poller.until_server("gone", |it| it["reason"] == "connect").await;
    poller.until_kinds("kind=server_offline", &["server_offline"]).await;
    let token = poller.token("ci", Role::Admin, &["vm1", "gone"]).await;
    let command = poller.post_as(&token, "/api/commands/vm1/apps/api/restart").await;
    let refused = poller.post_as(&token, "/api/commands/gone/apps/api/stop").await;
    exporter.event(EventKind::EXIT, "api exited");
    exporter.sample(1.0);
    let history = "/api/servers/vm1/apps/api/metrics?metric=memory&from=5m&step=1h";
    until("the sample", async || {
        let series = poller.get_as(&token, history).await.json();
        series["series"].as_array().is_some_and(|series| !series.is_empty())
    })
    .await;
    let address = exporter.address.to_string();
    let check = |name: &str, mut json: Value| {
        without_accidents(&mut json, "", &address);
        golden(&format!("{name}.json"), &format!("{json:#}\n"));
    };
    check("command", command.json());
    check("command_problem", refused.json());
    for (name, path) in [
        ("servers", "/api/servers"),
        ("server", "/api/servers/vm1"),
        ("slots", "/api/servers/vm1/slots"),
        ("slot", "/api/servers/vm1/slots/a"),
        ("deployments", "/api/servers/vm1/slots/a/deployments"),
        ("apps", "/api/servers/vm1/apps"),
        ("app", "/api/servers/vm1/apps/api"),
        ("history", history),
        ("events", "/api/events?kind=exit&limit=1"),
        ("commands", "/api/commands?limit=1"),
        ("audit", "/api/audit?limit=2"),
        ("me", "/api/me"),
        ("discovery", "/sd/prometheus"),
        ("problem", "/api/servers/vm9"),
    ] {
        check(name, poller.get_as(&token, path).await.json());
    }
    let body = serde_json::json!({"env": {"B": "2", "A": "1"}});
    let path = "/api/commands/vm1/apps/api/env?save=true";
    let with = poller.post_json(&token, path, &body, None).await;
    check("command_env", with.json());
    let page = poller.get_as(&token, "/metrics").await.body;
    // The exporters' own are exposition's to list.
    let ours = |name: &&str| name.starts_with("pm2_server_") || name.starts_with("pm2_poller_");
    let names = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")).filter(ours);
    let names: Vec<&str> = names.collect();
    golden("metrics.txt", &format!("{}\n", names.join("\n")));
}

#[tokio::test]
async fn metrics_are_packed_once_for_those_who_take_that() {
    let exporter = Exporter::start().await;
    let poller = Poller::start(vec![exporter.target("vm1")]).await;
    poller.until_status("vm1", "online").await;
    let client = reqwest::Client::builder().gzip(false).build().unwrap();
    let ask = async |accepted: &str| {
        let request = client.get(format!("{}/metrics", poller.base));
        let answer = request.header("accept-encoding", accepted).send().await.unwrap();
        let coded =
            answer.headers().get("content-encoding").map(|it| it.to_str().unwrap() == "gzip");
        assert_eq!(answer.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
        (coded, answer.bytes().await.unwrap())
    };
    let (coded, plain) = ask("identity, gzip;q=0").await;
    assert!(coded.is_none() && plain.starts_with(b"# "));
    let (coded, packed) = ask("gzip, br").await;
    assert_eq!((coded, packed[..2].to_vec()), (Some(true), vec![0x1f, 0x8b]));
    let mut page = String::new();
    flate2::read::GzDecoder::new(&packed[..]).read_to_string(&mut page).unwrap();
    assert!(page.contains("pm2_server_up{server=\"vm1\"} 1\n"), "{page}");
}

#[tokio::test]
async fn events_are_streamed_as_they_are_stored() {
    let exporter = Exporter::start().await;
    let poller = Poller::start(vec![exporter.target("vm1"), exporter.target("vm2")]).await;
    poller.until_status("vm1", "online").await;
    poller.until_status("vm2", "online").await;
    let mut stream = poller.stream("/api/events/stream?server=vm1&kind=exit").await;
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    exporter.event(EventKind::ONLINE, "not asked for");
    exporter.event(EventKind::EXIT, "asked for");
    let mut text = String::new();
    // First where it begins, without data.
    while !(text.contains("data: ") && text.ends_with("\n\n")) {
        let piece = tokio::time::timeout(PATIENCE, stream.chunk()).await.unwrap().unwrap();
        text.push_str(std::str::from_utf8(&piece.unwrap()).unwrap());
    }
    let data = text.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
    let event: Value = serde_json::from_str(data).unwrap();
    assert_eq!((&event["server"], &event["message"]), (&"vm1".into(), &"asked for".into()));
    assert!(text.contains(&format!("id: {}\n", event["id"])), "{text}");
    assert!(poller.get("/metrics").await.body.contains("pm2_poller_event_streams 1"));
    poller.stop().await;
    let end = tokio::time::timeout(PATIENCE, stream.chunk()).await.unwrap();
    assert!(!matches!(end, Ok(Some(_))), "a stop ends the stream: {end:?}");
}

#[tokio::test]
async fn pages_are_made_and_show_what_is_known() {
    let exporter = Exporter::start().await;
    exporter.event(EventKind::EXIT, "<script>alert(1)</script>");
    exporter.sample(1.0);
    let poller = Poller::start(vec![exporter.target("vm1")]).await;
    poller.until_status("vm1", "online").await;
    poller.until_kinds("kind=exit", &["exit"]).await;
    for (path, words) in [
        ("/", "vm1"),
        ("/?q=api&group=&tag=&status=online", "vm1"),
        ("/servers/vm1", "slot-a"),
        ("/servers/vm1/apps/api", "api"),
        ("/events?server=vm1&app=&kind=&severity=&since=1h", "exit"),
        ("/commands", "ommands"),
        ("/login", "token"),
    ] {
        let page = poller.get(path).await;
        assert_eq!(page.status, 200, "{path}");
        assert_eq!(page.header("content-type"), "text/html; charset=utf-8", "{path}");
        assert!(page.body.contains(words), "{path}: {}", page.body);
        assert!(!page.body.contains("<script>alert"), "{path}: {}", page.body);
    }
    for (path, status) in [
        ("/servers/vm9", 404),
        ("/servers/vm1/apps/nope", 404),
        ("/?status=well", 400),
        ("/events?since=yesterday", 200),
        ("/commands?status=well", 200),
    ] {
        let page = poller.get(path).await;
        assert_eq!(page.status, status, "{path}");
        assert_eq!(page.header("content-type"), "text/html; charset=utf-8", "{path}");
    }
    let wrong = poller.get("/events?since=yesterday").await.body;
    assert!(wrong.contains("is neither a time"), "{wrong}");
}

#[tokio::test]
async fn pages_of_metrics_are_made_two_at_a_time_and_others_wait_their_turn() {
    let poller = Poller::start(Vec::new()).await;
    let scrapes = || std::sync::Arc::clone(&poller.app.scrapes);
    let both = scrapes().try_acquire_many_owned(2).unwrap();
    assert!(scrapes().try_acquire_owned().is_err());
    let mut scraped = std::pin::pin!(poller.get("/metrics"));
    let early = tokio::time::timeout(Duration::from_millis(300), &mut scraped).await;
    assert!(early.is_err(), "{early:?}");
    drop(both);
    let page = scraped.await;
    assert!(page.status == 200 && page.body.contains("pm2_poller_build_info"), "{page:?}");
    let _both = scrapes().try_acquire_many_owned(2).unwrap();
    let refused = poller.get("/metrics").await;
    assert!(refused.status == 503 && refused.json()["type"] == "busy", "{refused:?}");
}
