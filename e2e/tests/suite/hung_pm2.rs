//! A PM2 daemon that hangs, comes back, dies and is started again.

use std::time::Duration;

use anyhow::{Context, Result};
use e2e::scene::{self, metrics, wait_for_instances};

use e2e::{Client, FakePm2, Mode, Pm2, SOON, Stopwatch, pm2_process, process, wait_until};
use reqwest::Method;
use rustix::process::Signal;
use serde_json::json;
use wire::{CommandStatus, EventKind, Record, Status};

const QUICK: Duration = Duration::from_secs(1);

/// What is told of the connection to PM2, and not of one that was slow to answer for a moment, as it
/// may be wherever other work is done.
async fn connection(client: &Client) -> Result<Vec<EventKind>> {
    let page: wire::JournalPage = client.json("/api/journal?after=0&limit=10000").await?;
    let events = page.entries.into_iter().filter_map(|entry| match entry.record {
        Record::Event(event) => Some(event),
        Record::Sample(_) => None,
    });
    let slow =
        |message: &str| message.ends_with("does not answer") || message.ends_with("answers again");
    let about = events.filter(|event| event.kind.as_str().starts_with("pm2_"));
    Ok(about.filter(|event| !slow(&event.message)).map(|event| event.kind).collect())
}

#[tokio::test]
async fn a_hung_daemon_costs_at_most_a_second_and_its_age_is_told() -> Result<()> {
    let pm2 = Pm2::start().await?;
    pm2.start_apps(vec![json!({"name": "web", "script": "web.js"})]).await?;
    // So that every scrape wants something of the daemon.
    let more = "custom_metrics_max_age = \"0\"\nanonymous_read = true";
    let exporter = scene::guarded_exporter(pm2.home(), more).await?;
    let client = exporter.program.client();
    wait_for_instances(client, "web", Status::Online, 1).await?;
    let before: wire::State = client.json("/api/state").await?;
    let confirmed = before.pm2.confirmed_at.context("never confirmed")?;

    pm2.freeze()?;
    for path in ["/metrics", "/api/state", "/api/processes", "/", "/metrics"] {
        let start = Stopwatch::start(&[exporter.program.pid()]);
        client.get(path).await?.ok()?;
        assert!(start.elapsed() <= QUICK, "{path} took {:?}", start.elapsed());
    }
    let state: wire::State = client.json("/api/state").await?;
    assert_eq!(state.processes.len(), 1, "what is known stays");
    let age = state.time.millis_since(state.pm2.confirmed_at.context("no age")?);
    assert!(age >= 0 && state.pm2.confirmed_at >= Some(confirmed), "{state:?}");
    // Not confirmed any more: the age grows from now on.
    let old = state.pm2.confirmed_at;
    wait_until("it is told that PM2 does not answer", SOON, async || {
        let state: wire::State = client.json("/api/state").await.ok()?;
        (!state.pm2.up && state.pm2.confirmed_at == old && state.pm2.error.is_some()).then_some(())
    })
    .await?;
    assert_eq!(metrics(client).await?.value("pm2_up", &[])?, 0.0);
    assert_eq!(client.get("/readyz").await?.status, 503);

    pm2.thaw()?;
    let thawed = Stopwatch::start(&[exporter.program.pid(), pm2.daemon()?]);
    wait_until("it is well again", SOON, async || {
        let page = metrics(client).await.ok()?;
        (page.value("pm2_up", &[]).ok()? == 1.0).then_some(())
    })
    .await?;
    assert!(thawed.elapsed() < Duration::from_secs(2), "after {:?}", thawed.elapsed());
    let state: wire::State = client.json("/api/state").await?;
    assert!(state.pm2.up && state.pm2.error.is_none() && state.pm2.confirmed_at > old);
    Ok(())
}

#[tokio::test]
async fn what_ends_behind_a_hung_daemon_is_not_up_and_reports_nothing() -> Result<()> {
    let pm2 = Pm2::start().await?;
    let app = |name: &str| json!({"name": name, "script": "metrics.js"});
    pm2.start_apps(vec![app("ends"), app("stays")]).await?;
    let more = "custom_metrics_max_age = \"2s\"\nanonymous_read = true";
    let exporter = scene::guarded_exporter(pm2.home(), more).await?;
    let client = exporter.program.client();
    let reports = async |name: &str| {
        let page = metrics(client).await.ok()?;
        let labels = [("name", name)];
        Some([
            page.has("pm2_process_custom", &labels),
            page.has("pm2_process_heap_used_bytes", &labels),
        ])
    };
    for name in ["ends", "stays"] {
        wait_until("it reports", SOON, async || {
            (reports(name).await? == [true, true]).then_some(())
        })
        .await?;
    }
    let before: wire::State = client.json("/api/state").await?;

    pm2.freeze()?;
    // A zombie: the daemon, which hangs, is the one to wait for it.
    let ended = pm2_pid(&before, "ends")?;
    process::signal(ended, Signal::KILL);
    wait_until("its end is told", SOON, async || {
        let page = metrics(client).await.ok()?;
        let up = |name: &str| page.value("pm2_process_up", &[("name", name)]).ok();
        (up("ends")? == 0.0 && up("stays")? == 1.0).then_some(())
    })
    .await?;
    assert!(process::stat(ended).is_some(), "somebody has waited for it: nothing is shown");
    assert_eq!(reports("ends").await, Some([false, false]));
    wait_until("what is too old is left out", SOON, async || {
        (reports("stays").await? == [false, false]).then_some(())
    })
    .await?;
    let state: wire::State = client.json("/api/state").await?;
    assert!(state.revision > before.revision, "a poller would not fetch it");
    let [ends, stays] = &state.processes[..] else { anyhow::bail!("{:?}", state.processes) };
    assert!(ends.online_without_pid && ends.pid.is_none(), "{ends:?}");
    assert!(!stays.online_without_pid && stays.readings.memory_bytes.is_some(), "{stays:?}");
    // What a poller keeps does not age.
    let words = state.pm2.error.context("no error")?;
    let since = state.pm2.confirmed_at.context("never confirmed")?.to_string();
    assert!(words.ends_with(&format!("has not answered since {since}")), "{words}");
    let later: wire::State = client.json("/api/state").await?;
    assert_eq!((later.pm2.error, later.revision), (Some(words), state.revision));

    pm2.thaw()?;
    for name in ["ends", "stays"] {
        wait_until("it reports again", SOON, async || {
            (reports(name).await? == [true, true]).then_some(())
        })
        .await?;
    }
    Ok(())
}

