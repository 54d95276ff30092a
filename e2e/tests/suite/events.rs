//! What happens to an application arrives at the poller: in order, once, whoever was away.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use e2e::scene::{self, Server, Watcher, wait_for_instances};
use e2e::{Pm2, SOON, process, wait_until};
use rustix::process::Signal;
use serde_json::{Value, json};
use wire::Status;

/// Kinds of the events of an app, oldest first, without what it began with.
async fn kinds(poller: &Watcher, app: &str) -> Result<Vec<String>> {
    let events = poller.events("vm1").await?;
    let kinds = events.iter().filter(|event| event["app"] == app);
    Ok(kinds.filter_map(|event| Some(event["kind"].as_str()?.to_owned())).collect())
}

async fn wait_for_kinds(poller: &Watcher, app: &str, wanted: &[&str]) -> Result<()> {
    let last = std::sync::Mutex::new(Vec::new());
    wait_until(&format!("{wanted:?} of {app} at the poller"), SOON, async || {
        let kinds = kinds(poller, app).await.ok()?;
        let enough = kinds.len() >= wanted.len();
        if let Ok(mut last) = last.lock() {
            *last = kinds;
        }
        enough.then_some(())
    })
    .await
    .with_context(|| format!("last seen: {last:?}"))?;
    assert_eq!(kinds(poller, app).await?, wanted);
    Ok(())
}

/// Kills an app and waits until PM2 has it online again.
async fn kill(pm2: &Pm2, name: &str) -> Result<()> {
    let pid = pm2.pid_of(name)?;
    process::signal(pid, Signal::KILL);
    wait_until("PM2 has started it again", SOON, async || {
        pm2.pid_of(name).is_ok_and(|new| new != pid).then_some(())
    })
    .await?;
    pm2.wait_for(name, "online", 1).await?;
    Ok(())
}

fn numbers_rise(events: &[Value]) {
    let ids: Vec<i64> = events.iter().filter_map(|event| event["id"].as_i64()).collect();
    let different: BTreeSet<i64> = ids.iter().copied().collect();
    assert_eq!(ids.len(), different.len(), "an event is there twice: {ids:?}");
    let times: Vec<&str> = events.iter().filter_map(|event| event["time"].as_str()).collect();
    assert!(times.is_sorted(), "{times:?}");
}

#[tokio::test]
async fn a_killed_app_is_an_exit_with_its_signal_and_an_online_once_and_in_order() -> Result<()> {
    let pm2 = Pm2::start().await?;
    pm2.start_apps(vec![json!({"name": "web", "script": "web.js"})]).await?;
    let exporter = scene::guarded_exporter(pm2.home(), "").await?;
    wait_for_instances(&exporter.read, "web", Status::Online, 1).await?;
    let poller = scene::poller(&[Server::of("vm1", &exporter)], "").await?;
    poller.wait_for("vm1", "online").await?;

    kill(&pm2, "web").await?;
    wait_for_kinds(&poller, "web", &["exit", "online"]).await?;
    kill(&pm2, "web").await?;
    wait_for_kinds(&poller, "web", &["exit", "online", "exit", "online"]).await?;

    let events = poller.events("vm1").await?;
    numbers_rise(&events);
    for exit in events.iter().filter(|event| event["kind"] == "exit") {
        assert_eq!(exit["signal"], "SIGKILL", "{exit}");
        assert_eq!(exit.get("exit_code"), None, "no code where a signal ended it: {exit}");
        assert_eq!(exit["cause"], "crash", "{exit}");
        assert_eq!(exit["server"], "vm1");
    }
    let path = "/api/events?server=vm1&app=web&kind=exit&limit=1";
    let filtered: Value = poller.admin.json(path).await?;
    assert_eq!(filtered["events"].as_array().map(Vec::len), Some(1), "{filtered}");
    assert_eq!(filtered["events"][0]["kind"], "exit");
    Ok(())
}

#[tokio::test]
async fn an_exit_carries_the_last_words_of_its_own_run_only() -> Result<()> {
    let pm2 = Pm2::start().await?;
    let exporter = scene::exporter(pm2.home()).await?;
    pm2.start_apps(vec![json!({
        "name": "app", "script": "last-words.js", "max_restarts": 4, "min_uptime": 60_000,
    })])
    .await?;
    wait_for_instances(exporter.client(), "app", Status::Errored, 1).await?;
    let page: wire::JournalPage = exporter.client().json("/api/journal?after=0").await?;
    let exits = page.entries.into_iter().filter_map(|entry| match entry.record {
        wire::Record::Event(event) if event.kind == wire::EventKind::EXIT => Some(event),
        _ => None,
    });
    let words: Vec<String> =
        exits.map(|exit| exit.details.get("stderr").cloned().unwrap_or_default()).collect();
    assert!(words.len() >= 4, "{words:?}");
    assert!(words.iter().all(|words| words.lines().count() == 1), "{words:?}");
    assert_eq!(words.iter().collect::<BTreeSet<_>>().len(), words.len(), "{words:?}");
    Ok(())
}

#[tokio::test]
async fn an_exit_by_itself_has_its_code() -> Result<()> {
    let pm2 = Pm2::start().await?;
    let port = e2e::Port::free()?;
    pm2.start_apps(vec![json!({"name": "crash", "script": "crash.js",
                               "env": {"PORT": port.number().to_string()}})])
        .await?;
    let exporter = scene::guarded_exporter(pm2.home(), "").await?;
    wait_for_instances(&exporter.read, "crash", Status::Online, 1).await?;
    let poller = scene::poller(&[Server::of("vm1", &exporter)], "").await?;
    poller.wait_for("vm1", "online").await?;
    let app = e2e::Client::new(format!("http://{}", port.address()))?;
    wait_until("the app listens", SOON, async || app.get("/").await.ok()).await?;
    app.get("/exit?code=42").await?.ok()?;
    wait_for_kinds(&poller, "crash", &["exit", "online"]).await?;
    let events = poller.events("vm1").await?;
    let exit = events.iter().find(|event| event["kind"] == "exit").context("no exit")?;
    assert_eq!(exit["exit_code"], 42, "{exit}");
    assert_eq!(exit.get("signal"), None, "{exit}");

    wait_until("the app listens again", SOON, async || app.get("/").await.ok()).await?;
    app.get("/throw").await?.ok()?;
    wait_until("the exception is told", SOON, async || {
        kinds(&poller, "crash").await.ok()?.contains(&"exception".to_owned()).then_some(())
    })
    .await?;
    let events = poller.events("vm1").await?;
    let thrown = events.iter().find(|event| event["kind"] == "exception").context("none")?;
    assert!(
        thrown["message"].as_str().is_some_and(|text| text.contains("asked to throw")),
        "{thrown}"
    );
    assert!(
        thrown["details"]["stack"].as_str().is_some_and(|text| text.contains("crash.js")),
        "{thrown}"
    );
    Ok(())
}

#[tokio::test]
async fn what_happened_while_the_poller_was_down_is_told_once() -> Result<()> {
    let pm2 = Pm2::start().await?;
    pm2.start_apps(vec![json!({"name": "web", "script": "web.js"})]).await?;
    let exporter = scene::guarded_exporter(pm2.home(), "sample_interval = \"1s\"").await?;
    wait_for_instances(&exporter.read, "web", Status::Online, 1).await?;
    let poller = scene::poller(&[Server::of("vm1", &exporter)], "").await?;
    poller.wait_for("vm1", "online").await?;
    kill(&pm2, "web").await?;
    wait_for_kinds(&poller, "web", &["exit", "online"]).await?;

    let Watcher { program, admin, token } = poller;
    let launch = program.launch();
    let ended = program.stop(SOON).await?;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    for _ in 0..2 {
        kill(&pm2, "web").await?;
    }
    let poller = Watcher { program: launch.clone().start().await?, admin, token };
    let six = ["exit", "online", "exit", "online", "exit", "online"];
    wait_for_kinds(&poller, "web", &six).await?;

    // And after the poller had no time to say farewell.
    let Watcher { program, admin, token } = poller;
    program.kill();
    kill(&pm2, "web").await?;
    let poller = Watcher { program: launch.start().await?, admin, token };
    let eight = [&six[..], &["exit", "online"]].concat();
    wait_for_kinds(&poller, "web", &eight).await?;
    numbers_rise(&poller.events("vm1").await?);
    Ok(())
}