fn pm2_pid(state: &wire::State, name: &str) -> Result<u32> {
    let mut all = state.processes.iter();
    let found = all.find(|process| process.instance.name.as_str() == name);
    found.and_then(|process| process.pid).context("it does not run")
}

#[tokio::test]
async fn a_daemon_that_is_started_again_is_found_within_two_seconds() -> Result<()> {
    let pm2 = Pm2::start().await?;
    pm2.start_apps(vec![json!({"name": "web", "script": "web.js"})]).await?;
    let exporter = scene::exporter(pm2.home()).await?;
    let client = exporter.client();
    wait_for_instances(client, "web", Status::Online, 1).await?;

    pm2.kill_daemon()?;
    wait_until("the loss is told", SOON, async || {
        connection(client).await.ok()?.contains(&EventKind::PM2_DISCONNECTED).then_some(())
    })
    .await?;
    assert!(scene::instances(client, "web").await?.is_empty(), "gone with its daemon");

    pm2.ensure_daemon().await?;
    let back = Stopwatch::start(&[exporter.pid(), pm2.daemon()?]);
    wait_until("it is found again", SOON, async || {
        let state: wire::State = client.json("/api/state").await.ok()?;
        state.pm2.up.then_some(())
    })
    .await?;
    assert!(back.elapsed() < Duration::from_secs(2), "after {:?}", back.elapsed());
    pm2.start_apps(vec![json!({"name": "web", "script": "web.js"})]).await?;
    wait_for_instances(client, "web", Status::Online, 1).await?;

    let told = connection(client).await?;
    assert_eq!(
        told,
        [EventKind::PM2_CONNECTED, EventKind::PM2_DISCONNECTED, EventKind::PM2_CONNECTED]
    );
    Ok(())
}

#[tokio::test]
async fn a_command_to_a_hung_daemon_ends_with_its_deadline() -> Result<()> {
    let pm2 = Pm2::start().await?;
    pm2.start_apps(vec![json!({"name": "web", "script": "web.js"})]).await?;
    let exporter = scene::guarded_exporter(pm2.home(), "").await?;
    wait_for_instances(&exporter.read, "web", Status::Online, 1).await?;
    pm2.freeze()?;
    let start = Stopwatch::start(&[exporter.program.pid()]);
    let answer = exporter.control.post("/api/processes/web/restart?wait=2s").await?;
    assert!(start.elapsed() < Duration::from_secs(10), "took {:?}", start.elapsed());
    assert!(matches!(answer.status, 202 | 502..=504), "{} {}", answer.status, answer.text);
    let stop = exporter.program.stop(SOON).await?;
    assert_eq!(stop.code, Some(0), "{}", stop.stderr);
    Ok(())
}

#[tokio::test]
async fn a_command_that_a_stop_comes_upon_says_how_far_it_came() -> Result<()> {
    let mut processes = pm2_process::processes(6);
    for process in &mut processes {
        process["name"] = json!("web");
        process["pm2_env"]["name"] = json!("web");
    }
    let fake = FakePm2::start(processes)?;
    let exporter = scene::guarded_exporter(fake.home(), "state_dir = \"state\"").await?;
    wait_until("PM2 answers", SOON, async || {
        (exporter.read.get("/readyz").await.ok()?.status == 200).then_some(())
    })
    .await?;
    fake.set_mode(Mode::Slow(Duration::from_millis(800)))?;
    let body = json!({"target": {"app": "web"}, "action": "restart"});
    let request = exporter.control.request(Method::PUT, "/api/commands/c1").json(&body);
    assert_eq!(exporter.control.send(request).await?.status, 202);
    let restarts =
        || fake.calls().iter().filter(|(method, _)| method == "restartProcessId").count();
    wait_until("two are done", SOON, async || (restarts() >= 3).then_some(())).await?;
    let launch = exporter.program.launch();
    let stop = exporter.program.stop(SOON).await?;
    assert_eq!(stop.code, Some(0), "{}", stop.stderr);
    let done = restarts();
    assert!((3..6).contains(&done), "{done}");
    let program = launch.start().await?;
    let client = program.client().with_token(&exporter.token);
    let page: wire::JournalPage = client.json("/api/journal?after=0&limit=10000").await?;
    let ends: Vec<_> = page
        .entries
        .into_iter()
        .filter_map(|entry| match entry.record {
            Record::Event(event) => event.end().map(|end| (end, event.message)),
            Record::Sample(_) => None,
        })
        .collect();
    let [((id, status), message)] = &ends[..] else { panic!("{ends:?}") };
    assert_eq!((id.as_str(), *status), ("c1", CommandStatus::Failed));
    let left = 6 - done;
    let words = format!("{left} of 6 instances: not done: the exporter was stopped");
    assert!(message.ends_with(&words), "{message}");
    Ok(())
}