#[tokio::test]
async fn a_crash_loop_ends_with_errored() -> Result<()> {
    let pm2 = Pm2::start().await?;
    let exporter = scene::guarded_exporter(pm2.home(), "").await?;
    let poller = scene::poller(&[Server::of("vm1", &exporter)], "").await?;
    poller.wait_for("vm1", "online").await?;
    let app =
        json!({"name": "loop", "script": "crash-loop.js", "max_restarts": 2, "min_uptime": 60_000});
    pm2.start_apps(vec![app]).await?;
    pm2.wait_for("loop", "errored", 1).await?;
    wait_until("it is told that PM2 gave up", SOON, async || {
        kinds(&poller, "loop").await.ok()?.contains(&"errored".to_owned()).then_some(())
    })
    .await?;
    let events = poller.events("vm1").await?;
    let of_app: Vec<&Value> = events.iter().filter(|event| event["app"] == "loop").collect();
    let exits = of_app.iter().filter(|event| event["kind"] == "exit").count();
    let starts = of_app.iter().filter(|event| event["kind"] == "online").count();
    assert_eq!(exits, starts, "{of_app:?}");
    let last = of_app.last().context("none")?;
    assert_eq!(
        (last["kind"].as_str(), last["severity"].as_str()),
        (Some("errored"), Some("critical"))
    );
    let codes = of_app.iter().filter(|event| event["kind"] == "exit");
    assert!(codes.clone().all(|event| event["exit_code"] == 7), "{of_app:?}");
    Ok(())
}

#[tokio::test]
async fn an_exporter_that_was_started_again_is_taken_up_anew() -> Result<()> {
    let pm2 = Pm2::start().await?;
    pm2.start_apps(vec![json!({"name": "web", "script": "web.js"})]).await?;
    let exporter = scene::guarded_exporter(pm2.home(), "").await?;
    wait_for_instances(&exporter.read, "web", Status::Online, 1).await?;
    let poller = scene::poller(&[Server::of("vm1", &exporter)], scene::UNHURRIED).await?;
    poller.wait_for("vm1", "online").await?;
    kill(&pm2, "web").await?;
    wait_for_kinds(&poller, "web", &["exit", "online"]).await?;

    let launch = exporter.program.launch();
    exporter.program.stop(SOON).await?;
    wait_until("it is told that the server is offline", SOON, async || {
        let events = poller.events("vm1").await.ok()?;
        events.iter().any(|event| event["kind"] == "server_offline").then_some(())
    })
    .await?;
    poller.wait_for("vm1", "offline").await?;
    let program = launch.start().await?;
    poller.wait_for("vm1", "online").await?;
    wait_for_instances(&program.client().with_token(&exporter.token), "web", Status::Online, 1)
        .await?;
    kill(&pm2, "web").await?;
    wait_for_kinds(&poller, "web", &["exit", "online", "exit", "online"]).await?;
    let events = poller.events("vm1").await?;
    let about: Vec<&str> = events
        .iter()
        .filter_map(|event| event["kind"].as_str())
        .filter(|kind| kind.starts_with("server_") || *kind == "exporter_started")
        .collect();
    let count = |wanted: &str| about.iter().filter(|kind| **kind == wanted).count();
    let counts = (count("server_online"), count("server_offline"), count("exporter_started"));
    assert_eq!(counts, (2, 1, 2), "{about:?}");
    Ok(())
}
